//! The API servers of the clusters: login to EKS without the aws CLI, discovery
//! of APIs, and the changes that a server-side apply would make.
//!
//! All objects are plain JSON: Rust types of one Kubernetes version would drop
//! the fields that they don't know.

pub mod apis;
pub mod apply;
pub mod client;
mod error;
pub mod token;

pub use apis::{Api, Apis};
pub use client::{Cluster, Clusters, Target};
pub use token::{Token, token};
