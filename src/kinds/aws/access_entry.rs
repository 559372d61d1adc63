use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A cluster's access entry of type STANDARD with its access policies.
/// Outputs: `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Name of the cluster.
    pub cluster: String,
    /// ARN of a role or user.
    pub principal: String,
    pub groups: Vec<String>,
    pub policies: Vec<AccessPolicy>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccessPolicy {
    pub arn: String,
    /// Empty: the whole cluster.
    pub namespaces: Vec<String>,
}
