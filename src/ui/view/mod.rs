//! A plan in groups by owner, with one line for one resource or for several similar ones. The human, Markdown and
//! HTML formats render this view.

mod item;
mod line;

use std::collections::{BTreeMap, BTreeSet};

use super::Subject;
use super::text::{count, natural, plain};
use crate::engine::address::{Address, Owner};
use crate::engine::drift::Missing;
use crate::engine::kind::Registry;
use crate::engine::plan::{Action, Plan, Step, Summary};

use item::Item;
use line::{folded, whole};

pub(super) use item::Symbol;
pub(super) use line::Line;

/// How detailed the view is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    /// One line for each resource, with every attribute.
    pub all: bool,
    /// The width of a line, in columns.
    pub width: usize,
}

/// The resources of one owner.
pub(super) struct Group {
    pub owner: Owner,
    /// `tenant/12345 globex (premium)`.
    pub label: String,
    pub counts: Summary,
    pub blocked: usize,
    pub lines: Vec<Line>,
    /// Owners whose groups have the same shape as this one, by id and name.
    pub like: Vec<String>,
}

impl Group {
    /// `17 to add, 1 blocked`.
    pub fn tally(&self) -> String {
        let Summary { add, change, replace, destroy } = self.counts;
        let parts = [
            (add, "to add"),
            (change, "to change"),
            (replace, "to replace"),
            (destroy, "to destroy"),
            (self.blocked, "blocked"),
        ];
        let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        match parts.is_empty() {
            true => "left-overs".to_owned(),
            false => parts.join(", "),
        }
    }
}

/// The groups of a plan, in the order of owners.
pub(super) fn groups(plan: &Plan, subject: &Subject, kinds: &Registry, depth: Depth) -> Vec<Group> {
    let mut items: BTreeMap<Owner, Vec<Item<'_>>> = BTreeMap::new();
    let mut by_address: BTreeMap<&Address, Vec<&Step>> = BTreeMap::new();
    for step in &plan.steps {
        by_address.entry(&step.address).or_default().push(step);
    }
    for item in by_address.into_values().filter_map(|steps| Item::of_steps(steps, kinds)) {
        items.entry(item.address.owner()).or_default().push(item);
    }
    for blocked in &plan.blocked {
        items.entry(blocked.address.owner()).or_default().push(Item::of_blocked(blocked, kinds));
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (owner, mut items) in items {
        items.sort_by_key(|i| natural(i.address.local()));
        shapes.entry(shape(&owner, &items, subject)).or_default().push(groups.len());
        let group = Group {
            label: subject.label(&owner),
            counts: counts(&items),
            blocked: items.iter().filter(|i| i.symbol == Symbol::Blocked).count(),
            lines: match depth.all {
                true => items.iter().map(|i| whole(i, kinds)).collect(),
                false => folded(&items, depth.width),
            },
            like: vec![],
            owner,
        };
        groups.push(group);
    }
    if !depth.all {
        merge_alike(&mut groups, shapes.into_values(), subject);
    }
    groups
}

/// One missing resource, as a line.
pub(super) fn missing(one: &Missing) -> String {
    let mut text = plain(one.address.as_str());
    if !one.summary.is_empty() {
        text += &format!(" ({})", plain(&one.summary));
    }
    if !one.controls.is_empty() {
        text += &format!(": {}", one.controls.iter().copied().collect::<Vec<_>>().join(" "));
    }
    if one.within > 0 {
        text += &format!(", with {} in it", count(one.within, "resource"));
    }
    text
}

/// If three or more groups have the same shape, the first one represents all.
fn merge_alike(groups: &mut Vec<Group>, shapes: impl Iterator<Item = Vec<usize>>, subject: &Subject) {
    let mut merged: BTreeSet<usize> = BTreeSet::new();
    for indices in shapes {
        let (Some((first, rest)), true) = (indices.split_first(), indices.len() > 2) else { continue };
        let short = |g: &Group| match &g.owner {
            Owner::Tenancy => g.label.clone(),
            Owner::Pool(name) => name.clone(),
            Owner::Tenant(id) => subject.tenants.get(id).map_or(id.clone(), |t| format!("{id} {}", t.name)),
        };
        let like = rest.iter().filter_map(|i| groups.get(*i)).map(short).collect();
        if let Some(group) = groups.get_mut(*first) {
            group.like = like;
            merged.extend(rest);
        }
    }
    let mut i = 0;
    groups.retain(|_| {
        i += 1;
        !merged.contains(&(i - 1))
    });
}

/// The key for similar groups: everything except ids, names, and the numbers in summaries.
fn shape(owner: &Owner, items: &[Item<'_>], subject: &Subject) -> String {
    let (sort, id) = match owner {
        Owner::Tenancy => ("tenancy", ""),
        Owner::Pool(name) => ("pool", name.as_str()),
        Owner::Tenant(id) => ("tenant", id.as_str()),
    };
    let tenant = subject.tenants.get(id);
    let name = tenant.map_or("", |t| t.name.as_str());
    let mut out = format!("{sort} {}", tenant.map_or("", |t| t.tier.as_str()));
    for item in items {
        let summary = item.summary.replace(|c: char| c.is_ascii_digit(), "#");
        for text in [item.address.local(), &item.key(), &squeezed(&summary)] {
            out.push('\n');
            out += &anonymous(text, id, name);
        }
    }
    out
}

/// `text` with the owner's id and name replaced by placeholders.
fn anonymous(text: &str, id: &str, name: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        match !bare.is_empty() && (bare == id || bare == name) {
            true => {
                out.push('*');
                out.push_str(word.get(bare.len()..).unwrap_or_default());
            }
            false => out.push_str(word),
        }
    }
    out
}

fn squeezed(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c != '#' || !out.ends_with('#') {
            out.push(c);
        }
    }
    out
}

fn counts(items: &[Item<'_>]) -> Summary {
    let mut summary = Summary::default();
    for item in items {
        match item.symbol {
            Symbol::Create => summary.add += 1,
            Symbol::Update | Symbol::Wait => summary.change += 1,
            Symbol::Replace => summary.replace += 1,
            Symbol::Delete => {
                summary.destroy += item.steps.iter().filter(|s| s.action == Action::Delete && !s.replaces).count();
            }
            Symbol::Blocked => {}
        }
    }
    summary
}
