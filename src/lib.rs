//! ringfence provisions and keeps multi-tenant SaaS estates on Amazon EKS.
//!
//! `Spec → Desired + Observed → Plan → Event* → Report`: ringfence reads one tenancy spec ([`spec`]), computes what
//! should exist ([`stack`]), reads in bulk what exists ([`kinds`]), compares the two ([`engine`]'s planner, which is
//! pure) and executes the difference ([`engine`]'s executor). [`run`] combines these steps for its callers: the
//! command line ([`cli`]), tests, a controller. There is no state file: AWS and the clusters are the only source of
//! truth, and the create call itself writes the ownership tags.
//!
//! The modules in reading order. Each imports only modules above it:

/// Imports no other module and knows nothing of AWS, so that the sandbox may use it, too.
pub mod files;

/// Imports no other module. Neither does [`version`].
pub mod arn;
pub mod version;

pub mod engine;

pub mod aws;
pub mod k8s;
pub mod kinds;

pub mod spec;
pub mod stack;
pub mod template;

/// Shares no types with the other modules: they communicate over the wire only, so that one mistake isn't made twice.
pub mod sandbox;

pub mod run;
pub mod ui;

pub mod cli;
