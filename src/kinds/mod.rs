//! Resource kinds. A new kind is one file and one line in [`registry`].

pub mod aws;
pub mod k8s;
