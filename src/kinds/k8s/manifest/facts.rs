//! The state of an object, and what planning knows of the kind.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::summary;
use crate::engine::kind::{Found, Kind, Pace, Rule, Verb};
use crate::engine::packed::Packed;
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
    pub(super) fn target(&self) -> Target<'_> {
        Target { cluster: &self.cluster, endpoint: &self.endpoint, certificate_authority: &self.certificate_authority }
    }
}

/// The parts of a [`State`] that tell which object it is. The rest isn't parsed.
#[derive(Deserialize)]
struct Head {
    cluster: String,
    object: Named,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    api_version: String,
    kind: String,
    metadata: Names,
}

#[derive(Deserialize)]
struct Names {
    name: String,
    namespace: Option<String>,
}

impl Head {
    fn of(state: &Packed) -> Option<Self> {
        state.typed().ok()
    }

    /// The name of a namespace as a container.
    fn namespace(&self, name: &str) -> String {
        format!("{}/{name}", self.cluster)
    }
}

pub struct Manifest;

impl Kind for Manifest {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host(&self, state: &Packed) -> Option<String> {
        Head::of(state).map(|head| head.cluster)
    }

    fn api(&self, state: &Packed) -> Option<String> {
        Head::of(state).map(|Head { object, .. }| format!("{} {}", object.api_version, object.kind))
    }

    fn is_named(&self, found: &Found, names: &BTreeSet<String>) -> bool {
        Head::of(&found.state).is_some_and(|Head { cluster, object }| {
            let Names { name, namespace } = object.metadata;
            namespace.is_none() && names.contains(&name) && names.contains(&cluster)
        })
    }

    fn lies_in(&self, state: &Packed) -> Option<String> {
        let head = Head::of(state)?;
        Some(head.namespace(head.object.metadata.namespace.as_deref()?))
    }

    fn contains(&self, state: &Packed) -> Option<String> {
        let head = Head::of(state).filter(|head| head.object.kind == "Namespace")?;
        Some(head.namespace(&head.object.metadata.name))
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
        let Head { cluster, object: Named { kind, metadata: Names { name, .. }, .. } } = Head::of(&found.state)?;
        match kind.as_str() {
            "Namespace" => Some(format!(
                "all workloads and objects in namespace {name} of cluster {cluster}, including Secrets, and the data of its PersistentVolumeClaims, unless their reclaim policy is Retain"
            )),
            "PersistentVolumeClaim" | "PersistentVolume" => {
                Some(format!("the data of {kind} {name} in cluster {cluster}, unless the reclaim policy is Retain"))
            }
            "CustomResourceDefinition" => Some(format!("every object of {name} in cluster {cluster}")),
            _ => None,
        }
    }

    fn summary(&self, state: &Packed) -> String {
        state.read(|state| state.get("object").map(summary)).unwrap_or_default()
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
