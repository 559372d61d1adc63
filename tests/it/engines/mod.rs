//! Other policy engines give the verdicts of the native policies.

mod corpus;
mod gatekeeper;
mod psp;
