//! Why something is done, isn't done, or stays: types that programs decide on. `ui::why` puts them into words.
//!
//! What only a kind or the spec's rules can tell, they tell in words.

use std::collections::BTreeSet;

use serde::Serialize;

use super::address::Address;
use super::error::Error;

/// Why a resource isn't made, changed or deleted, although the spec asks for it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum WhyNot {
    /// Its cluster couldn't be read: the cluster's name.
    Unread { cluster: String },
    /// Its cluster doesn't serve the API that it requires, so its controls are unmet.
    Unserved { error: Error, controls: Vec<&'static str> },
    /// One that isn't ours has its name. The words are the kind's.
    Foreign { message: String },
    /// `user` is in `id`, which has lost the tags that make it ours.
    LostTags { id: String, user: Address, tags: Vec<String> },
    /// Several have its address, and nothing tells which one is meant.
    Twice { ids: Vec<String> },
    /// `user` stays, and uses `id`. `because`: why `user` stays.
    Used { id: String, user: Address, because: Option<Box<WhyNot>> },
    /// `user` stays, and this update would take away what lets it in.
    LetsIn { user: Option<Address> },
    /// It failed, and only a person can mend it.
    Broken { id: String, what: String },
    /// It failed, and may not be replaced.
    BrokenAndKept { what: String, because: Box<WhyNot> },
    /// It needs `need`, which is blocked.
    NeedsBlocked { need: Address, pending: bool },
    /// It needs `need`, of which there are several.
    NeedsTwice { need: Address },
    /// Others hold what should go. The words are the kind's.
    Stuck { reason: String, help: String },
    /// These fields can only be changed by a replacement, and that may not be.
    NotReplaced { fields: Vec<String>, because: Box<WhyNot> },
    /// A replacement of `address` would lose this, and it wasn't allowed. The words are the kind's.
    Loses { address: Address, lost: String },
    /// A tenant's former and new placement share it, and `blocked` keeps the new one from being completed.
    Shared { blocked: Address, pending: bool },
    /// The spec asks for what can't be. The words are those of the spec's rules.
    Refused { reason: String, help: String, pending: bool },
}

impl WhyNot {
    /// It waits for something outside, or for another run, and isn't wrong.
    pub fn is_pending(&self) -> bool {
        match self {
            Self::Unread { .. } => true,
            Self::NeedsBlocked { pending, .. } | Self::Shared { pending, .. } | Self::Refused { pending, .. } => {
                *pending
            }
            Self::BrokenAndKept { because, .. } => because.is_pending(),
            Self::NotReplaced { because, .. } => because.is_pending(),
            _ => false,
        }
    }

    /// Its cluster doesn't serve the API that it requires.
    pub fn is_unmet(&self) -> bool {
        matches!(self, Self::Unserved { .. })
    }

    /// The cluster that couldn't be read, if that is why.
    pub fn unread(&self) -> Option<&str> {
        match self {
            Self::Unread { cluster } => Some(cluster),
            _ => None,
        }
    }
}

/// Why something that left the spec stays.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum WhyKept {
    /// It holds audit logs.
    AuditLogs,
    /// Audit logs that stay are encrypted with it.
    EncryptsLogs,
    /// A tenant's former placement, which stays, uses it.
    UsedByFormer,
    /// A tenant's former placement, which stays, is in it.
    HoldsFormer { place: Address },
    /// Its tenants have moved to `new`.
    Moved { tenants: BTreeSet<String>, new: Vec<Address>, but: Unmoved },
}

/// Why the former placement of tenants that have moved isn't deleted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unmoved {
    /// This is blocked, so the new placement can't be completed.
    Blocked(Address),
    /// Nothing in clusters is done, so the new placement isn't complete.
    AwsOnly,
    /// The deletion of this place wasn't confirmed.
    Unconfirmed(Address),
}

/// Why a step is done, where its changes don't say it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum WhyDone {
    /// An interrupted replacement left it.
    LeftOver,
    /// It is being deleted, so another one is made.
    Leaving,
    Failed {
        what: String,
    },
    /// These fields can only be changed by a replacement.
    Fixed {
        fields: Vec<String>,
    },
    /// It isn't ready yet. AWS's word for its state.
    Pending {
        state: String,
    },
    /// It can't be deleted as it is.
    BeforeDeletion,
    /// What it lets in is gone by then.
    UsersGone,
}
