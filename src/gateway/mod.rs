//! The gateway between tenants and API servers.
//!
//! A request passes these steps, in this order. Each step can end it: who asks ([`who`]), for which tenant
//! ([`estate`]), for what ([`attributes`]), within the tenant's Role (`guard::Rights`), within the tenant's limits
//! ([`limits`]), with which object ([`body`], [`examine`]). Then it is sent on as the tenant ([`upstream`]), with
//! headers that the gateway itself writes. The API server behind checks everything again: its RBAC and its admission
//! policies are those of the tenant, not of the gateway.
//!
//! The gateway has no state of its own, so any number of replicas can run.

mod answer;
mod attributes;
mod audit;
mod body;
pub mod config;
pub mod estate;
mod examine;
mod json;
mod limits;
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

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::engine::clock::Clock;
use crate::engine::error::{Error, Result};
use audit::{Audit, Line};
use config::{Config, Limits};
use estate::Estate;
use limits::Meters;
use metrics::Metrics;
use recent::Recent;
use serve::Peer;
pub use upstream::Login;
use upstream::Upstream;
use who::Authenticators;

/// How long a new connection may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often changed files are looked for.
const RELOAD: Duration = Duration::from_secs(5);
/// How long running requests may take after the gateway was told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(25);
/// Streams of one HTTP/2 connection. API servers allow as many.
const HTTP2_STREAMS: u32 = 250;

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
    pub async fn open(config: &Config, state: State, clock: Clock) -> Result<Self> {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.map_err(|e| {
                Error::input(format!("the gateway can't listen on {address}: {e}"))
                    .help("choose another address or port")
            })
        };
        let gateway = Gateway {
            state: RwLock::new(Arc::new(state)),
            clock,
            meters: Meters::default(),
            metrics: Metrics::default(),
            audit: Audit::open(config.audit.as_deref())?,
            ids: AtomicU64::default(),
            reloads: watch::Sender::new(0),
            draining: watch::Sender::new(false),
            streams_end: watch::Sender::new(false),
        };
        Ok(Self {
            gateway: Arc::new(gateway),
            listener: bind(config.listen).await?,
            status: bind(config.status).await?,
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
        let status = tokio::spawn(serve_status(gateway.clone(), status));
        let reloading = tokio::spawn(gateway.clone().reload(reload, failed));
        let accepting = tokio::spawn(gateway.clone().accept(listener));
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

    /// Accepts connections until the gateway stops, and waits for the last of them.
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.state().limits.connections));
        let (open, mut closed) = tokio::sync::mpsc::channel::<()>(1);
        loop {
            let stream = tokio::select! {
                () = self.stopped() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => Some((stream, address)),
                    Err(_) => None,
                },
            };
            let Some((stream, address)) = stream else {
                // The process has no file descriptors left, or the client closed at once.
                self.clock.sleep(Duration::from_millis(50)).await;
                continue;
            };
            // A connection beyond the limit is closed at once.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (gateway, open) = (self.clone(), open.clone());
            tokio::spawn(async move {
                let _held = (place, open);
                gateway.metrics.connections.inc();
                gateway.clone().connection(stream, address).await;
                gateway.metrics.connections.dec();
            });
        }
        drop(open);
        closed.recv().await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let state = self.state();
        // A failure only makes answers slower.
        let _set = stream.set_nodelay(true);
        let accepting = TlsAcceptor::from(state.tls.clone()).accept(stream);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, accepting).await else { return };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = Arc::new(Peer { address, certificate: certificate.map(|leaf| leaf.clone().into_owned()) });
        let gateway = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (gateway, peer) = (gateway.clone(), peer.clone());
            async move { Ok::<_, std::convert::Infallible>(serve::serve(gateway, peer, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(state.limits.header_seconds))
            .max_buf_size(64 << 10);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS)
            .max_header_list_size(64 << 10)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(20));
        drop(state);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // A broken connection is an error for the client only.
        tokio::select! {
            _ended = connection.as_mut() => return,
            () = self.stopped() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ended = connection.await;
    }

    /// Waits until streams must end.
    async fn stopped(&self) {
        let mut stop = self.streams_end.subscribe();
        // The sender lives as long as the gateway.
        let _stopped = stop.wait_for(|stop| *stop).await.is_ok();
    }

    fn is_ready(&self) -> bool {
        !*self.draining.borrow() && self.state().clusters.values().all(|cluster| cluster.is_ready())
    }
}

/// Health and metrics.
async fn serve_status(gateway: Arc<Gateway>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            gateway.clock.sleep(Duration::from_millis(50)).await;
            continue;
        };
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, text) = match request.uri().path() {
                    "/livez" => (200, "ok".to_owned()),
                    "/readyz" if gateway.is_ready() => (200, "ok".to_owned()),
                    "/readyz" => (503, "not ready".to_owned()),
                    "/metrics" => (200, gateway.metrics.text()),
                    _ => (404, "not found".to_owned()),
                };
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
                std::future::ready(Ok::<_, std::convert::Infallible>(response))
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
            // A broken connection is an error for the client only.
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
