//! The in-cluster baseline on a real API server.

mod access;
pub mod baseline;
mod gateway_rights;
pub mod guard;
pub mod harmless;
pub mod hostile;
mod lifecycle;
mod network;
mod nodes;
mod placement;
pub mod pod_security;
mod quota;
mod scale;
mod smoke;
