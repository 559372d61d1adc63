use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A VPC's flow log to CloudWatch Logs. Immutable but for its tags.
/// Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub vpc: String,
    /// Name of the log group.
    pub log_group: String,
    /// ARN of the role that delivers.
    pub role: String,
    /// `ALL`, `ACCEPT` or `REJECT`.
    pub traffic: String,
    /// Seconds: 60 or 600.
    pub aggregation: i32,
    pub tags: BTreeMap<String, String>,
}
