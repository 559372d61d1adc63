//! The webhook's own requests to the API server: Namespaces, questions about permissions, its Secret, and the
//! configurations of webhooks that it keeps its authority in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::config::{Config, Place};
use crate::engine::clock::Clock;
use crate::engine::error::{Error, Result};
use crate::guard::Check;

/// How long a Namespace and an answer about permissions are remembered.
const REMEMBERED: Duration = Duration::from_secs(5);
/// How many answers are remembered, at most.
const MOST: usize = 10_000;
/// How long an answer may take. An API server waits ten seconds for a webhook.
const PATIENCE: Duration = Duration::from_secs(4);

/// Kinds of webhook configurations, as paths have them.
pub const CONFIGURATIONS: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

pub struct Cluster {
    client: kube::Client,
    clock: Clock,
    namespaces: Memory<Value>,
    permissions: Memory<bool>,
}

/// Answers of the last few seconds.
struct Memory<T>(Mutex<HashMap<String, (Duration, T)>>);

impl<T: Clone> Memory<T> {
    fn get(&self, key: &str, now: Duration) -> Option<T> {
        let all = self.lock();
        all.get(key).filter(|(until, _)| now < *until).map(|(_, value)| value.clone())
    }

    fn put(&self, key: String, value: T, now: Duration) {
        let mut all = self.lock();
        if all.len() >= MOST {
            all.retain(|_, (until, _)| now < *until);
        }
        if all.len() < MOST {
            all.insert(key, (now + REMEMBERED, value));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Duration, T)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// # Errors
    /// A file of the configuration can't be used.
    pub fn new(config: &Config, clock: Clock) -> Result<Self> {
        let unusable =
            |what: String| Error::input(format!("the API server {} can't be reached: {what}", config.server));
        let mut client = kube::Config::new(config.server.parse().map_err(|e| unusable(format!("{e}")))?);
        client.connect_timeout = Some(PATIENCE);
        client.read_timeout = Some(PATIENCE);
        client.default_retry = false;
        let authority = CertificateDer::pem_file_iter(&config.certificate_authority)
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(|e| unusable(format!("{}: {e}", config.certificate_authority.display())))?;
        client.root_cert = Some(authority.iter().map(|certificate| certificate.to_vec()).collect());
        // The client reads the file again, because the kubelet renews the token.
        client.auth_info.token_file = Some(config.token_file.display().to_string());
        let client = kube::Client::try_from(client).map_err(|e| unusable(e.to_string()))?;
        let (namespaces, permissions) = (Memory(Mutex::default()), Memory(Mutex::default()));
        Ok(Self { client, clock, namespaces, permissions })
    }

    /// The Namespace. None if it doesn't exist.
    pub async fn namespace(&self, name: &str) -> Result<Option<Value>> {
        let now = self.clock.elapsed();
        if let Some(known) = self.namespaces.get(name, now) {
            return Ok(Some(known));
        }
        let found = self.get(&format!("/api/v1/namespaces/{}", segment(name))).await?;
        if let Some(found) = &found {
            self.namespaces.put(name.to_owned(), found.clone(), now);
        }
        Ok(found)
    }

    /// Whether a user has a permission (SubjectAccessReview). `user`: `userInfo` of the request, as a whole: EKS decides
    /// by access policies, which no group shows.
    pub async fn may(&self, user: &Value, check: &Check) -> Result<bool> {
        let Check { group, resource, subresource, namespace, name, verb } = check;
        let spec = json!({
            "user": user.get("username"),
            "groups": user.get("groups"),
            "uid": user.get("uid"),
            "extra": user.get("extra"),
            "resourceAttributes": {
                "group": group, "resource": resource, "subresource": subresource, "namespace": namespace,
                "name": name, "verb": verb,
            },
        });
        let (key, now) = (spec.to_string(), self.clock.elapsed());
        if let Some(known) = self.permissions.get(&key, now) {
            return Ok(known);
        }
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let answer =
            self.send(Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", Some(&review)).await?;
        let allowed = answer.pointer("/status/allowed") == Some(&Value::Bool(true));
        self.permissions.put(key, allowed, now);
        Ok(allowed)
    }

    pub async fn secret(&self, Place { namespace, name }: &Place) -> Result<Option<Value>> {
        self.get(&format!("/api/v1/namespaces/{}/secrets/{}", segment(namespace), segment(name))).await
    }

    /// Replaces the Secret. False if somebody else changed it before.
    pub async fn write_secret(&self, Place { namespace, name }: &Place, secret: &Value) -> Result<bool> {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", segment(namespace), segment(name));
        self.replace(&path, secret).await
    }

    /// A configuration of webhooks, of one of [`CONFIGURATIONS`].
    pub async fn configuration(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        self.get(&format!("/apis/admissionregistration.k8s.io/v1/{kind}/{}", segment(name))).await
    }

    /// Replaces a configuration. False if somebody else changed it before.
    pub async fn write_configuration(&self, kind: &str, name: &str, configuration: &Value) -> Result<bool> {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{}", segment(name));
        self.replace(&path, configuration).await
    }

    async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.send(Method::GET, path, None).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.code.as_deref() == Some("NotFound") => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn replace(&self, path: &str, object: &Value) -> Result<bool> {
        match self.send(Method::PUT, &format!("{path}?fieldManager=ringfence-admission"), Some(object)).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.code.as_deref(), Some("Conflict" | "NotFound")) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json").body(body);
        let request = request.map_err(|e| Error::bug(format!("{what}: {e}")))?;
        match self.client.request::<Value>(request).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => {
                let mut error = Error::input(format!("{what}: {}", status.message));
                error.code = Some(status.reason.clone());
                Err(error)
            }
            Err(e) => Err(Error::input(format!("{what}: {e}"))),
        }
    }
}

fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}
