//! The in-cluster baseline on a real API server.

mod access;
pub mod baseline;
mod lifecycle;
mod network;
mod nodes;
mod placement;
mod quota;
mod scale;
mod smoke;
