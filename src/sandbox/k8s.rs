//! The API servers of the clusters: a store of Kubernetes objects with discovery and server-side apply.
//!
//! They are good enough to plan and apply manifests: names, namespaces, versions, generations, field managers and their
//! conflicts, dry runs, custom resource definitions. Everything else of a cluster is missing: no authentication, no
//! RBAC, **no admission** (no Pod Security, no policies, no quota), no schemas, no watches, no controllers, no garbage
//! collection. The deletion of a namespace deletes its objects at once.

mod fields;
mod kinds;

use super::clock::iso8601;
use super::eks;
use super::state::{Ids, State};
use super::wire::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kinds::Kind;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct K8s {
    /// API servers by cluster name.
    servers: BTreeMap<String, Store>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Store {
    /// Objects by group, resource, namespace and name, joined with `|`.
    objects: BTreeMap<String, Value>,
    /// The latest resource version.
    version: u64,
}

/// An error answer of the API server: HTTP status, reason, message, details.
struct Failure(u16, &'static str, String, Value);

type Answer = Result<(u16, Value), Failure>;

impl K8s {
    /// Makes a new cluster's API server, with the objects that every cluster has.
    pub fn add(&mut self, cluster: &str, ids: &mut Ids, now: f64) {
        let store = self.servers.entry(cluster.to_owned()).or_default();
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            store.put(&kinds::builtin("", "namespaces"), "", object, ids, now);
            store.furnish(namespace, ids, now);
        }
        for role in ["admin", "cluster-admin", "edit", "view"] {
            let rules = if role == "cluster-admin" {
                json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])
            } else {
                json!([])
            };
            let object = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules,
            });
            store.put(&kinds::builtin("rbac.authorization.k8s.io", "clusterroles"), "", object, ids, now);
        }
        for (class, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
            let object = json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class}, "value": value,
            });
            store.put(&kinds::builtin("scheduling.k8s.io", "priorityclasses"), "", object, ids, now);
        }
    }

    pub fn remove(&mut self, cluster: &str) {
        self.servers.remove(cluster);
    }
}

/// Answers requests below `/k8s/<account>/<region>/<cluster>/`.
pub fn handle(state: &mut State, now: f64, req: HttpRequest) -> HttpResponse {
    let mut parts = req.path.trim_start_matches("/k8s/").splitn(4, '/').map(str::to_owned);
    let (account, region, cluster) = match (parts.next(), parts.next(), parts.next()) {
        (Some(account), Some(region), Some(cluster)) => (account, region, cluster),
        _ => return respond(&req, Err(not_found("the path is not a cluster's"))),
    };
    let path = parts.next().unwrap_or_default();
    eks::settle(state, &account, &region, now);
    let State { accounts, ids, .. } = state;
    let here = accounts.get_mut(&account).and_then(|account| account.regions.get_mut(&region));
    let known = here.and_then(|here| Some((here.eks.api_server(&cluster)?, here.k8s.servers.get_mut(&cluster)?)));
    let Some(((version, network_policies), store)) = known else {
        let message = format!("no cluster {cluster} of account {account} in {region} has an API server now");
        return respond(&req, Err(Failure(503, "ServiceUnavailable", message, json!({}))));
    };
    let kinds = kinds::all(version.minor, network_policies, store.definitions());
    let segments: Vec<String> = path
        .split('/')
        .filter(|one| !one.is_empty())
        .map(|one| percent_decode_str(one).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let aggregated = req.header("accept").contains("apidiscovery.k8s.io");
    let answer = match segments.as_slice() {
        ["version"] => Ok((
            200,
            json!({
                "major": "1", "minor": version.minor.to_string(), "gitVersion": version.git(), "platform": "linux/amd64",
                "emulationMajor": "1", "emulationMinor": version.minor.to_string(),
                "gitCommit": "", "gitTreeState": "clean", "buildDate": "", "goVersion": "", "compiler": "gc",
            }),
        )),
        ["healthz" | "livez" | "readyz", ..] => {
            let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
            return HttpResponse { status: 200, headers, body: b"ok".to_vec() };
        }
        ["api" | "apis"] if aggregated => {
            let body = kinds::aggregated(&kinds, segments.first() == Some(&"api"));
            let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let headers = vec![("content-type".to_owned(), kind.to_owned())];
            return HttpResponse { status: 200, headers, body: body.to_string().into_bytes() };
        }
        ["api"] => Ok((200, json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))),
        ["apis"] => Ok((200, kinds::groups(&kinds))),
        ["apis", group] => kinds::group(&kinds, group).map(|group| (200, group)).ok_or_else(unknown_path),
        ["api", "v1"] => Ok((200, kinds::resources(&kinds, "", "v1"))),
        ["apis", group, version] if kinds.iter().any(|kind| kind.group == *group && kind.version == *version) => {
            Ok((200, kinds::resources(&kinds, group, version)))
        }
        ["api", "v1", rest @ ..] => {
            Target::find(&kinds, "", "v1", rest).and_then(|at| store.serve(&at, &req, ids, now))
        }
        ["apis", group, version, rest @ ..] => {
            Target::find(&kinds, group, version, rest).and_then(|at| store.serve(&at, &req, ids, now))
        }
        _ => Err(unknown_path()),
    };
    respond(&req, answer)
}

/// The resource that a path names.
struct Target<'k> {
    kind: &'k Kind,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl<'k> Target<'k> {
    fn find(kinds: &'k [Kind], group: &str, version: &str, path: &[&str]) -> Result<Self, Failure> {
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

    fn key(&self, name: &str) -> String {
        key(self.kind, &self.namespace, name)
    }
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
    fn serve(&mut self, at: &Target<'_>, req: &HttpRequest, ids: &mut Ids, now: f64) -> Answer {
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
        Ok(shown)
    }

    /// Stores an object of the cluster's own.
    fn put(&mut self, kind: &Kind, namespace: &str, object: Value, ids: &mut Ids, now: f64) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let at = Target { kind, namespace: namespace.to_owned(), name: None, subresource: None };
        let write = Write { now, manager: "kube-apiserver".to_owned(), dry: false, force: false, content: "" };
        if !self.objects.contains_key(&at.key(&name)) {
            let object = fields::updated(&json!({}), object, kind, &write.manager, &stamp(now));
            // Only the checks can refuse an object, and they don't run here.
            let _stored = self.store(&at, &name, object, None, &write, ids);
        }
    }

    /// Adds the objects that controllers put into every namespace.
    fn furnish(&mut self, namespace: &str, ids: &mut Ids, now: f64) {
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

    fn definitions(&self) -> impl Iterator<Item = &Value> {
        const PREFIX: &str = "apiextensions.k8s.io|customresourcedefinitions|";
        self.objects.range(PREFIX.to_owned()..).take_while(|(key, _)| key.starts_with(PREFIX)).map(|(_, object)| object)
    }
}

impl Write<'_> {
    fn has_manager(&self, req: &HttpRequest) -> bool {
        req.query_pairs().iter().any(|(name, value)| name == "fieldManager" && *value == self.manager)
    }
}

impl Target<'_> {
    fn missing(&self, name: &str) -> Failure {
        let message = format!("{} \"{name}\" not found", self.kind.qualified());
        Failure(404, "NotFound", message, details(self.kind, name))
    }

    /// Fills in apiVersion and kind from the URL. Create and update may leave them out; apply may not.
    fn typed(&self, mut object: Value) -> Value {
        if object["apiVersion"].is_null() && object["kind"].is_null() {
            object["apiVersion"] = self.kind.api_version().into();
            object["kind"] = self.kind.kind.as_str().into();
        }
        object
    }

    /// A write to the status path changes the status only. A write to another path leaves the status as it is.
    fn with_status_of(&self, old: &Value, mut new: Value) -> Value {
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

/// The defaults that the server adds to every object, to namespaces and to custom resource definitions.
fn defaults(kind: &Kind, namespace: &str, name: &str, mut object: Value) -> Value {
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

/// One requirement of a label selector.
struct Requirement {
    key: String,
    values: Vec<String>,
    /// True: the label must exist, with one of `values` (any value if `values` is empty). False: the opposite.
    wanted: bool,
}

impl Requirement {
    fn fits(&self, labels: &Value) -> bool {
        let has = labels[self.key.as_str()]
            .as_str()
            .is_some_and(|label| self.values.is_empty() || self.values.iter().any(|value| value == label));
        has == self.wanted
    }
}

/// `a=b,c!=d,e in (f,g),h,!i`.
fn requirements(text: &str) -> Result<Vec<Requirement>, Failure> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match parts.last_mut() {
            Some(part) if c != ',' || depth > 0 => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    let one = |part: &str| {
        let part = part.trim();
        let requirement =
            |key: &str, values: Vec<String>, wanted| Requirement { key: key.trim().to_owned(), values, wanted };
        let set = |list: &str| {
            list.trim()
                .trim_start_matches('(')
                .trim_end_matches(')')
                .split(',')
                .map(|value| value.trim().to_owned())
                .collect()
        };
        if let Some((key, list)) = part.split_once(" notin ") {
            requirement(key, set(list), false)
        } else if let Some((key, list)) = part.split_once(" in ") {
            requirement(key, set(list), true)
        } else if let Some((key, value)) = part.split_once("!=") {
            requirement(key, vec![value.trim().to_owned()], false)
        } else if let Some((key, value)) = part.split_once('=') {
            requirement(key, vec![value.trim_start_matches('=').trim().to_owned()], true)
        } else if let Some(key) = part.strip_prefix('!') {
            requirement(key, Vec::new(), false)
        } else {
            requirement(part, Vec::new(), true)
        }
    };
    let all: Vec<Requirement> = parts.iter().filter(|part| !part.trim().is_empty()).map(|part| one(part)).collect();
    match all.iter().find(|one| one.key.is_empty() || one.key.contains([' ', '(', ')'])) {
        Some(_) => Err(bad_request(&format!("unable to parse requirement: {text:?}"))),
        None => Ok(all),
    }
}

fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    format!("{}|{}|{namespace}|{name}", kind.group, kind.resource)
}

/// An object without metadata and status. A change of it raises the generation.
fn content(object: &Value) -> Map<String, Value> {
    let mut members = object.as_object().cloned().unwrap_or_default();
    members.remove("metadata");
    members.remove("status");
    members
}

fn drop_nulls(value: &mut Value) {
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, member| !member.is_null());
    }
}

fn drop_member(value: &mut Value, member: &str) {
    if let Some(members) = value.as_object_mut() {
        members.shift_remove(member);
    }
}

fn body(req: &HttpRequest) -> Result<Value, Failure> {
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

fn respond(req: &HttpRequest, answer: Answer) -> HttpResponse {
    let (status, body) = answer.unwrap_or_else(|Failure(code, reason, message, details)| {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
            "details": details, "code": code,
        });
        (code, status)
    });
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let body = if req.method == "HEAD" { Vec::new() } else { body.to_string().into_bytes() };
    HttpResponse { status, headers, body }
}

/// Conflicts (manager, field) as the API server words them.
fn conflict(conflicts: &[(String, String)]) -> Failure {
    let causes = conflicts.iter().map(|(manager, field)| {
        json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field})
    });
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (manager, field) in conflicts {
        fields.entry(manager).or_default().push_str(&format!("\n- {field}"));
    }
    let told = match conflicts {
        [(manager, field)] => format!("1 conflict: conflict with {manager}: {field}"),
        _ => {
            let told: Vec<String> =
                fields.iter().map(|(manager, fields)| format!("conflicts with {manager}:{fields}")).collect();
            format!("{} conflicts: {}", conflicts.len(), told.join("\n"))
        }
    };
    Failure(409, "Conflict", format!("Apply failed with {told}"), json!({"causes": causes.collect::<Value>()}))
}

fn details(kind: &Kind, name: &str) -> Value {
    json!({"name": name, "group": kind.group, "kind": kind.resource})
}

fn unknown_path() -> Failure {
    not_found("the server could not find the requested resource")
}

fn not_found(message: &str) -> Failure {
    Failure(404, "NotFound", message.to_owned(), json!({}))
}

fn bad_request(message: &str) -> Failure {
    Failure(400, "BadRequest", message.to_owned(), json!({}))
}

/// `2026-11-23T06:19:00Z`.
fn stamp(now: f64) -> String {
    iso8601(now.floor()).replace(".000Z", "Z")
}
