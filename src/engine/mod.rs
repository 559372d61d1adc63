//! The engine: `Desired + Observed → Plan → Event* → Report`. It has no knowledge of AWS or Kubernetes. [`kind`] is
//! its interface to resource kinds.

pub mod address;
pub mod clock;
pub mod desired;
pub mod diff;
pub mod drift;
pub mod error;
pub mod event;
pub mod execute;
pub mod graph;
pub mod kind;
pub mod lint;
pub mod observe;
pub mod packed;
pub mod pause;
pub mod plan;
pub mod report;
mod schedule;
pub mod secret;
pub mod slots;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod timing;
pub mod value;
pub mod why;
