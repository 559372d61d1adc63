//! Reports of runs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Layout, clusters, list, section};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error};
use crate::engine::plan::{Action, Blocked, Plan, Summary};
use crate::engine::report::{Outcome, Report};
use crate::ui::text::{count, duration, hang, plain};
use crate::ui::{Ending, failure, why};

/// The end of a run.
pub fn report(report: &Report, plan: &Plan, ending: &Ending<'_>, layout: Layout) -> String {
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
        if let Some(help) = failure::help(error) {
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
            false => format!(", without {}, because that deletion is done", gone.join(" ")),
        };
        hang(&mut out, "Next: ", &format!("{next}{without}"), room);
    }
    out
}

/// True if every step is done and verified, and nothing waits or differs.
pub fn complete(report: &Report, plan: &Plan) -> bool {
    all_done(report, plan) && report.unconfirmed.is_empty()
}

fn all_done(report: &Report, plan: &Plan) -> bool {
    report.lines.iter().all(|l| matches!(l.outcome, Outcome::Done))
        && report.differs.is_empty()
        && !report.interrupted
        && plan.blocked.is_empty()
        && plan.unread_hosts.is_empty()
}

fn verdict_of(report: &Report, plan: &Plan, ending: &Ending<'_>) -> String {
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

/// Objects whose API the cluster doesn't serve, each with its controls.
fn unmet(out: &mut String, report: &Report, layout: Layout) {
    for (line, error) in report.unmet() {
        let controls = match line.controls.is_empty() {
            true => "an object was not created".to_owned(),
            false => line.controls.join(", "),
        };
        section(out, &layout.paint.red(&format!("Unmet: {controls}")));
        hang(out, &format!("  {}: ", plain(line.address.as_str())), &error.message, layout.width);
        if let Some(help) = failure::help(error) {
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
        if let Some(help) = failure::help(&one.error) {
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
pub fn done(action: Action, replaces: bool) -> &'static str {
    match (action, replaces) {
        (Action::Create, false) => "created",
        (Action::Create, true) => "created anew",
        (Action::Update, _) => "changed",
        (Action::Wait, _) => "ready",
        (Action::Delete, false) => "destroyed",
        (Action::Delete, true) => "destroyed (the old one)",
    }
}
