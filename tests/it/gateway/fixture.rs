//! A running gateway in front of a real API server, with identities of every kind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::baseline::{Baseline, OLDER, POOL};
use crate::support::kubernetes::{Answer, GATEWAY, program, until};

pub const ISSUER: &str = "https://login.example.com";
pub const AUDIENCE: &str = "acme-gateway";
const LIMIT: Duration = Duration::from_secs(30);

/// A gateway for the tenants of [`POOL`].
pub static GATE: LazyLock<Gate> = LazyLock::new(|| Gate::before(&POOL, json!({})));
/// The same in front of a Kubernetes version without mutating policies.
pub static OLDER_GATE: LazyLock<Gate> = LazyLock::new(|| Gate::before(&OLDER, json!({})));

/// The identity provider's key.
pub static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

pub struct Gate {
    pub dir: TempDir,
    pub address: SocketAddr,
    pub status: SocketAddr,
    pub authority: Authority,
    process: Child,
}

/// A certificate authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The answer to a request, as bytes came.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate and its key, in PEM.
    pub fn issue(&self, names: Vec<SanType>, purpose: ExtendedKeyUsagePurpose) -> [String; 2] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        [params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem()]
    }

    /// The certificate of a client with this URI.
    pub fn client(&self, uri: &str) -> [String; 2] {
        self.issue(vec![SanType::URI(uri.try_into().unwrap())], ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// The seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the gateway reads the computer's time, too")]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A token of the identity provider. `claims` add to valid ones or replace them.
pub fn token(claims: Value) -> String {
    let mut all = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "iat": now() - 5, "exp": now() + 3600});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    signed(&json!({"alg": "ES256", "typ": "JWT", "kid": "one"}), &all)
}

/// A token with any header and claims, signed with the provider's key.
pub fn signed(header: &Value, claims: &Value) -> String {
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let key = jsonwebtoken::EncodingKey::from_ec_der(&KEY.serialize_der());
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, jsonwebtoken::Algorithm::ES256).unwrap();
    format!("{text}.{signature}")
}

/// The token of a developer of a tenant.
pub fn developer(tenant: &str) -> String {
    token(json!({"sub": format!("dev@{tenant}"), "groups": ["everybody", format!("{tenant}-developers")]}))
}

/// The provider's keys, as a JSON Web Key Set.
fn keys() -> Value {
    // An uncompressed point: 4, x, y.
    let point = KEY.public_key_raw();
    json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65])}]})
}

/// Starts the program as a server, and reads its two addresses. Its output goes to the files `stdout` and `stderr`.
pub fn serving(args: &[&OsStr], dir: &Path) -> (Child, [SocketAddr; 2]) {
    // The shell stops the program when the shell's standard input closes, which happens when the tests' process ends.
    let mut process = Command::new("sh")
        .args(["-c", r#""$@" </dev/null & pid=$!; cat >/dev/null; kill $pid; wait $pid"#, "sh"])
        .arg(env!("CARGO_BIN_EXE_ringfence"))
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(File::create(dir.join("stdout")).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let words = first.split_whitespace();
    let found: Vec<SocketAddr> =
        words.filter_map(|word| word.split_once("://")?.1.trim_end_matches('.').parse().ok()).collect();
    let Ok(addresses) = found.try_into() else {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        panic!("the program doesn't serve: {first}{rest}");
    };
    let mut log = File::create(dir.join("stderr")).unwrap();
    std::thread::spawn(move || std::io::copy(&mut lines, &mut log));
    (process, addresses)
}

impl Gate {
    /// `settings`: parts of the configuration that differ.
    pub fn before(baseline: &'static Baseline, settings: Value) -> Self {
        Self::start(&baseline.plane.url(), Some(baseline.plane.certificate()), &baseline.spec(), settings)
    }

    pub fn start(server: &str, certificate: Option<PathBuf>, spec: &Path, settings: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let authority = Authority::new();
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let [certificate_of_gateway, key] = authority.issue(vec![address], ExtendedKeyUsagePurpose::ServerAuth);
        write("ca.crt", authority.pem());
        write("tls.crt", &certificate_of_gateway);
        write("tls.key", &key);
        write("keys.json", &keys().to_string());
        write("token", GATEWAY);
        let mut cluster = json!({"server": server, "tokenFile": "token"});
        if let Some(certificate) = certificate {
            cluster["certificateAuthority"] = certificate.display().to_string().into();
        }
        let mut config = json!({
            "listen": "127.0.0.1:0", "status": "127.0.0.1:0", "audit": "audit.log",
            "tls": {"certificate": "tls.crt", "key": "tls.key", "clientAuthority": "ca.crt"},
            "clusters": {"shared": cluster},
            "issuers": [{"issuer": ISSUER, "audiences": [AUDIENCE], "keysFile": "keys.json"}],
            "limits": {"drainSeconds": 0, "requestsPerSecond": 10000, "burst": 10000},
        });
        for (name, value) in settings.as_object().unwrap() {
            for (field, value) in value.as_object().unwrap() {
                config[name][field] = value.clone();
            }
        }
        write("gateway.yaml", &config.to_string());
        let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/profiles");
        let config = dir.path().join("gateway.yaml");
        let args: [&OsStr; 7] = [
            "gateway".as_ref(),
            "--config".as_ref(),
            config.as_ref(),
            "-f".as_ref(),
            spec.as_ref(),
            "--profiles".as_ref(),
            profiles.as_ref(),
        ];
        let (process, [address, status]) = serving(&args, dir.path());
        Self { dir, address, status, authority, process }
    }

    /// Asks the program to stop, and waits for its end.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        drop(self.process.stdin.take());
        self.process.wait().unwrap()
    }

    /// A kubeconfig for a tenant with this token.
    pub fn kubeconfig(&self, tenant: &str, token: &str) -> PathBuf {
        let file = self.dir.path().join(format!("{tenant}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://{}/tenants/{tenant}", self.address),
                "certificate-authority-data": STANDARD.encode(self.authority.pem())}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": format!("t-{tenant}")}}],
        });
        fs::write(&file, config.to_string()).unwrap();
        file
    }

    /// Runs kubectl or helm as a developer of the tenant.
    pub fn client(&self, name: &str, tenant: &str, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(program(name))
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("HELM_DRIVER", "configmap")
            .env("KUBECONFIG", self.kubeconfig(tenant, &developer(tenant)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A client that fails early reads nothing.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// The same, for a command that succeeds.
    #[track_caller]
    pub fn kubectl(&self, tenant: &str, args: &[&str], input: &str) -> String {
        let output = self.client("kubectl", tenant, args, input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// A connection of TLS for HTTP/1.1.
    pub fn connect(&self, certificate: Option<&[String; 2]>) -> Stream {
        self.connect_with(certificate, &[b"http/1.1"])
    }

    fn connect_with(&self, certificate: Option<&[String; 2]>, protocols: &[&[u8]]) -> Stream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let config = match certificate {
            Some([certificate, key]) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                let mut config = self.builder().with_client_auth_cert(chain, key).unwrap();
                config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
                Arc::new(config)
            }
            None => self.trust(protocols),
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        rustls::StreamOwned::new(rustls::ClientConnection::new(config, name).unwrap(), stream)
    }

    /// A client's TLS that trusts the gateway.
    pub fn trust(&self, protocols: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut config = self.builder().with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    fn builder(&self) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }

    /// Sends bytes on a new connection, and reads one answer.
    pub fn raw(&self, bytes: &[u8]) -> Raw {
        let mut stream = self.connect(None);
        // The gateway may close before it has read everything.
        let _ = stream.write_all(bytes);
        answer(&mut stream)
    }

    /// A request with a bearer token. `path` begins after the tenant.
    pub fn call(&self, method: &str, tenant: &str, path: &str, token: &str, body: Option<(&str, &str)>) -> Answer {
        self.call_with(
            method,
            &format!("/tenants/{tenant}{path}"),
            &[("Authorization", &format!("Bearer {token}"))],
            body,
        )
    }

    /// A request with any path and headers.
    pub fn call_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<(&str, &str)>) -> Answer {
        let raw = self.raw(request(method, path, headers, body).as_bytes());
        let text = || Value::String(String::from_utf8_lossy(&raw.body).into_owned());
        Answer { status: raw.status, body: serde_json::from_slice(&raw.body).unwrap_or_else(|_| text()) }
    }

    /// A request of a tenant's developer.
    pub fn dev(&self, method: &str, tenant: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string);
        let body = body.as_deref().map(|body| ("application/json", body));
        self.call(method, tenant, path, &developer(tenant), body)
    }

    /// The lines of the audit log.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("audit.log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for an audit line.
    pub fn logged(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.audit().into_iter().rev().find(|line| is(line)))
    }

    /// A path of the status port.
    pub fn status(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.status).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let raw = answer(&mut stream);
        (raw.status, String::from_utf8(raw.body).unwrap())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop();
    }
}

pub type Stream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<(&str, &str)>) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some((media, body)) = body {
        text.push_str(&format!("Content-Type: {media}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    } else {
        text.push_str("\r\n");
    }
    text
}

/// Reads an answer up to its end.
pub fn answer(stream: &mut impl Read) -> Raw {
    let mut bytes = Vec::new();
    // A connection that is closed without a farewell has ended, too.
    let _ = stream.read_to_end(&mut bytes);
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
    let mut body = bytes[at..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Raw { status, head, body }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap_or_default(), 16).unwrap_or_default();
        let rest = &bytes[at + 2..];
        if size == 0 || rest.len() < size {
            body.extend_from_slice(rest.get(..size).unwrap_or(rest));
            break;
        }
        body.extend_from_slice(&rest[..size]);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    body
}
