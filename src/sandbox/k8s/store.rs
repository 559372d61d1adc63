//! The objects of one API server, and the requests that read and write them.

use super::super::clock::iso8601;
use super::super::eks;
use super::super::state::Ids;
use super::super::wire::HttpRequest;
use super::answer::{Answer, Failure, bad_request, conflict, details, unknown_path};
use super::fields;
use super::kinds::{self, Kind};
use super::object::{body, content, defaults, drop_nulls};
use super::selector::requirements;
use super::target::{Target, key};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Store {
    /// Objects by group, resource, namespace and name, joined with `|`.
    objects: BTreeMap<String, Value>,
    /// The latest resource version.
    version: u64,
}

/// The parameters of a write.
struct Write<'r> {
    /// Simulated unix seconds.
    now: f64,
    manager: String,
    dry: bool,
    force: bool,
    content: &'r str,
}

impl Store {
    pub fn serve(&mut self, at: &Target<'_>, req: &HttpRequest, ids: &mut Ids, now: f64) -> Answer {
        let query: BTreeMap<String, String> = req.query_pairs().into_iter().collect();
        let param = |name: &str| query.get(name).map(String::as_str);
        let agent = req.header("user-agent").split('/').next().unwrap_or_default();
        let write = Write {
            now,
            manager: param("fieldManager").filter(|name| !name.is_empty()).unwrap_or(agent).to_owned(),
            dry: param("dryRun").is_some_and(|dry| dry == "All"),
            force: param("force") == Some("true"),
            content: req.header("content-type").split(';').next().unwrap_or_default(),
        };
        if at.subresource.as_deref().is_some_and(|sub| sub != "status") {
            return Err(unknown_path());
        }
        match (req.method.as_str(), &at.name) {
            ("GET", None) if param("watch").is_some_and(|watch| watch != "false" && watch != "0") => {
                Err(Failure(405, "MethodNotAllowed", "ringfence's sandbox has no watches".to_owned(), json!({})))
            }
            ("GET", None) => self.list(at, &query),
            ("GET", Some(name)) => self.get(at, name).map(|object| (200, at.kind.shown(object))),
            ("POST", None) => {
                let mut object = at.typed(body(req)?);
                if let (Some(prefix), None) =
                    (object["metadata"]["generateName"].as_str(), object["metadata"]["name"].as_str())
                {
                    object["metadata"]["name"] = format!("{prefix}{}", ids.hex(5).to_lowercase()).into();
                }
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if self.objects.contains_key(&at.key(&name)) {
                    let message = format!("{} \"{name}\" already exists", at.kind.qualified());
                    return Err(Failure(409, "AlreadyExists", message, details(at.kind, &name)));
                }
                self.check(at, &name, &object)?;
                let object = fields::updated(&json!({}), object, at.kind, &write.manager, &stamp(write.now));
                self.store(at, &name, object, None, &write, ids).map(|object| (201, object))
            }
            ("PUT", Some(name)) => {
                let new = at.typed(body(req)?);
                let old = self.get(at, name)?.clone();
                self.check(at, name, &new)?;
                let version = &new["metadata"]["resourceVersion"];
                if version.is_string() && *version != old["metadata"]["resourceVersion"] {
                    let message = format!(
                        "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
                        at.kind.qualified()
                    );
                    return Err(Failure(409, "Conflict", message, details(at.kind, name)));
                }
                let new = at.with_status_of(&old, new);
                let object = fields::updated(&old, new, at.kind, &write.manager, &stamp(write.now));
                self.store(at, name, object, Some(&old), &write, ids).map(|object| (200, object))
            }
            ("PATCH", Some(name)) => self.patch(at, name, req, &write, ids),
            ("DELETE", Some(name)) => self.delete(at, name, &write),
            ("DELETE", None) => {
                let (_, list) = self.list(at, &query)?;
                for item in list["items"].as_array().into_iter().flatten() {
                    let namespace = item["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
                    let one = Target { kind: at.kind, namespace, name: None, subresource: None };
                    self.delete(&one, item["metadata"]["name"].as_str().unwrap_or_default(), &write)?;
                }
                Ok((200, list))
            }
            (method, _) => {
                let message = format!("the server does not allow {method} here");
                Err(Failure(405, "MethodNotAllowed", message, json!({})))
            }
        }
    }

    fn patch(&mut self, at: &Target<'_>, name: &str, req: &HttpRequest, write: &Write<'_>, ids: &mut Ids) -> Answer {
        let patch = body(req)?;
        let old = self.objects.get(&at.key(name)).cloned();
        match write.content {
            "application/apply-patch+yaml" => {
                if !write.has_manager(req) {
                    let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
                    return Err(Failure(400, "BadRequest", message.to_owned(), json!({})));
                }
                if patch["metadata"]
                    .get("managedFields")
                    .is_some_and(|managed| *managed != json!([]) && !managed.is_null())
                {
                    return Err(bad_request("metadata.managedFields must be nil"));
                }
                self.check(at, name, &patch)?;
                let live = old.clone().unwrap_or_else(|| json!({}));
                let applied = fields::applied(
                    &live,
                    patch,
                    at.kind,
                    &write.manager,
                    write.force,
                    &stamp(write.now),
                    at.subresource.is_some(),
                );
                let object = applied.map_err(|conflicts| conflict(&conflicts))?;
                let status = if old.is_some() { 200 } else { 201 };
                self.store(at, name, object, old.as_ref(), write, ids).map(|object| (status, object))
            }
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                let old = old.ok_or_else(|| at.missing(name))?;
                let mut new = old.clone();
                if write.content.contains("strategic") {
                    fields::strategic(&mut new, &patch, at.kind);
                } else {
                    eks::merge(&mut new, &patch);
                }
                self.check(at, name, &new)?;
                let new = at.with_status_of(&old, new);
                let object = fields::updated(&old, new, at.kind, &write.manager, &stamp(write.now));
                self.store(at, name, object, Some(&old), write, ids).map(|object| (200, object))
            }
            other => {
                let message = format!("ringfence's sandbox has no patches of the type {other:?}");
                Err(Failure(415, "UnsupportedMediaType", message, json!({})))
            }
        }
    }

    fn get(&self, at: &Target<'_>, name: &str) -> Result<&Value, Failure> {
        self.objects.get(&at.key(name)).ok_or_else(|| at.missing(name))
    }

    fn list(&self, at: &Target<'_>, query: &BTreeMap<String, String>) -> Answer {
        let selector = query.get("labelSelector").map_or(Ok(Vec::new()), |text| requirements(text))?;
        let fields = query.get("fieldSelector").map_or("", String::as_str);
        let mut wanted = Vec::new();
        for part in fields.split(',').filter(|part| !part.is_empty()) {
            let (path, value) = part.split_once('=').unwrap_or((part, ""));
            match path.trim_end_matches(['=', '!']) {
                "metadata.name" if !path.ends_with('!') => wanted.push(("name", value.trim_start_matches('='))),
                "metadata.namespace" if !path.ends_with('!') => {
                    wanted.push(("namespace", value.trim_start_matches('=')))
                }
                _ => return Err(bad_request(&format!("field selector {part:?} is not supported"))),
            }
        }
        let prefix = key(at.kind, &at.namespace, "");
        let prefix = if at.namespace.is_empty() { format!("{}|{}|", at.kind.group, at.kind.resource) } else { prefix };
        let after = query.get("continue").and_then(|token| STANDARD.decode(token).ok());
        let after = after.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let limit =
            query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let objects = self.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let fits = |object: &Value| {
            selector.iter().all(|one| one.fits(&object["metadata"]["labels"]))
                && wanted.iter().all(|(field, value)| object["metadata"][*field] == *value)
        };
        let mut rest = objects.filter(|(key, object)| **key > after && fits(object)).peekable();
        let (mut items, mut last) = (Vec::new(), "");
        while items.len() < limit
            && let Some((key, object)) = rest.next()
        {
            items.push(at.kind.listed(object));
            last = key;
        }
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if rest.peek().is_some() {
            metadata["continue"] = STANDARD.encode(last).into();
            metadata["remainingItemCount"] = rest.count().into();
        }
        let (kind, api) = (format!("{}List", at.kind.kind), at.kind.api_version());
        Ok((200, json!({"kind": kind, "apiVersion": api, "metadata": metadata, "items": items})))
    }

    /// The checks for every object that is written.
    fn check(&self, at: &Target<'_>, name: &str, object: &Value) -> Result<(), Failure> {
        let Target { kind, namespace, .. } = at;
        let told = (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
        if told != (kind.api_version().as_str(), kind.kind.as_str()) {
            let message = format!(
                "the API version and kind in the data ({}, {}) do not match those of the URL ({}, {})",
                told.0,
                told.1,
                kind.api_version(),
                kind.kind
            );
            return Err(bad_request(&message));
        }
        let metadata = &object["metadata"];
        if metadata["name"].as_str().is_some_and(|given| given != name) {
            return Err(bad_request(&format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                metadata["name"]
            )));
        }
        if metadata["namespace"].as_str().is_some_and(|given| given != namespace.as_str()) {
            return Err(bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let invalid = |field: &str, value: &str, rule: &str| {
            let message = format!(
                "{}.{} \"{name}\" is invalid: {field}: Invalid value: \"{value}\": {rule}",
                kind.kind, kind.group
            );
            Err(Failure(422, "Invalid", message.replacen(". ", " ", 1), details(kind, name)))
        };
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        // Names of RBAC objects are path segments; those of namespaces and services are DNS labels.
        let path_segment = kind.group == "rbac.authorization.k8s.io";
        let label = kind.group.is_empty() && (kind.resource == "namespaces" || kind.resource == "services");
        let shaped = name.starts_with(lower)
            && name.ends_with(lower)
            && name.chars().all(|c| lower(c) || c == '-' || (c == '.' && !label));
        let named = if path_segment { !name.is_empty() && !name.contains(['/', '%']) } else { shaped };
        if !named || name.len() > if label { 63 } else { 253 } {
            let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
            return invalid("metadata.name", name, rule);
        }
        for (label, value) in metadata["labels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or("\0");
            let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let ends = |text: &str| {
                text.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            };
            let last = label.rsplit('/').next().unwrap_or_default();
            let fine = |text: &str| text.len() <= 63 && text.chars().all(inner) && ends(text);
            if !fine(last) || !(value.is_empty() || fine(value)) {
                return invalid(
                    "metadata.labels",
                    value,
                    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'",
                );
            }
        }
        let home = key(&kinds::builtin("", "namespaces"), "", namespace);
        if kind.namespaced && !self.objects.contains_key(&home) {
            let message = format!("namespaces \"{namespace}\" not found");
            return Err(Failure(404, "NotFound", message, json!({"name": namespace, "kind": "namespaces"})));
        }
        if kind.is_definition() {
            let spec = &object["spec"];
            let right = format!(
                "{}.{}",
                spec["names"]["plural"].as_str().unwrap_or_default(),
                spec["group"].as_str().unwrap_or_default()
            );
            if name != right {
                return invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
            }
        }
        Ok(())
    }

    /// Completes an object as the server does, and stores it unless the write is a dry run.
    fn store(
        &mut self,
        at: &Target<'_>,
        name: &str,
        object: Value,
        old: Option<&Value>,
        write: &Write<'_>,
        ids: &mut Ids,
    ) -> Result<Value, Failure> {
        let mut object = defaults(at.kind, &at.namespace, name, object);
        if let Some(old) = old {
            for member in ["uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp"] {
                object["metadata"][member] = old["metadata"][member].clone();
            }
            if content(&object) != content(old) && old["metadata"]["generation"].is_u64() {
                object["metadata"]["generation"] =
                    (old["metadata"]["generation"].as_u64().unwrap_or_default() + 1).into();
            }
            drop_nulls(&mut object["metadata"]);
            if object == *old {
                return Ok(at.kind.shown(old));
            }
        } else {
            object["metadata"]["uid"] = ids.uuid().into();
            object["metadata"]["creationTimestamp"] = stamp(write.now).into();
            if at.kind.has_generation() {
                object["metadata"]["generation"] = 1.into();
            }
        }
        if write.dry {
            return Ok(at.kind.shown(&object));
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let leaving = !object["metadata"]["deletionTimestamp"].is_null()
            && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let shown = at.kind.shown(&object);
        if leaving {
            self.objects.remove(&at.key(name));
        } else {
            self.objects.insert(at.key(name), object);
        }
        if old.is_none() && at.kind.is_namespace() {
            self.furnish(name, ids, write.now);
        }
        if matches!(at.kind.resource.as_str(), "deployments" | "services" | "secrets") {
            self.run_pods(&at.namespace, ids, write.now);
        }
        Ok(shown)
    }

    /// Stores an object of the cluster's own.
    pub fn put(&mut self, kind: &Kind, namespace: &str, object: Value, ids: &mut Ids, now: f64) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let at = Target { kind, namespace: namespace.to_owned(), name: None, subresource: None };
        let write = Write { now, manager: "kube-apiserver".to_owned(), dry: false, force: false, content: "" };
        if !self.objects.contains_key(&at.key(&name)) {
            let object = fields::updated(&json!({}), object, kind, &write.manager, &stamp(now));
            // Only the checks can refuse an object, and they don't run here.
            let _stored = self.store(&at, &name, object, None, &write, ids);
        }
    }

    /// All objects of a kind in a namespace.
    pub(super) fn all(&self, kind: &Kind, namespace: &str) -> Vec<Value> {
        let prefix = key(kind, namespace, "");
        let objects = self.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        objects.map(|(_, object)| object.clone()).collect()
    }

    /// Replaces an object without checks.
    pub(super) fn replace(&mut self, kind: &Kind, namespace: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.objects.insert(key(kind, namespace, &name), object);
    }

    /// Adds the objects that controllers put into every namespace.
    pub fn furnish(&mut self, namespace: &str, ids: &mut Ids, now: f64) {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        self.put(&kinds::builtin("", "serviceaccounts"), namespace, account, ids, now);
        let ca = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"},
            "data": {"ca.crt": eks::versions::CERTIFICATE},
        });
        self.put(&kinds::builtin("", "configmaps"), namespace, ca, ids, now);
    }

    fn delete(&mut self, at: &Target<'_>, name: &str, write: &Write<'_>) -> Answer {
        let mut object = self.get(at, name)?.clone();
        let uid = object["metadata"]["uid"].clone();
        object["metadata"]["deletionTimestamp"] = stamp(write.now).into();
        object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        if at.kind.is_namespace() {
            object["status"]["phase"] = "Terminating".into();
        }
        let kept = object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if !write.dry {
            if kept {
                self.objects.insert(at.key(name), object.clone());
            } else {
                self.objects.remove(&at.key(name));
                let inside = format!("|{name}|");
                if at.kind.is_namespace() {
                    self.objects.retain(|key, _| {
                        key.splitn(3, '|').nth(2).is_none_or(|rest| !format!("|{rest}").starts_with(&inside))
                    });
                }
                if at.kind.is_definition() {
                    let (plural, group) = name.split_once('.').unwrap_or((name, ""));
                    let prefix = format!("{group}|{plural}|");
                    self.objects.retain(|key, _| !key.starts_with(&prefix));
                }
            }
            self.version += 1;
        }
        if kept || at.kind.is_namespace() {
            return Ok((200, at.kind.shown(&object)));
        }
        let mut details = details(at.kind, name);
        details["uid"] = uid;
        Ok((
            200,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
        ))
    }

    pub fn definitions(&self) -> impl Iterator<Item = &Value> {
        const PREFIX: &str = "apiextensions.k8s.io|customresourcedefinitions|";
        self.objects.range(PREFIX.to_owned()..).take_while(|(key, _)| key.starts_with(PREFIX)).map(|(_, object)| object)
    }
}

impl Write<'_> {
    fn has_manager(&self, req: &HttpRequest) -> bool {
        req.query_pairs().iter().any(|(name, value)| name == "fieldManager" && *value == self.manager)
    }
}

/// `2026-11-23T06:19:00Z`.
pub(super) fn stamp(now: f64) -> String {
    iso8601(now.floor()).replace(".000Z", "Z")
}
