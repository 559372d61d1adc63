//! A plan in groups by owner, with one line for one resource or for several similar ones. The human, Markdown and
//! HTML formats render this view.

use std::collections::{BTreeMap, BTreeSet};

use super::Subject;
use super::detail::{self, Detail, Mark};
use super::text::{count, cut, plain, prose, width};
use super::why;
use crate::engine::address::{Address, Owner};
use crate::engine::diff;
use crate::engine::drift::Missing;
use crate::engine::kind::{Change, Registry};
use crate::engine::plan::{Action, Blocked, Plan, Step, Summary};

/// How detailed the view is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    /// One line for each resource, with every attribute.
    pub all: bool,
    /// The width of a line, in columns.
    pub width: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Symbol {
    Create,
    Update,
    Replace,
    Delete,
    Wait,
    Blocked,
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

/// One resource, or several similar ones.
pub(super) struct Line {
    pub symbol: Symbol,
    /// `silo/subnet/private-{a,b,c}`.
    pub title: String,
    /// A short text about each resource, without repetitions.
    pub summaries: Vec<String>,
    pub controls: Vec<&'static str>,
    pub details: Vec<Detail>,
}

/// The change of one address.
struct Item<'a> {
    address: &'a Address,
    symbol: Symbol,
    kind: &'a str,
    /// True if the resource is an object in a cluster.
    is_object: bool,
    summary: &'a str,
    controls: &'a [&'static str],
    changes: &'a [Change],
    /// The changes that must be made before the deletion.
    first: &'a [Change],
    reason: Option<String>,
    help: Option<String>,
    pending: bool,
    steps: Vec<&'a Step>,
}

impl Symbol {
    pub fn text(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update => "~",
            Self::Replace => "-/+",
            Self::Delete => "-",
            Self::Wait => "…",
            Self::Blocked => "!",
        }
    }
}

impl Line {
    /// As many complete summaries as fit.
    pub fn summary(&self, room: usize) -> String {
        let all = self.summaries.join(", ");
        if width(&all) <= room || self.summaries.len() == 1 {
            return if room < 8 { String::new() } else { cut(&all, room) };
        }
        let mut out = String::new();
        let mut shown = 0;
        for summary in &self.summaries {
            if width(&out) + width(summary) + 3 > room {
                break;
            }
            out += summary;
            out += ", ";
            shown += 1;
        }
        // A summary of one resource says nothing about its similar ones.
        match shown {
            0 | 1 => String::new(),
            _ => out + "…",
        }
    }
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

fn is_object(kind: &str, kinds: &Registry) -> bool {
    kinds.get(kind).is_ok_and(|kind| kind.in_cluster())
}

impl<'a> Item<'a> {
    /// The steps of one address, merged into one change.
    fn of_steps(steps: Vec<&'a Step>, kinds: &Registry) -> Option<Self> {
        let find = |action: Action| steps.iter().copied().find(|s| s.action == action);
        let (create, update, wait, delete) =
            (find(Action::Create), find(Action::Update), find(Action::Wait), find(Action::Delete));
        // An update before a deletion counts as a deletion. An update beside the deletion of an older generation
        // counts as an update.
        let updated = update.filter(|u| delete.is_none_or(|d| d.generation != u.generation));
        let (symbol, step) = match (create, updated.or(wait), delete) {
            (Some(step), _, Some(_)) => (Symbol::Replace, step),
            (Some(step), _, None) if step.replaces => (Symbol::Replace, step),
            (Some(step), _, None) => (Symbol::Create, step),
            (None, Some(step), _) if step.action == Action::Wait => (Symbol::Wait, step),
            (None, Some(step), _) => (Symbol::Update, step),
            (None, None, Some(step)) => (Symbol::Delete, step),
            (None, None, None) => return None,
        };
        // A change that forces the replacement is more precise than the step's reason.
        let told = step.changes.iter().any(|c| c.replaces);
        Some(Self {
            address: &step.address,
            symbol,
            kind: step.kind,
            is_object: is_object(step.kind, kinds),
            summary: &step.summary,
            controls: &step.controls,
            changes: &step.changes,
            first: update.filter(|_| updated.is_none()).map(|u| u.changes.as_slice()).unwrap_or_default(),
            reason: step.why.as_ref().filter(|_| !told).map(why::done),
            help: None,
            pending: false,
            steps,
        })
    }

    fn of_blocked(blocked: &'a Blocked, kinds: &Registry) -> Self {
        Self {
            address: &blocked.address,
            symbol: Symbol::Blocked,
            kind: &blocked.kind,
            is_object: is_object(&blocked.kind, kinds),
            summary: "",
            controls: if blocked.why.is_unmet() { &blocked.controls } else { &[] },
            changes: &blocked.changes,
            first: &[],
            reason: Some(why::not(&blocked.why)),
            help: why::help(&blocked.why),
            pending: blocked.why.is_pending(),
            steps: vec![],
        }
    }

    /// Two changes with the same key share a line. The key doesn't have the address.
    fn key(&self) -> String {
        let kind = match self.summary.split_once(' ') {
            // Objects of one kind share a line, whichever controls they carry.
            Some((kind, _)) if self.is_object => kind.to_owned(),
            _ if self.summary.is_empty() => format!("{:?}", self.controls),
            _ => format!("{} {:?}", self.kind, self.controls),
        };
        format!("{:?} {kind} {:?} {:?} {}", self.symbol, self.reason, self.help, self.pending) + &self.changes_key()
    }

    fn changes_key(&self) -> String {
        serde_json::to_string(&(self.first, self.changes)).unwrap_or_default()
    }
}

/// The lines of one group, with similar resources merged.
fn folded(items: &[Item<'_>], room: usize) -> Vec<Line> {
    // By key, in the order of the first resource of each key.
    let mut buckets: Vec<(String, Vec<&Item<'_>>)> = Vec::new();
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    let mut masses: BTreeMap<String, usize> = BTreeMap::new();
    for item in items {
        if matches!(item.symbol, Symbol::Update | Symbol::Blocked) {
            *masses.entry(item.key_of_mass()).or_default() += 1;
        }
    }
    for item in items {
        let mass = masses.get(&item.key_of_mass()).is_some_and(|n| *n > 5);
        let key = match mass {
            true => item.key_of_mass(),
            false => format!("{} {}", parent(item.address.local()), item.key()),
        };
        let at = *index.entry(key.clone()).or_insert(buckets.len());
        match buckets.get_mut(at) {
            Some((_, bucket)) => bucket.push(item),
            None => buckets.push((if mass { key } else { String::new() }, vec![item])),
        }
    }
    let mut lines: Vec<(Vec<Part>, Line)> = Vec::new();
    for (mass, bucket) in buckets {
        let sets = match mass.is_empty() {
            true => siblings(&bucket),
            false => vec![(String::new(), bucket)],
        };
        for (stem, set) in sets {
            let Some(first) = set.first() else { continue };
            lines.push((natural(first.address.local()), line(first, &set, &stem, room, !mass.is_empty())));
        }
    }
    lines.sort_by(|(a, _), (b, _)| a.cmp(b));
    lines.into_iter().map(|(_, line)| line).collect()
}

impl Item<'_> {
    fn why(&self, reason: &str) -> Detail {
        let wrong = self.symbol == Symbol::Blocked && !self.pending;
        Detail::new(0, if wrong { Mark::Alert } else { Mark::Plain }, prose(reason))
    }

    /// Resources with the same key are counted on one line, in all groups.
    fn key_of_mass(&self) -> String {
        format!("{:?} {:?} {:?} {}", self.symbol, self.reason, self.help, self.pending) + &self.changes_key()
    }
}

/// Splits siblings by the start of their names, if the names end in a zone or a number: `private-{a,b,c}`. Other
/// siblings stay together.
fn siblings<'a, 'b>(items: &[&'b Item<'a>]) -> Vec<(String, Vec<&'b Item<'a>>)> {
    let stem = |item: &Item<'_>| {
        let (stem, tail) = leaf(item.address.local()).rsplit_once('-')?;
        (tail.len() <= 2 && !stem.is_empty()).then(|| format!("{stem}-"))
    };
    let mut sets: BTreeMap<String, Vec<&Item<'_>>> = BTreeMap::new();
    for item in items {
        sets.entry(stem(item).unwrap_or_default()).or_default().push(item);
    }
    let alone: Vec<String> =
        sets.iter().filter(|(k, v)| !k.is_empty() && v.len() < 2).map(|(k, _)| k.clone()).collect();
    for key in alone {
        let item = sets.remove(&key).unwrap_or_default();
        sets.entry(String::new()).or_default().extend(item);
    }
    sets.into_iter().collect()
}

/// The common start of all names, up to a dash.
fn common<'a>(names: &[&'a str]) -> &'a str {
    let first = names.first().copied().unwrap_or_default();
    let dashes = first.match_indices('-').map(|(i, _)| first.get(..=i).unwrap_or_default());
    dashes.rev().find(|stem| names.iter().all(|n| n.starts_with(stem))).unwrap_or_default()
}

/// One line for `items`. `first` is the first of them.
fn line(first: &Item<'_>, items: &[&Item<'_>], stem: &str, room: usize, mass: bool) -> Line {
    let mut details = Vec::new();
    let title = match items {
        [one] => plain(one.address.local()),
        _ if mass => {
            let noun = match first.is_object {
                true => "in-cluster object",
                false => "resource",
            };
            let same = items.iter().all(|i| i.is_object == first.is_object);
            let list = items.iter().map(|i| plain(i.address.local())).collect::<Vec<_>>().join(", ");
            details.push(Detail::new(0, Mark::Dim, cut(&list, room.saturating_sub(8))));
            count(items.len(), if same { noun } else { "resource" })
        }
        many => {
            let mut names: Vec<&str> = many.iter().map(|i| leaf(i.address.local())).collect();
            names.sort_by_key(|n| natural(n));
            let stem = if stem.is_empty() { common(&names) } else { stem };
            let names: Vec<String> = names.iter().map(|n| plain(n.strip_prefix(stem).unwrap_or(n))).collect();
            let parent = match parent(first.address.local()) {
                "" => String::new(),
                parent => format!("{}/", plain(parent)),
            };
            braces(&format!("{parent}{stem}"), &names, room.saturating_sub(20))
        }
    };
    let mut controls: Vec<&'static str> = Vec::new();
    for control in items.iter().flat_map(|i| i.controls) {
        if !controls.contains(control) {
            controls.push(control);
        }
    }
    let mut summaries: Vec<String> = Vec::new();
    for item in items {
        let summary = plain(item.summary);
        if !summary.is_empty() && !summaries.contains(&summary) {
            summaries.push(summary);
        }
    }
    if let Some(reason) = &first.reason {
        details.push(first.why(reason));
    }
    let first_of_all = first.first.iter().map(|c| detail::short(c, room.saturating_sub(15)));
    details.extend(first_of_all.map(|d| Detail { text: format!("first: {}", d.text), ..d }));
    const CHANGES: usize = 5;
    details.extend(first.changes.iter().take(CHANGES).map(|c| detail::short(c, room.saturating_sub(8))));
    if first.changes.len() > CHANGES {
        details.push(Detail::new(0, Mark::Dim, format!("… {} more (-v)", first.changes.len() - CHANGES)));
    }
    details.extend(first.help.as_deref().map(helped));
    Line {
        symbol: first.symbol,
        title,
        summaries: if mass { vec![] } else { summaries },
        controls: if mass { vec![] } else { controls },
        details,
    }
}

fn helped(help: &str) -> Detail {
    Detail::new(0, Mark::Dim, format!("help: {}", prose(help)))
}

/// One resource with all its details.
fn whole(item: &Item<'_>, kinds: &Registry) -> Line {
    let mut details = Vec::new();
    if let Some(reason) = &item.reason {
        details.push(item.why(reason));
    }
    let first_of_all = item.first.iter().flat_map(detail::full);
    details.extend(first_of_all.map(|d| Detail { text: format!("first: {}", d.text), ..d }));
    if let Some(found) = item.steps.iter().find_map(|s| s.found.as_ref()) {
        details.push(Detail::new(0, Mark::Dim, format!("id: {}", plain(&found.id))));
    }
    details.extend(item.changes.iter().flat_map(detail::full));
    let made = item.steps.iter().find(|s| s.action == Action::Create).and_then(|s| s.state.as_ref());
    if let Some(state) = made {
        let rules = kinds.get(item.kind).map(|k| k.rules()).unwrap_or_default();
        details.extend(detail::attributes(&diff::masked(state, rules)));
    }
    details.extend(item.help.as_deref().map(helped));
    Line {
        symbol: item.symbol,
        title: plain(item.address.local()),
        summaries: Some(plain(item.summary)).filter(|s| !s.is_empty()).into_iter().collect(),
        controls: item.controls.to_vec(),
        details,
    }
}

/// `prefix{a,b,c}`, in about `room` columns.
pub(super) fn braces(prefix: &str, names: &[String], room: usize) -> String {
    let whole = format!("{prefix}{{{}}}", names.join(","));
    if width(&whole) <= room || names.len() < 3 {
        return whole;
    }
    let mut out = format!("{prefix}{{");
    let mut shown = 0;
    for name in names {
        if shown > 0 && width(&out) + width(name) + 12 > room {
            break;
        }
        out.push_str(name);
        out.push(',');
        shown += 1;
    }
    match names.len() - shown {
        // The hint would be about as long as the last name.
        0 | 1 => whole,
        left => format!("{out}… {left} more}}"),
    }
}

fn parent(local: &str) -> &str {
    local.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn leaf(local: &str) -> &str {
    local.rsplit_once('/').map_or(local, |(_, leaf)| leaf)
}

/// A sort key that puts `a-10` after `a-9`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Number(u64),
    Text(String),
}

pub(super) fn natural(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let digit = c.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(match part.parse() {
            Ok(number) if digit => Part::Number(number),
            _ => Part::Text(part.to_owned()),
        });
        rest = after;
    }
    parts
}
