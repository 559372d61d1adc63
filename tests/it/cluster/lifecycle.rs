//! Objects that somebody changes or deletes, and invalid templates: what the
//! plan shows, what apply restores, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::baseline::{Baseline, POOL};
use crate::support::kubernetes::{Options, path, yaml};

/// All objects of the tenancy in the cluster of `baseline`, by address.
fn objects(baseline: &Baseline) -> BTreeMap<String, Value> {
    let out = tempfile::tempdir().unwrap();
    baseline.run(&["render", "--out", out.path().to_str().unwrap()]);
    let mut objects = BTreeMap::new();
    for owner in fs::read_dir(out.path()).unwrap().map(|e| e.unwrap().path()).filter(|path| path.is_dir()) {
        for file in fs::read_dir(owner).unwrap() {
            for object in yaml(&fs::read_to_string(file.unwrap().path()).unwrap()) {
                let address = object["metadata"]["annotations"]["ringfence.dev/address"].as_str().unwrap().to_owned();
                objects.insert(address, object);
            }
        }
    }
    assert!(objects.len() > 50, "{} objects", objects.len());
    objects
}

/// Addresses and actions of a plan's steps.
fn steps(plan: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    plan["steps"].as_array().unwrap().iter().map(|s| (text(&s["address"]), text(&s["action"]))).collect()
}

#[track_caller]
fn plans(baseline: &Baseline, expected: &BTreeSet<(String, String)>) {
    let planned = steps(&baseline.plan());
    let more: Vec<_> = planned.difference(expected).collect();
    let fewer: Vec<_> = expected.difference(&planned).collect();
    assert!(more.is_empty() && fewer.is_empty(), "planned beyond what is expected: {more:#?}\nnot planned: {fewer:#?}");
}

fn of(addresses: impl Iterator<Item = String>, action: &str) -> BTreeSet<(String, String)> {
    addresses.map(|address| (address, action.to_owned())).collect()
}

/// A JSON merge patch that weakens an object, as somebody might apply it with
/// kubectl.
fn weakened(object: &Value) -> Value {
    match object["kind"].as_str().unwrap() {
        "Namespace" => json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce-version": "latest"}}}),
        "NetworkPolicy" => json!({"spec": {"egress": [{}], "policyTypes": ["Ingress", "Egress"]}}),
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "9999"}}}),
        "LimitRange" => json!({"spec": {"limits": []}}),
        "Role" | "ClusterRole" => json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
        "RoleBinding" | "ClusterRoleBinding" => {
            json!({"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}]})
        }
        "ServiceAccount" => {
            json!({"automountServiceAccountToken": object["automountServiceAccountToken"] != true})
        }
        "PriorityClass" => json!({"description": "changed by hand"}),
        "ValidatingAdmissionPolicy" => {
            let all = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]);
            json!({"spec": {"matchConstraints": {"excludeResourceRules": all}}})
        }
        "MutatingAdmissionPolicy" => {
            json!({"spec": {"matchConditions": [{"name": "never", "expression": "false"}]}})
        }
        // A value that is added beside ours, and doesn't replace it.
        "ValidatingAdmissionPolicyBinding" => json!({"spec": {"validationActions": ["Warn", "Audit"]}}),
        "MutatingAdmissionPolicyBinding" => {
            json!({"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"nobody": "matches"}}}}})
        }
        "ClusterNetworkPolicy" => json!({"spec": {"priority": 999}}),
        "SecurityGroupPolicy" => json!({"spec": {"securityGroups": {"groupIds": ["sg-0123456789abcdef0"]}}}),
        _ => json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}}),
    }
}

#[test]
fn applying_twice_writes_nothing() {
    let before = live(&POOL);
    let said = POOL.run(&["apply", "--auto-approve", "--format", "json", "-v"]);
    let report: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let calls = report["calls"].as_object().unwrap();
    let reads = ["k8s:discover", "k8s:list"];
    let writes: Vec<_> = calls.keys().filter(|c| c.starts_with("k8s:") && !reads.contains(&c.as_str())).collect();
    assert!(calls.contains_key("k8s:list") && writes.is_empty(), "{writes:?}");
    assert_eq!(before, live(&POOL));
}

/// The objects in the cluster without the fields that controllers write.
fn live(baseline: &Baseline) -> BTreeMap<String, Value> {
    let admin = baseline.plane.admin();
    let stands = |object: &Value| {
        let mut live = admin.get(&path(object)).ok();
        live.as_object_mut().unwrap().remove("status");
        live["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let managers = live["metadata"]["managedFields"].as_array_mut().unwrap();
        managers.retain(|m| m["subresource"] != "status");
        live
    };
    objects(baseline).into_iter().map(|(address, object)| (address, stands(&object))).collect()
}

#[test]
fn changes_by_hand_are_named_one_by_one_and_reverted() {
    let baseline = Baseline::applied("pool.yaml", "shared", Options::default());
    let admin = baseline.plane.admin();
    let all = objects(&baseline);

    for (address, object) in &all {
        let answer = admin.patch(&path(object), &weakened(object));
        assert!(answer.is_ok(), "{address}: {}", answer.message());
    }
    plans(&baseline, &of(all.keys().cloned(), "update"));
    baseline.run(&["apply", "--auto-approve"]);
    plans(&baseline, &BTreeSet::new());

    // One object of each kind, one after the other.
    let mut kinds = BTreeSet::new();
    for (address, object) in all.iter().filter(|(_, o)| kinds.insert(o["kind"].to_string())) {
        admin.patch(&path(object), &weakened(object)).ok();
        plans(&baseline, &of([address.clone()].into_iter(), "update"));
        baseline.run(&["apply", "--auto-approve"]);
    }
    plans(&baseline, &BTreeSet::new());

    let without_namespaces: BTreeMap<_, _> = all.iter().filter(|(_, o)| o["kind"] != "Namespace").collect();
    for (address, object) in &without_namespaces {
        let answer = admin.delete(&path(object));
        assert!(answer.is_ok(), "{address}: {}", answer.message());
    }
    plans(&baseline, &of(without_namespaces.keys().map(|a| (*a).clone()), "create"));
    baseline.run(&["apply", "--auto-approve"]);
    plans(&baseline, &BTreeSet::new());

    let namespace = all.values().find(|o| o["metadata"]["name"] == "t-red").unwrap();
    let inside = |object: &Value| object["metadata"]["namespace"] == "t-red" || object == namespace;
    admin.delete(&path(namespace)).ok();
    baseline.plane.until("the namespace is gone", |admin| admin.get(&path(namespace)).status == 404);
    let gone = all.iter().filter(|(_, o)| inside(o)).map(|(address, _)| address.clone());
    plans(&baseline, &of(gone, "create"));
    baseline.run(&["apply", "--auto-approve"]);
    plans(&baseline, &BTreeSet::new());
}

/// Asserts exit code 1, a message with all of `expected`, and that nothing was
/// written to the cluster.
fn refused(file: &str, template: &str, expected: &[&str]) {
    let baseline = Baseline::prepared("pool.yaml", "shared", Options::default());
    let templates = tempfile::tempdir().unwrap();
    let place = templates.path().join(file);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, template).unwrap();
    let output =
        baseline.command(&["apply", "--auto-approve"]).arg("--templates").arg(templates.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in expected {
        assert!(said.contains(words), "{words:?} isn't in: {said}");
    }
    let left = baseline.plane.admin().get("/api/v1/namespaces?labelSelector=ringfence.dev/tenancy").ok();
    assert_eq!(left["items"], json!([]));
    let estate = fs::read_to_string(baseline.spec().with_file_name("sandbox").join("state.json")).unwrap_or_default();
    assert!(!estate.contains("acme-p-shared"), "nothing is made in AWS either, but the lock");
}

#[test]
fn a_template_that_names_nothing_that_is_there() {
    refused(
        "manifests/tenant/extra.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ tenant.nickname }}\n",
        &["manifests/tenant/extra.yaml", "line 4", "nickname", "tenant/"],
    );
}

#[test]
fn a_template_that_renders_no_yaml() {
    refused(
        "manifests/tenant/extra.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [\n",
        &["manifests/tenant/extra.yaml", "tenant/", "line"],
    );
}

#[test]
fn two_objects_of_one_name() {
    refused(
        "manifests/tenant/extra.yaml",
        "apiVersion: v1\nkind: LimitRange\nmetadata:\n  name: tenant\n  namespace: {{ tenant.namespace | json }}\n",
        &["manifests/tenant/extra.yaml", "manifests/tenant/limits.yaml", "LimitRange", "tenant/"],
    );
}
