use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A launch template; a change makes a new version, which becomes the default.
/// Outputs: `id`, `version` (number of the default version, as text).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub name: String,
    /// A custom AMI; else the node group's AMI type decides.
    pub image: Option<String>,
    /// Instead of the cluster's own group.
    pub security_groups: Vec<String>,
    pub metadata: Metadata,
    pub volumes: Vec<Volume>,
    /// Plain text; sent in base64.
    pub user_data: String,
    /// Tags of the instances and volumes that it starts.
    pub instance_tags: BTreeMap<String, String>,
    /// Everything in the template's data that ringfence doesn't set (key
    /// names, interfaces, profiles added by hand), by field name: empty when
    /// desired, drift when observed.
    pub other: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

/// Instance metadata options (row NET-2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// `enabled` or `disabled`.
    pub endpoint: String,
    /// `required` or `optional`.
    pub tokens: String,
    pub hop_limit: i32,
    pub ipv6: String,
    pub instance_tags: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Volume {
    /// Such as `/dev/xvdb`.
    pub device: String,
    /// GiB; none leaves the AMI's size.
    pub size: Option<i32>,
    /// `gp3`.
    #[serde(rename = "type")]
    pub kind: String,
    pub iops: Option<i32>,
    pub throughput: Option<i32>,
    pub encrypted: bool,
    /// ARN of the key; none is the account's default EBS key.
    pub key: Option<String>,
    pub delete_on_termination: bool,
}
