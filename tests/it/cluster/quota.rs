//! Limits of a tenant: how the API server itself enforces the ResourceQuotas
//! and the LimitRange.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::baseline::{Baseline, POOL, SILO};
use crate::support::kubernetes::{Answer, path};

/// A tenant's object, as the server stores it.
fn kept(baseline: &Baseline, tenant: &str, kind: &str, name: &str) -> Value {
    baseline.plane.admin().get(&format!("/api/v1/namespaces/t-{tenant}/{kind}/{name}")).ok()
}

/// A pod of the tenant `red` without resource requests and limits.
fn pod() -> Value {
    let container = json!({
        "name": "app", "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/app:1",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "quota", "namespace": "t-red"},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    })
}

/// A pod with that many containers, each with these limits.
fn limited(containers: usize, limits: Value) -> Value {
    let mut pod = pod();
    let mut container = pod["spec"]["containers"][0].clone();
    container["resources"] = json!({"limits": limits});
    let named = |i: usize| {
        let mut container = container.clone();
        container["name"] = format!("app-{i}").into();
        container
    };
    pod["spec"]["containers"] = (0..containers).map(named).collect();
    pod
}

fn claim(name: &str, storage: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "t-red"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "gp3",
            "resources": {"requests": {"storage": storage}}},
    })
}

/// The answer to `red`'s creation of the object, as a dry run.
fn tried(object: &Value) -> Answer {
    counting("t-red", "tenant");
    POOL.plane.tenant("red").try_create(object)
}

/// Waits until a quota of the shared cluster is enforced.
fn counting(namespace: &str, quota: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/resourcequotas/{quota}");
    POOL.plane.until("the quota counts", |admin| {
        let quota = admin.get(&path).body;
        quota["status"]["hard"].is_object() && quota["status"]["hard"] == quota["spec"]["hard"]
    });
}

#[track_caller]
fn refused(answer: &Answer, what: &[&str]) {
    assert_eq!(answer.status, 403, "{}", answer.message());
    for text in what {
        assert!(answer.message().contains(text), "it doesn't say {text:?}: {}", answer.message());
    }
}

#[test]
fn containers_that_say_nothing_get_limits() {
    let mut pod = pod();
    pod["spec"]["initContainers"] = json!([pod["spec"]["containers"][0].clone()]);
    pod["spec"]["initContainers"][0]["name"] = "first".into();
    // The volume has no sizeLimit: the containers' limits apply.
    pod["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    let admitted = tried(&pod).ok();
    for containers in ["containers", "initContainers"] {
        assert_eq!(
            admitted["spec"][containers][0]["resources"],
            json!({
                "limits": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "1Gi"},
                "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "512Mi"},
            })
        );
    }
}

#[test]
fn no_container_is_larger_than_its_tier_allows() {
    tried(&limited(1, json!({"cpu": "2", "memory": "6Gi", "ephemeral-storage": "10Gi"}))).ok();
    for (key, amount, most) in [("cpu", "2100m", "2"), ("memory", "7Gi", "6Gi"), ("ephemeral-storage", "11Gi", "10Gi")]
    {
        let answer = tried(&limited(1, json!({key: amount})));
        refused(&answer, &[&format!("maximum {key} usage per Container is {most}, but limit is {amount}")]);
    }
    let mut first = limited(1, json!({"cpu": "3"}));
    first["spec"]["initContainers"] = first["spec"]["containers"].take();
    first["spec"]["containers"] = pod()["spec"]["containers"].clone();
    refused(&tried(&first), &["maximum cpu usage per Container is 2"]);
    refused(&tried(&claim("large", "101Gi")), &["maximum storage usage per PersistentVolumeClaim is 100Gi"]);
}

#[test]
fn no_pod_is_larger_than_the_quota() {
    for (key, each, count) in [("cpu", "2", 4), ("memory", "6Gi", 4), ("ephemeral-storage", "10Gi", 7)] {
        let answer = tried(&limited(count, json!({key: each})));
        refused(&answer, &["exceeded quota: tenant", &format!("limits.{key}="), &format!("requests.{key}=")]);
    }
    // Resources of the pod as a whole.
    let mut whole = pod();
    whole["spec"]["resources"] = json!({"limits": {"cpu": "7"}});
    refused(&tried(&whole), &["exceeded quota: tenant", "limits.cpu=7"]);
}

/// The test uses a namespace without a tenant. In a tenant's namespace the
/// admission policies would refuse first.
#[test]
fn no_pod_keeps_other_tenants_pods_away() {
    let admin = POOL.plane.admin();
    let namespace = "quota-affinity";
    admin.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).ok();
    let quota = kept(&POOL, "red", "resourcequotas", "cross-namespace-affinity");
    admin
        .create(&json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "affinity", "namespace": namespace}, "spec": quota["spec"],
        }))
        .ok();
    counting(namespace, "affinity");
    POOL.plane.until("pods can be made", |admin| {
        admin.get(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/default")).is_ok()
    });
    let with = |key: &str, field: Value| {
        let mut term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {}});
        for (name, value) in field.as_object().unwrap() {
            term[name] = value.clone();
        }
        let mut pod = pod();
        pod["metadata"]["namespace"] = namespace.into();
        pod["spec"]["affinity"][key]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([term]);
        pod
    };
    for key in ["podAffinity", "podAntiAffinity"] {
        admin.try_create(&with(key, json!({}))).ok();
        for beyond in [json!({"namespaceSelector": {}}), json!({"namespaces": ["t-blue"]})] {
            refused(&admin.try_create(&with(key, beyond)), &["exceeded quota: affinity", "limited: pods=0"]);
        }
    }
}

/// Quota keys of kinds whose key isn't `count/…`.
const OWN_KEYS: [&str; 2] = ["persistentvolumeclaims", "services"];

fn key(group: &str, resource: &str) -> String {
    match group {
        "" if OWN_KEYS.contains(&resource) => resource.to_owned(),
        "" => format!("count/{resource}"),
        _ => format!("count/{resource}.{group}"),
    }
}

#[test]
fn every_kind_that_a_tenant_can_make_is_counted() {
    for (baseline, tenants) in [(&POOL, &["red", "green", "sky"][..]), (&SILO, &["gold"])] {
        for id in tenants {
            let hard = kept(baseline, id, "resourcequotas", "tenant")["spec"]["hard"].clone();
            let role = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/t-{id}/roles/tenant");
            let role = baseline.plane.admin().get(&role).ok();
            let list =
                |rule: &Value, field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap() };
            let mut kinds = 0;
            for rule in role["rules"].as_array().unwrap() {
                if !list(rule, "verbs").contains(&"create".to_owned()) {
                    continue;
                }
                for resource in list(rule, "resources").iter().filter(|r| !r.contains('/')) {
                    let key = key(&list(rule, "apiGroups")[0], resource);
                    assert!(hard[&key].is_string(), "{id} may make {resource}, and no {key} bounds it: {hard:#}");
                    kinds += 1;
                }
            }
            assert!(kinds >= 10, "{role:#}");
            // Objects that controllers make from these.
            for key in ["count/replicasets.apps", "count/controllerrevisions.apps", "count/pods"] {
                assert!(hard[key].is_string(), "{id}: {key}");
            }
        }
    }
}

/// The smallest object of a kind that a quota counts.
fn smallest(key: &str) -> Option<Value> {
    let labels = json!({"app": "quota"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app"}]}});
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = "Never".into();
    let replicas = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
    let ports = json!([{"port": 80}]);
    let (api, kind, spec) = match key {
        "count/configmaps" => ("v1", "ConfigMap", Value::Null),
        "count/secrets" => ("v1", "Secret", Value::Null),
        "services" => ("v1", "Service", json!({"ports": ports})),
        "services.loadbalancers" => {
            ("v1", "Service", json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports}))
        }
        "services.nodeports" => ("v1", "Service", json!({"type": "NodePort", "ports": ports})),
        "persistentvolumeclaims" => ("v1", "PersistentVolumeClaim", claim("", "1Gi")["spec"].clone()),
        "requests.storage" => ("v1", "PersistentVolumeClaim", claim("", "40Gi")["spec"].clone()),
        "count/deployments.apps" => ("apps/v1", "Deployment", replicas),
        "count/statefulsets.apps" => ("apps/v1", "StatefulSet", replicas),
        "count/jobs.batch" => ("batch/v1", "Job", json!({"parallelism": 0, "template": job})),
        "count/cronjobs.batch" => (
            "batch/v1",
            "CronJob",
            json!({"suspend": true, "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": job}}}),
        ),
        "count/horizontalpodautoscalers.autoscaling" => (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}}),
        ),
        "count/poddisruptionbudgets.policy" => ("policy/v1", "PodDisruptionBudget", json!({"selector": {}})),
        _ => return None,
    };
    let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"namespace": "quota"}});
    if !spec.is_null() {
        object["spec"] = spec;
    }
    Some(object)
}

/// The test uses copies of the tenants' quotas in a namespace without a tenant:
/// it uses up no quota of other tests, and only the quota can refuse.
#[test]
fn one_more_than_the_quota_is_refused() {
    let admin = POOL.plane.admin();
    let mut shown = Vec::new();
    // `green` may have load balancers and node ports; `red` may not.
    for (tenant, keys) in [("red", None), ("green", Some(["services.loadbalancers", "services.nodeports"]))] {
        let namespace = format!("quota-{tenant}");
        admin.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).ok();
        let hard = kept(&POOL, tenant, "resourcequotas", "tenant")["spec"]["hard"].clone();
        let hard: BTreeMap<String, String> = serde_json::from_value(hard).unwrap();
        for (key, most) in hard.iter().filter(|(key, _)| keys.is_none_or(|keys| keys.contains(&key.as_str()))) {
            let Some(mut object) = smallest(key) else { continue };
            // Each quota is tested alone, so that no other limit is reached
            // first.
            let quota = json!({
                "apiVersion": "v1", "kind": "ResourceQuota",
                "metadata": {"name": "tenant", "namespace": namespace}, "spec": {"hard": {key: most}},
            });
            admin.create(&quota).ok();
            counting(&namespace, "tenant");
            object["metadata"]["namespace"] = namespace.as_str().into();
            let plain = key.trim_start_matches("count/").replace('.', "-");
            let answer = (0..=500)
                .map(|i| {
                    object["metadata"]["name"] = format!("{plain}-{i}").into();
                    admin.create(&object)
                })
                .find(|answer| !answer.is_ok())
                .unwrap_or_else(|| panic!("{key}: nothing is ever refused"));
            refused(&answer, &["exceeded quota: tenant", &format!("limited: {key}={most}")]);
            admin.delete(&path(&quota)).ok();
            shown.push(key.clone());
        }
    }
    assert_eq!(shown.len(), 15, "{shown:?}");
}
