use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One Kubernetes object, applied with server-side apply under the field
/// manager `ringfence`.
/// Outputs: none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Name of the EKS cluster.
    pub cluster: String,
    /// Its API server; empty when a kubeconfig names it (`--kubeconfig`).
    pub endpoint: String,
    /// Base64 PEM.
    pub certificate_authority: String,
    /// An API that must exist, such as `vpcresources.k8s.aws/v1beta1`.
    pub requires: Option<String>,
    /// The whole object.
    pub object: Value,
}
