//! The state of a node group, and the facts of the kind for planning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::kind::{Change, Found, Kind, New, Pace, Rule, Scope, Verb};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::aws::eks::host;
use crate::kinds::aws::physical;

pub const NAME: &str = "aws.node-group";

/// The AMI type of groups whose launch template names the image. The image then also decides the Kubernetes version.
pub(super) const CUSTOM: &str = "CUSTOM";

/// Changes of these fields replace the nodes.
const ROLLING: [&str; 3] = ["release_version", "template_version", "version"];

/// A managed node group.
///
/// A taint or label that someone changed is corrected in place. EKS updates existing nodes at once, while a
/// replacement would leave a pool without the taint for minutes.
///
/// Outputs: `name` (with generation), `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    /// The name without generation.
    pub name: String,
    /// ARN.
    pub role: String,
    pub subnets: Vec<String>,
    /// Such as `BOTTLEROCKET_x86_64`.
    pub ami_type: String,
    /// `ON_DEMAND` or `SPOT`.
    pub capacity_type: String,
    pub instance_types: Vec<String>,
    /// The id of the launch template.
    pub template: String,
    /// The version number of the launch template. An observed state has the default version if that differs from the
    /// group's version in tags only.
    pub template_version: String,
    /// The tags of the group's instances and of their volumes, as far as they are ours. EKS replaces nodes for any
    /// new version of a template (aws/containers-roadmap 2647), so running instances are tagged in place.
    pub instance_tags: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub min: i32,
    pub max: i32,
    /// The number of nodes at creation. Later the autoscaler owns the number, within `min` and `max`.
    pub desired: i32,
    /// The number of nodes that an update replaces at the same time: `2`, or `33%`.
    pub max_unavailable: String,
    /// Kubernetes minor version.
    pub version: String,
    /// The image's release, such as `1.66.0-2d3f4b6c`. `None`: EKS chooses the release, or the launch template
    /// names a custom image.
    pub release_version: Option<String>,
    /// True if EKS replaces nodes that stay unhealthy. `None`: unknown.
    pub repair: Option<bool>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    pub key: String,
    pub value: String,
    /// `NO_SCHEDULE`, `NO_EXECUTE` or `PREFER_NO_SCHEDULE`.
    pub effect: String,
}

pub struct NodeGroup;

impl Kind for NodeGroup {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host(&self, state: &Packed) -> Option<String> {
        host(state)
    }

    fn deleted_after(&self) -> &'static [&'static str] {
        &["k8s.manifest"]
    }

    fn loses(&self, found: &Found, replaced: bool) -> Option<String> {
        let state: State = found.state.typed().ok().filter(|_| !replaced)?;
        Some(format!(
            "all pods on node group {} of cluster {}, and the data on the disks of its nodes",
            state.name, state.cluster
        ))
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("cluster", Rule::Replace),
            ("name", Rule::Replace),
            ("role", Rule::Replace),
            ("subnets", Rule::Replace),
            ("subnets", Rule::Unordered),
            ("ami_type", Rule::Replace),
            ("capacity_type", Rule::Replace),
            ("instance_types", Rule::Replace),
            ("template", Rule::Replace),
            ("taints", Rule::Unordered),
            ("desired", Rule::CreateOnly),
            ("release_version", Rule::ServerDefault),
            ("repair", Rule::ServerDefault),
        ]
    }

    fn runs_pods(&self) -> bool {
        true
    }

    fn create_before_destroy(&self) -> bool {
        true
    }

    fn predict(&self, new: &New, _scope: &Scope) -> Outputs {
        new.state
            .typed::<State>()
            .map(|s| Outputs::from([("name".to_owned(), physical(&s.name, new.generation))]))
            .unwrap_or_default()
    }

    fn summary(&self, state: &Packed) -> String {
        state
            .typed::<State>()
            .map(|s| format!("{}, {} to {} nodes", s.instance_types.join("/"), s.min, s.max))
            .unwrap_or_default()
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            Verb::Create => Pace::secs(170, 2400),
            Verb::Update => Pace::secs(300, 2 * 3600),
            Verb::Delete => Pace::secs(360, 3600),
        }
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }

    /// EKS drains a node before it leaves its group, for any reason (UpdateNodegroupVersion, API reference).
    fn disturbs(&self, from: &Found, changes: &[Change]) -> Vec<String> {
        let mut all = Vec::new();
        if changes.iter().any(|c| c.replaces) {
            all.push("a new node group replaces the old one, and the pods on the old nodes are evicted".to_owned());
        } else if changes.iter().any(|c| ROLLING.contains(&c.path.as_str())) {
            all.push("the update replaces all nodes in batches and evicts their pods".to_owned());
        }
        let nodes = from.state.get("desired").and_then(Value::as_i64).unwrap_or_default();
        let bound = |path: &str| changes.iter().find(|c| c.path == path).and_then(|c| c.after.as_i64());
        let count = |n: i64| if n == 1 { "1 node".to_owned() } else { format!("{n} nodes") };
        if let Some(max) = bound("max").filter(|max| *max < nodes) {
            all.push(format!(
                "the group has {}, but the maximum is {max}: EKS removes {} and evicts the pods there",
                count(nodes),
                count(nodes - max)
            ));
        }
        if let Some(min) = bound("min").filter(|min| *min > nodes) {
            all.push(format!(
                "the group has {}, but the minimum is {min}: EKS starts {}",
                count(nodes),
                count(min - nodes)
            ));
        }
        all
    }
}
