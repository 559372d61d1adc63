//! Kubernetes objects.

pub mod manifest;
