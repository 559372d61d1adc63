//! Kubernetes objects as JSON: their names, and the ownership that is written into them.

use serde_json::{Map, Value, json};

use crate::aws::tags::{ADDRESS, GENERATION, TENANCY, TENANT};
use crate::engine::address::{Address, Owner};
use crate::engine::value;
use crate::k8s::Api;
use crate::k8s::apis::group_of;

/// Writes ownership into an object, by which [`Manifest`](super::Manifest) finds it. This is part of rendering, so that files for
/// GitOps have it, too.
pub fn own(object: &mut Value, tenancy: &str, address: &Address) {
    let mut labels = vec![(TENANCY, tenancy.to_owned())];
    // A Namespace with this label is the tenant's own. In a silo's cluster, other Namespaces are the platform's.
    let is_of_platform = |id: &str| namespace_name(object).is_some_and(|name| name != format!("t-{id}"));
    if let Owner::Tenant(id) = address.owner()
        && !is_of_platform(&id)
    {
        labels.push((TENANT, id));
    }
    for (field, pairs) in [("labels", labels), ("annotations", vec![(ADDRESS, address.to_string())])] {
        if let Some(map) = metadata_map(object, field) {
            map.extend(pairs.into_iter().map(|(k, v)| (k.to_owned(), Value::String(v))));
        }
    }
}

/// `NetworkPolicy t-23456/default-deny`.
pub fn summary(object: &Value) -> String {
    let name = text(object, "/metadata/name").unwrap_or("(no name)");
    let kind = text(object, "/kind").unwrap_or("(no kind)");
    match text(object, "/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// `<cluster>|<apiVersion>|<Kind>|<namespace>|<name>`.
pub(super) fn id(cluster: &str, object: &Value) -> String {
    let part = |pointer: &str| text(object, pointer).unwrap_or_default();
    format!(
        "{cluster}|{}|{}|{}|{}",
        part("/apiVersion"),
        part("/kind"),
        part("/metadata/namespace"),
        part("/metadata/name")
    )
}

/// The object with only the fields that identify it.
pub(super) fn identity(object: &Value) -> Value {
    let metadata: Map<String, Value> = ["name", "namespace"]
        .into_iter()
        .filter_map(|f| Some((f.to_owned(), object.get("metadata")?.get(f)?.clone())))
        .collect();
    json!({"apiVersion": object.get("apiVersion"), "kind": object.get("kind"), "metadata": metadata})
}

/// True for objects that Kubernetes creates in every namespace, if the namespace is one of `ours`.
pub(super) fn is_given(object: &Value, ours: impl FnOnce(&str) -> bool) -> bool {
    let account = text(object, "/kind") == Some("ServiceAccount") && text(object, "/apiVersion") == Some("v1");
    let named = account && text(object, "/metadata/name") == Some("default");
    named && text(object, "/metadata/namespace").is_some_and(ours)
}

pub(super) fn namespace_name(object: &Value) -> Option<&str> {
    let is = text(object, "/kind")? == "Namespace" && group_of(text(object, "/apiVersion")?).is_empty();
    text(object, "/metadata/name").filter(|_| is)
}

/// The group that a CustomResourceDefinition defines. Gatekeeper makes one from each ConstraintTemplate.
pub(super) fn defined_group(object: &Value) -> Option<&str> {
    match text(object, "/kind")? {
        "CustomResourceDefinition" => text(object, "/spec/group"),
        "ConstraintTemplate" => Some("constraints.gatekeeper.sh"),
        _ => None,
    }
}

pub(super) fn generation(live: &Value) -> u32 {
    let text = text(live, &format!("/metadata/annotations/{}", pointer(GENERATION)));
    text.and_then(|g| g.parse().ok()).unwrap_or(1)
}

pub(super) fn deleting(live: &Value) -> bool {
    text(live, "/metadata/deletionTimestamp").is_some()
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    value::at(object, pointer)?.as_str()
}

/// Escapes a key for a JSON pointer.
pub(super) fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// `metadata.<field>`, created if missing. `None` if it has another type.
pub(super) fn metadata_map<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let empty = || Value::Object(Map::new());
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(empty).as_object_mut()?;
    let map = metadata.entry(field).or_insert_with(empty);
    if map.is_null() {
        *map = empty();
    }
    map.as_object_mut()
}

/// The identity of an object in a cluster, independent of its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub group: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
}

impl Key {
    /// `namespace` is used only if `api` is namespaced.
    pub fn new(api: &Api, object: &Value) -> Self {
        let namespace = text(object, "/metadata/namespace").filter(|_| api.namespaced);
        Self {
            group: api.group.clone(),
            kind: api.kind.clone(),
            namespace: namespace.map(str::to_owned),
            name: text(object, "/metadata/name").unwrap_or_default().to_owned(),
        }
    }

    /// True if deleting `namespace` deletes the object.
    pub fn is_in(&self, namespace: &str) -> bool {
        self.namespace.as_deref() == Some(namespace)
    }

    pub fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.kind == "Namespace"
    }
}
