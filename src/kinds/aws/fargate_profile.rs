use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A Fargate profile; immutable but for its tags.
/// Outputs: `name` (with generation), `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    /// Without generation.
    pub name: String,
    /// ARN of the pod execution role.
    pub role: String,
    pub subnets: Vec<String>,
    pub selectors: Vec<Selector>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
}
