//! Connections of clients over TLS, and the port of health and metrics.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::answer::Body;
use crate::engine::clock::Clock;
use crate::engine::error::{Error, Result};

/// How long a new connection may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection. API servers allow as many.
const HTTP2_STREAMS: u32 = 250;
/// After a connection that can't be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The client's certificate, verified.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What answers the requests of connections.
pub trait Server: Send + Sync + 'static {
    fn clock(&self) -> &Clock;
    /// The certificate for new connections. Without one, they are closed.
    fn tls(&self) -> Option<Arc<ServerConfig>>;
    /// How long the headers of a request may take.
    fn headers_within(&self) -> Duration;
    /// A connection was opened (1) or closed (-1).
    fn count(&self, change: i64);
    fn answer(
        self: Arc<Self>,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
    /// Waits until no new connections and requests are taken.
    fn stopped(&self) -> impl Future<Output = ()> + Send;
    fn is_ready(&self) -> bool;
    /// The text of `/metrics`.
    fn metrics(&self) -> String;
}

/// Opens a port.
///
/// # Errors
/// The port can't be opened.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        Error::input(format!("the gateway can't listen on {address}: {e}")).help("choose another address or port")
    })
}

/// Accepts at most `most` connections at a time until the server stops, and waits for the last of them.
pub async fn accept<S: Server>(server: Arc<S>, listener: TcpListener, most: usize) {
    let places = Arc::new(Semaphore::new(most));
    let (open, mut closed) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        let stream = tokio::select! {
            () = server.stopped() => break,
            accepted = listener.accept() => accepted.ok(),
        };
        let Some((stream, address)) = stream else {
            // The process has no file descriptors left, or the client closed at once.
            server.clock().sleep(PAUSE).await;
            continue;
        };
        // A connection beyond the limit is closed at once.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (server, open) = (server.clone(), open.clone());
        tokio::spawn(async move {
            let _held = (place, open);
            server.count(1);
            connection(server.clone(), stream, address).await;
            server.count(-1);
        });
    }
    drop(open);
    closed.recv().await;
}

async fn connection<S: Server>(server: Arc<S>, stream: TcpStream, address: SocketAddr) {
    // A failure only makes answers slower.
    let _set = stream.set_nodelay(true);
    let Some(tls) = server.tls() else { return };
    let accepting = TlsAcceptor::from(tls).accept(stream);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, accepting).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Arc::new(Peer { address, certificate: certificate.map(|leaf| leaf.clone().into_owned()) });
    let answering = server.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (answering.clone(), peer.clone());
        async move { Ok::<_, Infallible>(server.answer(peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(server.headers_within()).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A broken connection is an error for the client only.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = server.stopped() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = connection.await;
}

/// Serves health and metrics.
pub async fn status<S: Server>(server: Arc<S>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            server.clock().sleep(PAUSE).await;
            continue;
        };
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, text) = match request.uri().path() {
                    "/livez" => (200, "ok".to_owned()),
                    "/readyz" if server.is_ready() => (200, "ok".to_owned()),
                    "/readyz" => (503, "not ready".to_owned()),
                    "/metrics" => (200, server.metrics()),
                    _ => (404, "not found".to_owned()),
                };
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
            // A broken connection is an error for the client only.
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
