//! A request to an API server, as admission sees it.

use serde::Serialize;
use serde_json::{Value, json};

/// What somebody asks an API server to do with an object.
#[derive(Clone, Debug)]
pub struct Request {
    pub operation: Operation,
    pub group: String,
    pub version: String,
    pub kind: String,
    /// The plural, such as `pods`.
    pub resource: String,
    pub subresource: Option<String>,
    /// None for an object that is in no namespace.
    pub namespace: Option<String>,
    pub name: String,
    pub user: User,
    pub object: Option<Value>,
    pub old_object: Option<Value>,
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// Who asks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct User {
    pub username: String,
    pub groups: Vec<String>,
}

impl Request {
    pub fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.resource == "namespaces"
    }

    /// The variable `request` of expressions: an `AdmissionRequest` of `admission.k8s.io/v1`, without its objects.
    pub fn variable(&self) -> Value {
        let mut request = json!({
            "kind": {"group": self.group, "version": self.version, "kind": self.kind},
            "resource": {"group": self.group, "version": self.version, "resource": self.resource},
            "requestKind": {"group": self.group, "version": self.version, "kind": self.kind},
            "requestResource": {"group": self.group, "version": self.version, "resource": self.resource},
            "operation": self.operation.name(),
            "name": self.name,
            "userInfo": {"username": self.user.username, "groups": self.user.groups},
            "dryRun": self.dry_run,
        });
        if let Some(namespace) = &self.namespace {
            request["namespace"] = namespace.as_str().into();
        }
        if let Some(subresource) = &self.subresource {
            request["subResource"] = subresource.as_str().into();
            request["requestSubResource"] = subresource.as_str().into();
        }
        request
    }
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}
