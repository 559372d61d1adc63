//! Examines a write, and decides what is sent on.
//!
//! - A new object is judged and sent on as the guard decorated it.
//! - A changed object is judged against the current one, and replaces exactly that one.
//! - A patch is tried first (`dryRun=All`), because only the API server knows how to apply it. The result is judged like
//!   a changed object. A patch of server-side apply is then sent on for exactly the judged version. The result of any
//!   other patch replaces the judged version.

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::{Method, Response};
use serde_json::{Value, json};

use super::answer::{Body, Refused, answered, whole};
use super::attributes::{Attributes, Query};
use super::body::Media;
use super::estate::Tenant;
use super::upstream::{Call, Upstream};
use super::who::Identity;
use crate::guard::{Operation, Request, defaults};

/// How often a write is tried again after somebody else changed the object in between. API servers try five times.
const TRIES: usize = 5;

/// Parameters of a write that also apply to its trial.
const OF_TRIAL: &[&str] = &["fieldManager", "fieldValidation", "force"];

/// The kinds of resources that tenants write, for objects that don't name their kind, as some client libraries send
/// them.
const KINDS: &[(&str, &str, &str)] = &[
    ("", "configmaps", "ConfigMap"),
    ("", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("", "pods", "Pod"),
    ("", "secrets", "Secret"),
    ("", "services", "Service"),
    ("apps", "deployments", "Deployment"),
    ("apps", "replicasets", "ReplicaSet"),
    ("apps", "statefulsets", "StatefulSet"),
    ("autoscaling", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    ("batch", "cronjobs", "CronJob"),
    ("batch", "jobs", "Job"),
    ("policy", "poddisruptionbudgets", "PodDisruptionBudget"),
];

/// A write, and whose it is.
pub struct Write<'a> {
    pub tenant: &'a Tenant,
    pub identity: &'a Identity,
    pub upstream: &'a Upstream,
    pub attributes: &'a Attributes,
    pub query: &'a Query,
    /// Headers that are sent on.
    pub headers: &'a HeaderMap,
}

/// What becomes of a write.
pub enum Outcome {
    /// The last request, which makes the change.
    Send(Call),
    /// An answer of the API server that ends the write before.
    Answer(Response<Body>),
}

impl Write<'_> {
    /// Examines a new object.
    pub fn create(&self, media: Media, body: &[u8]) -> Result<Outcome, Refused> {
        if media.is_patch() {
            return Err(Refused::bad("a new object can't be a patch"));
        }
        let object = self.placed(media.read(body)?)?;
        let object = self.judged(Operation::Create, object, None)?;
        Ok(Outcome::Send(self.call(Method::POST, self.query, media, &object)))
    }

    /// Examines the body of a request that stores nothing, such as a review of the tenant's own rights.
    pub fn review(&self, media: Media, body: &[u8]) -> Result<Outcome, Refused> {
        if media.is_patch() {
            return Err(Refused::bad("a review can't be a patch"));
        }
        Ok(Outcome::Send(self.call(Method::POST, self.query, media, &media.read(body)?)))
    }

    /// Examines a deletion. Its body may have options.
    pub fn delete(&self, media: Media, body: &[u8]) -> Result<Outcome, Refused> {
        let options = match body {
            [] => Value::Null,
            _ if media.is_patch() => return Err(Refused::bad("a deletion can't be a patch")),
            _ => media.read(body)?,
        };
        let request = Request { operation: Operation::Delete, ..self.request(None, None) };
        self.verdict(request)?;
        let mut call = self.call(Method::DELETE, self.query, media, &options);
        if options.is_null() {
            call.body = None;
        }
        Ok(Outcome::Send(call))
    }

    /// Examines a change, and makes it. The change is tried again if somebody else changed the object in between.
    pub async fn change(&self, media: Media, body: &[u8]) -> Result<Outcome, Refused> {
        let is_patch = self.attributes.verb == "patch";
        if is_patch != media.is_patch() {
            return Err(Refused::new(415, "UnsupportedMediaType", "the media type of the body doesn't fit the method"));
        }
        let body = media.read(body)?;
        let mut last = None;
        for _ in 0..TRIES {
            let (outcome, ours) = match media {
                _ if !is_patch => self.replaced(&body).await?,
                Media::ApplyPatch => self.applied(&body).await?,
                _ => self.patched(media, &body).await?,
            };
            let call = match outcome {
                Outcome::Send(call) => call,
                answer @ Outcome::Answer(_) => return Ok(answer),
            };
            if !ours {
                return Ok(Outcome::Send(call));
            }
            let response = self.upstream.whole(self.tenant, self.identity, call).await?;
            let conflict = response.status().as_u16() == 409;
            last = Some(answer(response));
            if !conflict {
                break;
            }
        }
        last.map(Outcome::Answer).ok_or_else(|| Refused::new(409, "Conflict", "the object changes too often"))
    }

    /// The second part tells whether the version that the change is for was set here, and not by the client.
    async fn replaced(&self, body: &Value) -> Result<(Outcome, bool), Refused> {
        let old = match self.current().await? {
            Ok(old) => old,
            Err(answer) => return Ok((Outcome::Answer(answer), false)),
        };
        let mut object = self.placed(body.clone())?;
        let ours = version(&object).is_none();
        if ours {
            object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        }
        let object = self.judged(Operation::Update, object, Some(old))?;
        Ok((Outcome::Send(self.call(Method::PUT, self.query, Media::Json, &object)), ours))
    }

    async fn patched(&self, media: Media, body: &Value) -> Result<(Outcome, bool), Refused> {
        let old = match self.current().await? {
            Ok(old) => old,
            Err(answer) => return Ok((Outcome::Answer(answer), false)),
        };
        let mut object = match self.tried(media, body).await? {
            Ok(object) => object,
            Err(answer) => return Ok((Outcome::Answer(answer), false)),
        };
        object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        let object = self.judged(Operation::Update, object, Some(old))?;
        let query = self.query.only(&["dryRun", "fieldManager", "fieldValidation", "pretty"]);
        // The patch itself has passed as a trial.
        Ok((Outcome::Send(self.call(Method::PUT, &query, Media::Json, &object)), true))
    }

    async fn applied(&self, body: &Value) -> Result<(Outcome, bool), Refused> {
        let old = match self.current().await? {
            Ok(old) => Some(old),
            Err(answer) if answer.status().as_u16() == 404 => None,
            Err(answer) => return Ok((Outcome::Answer(answer), false)),
        };
        let intent = self.placed(body.clone())?;
        let send = |intent: &Value| self.call(Method::PATCH, self.query, Media::ApplyPatch, intent);
        let Some(old) = old else {
            // What is applied becomes the object.
            let intent = self.judged(Operation::Create, intent, None)?;
            return Ok((Outcome::Send(send(&intent)), false));
        };
        let ours = version(&intent).is_none();
        // Nobody else gives a value to what somebody applies. So the decoration belongs to the applied fields.
        let request = self.request(Some(intent.clone()), None);
        let filled = self.tenant.guard.review(request, Some(&self.tenant.namespace_object), &|_| false);
        let mut intent = filled.object.unwrap_or(intent);
        let object = match self.tried(Media::ApplyPatch, &intent).await? {
            Ok(object) => object,
            Err(answer) => return Ok((Outcome::Answer(answer), false)),
        };
        if ours {
            intent["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        }
        self.judged(Operation::Update, object, Some(old))?;
        Ok((Outcome::Send(send(&intent)), ours))
    }

    /// The object as it is now, or the API server's answer if it gives none.
    async fn current(&self) -> Result<Result<Value, Response<Body>>, Refused> {
        self.asked(Call { method: Method::GET, path: self.attributes.path(), headers: accept_json(), body: None }).await
    }

    /// The object as a patch would make it.
    async fn tried(&self, media: Media, body: &Value) -> Result<Result<Value, Response<Body>>, Refused> {
        let mut query = self.query.only(OF_TRIAL);
        query.set("dryRun", "All");
        self.asked(Call { headers: accept_json(), ..self.call(Method::PATCH, &query, media, body) }).await
    }

    async fn asked(&self, call: Call) -> Result<Result<Value, Response<Body>>, Refused> {
        let (response, value) = self.upstream.ask(self.tenant, self.identity, call).await?;
        Ok(match response.status().is_success() && value.get("metadata").is_some_and(Value::is_object) {
            true => Ok(value),
            false => Err(answer(response)),
        })
    }

    fn call(&self, method: Method, query: &Query, media: Media, object: &Value) -> Call {
        Call {
            method,
            path: format!("{}{}", self.attributes.path(), query.written()),
            headers: self.headers.clone(),
            body: Some((media.written(), Bytes::from(object.to_string()))),
        }
    }

    /// The object with its kind, in the tenant's namespace (NS-2).
    fn placed(&self, mut object: Value) -> Result<Value, Refused> {
        let Attributes { group, version, resource, subresource, namespace, .. } = self.attributes;
        let Some(fields) = object.as_object_mut() else { return Err(Refused::bad("the body is no object")) };
        let kind = KINDS.iter().find(|(g, r, _)| (*g, *r) == (group, resource) && subresource.is_none());
        if let Some((_, _, kind)) = kind {
            let api = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            for (name, value) in [("apiVersion", api.as_str()), ("kind", kind)] {
                match fields.get(name).and_then(Value::as_str) {
                    Some(given) if given == value => {}
                    None | Some("") => drop(fields.insert(name.to_owned(), value.into())),
                    Some(given) => {
                        return Err(Refused::bad(format!(
                            "the body has the {name} `{given}`, but the path is for `{value}`"
                        )));
                    }
                }
            }
        } else if !fields.get("kind").is_some_and(Value::is_string) {
            return Err(Refused::bad("the body has no apiVersion and kind"));
        }
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if metadata.is_null() {
            *metadata = json!({});
        }
        let Some(metadata) = metadata.as_object_mut() else {
            return Err(Refused::bad("the body's metadata is no map"));
        };
        let own = namespace.as_deref().unwrap_or_default();
        match metadata.get("namespace").and_then(Value::as_str) {
            None | Some("") => drop(metadata.insert("namespace".to_owned(), own.into())),
            Some(given) if given == own => {}
            Some(_) => {
                return Err(Refused::bad("the namespace of the object does not match the namespace on the request"));
            }
        }
        Ok(object)
    }

    /// The object as the guard decorates it, if it admits it.
    fn judged(&self, operation: Operation, object: Value, old: Option<Value>) -> Result<Value, Refused> {
        let is_pod = self.attributes.group.is_empty() && self.attributes.resource == "pods";
        let is_new_pod = is_pod && self.attributes.subresource.is_none() && operation == Operation::Create;
        let written = (is_new_pod && self.tenant.fargate).then(|| object.clone());
        let mut request = Request { operation, ..self.request(Some(object), old) };
        if let (Some(pod), true) = (&mut request.object, written.is_some()) {
            defaults::fargate(pod, &self.tenant.namespace_object);
        }
        let mut decorated = self.verdict(request)?.ok_or_else(|| Refused::bad("the body is no object"))?;
        if let Some(written) = written {
            defaults::without_fargate(&mut decorated, &written);
        }
        Ok(decorated)
    }

    fn verdict(&self, request: Request) -> Result<Option<Value>, Refused> {
        let verdict = self.tenant.guard.review(request, Some(&self.tenant.namespace_object), &|_| false);
        match verdict.admits() {
            true => Ok(verdict.object),
            false => Err(Refused::denied(self.attributes, &verdict.refusals)),
        }
    }

    fn request(&self, object: Option<Value>, old: Option<Value>) -> Request {
        let Attributes { group, version, resource, subresource, namespace, name, .. } = self.attributes;
        let text = |pointer: &str| {
            object.as_ref().and_then(|object| object.pointer(pointer)).and_then(Value::as_str).map(str::to_owned)
        };
        Request {
            operation: Operation::Create,
            group: group.clone(),
            version: version.clone(),
            kind: text("/kind").unwrap_or_default(),
            resource: resource.clone(),
            subresource: subresource.clone(),
            namespace: namespace.clone(),
            name: name.clone().or_else(|| text("/metadata/name")).unwrap_or_default(),
            user: self.tenant.user.clone(),
            object,
            old_object: old,
            dry_run: self.query.get("dryRun").is_some(),
        }
    }
}

fn version(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).filter(|version| !version.is_empty())
}

fn accept_json() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))])
}

/// An answer of the API server that was read here.
fn answer(response: Response<Bytes>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    answered(&parts, whole(body))
}
