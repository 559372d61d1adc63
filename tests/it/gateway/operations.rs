//! Sessions, reloads and the end of a gateway, in front of a stand-in for an API server.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::fixture::{Gate, Stream, developer, request};
use super::stub::{Stub, respond};
use crate::cluster::baseline::POOL;
use crate::support::kubernetes::until;

/// A gateway in front of a stub, with a spec of its own.
struct Set {
    stub: Stub,
    gate: Gate,
    spec: PathBuf,
    _dir: TempDir,
}

impl Set {
    fn new(behave: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = dir.path().join("tenancy.yaml");
        fs::copy(POOL.spec(), &spec).unwrap();
        let stub = Stub::start(behave);
        let gate = Gate::start(&stub.url(), None, &spec, json!({"limits": {"answerSeconds": 2}}));
        Self { stub, gate, spec, _dir: dir }
    }
}

fn bearer(tenant: &str) -> String {
    format!("Bearer {}", developer(tenant))
}

/// A watch that has begun, and its first line.
fn watch(gate: &Gate, tenant: &str) -> Stream {
    let mut stream = gate.connect(None);
    let path = format!("/tenants/{tenant}/api/v1/namespaces/t-{tenant}/pods?watch=1");
    stream.write_all(request("GET", &path, &[("Authorization", &bearer(tenant))], None).as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"ADDED") {
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    stream
}

/// Answers with the beginning of a watch, and keeps the connection.
fn endless(_: &str, stream: &mut TcpStream) -> bool {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}5\r\nADDED\r\n").as_bytes()).is_ok()
}

fn empty(_: &str, stream: &mut TcpStream) -> bool {
    respond(stream, "200 OK", "{}")
}

/// Two clusters behind one gateway: a request of a tenant, and the gateway's login for a cluster, go to the tenant's own
/// cluster only, whatever path, host or header the tenant writes.
#[test]
fn each_cluster_gets_its_own_tenants_and_its_own_token() {
    let dir = tempfile::tempdir().unwrap();
    let spec = dir.path().join("tenancy.yaml");
    let gold = "    - {id: gold, name: Gold, tier: premium, access: [{issuer: \"https://login.example.com\", claim: groups, value: gold-developers}]}\n";
    fs::write(&spec, fs::read_to_string(POOL.spec()).unwrap() + gold).unwrap();
    fs::write(dir.path().join("token"), "token-of-gold").unwrap();
    let [shared, silo] = [Stub::start(empty), Stub::start(empty)];
    let token = dir.path().join("token");
    let settings = json!({"clusters": {"gold": {"server": silo.url(), "tokenFile": token}}});
    let gate = Gate::start(&shared.url(), None, &spec, settings);
    let ask = |tenant: &str, path: &str, more: &[(&str, &str)]| {
        let bearer = bearer(tenant);
        let headers: Vec<(&str, &str)> =
            [("Authorization", bearer.as_str())].into_iter().chain(more.iter().copied()).collect();
        gate.raw(request("GET", path, &headers, None).as_bytes()).status
    };
    assert_eq!(ask("red", "/tenants/red/api/v1/namespaces/t-red/pods", &[]), 200);
    assert_eq!(ask("gold", "/tenants/gold/api/v1/namespaces/t-gold/pods", &[]), 200);
    for (tenant, path) in [
        ("red", "/tenants/gold/api/v1/namespaces/t-gold/pods"),
        ("red", "/tenants/red/api/v1/namespaces/t-gold/pods"),
        ("red", "/tenants/gold/api/v1/namespaces/t-red/pods"),
        ("gold", "/tenants/red/api/v1/namespaces/t-gold/pods"),
        ("gold", "/tenants/red/api/v1/namespaces/t-red/pods"),
        ("gold", "/clusters/shared/api/v1/pods"),
    ] {
        assert_eq!(ask(tenant, path, &[]), 403, "{tenant} {path}");
    }
    for (name, value) in
        [("Host", "gold"), ("X-Forwarded-Host", "gold"), ("X-Original-URL", "/tenants/gold/api"), ("X-Cluster", "gold")]
    {
        let status = ask("red", "/tenants/red/api/v1/namespaces/t-red/pods", &[(name, value)]);
        assert!(matches!(status, 200 | 400), "{name}: {status}");
    }
    for (stub, token, tenant) in [(&shared, "gateway-token", "red"), (&silo, "token-of-gold", "gold")] {
        for head in stub.heads.lock().unwrap().iter() {
            let lower = head.to_lowercase();
            assert!(lower.contains(&format!("authorization: bearer {token}\r")), "{head}");
            assert!(lower.contains(&format!("impersonate-user: tenant:{tenant}\r")), "{head}");
        }
    }
    assert_eq!(silo.heads.lock().unwrap().len(), 1);
}

#[test]
fn only_our_headers_reach_the_api_server() {
    let set = Set::new(empty);
    let headers = [
        ("Authorization", bearer("red")),
        ("Accept", "application/json".to_owned()),
        ("User-Agent", "kubectl".to_owned()),
        ("Impersonate-User", "admin".to_owned()),
        ("X-Remote-User", "admin".to_owned()),
        ("Forwarded", "for=x".to_owned()),
        ("Cookie", "a=b".to_owned()),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let raw = set
        .gate
        .raw(request("GET", "/tenants/red/api/v1/pods?limit=5&labelSelector=a%3Db%26c", &headers, None).as_bytes());
    assert_eq!(raw.status, 200);
    assert!(!raw.head.to_lowercase().contains("set-cookie"), "{}", raw.head);
    let head = set.stub.last();
    let mut lines: Vec<String> = head.trim().lines().map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "GET /api/v1/namespaces/t-red/pods?limit=5&labelSelector=a%3Db%26c HTTP/1.1");
    lines.sort();
    let expected = [
        "accept: application/json".to_owned(),
        "authorization: Bearer gateway-token".to_owned(),
        format!("host: {}", set.stub.address),
        "impersonate-extra-ringfence.dev%2fidentity: https://login.example.com#dev@red".to_owned(),
        "impersonate-group: tenant:red".to_owned(),
        "impersonate-user: tenant:red".to_owned(),
        "user-agent: kubectl".to_owned(),
    ];
    assert_eq!(lines, expected);
}

/// exec over WebSocket and SPDY: the connection becomes a tunnel, and only then.
#[test]
fn sessions_are_tunnels() {
    let set = Set::new(|head, stream| {
        let protocol = if head.to_lowercase().contains("upgrade: spdy/3.1") { "SPDY/3.1" } else { "websocket" };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nX: y\r\n\r\nhello"
        );
        stream.write_all(answer.as_bytes()).unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
        false
    });
    for (method, protocol) in [("GET", "websocket"), ("POST", "SPDY/3.1"), ("GET", "SPDY/3.1")] {
        let mut stream = set.gate.connect(None);
        let head = format!(
            "{method} /tenants/green/api/v1/namespaces/t-green/pods/web/exec?command=sh&command=-c&stdin=true HTTP/1.1\r\nHost: x\r\n\
             Authorization: {}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
            bearer("green")
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"hello") {
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        let seen = String::from_utf8(seen).unwrap().to_lowercase();
        assert!(seen.starts_with("http/1.1 101") && !seen.contains("x: y"), "{seen}");
        stream.write_all(b"ping").unwrap();
        let mut pong = [0; 4];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"ping");
        let head = set.stub.last();
        assert!(
            head.starts_with(&format!(
                "{method} /api/v1/namespaces/t-green/pods/web/exec?command=sh&command=-c&stdin=true "
            )),
            "{head}"
        );
        assert!(head.to_lowercase().contains("connection: upgrade\r\n"), "{head}");
    }
    set.gate.logged("the end of a session", |line| line["verdict"] == "ended" && line["resource"] == "pods/exec");
    let forms = [
        ("red", "exec", "", 403),
        ("green", "exec", "", 400),
        ("green", "proxy", "Connection: Upgrade\r\nUpgrade: websocket\r\n", 403),
        (
            "green",
            "exec",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.eHh4\r\n",
            400,
        ),
    ];
    for (tenant, subresource, upgrade, status) in forms {
        let path = format!("/tenants/{tenant}/api/v1/namespaces/t-{tenant}/pods/web/{subresource}");
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n{upgrade}", bearer(tenant));
        let close = if upgrade.is_empty() { "Connection: close\r\n\r\n" } else { "\r\n" };
        let mut stream = set.gate.connect(None);
        stream.write_all(format!("{head}{close}").as_bytes()).unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(String::from_utf8_lossy(&line), format!("HTTP/1.1 {status}"), "{subresource} {upgrade}");
    }
}

#[test]
fn a_reload_drops_no_watch_but_those_of_tenants_that_lost_access() {
    let set = Set::new(endless);
    let (mut red, mut blue) = (watch(&set.gate, "red"), watch(&set.gate, "blue"));
    let text = fs::read_to_string(&set.spec).unwrap();
    fs::write(&set.spec, text.replace("value: blue-developers", "value: other-developers")).unwrap();
    let mut rest = Vec::new();
    // Its watch ends, and it can't begin another one.
    let _ = blue.read_to_end(&mut rest);
    let again = || set.gate.dev("GET", "blue", "/api/v1/namespaces/t-blue/pods", None).status;
    assert_eq!(again(), 403);
    // A new certificate is used for new connections, while the watch goes on.
    let authority = super::fixture::Authority::new();
    let [certificate, key] = authority
        .issue(vec![rcgen::SanType::IpAddress([127, 0, 0, 1].into())], rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    fs::write(set.gate.dir.path().join("tls.crt"), certificate).unwrap();
    fs::write(set.gate.dir.path().join("tls.key"), key).unwrap();
    until("the new certificate", || {
        let raw = set.gate.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        (raw.status == 0).then_some(())
    });
    // A spec that can't be used changes nothing.
    fs::write(&set.spec, "nonsense").unwrap();
    until("the failure is counted", || set.gate.status("/metrics").1.contains("reload_failures_total 1").then_some(()));
    red.sock.set_nonblocking(true).unwrap();
    let end = loop {
        match red.read(&mut [0; 16]) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(e) => break Some(e.kind()),
        }
    };
    assert_eq!(end, Some(std::io::ErrorKind::WouldBlock), "the watch of red is open");
}

#[test]
fn a_stop_ends_watches_and_answers_running_requests() {
    let mut set =
        Set::new(|head, stream| if head.contains("watch=1") { endless(head, stream) } else { empty(head, stream) });
    let mut stream = watch(&set.gate, "red");
    assert_eq!(set.gate.status("/readyz").0, 200);
    assert!(set.gate.stop().success());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    // The last chunk, so that the client knows that the answer is whole.
    assert!(rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
}

#[test]
fn an_api_server_that_fails_is_named() {
    let set = Set::new(|head, stream| match head {
        _ if head.contains("/pods/slow") => stream.read(&mut [0; 1]).is_ok(),
        _ if head.contains("/pods/foreign") => respond(
            stream,
            "403 Forbidden",
            r#"{"message":"users \"tenant:red\" is forbidden: User \"gateway\" cannot impersonate resource \"users\""}"#,
        ),
        _ if head.contains("/pods/expired") => respond(stream, "401 Unauthorized", "{}"),
        _ => false,
    });
    for (pod, status) in [("slow", 504), ("foreign", 503), ("expired", 503), ("gone", 503)] {
        // Each way to the API server: a read, a write, and a write that is read and tried first.
        for (method, body) in [("GET", None), ("DELETE", None), ("PUT", Some(json!({})))] {
            let answer = set.gate.dev(method, "red", &format!("/api/v1/namespaces/t-red/pods/{pod}"), body.as_ref());
            assert_eq!(answer.status, status, "{method} {pod}: {}", answer.message());
            assert!(!answer.message().contains("gateway\""), "{}", answer.message());
            let last = set.gate.audit().pop().unwrap();
            assert_eq!(last["verdict"], "failed", "{method} {pod}: {last}");
        }
    }
}
