//! The resource that a path names.

use super::answer::{Failure, details, unknown_path};
use super::kinds::Kind;
use super::object::drop_member;
use serde_json::Value;

/// The resource that a path names.
pub(super) struct Target<'k> {
    pub kind: &'k Kind,
    pub namespace: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl<'k> Target<'k> {
    pub fn find(kinds: &'k [Kind], group: &str, version: &str, path: &[&str]) -> Result<Self, Failure> {
        let (namespace, rest) = match path {
            ["namespaces", _, "status" | "finalize"] => ("", path),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", path),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (resource, None, None),
            [resource, name] => (resource, Some(*name), None),
            [resource, name, sub] => (resource, Some(*name), Some(*sub)),
            _ => return Err(unknown_path()),
        };
        let of = |kind: &&Kind| kind.group == group && kind.version == version && kind.resource == *resource;
        let kind = kinds.iter().find(of).ok_or_else(unknown_path)?;
        // A namespaced kind without a namespace: only a list over all namespaces.
        if (!kind.namespaced && !namespace.is_empty()) || (kind.namespaced && namespace.is_empty() && name.is_some()) {
            return Err(unknown_path());
        }
        let (name, subresource) = (name.map(str::to_owned), subresource.map(str::to_owned));
        Ok(Self { kind, namespace: namespace.to_owned(), name, subresource })
    }

    pub fn key(&self, name: &str) -> String {
        key(self.kind, &self.namespace, name)
    }
}

impl Target<'_> {
    pub fn missing(&self, name: &str) -> Failure {
        let message = format!("{} \"{name}\" not found", self.kind.qualified());
        Failure(404, "NotFound", message, details(self.kind, name))
    }

    /// Fills in apiVersion and kind from the URL. Create and update may leave them out; apply may not.
    pub fn typed(&self, mut object: Value) -> Value {
        if object["apiVersion"].is_null() && object["kind"].is_null() {
            object["apiVersion"] = self.kind.api_version().into();
            object["kind"] = self.kind.kind.as_str().into();
        }
        object
    }

    /// A write to the status path changes the status only. A write to another path leaves the status as it is.
    pub fn with_status_of(&self, old: &Value, mut new: Value) -> Value {
        if self.subresource.is_some() {
            let mut object = old.clone();
            object["status"] = new["status"].take();
            return object;
        }
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => drop_member(&mut new, "status"),
        }
        new
    }
}

pub(super) fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    format!("{}|{}|{namespace}|{name}", kind.group, kind.resource)
}
