use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Outputs: `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    /// Such as `vpc-cni`.
    pub name: String,
    pub version: String,
    /// Configuration values as JSON; an empty object is none.
    pub configuration: Value,
    /// Role ARNs by service account, for Pod Identity.
    pub pod_identity: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}
