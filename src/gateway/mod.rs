//! The gateway between tenants and API servers.
//!
//! A request passes these steps, in this order. Each step can end it: who asks ([`who`]), for which tenant
//! ([`estate`]), for what ([`attributes`]), within the tenant's Role (`guard::Rights`), within the tenant's limits
//! ([`limits`]), with which object ([`body`], [`examine`]). Then it is sent on as the tenant ([`upstream`]), with
//! headers that the gateway itself writes. The API server behind checks everything again: its RBAC and its admission
//! policies are those of the tenant, not of the gateway.
//!
//! The gateway has no state of its own, so any number of replicas can run.

pub mod admission;
mod answer;
mod attributes;
mod audit;
mod body;
pub mod config;
pub mod estate;
mod examine;
mod json;
mod limits;
mod listen;
mod metrics;
mod protobuf;
mod recent;
mod serve;
mod session;
mod tls;
mod upstream;
pub mod who;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::engine::clock::Clock;
use crate::engine::error::{Error, Result};
use crate::telemetry::Traces;
use answer::Body;
use audit::{Audit, Line};
use config::{Config, Limits};
use estate::Estate;
use limits::Meters;
use listen::{Peer, Server};
use metrics::Metrics;
use recent::Recent;
pub use upstream::Login;
use upstream::Upstream;
use who::Authenticators;

/// How often changed files are looked for.
const RELOAD: Duration = Duration::from_secs(5);
/// How long running requests may take after the gateway was told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(25);

/// Everything that files decide. A reload replaces it as a whole.
pub struct State {
    estate: Estate,
    who: Arc<Authenticators>,
    recent: Recent,
    clusters: BTreeMap<String, Arc<Upstream>>,
    limits: Limits,
    tls: Arc<ServerConfig>,
}

/// Reads all files again. None if none of them changed.
pub type Reload = Box<dyn Fn() -> BoxFuture<'static, Result<Option<State>>> + Send + Sync>;

pub struct Gateway {
    state: RwLock<Arc<State>>,
    clock: Clock,
    meters: Meters,
    metrics: Metrics,
    audit: Audit,
    traces: Traces,
    ids: AtomicU64,
    /// Counts reloads.
    reloads: watch::Sender<u64>,
    /// True from the moment the gateway isn't ready any more.
    draining: watch::Sender<bool>,
    /// True when streams must end.
    streams_end: watch::Sender<bool>,
}

/// A gateway that listens.
pub struct Listening {
    gateway: Arc<Gateway>,
    listener: TcpListener,
    status: TcpListener,
}

impl State {
    /// # Errors
    /// A file of the configuration can't be used.
    pub fn new(
        config: &Config,
        estate: Estate,
        who: Arc<Authenticators>,
        logins: &BTreeMap<String, Login>,
    ) -> Result<Self> {
        let mut clusters = BTreeMap::new();
        for (name, cluster) in &config.clusters {
            let named = |e: Error| Error { message: format!("cluster {name}: {}", e.message), ..e };
            let authority = cluster.certificate_authority.as_ref().map(|file| {
                std::fs::read(file).map_err(|e| Error::input(format!("{} can't be read: {e}", file.display())))
            });
            let authority = authority.transpose().map_err(named)?;
            let login = logins.get(name).cloned().unwrap_or_default();
            let within = Duration::from_secs(config.limits.answer_seconds);
            let upstream = Upstream::new(&cluster.server, authority.as_deref(), login, within).map_err(named)?;
            clusters.insert(name.clone(), Arc::new(upstream));
        }
        Ok(Self {
            estate,
            who,
            recent: Recent::default(),
            clusters,
            limits: config.limits.clone(),
            tls: tls::server(&config.tls)?,
        })
    }
}

impl Listening {
    /// Opens the ports.
    ///
    /// # Errors
    /// A port or the audit log can't be opened.
    pub async fn open(config: &Config, state: State, clock: Clock, traces: Traces) -> Result<Self> {
        let gateway = Gateway {
            state: RwLock::new(Arc::new(state)),
            clock,
            meters: Meters::default(),
            metrics: Metrics::default(),
            audit: Audit::open(config.audit.as_deref())?,
            traces,
            ids: AtomicU64::default(),
            reloads: watch::Sender::new(0),
            draining: watch::Sender::new(false),
            streams_end: watch::Sender::new(false),
        };
        Ok(Self {
            gateway: Arc::new(gateway),
            listener: listen::bind(config.listen).await?,
            status: listen::bind(config.status).await?,
        })
    }

    /// The addresses for tenants and for status.
    pub fn addresses(&self) -> io::Result<[SocketAddr; 2]> {
        Ok([self.listener.local_addr()?, self.status.local_addr()?])
    }

    /// Serves until `stop`, and then until the last answers are given. `failed` hears of files that can't be used.
    pub async fn serve(
        self,
        reload: Reload,
        stop: impl Future<Output = ()>,
        failed: impl Fn(&Error) + Send + Sync + 'static,
    ) {
        let Self { gateway, listener, status } = self;
        let status = tokio::spawn(listen::status(gateway.clone(), status));
        let reloading = tokio::spawn(gateway.clone().reload(reload, failed));
        let most = gateway.state().limits.connections;
        let accepting = tokio::spawn(listen::accept(gateway.clone(), listener, most));
        stop.await;
        reloading.abort();
        gateway.draining.send_replace(true);
        let drain = Duration::from_secs(gateway.state().limits.drain_seconds);
        gateway.clock.sleep(drain).await;
        gateway.streams_end.send_replace(true);
        tokio::select! {
            _ = accepting => {}
            () = gateway.clock.sleep(LAST_ANSWERS) => {}
        }
        gateway.traces.clone().end().await;
        status.abort();
    }
}

impl Gateway {
    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn next_id(&self) -> String {
        format!("{:x}-{:x}", std::process::id(), self.ids.fetch_add(1, Ordering::Relaxed))
    }

    fn log(&self, line: &Line) {
        // The answer to this request has begun. A log that can't be written makes the gateway unready for others.
        if self.audit.write(line).is_err() {
            self.draining.send_replace(true);
        }
    }

    async fn reload(self: Arc<Self>, reload: Reload, failed: impl Fn(&Error)) {
        loop {
            self.clock.sleep(RELOAD).await;
            match reload().await {
                Ok(None) => {}
                Ok(Some(state)) => {
                    *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
                    self.reloads.send_modify(|count| *count += 1);
                }
                Err(error) => {
                    self.metrics.reload_failures.inc();
                    failed(&error);
                }
            }
        }
    }
}

impl Server for Gateway {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(self.state().tls.clone())
    }

    fn headers_within(&self) -> Duration {
        Duration::from_secs(self.state().limits.header_seconds)
    }

    fn count(&self, change: i64) {
        self.metrics.connections.inc_by(change);
    }

    async fn answer(self: Arc<Self>, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        serve::serve(self, peer, request).await
    }

    async fn stopped(&self) {
        let mut stop = self.streams_end.subscribe();
        // The sender lives as long as the gateway.
        let _stopped = stop.wait_for(|stop| *stop).await.is_ok();
    }

    fn is_ready(&self) -> bool {
        !*self.draining.borrow() && self.state().clusters.values().all(|cluster| cluster.is_ready())
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }
}
