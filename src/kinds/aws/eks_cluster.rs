use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Outputs: `name`, `arn`, `endpoint`, `certificate_authority` (base64 PEM),
/// `issuer` (`https://…`), `security_group` (EKS's own), `version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub name: String,
    /// ARN.
    pub role: String,
    /// Such as `1.36`.
    pub version: String,
    pub subnets: Vec<String>,
    /// Attached to the control plane's interfaces beside EKS's own group.
    pub security_groups: Vec<String>,
    pub endpoint_public: bool,
    pub endpoint_private: bool,
    /// Empty when the public endpoint is off.
    pub public_cidrs: Vec<String>,
    pub service_cidr: String,
    /// `api`, `audit`, `authenticator`, `controllerManager`, `scheduler`.
    pub log_types: Vec<String>,
    /// ARN of the key for Kubernetes API data.
    pub key: Option<String>,
    /// `API`.
    pub authentication_mode: String,
    /// `STANDARD` or `EXTENDED`.
    pub support_type: String,
    pub deletion_protection: bool,
    pub tags: BTreeMap<String, String>,
}
