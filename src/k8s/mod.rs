//! The API servers of the clusters: logging in to EKS without the aws CLI,
//! which APIs a cluster serves, and what server-side apply would change.
//!
//! Objects are plain JSON throughout: types of a fixed Kubernetes version
//! would drop the fields that they don't know.

pub mod apis;
pub mod apply;
pub mod client;
mod error;
pub mod token;

pub use apis::{Api, Apis};
pub use client::{Cluster, Clusters, Target};
pub use token::{Token, token};
