//! The HTTP server.

use super::answer::{Answer, Delivery, plain};
use super::clock;
use super::core::Core;
use super::wire::HttpRequest;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// No request to these services is larger (SSM has parameters of 8 KB, EC2 user data of 16 KB; CRDs have a megabyte or
/// two).
const MAX_BODY: usize = 8 << 20;

pub(super) async fn accept(listener: TcpListener, core: Arc<Core>, mut stopped: watch::Receiver<()>) {
    loop {
        let stream = tokio::select! {
            _ = stopped.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // The process has no file descriptors left, or the client closed at once. The next connection may
                // succeed.
                Err(_) => {
                    clock::Stopwatch::start().pause(1.0).await;
                    continue;
                }
            },
        };
        // A failure only makes answers slower.
        let _set = stream.set_nodelay(true);
        let core = Arc::clone(&core);
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| serve(Arc::clone(&core), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            // A broken connection is an error for the client, not for the sandbox.
            let _ended = tokio::select! {
                ended = connection.as_mut() => ended,
                _ = stopped.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
        });
    }
}

type Body = BoxBody<Bytes, io::Error>;

async fn serve(core: Arc<Core>, request: hyper::Request<Incoming>) -> io::Result<hyper::Response<Body>> {
    let (parts, body) = request.into_parts();
    let Answer { response: answer, delivery } = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => core.answer(HttpRequest {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect(),
            body: body.to_bytes().to_vec(),
        }),
        Err(why) => plain(413, &format!("The body can't be read: {why}\n")).into(),
    };
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let bytes = Bytes::from(answer.body);
    let body = match delivery {
        Delivery::Nothing => return Err(io::ErrorKind::ConnectionReset.into()),
        Delivery::Silence => std::future::pending().await,
        Delivery::Half => {
            response = response.header("content-length", bytes.len() + 1);
            let half = Frame::data(bytes.slice(..bytes.len() / 2));
            StreamBody::new(stream::iter([Ok(half), Err(io::ErrorKind::ConnectionReset.into())])).boxed()
        }
        Delivery::Late(_) | Delivery::Whole => Full::new(bytes).map_err(|never| match never {}).boxed(),
    };
    if let Delivery::Late(seconds) = delivery {
        clock::pause(seconds).await;
    }
    response.body(body).map_err(io::Error::other)
}
