//! ringfence provisions and keeps multi-tenant SaaS estates on Amazon EKS.
//!
//! `Spec → Desired + Observed → Plan → Event* → Report`: it reads one tenancy
//! spec ([`spec`]), works out what should exist ([`stack`]), reads what does
//! ([`kinds`], in bulk), compares the two ([`engine`]'s planner, which is pure)
//! and carries the difference out ([`engine`]'s executor). [`run`] puts these
//! together for whoever calls: the command line ([`cli`]), tests, a controller.
//! There is no state file: AWS and the clusters are the only truth, and
//! ownership is written in tags by the call that creates.
//!
//! The modules, in reading order; each imports only what stands above it:

/// Imports nothing of the rest and holds nothing of AWS: even the sandbox may
/// use it.
pub mod files;

/// Imports nothing of the rest. Neither does [`version`].
pub mod arn;
pub mod version;

pub mod engine;

pub mod aws;
pub mod k8s;
pub mod kinds;

pub mod spec;
pub mod stack;
pub mod template;

/// Shares no types with the rest: they know each other by the wire alone, so
/// that one mistake isn't made twice.
pub mod sandbox;

pub mod run;
pub mod ui;

pub mod cli;
