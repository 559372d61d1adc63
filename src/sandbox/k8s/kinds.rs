//! The kinds of an API server, and its discovery documents.

use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub kind: String,
    pub namespaced: bool,
    /// True if a custom resource definition defines the kind, including those that EKS installs.
    pub custom: bool,
}

/// Group, version, namespaced kinds, cluster-scoped kinds. Each kind has resource name and kind name.
type Group =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);

const BUILTIN: &[Group] = &[
    (
        "",
        "v1",
        &[
            ("configmaps", "ConfigMap"),
            ("endpoints", "Endpoints"),
            ("events", "Event"),
            ("limitranges", "LimitRange"),
            ("persistentvolumeclaims", "PersistentVolumeClaim"),
            ("pods", "Pod"),
            ("podtemplates", "PodTemplate"),
            ("replicationcontrollers", "ReplicationController"),
            ("resourcequotas", "ResourceQuota"),
            ("secrets", "Secret"),
            ("serviceaccounts", "ServiceAccount"),
            ("services", "Service"),
        ],
        &[("namespaces", "Namespace"), ("nodes", "Node"), ("persistentvolumes", "PersistentVolume")],
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        &[],
        &[
            ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
            ("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
            ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
            ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
        ],
    ),
    ("apiextensions.k8s.io", "v1", &[], &[("customresourcedefinitions", "CustomResourceDefinition")]),
    ("apiregistration.k8s.io", "v1", &[], &[("apiservices", "APIService")]),
    (
        "apps",
        "v1",
        &[
            ("controllerrevisions", "ControllerRevision"),
            ("daemonsets", "DaemonSet"),
            ("deployments", "Deployment"),
            ("replicasets", "ReplicaSet"),
            ("statefulsets", "StatefulSet"),
        ],
        &[],
    ),
    ("autoscaling", "v2", &[("horizontalpodautoscalers", "HorizontalPodAutoscaler")], &[]),
    ("batch", "v1", &[("cronjobs", "CronJob"), ("jobs", "Job")], &[]),
    ("certificates.k8s.io", "v1", &[], &[("certificatesigningrequests", "CertificateSigningRequest")]),
    ("coordination.k8s.io", "v1", &[("leases", "Lease")], &[]),
    ("discovery.k8s.io", "v1", &[("endpointslices", "EndpointSlice")], &[]),
    (
        "flowcontrol.apiserver.k8s.io",
        "v1",
        &[],
        &[("flowschemas", "FlowSchema"), ("prioritylevelconfigurations", "PriorityLevelConfiguration")],
    ),
    (
        "networking.k8s.io",
        "v1",
        &[("ingresses", "Ingress"), ("networkpolicies", "NetworkPolicy")],
        &[("ingressclasses", "IngressClass")],
    ),
    ("node.k8s.io", "v1", &[], &[("runtimeclasses", "RuntimeClass")]),
    ("policy", "v1", &[("poddisruptionbudgets", "PodDisruptionBudget")], &[]),
    (
        "rbac.authorization.k8s.io",
        "v1",
        &[("rolebindings", "RoleBinding"), ("roles", "Role")],
        &[("clusterrolebindings", "ClusterRoleBinding"), ("clusterroles", "ClusterRole")],
    ),
    ("scheduling.k8s.io", "v1", &[], &[("priorityclasses", "PriorityClass")]),
    (
        "storage.k8s.io",
        "v1",
        &[("csistoragecapacities", "CSIStorageCapacity")],
        &[
            ("csidrivers", "CSIDriver"),
            ("csinodes", "CSINode"),
            ("storageclasses", "StorageClass"),
            ("volumeattachments", "VolumeAttachment"),
        ],
    ),
];

/// Generally available from Kubernetes 1.36 on. EKS serves no beta APIs.
const MUTATING: Group = (
    "admissionregistration.k8s.io",
    "v1",
    &[],
    &[
        ("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
        ("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
    ],
);

/// Definitions that every EKS cluster has.
const EKS: &[Group] = &[
    ("vpcresources.k8s.aws", "v1beta1", &[("securitygrouppolicies", "SecurityGroupPolicy")], &[]),
    ("vpcresources.k8s.aws", "v1alpha1", &[], &[("cninodes", "CNINode")]),
];

/// Definitions that come with the VPC CNI.
const VPC_CNI: &[Group] = &[
    ("crd.k8s.amazonaws.com", "v1alpha1", &[], &[("eniconfigs", "ENIConfig")]),
    (
        "networking.k8s.aws",
        "v1alpha1",
        &[("applicationnetworkpolicies", "ApplicationNetworkPolicy"), ("policyendpoints", "PolicyEndpoint")],
        &[("clusternetworkpolicies", "ClusterNetworkPolicy"), ("clusterpolicyendpoints", "ClusterPolicyEndpoint")],
    ),
];

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Kind {
    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, `pods`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }

    pub fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.resource == "namespaces"
    }

    pub fn is_definition(&self) -> bool {
        self.resource == "customresourcedefinitions"
    }

    pub fn has_generation(&self) -> bool {
        !self.group.is_empty() && self.group != "rbac.authorization.k8s.io" && self.group != "storage.k8s.io"
            || self.resource == "pods"
    }

    /// An object as a read of this API version returns it.
    pub fn shown(&self, object: &Value) -> Value {
        let mut shown = json!({"apiVersion": self.api_version(), "kind": self.kind});
        for (member, value) in object.as_object().into_iter().flatten() {
            if member != "apiVersion" && member != "kind" {
                shown[member.as_str()] = value.clone();
            }
        }
        shown
    }

    /// An item of a list. Only custom resources have apiVersion and kind there.
    pub fn listed(&self, object: &Value) -> Value {
        let mut shown = self.shown(object);
        if let (false, Some(members)) = (self.custom, shown.as_object_mut()) {
            members.shift_remove("apiVersion");
            members.shift_remove("kind");
        }
        shown
    }
}

fn of(group: &Group, custom: bool) -> impl Iterator<Item = Kind> {
    let (group, version, namespaced, wide) = *group;
    let all = namespaced.iter().map(|pair| (pair, true)).chain(wide.iter().map(|pair| (pair, false)));
    all.map(move |((resource, kind), namespaced)| Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: (*resource).to_owned(),
        kind: (*kind).to_owned(),
        namespaced,
        custom,
    })
}

/// The kind of a group and resource of the table.
pub(super) fn builtin(group: &str, resource: &str) -> Kind {
    let found =
        BUILTIN.iter().flat_map(|group| of(group, false)).find(|kind| kind.group == group && kind.resource == resource);
    // Every caller names a kind of the table. The fallback is never used; it avoids a panic.
    found.unwrap_or_else(|| Kind {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        kind: resource.to_owned(),
        namespaced: false,
        custom: false,
    })
}

/// All kinds of a cluster: those of its minor version, of the VPC CNI if it has it, and of these definitions.
pub(super) fn all<'d>(minor: u32, vpc_cni: bool, definitions: impl Iterator<Item = &'d Value>) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = BUILTIN.iter().flat_map(|group| of(group, false)).collect();
    if minor >= 36 {
        kinds.extend(of(&MUTATING, false));
    }
    kinds.extend(EKS.iter().flat_map(|group| of(group, true)));
    if vpc_cni {
        kinds.extend(VPC_CNI.iter().flat_map(|group| of(group, true)));
    }
    for definition in definitions {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for version in spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true) {
            kinds.push(Kind {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                resource: text(&spec["names"]["plural"]),
                kind: text(&spec["names"]["kind"]),
                namespaced: spec["scope"] == "Namespaced",
                custom: true,
            });
        }
    }
    kinds
}

/// Groups with a name and their versions, in order.
fn versions(kinds: &[Kind]) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for kind in kinds.iter().filter(|kind| !kind.group.is_empty()) {
        match groups.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version.as_str()) => {}
            Some((_, versions)) => versions.push(&kind.version),
            None => groups.push((&kind.group, vec![&kind.version])),
        }
    }
    groups
}

pub(super) fn groups(kinds: &[Kind]) -> Value {
    let groups: Value = versions(kinds).iter().filter_map(|(name, _)| group(kinds, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

pub(super) fn group(kinds: &[Kind], name: &str) -> Option<Value> {
    let (name, versions) = versions(kinds).into_iter().find(|(group, _)| *group == name)?;
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    Some(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions.iter().map(version).collect::<Value>(),
        "preferredVersion": versions.first().map(version),
    }))
}

pub(super) fn resources(kinds: &[Kind], group: &str, version: &str) -> Value {
    let mine: Vec<&Kind> = kinds.iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let resource = |kind: &&Kind| {
        json!({
            "name": kind.resource, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": VERBS,
        })
    };
    let api = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": mine.iter().map(resource).collect::<Value>()})
}

/// Aggregated discovery, of the core group or of the named ones.
pub(super) fn aggregated(kinds: &[Kind], core: bool) -> Value {
    let groups = if core { vec![("", vec!["v1"])] } else { versions(kinds) };
    let items = groups.iter().map(|(group, versions)| {
        let versions = versions.iter().map(|version| {
            let mine = kinds.iter().filter(|kind| kind.group == *group && kind.version == *version);
            let resources = mine.map(|kind| {
                json!({
                    "resource": kind.resource, "singularResource": kind.kind.to_lowercase(), "verbs": VERBS,
                    "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
                    "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
                })
            });
            json!({"version": version, "resources": resources.collect::<Value>(), "freshness": "Current"})
        });
        json!({"metadata": {"name": group}, "versions": versions.collect::<Value>()})
    });
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items.collect::<Value>()})
}
