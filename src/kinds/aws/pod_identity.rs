use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A Pod Identity association.
/// Outputs: `id`, `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    pub namespace: String,
    pub service_account: String,
    /// ARN.
    pub role: String,
    pub tags: BTreeMap<String, String>,
}
