//! The objects that switch on ringfence's own admission webhook (`ringfence gateway --admission`): its policies, and the
//! two configurations with which API servers ask it.

use serde_json::{Map, Value, json};

use crate::aws::tags::AUTHORITY_FROM;
use crate::engine::error::{Error, Result};

/// The namespace of the webhook, and the name of its Service and ConfigMap, as in `cluster/webhook.yaml`.
const NAMESPACE: &str = "ringfence-admission";
const NAME: &str = "webhook";
/// The name of both configurations.
pub const CONFIGURATION: &str = "ringfence";
/// The Secret with the authority of the webhook's certificates.
const SECRET: &str = "authority";
const TENANT: &str = "ringfence.dev/tenant";
/// Namespaces that the webhook never sees, whatever their labels say.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// Requests of the cluster's own parts pass by: so Pods are made again, and their addresses are known, while no webhook
/// runs. The admission policies judge these requests, too, and the templates of such Pods were judged before.
const BY_THE_CLUSTER: &str = "request.userInfo.username.startsWith('system:node:') \
     || request.userInfo.username.startsWith('system:serviceaccount:kube-system:') \
     || request.userInfo.username.startsWith('eks:') \
     || request.userInfo.username in ['system:apiserver', 'system:kube-controller-manager', 'system:kube-scheduler']";

/// The ConfigMap, and the configurations. `mutates`: whether the cluster has mutating policies of its own.
///
/// # Errors
/// The policies can't be written.
pub fn objects(policies: &[Value], mutates: bool) -> Result<[Value; 3]> {
    Ok([config_map(policies, mutates)?, configuration("Mutating", policies), configuration("Validating", policies)])
}

fn config_map(policies: &[Value], mutates: bool) -> Result<Value> {
    let items: Vec<Value> = policies.iter().map(without_ownership).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let broken = |e: serde_json::Error| Error::bug(format!("the policies can't be written as JSON: {e}"));
    let config = json!({
        "policies": "policies.json",
        "templates": !mutates,
        "names": [format!("{NAME}.{NAMESPACE}.svc")],
        "secret": {"namespace": NAMESPACE, "name": SECRET},
        "configuration": CONFIGURATION,
    });
    Ok(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {
            "webhook.yaml": serde_json::to_string_pretty(&config).map_err(broken)?,
            "policies.json": serde_json::to_string_pretty(&list).map_err(broken)?,
        },
    }))
}

/// A policy without the labels and annotations that say whose it is.
fn without_ownership(policy: &Value) -> Value {
    let mut policy = policy.clone();
    if let Some(Value::Object(metadata)) = policy.get_mut("metadata") {
        metadata.retain(|name, _| name == "name");
    }
    policy
}

fn configuration(what: &str, policies: &[Value]) -> Value {
    let mut webhook = json!({
        "name": format!("{}.{NAMESPACE}.ringfence.dev", what.to_lowercase()),
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "service": {
                "name": NAME, "namespace": NAMESPACE, "port": 443,
                "path": if what == "Mutating" { "/mutate" } else { "/validate" },
            },
        },
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": 10,
        "namespaceSelector": {
            "matchExpressions": [
                {"key": TENANT, "operator": "Exists"},
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": SYSTEM},
            ],
        },
        "objectSelector": {},
        "matchConditions": [{"name": "not-by-the-cluster", "expression": format!("!({BY_THE_CLUSTER})")}],
        "rules": rules(&format!("{what}AdmissionPolicy"), policies),
    });
    if what == "Mutating" {
        webhook["reinvocationPolicy"] = "IfNeeded".into();
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": format!("{what}WebhookConfiguration"),
        "metadata": {
            "name": CONFIGURATION,
            "annotations": {AUTHORITY_FROM: format!("{NAMESPACE}/{SECRET}")},
        },
        "webhooks": [webhook],
    })
}

/// The requests in tenants' namespaces that the policies of a kind are for.
fn rules(kind: &str, policies: &[Value]) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for policy in policies.iter().filter(|policy| policy.get("kind").and_then(Value::as_str) == Some(kind)) {
        let constraints = policy.pointer("/spec/matchConstraints").unwrap_or(&Value::Null);
        if !is_of_tenants(constraints) {
            continue;
        }
        for rule in constraints.get("resourceRules").and_then(Value::as_array).into_iter().flatten() {
            let mut rule: Map<String, Value> = rule.as_object().cloned().unwrap_or_default();
            rule.insert("scope".to_owned(), "Namespaced".into());
            let rule = Value::Object(rule);
            if !all.contains(&rule) {
                all.push(rule);
            }
        }
    }
    let covered = |rule: &Value| all.iter().any(|other| other != rule && covers(other, rule));
    all.iter().filter(|rule| !covered(rule)).cloned().collect()
}

/// Whether the policy is for tenants' namespaces only.
fn is_of_tenants(constraints: &Value) -> bool {
    let requirements = constraints.pointer("/namespaceSelector/matchExpressions").and_then(Value::as_array);
    requirements.into_iter().flatten().any(|one| one["key"] == TENANT && one["operator"] == "Exists")
}

/// Whether all requests of `rule` are requests of `other`.
fn covers(other: &Value, rule: &Value) -> bool {
    ["apiGroups", "apiVersions", "operations", "resources"].iter().all(|field| {
        let list = |of: &Value| of.get(*field).and_then(Value::as_array).cloned().unwrap_or_default();
        let wide = list(other);
        // The resource `*` has no subresources.
        let has = |one: &Value| {
            let is_sub = one.as_str().is_some_and(|name| name.contains('/'));
            wide.contains(one) || (wide.contains(&"*".into()) && !is_sub)
        };
        list(rule).iter().all(has)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn policy(kind: &str, tenants: bool, rules: Value) -> Value {
        let selector = match tenants {
            true => json!({"matchExpressions": [{"key": TENANT, "operator": "Exists"}]}),
            false => json!({}),
        };
        json!({
            "kind": kind, "metadata": {"name": "a", "labels": {"ringfence.dev/tenancy": "acme"}},
            "spec": {"matchConstraints": {"namespaceSelector": selector, "resourceRules": rules}},
        })
    }

    fn rule(group: &str, operations: &[&str], resources: &[&str]) -> Value {
        json!({"apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": resources, "scope": "Namespaced"})
    }

    #[test]
    fn api_servers_ask_for_what_the_policies_are_for() {
        let all = rule("*", &["CREATE", "UPDATE"], &["*"]);
        let sub = rule("", &["UPDATE"], &["pods", "pods/ephemeralcontainers"]);
        let delete = rule("a.io", &["UPDATE", "DELETE"], &["*/*"]);
        let policies = [
            policy("ValidatingAdmissionPolicy", true, json!([all, rule("", &["CREATE"], &["secrets"])])),
            policy("ValidatingAdmissionPolicy", true, json!([sub, sub, delete])),
            policy("ValidatingAdmissionPolicy", false, json!([rule("", &["DELETE"], &["namespaces"])])),
            policy("MutatingAdmissionPolicy", true, json!([sub])),
        ];
        let [map, mutating, validating] = objects(&policies, false).unwrap();
        assert_eq!(validating["webhooks"][0]["rules"], json!([all, sub, delete]));
        assert_eq!(mutating["webhooks"][0]["rules"], json!([sub]));
        let list: Value = serde_json::from_str(map["data"]["policies.json"].as_str().unwrap()).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 4);
        assert_eq!(list["items"][0]["metadata"], json!({"name": "a"}));
    }

    #[test]
    fn no_system_namespace_is_seen_and_tenants_fail_closed() {
        let [_, mutating, validating] = objects(&[], true).unwrap();
        for configuration in [mutating, validating] {
            let webhook = &configuration["webhooks"][0];
            assert_eq!(webhook["failurePolicy"], "Fail");
            let selector = webhook["namespaceSelector"]["matchExpressions"].to_string();
            assert!(SYSTEM.iter().all(|name| selector.contains(name)) && selector.contains(TENANT), "{selector}");
        }
    }
}
