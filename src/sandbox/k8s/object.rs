//! Objects: how the server reads them from a request, and what it adds to them.

use super::super::wire::HttpRequest;
use super::answer::{Failure, bad_request};
use super::kinds::Kind;
use serde_json::{Map, Value, json};

pub(super) fn body(req: &HttpRequest) -> Result<Value, Failure> {
    let text = String::from_utf8_lossy(&req.body);
    let yaml = req.header("content-type").contains("yaml");
    let value: Result<Value, String> = if yaml {
        serde_yaml::from_str(&text).map_err(|why| why.to_string())
    } else {
        serde_json::from_str(&text).map_err(|why| why.to_string())
    };
    let mut value = value.map_err(|why| bad_request(&format!("error decoding the body: {why}")))?;
    let shaped =
        value.is_object() && value.get("metadata").is_none_or(|metadata| metadata.is_object() || metadata.is_null());
    if !shaped {
        return Err(bad_request("the body is no Kubernetes object"));
    }
    for member in ["spec", "status"] {
        if value.get(member).is_some_and(|part| !part.is_object() && !part.is_null()) {
            return Err(bad_request(&format!("{member} is no object")));
        }
        if value.get(member).is_some_and(Value::is_null) {
            drop_member(&mut value, member);
        }
    }
    if value["metadata"].is_null() {
        value["metadata"] = json!({});
    }
    for member in ["labels", "annotations"] {
        let part = &value["metadata"][member];
        if !part.is_null() && !part.is_object() {
            return Err(bad_request(&format!("metadata.{member} is no map")));
        }
    }
    Ok(value)
}

/// The defaults that the server adds to every object, to namespaces and to custom resource definitions.
pub(super) fn defaults(kind: &Kind, namespace: &str, name: &str, mut object: Value) -> Value {
    object["metadata"]["name"] = name.into();
    if kind.namespaced {
        object["metadata"]["namespace"] = namespace.into();
    }
    if kind.is_namespace() {
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
        if object["spec"]["finalizers"].is_null() {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
        }
        if object["status"]["phase"].is_null() {
            object["status"]["phase"] = "Active".into();
        }
    }
    if kind.is_definition() {
        let names = object["spec"]["names"].clone();
        let versions = object["spec"]["versions"].as_array().into_iter().flatten();
        let stored: Value = versions.filter(|one| one["storage"] == true).map(|one| one["name"].clone()).collect();
        object["status"] = json!({
            "acceptedNames": names, "storedVersions": stored,
            "conditions": [
                {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found"},
                {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
            ],
        });
    }
    object
}

/// An object without metadata and status. A change of it raises the generation.
pub(super) fn content(object: &Value) -> Map<String, Value> {
    let mut members = object.as_object().cloned().unwrap_or_default();
    members.remove("metadata");
    members.remove("status");
    members
}

pub(super) fn drop_nulls(value: &mut Value) {
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, member| !member.is_null());
    }
}

pub(super) fn drop_member(value: &mut Value, member: &str) {
    if let Some(members) = value.as_object_mut() {
        members.shift_remove(member);
    }
}
