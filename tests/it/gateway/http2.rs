//! A client of HTTP/2.

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::fixture::Gate;

/// The status of a GET. The URL's authority is one that the gateway doesn't have.
pub fn call(gate: &Gate, path: &str, headers: &[(&str, &str)]) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gate.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(gate.trust(&[b"h2"]));
        let stream = connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("https://kubernetes.default.svc{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap().status().as_u16()
    })
}
