//! The state of an object, and what planning knows of the kind.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::{summary, text};
use crate::engine::error::{Result, untyped};
use crate::engine::kind::{Found, Kind, Pace, Rule, Verb};
use crate::k8s::Target;

pub const NAME: &str = "k8s.manifest";

/// One Kubernetes object, applied with server-side apply under the field
/// manager `ringfence`.
/// Outputs: none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Name of the EKS cluster.
    pub cluster: String,
    /// The endpoint of its API server. Empty if a kubeconfig names it (`--kubeconfig`).
    pub endpoint: String,
    /// Base64 PEM.
    pub certificate_authority: String,
    /// An API that must exist, such as `vpcresources.k8s.aws/v1beta1`.
    pub requires: Option<String>,
    /// The complete object.
    pub object: Value,
}

impl State {
    /// [`untyped`] without a copy of the object.
    pub(super) fn into_value(mut self) -> Result<Value> {
        let object = self.object.take();
        let mut state = untyped(&self)?;
        if let Some(field) = state.get_mut("object") {
            *field = object;
        }
        Ok(state)
    }

    pub(super) fn target(&self) -> Target<'_> {
        Target { cluster: &self.cluster, endpoint: &self.endpoint, certificate_authority: &self.certificate_authority }
    }
}

pub struct Manifest;

impl Kind for Manifest {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host<'a>(&self, state: &'a Value) -> Option<&'a str> {
        state.get("cluster")?.as_str()
    }

    fn api(&self, state: &Value) -> Option<String> {
        Some(format!("{} {}", state.pointer("/object/apiVersion")?.as_str()?, state.pointer("/object/kind")?.as_str()?))
    }

    fn is_named(&self, found: &Found, names: &BTreeSet<String>) -> bool {
        let text = |pointer: &str| found.state.pointer(pointer).and_then(Value::as_str);
        let name = text("/object/metadata/name").filter(|_| text("/object/metadata/namespace").is_none());
        name.zip(self.host(&found.state)).is_some_and(|(name, host)| names.contains(name) && names.contains(host))
    }

    fn lies_in(&self, state: &Value, container: &Value) -> bool {
        let namespace = state.pointer("/object/metadata/namespace");
        namespace.is_some()
            && container.pointer("/object/kind").is_some_and(|kind| kind == "Namespace")
            && container.pointer("/object/metadata/name") == namespace
            && container.get("cluster") == state.get("cluster")
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            // The endpoint and its authority describe the connection, not the object.
            ("endpoint", Rule::CreateOnly),
            ("certificate_authority", Rule::CreateOnly),
            ("requires", Rule::CreateOnly),
            ("cluster", Rule::Replace),
            ("object.kind", Rule::Replace),
            ("object.metadata.name", Rule::Replace),
            ("object.metadata.namespace", Rule::Replace),
            // Immutable in RoleBindings, PriorityClasses and StorageClasses.
            ("object.roleRef", Rule::Replace),
            ("object.value", Rule::Replace),
            ("object.preemptionPolicy", Rule::Replace),
            ("object.provisioner", Rule::Replace),
            ("object.parameters", Rule::Replace),
            // Immutable in Secrets. The rules can't tell Secrets from ConfigMaps.
            ("object.data", Rule::Secret),
            ("object.stringData", Rule::Secret),
        ]
    }

    /// Deleting a namespace, a volume or a CustomResourceDefinition also deletes what others created in it.
    fn loses(&self, found: &Found, _replaced: bool) -> Option<String> {
        let cluster = text(&found.state, "/cluster").unwrap_or_default();
        let object = found.state.get("object")?;
        let name = text(object, "/metadata/name").unwrap_or_default();
        match text(object, "/kind")? {
            "Namespace" => Some(format!(
                "all workloads and objects in namespace {name} of cluster {cluster}, including Secrets, and the data of its PersistentVolumeClaims, unless their reclaim policy is Retain"
            )),
            kind @ ("PersistentVolumeClaim" | "PersistentVolume") => {
                Some(format!("the data of {kind} {name} in cluster {cluster}, unless the reclaim policy is Retain"))
            }
            "CustomResourceDefinition" => Some(format!("every object of {name} in cluster {cluster}")),
            _ => None,
        }
    }

    fn summary(&self, state: &Value) -> String {
        state.get("object").map(summary).unwrap_or_default()
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            // The API may not be served yet.
            Verb::Create => Pace::secs(1, 300),
            Verb::Update => Pace::secs(1, 120),
            // The deletion of a namespace waits for its pods.
            Verb::Delete => Pace::secs(10, 600),
        }
    }

    fn is_hosted(&self) -> bool {
        true
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}
