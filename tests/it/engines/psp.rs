//! PodSecurityPolicies in the API server of Kubernetes 1.24, the last version that has them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use ringfence::engines::psp;
use ringfence::guard::Operation;
use ringfence::template::Templates;
use serde_json::{Value, json};

use super::Rows;
use super::corpus::{CLUSTERS, Case, Cluster};
use crate::support::kubernetes::{Answer, ControlPlane, Options, path, yaml};

/// What EKS has in each cluster of such a version.
const OF_EKS: &str = r#"
apiVersion: policy/v1beta1
kind: PodSecurityPolicy
metadata: {name: eks.privileged}
spec:
  privileged: true
  allowPrivilegeEscalation: true
  allowedCapabilities: ["*"]
  fsGroup: {rule: RunAsAny}
  hostIPC: true
  hostNetwork: true
  hostPID: true
  hostPorts: [{max: 65535, min: 0}]
  runAsUser: {rule: RunAsAny}
  seLinux: {rule: RunAsAny}
  supplementalGroups: {rule: RunAsAny}
  volumes: ["*"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "eks:podsecuritypolicy:privileged"}
rules:
  - {apiGroups: [policy], resourceNames: [eks.privileged], resources: [podsecuritypolicies], verbs: [use]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "eks:podsecuritypolicy:authenticated"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "eks:podsecuritypolicy:privileged"}
subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:authenticated"}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: pods}
rules:
  - {apiGroups: [""], resources: [pods], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: pods}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: pods}
subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:authenticated"}
"#;

/// Rules of the native policies that a PodSecurityPolicy has no field for, by a part of their message.
const LEFT_OUT: &[(&str, &str)] = &[
    ("ADM-3: ", "it knows no images"),
    ("API-1: ", "it knows no service accounts and tokens"),
    ("NODE-", "it knows no nodes, tolerations and schedulers"),
    ("NS-2: ", "it knows no labels"),
    ("QUOTA-1: ", "it knows no priority classes"),
    ("POD-5: a probe", "it doesn't see the host of a probe"),
    ("POD-5: hostAliases", "it knows no hostAliases"),
    ("runs as a process of the node", "it knows no hostProcess; Pods with hostNetwork, which it needs, are refused"),
    ("turns AppArmor off", "its rule for AppArmor would refuse Pods without a profile"),
    ("chooses an SELinux label", "the guide's policy allows every label, for nodes with AppArmor"),
    ("keeps capabilities", "it drops ALL itself, so the Pod complies"),
    ("may run as root", "it sets a user of the tenant itself, so the Pod complies"),
    ("runs as another group than its Pod", "the group is one of the tenant's"),
    ("fsGroup must be the group", "the group is one of the tenant's"),
];

/// What only it refuses, by a part of its message.
const STRICTER: &[(&str, &str)] = &[
    ("unsafe sysctl", "1.24 counts fewer sysctls as safe"),
    ("ephemeral volumes are not allowed", "the guide's list of volumes is older than this kind"),
];

struct Cluster124 {
    plane: ControlPlane,
}

impl Cluster124 {
    fn start(cluster: &Cluster) -> Self {
        let plane = ControlPlane::start(Options { psp: true, ..Options::default() });
        for object in yaml(OF_EKS) {
            plane.admin().create(&object).ok();
        }
        let notes = |of: &str| {
            let all = cluster.namespaces.values().filter_map(|n| n["metadata"]["annotations"][of].as_str());
            all.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        for class in notes("ringfence.dev/priority-class") {
            let object = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1,
                "metadata": {"name": class}});
            plane.admin().post("/apis/scheduling.k8s.io/v1/priorityclasses", &object).ok();
        }
        for (name, namespace) in &cluster.namespaces {
            let mut namespace = namespace.clone();
            // Pod Security would refuse first.
            namespace["metadata"]["labels"]
                .as_object_mut()
                .unwrap()
                .retain(|name, _| !name.starts_with("pod-security"));
            let answer = plane.admin().create(&namespace);
            assert!(answer.is_ok() || answer.status == 409, "{}", answer.message());
            let account = |account: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": name}});
            let declared = namespace["metadata"]["annotations"]["ringfence.dev/service-accounts"].as_str();
            for name in declared.unwrap_or_default().split('\n').filter(|name| !name.is_empty()).chain(["default"]) {
                plane.admin().create(&account(name)).ok();
            }
        }
        let started = Self { plane };
        let before = started.create(&simple("t-red", json!({"hostNetwork": true})));
        assert!(before.is_ok(), "EKS's own policy allows everything before: {}", before.message());
        let namespaces: Vec<_> = cluster.namespaces.values().cloned().collect();
        for object in psp::render(&namespaces, &Templates::built_in().unwrap()).unwrap() {
            let admin = started.plane.admin();
            match admin.get(&path(&object)).is_ok() {
                true => admin.put(&path(&object), &object).ok(),
                false => admin.create(&object).ok(),
            };
        }
        started.plane.until("the policies are in force", |_| {
            let hostile = started.create(&simple("t-red", json!({"hostNetwork": true})));
            hostile.status == 403 && started.create(&simple("t-red", json!({}))).is_ok()
        });
        started
    }

    /// A Pod of somebody of the tenant.
    fn create(&self, pod: &Value) -> Answer {
        let tenant = pod["metadata"]["namespace"].as_str().unwrap().trim_start_matches("t-");
        self.plane.tenant(tenant).try_unjudged(pod)
    }
}

fn simple(namespace: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn listed(list: &'static [(&str, &str)], message: &str) -> Option<&'static str> {
    list.iter().find(|(part, _)| message.contains(part)).map(|(_, reason)| *reason)
}

/// Every new Pod of a tenant. Panics if a Pod is admitted against a rule that isn't listed.
fn rows(cluster: &Cluster) -> Rows {
    let server = Cluster124::start(cluster);
    let mut rows = Rows::new();
    let mut wrong = Vec::new();
    for case in cluster.cases.iter().filter(|case| is_pod_of_tenant(case)) {
        let mut pod = case.request.object.clone().unwrap();
        pod["metadata"]["name"] = "p".into();
        let answer = server.create(&pod);
        let reasons: Vec<_> = match answer.is_ok() {
            true => case.refusals.iter().map(|refusal| listed(LEFT_OUT, &refusal.message)).collect(),
            false if case.refusals.is_empty() => vec![listed(STRICTER, answer.message())],
            false => Vec::new(),
        };
        if reasons.contains(&None) {
            let native: Vec<_> = case.refusals.iter().map(|refusal| &refusal.message).collect();
            wrong.push(format!("{} / {}: {}\n  native: {native:?}", case.suite, case.name, answer.message()));
        }
        let difference = reasons.into_iter().flatten().next();
        rows.entry(case.suite.clone()).or_default().add(answer.is_ok(), difference);
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    rows
}

fn is_pod_of_tenant(case: &Case) -> bool {
    case.request.kind == "Pod"
        && case.request.operation == Operation::Create
        && case.request.namespace.as_deref().is_some_and(|namespace| namespace.starts_with("t-"))
}

/// The rows of docs/engines.md.
pub static ROWS: LazyLock<Rows> = LazyLock::new(|| rows(&CLUSTERS[0]));

#[test]
#[ignore = "`make engines` runs it: it builds an API server of 1.24"]
fn hostile_pods_are_refused_and_harmless_ones_admitted() {
    let rows = &*ROWS;
    assert!(rows["hostile pods"].refused > 100, "{rows:#?}");
    assert_eq!(rows["harmless objects"].refused, 0, "{rows:#?}");
}
