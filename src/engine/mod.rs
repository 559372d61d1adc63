//! The engine: `Desired + Observed → Plan → Event* → Report`. It knows
//! nothing of AWS or Kubernetes; [`kind`] is what it asks of resource kinds.

pub mod address;
pub mod value;
pub mod desired;
pub mod kind;
pub mod graph;
pub mod observe;
pub mod diff;
pub mod plan;
pub mod event;
pub mod execute;
pub mod report;
pub mod clock;
pub mod error;
#[cfg(test)]
mod tests;
