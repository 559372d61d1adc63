//! The admission webhook: the guard, asked by an API server.
//!
//! It is for clusters that fill in nothing by themselves (Kubernetes before 1.36), and for whoever wants a second judge.
//! The API server's own admission policies stay behind it. [`review`] reads and writes the messages, [`authority`] makes
//! the certificates, [`cluster`] has the webhook's own requests.
//!
//! The webhook has no state of its own, so any number of replicas can run.

mod authority;
mod cluster;
pub mod config;
mod metrics;
mod review;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustls::ServerConfig;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::answer::{Body, json_response, whole};
use super::audit::{Audit, Line, Verdict};
use super::listen::{self, Peer, Server};
use super::tls;
use crate::engine::clock::Clock;
use crate::engine::error::{Error, Result};
use crate::guard::{Check, Guard, Refusal, Request as Asked};
use authority::{Authorities, Certificate};
use cluster::{CONFIGURATIONS, Cluster};
use config::Config;
use metrics::{Labels, Metrics, OfPhase};
use review::Review;

/// How often policies and certificates are looked at.
const UPKEEP: Duration = Duration::from_secs(10);
/// How soon a start is tried again.
const AGAIN: Duration = Duration::from_secs(2);
const BODY: Duration = Duration::from_secs(5);
/// An object and the one before it, with their managed fields.
const LARGEST: usize = 16 << 20;
/// Connections of API servers, of which a cluster has a few.
const CONNECTIONS: usize = 1000;
/// How long running requests may take after the webhook was told to stop. An API server waits ten seconds.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// Rounds of questions about permissions in one review.
const ROUNDS: usize = 8;
/// Attempts to write an object that others write, too.
const TRIES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Mutate,
    Validate,
}

/// A webhook that listens.
pub struct Listening {
    webhook: Arc<Webhook>,
    listener: TcpListener,
    status: TcpListener,
}

struct Webhook {
    config: Config,
    clock: Clock,
    cluster: Cluster,
    guard: RwLock<Arc<Guard>>,
    /// The digest of the policies' file.
    digest: Mutex<String>,
    /// None until the first certificate.
    tls: RwLock<Option<Served>>,
    metrics: Metrics,
    audit: Audit,
    /// True from the moment the webhook isn't ready any more.
    draining: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
}

struct Served {
    certificate: Certificate,
    tls: Arc<ServerConfig>,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        }
    }
}

impl Listening {
    /// Reads the policies, and opens the ports.
    ///
    /// # Errors
    /// A file or a port can't be used.
    pub async fn open(config: Config, clock: Clock) -> Result<Self> {
        let text = read(&config.policies)?;
        let guard = guard(&config, &text)?;
        let (listen, status) = (config.listen, config.status);
        let webhook = Webhook {
            cluster: Cluster::new(&config, clock.clone())?,
            config,
            clock,
            guard: RwLock::new(Arc::new(guard)),
            digest: Mutex::new(digest(&text)),
            tls: RwLock::new(None),
            metrics: Metrics::default(),
            audit: Audit::open(None)?,
            draining: watch::Sender::new(false),
            stopped: watch::Sender::new(false),
        };
        Ok(Self {
            webhook: Arc::new(webhook),
            listener: listen::bind(listen).await?,
            status: listen::bind(status).await?,
        })
    }

    /// The addresses for API servers and for status.
    pub fn addresses(&self) -> io::Result<[SocketAddr; 2]> {
        Ok([self.listener.local_addr()?, self.status.local_addr()?])
    }

    /// Serves until `stop`, and then until the last answers are given. `failed` hears of policies and certificates that
    /// couldn't be renewed.
    pub async fn serve(self, stop: impl Future<Output = ()>, failed: impl Fn(&Error) + Send + Sync + 'static) {
        let Self { webhook, listener, status } = self;
        let status = tokio::spawn(listen::status(webhook.clone(), status));
        let serving = tokio::spawn(webhook.clone().run(listener, failed));
        stop.await;
        webhook.draining.send_replace(true);
        webhook.clock.sleep(Duration::from_secs(webhook.config.drain_seconds)).await;
        webhook.stopped.send_replace(true);
        tokio::select! {
            _ = serving => {}
            () = webhook.clock.sleep(LAST_ANSWERS) => {}
        }
        status.abort();
    }
}

impl Webhook {
    /// Makes the first certificate, and serves. Keeps policies and certificates new until the webhook stops.
    async fn run(self: Arc<Self>, listener: TcpListener, failed: impl Fn(&Error)) {
        while let Err(error) = self.renew_certificates().await {
            self.metrics.failures.inc();
            failed(&error);
            tokio::select! {
                () = self.clock.sleep(AGAIN) => {}
                () = self.stopped() => return,
            }
        }
        let accepting = listen::accept(self.clone(), listener, CONNECTIONS);
        tokio::pin!(accepting);
        loop {
            tokio::select! {
                () = accepting.as_mut() => return,
                () = self.clock.sleep(UPKEEP) => {}
            }
            let upkeep = async { [self.renew_policies(), self.renew_certificates().await] };
            let results = tokio::select! {
                () = accepting.as_mut() => return,
                results = upkeep => results,
            };
            for error in results.into_iter().filter_map(Result::err) {
                self.metrics.failures.inc();
                failed(&error);
            }
        }
    }

    fn renew_policies(&self) -> Result<()> {
        let text = read(&self.config.policies)?;
        let digest = digest(&text);
        if *self.digest.lock().unwrap_or_else(PoisonError::into_inner) == digest {
            return Ok(());
        }
        let guard = guard(&self.config, &text)?;
        *self.guard.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(guard);
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = digest;
        Ok(())
    }

    /// Renews the authorities in the Secret, this replica's certificate, and what API servers trust.
    async fn renew_certificates(&self) -> Result<()> {
        let authorities = self.renew_authorities().await?;
        // API servers must trust an authority before it signs. So without this, the last certificate goes on.
        self.publish(&authorities.bundle()).await?;
        let now = Clock::timestamp();
        let next = {
            let served = self.tls.read().unwrap_or_else(PoisonError::into_inner);
            authorities.certificate(&self.config.names, served.as_ref().map(|served| &served.certificate), now)
        };
        if let Some(certificate) = next.map_err(|why| self.of_secret(why))? {
            let tls = tls::with_certificate(certificate.chain.clone(), certificate.key.clone_key())?;
            *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(Served { certificate, tls });
        }
        Ok(())
    }

    async fn renew_authorities(&self) -> Result<Authorities> {
        let place = &self.config.secret;
        for _ in 0..TRIES {
            let Some(mut secret) = self.cluster.secret(place).await? else {
                return Err(self.of_secret("it doesn't exist".to_owned()).help("apply the tenancy's spec again"));
            };
            let mut authorities = Authorities::read(&secret).map_err(|why| self.of_secret(why))?;
            if !authorities.renew(Clock::timestamp()).map_err(|why| self.of_secret(why))? {
                return Ok(authorities);
            }
            if let Value::Object(fields) = &mut secret {
                fields.insert("data".to_owned(), authorities.data());
            }
            if self.cluster.write_secret(place, &secret).await? {
                return Ok(authorities);
            }
        }
        Err(self.of_secret("others change it at the same time".to_owned()))
    }

    /// Writes the authorities into the configurations of webhooks that exist.
    async fn publish(&self, bundle: &str) -> Result<()> {
        let name = &self.config.configuration;
        for kind in CONFIGURATIONS {
            for _ in 0..TRIES {
                let Some(mut configuration) = self.cluster.configuration(kind, name).await? else { break };
                let webhooks = configuration.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten();
                let mut changed = false;
                for config in webhooks.filter_map(|webhook| webhook.get_mut("clientConfig")?.as_object_mut()) {
                    changed |= config.get("caBundle").and_then(Value::as_str) != Some(bundle);
                    config.insert("caBundle".to_owned(), bundle.into());
                }
                if !changed || self.cluster.write_configuration(kind, name, &configuration).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn of_secret(&self, why: String) -> Error {
        let config::Place { namespace, name } = &self.config.secret;
        Error::input(format!("the webhook's authority in the Secret {namespace}/{name} can't be used: {why}"))
    }

    async fn review(&self, phase: Phase, request: Request<Incoming>) -> Response<Body> {
        let since = self.clock.elapsed();
        let reading = Limited::new(request.into_body(), LARGEST).collect();
        let Ok(Ok(body)) = tokio::time::timeout(BODY, reading).await else {
            return plain(StatusCode::BAD_REQUEST, "the body can't be read");
        };
        let review = match Review::read(&body.to_bytes()) {
            Ok(review) => review,
            Err(why) => return plain(StatusCode::BAD_REQUEST, &why),
        };
        let mut line = line(&review);
        let answer = self.decide(phase, review, &mut line).await;
        let took = self.clock.elapsed().saturating_sub(since);
        line.milliseconds = (took.as_secs_f64() * 1e6).round() / 1e3;
        self.metrics.latency.get_or_create(&OfPhase { phase: phase.name() }).observe(took.as_secs_f64());
        let labels = Labels { phase: phase.name(), verdict: line.verdict.name() };
        self.metrics.reviews.get_or_create(&labels).inc();
        // A line that can't be written changes nothing: the API server's audit log has the refusal, too.
        if line.verdict != Verdict::Allowed && self.audit.write(&line).is_err() {
            self.metrics.failures.inc();
        }
        json_response(200, &answer)
    }

    async fn decide(&self, phase: Phase, review: Review, line: &mut Line) -> Value {
        let Review { uid, request, user } = review;
        match self.decided(phase, request, &user).await {
            Ok(Ok(patch)) => {
                (line.verdict, line.status) = (Verdict::Allowed, 200);
                review::admitted(&uid, &patch)
            }
            Ok(Err(refusals)) => {
                (line.verdict, line.status) = (Verdict::Denied, 422);
                line.rule = refusals.first().map(|refusal| refusal.policy.clone());
                review::refused(&uid, &refusals)
            }
            Err(error) => {
                (line.verdict, line.status) = (Verdict::Failed, 503);
                line.rule = Some(error.message.clone());
                review::undecided(&uid, "ringfence's webhook can't read what it needs to judge this request; try again")
            }
        }
    }

    /// The changes of an admitted object, or the refusals.
    async fn decided(
        &self,
        phase: Phase,
        request: Asked,
        user: &Value,
    ) -> Result<std::result::Result<json_patch::Patch, Vec<Refusal>>> {
        let namespace = match &request.namespace {
            Some(name) => self.cluster.namespace(name).await?,
            None => None,
        };
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut known: Vec<(Check, bool)> = Vec::new();
        for _ in 0..ROUNDS {
            let asked = RefCell::new(Vec::new());
            let verdict = {
                let may = |check: &Check| match known.iter().find(|(known, _)| known == check) {
                    Some((_, allowed)) => *allowed,
                    None => {
                        asked.borrow_mut().push(check.clone());
                        false
                    }
                };
                match phase {
                    Phase::Mutate => decorated(&guard, &request, namespace.as_ref(), &may),
                    Phase::Validate => match guard.judge(&request, namespace.as_ref(), &may) {
                        refusals if refusals.is_empty() => Ok(json_patch::Patch::default()),
                        refusals => Err(refusals),
                    },
                }
            };
            let asked = asked.into_inner();
            if asked.is_empty() {
                return Ok(verdict);
            }
            for check in asked {
                let allowed = self.cluster.may(user, &check).await?;
                known.push((check, allowed));
            }
        }
        Err(Error::bug("the policies ask for ever new permissions"))
    }
}

/// What the mutating policies change.
fn decorated(
    guard: &Guard,
    request: &Asked,
    namespace: Option<&Value>,
    may: &dyn Fn(&Check) -> bool,
) -> std::result::Result<json_patch::Patch, Vec<Refusal>> {
    let mut read = request.clone();
    crate::guard::defaults::decode(&mut read);
    let mut changed = read.clone();
    guard.decorate(&mut changed, namespace, may).map_err(|refusal| vec![refusal])?;
    Ok(match (&read.object, &changed.object) {
        (Some(before), Some(after)) => json_patch::diff(before, after),
        _ => json_patch::Patch::default(),
    })
}

impl Server for Webhook {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|served| served.tls.clone())
    }

    fn headers_within(&self) -> Duration {
        BODY
    }

    fn count(&self, _change: i64) {}

    async fn answer(self: Arc<Self>, _peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let phase = match request.uri().path() {
            "/mutate" => Phase::Mutate,
            "/validate" => Phase::Validate,
            _ => return plain(StatusCode::NOT_FOUND, "the paths are /mutate and /validate"),
        };
        match *request.method() == Method::POST {
            true => self.review(phase, request).await,
            false => plain(StatusCode::METHOD_NOT_ALLOWED, "only POST is answered"),
        }
    }

    async fn stopped(&self) {
        let mut stop = self.stopped.subscribe();
        // The sender lives as long as the webhook.
        let _stopped = stop.wait_for(|stop| *stop).await.is_ok();
    }

    fn is_ready(&self) -> bool {
        !*self.draining.borrow() && self.tls().is_some()
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }
}

fn line(Review { uid, request, .. }: &Review) -> Line {
    let resource = match &request.subresource {
        Some(subresource) => format!("{}/{subresource}", request.resource),
        None => request.resource.clone(),
    };
    Line {
        time: Clock::timestamp().to_string(),
        id: uid.clone(),
        identity: Some(request.user.username.clone()),
        tenant: request.namespace.as_deref().and_then(|name| name.strip_prefix("t-")).map(str::to_owned),
        verb: request.operation.name(),
        group: Some(request.group.clone()),
        resource: Some(resource),
        namespace: request.namespace.clone(),
        name: Some(request.name.clone()),
        ..Line::default()
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file)
        .map_err(|e| Error::input(format!("the policies {} can't be read: {e}", file.display())))
}

/// The guard of a file with policies: a List in JSON.
fn guard(config: &Config, text: &str) -> Result<Guard> {
    let file = config.policies.display();
    let wrong = |what: String| Error::input(format!("the policies {file} can't be used: {what}"));
    let list: Value = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let items = list.get("items").and_then(Value::as_array).ok_or_else(|| wrong("they aren't a List".to_owned()))?;
    match config.templates {
        true => Guard::decorating(items),
        false => Guard::new(items),
    }
}
