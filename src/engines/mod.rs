//! A cluster's admission policies for other policy engines.
//!
//! The rules stand once, as the native policies. Each engine here takes those very objects and gives its own. An engine
//! adds to the native policies: they stay in force, so a rule that an engine can't take is no hole.

pub mod gatekeeper;
pub mod opa;
pub mod psp;
pub mod webhook;

/// A part of a policy that only the native policies decide, because an engine can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub policy: String,
    /// Such as a validation. None stands for the whole policy.
    pub part: Option<String>,
    pub reason: String,
}
