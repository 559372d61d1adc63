//! Requests to an API server, always as a tenant.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use super::answer::{Body, Refused, whole};
use super::estate::Tenant;
use super::who::Identity;
use crate::engine::error::{Error, Result};
use crate::telemetry::{Span, SpanKind};

const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
/// The largest answer that the gateway reads by itself: one object. etcd holds at most 1.5 MiB for each.
const LARGEST_OBJECT: usize = 8 << 20;
/// The longest name of an identity that is sent to the API server's audit log, in bytes.
const LONGEST_NAME: usize = 256;

const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");
const IMPERSONATE_GROUP: HeaderName = HeaderName::from_static("impersonate-group");
/// The extra field `ringfence.dev/identity` of the API server's audit log. The key is percent-encoded ("User
/// impersonation" of the Kubernetes documentation).
const IMPERSONATE_IDENTITY: HeaderName = HeaderName::from_static("impersonate-extra-ringfence.dev%2fidentity");

/// Headers of a client's request that are sent on. All others are dropped, so no client can add to ours.
const SENT_ON: &[&str] = &["accept", "accept-encoding", "if-none-match", "user-agent"];

/// Characters of a name that no header can have, and the escape itself.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The header with which the gateway logs in. Empty until there is one.
#[derive(Clone, Default)]
pub struct Login(Arc<RwLock<Option<HeaderValue>>>);

/// One API server.
pub struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    login: Login,
    answers_within: Duration,
}

/// A request to an API server.
#[derive(Debug)]
pub struct Call {
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Only headers of [`sent_on`] or [`super::session`].
    pub headers: HeaderMap,
    /// Media type and content.
    pub body: Option<(&'static str, Bytes)>,
}

impl Login {
    /// # Errors
    /// The token has characters that no header can have.
    pub fn set(&self, token: &str) -> Result<()> {
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| Error::input("the gateway's own token has characters that a header can't have"))?;
        header.set_sensitive(true);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(())
    }

    fn get(&self) -> Option<HeaderValue> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The headers of a client that are sent on.
pub fn sent_on(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in SENT_ON {
        for value in headers.get_all(*name) {
            kept.append(*name, value.clone());
        }
    }
    kept
}

impl Upstream {
    /// `authority`: certificates in PEM that the server's certificate may come from. EKS clusters have their own.
    ///
    /// # Errors
    /// The URL or the authority can't be used.
    pub fn new(server: &str, authority: Option<&[u8]>, login: Login, answers_within: Duration) -> Result<Self> {
        let uri: Uri = server.parse().map_err(|_| Error::input(format!("`{server}` is not a URL")))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") if authority.is_some() => {}
            Some("https") => {
                return Err(Error::input(format!("the API server {server} has no `certificateAuthority`"))
                    .help("write the file with the cluster's certificate authority, as EKS gives it"));
            }
            Some("http") if local => {}
            _ => {
                return Err(Error::input(format!("the API server {server} isn't reached by https"))
                    .help("use an https URL; plain http is allowed only for addresses of this machine"));
            }
        }
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        http.set_keepalive(Some(IDLE));
        http.enforce_http(false);
        // HTTP/1.1 has one request on a connection, so no request waits for another one's window or limit of streams.
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(authority)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector);
        Ok(Self { client, base: server.trim_end_matches('/').to_owned(), login, answers_within })
    }

    /// Whether the gateway can log in.
    pub fn is_ready(&self) -> bool {
        self.login.get().is_some()
    }

    /// Sends a request as the tenant. Returns when the answer's headers are there.
    pub async fn send(&self, tenant: &Tenant, identity: &Identity, call: Call) -> Result<Response<Body>, Refused> {
        let broken = || Refused::new(500, "InternalError", "the gateway can't write this request");
        let Call { method, path, headers, body } = call;
        let (media, bytes) = body.map_or((None, Bytes::new()), |(media, bytes)| (Some(media), bytes));
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base).parse().map_err(|_| broken())?;
        *request.headers_mut() = headers;
        let sent = request.headers_mut();
        if let Some(media) = media {
            sent.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        }
        let Some(login) = self.login.get() else {
            return Err(Refused::new(503, "ServiceUnavailable", "the gateway isn't logged in to this cluster yet"));
        };
        sent.insert(AUTHORIZATION, login);
        let value = |text: &str| HeaderValue::try_from(text).map_err(|_| broken());
        sent.insert(IMPERSONATE_USER, value(&tenant.user.username)?);
        sent.remove(IMPERSONATE_GROUP);
        // The API server itself adds `system:authenticated` to whomever is impersonated.
        for group in tenant.user.groups.iter().filter(|group| !group.starts_with("system:")) {
            sent.append(IMPERSONATE_GROUP, value(group)?);
        }
        let name: String =
            utf8_percent_encode(&identity.name, ESCAPED).flat_map(str::chars).take(LONGEST_NAME).collect();
        sent.insert(IMPERSONATE_IDENTITY, value(&name)?);
        let span = Span::part("request to the API server", SpanKind::Client);
        if span.is_recorded() {
            span.write(sent);
            span.set("http.request.method", request.method().to_string());
            span.set("server.address", request.uri().host().unwrap_or_default().to_owned());
        }
        let answer = tokio::time::timeout(self.answers_within, self.client.request(request)).await;
        let (status, failure) = match &answer {
            Ok(Ok(response)) => (response.status().as_u16(), None),
            Ok(Err(_)) => (503, Some("the API server of this cluster can't be reached")),
            Err(_) => (504, Some("the API server of this cluster didn't answer in time")),
        };
        match failure {
            None => span.set("http.response.status_code", i64::from(status)),
            Some(why) => span.failed(why),
        }
        span.end();
        let response = match answer {
            Ok(Ok(response)) => response.map(|body| body.map_err(io::Error::other).boxed_unsync()),
            _ => {
                let reason = if status == 504 { "Timeout" } else { "ServiceUnavailable" };
                return Err(Refused::new(status, reason, failure.unwrap_or_default()));
            }
        };
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(not_allowed()),
            StatusCode::FORBIDDEN => {
                let (parts, body) = self.read(response).await?.into_parts();
                // No name in Kubernetes has a space, so no tenant's own refusal has these words.
                match String::from_utf8_lossy(&body).contains(" cannot impersonate") {
                    true => Err(not_allowed()),
                    false => Ok(Response::from_parts(parts, whole(body))),
                }
            }
            _ => Ok(response),
        }
    }

    async fn read(&self, response: Response<Body>) -> Result<Response<Bytes>, Refused> {
        let (parts, body) = response.into_parts();
        let read = Limited::new(body, LARGEST_OBJECT).collect();
        let body = tokio::time::timeout(self.answers_within, read).await.map_err(|_| unread())?;
        Ok(Response::from_parts(parts, body.map_err(|_| unread())?.to_bytes()))
    }

    /// Sends a request, and reads its whole answer.
    pub async fn whole(&self, tenant: &Tenant, identity: &Identity, call: Call) -> Result<Response<Bytes>, Refused> {
        self.read(self.send(tenant, identity, call).await?).await
    }

    /// The same, for an answer in JSON.
    pub async fn ask(
        &self,
        tenant: &Tenant,
        identity: &Identity,
        call: Call,
    ) -> Result<(Response<Bytes>, Value), Refused> {
        let response = self.whole(tenant, identity, call).await?;
        let value = serde_json::from_slice(response.body()).map_err(|_| unread());
        let value = match response.status().is_success() {
            true => value?,
            false => value.unwrap_or_default(),
        };
        Ok((response, value))
    }
}

/// The API server refuses the gateway itself, and not the tenant.
fn not_allowed() -> Refused {
    let message = "the gateway may not act as this tenant in its cluster; the platform's team must apply the spec, with \
                   the gateway's role in spec.gateway";
    Refused::new(503, "ServiceUnavailable", message).rule("impersonation")
}

fn unread() -> Refused {
    Refused::new(502, "ServiceUnavailable", "the API server's answer can't be read")
}

fn tls(authority: Option<&[u8]>) -> Result<rustls::ClientConfig> {
    let unusable =
        |what: String| Error::input(format!("the certificate authority of an API server can't be used: {what}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.unwrap_or_default()) {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    if authority.is_some() && roots.is_empty() {
        return Err(unusable("it has no certificate in PEM".to_owned()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
