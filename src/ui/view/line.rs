//! Lines of a view: one resource, or several similar ones.

use std::collections::BTreeMap;

use super::item::{Item, Symbol};
use crate::engine::diff;
use crate::engine::kind::Registry;
use crate::engine::plan::Action;
use crate::ui::detail::{self, Detail, Mark};
use crate::ui::text::{Part, count, cut, natural, plain, prose, width};

/// One resource, or several similar ones.
pub struct Line {
    pub symbol: Symbol,
    /// `silo/subnet/private-{a,b,c}`.
    pub title: String,
    /// A short text about each resource, without repetitions.
    pub summaries: Vec<String>,
    pub controls: Vec<&'static str>,
    pub details: Vec<Detail>,
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

/// The lines of one group, with similar resources merged.
pub(super) fn folded(items: &[Item<'_>], room: usize) -> Vec<Line> {
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
pub(super) fn whole(item: &Item<'_>, kinds: &Registry) -> Line {
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
        details.extend(state.read(|state| detail::attributes(&diff::masked(state, rules))));
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
fn braces(prefix: &str, names: &[String], room: usize) -> String {
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
