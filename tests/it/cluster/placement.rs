//! Placement of Pods (rows NODE-1 and NODE-2), by the real scheduler, on nodes
//! that kwok simulates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::baseline::Baseline;
use super::harmless::{COMMON, ON_NODES};
use crate::support::kubernetes::{Answer, Api, Options, path, yaml};

const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/app:1";

/// A shared cluster with nodes: two for `red`, one for `blue`, none for
/// `green`, and one for the cluster's own Pods.
static NODES: LazyLock<Baseline> = LazyLock::new(with_nodes);

fn with_nodes() -> Baseline {
    let baseline = Baseline::applied("pool.yaml", "shared", Options { nodes: true, ..Options::default() });
    for (name, tenant) in [("red-1", Some("red")), ("red-2", Some("red")), ("blue-1", Some("blue")), ("system-1", None)]
    {
        baseline.plane.admin().create(&node(name, tenant)).ok();
    }
    baseline.plane.until("the nodes are ready", |admin| {
        items(admin, "/api/v1/nodes").iter().all(|n| condition(n, "Ready").is_some_and(|c| c["status"] == "True"))
    });
    baseline
}

/// A node, as ringfence's node groups make it.
fn node(name: &str, tenant: Option<&str>) -> Value {
    let taints = |id: &str| ["NoSchedule", "NoExecute"].map(|e| json!({"key": "tenantID", "value": id, "effect": e}));
    let labels = tenant.map_or_else(|| json!({"ringfence.dev/role": "system"}), |id| json!({"tenantID": id}));
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"taints": tenant.map(taints)},
    });
    node["metadata"]["labels"]["kubernetes.io/hostname"] = json!(name);
    node
}

fn items(api: &Api<'_>, path: &str) -> Vec<Value> {
    api.get(path).ok()["items"].as_array().cloned().unwrap_or_default()
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

/// The Pods of an app.
fn pods(api: &Api<'_>, namespace: &str, app: &str) -> Vec<Value> {
    items(api, &format!("/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}"))
}

fn nodes_of(pods: &[Value]) -> BTreeSet<&str> {
    pods.iter().filter_map(|p| p["spec"]["nodeName"].as_str()).collect()
}

fn run(baseline: &Baseline, namespace: &str, app: &str, count: usize) -> Vec<Value> {
    baseline.plane.until(&format!("{count} Pods of {app} run"), |admin| {
        let pods = pods(admin, namespace, app);
        pods.len() == count && pods.iter().all(|p| p["status"]["phase"] == "Running")
    });
    pods(&baseline.plane.admin(), namespace, app)
}

/// Waits until the scheduler says that it finds no node for the Pods of an app.
/// Returns its message.
fn pending(baseline: &Baseline, namespace: &str, app: &str) -> String {
    let unscheduled = |admin: &Api<'_>| {
        let pods = pods(admin, namespace, app);
        let condition = pods.first().and_then(|p| condition(p, "PodScheduled")).cloned();
        condition.filter(|c| c["reason"] == "Unschedulable")
    };
    baseline.plane.until(&format!("{app} is unschedulable"), |admin| unscheduled(admin).is_some());
    let admin = baseline.plane.admin();
    assert!(pods(&admin, namespace, app).iter().all(|p| p["status"]["phase"] == "Pending"));
    unscheduled(&admin).unwrap()["message"].as_str().unwrap().to_owned()
}

/// A Deployment as a tenant writes it: no toleration, no selector, no security
/// context.
fn deployment(namespace: &str, app: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {"containers": [{"name": "main", "image": IMAGE}]},
            },
        },
    })
}

fn pod(namespace: &str, app: &str, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": app, "namespace": namespace, "labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": IMAGE}]},
    });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

#[test]
fn pods_land_on_their_own_tenants_nodes() {
    let plane = &NODES.plane;
    for (id, replicas) in [("red", 6), ("blue", 4), ("green", 1)] {
        plane.tenant(id).create(&deployment(&format!("t-{id}"), "web", replicas)).ok();
    }
    assert_eq!(nodes_of(&run(&NODES, "t-red", "web", 6)), ["red-1", "red-2"].into());
    assert_eq!(nodes_of(&run(&NODES, "t-blue", "web", 4)), ["blue-1"].into());
    let why = pending(&NODES, "t-green", "web");
    assert!(why.starts_with("0/4 nodes are available"), "{why}");

    // Pods without a tenant: the scheduler doesn't place them, and without the
    // scheduler the taint evicts them.
    let admin = plane.admin();
    admin.create(&deployment("default", "anybody", 5)).ok();
    assert_eq!(nodes_of(&run(&NODES, "default", "anybody", 5)), ["system-1"].into());
    admin.create(&pod("default", "pushed", &json!({"nodeName": "red-1"}))).ok();
    plane.until("the taint drives the Pod out", |admin| pods(admin, "default", "pushed").is_empty());
    assert_eq!(nodes_of(&pods(&admin, "t-red", "web")), ["red-1", "red-2"].into());
}

#[track_caller]
fn refused(answer: &Answer, id: &str) {
    assert!([403, 422].contains(&answer.status), "{}: {}", answer.status, answer.message());
    assert!(answer.message().contains(&format!("{id}: ")), "{id} isn't in: {}", answer.message());
}

#[test]
fn pods_for_nodes_of_others_are_refused_or_stay_pending() {
    let red = NODES.plane.tenant("red");
    let tolerations = |list: Value| json!({"tolerations": list});
    for (spec, id) in [
        (json!({"nodeName": "blue-1"}), "NODE-2"),
        (json!({"nodeName": "red-1"}), "NODE-2"),
        (json!({"nodeSelector": {"tenantID": "blue"}}), "NODE-2"),
        (json!({"schedulerName": "mine"}), "NODE-2"),
        (tolerations(json!([{"key": "tenantID", "value": "blue"}])), "NODE-1"),
        (tolerations(json!([{"key": "tenantID", "operator": "Exists"}])), "NODE-1"),
        (tolerations(json!([{"operator": "Exists"}])), "NODE-1"),
    ] {
        refused(&red.try_create(&pod("t-red", "crossing", &spec)), id);
        let mut deployment = deployment("t-red", "crossing", 1);
        let template = deployment["spec"]["template"]["spec"].as_object_mut().unwrap();
        template.extend(spec.as_object().unwrap().clone());
        refused(&red.try_create(&deployment), id);
    }

    // Affinity can only reduce the nodes that the selector allows.
    let to = |key: &str, value: &str| {
        let term = json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
    };
    for (app, spec) in [
        ("to-blue", to("tenantID", "blue")),
        ("to-system", to("ringfence.dev/role", "system")),
        ("to-a-node", to("kubernetes.io/hostname", "blue-1")),
        ("by-name", json!({"nodeSelector": {"kubernetes.io/hostname": "blue-1"}})),
    ] {
        let answer = red.create(&pod("t-red", app, &spec));
        if answer.is_ok() {
            pending(&NODES, "t-red", app);
        } else {
            refused(&answer, "NODE-2");
        }
    }

    let bind = |name: &str| {
        let target = json!({"kind": "Node", "name": "blue-1"});
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
        red.post(&format!("/api/v1/namespaces/t-red/pods/{name}/binding"), &binding)
    };
    assert_eq!(bind("to-blue").status, 403);
}

/// For a Deployment of one Pod.
const SCALER: &str = r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: scaled, namespace: t-blue}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: scaled}
  minReplicas: 2
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}]
"#;

#[test]
fn harmless_objects_run() {
    // The test has a cluster of its own: together with the Pods of other tests,
    // its Pods would exceed the tenant's quota.
    let baseline = with_nodes();
    let (plane, blue) = (&baseline.plane, baseline.plane.tenant("blue"));
    // The test does the work of the driver's provisioner.
    for object in yaml(
        r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: gp3, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: ebs.csi.aws.com
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: db-0}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  storageClassName: gp3
  csi: {driver: ebs.csi.aws.com, volumeHandle: vol-1}
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, name: data-db-0, namespace: t-blue}
"#,
    ) {
        plane.admin().create(&object).ok();
    }
    blue.create(&deployment("t-blue", "scaled", 1)).ok();
    for mut object in [COMMON, ON_NODES, SCALER].into_iter().flat_map(yaml) {
        object["metadata"]["namespace"] = "t-blue".into();
        blue.create(&object).ok();
    }
    let claim = "/api/v1/namespaces/t-blue/persistentvolumeclaims/data-db-0";
    plane.until("the claim is bound", |admin| admin.get(claim).body["status"]["phase"] == "Bound");
    for (app, pods) in [("web", 2), ("db", 1), ("low-port", 1)] {
        run(&baseline, "t-blue", app, pods);
    }
    plane.until("the bare Pod runs", |_| {
        ["Running", "Succeeded"]
            .map(Value::from)
            .contains(&blue.get("/api/v1/namespaces/t-blue/pods/once").body["status"]["phase"])
    });
    let job = "/apis/batch/v1/namespaces/t-blue/jobs/import";
    plane.until("the Job is complete", |_| blue.get(job).body["status"]["succeeded"] == 1);

    // The job is made due in the past.
    let cron = "/apis/batch/v1/namespaces/t-blue/cronjobs/report";
    let long_ago = json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}});
    plane.admin().patch(&format!("{cron}/status"), &long_ago).ok();
    plane.until("the CronJob's Job is complete", |_| {
        let jobs = items(&blue, "/apis/batch/v1/namespaces/t-blue/jobs");
        let of_cron = |j: &&Value| j["metadata"]["ownerReferences"][0]["name"] == "report";
        jobs.iter().find(of_cron).is_some_and(|j| j["status"]["succeeded"] == 1)
    });

    run(&baseline, "t-blue", "scaled", 2);
    // The same request as `kubectl scale`.
    let scale = "/apis/apps/v1/namespaces/t-blue/deployments/scaled/scale";
    blue.patch(scale, &json!({"spec": {"replicas": 3}})).ok();
    let scaled = run(&baseline, "t-blue", "scaled", 3);
    assert_eq!(nodes_of(&scaled), ["blue-1"].into());
}

/// Copies the templates. `change` edits each file.
fn next_release(to: &Path, change: impl Fn(&str, String) -> String) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    for folder in ["manifests/cluster", "manifests/tenant"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for file in fs::read_dir(from.join(folder)).unwrap().map(|f| f.unwrap().path()) {
            let name = format!("{folder}/{}", file.file_name().unwrap().to_str().unwrap());
            fs::write(to.join(&name), change(&name, fs::read_to_string(&file).unwrap())).unwrap();
        }
    }
}

/// A stricter rule that running Pods violate.
const STRICTER: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: ringfence-next}
spec:
  matchConstraints:
    namespaceSelector: {matchExpressions: [{key: ringfence.dev/tenant, operator: Exists}]}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  validations:
    - {expression: "object.spec.containers.all(c, c.name != 'main')", message: "ADM-3: no container is called main"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: ringfence-next}
spec: {policyName: ringfence-next, validationActions: [Deny]}
"#;

#[test]
fn the_next_release_of_the_templates_keeps_pods_running() {
    let baseline = with_nodes();
    let (plane, red) = (&baseline.plane, baseline.plane.tenant("red"));
    red.create(&deployment("t-red", "web", 4)).ok();
    let by_uid = |pods: Vec<Value>| -> BTreeMap<String, Value> {
        pods.into_iter().map(|p| (p["metadata"]["uid"].as_str().unwrap().to_owned(), p)).collect()
    };
    let before = by_uid(run(&baseline, "t-red", "web", 4));

    let dir = tempfile::tempdir().unwrap();
    let templates = dir.path().display().to_string();
    next_release(dir.path(), |name, text| match name {
        "manifests/tenant/limits.yaml" => {
            let changed = text.replace("hard: {{ tenant.profile.namespace.quota | json }}", "hard: {pods: \"1\"}");
            assert_ne!(changed, text);
            changed
        }
        "manifests/tenant/access.yaml" => {
            let changed = text.replace("resources: [cronjobs, jobs]", "resources: [jobs]");
            assert_ne!(changed, text);
            changed
        }
        _ => text,
    });
    fs::write(dir.path().join("manifests/cluster/next.yaml"), STRICTER).unwrap();
    let plan = |args: &[&str]| -> Value {
        let args = [&["plan", "--format", "json"], args].concat();
        serde_json::from_str(&baseline.run(&args)).unwrap()
    };
    let next = ["--templates", &templates];
    let steps = plan(&next)["steps"].as_array().unwrap().clone();
    // Two new objects; a changed quota and Role for each of four tenants.
    assert_eq!(steps.len(), 10, "{steps:#?}");
    baseline.run(&[&["apply", "--auto-approve"], &next[..]].concat());
    assert_eq!(plan(&next)["steps"], json!([]));

    plane.until("the new rule holds", |_| {
        let answer = red.try_unjudged(&pod("t-red", "late", &json!({})));
        answer.message().contains("ADM-3: no container is called main")
    });
    plane.until("the quota counts", |_| {
        let quota = red.get("/api/v1/namespaces/t-red/resourcequotas/tenant").ok();
        quota["status"]["hard"] == json!({"pods": "1"}) && quota["status"]["used"]["pods"] == "4"
    });
    assert_eq!(red.get("/apis/batch/v1/namespaces/t-red/cronjobs").status, 403);
    let after = by_uid(pods(&plane.admin(), "t-red", "web"));
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (uid, pod) in &after {
        assert_eq!(pod["status"], before[uid]["status"]);
        assert_eq!(pod["spec"], before[uid]["spec"]);
        assert!(pod["metadata"]["deletionTimestamp"].is_null());
    }
    let deployment = plane.admin().get(&path(&deployment("t-red", "web", 4))).ok();
    assert_eq!((&deployment["status"]["readyReplicas"], &deployment["metadata"]["generation"]), (&json!(4), &json!(1)));
}
