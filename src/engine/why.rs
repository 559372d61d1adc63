//! Reasons for steps, for missing steps, and for kept resources. Programs decide by these types. `ui::why` turns them
//! into sentences. A reason that only a kind or a rule of the spec knows contains its own sentence.

use std::collections::BTreeSet;

use serde::Serialize;

use super::address::Address;
use super::error::Error;

/// Why a resource isn't created, changed or deleted, although the spec asks for it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum WhyNot {
    /// Its cluster couldn't be read: the cluster's name.
    Unread { host: String },
    /// Its cluster doesn't serve the API that it requires, so its controls are unmet.
    Unserved { error: Error, controls: Vec<&'static str> },
    /// A resource that isn't ours has its name. The kind writes the message.
    Foreign { message: String },
    /// `user` is in `id`, which has lost the tags that make it ours.
    LostTags { id: String, user: Address, tags: Vec<String> },
    /// Several resources have its address, and it is unknown which one is the right one.
    Twice { ids: Vec<String> },
    /// It exists in the scope `at`, and the spec puts it into the scope `to`.
    Elsewhere { at: String, to: String },
    /// `user` isn't deleted, and uses `id`. `because`: why `user` isn't deleted.
    Used { id: String, user: Address, because: Option<Box<WhyNot>> },
    /// `user` uses `id` until this run has changed or deleted it. The next run can do the rest.
    Later { id: String, user: Address },
    /// `user` isn't deleted, and this update would remove access that it needs.
    LetsIn { user: Option<Address> },
    /// It failed, and only a person can repair it.
    Broken { id: String, what: String },
    /// It failed, and may not be replaced.
    BrokenAndKept { what: String, because: Box<WhyNot> },
    /// It needs `need`, which is blocked.
    NeedsBlocked { need: Address, pending: bool },
    /// It needs `need`, of which there are several.
    NeedsTwice { need: Address },
    /// Resources of others prevent the change. The kind writes the sentences.
    Stuck { reason: String, help: String },
    /// Changes of these fields need a replacement, which isn't possible or not allowed.
    NotReplaced { fields: Vec<String>, because: Box<WhyNot> },
    /// A replacement of `address` would lose `lost` and wasn't allowed. The kind writes the text.
    Loses { address: Address, lost: String },
    /// A tenant's former and new placement share it, and `blocked` keeps the new one from being completed.
    Shared { blocked: Address, pending: bool },
    /// The spec asks for an impossible change. The rules of the spec write the sentences.
    Refused { reason: String, help: String, pending: bool },
}

impl WhyNot {
    /// True if it waits for an external condition or for another run, and needs no correction.
    pub fn is_pending(&self) -> bool {
        match self {
            Self::Unread { .. } | Self::Later { .. } => true,
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

    /// The cluster that couldn't be read. `None` for other reasons.
    pub fn unread(&self) -> Option<&str> {
        match self {
            Self::Unread { host } => Some(host),
            _ => None,
        }
    }
}

/// Why a resource that left the spec is kept.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum WhyKept {
    /// It holds audit logs.
    AuditLogs,
    /// Audit logs that are kept are encrypted with it.
    EncryptsLogs,
    /// A tenant's former placement, which is kept, uses it.
    UsedByFormer,
    /// A tenant's former placement, which is kept, is in it.
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
    /// Objects in clusters aren't changed (`--aws-only`), so the new placement isn't complete.
    AwsOnly,
    /// The deletion of this place wasn't confirmed.
    Unconfirmed(Address),
}

/// Information about a plan that changes no step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "note")]
pub enum Note {
    /// In the words of a kind or of the spec's rules.
    Said { text: String },
    /// No cluster serves the API of `address` yet. `what`: which API. An add-on of the plan brings it.
    WaitsForApi { address: Address, what: String },
    /// A destroy keeps `address`, because `id` has lost the tags that make it ours. `user` is in it.
    LostTags { address: Address, id: String, user: Address },
    /// The number of objects that are deleted with the clusters that they are in.
    DeletedWithHost { objects: usize },
    /// Changes of `who` have the side effect `how`, in the words of their kind.
    Disturbs { how: String, who: Vec<Address> },
    /// The step of `host` brings these APIs.
    BringsApis { host: Address, apis: BTreeSet<String> },
    /// Nothing exists at this place, for which the spec asks for this number of resources.
    Absent { place: Address, resources: usize },
    /// The number of resources that left the spec and exist.
    Left { resources: usize },
}

impl From<String> for Note {
    fn from(text: String) -> Self {
        Self::Said { text }
    }
}

/// Why a step is done, if its changes don't show the reason.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum WhyDone {
    /// It is the rest of an interrupted replacement.
    LeftOver,
    /// It is being deleted, so another one is created.
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
    /// It must be changed before it can be deleted.
    BeforeDeletion,
    /// The resources that need the access are deleted before.
    UsersGone,
}
