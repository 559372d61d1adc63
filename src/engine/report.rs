//! What a run did, for the end of its output and for its exit code.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::address::Address;
use super::error::Error;
use super::plan::{Action, Step, Summary};

/// How one step ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    Done,
    Failed {
        error: Error,
    },
    /// Its cluster can't be reached from here, or doesn't let us in.
    Blocked {
        error: Error,
    },
    /// Its cluster doesn't serve the API that it requires, so its controls are
    /// unmet.
    Unmet {
        error: Error,
    },
    /// Something that it needs failed, is blocked or was skipped.
    Skipped {
        because: Address,
    },
    /// The user stopped the run before it started.
    NotStarted,
    /// The user left while it was under way: what came of it isn't known.
    Abandoned,
}

#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub address: Address,
    pub kind: &'static str,
    pub action: Action,
    pub replaces: bool,
    /// IDs of the controls that it carries.
    pub controls: Vec<&'static str>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub lines: Vec<Line>,
    pub took: Duration,
    /// True if the user stopped it.
    pub interrupted: bool,
    /// What still differs after everything was done: bugs, by address.
    pub differs: Vec<(Address, String)>,
    /// What was done and couldn't be read again, so nobody has seen that it is
    /// so.
    pub unconfirmed: Vec<Unconfirmed>,
}

/// What couldn't be read again, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Unconfirmed {
    pub addresses: BTreeSet<Address>,
    pub error: Error,
}

impl Report {
    /// What was really added, changed, replaced and destroyed.
    pub fn done(&self) -> Summary {
        let mut summary = Summary::default();
        let mut changed = BTreeSet::new();
        let deleted: BTreeSet<&Address> =
            self.lines.iter().filter(|l| l.action == Action::Delete).map(|l| &l.address).collect();
        for line in self.lines.iter().filter(|l| matches!(l.outcome, Outcome::Done)) {
            match (line.action, line.replaces) {
                (Action::Create, true) => summary.replace += 1,
                (Action::Create, false) => summary.add += 1,
                (Action::Delete, false) => summary.destroy += 1,
                (Action::Delete, true) => {}
                // What precedes a deletion counts as part of it.
                (Action::Update | Action::Wait, _) if deleted.contains(&line.address) => {}
                // Nor does one change in two steps count twice.
                (Action::Update | Action::Wait, _) if !changed.insert(&line.address) => {}
                (Action::Update | Action::Wait, _) => summary.change += 1,
            }
        }
        summary
    }

    pub fn failed(&self) -> impl Iterator<Item = (&Line, &Error)> {
        self.lines.iter().filter_map(|l| match &l.outcome {
            Outcome::Failed { error } => Some((l, error)),
            _ => None,
        })
    }

    /// Steps that can't be done from here.
    pub fn blocked(&self) -> impl Iterator<Item = (&Line, &Error)> {
        self.lines.iter().filter_map(|l| match &l.outcome {
            Outcome::Blocked { error } => Some((l, error)),
            _ => None,
        })
    }

    /// Steps that their cluster has no API for.
    pub fn unmet(&self) -> impl Iterator<Item = (&Line, &Error)> {
        self.lines.iter().filter_map(|l| match &l.outcome {
            Outcome::Unmet { error } => Some((l, error)),
            _ => None,
        })
    }

    /// Steps that weren't carried out.
    pub fn left(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|l| matches!(l.outcome, Outcome::Skipped { .. } | Outcome::NotStarted))
    }

    /// Steps that the user left while they were under way.
    pub fn abandoned(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|l| matches!(l.outcome, Outcome::Abandoned))
    }

    pub(crate) fn line(step: &Step, outcome: Outcome) -> Line {
        Line {
            address: step.address.clone(),
            kind: step.kind,
            action: step.action,
            replaces: step.replaces,
            controls: step.controls.clone(),
            outcome,
        }
    }
}
