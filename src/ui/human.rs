//! Plans and reports for a person at a terminal.

use std::collections::{BTreeMap, BTreeSet};

use super::Subject;
use super::detail::{Detail, Mark};
use super::text::{Paint, count, duration, hang, hang_list, padded, plain, width};
use super::view::{self, Depth, Group, Line, Symbol};
use super::why;
use crate::engine::address::{Address, Owner};
use crate::engine::drift::Drift;
use crate::engine::error::Error;
use crate::engine::kind::Registry;
use crate::engine::plan::{Action, Blocked, HOME, Loss, Plan, Step, Summary};
use crate::engine::report::{Outcome, Report};

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
    match (plan.blocked_clusters.len(), waiting.len(), drift.absent.values().sum::<usize>(), drift.left) {
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
    if !plan.notes.is_empty() {
        out.push('\n');
        for note in &plan.notes {
            hang(out, "Note: ", note, room);
        }
    }
    if !subject.wrong.is_empty() {
        out.push('\n');
        out.push_str(&super::failure::findings(&subject.wrong, layout));
        let text = "`apply` would stop before its first write: AWS doesn't offer in this region what the spec names";
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
    for one in &plan.blocked_clusters {
        let what = format!("Waiting: objects in cluster {} ({})", plain(&one.cluster), count(one.objects, "object"));
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
    names.sort_by_key(|n| view::natural(n));
    let few = if layout.verbose { names.len() } else { 8 };
    hang_list(out, "    ", &first_of(names, few), layout.width);
}

/// The end of a run.
pub(super) fn report(report: &Report, plan: &Plan, ending: &super::Ending<'_>, layout: Layout) -> String {
    let Layout { paint, width: room, .. } = layout;
    let mut out = String::new();
    // An empty line separates the report from the progress lines.
    out.push('\n');
    let mut failed = report.failed().peekable();
    if failed.peek().is_some() {
        section(&mut out, &paint.red("Failed"));
    }
    for (line, error) in failed {
        out.push_str(&format!(
            "  {} {}: not {}\n",
            paint.red("✗"),
            plain(line.address.as_str()),
            done(line.action, line.replaces)
        ));
        hang(&mut out, "      ", &error.to_string(), room);
        if let Some(left) = left_behind(line.action, error) {
            hang(&mut out, "      ", left, room);
        }
        if let Some(help) = super::failure::help(error) {
            hang(&mut out, "      help: ", &help, room);
        }
    }
    unmet(&mut out, report, layout);
    held(&mut out, report, layout);
    skipped(&mut out, report, layout);
    let mut abandoned: Vec<String> = report.abandoned().map(|l| l.address.to_string()).collect();
    if !abandoned.is_empty() {
        let what = format!("Abandoned while running: {}", count(abandoned.len(), "step"));
        section(&mut out, &paint.yellow(&what));
        list(&mut out, &mut abandoned, layout);
        hang(&mut out, "      ", "AWS may still complete these steps. Run the same command to see their result.", room);
    }
    let idle = report.lines.iter().filter(|l| matches!(l.outcome, Outcome::NotStarted)).count();
    if idle > 0 {
        section(&mut out, &paint.yellow(&format!("Not started: {}", count(idle, "step"))));
    }
    blocked(&mut out, plan, layout);
    clusters(&mut out, plan, layout);
    if !report.differs.is_empty() {
        section(&mut out, &paint.red("Different from the spec although the run changed them"));
        for (address, how) in &report.differs {
            hang(&mut out, &format!("  {}: ", plain(address.as_str())), &why::differs(how), room);
        }
        hang(
            &mut out,
            "    ",
            "Either another program changes these resources at the same time, or this is a bug in ringfence. Please report it if nothing else changes them.",
            room,
        );
    }
    unconfirmed(&mut out, report, layout);
    if out.len() > 1 {
        out.push('\n');
    }
    let verdict = self::verdict_of(report, plan, ending);
    out.push_str(&match complete(report, plan) {
        true => paint.green(&verdict),
        false => paint.red(&verdict),
    });
    out.push('\n');
    if let Some(note) = ending.note {
        hang(&mut out, "", note, room);
    }
    if let Some(next) = ending.next {
        hang(&mut out, "Next: ", next, room);
    } else if !complete(report, plan) {
        let next = match (all_done(report, plan), report.failed().any(|(_, error)| error.class.is_for_good())) {
            (true, _) => "run the same command again; it reads what exists and continues from there",
            (false, true) => {
                "repair what AWS refused above, then run the same command; it reads what exists and continues from there"
            }
            (false, false) => "run the same command again; it reads what exists and continues from there",
        };
        let gone: Vec<String> = ending.gone.iter().map(|a| format!("--allow-destroy {}", plain(a.as_str()))).collect();
        let without = match gone.is_empty() {
            true => String::new(),
            false => format!(", without {}, because that is deleted already", gone.join(" ")),
        };
        hang(&mut out, "Next: ", &format!("{next}{without}"), room);
    }
    out
}

/// True if every step is done and verified, and nothing waits or differs.
pub(super) fn complete(report: &Report, plan: &Plan) -> bool {
    all_done(report, plan) && report.unconfirmed.is_empty()
}

fn all_done(report: &Report, plan: &Plan) -> bool {
    report.lines.iter().all(|l| matches!(l.outcome, Outcome::Done))
        && report.differs.is_empty()
        && !report.interrupted
        && plan.blocked.is_empty()
        && plan.blocked_clusters.is_empty()
}

fn verdict_of(report: &Report, plan: &Plan, ending: &super::Ending<'_>) -> String {
    let Summary { add, change, replace, destroy } = report.done();
    let run = if ending.destroy { "Destroy" } else { "Apply" };
    let how = match (complete(report, plan), report.interrupted) {
        (true, _) => "complete",
        (false, true) => "interrupted",
        (false, false) if all_done(report, plan) => "done but not confirmed",
        (false, false) => "incomplete",
    };
    format!(
        "{run} {how}: {add} added, {change} changed, {replace} replaced, {destroy} destroyed in {}.",
        duration(report.took)
    )
}

fn section(out: &mut String, title: &str) {
    if out.len() > 1 {
        out.push('\n');
    }
    out.push_str(title);
    out.push('\n');
}

/// Objects whose API the cluster doesn't serve, each with its controls.
fn unmet(out: &mut String, report: &Report, layout: Layout) {
    for (line, error) in report.unmet() {
        let controls = match line.controls.is_empty() {
            true => "an object was not created".to_owned(),
            false => line.controls.join(", "),
        };
        section(out, &layout.paint.red(&format!("Unmet: {controls}")));
        hang(out, &format!("  {}: ", plain(line.address.as_str())), &error.message, layout.width);
        if let Some(help) = super::failure::help(error) {
            hang(out, "      help: ", &help, layout.width);
        }
    }
}

/// Steps that a cluster's API server blocked, by reason.
fn held(out: &mut String, report: &Report, layout: Layout) {
    let mut reasons: BTreeMap<(&str, Option<&str>), Vec<String>> = BTreeMap::new();
    for (line, error) in report.blocked() {
        reasons.entry((&error.message, error.help.as_deref())).or_default().push(line.address.to_string());
    }
    for ((reason, help), mut names) in reasons {
        section(out, &layout.paint.yellow(&format!("Waiting: {}", count(names.len(), "resource"))));
        list(out, &mut names, layout);
        hang(out, "      ", reason, layout.width);
        if let Some(help) = help {
            hang(out, "      help: ", help, layout.width);
        }
    }
}

/// Steps that are done but couldn't be verified.
fn unconfirmed(out: &mut String, report: &Report, layout: Layout) {
    for one in &report.unconfirmed {
        let n = one.addresses.len();
        let title = format!("Done, but not confirmed: {}", count(n, "resource"));
        section(out, &layout.paint.red(&title));
        list(out, &mut one.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), layout);
        let why = format!("The resources were written, but could not be read again to verify them: {}", one.error);
        hang(out, "      ", &why, layout.width);
        if let Some(help) = super::failure::help(&one.error) {
            hang(out, "      help: ", &help, layout.width);
        }
    }
}

/// Skipped steps, by the first failure that caused them.
fn skipped(out: &mut String, report: &Report, layout: Layout) {
    let mut because: BTreeMap<&Address, &Address> = BTreeMap::new();
    for line in &report.lines {
        if let Outcome::Skipped { because: cause } = &line.outcome {
            because.insert(&line.address, cause);
        }
    }
    let mut roots: BTreeMap<&Address, Vec<String>> = BTreeMap::new();
    for (address, cause) in &because {
        let mut root = *cause;
        let mut seen = BTreeSet::new();
        while let Some(next) = because.get(root).filter(|_| seen.insert(root)) {
            root = next;
        }
        roots.entry(root).or_default().push(address.to_string());
    }
    for (root, mut names) in roots {
        let title = format!("Skipped because of {}: {}", plain(root.as_str()), count(names.len(), "resource"));
        section(out, &layout.paint.yellow(&title));
        list(out, &mut names, layout);
    }
}

/// Resources that the plan couldn't change, by reason.
fn blocked(out: &mut String, plan: &Plan, layout: Layout) {
    let mut reasons: BTreeMap<(bool, String, Option<String>), Vec<String>> = BTreeMap::new();
    for Blocked { address, why, .. } in plan.blocked.iter().filter(|b| b.why.unread().is_none()) {
        let reason = (why.is_pending(), why::not(why), why::help(why));
        reasons.entry(reason).or_default().push(address.to_string());
    }
    for ((pending, reason, help), mut names) in reasons {
        let title = if pending { "Waiting" } else { "Blocked" };
        section(out, &layout.paint.yellow(&format!("{title}: {}", count(names.len(), "resource"))));
        list(out, &mut names, layout);
        hang(out, "      ", &reason, layout.width);
        if let Some(help) = help {
            hang(out, "      help: ", &help, layout.width);
        }
    }
}

/// What a failed step may have left behind in AWS.
fn left_behind(action: Action, error: &Error) -> Option<&'static str> {
    use crate::engine::error::Class;
    match (action, error.class) {
        (Action::Create, Class::Failed) => {
            Some("the resource exists in a failed state; the next run repairs or replaces it")
        }
        (Action::Create, Class::Timeout) => {
            Some("the resource exists and AWS was still creating it; the next run waits for it")
        }
        (Action::Create, Class::Unclear) => {
            Some("the resource may exist; the next run looks for it by its tags before it creates another one")
        }
        (Action::Create, _) => {
            Some("the resource may exist in part, with its tags; the next run finds it by them and continues")
        }
        (Action::Delete, Class::Timeout) => Some("AWS was still deleting the resource; the next run waits for it"),
        (Action::Delete, _) => Some("the resource still exists"),
        (Action::Update, _) => Some("the resource exists; some of the changes may have been made"),
        (Action::Wait, _) => Some("the resource exists; this run didn't change it"),
    }
}

/// The past participle of a step's action.
pub(super) fn done(action: Action, replaces: bool) -> &'static str {
    match (action, replaces) {
        (Action::Create, false) => "created",
        (Action::Create, true) => "created anew",
        (Action::Update, _) => "changed",
        (Action::Wait, _) => "ready",
        (Action::Delete, false) => "destroyed",
        (Action::Delete, true) => "destroyed (the old one)",
    }
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
