//! The in-cluster baseline on a real API server.

pub mod baseline;
mod lifecycle;
mod network;
mod quota;
mod scale;
mod smoke;
