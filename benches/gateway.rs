//! Load on the gateway from a second process, with and without the gateway in one run: `cargo bench --bench gateway`.
//! Prints lines of JSON. docs/gateway.md explains the method and has the figures.
//!
//! The API server is a stand-in in a third process, because a real one would be the bottleneck. `-- --seconds N` sets
//! the length of each part (10), and `-- --watches N` the number of watches (5,000). `-- --soak SECONDS` adds a long run
//! that looks at the memory.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark prints what it measures with the real clock, and ends at its first mistake"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

const ROLE: &str = "RINGFENCE_BENCH_ROLE";
const ISSUER: &str = "https://login.example.com";
const AUDIENCE: &str = "acme-gateway";
/// Connections of the load, and of a flood.
const CONNECTIONS: usize = 32;
/// Requests of the first moments aren't counted: connections are made, and tokens are checked for the first time.
const WARM_UP: Duration = Duration::from_secs(1);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var(ROLE).as_deref() {
        Ok("stub") => runtime.block_on(stub()),
        Ok(load) => runtime.block_on(Load::read(load).run()),
        Err(_) => measure(),
    }
}

// ---------------------------------------------------------------------------------------
// The whole measurement
// ---------------------------------------------------------------------------------------

fn option(name: &str, default: u64) -> u64 {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == name);
    at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or(default)
}

fn measure() {
    let (seconds, watches, soak) = (option("--seconds", 10), option("--watches", 5_000), option("--soak", 0));
    let files = Files::new();
    let (mut stub, at) = started(&mut own("stub"));
    let stub_at: SocketAddr = at.trim().parse().unwrap();
    let direct = Load { url: format!("http://{stub_at}"), seconds, ..files.load() };
    let unlimited =
        json!({"requestsPerSecond": 1_000_000, "burst": 1_000_000, "concurrent": 10_000, "streams": 10_000});
    let gateway = Gateway::start(&files, stub_at, unlimited);
    let through = Load { url: format!("https://{}/tenants/red", gateway.address), seconds, ..files.load() };

    for write in [false, true] {
        let what = if write { "examined writes" } else { "reads" };
        let most = Load { write, connections: 64, ..through.clone() }.measured();
        let half = most.rate / 2.0;
        let [without, with] = [&direct, &through].map(|load| Load { write, rate: half, ..load.clone() }.measured());
        let added = |with: f64, without: f64| round(with - without);
        print(json!({
            "what": what, "most a second": most.rate.round(), "at a second": half.round(),
            "milliseconds without": without.times(), "milliseconds with": with.times(),
            "added p50": added(with.p50, without.p50), "added p99": added(with.p99, without.p99),
            "errors": most.errors + without.errors + with.errors,
        }));
    }
    if soak > 0 {
        let before = gateway.memory();
        let load = Load { seconds: soak, rate: 2_000.0, ..through.clone() };
        let half = Load { seconds: soak / 2, ..load.clone() };
        half.measured();
        let middle = gateway.memory();
        half.measured();
        print(
            json!({"what": "memory", "seconds": soak, "MB before": before, "MB at half": middle, "MB at the end": gateway.memory()}),
        );
    }
    drop(gateway);

    let gateway =
        Gateway::start(&files, stub_at, json!({"streams": 100_000, "requestsPerSecond": 100_000, "burst": 100_000}));
    let before = gateway.memory();
    let watching = Load { url: format!("https://{}/tenants/red", gateway.address), watches, ..files.load() };
    let (mut load, line) = started(&mut own(&watching.written()));
    print(json!({"what": "idle watches", "open": line.trim(), "MB before": before, "MB with": gateway.memory()}));
    end(&mut load);
    drop(gateway);

    let gateway = Gateway::start(&files, stub_at, json!({}));
    let load = |tenant: &str| Load {
        url: format!("https://{}/tenants/{tenant}", gateway.address),
        token: files.token(tenant),
        tenant: tenant.to_owned(),
        connections: 4,
        rate: 80.0,
        seconds,
        ..files.load()
    };
    let alone = load("blue").measured();
    let flood = Load { rate: 0.0, connections: CONNECTIONS, seconds: seconds + 2, ..load("red") };
    let mut flooding = own(&flood.written()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let beside = load("blue").measured();
    flooding.wait().unwrap();
    let line = BufReader::new(flooding.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let flood: Measured = Measured::read(&line);
    print(json!({
        "what": "a tenant floods", "its requests a second": flood.rate.round(), "of them refused": flood.errors,
        "milliseconds of another tenant alone": alone.times(), "beside the flood": beside.times(),
        "p99 moved by": round(beside.p99 / alone.p99 - 1.0),
    }));
    drop(gateway);
    end(&mut stub);
}

fn print(line: Value) {
    println!("{line}");
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// This program in another role.
fn own(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role);
    command
}

/// A process, and the first line that it prints.
fn started(command: &mut Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (child, line)
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Certificates, keys and the spec.
struct Files {
    dir: tempfile::TempDir,
    authority: String,
    key: KeyPair,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = KeyPair::generate().unwrap();
        let authority = params.self_signed(&root).unwrap().pem();
        let issuer = Issuer::new(params, root);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let own = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&own, &issuer).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        // An uncompressed point: 4, x, y.
        let point = key.public_key_raw();
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65])}]});
        let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes");
        let spec = fs::read_to_string(inputs.join("pool.yaml")).unwrap();
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 30);
        let spec = spec.replace("SOON", &soon.strftime("%F").to_string());
        for (name, text) in [
            ("ca.crt", authority.as_str()),
            ("tls.crt", &certificate),
            ("tls.key", &own.serialize_pem()),
            ("keys.json", &keys.to_string()),
            ("token", "gateway-token"),
            ("tenancy.yaml", &spec),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self { dir, authority, key }
    }

    fn token(&self, tenant: &str) -> String {
        let claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": format!("dev@{tenant}"), "groups": [format!("{tenant}-developers")],
            "exp": jiff::Timestamp::now().as_second() + 7200});
        let text = [json!({"alg": "ES256", "typ": "JWT", "kid": "one"}), claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let key = jsonwebtoken::EncodingKey::from_ec_der(&self.key.serialize_der());
        let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, jsonwebtoken::Algorithm::ES256).unwrap();
        format!("{text}.{signature}")
    }

    fn load(&self) -> Load {
        Load {
            url: String::new(),
            tenant: "red".to_owned(),
            token: self.token("red"),
            authority: self.authority.clone(),
            connections: CONNECTIONS,
            rate: 0.0,
            seconds: 0,
            write: false,
            watches: 0,
        }
    }
}

struct Gateway {
    address: SocketAddr,
    process: Child,
}

impl Gateway {
    fn start(files: &Files, stub: SocketAddr, limits: Value) -> Self {
        let config = json!({
            "listen": "127.0.0.1:0", "status": "127.0.0.1:0", "audit": "audit.log", "limits": limits,
            "tls": {"certificate": "tls.crt", "key": "tls.key"},
            "clusters": {"shared": {"server": format!("http://{stub}"), "tokenFile": "token"}},
            "issuers": [{"issuer": ISSUER, "audiences": [AUDIENCE], "keysFile": "keys.json"}],
        });
        let dir = files.dir.path();
        fs::write(dir.join("gateway.yaml"), config.to_string()).unwrap();
        let _ = fs::remove_file(dir.join("audit.log"));
        let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/profiles");
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .arg("gateway")
            .arg("--config")
            .arg(dir.join("gateway.yaml"))
            .arg("-f")
            .arg(dir.join("tenancy.yaml"))
            .arg("--profiles")
            .arg(profiles)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        lines.read_line(&mut line).unwrap();
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let address =
            line.split_whitespace().find_map(|word| word.strip_prefix("https://")?.trim_end_matches('.').parse().ok());
        Self { address: address.unwrap(), process }
    }

    /// Resident memory in MB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default();
        kilobytes / 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

// ---------------------------------------------------------------------------------------
// The stand-in for an API server
// ---------------------------------------------------------------------------------------

async fn stub() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let pod = json!({"metadata": {"name": "web-6d4b75cb6d-hx2vr", "namespace": "t-red", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}, "status": {"phase": "Running", "podIP": "10.64.0.9"}});
    let list = Bytes::from(
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": vec![pod; 10]})
            .to_string(),
    );
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let list = list.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let list = list.clone();
                async move {
                    let watch = request.uri().query().is_some_and(|query| query.contains("watch"));
                    let body = match request.method().as_str() {
                        "POST" => Full::new(request.into_body().collect().await.unwrap().to_bytes()).boxed(),
                        _ if watch => {
                            let first = Ok(Frame::data(Bytes::from_static(b"{\"type\":\"BOOKMARK\"}\n")));
                            let rest = futures::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
                            BodyExt::boxed(StreamBody::new(futures::StreamExt::chain(
                                futures::stream::iter([first]),
                                rest,
                            )))
                        }
                        _ => Full::new(list).boxed(),
                    };
                    Ok::<_, std::convert::Infallible>(
                        http::Response::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap(),
                    )
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

// ---------------------------------------------------------------------------------------
// The load
// ---------------------------------------------------------------------------------------

/// What one process asks for.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Load {
    url: String,
    tenant: String,
    token: String,
    authority: String,
    connections: usize,
    /// Requests a second. 0: as many as answers allow.
    rate: f64,
    seconds: u64,
    write: bool,
    /// Watches to open instead of requests.
    watches: u64,
}

/// Times in milliseconds.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
    errors: usize,
}

impl Measured {
    fn read(line: &str) -> Self {
        serde_json::from_str(line).unwrap()
    }

    fn times(&self) -> Value {
        json!({"p50": round(self.p50), "p99": round(self.p99)})
    }
}

impl Load {
    fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap()
    }

    fn written(&self) -> String {
        serde_json::to_string(self).unwrap()
    }

    /// The figures of a process of its own.
    fn measured(&self) -> Measured {
        let output = own(&self.written()).stderr(Stdio::inherit()).output().unwrap();
        Measured::read(&String::from_utf8(output.stdout).unwrap())
    }

    async fn run(self) {
        let tls = self.tls();
        if self.watches > 0 {
            let mut open = Vec::new();
            for _ in 0..self.watches {
                let mut sender = self.connect(&tls).await;
                let mut response = sender.send_request(self.request(true)).await.unwrap();
                assert_eq!(response.status(), 200);
                response.frame().await.unwrap().unwrap();
                open.push((sender, response));
            }
            println!("{}", open.len());
            std::future::pending::<()>().await;
        }
        let start = Instant::now() + Duration::from_millis(200);
        let tasks = (0..self.connections).map(|i| {
            let (load, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move { load.connection(i, &tls, start).await })
        });
        let mut times = Vec::new();
        let mut errors = 0;
        for task in tasks.collect::<Vec<_>>() {
            let (own, failed) = task.await.unwrap();
            times.extend(own);
            errors += failed;
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
        let rate = (times.len() + errors) as f64 / self.seconds as f64;
        println!("{}", serde_json::to_string(&Measured { rate, p50: at(0.5), p99: at(0.99), errors }).unwrap());
    }

    /// One connection's times, and the number of its answers that weren't good.
    async fn connection(
        &self,
        number: usize,
        tls: &Option<Arc<rustls::ClientConfig>>,
        start: Instant,
    ) -> (Vec<f64>, usize) {
        let mut sender = self.connect(tls).await;
        let from = start + WARM_UP;
        let until = from + Duration::from_secs(self.seconds);
        let gap = if self.rate > 0.0 { self.connections as f64 / self.rate } else { 0.0 };
        let (mut times, mut errors, mut due) =
            (Vec::new(), 0, start + Duration::from_secs_f64(gap * number as f64 / self.connections as f64));
        loop {
            let late = Instant::now() > due;
            if !late && gap > 0.0 {
                tokio::time::sleep_until(due.into()).await;
            }
            // A request that had to wait for the one before counts from the moment at which it was due.
            let begun = if late && gap > 0.0 { due } else { Instant::now() };
            if begun > until {
                return (times, errors);
            }
            let mut response = sender.send_request(self.request(false)).await.unwrap();
            while response.frame().await.is_some() {}
            match response.status().is_success() {
                _ if begun < from => {}
                true => times.push(begun.elapsed().as_secs_f64() * 1e3),
                false => errors += 1,
            }
            due += Duration::from_secs_f64(gap);
        }
    }

    fn request(&self, watch: bool) -> Request<Full<Bytes>> {
        let path = self.url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
        let namespace = format!("t-{}", self.tenant);
        let request =
            Request::builder().header("host", "gateway").header(AUTHORIZATION, format!("Bearer {}", self.token));
        if self.write {
            let uri = format!("{path}/apis/apps/v1/namespaces/{namespace}/deployments");
            let request = request.method("POST").uri(uri).header(CONTENT_TYPE, "application/json");
            return request.body(Full::new(deployment())).unwrap();
        }
        let query = if watch { "?watch=true" } else { "" };
        request.uri(format!("{path}/api/v1/namespaces/{namespace}/pods{query}")).body(Full::default()).unwrap()
    }

    fn tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        self.url.starts_with("https").then(|| Arc::new(config))
    }

    async fn connect(&self, tls: &Option<Arc<rustls::ClientConfig>>) -> SendRequest<Full<Bytes>> {
        let address = self.url.split('/').nth(2).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match tls {
            Some(config) => {
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                speak(connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap()).await
            }
            None => speak(stream).await,
        }
    }
}

async fn speak(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A Deployment of three containers, as its author writes it.
fn deployment() -> Bytes {
    let container = |name: &str| {
        json!({"name": name, "image": format!("123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/{name}:1"),
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}, "ports": [{"containerPort": 8080}],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}]})
    };
    let labels = json!({"app": "web"});
    let containers = ["web", "proxy", "agent"].map(container);
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers, "volumes": [{"name": "work", "emptyDir": {}}]}});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}});
    Bytes::from(object.to_string())
}
