//! A gateway in front of Kubernetes API servers.

pub mod who;
