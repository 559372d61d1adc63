//! Plans and reports for a person at a terminal.

mod report;

use std::collections::{BTreeMap, BTreeSet};

use super::Subject;
use super::detail::{Detail, Mark};
use super::text::{Paint, count, hang, hang_list, natural, padded, plain, width};
use super::view::{self, Depth, Group, Line, Symbol};
use super::why;
use crate::engine::address::{Address, Owner};
use crate::engine::drift::Drift;
use crate::engine::kind::Registry;
use crate::engine::plan::{Action, HOME, Loss, Plan, Step, Summary};

pub(super) use report::{complete, done, report};

/// How text is laid out.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub paint: Paint,
    pub width: usize,
    pub verbose: bool,
}

/// The whole plan. The last line has terraform's wording, which users and scripts know.
pub(super) fn plan(plan: &Plan, subject: &Subject, kinds: &Registry, layout: Layout) -> String {
    let Layout { paint, width: room, verbose } = layout;
    let mut out = String::new();
    let head = subject.heading();
    out.push_str(&paint.bold(&head));
    out.push('\n');
    for line in subject.scope() {
        out.push_str(&line);
        out.push('\n');
    }
    missing(&mut out, plan, layout);
    for group in view::groups(plan, subject, kinds, Depth { all: verbose, width: room }) {
        out.push('\n');
        self::group(&mut out, &group, layout);
    }
    tail(&mut out, plan, subject, layout);
    out.push('\n');
    out.push_str(&paint.bold(&verdict(plan, subject)));
    out.push('\n');
    out
}

/// The last line of a plan.
pub(super) fn verdict(plan: &Plan, subject: &Subject) -> String {
    if let Some(verdict) = plan.drift.as_ref().and_then(|drift| verdict_of_drift(plan, drift)) {
        return verdict;
    }
    if !plan.is_empty() {
        let Summary { add, change, replace, destroy } = plan.summary();
        return format!("Plan: {add} to add, {change} to change, {replace} to replace, {destroy} to destroy.");
    }
    let what = match (plan.unchanged, subject.policy.destroy) {
        (_, true) => "There is nothing to destroy.".to_owned(),
        (0, _) => "The spec has no resources to create.".to_owned(),
        (1, _) => "1 resource matches the spec.".to_owned(),
        (n, _) => format!("All {n} resources match the spec."),
    };
    match plan.kept.iter().any(|k| k.kind == HOME) {
        true => format!("No changes. {what} A former placement of a tenant is kept until its deletion is confirmed."),
        false => format!("No changes. {what}"),
    }
}

/// The last line for drift. `None` if everything was read and matches the spec.
fn verdict_of_drift(plan: &Plan, drift: &Drift) -> Option<String> {
    let changed = plan.steps.iter().map(|s| &s.address).collect::<BTreeSet<_>>().len();
    let (waiting, wrong): (Vec<_>, Vec<_>) = plan.blocked.iter().partition(|b| b.why.is_pending() || b.why.is_unmet());
    let parts = [(drift.missing.len(), "missing"), (changed, "changed"), (wrong.len(), "blocked")];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if !parts.is_empty() {
        return Some(format!("Drift: {}.", parts.join(", ")));
    }
    match (plan.unread_hosts.len(), waiting.len(), drift.absent.values().sum::<usize>(), drift.left) {
        (0, 0, 0, 0) => None,
        (0, 0, absent, 0) => {
            Some(format!("No drift in the resources that exist, but {} not created yet.", are(absent)))
        }
        (0, 0, _, _) => {
            Some("No drift in the resources that the spec has; see the notes for other resources.".to_owned())
        }
        (0, n, _, _) => Some(format!("No drift in the resources that could be compared; {} blocked.", are(n))),
        (n, _, _, _) => Some(format!(
            "No drift in the resources that could be read; the objects in {} could not be read.",
            count(n, "cluster")
        )),
    }
}

fn are(resources: usize) -> String {
    format!("{} {}", count(resources, "resource"), if resources == 1 { "is" } else { "are" })
}

/// Missing resources come first, because one of them may be a security control.
fn missing(out: &mut String, plan: &Plan, layout: Layout) {
    let missing = plan.drift.iter().flat_map(|d| &d.missing).collect::<Vec<_>>();
    if missing.is_empty() {
        return;
    }
    out.push('\n');
    out.push_str(&layout.paint.red(MISSING));
    out.push('\n');
    for one in missing {
        let mut text = String::new();
        hang(&mut text, "  ✗ ", &view::missing(one), layout.width);
        out.push_str(&match one.controls.is_empty() {
            true => text,
            false => text.lines().map(|line| layout.paint.red(line) + "\n").collect(),
        });
    }
    hang(out, "        ", MISSING_HELP, layout.width);
}

pub(super) const MISSING: &str = "Missing resources, although the cluster, VPC or namespace that contains them exists";
pub(super) const MISSING_HELP: &str = "Someone deleted them outside of ringfence, or the spec has them only since the last apply; `ringfence apply` creates them";

fn group(out: &mut String, group: &Group, layout: Layout) {
    let Layout { paint, width: room, .. } = layout;
    out.push_str(&paint.bold(&group.label));
    out.push('\n');
    // The second column starts after most titles. Longer titles extend into it.
    let aside = |l: &&Line| !l.summaries.is_empty() || !l.controls.is_empty();
    let pad =
        group.lines.iter().filter(aside).map(|l| width(&l.title)).filter(|w| *w <= room * 2 / 5).max().unwrap_or(0);
    for one in &group.lines {
        line(out, one, pad, layout);
    }
    if !group.like.is_empty() {
        let noun = match group.owner {
            Owner::Tenant(_) => "tenant",
            Owner::Pool(_) | Owner::Tenancy => "pool",
        };
        out.push('\n');
        let owner = group.owner.to_string();
        out.push_str(&paint.bold(&format!(
            "{} like {}, {} each",
            count(group.like.len(), noun),
            plain(&owner),
            group.tally()
        )));
        out.push_str(&paint.dim(" (-v shows all)"));
        out.push('\n');
        hang_list(out, "    ", &first_of(&group.like, 24), room);
    }
}

fn line(out: &mut String, line: &Line, pad: usize, layout: Layout) {
    let Layout { paint, width: room, .. } = layout;
    out.push_str(&symbol(line.symbol, paint));
    let controls = line.controls.join(" ");
    let taken = 4 + width(&line.title).max(pad) + 2;
    let left = room.saturating_sub(taken + if controls.is_empty() { 0 } else { width(&controls) + 2 });
    let summary = line.summary(left);
    match summary.is_empty() && controls.is_empty() {
        true => out.push_str(&line.title),
        false => out.push_str(&format!("{}  ", padded(&line.title, pad))),
    }
    out.push_str(&summary);
    if !controls.is_empty() {
        if !summary.is_empty() {
            out.push_str("  ");
        }
        out.push_str(&paint.dim(&controls));
    }
    out.push('\n');
    for detail in &line.details {
        self::detail(out, detail, layout);
    }
}

fn detail(out: &mut String, detail: &Detail, layout: Layout) {
    let Layout { paint, width: room, verbose } = layout;
    let indent = " ".repeat(8 + 2 * detail.depth);
    let mut text = String::new();
    // Values stay on their line; only sentences are wrapped.
    match verbose || detail.text.len() + indent.len() <= room || !detail.text.contains(' ') {
        true => text = format!("{indent}{}\n", plain(&detail.text)),
        false => hang(&mut text, &indent, &detail.text, room),
    }
    for line in text.lines() {
        let (space, words) = line.split_at(line.len() - line.trim_start().len());
        out.push_str(space);
        out.push_str(&match detail.mark {
            Mark::Plain => words.to_owned(),
            Mark::Added => paint.green(words),
            Mark::Removed => paint.red(words),
            Mark::Dim => paint.dim(words),
            Mark::Alert => paint.red(words),
        });
        out.push('\n');
    }
}

fn symbol(symbol: Symbol, paint: Paint) -> String {
    let text = format!("{:>3} ", symbol.text());
    match symbol {
        Symbol::Create => paint.green(&text),
        Symbol::Update | Symbol::Wait => paint.yellow(&text),
        Symbol::Replace | Symbol::Delete | Symbol::Blocked => paint.red(&text),
    }
}

/// The part below the groups: kept resources, losses to confirm, notes.
fn tail(out: &mut String, plan: &Plan, subject: &Subject, layout: Layout) {
    let Layout { paint, width: room, verbose } = layout;
    if !plan.kept.is_empty() {
        out.push('\n');
        out.push_str(&paint.bold("Stays"));
        out.push('\n');
        let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in &plan.kept {
            let name = match verbose {
                true => format!("{} ({})", one.address, one.id),
                false => one.address.to_string(),
            };
            kept.entry(why::kept(&one.why)).or_default().push(name);
        }
        for (reason, mut names) in kept {
            list(out, &mut names, layout);
            hang(out, "        ", &reason, room);
        }
    }
    clusters(out, plan, layout);
    if !plan.confirm.is_empty() {
        out.push('\n');
        out.push_str(&paint.red("These deletions lose work or data and must be confirmed"));
        out.push('\n');
        for Loss { address, lost, kept } in &plan.confirm {
            let deleted = |s: &&Step| s.action == Action::Delete && s.address.is_within(address);
            let n = plan.steps.iter().filter(deleted).count();
            out.push_str(&format!("    {} ({})\n", plain(address.as_str()), count(n, "resource")));
            for what in lost {
                hang(out, "        - ", what, room);
            }
            if !kept.is_empty() {
                hang(out, "        kept: ", &names(kept), room);
            }
        }
        hang(out, "    ", how_confirmed(subject), room);
    }
    let notes = why::notes(plan, subject);
    if !notes.is_empty() {
        out.push('\n');
    }
    for note in &notes {
        hang(out, "Note: ", note, room);
    }
    if !subject.wrong.is_empty() {
        out.push('\n');
        out.push_str(&super::failure::findings(&subject.wrong, layout));
        let text = "`apply` would stop before its first write, because AWS doesn't offer these settings of the spec in this region";
        hang(out, "", text, room);
    }
}

pub(super) fn names(addresses: &[Address]) -> String {
    addresses.iter().map(Address::as_str).collect::<Vec<_>>().join(", ")
}

/// How a user confirms the losses of a plan.
pub(super) fn how_confirmed(subject: &Subject) -> &'static str {
    match (subject.policy.destroy, subject.policy.tenants.is_empty()) {
        (true, true) => {
            "On a terminal, destroy asks for each deletion. Without a terminal, --auto-approve confirms all of them."
        }
        (true, false) => {
            "On a terminal, destroy asks for each deletion. Without a terminal, add --allow-destroy ADDRESS for each of them."
        }
        (false, _) => {
            "On a terminal, apply asks for each deletion. Without a terminal, add --allow-destroy ADDRESS for each of them."
        }
    }
}

/// The clusters whose objects couldn't be read.
fn clusters(out: &mut String, plan: &Plan, layout: Layout) {
    for one in &plan.unread_hosts {
        let what = format!("Waiting: objects in cluster {} ({})", plain(&one.host), count(one.objects, "object"));
        section(out, &layout.paint.yellow(&what));
        hang(out, "      ", &one.reason, layout.width);
        if let Some(help) = &one.help {
            hang(out, "      help: ", help, layout.width);
        }
    }
}

/// The first names of a list, and how many more there are.
fn first_of(names: &[String], few: usize) -> Vec<String> {
    let mut first: Vec<String> = names.iter().take(few).cloned().collect();
    if names.len() > few {
        first.push(format!("… {} more", names.len() - few));
    }
    first
}

fn list(out: &mut String, names: &mut [String], layout: Layout) {
    names.sort_by_key(|n| natural(n));
    let few = if layout.verbose { names.len() } else { 8 };
    hang_list(out, "    ", &first_of(names, few), layout.width);
}

fn section(out: &mut String, title: &str) {
    if out.len() > 1 {
        out.push('\n');
    }
    out.push_str(title);
    out.push('\n');
}

/// The number of calls by action, the most frequent first.
pub(super) fn calls(calls: &BTreeMap<String, u64>, paint: Paint) -> String {
    let mut sorted: Vec<(&String, &u64)> = calls.iter().collect();
    sorted.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    let total: u64 = calls.values().sum();
    let mut out = format!("\n{}\n", paint.bold("Calls by action"));
    for (action, n) in sorted {
        out.push_str(&format!("{n:>7}  {}\n", plain(action)));
    }
    out.push_str(&format!("{total:>7}  in total\n"));
    out
}
