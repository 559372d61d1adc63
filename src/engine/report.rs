//! The results of a run, for the end of its output and for its exit code.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::address::Address;
use super::error::Error;
use super::plan::{Action, Step, Summary};
use super::why::WhyNot;

/// The result of one step.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    Done,
    Failed {
        error: Error,
    },
    /// Its cluster can't be reached or denies access.
    Blocked {
        error: Error,
    },
    /// Its cluster doesn't serve the API that the object requires, so its controls are unmet.
    Unmet {
        error: Error,
    },
    /// A dependency failed, is blocked or was skipped.
    Skipped {
        because: Address,
    },
    /// The user stopped the run before the step started.
    NotStarted,
    /// The user left while the step was running, so its result is unknown.
    Abandoned,
}

#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub address: Address,
    pub kind: &'static str,
    pub action: Action,
    pub replaces: bool,
    /// IDs of the controls that the resource implements.
    pub controls: Vec<&'static str>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub lines: Vec<Line>,
    pub took: Duration,
    /// True if the user stopped the run.
    pub interrupted: bool,
    /// Differences after all steps were done, by address. They are bugs.
    pub differs: Vec<(Address, Differs)>,
    /// Steps that are done but couldn't be verified, because a read failed.
    pub unconfirmed: Vec<Unconfirmed>,
}

/// The unverified addresses, and the error of the read.
#[derive(Clone, Debug, Serialize)]
pub struct Unconfirmed {
    pub addresses: BTreeSet<Address>,
    pub error: Error,
}

/// How a resource differs after the run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Differs {
    /// It would need this.
    Action(Action),
    /// These fields.
    Fields(Vec<String>),
    /// It can't be done any more.
    Blocked(WhyNot),
}

impl Report {
    /// The numbers of resources that were really added, changed, replaced and destroyed.
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
                // An update that prepares a deletion counts as part of it.
                (Action::Update | Action::Wait, _) if deleted.contains(&line.address) => {}
                // A change in two steps counts once.
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

    /// Steps that a cluster's API server blocked.
    pub fn blocked(&self) -> impl Iterator<Item = (&Line, &Error)> {
        self.lines.iter().filter_map(|l| match &l.outcome {
            Outcome::Blocked { error } => Some((l, error)),
            _ => None,
        })
    }

    /// Steps whose API the cluster doesn't serve.
    pub fn unmet(&self) -> impl Iterator<Item = (&Line, &Error)> {
        self.lines.iter().filter_map(|l| match &l.outcome {
            Outcome::Unmet { error } => Some((l, error)),
            _ => None,
        })
    }

    /// Steps that were not executed.
    pub fn left(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|l| matches!(l.outcome, Outcome::Skipped { .. } | Outcome::NotStarted))
    }

    /// Steps that were running when the user left.
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
