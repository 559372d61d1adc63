//! What an API server does to an object before its policies see it, as far as the policies can tell.
//!
//! - Decoding drops fields that are null or have their type's empty value, and writes the current name of a deprecated
//!   field (`k8s.io/api`, and the conversions of `k8s.io/kubernetes/pkg/apis`).
//! - Defaults are filled in (`pkg/apis/*/v1/defaults.go`).
//! - After the mutating policies, the strategy of Pods writes annotations of AppArmor into the fields of the same meaning
//!   (`pkg/registry/core/pod/strategy.go`).
//!
//! Plugins of the API server add more, which no policy looks at: LimitRanger (resources), Priority (a number),
//! DefaultTolerationSeconds (tolerations that are always allowed), ServiceAccount (a token, if the service account
//! mounts one; those of tenants don't, unless the tenant may have tokens).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::request::{Operation, Request};

/// Fields that are dropped if they are an empty string.
const TEXTS: &[&str] = &[
    "dnsPolicy",
    "effect",
    "hostname",
    "image",
    "imagePullPolicy",
    "key",
    "nodeName",
    "operator",
    "priorityClassName",
    "restartPolicy",
    "schedulerName",
    "serviceAccount",
    "serviceAccountName",
    "subdomain",
    "value",
];

/// Fields that are dropped if they are an empty map. All others are structures, which are kept.
const MAPS: &[&str] = &["annotations", "labels", "limits", "nodeSelector", "requests"];

const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Kinds of containers in a Pod's spec.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// A reference to an image, as `distribution/reference` reads it.
static IMAGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let part = "(?:[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*)";
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let host = format!(r"(?:{label}(?:[.]{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    Regex::new(&format!(
        "^(?:{host}/)?{part}(?:/{part})*(?::(?<tag>[0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}}))?(?<digest>@{digest})?$"
    ))
    .ok()
});

/// The path of the Pod template or the Pod's own spec and metadata, if the resource has one.
pub fn pod_path(request: &Request) -> Option<&'static str> {
    match (request.group.as_str(), request.resource.as_str()) {
        ("", "pods") => Some(""),
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => Some("/spec/template"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Decodes the object of a request, and fills in defaults.
pub fn decode(request: &mut Request) {
    let path = pod_path(request);
    let is_builtin = !request.group.contains('.') || request.group.ends_with(".k8s.io");
    let labelled = matches!(request.resource.as_str(), "replicationcontrollers" | "jobs");
    let Some(object) = &mut request.object else { return };
    if !is_builtin {
        if let Some(metadata) = object.get_mut("metadata") {
            drop_empty(metadata, true);
        }
        return;
    }
    drop_empty(object, path.is_some());
    let Some(path) = path else { return };
    // These two take the labels of their template if they have none.
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if labelled
        && let Some(labels) = labels
        && let Some(Value::Object(metadata)) = object.get_mut("metadata")
    {
        metadata.entry("labels").or_insert(labels);
    }
    if let Some(Value::Object(spec)) = object.pointer_mut(&format!("{path}/spec")) {
        complete(spec);
        if path.is_empty() {
            request_limits(spec);
        }
    }
}

/// Drops nulls, and with `empty` empty lists and the empty values of [`TEXTS`] and [`MAPS`].
fn drop_empty(value: &mut Value, empty: bool) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(|inner| drop_empty(inner, empty));
            fields.retain(|name, inner| match inner {
                Value::Null => false,
                Value::Array(items) => !empty || !items.is_empty() || name == "sources",
                Value::String(text) => !empty || !text.is_empty() || !TEXTS.contains(&name.as_str()),
                Value::Object(inner) => !empty || !inner.is_empty() || !MAPS.contains(&name.as_str()),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_empty(item, empty)),
        _ => {}
    }
}

/// Fills in the spec of a Pod.
fn complete(spec: &mut Map<String, Value>) {
    if let Some(deprecated) = spec.get("serviceAccount").cloned() {
        spec.entry("serviceAccountName").or_insert(deprecated);
    }
    for list in CONTAINERS {
        for container in items(spec.get_mut(list)) {
            let policy = container.get("image").and_then(Value::as_str).map(pull_policy).unwrap_or("IfNotPresent");
            if let Value::Object(container) = container {
                container.entry("imagePullPolicy").or_insert_with(|| policy.into());
            }
        }
    }
    for volume in items(spec.get_mut("volumes")) {
        // This list is written as null if there is none, and stays empty if it is empty.
        if let Some(Value::Object(projected)) = volume.get_mut("projected") {
            projected.entry("sources").or_insert(Value::Null);
        }
        let Some(Value::Object(image)) = volume.get_mut("image") else { continue };
        let policy = image.get("reference").and_then(Value::as_str).map(pull_policy).unwrap_or("IfNotPresent");
        image.entry("pullPolicy").or_insert_with(|| policy.into());
    }
}

/// Limits without a request are requested, too. This default is of Pods, not of templates.
fn request_limits(spec: &mut Map<String, Value>) {
    for list in &CONTAINERS[..2] {
        for container in items(spec.get_mut(*list)) {
            let Some(Value::Object(resources)) = container.get_mut("resources") else { continue };
            let Some(Value::Object(limits)) = resources.get("limits").cloned() else { continue };
            if let Value::Object(requests) = resources.entry("requests").or_insert_with(|| json!({})) {
                for (resource, limit) in limits {
                    requests.entry(resource).or_insert(limit);
                }
            }
        }
    }
}

fn items(list: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

/// The default of `imagePullPolicy`: `Always` for the tag `latest`, which is also the tag of an image without tag and
/// digest.
fn pull_policy(image: &str) -> &'static str {
    let parsed = IMAGE.as_ref().and_then(|regex| regex.captures(image));
    let latest = parsed.is_some_and(|parsed| match (parsed.name("tag"), parsed.name("digest")) {
        (Some(tag), _) => tag.as_str() == "latest",
        (None, digest) => digest.is_none(),
    });
    if latest { "Always" } else { "IfNotPresent" }
}

/// The object as validating policies see it, if that differs: in a new Pod, an annotation of AppArmor gives its
/// container the field of the same meaning.
pub fn prepared(request: &Request) -> Option<Value> {
    if request.operation != Operation::Create || !request.group.is_empty() || request.resource != "pods" {
        return None;
    }
    let object = request.object.as_ref()?;
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object)?;
    if !annotations.keys().any(|key| key.starts_with(APPARMOR)) {
        return None;
    }
    let mut prepared = object.clone();
    let of_pod = object.pointer("/spec/securityContext/appArmorProfile").is_some();
    for list in &CONTAINERS[..2] {
        for container in items(prepared.get_mut("spec").and_then(|spec| spec.get_mut(list))) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let annotation = annotations.get(&format!("{APPARMOR}{name}")).and_then(Value::as_str);
            let own = container.pointer("/securityContext/appArmorProfile").is_some();
            if let (Some(profile), false, Value::Object(container)) =
                (annotation.and_then(profile_of), own || of_pod, container)
            {
                let context = container.entry("securityContext").or_insert_with(|| json!({}));
                context["appArmorProfile"] = profile;
            }
        }
    }
    Some(prepared)
}

fn profile_of(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => other.strip_prefix("localhost/").map(|name| json!({"type": "Localhost", "localhostProfile": name})),
    }
}

/// What EKS's own webhook writes into a new Pod of a Fargate profile, before validating policies see it. Only for a
/// verdict: EKS writes it itself.
pub fn fargate(pod: &mut Value, namespace: &Value) {
    let note = |name: &str| namespace.pointer(&format!("/metadata/annotations/ringfence.dev~1{name}"));
    let Some(profile) = note("fargate-profile").filter(|_| note("isolation") == Some(&"fargate".into())) else {
        return;
    };
    let label = "eks.amazonaws.com/fargate-profile";
    let Value::Object(pod) = pod else { return };
    let metadata = pod.entry("metadata").or_insert_with(|| json!({}));
    if metadata.pointer("/labels/eks.amazonaws.com~1fargate-profile").is_none() {
        metadata["labels"][label] = profile.clone();
    }
    if let Some(Value::Object(spec)) = pod.get_mut("spec") {
        let is_default = |field: Option<&Value>, default: &str| {
            field.and_then(Value::as_str).is_none_or(|text| text.is_empty() || text == default)
        };
        if is_default(spec.get("schedulerName"), "default-scheduler") {
            spec.insert("schedulerName".to_owned(), "fargate-scheduler".into());
        }
        spec.entry("priorityClassName").or_insert_with(|| "system-node-critical".into());
    }
}

/// Takes out of a decorated Pod what [`fargate`] wrote: these fields become those of the Pod as it was written.
pub fn without_fargate(decorated: &mut Value, written: &Value) {
    let label = "/metadata/labels/eks.amazonaws.com~1fargate-profile";
    for pointer in [label, "/spec/schedulerName", "/spec/priorityClassName"] {
        let Some((parent, field)) = pointer.rsplit_once('/') else { continue };
        let Some(Value::Object(parent)) = decorated.pointer_mut(parent) else { continue };
        let field = field.replace("~1", "/");
        match written.pointer(pointer) {
            Some(value) => drop(parent.insert(field, value.clone())),
            None => drop(parent.shift_remove(&field)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_a_tag_are_pulled_always() {
        let digest = format!("@sha256:{}", "0123456789abcdef".repeat(4));
        for image in ["web", "web:latest", "a.b/c/d", "localhost:5000/x", &format!("web:latest{digest}")] {
            assert_eq!(pull_policy(image), "Always", "{image}");
        }
        for image in
            ["web:1", "a.b:5000/c:v1", &format!("web{digest}"), "Web", "a.b/C", "", "a b", "x/:latest", "web@sha256:1"]
        {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
