use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A gateway or interface endpoint.
/// Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub vpc: String,
    /// Whole name, such as `com.amazonaws.us-east-1.s3`.
    pub service: String,
    /// `Gateway` or `Interface`.
    #[serde(rename = "type")]
    pub kind: String,
    pub policy: Value,
    /// Gateway: route tables. Interface: empty.
    pub route_tables: Vec<String>,
    /// Interface: one subnet a zone. Gateway: empty.
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub private_dns: bool,
    pub tags: BTreeMap<String, String>,
}
