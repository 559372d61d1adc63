//! The admission policies in the language of other policy engines.
//!
//! The rules stand once, as Kubernetes' own policies in `templates/manifests/cluster`. Each engine's objects are
//! generated from these, and the policies themselves stay in the cluster. So a rule that an engine can't evaluate is
//! still enforced.

pub mod gatekeeper;
pub mod psp;

use serde::Serialize;

/// A rule that an engine can't evaluate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    pub policy: String,
    /// The message or expression of the rule. Empty: the whole policy.
    pub part: String,
    pub reason: &'static str,
}
