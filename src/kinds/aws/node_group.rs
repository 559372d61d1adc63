use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A managed node group.
/// Outputs: `name` (with generation), `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    /// Without generation.
    pub name: String,
    /// ARN.
    pub role: String,
    pub subnets: Vec<String>,
    /// Such as `BOTTLEROCKET_x86_64`.
    pub ami_type: String,
    /// `ON_DEMAND` or `SPOT`.
    pub capacity_type: String,
    pub instance_types: Vec<String>,
    /// Id of the launch template.
    pub template: String,
    /// Number of its version.
    pub template_version: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub min: i32,
    pub max: i32,
    /// Sent at creation; the autoscaler's from then on, but kept between `min`
    /// and `max`.
    pub desired: i32,
    pub max_unavailable: i32,
    /// Kubernetes minor version.
    pub version: String,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    pub key: String,
    pub value: String,
    /// `NO_SCHEDULE`, `NO_EXECUTE` or `PREFER_NO_SCHEDULE`.
    pub effect: String,
}
