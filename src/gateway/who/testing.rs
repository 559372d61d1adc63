//! Servers on this computer, keys and a clock for tests.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jsonwebtoken::EncodingKey;
use rustls_pki_types::PrivatePkcs1KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::keys::KeySet;
use super::time::Time;
use crate::engine::clock::Hand;

/// When each test starts.
pub(super) const START: &str = "2026-11-23T06:00:00Z";

pub(super) fn start() -> Timestamp {
    START.parse().unwrap()
}

pub(super) fn at(hand: &Hand) -> Time {
    Time::starting_at(start(), hand.clock())
}

pub(super) fn pass(hand: &Hand, seconds: u64) {
    hand.run(hand.clock().sleep(Duration::from_secs(seconds))).unwrap();
}

/// An HTTP server that writes down what it is asked.
pub(super) struct Stub {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

pub(super) fn answer(status: u16, body: impl Into<String>) -> Response<String> {
    Response::builder().status(status).body(body.into()).unwrap()
}

impl Stub {
    pub(super) async fn start(answer: impl Fn(Seen) -> Response<String> + Send + Sync + 'static) -> Self {
        Self::slow(move |seen| Box::pin(std::future::ready(answer(seen)))).await
    }

    pub(super) async fn slow(
        answer: impl Fn(Seen) -> BoxFuture<'static, Response<String>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stub = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, answer) = (stub.seen.clone(), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answer) = (seen.clone(), answer.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (head, _) = request.into_parts();
                    let one =
                        Seen { method: head.method.to_string(), path: head.uri.to_string(), headers: head.headers };
                    seen.lock().unwrap().push(one.clone());
                    let answer = answer(one);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        stub
    }

    pub(super) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.base()).parse().unwrap()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|s| s.path).collect()
    }
}

/// An OpenID Connect provider.
pub(super) struct Provider {
    stub: Stub,
    published: Arc<Mutex<Published>>,
}

#[derive(Default)]
struct Published {
    keys: String,
    fails: bool,
    /// `BASE` stands for the server's address.
    description: Option<String>,
}

impl Provider {
    pub(super) async fn start(signers: &[&Signer]) -> Self {
        let published: Arc<Mutex<Published>> = Arc::default();
        let shared = published.clone();
        let stub = Stub::start(move |seen| {
            let published = shared.lock().unwrap();
            let host = seen.headers["host"].to_str().unwrap();
            match seen.path.as_str() {
                _ if published.fails => answer(500, "down"),
                "/.well-known/openid-configuration" => {
                    let usual = r#"{"issuer":"BASE","jwks_uri":"BASE/keys","token_endpoint":"BASE/token"}"#;
                    let description = published.description.as_deref().unwrap_or(usual);
                    answer(200, description.replace("BASE", &format!("http://{host}")))
                }
                "/keys" => answer(200, published.keys.clone()),
                _ => answer(404, ""),
            }
        })
        .await;
        let provider = Self { stub, published };
        provider.publish(signers);
        provider
    }

    pub(super) async fn custom(answer: impl Fn(Seen) -> Response<String> + Send + Sync + 'static) -> Self {
        Self { stub: Stub::start(answer).await, published: Arc::default() }
    }

    pub(super) fn issuer(&self) -> String {
        self.stub.base()
    }

    pub(super) fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|s| &s.jwk).collect();
        self.published.lock().unwrap().keys = json!({ "keys": keys }).to_string();
    }

    pub(super) fn fail(&self, fails: bool) {
        self.published.lock().unwrap().fails = fails;
    }

    pub(super) fn describe(&self, document: &str) {
        self.published.lock().unwrap().description = Some(document.to_owned());
    }

    /// How often the keys were fetched.
    pub(super) fn fetches(&self) -> usize {
        self.stub.paths().iter().filter(|p| *p == "/keys").count()
    }
}

/// A key pair of an issuer.
pub(super) struct Signer {
    pub(super) jwk: Value,
    key: EncodingKey,
    algorithm: jsonwebtoken::Algorithm,
}

impl Signer {
    pub(super) fn ec(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let point = pair.public_key_raw();
        let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        Self {
            jwk: json!({"kty": "EC", "crv": "P-256", "kid": id, "x": coordinate(1..33), "y": coordinate(33..65)}),
            key: EncodingKey::from_ec_der(pair.serialized_der()),
            algorithm: jsonwebtoken::Algorithm::ES256,
        }
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.jwk["kid"].as_str()
    }

    pub(super) fn signature(&self, message: &[u8]) -> String {
        jsonwebtoken::crypto::sign(message, &self.key, self.algorithm).unwrap()
    }

    /// A token of two JSON texts, whatever they are.
    pub(super) fn token(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{message}.{}", self.signature(message.as_bytes()))
    }

    pub(super) fn set(&self) -> Vec<u8> {
        json!({"keys": [self.jwk]}).to_string().into_bytes()
    }
}

pub(super) fn keys_of(signers: &[&Signer]) -> KeySet {
    let keys: Vec<_> = signers.iter().map(|s| &s.jwk).collect();
    KeySet::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

/// The test key, which `openssl genrsa` has made: ring makes none.
const RSA: &str = include_str!("../../../tests/gateway/rsa-2048.pem");
pub(super) const RSA_PUBLIC: &str = include_str!("../../../tests/gateway/rsa-2048-public.pem");
const RSA_JWK: &str = include_str!("../../../tests/gateway/rsa-2048.jwk.json");

pub(super) fn rsa(id: &str) -> Signer {
    let mut jwk: Value = serde_json::from_str(RSA_JWK).unwrap();
    jwk["kid"] = id.into();
    let der = PrivatePkcs1KeyDer::from_pem_slice(RSA.as_bytes()).unwrap();
    let key = EncodingKey::from_rsa_der(der.secret_pkcs1_der());
    Signer { jwk, key, algorithm: jsonwebtoken::Algorithm::RS256 }
}
