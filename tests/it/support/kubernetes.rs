//! A real Kubernetes control plane: etcd, the API server, the controller
//! manager, the scheduler and kwok for nodes.
//!
//! No package ships these programs ready-made. They come from
//! the directory `KUBEBUILDER_ASSETS`, else from a cache, else they are built
//! once from their Go modules under `tests/kubernetes`, which takes about eight
//! minutes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ringfence::guard::User;

use super::judge::Judge;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{AuthInfo, Config};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Kubernetes' version.
pub const VERSION: &str = "1.36.3";

/// A module under `tests/kubernetes`, the package to build, and the names of
/// its programs.
type Build = (&'static str, &'static str, &'static [&'static str]);

const BUILDS: [Build; 7] = [
    ("gatekeeper", "github.com/open-policy-agent/gatekeeper/v3", &["gatekeeper"]),
    ("psp", "k8s.io/kubernetes/cmd/kube-apiserver", &[WITH_PSP]),
    ("opa", "github.com/open-policy-agent/opa", &["opa"]),
    ("kwok", "sigs.k8s.io/kwok/cmd/kwok", &["kwok"]),
    ("cyclonus", "github.com/mattfenwick/cyclonus/cmd/cyclonus", &["cyclonus"]),
    ("clients", ".", &["kubectl", "helm"]),
    ("control-plane", ".", CONTROL_PLANE),
];
const CONTROL_PLANE: &[&str] = &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// The last API server with PodSecurityPolicy, 1.24.
const WITH_PSP: &str = "kube-apiserver-1.24";
/// The user who may do everything. The control plane's own parts use the same
/// token.
const ADMIN: &str = "admin";
/// The token of the gateway: its role of IAM has the group that the access entry names.
pub const GATEWAY: &str = "gateway-token";
/// The token of a person of the tenant `red`.
const PERSON: &str = "person";
/// Tokens with their users and groups. A user with a token of its own can impersonate others.
const TOKENS: [(&str, &str, &str); 3] = [
    (ADMIN, "admin", "system:masters"),
    (GATEWAY, "arn:aws:sts::123456789012:assumed-role/acme-gateway/i-0123456789", "ringfence:gateway"),
    (PERSON, "somebody@red", "tenant:red"),
];
/// The longest time that anything may take on a busy computer.
const LIMIT: Duration = Duration::from_secs(90);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// The runtime for the tests' requests to API servers.
pub static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

/// The path of a program of [`BUILDS`].
pub fn program(name: &str) -> PathBuf {
    static KNOWN: LazyLock<Mutex<BTreeMap<&str, PathBuf>>> = LazyLock::new(Mutex::default);
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(|dir| PathBuf::from(dir).join(name));
    if let Some(given) = given.filter(|given| given.exists()) {
        return given;
    }
    let build = BUILDS.iter().find(|(_, _, names)| names.contains(&name)).expect("a known program");
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(build.0).or_insert_with(|| built(build)).join(name)
}

/// Waits until `look` returns something. Panics with `what` if it never does.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    waited(look).unwrap_or_else(|| panic!("{what}: not within {LIMIT:?}"))
}

fn waited<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..(LIMIT.as_millis() / BETWEEN_LOOKS.as_millis()) {
        if let Some(found) = look() {
            return Some(found);
        }
        #[expect(clippy::disallowed_methods, reason = "between two looks at the condition")]
        std::thread::sleep(BETWEEN_LOOKS);
    }
    None
}

fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes")
}

/// The cache's directory for a build. Builds what is missing.
fn built((module, package, names): &Build) -> PathBuf {
    let mut recipe = Sha256::new();
    recipe.update(package);
    for file in ["go.mod", "go.sum", "main.go"] {
        recipe.update(fs::read(modules().join(module).join(file)).unwrap_or_default());
    }
    let digest: String = hex::encode(recipe.finalize()).chars().take(12).collect();
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let home = cache.join("ringfence-tests").join(format!("{module}-{digest}"));
    fs::create_dir_all(home.parent().unwrap()).expect("the cache can be written");
    let lock = File::create(home.with_added_extension("lock")).expect("the cache can be written");
    lock.lock().expect("two runs of the tests take turns");
    if !home.exists() {
        let dir = tempfile::tempdir_in(home.parent().unwrap()).expect("the cache can be written");
        build(&modules().join(module), package, dir.path(), names);
        let _ = fs::remove_dir_all(dir.path().join("go-cache"));
        fs::rename(dir.keep(), &home).expect("the cache can be written");
    }
    home
}

fn build(module: &Path, package: &str, dir: &Path, names: &[&str]) {
    let (full, minor) = if names.contains(&WITH_PSP) { ("1.24.17", 24) } else { (VERSION, 36) };
    let version = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .map(|p| format!("-X {p}.gitVersion=v{full} -X {p}.gitMajor=1 -X {p}.gitMinor={minor}"))
        .join(" ");
    let output = Command::new("go")
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
        .args(["-ldflags", &format!("-s -w {version}"), "-o"])
        .args([dir.join(names[0]).as_os_str(), package.as_ref()])
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", dir.join("go-cache"))
        .output()
        .expect("Go 1.26 or later builds Kubernetes for the tests; or KUBEBUILDER_ASSETS names a directory with it");
    assert!(output.status.success(), "{}: {}", module.display(), String::from_utf8_lossy(&output.stderr));
    for name in &names[1..] {
        std::os::unix::fs::symlink(names[0], dir.join(name)).unwrap();
    }
}

/// Options of a control plane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Serves the APIs of an older version, such as `1.35`.
    pub emulates: Option<&'static str>,
    /// Runs the scheduler, and kwok, which simulates the nodes that a test
    /// adds.
    pub nodes: bool,
    /// Sends the API server's connections to webhooks to [`Webhooks`].
    pub webhooks: bool,
    /// Runs an API server of 1.24 with the plugin PodSecurityPolicy, without
    /// controllers.
    pub psp: bool,
}

/// The replicas of a webhook. An API server connects through this proxy (`EgressSelectorConfiguration`), because there is
/// no network of Pods.
#[derive(Clone, Default)]
pub struct Webhooks(Arc<Mutex<Vec<SocketAddr>>>);

impl Webhooks {
    /// The addresses that new connections go to, one after the other.
    pub fn serve(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn next(&self) -> Option<SocketAddr> {
        let mut all = self.0.lock().unwrap();
        if !all.is_empty() {
            all.rotate_left(1);
        }
        all.first().copied()
    }

    fn listen(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let webhooks = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let webhooks = webhooks.clone();
                std::thread::spawn(move || webhooks.connect(stream));
            }
        });
    }

    /// Answers `CONNECT`, and passes bytes on.
    fn connect(&self, mut client: UnixStream) -> Option<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let Some(mut server) = self.next().and_then(|address| TcpStream::connect(address).ok()) else {
            return client.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").ok();
        };
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
        let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
        std::thread::spawn(move || {
            let _ended = std::io::copy(&mut from, &mut to);
            let _shut = to.shutdown(Shutdown::Write);
        });
        let _ended = std::io::copy(&mut server, &mut client);
        client.shutdown(Shutdown::Both).ok()
    }
}

/// A new control plane. It ends with the test's process in every case.
pub struct ControlPlane {
    dir: TempDir,
    port: u16,
    /// By token.
    clients: Mutex<BTreeMap<&'static str, kube::Client>>,
    /// Checks every verdict on objects that are created, once it is set.
    judge: OnceLock<Arc<Judge>>,
    pub webhooks: Webhooks,
    /// The programs end when their standard input closes.
    children: Vec<Child>,
}

impl ControlPlane {
    pub fn start(options: Options) -> Self {
        let [port, client, peer] = free_ports();
        let mut plane = Self {
            dir: tempfile::tempdir().unwrap(),
            port,
            clients: Mutex::default(),
            judge: OnceLock::new(),
            webhooks: Webhooks::default(),
            children: Vec::new(),
        };
        let path = |name: &str| plane.dir.path().join(name).display().to_string();
        let etcd = format!("http://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        let key = path("service-accounts.key");
        let pair = rcgen::KeyPair::generate().unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        fs::write(path("service-accounts.pub"), pair.public_key_pem()).unwrap();
        let lines: Vec<_> =
            TOKENS.iter().map(|(token, user, group)| format!("{token},\"{user}\",{user},\"{group}\"")).collect();
        fs::write(path("tokens.csv"), lines.join("\n")).unwrap();
        let server = [
            ("etcd-servers", etcd.as_str()),
            ("secure-port", &port.to_string()),
            ("bind-address", "127.0.0.1"),
            ("external-hostname", "127.0.0.1"),
            ("cert-dir", &path("certs")),
            ("token-auth-file", &path("tokens.csv")),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", &path("service-accounts.pub")),
            ("service-account-signing-key-file", &key),
            ("service-cluster-ip-range", "172.20.0.0/16"),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", if options.psp { "PodSecurityPolicy" } else { "NodeRestriction" }),
            ("endpoint-reconciler-type", "none"),
            ("allow-privileged", "true"),
            ("shutdown-delay-duration", "0s"),
        ];
        let etcd_flags = [
            ("data-dir", path("etcd").as_str()),
            ("listen-client-urls", etcd.as_str()),
            ("advertise-client-urls", etcd.as_str()),
            ("listen-peer-urls", peers.as_str()),
            ("initial-advertise-peer-urls", peers.as_str()),
            ("initial-cluster", format!("default={peers}").as_str()),
            ("unsafe-no-fsync", "true"),
        ]
        .map(|(name, value)| format!("--{name}={value}"));
        let mut server: Vec<_> = server.iter().map(|(name, value)| format!("--{name}={value}")).collect();
        if options.webhooks {
            let socket = path("webhooks.sock");
            plane.webhooks.listen(Path::new(&socket));
            let connection = json!({"proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": socket}}});
            let egress = json!({
                "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
                "egressSelections": [{"name": "cluster", "connection": connection}],
            });
            fs::write(path("egress.yaml"), egress.to_string()).unwrap();
            server.push(format!("--egress-selector-config-file={}", path("egress.yaml")));
        }
        if !options.psp {
            server.push(format!("--emulated-version={}", options.emulates.unwrap_or("1.36")));
        }
        let kubeconfig = plane.kubeconfig().display().to_string();
        let certificate = path("certs/apiserver.crt");
        let manager = [
            format!("--kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            "--secure-port=0".to_owned(),
            format!("--service-account-private-key-file={key}"),
            format!("--root-ca-file={certificate}"),
        ];
        plane.spawn("etcd", &etcd_flags);
        plane.spawn(if options.psp { WITH_PSP } else { "kube-apiserver" }, &server);
        until("the API server's certificate", || fs::metadata(&certificate).ok().filter(|m| m.len() > 0));
        plane.write_kubeconfig(&certificate);
        plane.until("the API server is ready", |admin| admin.get("/readyz").status == 200);
        if options.psp {
            return plane;
        }
        plane.spawn("kube-controller-manager", &manager);
        if options.nodes {
            let scheduler =
                [format!("--kubeconfig={kubeconfig}"), "--leader-elect=false".into(), "--secure-port=0".into()];
            plane.spawn("kube-scheduler", &scheduler);
            let kwok = [
                format!("--kubeconfig={kubeconfig}"),
                format!("--config={}", modules().join("stages.yaml").display()),
                "--manage-all-nodes=true".to_owned(),
            ];
            plane.spawn("kwok", &kwok);
        }
        plane.until("service accounts are made", |admin| {
            admin.get("/api/v1/namespaces/default/serviceaccounts/default").status == 200
        });
        plane
    }

    /// A kubeconfig with administrator access.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The file with the API server's certificate, which has signed itself.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certs/apiserver.crt")
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A directory with a new certificate of 127.0.0.1, and the certificate.
    pub fn certificate_for(&self, server: &str) -> (PathBuf, String) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let dir = self.dir.path().join(server);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
        fs::write(dir.join("tls.key"), signing_key.serialize_pem()).unwrap();
        (dir, cert.pem())
    }

    /// From now on, every verdict on an object that is created must be the guard's, too.
    pub fn judge(&self) -> Arc<Judge> {
        self.judge.get_or_init(|| Arc::new(Judge::of(&self.admin()))).clone()
    }

    pub fn admin(&self) -> Api<'_> {
        self.holder(ADMIN)
    }

    /// The API as the gateway, with a token.
    pub fn gateway(&self) -> Api<'_> {
        self.holder(GATEWAY)
    }

    /// The API as a person of the tenant `red`, with a token.
    pub fn person(&self) -> Api<'_> {
        self.holder(PERSON)
    }

    fn holder(&self, token: &'static str) -> Api<'_> {
        Api { plane: self, token, user: None, headers: Vec::new() }
    }

    /// The API as another user, by impersonation.
    pub fn user(&self, name: &str, groups: &[&str]) -> Api<'_> {
        let mut all = vec!["system:authenticated".to_owned()];
        all.extend(groups.iter().map(|g| (*g).to_owned()));
        Api { user: Some((name.to_owned(), all)), ..self.admin() }
    }

    /// The API as a user of a tenant.
    pub fn tenant(&self, id: &str) -> Api<'_> {
        self.user(&format!("somebody@{id}"), &[&format!("tenant:{id}")])
    }

    pub fn node(&self, name: &str) -> Api<'_> {
        self.user(&format!("system:node:{name}"), &["system:nodes"])
    }

    /// Waits until `look` is true. Panics with the last lines of the programs'
    /// logs if it never is.
    pub fn until(&self, what: &str, look: impl Fn(&Api<'_>) -> bool) {
        let admin = self.admin();
        let found = waited(|| look(&admin).then_some(()));
        found.unwrap_or_else(|| panic!("{what}: not within {LIMIT:?}{}", self.last_words()));
    }

    fn client(&self, token: &'static str) -> kube::Client {
        let made = || {
            let mut config = Config::new(self.url().parse().unwrap());
            config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
            config.accept_invalid_certs = true;
            let _runtime = RUNTIME.enter();
            kube::Client::try_from(config).unwrap()
        };
        self.clients.lock().unwrap().entry(token).or_insert_with(made).clone()
    }

    /// The last lines of the programs' logs.
    fn last_words(&self) -> String {
        let tail = |name: &&str| {
            let log = fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            format!("\n{name}:\n{}", lines[lines.len().saturating_sub(5)..].join("\n"))
        };
        CONTROL_PLANE.iter().map(tail).collect()
    }

    /// Runs another program beside the control plane.
    pub fn spawn(&mut self, name: &str, flags: &[String]) {
        self.children.push(spawned(self.dir.path(), name, flags));
    }

    fn write_kubeconfig(&self, certificate: &str) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": self.url(), "certificate-authority": certificate}}],
            "users": [{"name": "it", "user": {"token": ADMIN}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        fs::write(self.kubeconfig(), config.to_string()).unwrap();
    }
}

/// Starts a program, which logs into `dir`. The shell kills the program when the shell's standard input closes, which
/// happens when the tests' process ends.
pub fn spawned(dir: &Path, name: &str, flags: &[String]) -> Child {
    let log = File::create(dir.join(format!("{name}.log"))).unwrap();
    Command::new("sh")
        .args(["-c", r#""$@" </dev/null & pid=$!; cat >/dev/null; kill -9 $pid"#, "sh"])
        .arg(program(name))
        .args(flags)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

pub fn free_ports<const N: usize>() -> [u16; N] {
    // All listeners stay open until all ports are known, so that no two are the
    // same.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|l| l.local_addr().unwrap().port())
}

/// An API server, as seen by one user.
#[derive(Clone)]
pub struct Api<'a> {
    plane: &'a ControlPlane,
    token: &'static str,
    /// The user and the groups that the holder of the token impersonates.
    user: Option<(String, Vec<String>)>,
    headers: Vec<(String, String)>,
}

/// An answer of the API server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The message of a refusal.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.is_ok(), "{}: {}", self.status, self.message());
        self.body
    }
}

impl Api<'_> {
    /// The same user, with these headers in each request.
    pub fn with_headers(&self, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { headers, ..self.clone() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None)
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None)
    }

    /// Creates an object. Retries if another request changed the same quota at
    /// that moment, as the API server's message says.
    pub fn create(&self, object: &Value) -> Answer {
        let busy = |a: &Answer| a.status == 409 && a.message().contains("cannot be fulfilled on resourcequotas");
        until("a quota that isn't busy", || {
            let answer = self.call(Method::POST, &collection(object), Some(("application/json", object)));
            (!busy(&answer)).then_some(answer)
        })
    }

    /// Like `create`, but as a dry run: only admission runs.
    #[track_caller]
    pub fn try_create(&self, object: &Value) -> Answer {
        let answer = self.try_unjudged(object);
        if let Some(judge) = self.plane.judge.get() {
            judge.compare(&self.plane.admin(), &self.identity(), object, &answer);
        }
        answer
    }

    /// The same while policies or namespaces aren't in force yet.
    pub fn try_unjudged(&self, object: &Value) -> Answer {
        self.call(Method::POST, &format!("{}?dryRun=All", collection(object)), Some(("application/json", object)))
    }

    fn identity(&self) -> User {
        match &self.user {
            Some((username, groups)) => User { username: username.clone(), groups: groups.clone() },
            None => User { username: ADMIN.to_owned(), groups: vec!["system:masters".to_owned()] },
        }
    }

    /// A JSON merge patch.
    #[track_caller]
    pub fn patch(&self, path: &str, patch: &Value) -> Answer {
        self.update(Method::PATCH, path, "application/merge-patch+json", patch)
    }

    /// A JSON patch, RFC 6902.
    pub fn json_patch(&self, path: &str, patch: &Value) -> Answer {
        self.call(Method::PATCH, path, Some(("application/json-patch+json", patch)))
    }

    #[track_caller]
    pub fn put(&self, path: &str, object: &Value) -> Answer {
        self.update(Method::PUT, path, "application/json", object)
    }

    #[track_caller]
    fn update(&self, method: Method, path: &str, media: &str, body: &Value) -> Answer {
        let admin = self.plane.admin();
        let judge = self.plane.judge.get();
        let old = judge.map(|_| admin.get(path.split('?').next().unwrap_or_default())).filter(Answer::is_ok);
        let answer = self.call(method.clone(), path, Some((media, body)));
        if let (Some(judge), Some(old)) = (judge, old) {
            let new = if method == Method::PUT { body.clone() } else { merged(old.body.clone(), body) };
            judge.compare_update(&admin, &self.identity(), path, [&old.body, &new], &answer);
        }
        answer
    }

    pub fn post(&self, path: &str, object: &Value) -> Answer {
        self.call(Method::POST, path, Some(("application/json", object)))
    }

    fn call(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("accept", "application/json");
        if let Some((user, groups)) = &self.user {
            request = request.header("impersonate-user", user);
            for group in groups {
                request = request.header("impersonate-group", group);
            }
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = match body {
            Some((media, value)) => {
                request = request.header("content-type", media);
                Body::from(value.to_string().into_bytes())
            }
            None => Body::empty(),
        };
        let request = request.body(body).unwrap();
        RUNTIME.block_on(async {
            let Ok(response) = self.plane.client(self.token).send(request).await else {
                return Answer { status: 0, body: json!({"message": "no answer"}) };
            };
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
            Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) }
        })
    }
}

/// What a server on this computer answers.
pub fn https(port: u16, path: &str, body: &Value) -> Value {
    static CLIENTS: LazyLock<Mutex<BTreeMap<u16, kube::Client>>> = LazyLock::new(Mutex::default);
    let made = || {
        let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
        config.accept_invalid_certs = true;
        let _runtime = RUNTIME.enter();
        kube::Client::try_from(config).unwrap()
    };
    let client = CLIENTS.lock().unwrap().entry(port).or_insert_with(made).clone();
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(Body::from(body.to_string().into_bytes())).unwrap();
    RUNTIME.block_on(async {
        let response = client.send(request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes)))
    })
}

/// A JSON merge patch, RFC 7386.
pub fn merged(mut target: Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else { return patch.clone() };
    if !target.is_object() {
        target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            target[name] = merged(target[name].take(), value);
        }
    }
    target
}

/// The path of an object's collection.
pub fn collection(object: &Value) -> String {
    let api = object["apiVersion"].as_str().unwrap();
    let kind = object["kind"].as_str().unwrap();
    let root = if api.contains('/') { format!("/apis/{api}") } else { format!("/api/{api}") };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{}", plural(kind)),
        None => format!("{root}/{}", plural(kind)),
    }
}

/// The path of one object.
pub fn path(object: &Value) -> String {
    format!("{}/{}", collection(object), object["metadata"]["name"].as_str().unwrap())
}

pub fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.as_str() {
        "endpoints" => lower,
        _ if lower.ends_with('y') => format!("{}ies", &lower[..lower.len() - 1]),
        _ if lower.ends_with('s') => format!("{lower}es"),
        _ => format!("{lower}s"),
    }
}

/// Documents of YAML.
pub fn yaml(text: &str) -> Vec<Value> {
    serde_yaml::from_multiple(text).expect("the test's YAML is right")
}

/// Every label and its value.
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default()
}

/// This test is run alone before the others, so that no other test waits for a
/// build.
#[test]
#[ignore = "`make test` runs it first"]
fn programs_are_there() {
    // Gatekeeper and an API server of 1.24 are for `make engines` only.
    let later = [WITH_PSP, "gatekeeper"];
    for name in BUILDS.iter().flat_map(|(_, _, names)| *names).filter(|name| !later.contains(name)) {
        assert!(program(name).exists(), "{name}");
    }
}
