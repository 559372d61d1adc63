//! The change of one address.

use crate::engine::address::Address;
use crate::engine::kind::{Change, Registry};
use crate::engine::plan::{Action, Blocked, Step};
use crate::ui::detail::{Detail, Mark};
use crate::ui::text::prose;
use crate::ui::why;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symbol {
    Create,
    Update,
    Replace,
    Delete,
    Wait,
    Blocked,
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

/// The change of one address.
pub(super) struct Item<'a> {
    pub address: &'a Address,
    pub symbol: Symbol,
    pub kind: &'a str,
    /// True if the resource is an object in a cluster.
    pub is_object: bool,
    pub summary: &'a str,
    pub controls: &'a [&'static str],
    pub changes: &'a [Change],
    /// The changes that must be made before the deletion.
    pub first: &'a [Change],
    pub reason: Option<String>,
    pub help: Option<String>,
    pub pending: bool,
    pub steps: Vec<&'a Step>,
}

impl<'a> Item<'a> {
    /// The steps of one address, merged into one change.
    pub fn of_steps(steps: Vec<&'a Step>, kinds: &Registry) -> Option<Self> {
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

    pub fn of_blocked(blocked: &'a Blocked, kinds: &Registry) -> Self {
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
    pub fn key(&self) -> String {
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

impl Item<'_> {
    pub fn why(&self, reason: &str) -> Detail {
        let wrong = self.symbol == Symbol::Blocked && !self.pending;
        Detail::new(0, if wrong { Mark::Alert } else { Mark::Plain }, prose(reason))
    }

    /// Resources with the same key are counted on one line, in all groups.
    pub fn key_of_mass(&self) -> String {
        format!("{:?} {:?} {:?} {}", self.symbol, self.reason, self.help, self.pending) + &self.changes_key()
    }
}

fn is_object(kind: &str, kinds: &Registry) -> bool {
    kinds.get(kind).is_ok_and(|kind| kind.is_hosted())
}
