//! ringfence provisions and maintains multi-tenant SaaS estates on Amazon EKS.
//!
//! `Spec → Desired + Observed → Plan → Event* → Report`: ringfence reads one tenancy spec ([`spec`]) and computes the
//! desired resources ([`stack`]). It reads the existing resources in bulk ([`kinds`]). [`engine`]'s planner, which is
//! pure, compares the two. [`engine`]'s executor carries out the difference. [`run`] combines these steps for its
//! callers: the command line ([`cli`]), tests, a controller. There is no state file: AWS and the clusters are the only
//! source of truth, and the create call itself writes the ownership tags.
//!
//! The modules in reading order. Each imports only modules above it:

/// Imports no other module and has no knowledge of AWS, so that the sandbox may use it, too.
pub mod files;

/// Imports no other module. Neither does [`version`].
pub mod arn;
pub mod version;

pub mod engine;

pub mod aws;
pub mod k8s;
pub mod kinds;

pub mod spec;
pub mod template;

pub mod engines;
pub mod guard;

pub mod stack;

/// Shares no types with the other modules: they communicate over the wire only, so that one mistake isn't made twice.
pub mod sandbox;

/// Imports [`engine`] only.
pub mod telemetry;

pub mod gateway;

pub mod run;
pub mod ui;

pub mod cli;
