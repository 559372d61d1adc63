//! Requests to identity providers and to STS: with limits of time and size, and without redirects. (A redirect would
//! let an answer choose the next address.)

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::time::Time;
use crate::engine::error::{Error, Result};

/// The time for one answer, with its body.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// The certificate authorities of servers.
pub(super) enum Trust<'a> {
    /// The operating system's.
    System,
    /// Those of a PEM file, and no others.
    File(&'a Path),
    /// None. For servers on this computer, which are reached without TLS.
    Nobody,
}

#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    time: Time,
}

/// Why there is no answer. A fixed text: errors of libraries may quote URLs, and URLs of STS contain signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Address,
    Connection,
    Time,
    Body,
}

impl Failure {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Address => "the address is neither https nor on this computer",
            Self::Connection => "the server can't be reached, or its certificate isn't trusted",
            Self::Time => "the server didn't answer in time",
            Self::Body => "the answer breaks off or is too large",
        }
    }
}

impl Http {
    pub(super) fn new(trust: &Trust, time: Time) -> Result<Self> {
        let mut connector = HttpConnector::new();
        // The TLS layer above it tells https from http.
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(trust)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, time })
    }

    /// The answer to a GET. Its body has at most `size` bytes.
    pub(super) async fn get(
        &self,
        uri: Uri,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        size: usize,
    ) -> Result<(StatusCode, Bytes), Failure> {
        if uri.scheme_str() != Some("https") && !is_loopback(&uri) {
            return Err(Failure::Address);
        }
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        request.headers_mut().extend(headers);
        let answer = async {
            let (head, body) = self.client.request(request).await.map_err(|_| Failure::Connection)?.into_parts();
            let body = Limited::new(body, size).collect().await.map_err(|_| Failure::Body)?;
            Ok((head.status, body.to_bytes()))
        };
        self.time.within(LIMIT, answer).await.unwrap_or(Err(Failure::Time))
    }
}

/// True if `uri` names this computer by its address. A name such as `localhost` may mean another one.
pub(super) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// TLS to servers whose authority is in `file`, or to those that the operating system trusts.
///
/// # Errors
/// The file has no certificates, or the operating system none.
pub fn trusting(file: Option<&Path>) -> Result<ClientConfig> {
    tls(&file.map_or(Trust::System, Trust::File))
}

fn tls(trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug(format!("TLS can't be set up: {e}")))?;
    let builder = match trust {
        Trust::System => builder.with_native_roots().map_err(|e| {
            Error::input(format!("this computer has no certificate authorities: {e}"))
                .help("install the operating system's package of them, such as `ca-certificates`")
        })?,
        Trust::File(path) => builder.with_root_certificates(roots(path)?),
        Trust::Nobody => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

fn roots(path: &Path) -> Result<RootCertStore> {
    let unusable = |why: String| {
        Error::input(format!("`{}` can't be used as a certificate authority: {why}", path.display()))
            .help("name a PEM file with one or more certificates")
    };
    let pem = std::fs::read(path).map_err(|e| unusable(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::engine::clock::{Clock, Hand};
    use crate::gateway::who::testing::{Stub, answer, at};

    fn http(time: Time) -> Http {
        Http::new(&Trust::Nobody, time).unwrap()
    }

    #[test]
    fn loopback_is_told_by_address_only() {
        let cases = [
            ("http://127.0.0.1:80/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:8080/", true),
            ("http://localhost/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://10.0.0.1/", false),
            ("http://0.0.0.0/", false),
            ("http://[::ffff:127.0.0.1]/", false),
            ("/", false),
        ];
        for (uri, expected) in cases {
            assert_eq!(is_loopback(&uri.parse().unwrap()), expected, "{uri}");
        }
    }

    #[tokio::test]
    async fn plain_http_goes_to_this_computer_only() {
        let http = http(Time::real(Clock::real()));
        for uri in ["http://example.com/", "http://localhost:1/", "ftp://127.0.0.1:1/x", "/x"] {
            let failure = http.get(uri.parse().unwrap(), [], 10).await.unwrap_err();
            assert!(matches!(failure, Failure::Address | Failure::Connection), "{uri}: {failure:?}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let stub = Stub::start(|_| {
            let mut redirect = answer(302, "");
            redirect.headers_mut().insert("location", HeaderValue::from_static("/other"));
            redirect
        })
        .await;
        let (status, _) = http(Time::real(Clock::real())).get(stub.uri("/first"), [], 10).await.unwrap();
        assert_eq!((status.as_u16(), stub.paths()), (302, vec!["/first".to_owned()]));
    }

    #[tokio::test]
    async fn a_large_answer_is_a_failure() {
        let stub = Stub::start(|_| answer(200, "x".repeat(11))).await;
        let http = http(Time::real(Clock::real()));
        assert_eq!(http.get(stub.uri("/"), [], 10).await, Err(Failure::Body));
        assert_eq!(http.get(stub.uri("/"), [], 11).await.unwrap().1.len(), 11);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_ends_after_the_limit() {
        let hand = Hand::default();
        let http = http(at(&hand));
        // Accepts connections, by the system's queue, and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
        assert_eq!(hand.run(http.get(uri, [], 10)).unwrap(), Err(Failure::Time));
        assert_eq!(hand.clock().elapsed(), LIMIT);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Http::new(&Trust::File(file.path()), Time::real(Clock::real())).err().unwrap();
        assert!(error.message.contains("holds no certificate"), "{error}");
        let error = Http::new(&Trust::File(Path::new("/nowhere")), Time::real(Clock::real())).err().unwrap();
        assert!(error.message.contains("/nowhere"), "{error}");
    }

    /// A certificate authority, and a server whose certificate it has issued.
    async fn secure() -> (String, Uri) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        (authority.pem(), uri)
    }

    #[tokio::test]
    async fn a_server_needs_a_certificate_of_the_issuers_authority() {
        let ((ours, uri), (other, _)) = (secure().await, secure().await);
        let get = async |pem: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), pem).unwrap();
            let http = Http::new(&Trust::File(file.path()), Time::real(Clock::real())).unwrap();
            http.get(uri.clone(), [], 10).await.map(|(status, _)| status.as_u16())
        };
        assert_eq!(get(&ours).await, Ok(200));
        assert_eq!(get(&format!("{other}{ours}")).await, Ok(200));
        assert_eq!(get(&other).await, Err(Failure::Connection));
        assert_eq!(http(Time::real(Clock::real())).get(uri.clone(), [], 10).await, Err(Failure::Connection));
    }
}
