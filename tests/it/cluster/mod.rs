//! The in-cluster baseline on a real API server.

pub mod baseline;
mod smoke;
