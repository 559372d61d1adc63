//! Nodes (rows NODE-2 and NODE-4): a node may only read what Pods on it use,
//! and its tenant can't change after it has joined.

use serde_json::{Value, json};

use super::baseline::POOL;
use crate::support::kubernetes::{Answer, collection, path, yaml};

fn node(name: &str, id: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"tenantID": id}},
        "spec": {"taints": [
            {"key": "tenantID", "value": id, "effect": "NoSchedule"},
            {"key": "tenantID", "value": id, "effect": "NoExecute"},
        ]},
    })
}

/// A Pod and the objects that it uses, in the order of creation.
fn used(id: &str) -> Vec<Value> {
    yaml(&format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: used, namespace: t-{id}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: used, namespace: t-{id}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: used-{id}}}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {{storage: 1Gi}}
  storageClassName: used
  csi: {{driver: ebs.csi.aws.com, volumeHandle: vol-{id}}}
  claimRef: {{apiVersion: v1, kind: PersistentVolumeClaim, name: used, namespace: t-{id}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: used, namespace: t-{id}}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Gi}}}}
  storageClassName: used
---
apiVersion: v1
kind: Pod
metadata: {{name: used, namespace: t-{id}}}
spec:
  automountServiceAccountToken: {}
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: main
      image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/app:1
      securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
  volumes:
    - {{name: secret, secret: {{secretName: used}}}}
    - {{name: config, configMap: {{name: used}}}}
    - {{name: data, persistentVolumeClaim: {{claimName: used}}}}
"#,
        id == "green"
    ))
}

/// Makes a node, and a Pod on it with the objects that the Pod uses. Returns
/// the objects.
fn taken(name: &str, id: &str) -> Vec<Value> {
    let admin = POOL.plane.admin();
    admin.create(&node(name, id)).ok();
    for object in used(id) {
        admin.create(&object).ok();
    }
    let pod = path(used(id).last().unwrap());
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "used"}, "target": {"kind": "Node", "name": name}});
    admin.post(&format!("{pod}/binding"), &binding).ok();
    POOL.plane.until("the claim is bound", |admin| {
        used(id)
            .iter()
            .all(|o| o["kind"] != "PersistentVolumeClaim" || admin.get(&path(o)).body["spec"]["volumeName"].is_string())
    });
    used(id).iter().map(|o| admin.get(&path(o)).ok()).collect()
}

#[track_caller]
fn refused(answer: &Answer, why: &str) {
    assert!([403, 422].contains(&answer.status), "{}: {}", answer.status, answer.message());
    assert!(answer.message().contains(why), "{why:?} isn't in: {}", answer.message());
}

/// A token for a Pod of `default`, as a kubelet requests it.
fn token(pod: &Value) -> Value {
    let bound =
        json!({"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]});
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [], "boundObjectRef": bound}})
}

/// The tier of the tenant `green` allows tokens of the API.
#[test]
fn a_node_reads_what_its_own_pods_use() {
    let (green, blue) = (taken("ip-10-0-0-1", "green"), taken("ip-10-0-0-2", "blue"));
    let node = POOL.plane.node("ip-10-0-0-1");
    for object in &green {
        POOL.plane.until("the node reads what its Pod uses", |_| node.get(&path(object)).is_ok());
    }
    for object in &blue {
        refused(&node.get(&path(object)), "no relationship found");
    }
    for kind in ["Secret", "ConfigMap"] {
        let unused = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "unused", "namespace": "t-green"}});
        POOL.plane.admin().create(&unused).ok();
        refused(&node.get(&path(&unused)), "no relationship found");
    }
    let lists = green.iter().filter(|o| o["kind"] != "Pod").map(collection);
    for list in lists.chain(["secrets", "configmaps", "persistentvolumeclaims", "pods"].map(|k| format!("/api/v1/{k}")))
    {
        refused(&node.get(&list), "system:node:ip-10-0-0-1");
    }

    let pods = |name: &str| node.get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{name}"));
    assert_eq!(pods("ip-10-0-0-1").ok()["items"].as_array().map(Vec::len), Some(1));
    refused(&pods("ip-10-0-0-2"), "");
    refused(&node.get("/api/v1/nodes/ip-10-0-0-2"), "");
    refused(&node.get("/api/v1/nodes"), "");

    // A token may be for the driver of a volume, so the server reads the
    // driver.
    let driver =
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "ebs.csi.aws.com"}});
    POOL.plane.admin().create(&driver).ok();
    let tokens = |id: &str| format!("/api/v1/namespaces/t-{id}/serviceaccounts/default/token?dryRun=All");
    POOL.plane.until("the node gets a token for its Pod", |_| {
        node.post(&tokens("green"), &token(green.last().unwrap())).is_ok()
    });
    refused(&node.post(&tokens("blue"), &token(blue.last().unwrap())), "no relationship found");
    refused(&node.post(&tokens("green"), &token(blue.last().unwrap())), "");
    let unbound = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    refused(&node.post(&tokens("green"), &unbound), "not bound to a pod");

    // A node may write the status of its own Pods.
    let status = json!({"status": {"podIP": "10.64.0.9"}});
    let (own, other) = (path(green.last().unwrap()), path(blue.last().unwrap()));
    node.patch(&format!("{own}/status?dryRun=All"), &status).ok();
    refused(&node.patch(&format!("{other}/status?dryRun=All"), &status), "");
    refused(
        &node.patch(&format!("{own}/status?dryRun=All"), &json!({"metadata": {"labels": {"app": "web"}}})),
        "labels",
    );
    refused(&node.delete(&format!("{other}?dryRun=All")), "");
}

#[test]
fn a_node_shows_no_pods_in_namespaces_of_tenants() {
    let name = "ip-10-0-1-1";
    let uid = POOL.plane.admin().create(&node(name, "red")).ok()["metadata"]["uid"].clone();
    let mirror = |namespace: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "static", "namespace": namespace, "labels": {"app": "web"},
                "annotations": {"kubernetes.io/config.mirror": "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid, "controller": true}],
            },
            "spec": {
                "nodeName": name,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "main", "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/app:1",
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        })
    };
    let node = POOL.plane.node(name);
    node.try_create(&mirror("kube-system")).ok();
    POOL.plane.until("the policy is in force", |_| !node.try_create(&mirror("t-blue")).is_ok());
    for namespace in ["t-blue", "t-red"] {
        // Two policies refuse it, and the API server shows the message of
        // either.
        let answer = node.try_create(&mirror(namespace));
        let said = answer.message();
        assert!(answer.status == 422 || answer.status == 403, "{}: {said}", answer.status);
        assert!(said.contains("NODE-4: ") || said.contains("NODE-2: nodeName"), "{said}");
    }
}

#[test]
fn a_node_keeps_its_tenant() {
    let name = "ip-10-0-2-1";
    let itself = POOL.plane.node(name);
    // The node as a kubelet registers it: labels and taints come from the node
    // group.
    itself.create(&node(name, "red")).ok();
    POOL.plane.admin().create(&node("ip-10-0-2-2", "blue")).ok();
    let own = format!("/api/v1/nodes/{name}");
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    let foreign = labels(json!({"tenantID": "blue"}));
    POOL.plane.until("the policy is in force", |_| !itself.patch(&format!("{own}?dryRun=All"), &foreign).is_ok());
    for path in [format!("{own}?dryRun=All"), format!("{own}/status?dryRun=All")] {
        let patch = |change: &Value| itself.patch(&path, change);
        patch(&labels(json!({"example.com/zone": "a"}))).ok();
        patch(&json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})).ok();
        for id in [json!("blue"), json!(""), Value::Null] {
            refused(&patch(&labels(json!({"tenantID": id}))), "NODE-2: ");
        }
        refused(&patch(&labels(json!({"ringfence.dev/role": "system"}))), "NODE-2: ");
        refused(
            &patch(&labels(json!({"node-restriction.kubernetes.io/tenant": "blue"}))),
            "is not allowed to modify labels",
        );
    }
    let spec = node(name, "blue")["spec"].clone();
    for change in [json!({"spec": spec}), json!({"spec": {"taints": null}})] {
        refused(&itself.patch(&format!("{own}?dryRun=All"), &change), "is not allowed to modify taints");
    }
    // Deletion and a new registration would get around the rule.
    refused(&itself.delete(&format!("{own}?dryRun=All")), "");
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "gone", "uid": "0"}]);
    refused(&itself.patch(&format!("{own}?dryRun=All"), &json!({"metadata": {"ownerReferences": owner}})), "owner");
    let other = "/api/v1/nodes/ip-10-0-2-2?dryRun=All";
    refused(&itself.patch(other, &labels(json!({"tenantID": "red"}))), "");
    refused(&itself.create(&node("ip-10-0-2-3", "red")), "");

    let admin = POOL.plane.admin();
    admin.patch(&format!("{own}?dryRun=All"), &foreign).ok();
}
