//! The requests to an API server.

use http::Method;
use serde_json::{Value, json};

use super::object::{deleting, summary, text};
use crate::engine::error::{Class, Error, Result};
use crate::k8s::client::Call;
use crate::k8s::{Api, Cluster, apply};

/// Objects in one page of a list.
const PAGE: u32 = 500;
pub(super) const WHOLE: &str = "application/json";
/// The metadata fields that pruning needs: identity, labels and managers, without data.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// All pages of a list, each object with its version and kind.
pub(super) async fn list(
    cluster: &Cluster,
    api: &Api,
    namespace: Option<&str>,
    selector: Option<&str>,
    accept: &'static str,
) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut from = String::new();
    let mut restarted = false;
    loop {
        let mut path = format!("{}?limit={PAGE}", api.collection(namespace));
        for (name, value) in [("labelSelector", selector.unwrap_or_default()), ("continue", from.as_str())] {
            if !value.is_empty() {
                let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
                path.push_str(&format!("&{name}={value}"));
            }
        }
        let mut answer = match cluster.call(&Call { accept, ..Call::get("list", path) }).await {
            // The list took so long that its snapshot has expired.
            Err(e) if e.code.as_deref() == Some("Expired") && !restarted => {
                (restarted, from) = (true, String::new());
                all.clear();
                continue;
            }
            other => other?,
        };
        if let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) {
            all.extend(items.into_iter().map(|mut item| {
                if let Value::Object(map) = &mut item {
                    map.insert("apiVersion".to_owned(), Value::String(api.api_version()));
                    map.insert("kind".to_owned(), Value::String(api.kind.clone()));
                }
                item
            }));
        }
        match text(&answer, "/metadata/continue").filter(|c| !c.is_empty()) {
            Some(next) => from = next.to_owned(),
            None => return Ok(all),
        }
    }
}

pub(super) async fn get(cluster: &Cluster, api: &Api, object: &Value) -> Result<Option<Value>> {
    let name = text(object, "/metadata/name").unwrap_or_default();
    match cluster.call(&Call::get("get", api.object(text(object, "/metadata/namespace"), name))).await {
        Ok(live) => Ok(Some(live)),
        Err(e) if e.class == Class::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) async fn apply(cluster: &Cluster, api: &Api, object: &Value, dry: bool) -> Result<Value> {
    if api.kind == "Secret" && api.group.is_empty() && object.get("stringData").is_some() {
        return Err(Error::input(format!("{} has stringData, which server-side apply can't own", summary(object)))
            .help("write the values as base64 in `data`"));
    }
    let namespace = text(object, "/metadata/namespace");
    let name = text(object, "/metadata/name").unwrap_or_default();
    let dry = if dry { "&dryRun=All" } else { "" };
    let path = api.object(namespace, name);
    let body =
        serde_json::to_vec(object).map_err(|e| Error::bug(format!("an object can't be written as JSON: {e}")))?;
    let call = Call {
        action: if dry.is_empty() { "apply" } else { "dry-run" },
        method: Method::PATCH,
        path: format!("{path}?fieldManager={}&force=true&fieldValidation=Strict{dry}", apply::MANAGER),
        accept: WHOLE,
        body: Some((apply::PATCH, body)),
    };
    cluster.call(&call).await.map_err(|e| match (e.class, namespace) {
        (Class::NotFound, Some(namespace)) => e.help(format!(
            "if the namespace {namespace} isn't ringfence's, install first what it belongs to, then run the same command"
        )),
        _ => discreet(object, e),
    })
}

/// Replaces the live object with a complete object that was derived from it.
pub(super) async fn replace(cluster: &Cluster, api: &Api, object: &Value) -> Result<Value> {
    let path = api.object(text(object, "/metadata/namespace"), text(object, "/metadata/name").unwrap_or_default());
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    let body =
        serde_json::to_vec(&object).map_err(|e| Error::bug(format!("an object can't be written as JSON: {e}")))?;
    let call = Call {
        action: "replace",
        method: Method::PUT,
        path: format!("{path}?fieldManager={}", apply::MANAGER),
        accept: WHOLE,
        body: Some((WHOLE, body)),
    };
    cluster.call(&call).await
}

/// Deletes `live`, unless it was changed in between. Returns true if it doesn't exist any more.
pub(super) async fn delete(cluster: &Cluster, api: &Api, live: &Value) -> Result<bool> {
    let known = |field: &str| live.pointer(&format!("/metadata/{field}")).cloned();
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        // If the object was changed in between, it might no longer be ours.
        "preconditions": {"uid": known("uid"), "resourceVersion": known("resourceVersion")},
    });
    let call = Call {
        action: "delete",
        method: Method::DELETE,
        path: api.object(text(live, "/metadata/namespace"), text(live, "/metadata/name").unwrap_or_default()),
        accept: WHOLE,
        body: Some((WHOLE, options.to_string().into_bytes())),
    };
    match cluster.call(&call).await {
        // If finalizers are left, the answer is the object instead of a Status.
        Ok(answer) => Ok(!deleting(&answer)),
        Err(e) if e.class == Class::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

/// The server's wording for a field that can be set only once.
pub(super) fn is_immutable(error: &Error) -> bool {
    let words = ["immutable", "may not be changed", "cannot change roleRef", "Forbidden: updates to"];
    error.class == Class::Invalid && words.iter().any(|w| error.message.contains(w))
}

/// A refusal quotes the refused object, and the content of a Secret must not be shown.
fn discreet(object: &Value, error: Error) -> Error {
    if text(object, "/kind") != Some("Secret") || error.class != Class::Invalid {
        return error;
    }
    let immutable = if is_immutable(&error) { ": a field of it is immutable" } else { "" };
    Error { message: format!("the API server refuses {}{immutable}", summary(object)), ..error }
}
