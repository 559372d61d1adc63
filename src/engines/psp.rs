//! PodSecurityPolicies, for clusters below 1.25: `templates/manifests/psp`.

use serde_json::{Value, json};

use crate::engine::error::{Error, Result};
use crate::template::Templates;

/// A policy with its role for each tenant's Namespace among the cluster's objects, and the change to EKS's own binding.
///
/// # Errors
/// A Namespace lacks a permission in its annotations, or a template is wrong.
pub fn render(rendered: &[Value], templates: &Templates) -> Result<Vec<Value>> {
    let namespaces = rendered.iter().filter(|object| object["kind"] == "Namespace");
    let (tenants, others): (Vec<_>, Vec<_>) =
        namespaces.partition(|n| n.pointer("/metadata/labels/ringfence.dev~1tenant").is_some());
    let mut own = vec!["kube-system"];
    own.extend(others.iter().filter_map(|n| n["metadata"]["name"].as_str()).filter(|name| *name != "kube-system"));
    let mut objects = templates.yaml("manifests/psp/cluster.yaml", &json!({"namespaces": own}), "the cluster")?;
    for namespace in tenants {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        let context = json!({"tenant": permissions(name, namespace)?});
        objects.extend(templates.yaml("manifests/psp/tenant.yaml", &context, name)?);
    }
    Ok(objects)
}

/// A tenant's permissions in the form of a PodSecurityPolicy.
fn permissions(name: &str, namespace: &Value) -> Result<Value> {
    let note = |of: &str| {
        let value = namespace["metadata"]["annotations"][format!("ringfence.dev/{of}")].as_str();
        value.ok_or_else(|| {
            Error::input(format!("the Namespace {name} has no annotation ringfence.dev/{of}, so its policy is unknown"))
                .help("correct templates/manifests/tenant/namespace.yaml")
        })
    };
    let lines = |of: &str| Ok(note(of)?.split('\n').filter(|line| !line.is_empty()).collect::<Vec<_>>());
    let id = |of: &str| {
        note(of)?.parse::<u64>().map_err(|e| {
            Error::input(format!("the annotation ringfence.dev/{of} of the Namespace {name} is no number: {e}"))
                .help("correct templates/manifests/tenant/namespace.yaml")
        })
    };
    let mut seccomp = vec!["runtime/default".to_owned(), "docker/default".to_owned()];
    seccomp.extend(lines("seccomp-profiles")?.iter().map(|profile| format!("localhost/{profile}")));
    Ok(json!({
        "namespace": name,
        "first": id("first-uid")?,
        "last": id("last-uid")?,
        "capabilities": lines("allowed-capabilities")?,
        "hostPaths": lines("host-paths")?,
        "seccomp": seccomp.join(","),
    }))
}
