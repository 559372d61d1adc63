//! Attacks on the gateway, one test each. Each is refused, is in the audit log, and leaves the gateway alive.
//!
//! The names in brackets are flaws of other gateways.

use std::io::{Read, Write};

use serde_json::{Value, json};

use super::fixture::{AUDIENCE, GATE, Gate, ISSUER, Raw, answer, developer, now, request, signed, token};
use crate::cluster::baseline::POOL;
use crate::support::kubernetes::{Answer, until};

const PODS: &str = "/api/v1/namespaces/t-red/pods";

fn whoami() -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
}

/// The user that the API server sees behind a request with these headers.
fn seen(headers: &[(&str, &str)]) -> Value {
    let token = format!("Bearer {}", developer("red"));
    let mut all = vec![("Authorization", token.as_str())];
    all.extend(headers);
    let body = whoami().to_string();
    let path = "/tenants/red/apis/authentication.k8s.io/v1/selfsubjectreviews";
    GATE.call_with("POST", path, &all, Some(("application/json", &body))).ok()["status"]["userInfo"].clone()
}

fn is_red(user: &Value) {
    assert_eq!(user["username"], "tenant:red");
    assert_eq!(user["groups"], json!(["tenant:red", "system:authenticated"]));
    assert_eq!(user["extra"], json!({"ringfence.dev/identity": [format!("{ISSUER}#dev@red")]}));
    assert_eq!(user["uid"], Value::Null);
}

/// No credential, an empty one, a wrong one, one of somebody else [CVE-2023-48312].
#[test]
fn without_a_valid_credential_nothing_goes_on() {
    let all = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": now() + 60, "groups": ["red-developers"]});
    let (good, header) = (developer("red"), json!({"alg": "ES256", "typ": "JWT", "kid": "one"}));
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        signed(&header, &all)
    };
    let mut broken = good.clone();
    broken.truncate(broken.len() - 4);
    let none = with("alg", "none".into());
    let unsigned = none.rsplit_once('.').unwrap().0.to_owned() + ".";
    for (what, header) in [
        ("no token", vec![]),
        ("an empty token", vec!["Bearer ".to_owned()]),
        ("only the scheme", vec!["Bearer".to_owned()]),
        ("another scheme", vec![format!("Basic {good}")]),
        ("not a token", vec!["Bearer x".to_owned()]),
        ("two tokens", vec![format!("Bearer {good}"), format!("Bearer {good}")]),
        ("a list of tokens", vec![format!("Bearer {good}, Bearer {good}")]),
        ("a broken signature", vec![format!("Bearer {broken}")]),
        ("no signature", vec![format!("Bearer {unsigned}")]),
        ("the algorithm none", vec![format!("Bearer {none}")]),
        ("a symmetric algorithm", vec![format!("Bearer {}", with("alg", "HS256".into()))]),
        ("an unknown key", vec![format!("Bearer {}", with("kid", "../../etc/passwd".into()))]),
        ("a key in the header", vec![format!("Bearer {}", with("jwk", json!({"kty": "oct", "k": "AA"})))]),
        ("a key's address", vec![format!("Bearer {}", with("jku", "https://evil.example/keys".into()))]),
        (
            "an expired token",
            vec![format!("Bearer {}", token(json!({"groups": ["red-developers"], "exp": now() - 3600})))],
        ),
        (
            "a token for later",
            vec![format!("Bearer {}", token(json!({"groups": ["red-developers"], "nbf": now() + 3600})))],
        ),
        ("another audience", vec![format!("Bearer {}", token(json!({"groups": ["red-developers"], "aud": "shop"})))]),
        ("no audience", vec![format!("Bearer {}", token(json!({"groups": ["red-developers"], "aud": null})))]),
        (
            "another issuer",
            vec![format!("Bearer {}", token(json!({"groups": ["red-developers"], "iss": "https://evil.example"})))],
        ),
        ("a token of the API server", vec!["Bearer gateway-token".to_owned()]),
        ("an AWS token where none is accepted", vec!["Bearer k8s-aws-v1.aHR0cHM".to_owned()]),
    ] {
        let headers: Vec<(&str, &str)> = header.iter().map(|value| ("Authorization", value.as_str())).collect();
        let answer = GATE.call_with("GET", &format!("/tenants/red{PODS}"), &headers, None);
        assert_eq!((answer.status, answer.message()), (401, "Unauthorized"), "{what}");
    }
    let log = GATE.audit();
    let line = log.iter().find(|line| line["verdict"] == "unauthenticated").unwrap();
    assert!(line["rule"].is_string() && line["identity"].is_null(), "{line}");
    assert!(!std::fs::read_to_string(GATE.dir.path().join("audit.log")).unwrap().contains(&good[..40]));
}

/// A certificate of an authority that isn't the gateway's, and those that are.
#[test]
fn certificates_are_identities_of_one_tenant() {
    let call = |certificate: &[String; 2], tenant: &str| {
        let mut stream = GATE.connect(Some(certificate));
        let path = format!("/tenants/{tenant}/api/v1/namespaces/t-{tenant}/pods");
        let _ = stream.write_all(request("GET", &path, &[], None).as_bytes());
        answer(&mut stream).status
    };
    let red = GATE.authority.client("spiffe://red.example/ci");
    assert_eq!(call(&red, "red"), 200);
    assert_eq!(call(&red, "blue"), 403);
    assert_eq!(call(&GATE.authority.client("spiffe://red.example/ci/"), "red"), 403);
    let server = GATE.authority.issue(
        vec![rcgen::SanType::URI("spiffe://red.example/ci".try_into().unwrap())],
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
    );
    assert_ne!(call(&server, "red"), 200);
    let foreign = super::fixture::Authority::new();
    assert_eq!(call(&foreign.client("spiffe://red.example/ci"), "red"), 0);
    // A wrong token isn't made good by a certificate.
    let mut stream = GATE.connect(Some(&red));
    let headers = [("Authorization", "Bearer x")];
    stream.write_all(request("GET", &format!("/tenants/red{PODS}"), &headers, None).as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).status, 401);
}

/// The client's own identity headers [Rancher CVE-2021-31999, CVE-2021-36776, bored-agent GHSA-r5c2-7hp9-v678, RHACM
/// CVE-2026-17107, kcp CVE-2026-61682].
#[test]
fn identity_headers_of_clients_are_dropped() {
    is_red(&seen(&[]));
    is_red(&seen(&[
        ("Impersonate-User", "admin"),
        ("Impersonate-Group", "system:masters"),
        ("Impersonate-Uid", "1"),
        ("Impersonate-Extra-Scopes", "all"),
        ("Impersonate-Extra-Ringfence.dev%2fIdentity", "ceo"),
        ("X-Remote-User", "admin"),
        ("X-Remote-Group", "system:masters"),
        ("X-Remote-Extra-Scopes", "all"),
        ("X-Forwarded-User", "admin"),
        ("Proxy-Authorization", "Bearer admin"),
        ("Cookie", "token=admin"),
    ]));
}

/// Headers that a hop would drop because the client names them [capsule-proxy PR #189].
#[test]
fn our_identity_headers_cannot_be_dropped_by_a_hop() {
    for named in ["Impersonate-User", "close, Impersonate-Group, Impersonate-User", "Authorization"] {
        let token = format!("Bearer {}", developer("red"));
        let body = whoami().to_string();
        let text = format!(
            "POST /tenants/red/apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: x\r\n\
             Authorization: {token}\r\nConnection: {named}, close\r\nKeep-Alive: x\r\nTE: trailers\r\nTrailer: Impersonate-User\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let raw = GATE.raw(text.as_bytes());
        let review: Value = serde_json::from_slice(&raw.body).unwrap_or_default();
        is_red(&review["status"]["userInfo"]);
    }
}

/// About 1,000 groups of a caller, and 40,000 [kube-oidc-proxy fork, PR #118; capsule-proxy PR #1069].
#[test]
fn a_callers_groups_cost_nothing_behind_the_gateway() {
    let groups: Vec<String> = (0..1000).map(|i| format!("g{i}")).chain(["red-developers".to_owned()]).collect();
    let many = token(json!({"sub": "dev@red", "groups": groups}));
    let answer = GATE.call(
        "POST",
        "red",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        &many,
        Some(("application/json", &whoami().to_string())),
    );
    is_red(&answer.ok()["status"]["userInfo"]);
    let groups: Vec<String> = (0..40_000).map(|i| format!("g{i}")).collect();
    let refused = GATE.call("GET", "red", PODS, &token(json!({"groups": groups})), None).status;
    assert!(matches!(refused, 0 | 400 | 401 | 431), "{refused}");
}

/// A tenant that isn't one's own looks like one that doesn't exist.
#[test]
fn other_tenants_look_like_none() {
    let other = GATE.call("GET", "blue", "/api/v1/namespaces/t-blue/pods", &developer("red"), None);
    let absent = GATE.call("GET", "nobody", "/api/v1/namespaces/t-nobody/pods", &developer("red"), None);
    assert_eq!((other.status, other.message()), (403, absent.message()));
    // The same name of a group, said by a member of another tenant.
    let both = token(json!({"sub": "x", "groups": "red-developers "}));
    assert_eq!(GATE.call("GET", "red", PODS, &both, None).status, 403);
    for namespace in ["t-blue", "kube-system", "nowhere", "default"] {
        for path in ["pods", "secrets", "secrets/x", "configmaps/x", "pods/x/log"] {
            let path = format!("/api/v1/namespaces/{namespace}/{path}");
            let answer = GATE.dev("GET", "red", &path, None);
            assert_eq!(answer.status, 403, "{path}");
            assert!(answer.message().contains(&format!("in the namespace \"{namespace}\"")), "{}", answer.message());
        }
        let answer = GATE.dev("GET", "red", &format!("/api/v1/namespaces/{namespace}"), None);
        assert_eq!(answer.status, 403);
    }
}

/// Paths with a second meaning [Kyverno CVE-2026-122311].
#[test]
fn path_tricks_are_refused() {
    let before =
        POOL.plane.admin().get("/api/v1/namespaces/t-blue/configmaps").ok()["metadata"]["resourceVersion"].clone();
    let token = developer("red");
    for path in [
        "/tenants/red//api/v1/namespaces/t-blue/pods",
        "/tenants/red/api/v1//namespaces/t-blue/pods",
        "/tenants/red/api/v1/namespaces/t-red/../t-blue/pods",
        "/tenants/red/api/v1/namespaces/t-red/..%2ft-blue/pods",
        "/tenants/red/api/v1/namespaces/t-red/%2e%2e/t-blue/pods",
        "/tenants/red/api/v1/namespaces/t-red%2f..%2ft-blue/pods",
        "/tenants/red/../blue/api/v1/namespaces/t-blue/pods",
        "/tenants/red/%2e%2e/blue/api/v1/namespaces/t-blue/pods",
        "/tenants/RED/api/v1/namespaces/t-red/pods",
        "/tenants/red./api/v1/namespaces/t-red/pods",
        "/Tenants/red/api/v1/pods",
        "/tenants/red/API/v1/namespaces/t-red/pods",
        "/tenants/red/api/v1/NAMESPACES/t-red/pods",
        "/tenants/red/api/v1/namespaces/T-RED/pods",
        "/tenants/red/api/v1/namespaces/t-red/pods/",
        "/tenants/red/api/v1/namespaces/t-red/pods/x/",
        "/tenants/red/api/v1/namespaces/t-red./pods",
        "/tenants/red/api/v1/namespaces/t-red/pods/x;a=b",
        "/tenants/red/api/v1/namespaces/t-red\\pods",
        "/tenants/red/api/v1/watch/namespaces/t-blue/pods",
        "/tenants/red/api/v1/proxy/nodes/x",
        "/tenants/red/api/v1/namespaces/t-red/services/x:80/proxy/",
        "/tenants/red/api/v1/namespaces/t-red/namespaces/t-blue",
        "/tenants/red/metrics",
        "/tenants/red/logs/",
        "/tenants/red/.well-known/openid-configuration",
        "/tenants/red/debug/pprof/",
        "/tenants//api",
        "/tenants",
        "/",
        "/api",
        "/api/v1/namespaces/t-red/pods",
        "//tenants/red/api",
        "/tenants/red/api/v1/namespaces/t-red/pods?watch=0&watch=1",
        "https://gateway/tenants/red/api/v1/namespaces/t-red/pods",
        "http://kubernetes.default.svc/api/v1/secrets",
        "*",
        "kubernetes.default.svc:443",
    ] {
        let raw = GATE.raw(request("GET", path, &[("Authorization", &format!("Bearer {token}"))], None).as_bytes());
        assert!((400..500).contains(&raw.status), "{path}: {}", raw.status);
    }
    let after =
        POOL.plane.admin().get("/api/v1/namespaces/t-blue/configmaps").ok()["metadata"]["resourceVersion"].clone();
    assert!(before.is_string() && after.is_string());
    assert!(
        !GATE
            .audit()
            .iter()
            .any(|line| line["verdict"] == "allowed" && line["namespace"] == "t-blue" && line["tenant"] == "red")
    );
}

/// Requests that only RBAC refuses: the gateway refuses them before, and writes so.
#[test]
fn what_the_role_does_not_allow_never_reaches_the_api_server() {
    for (method, path) in [
        ("GET", "/api/v1/nodes"),
        ("GET", "/api/v1/nodes/x/proxy/pods"),
        ("POST", "/api/v1/namespaces"),
        ("DELETE", "/api/v1/namespaces/t-red"),
        ("PUT", "/api/v1/namespaces/t-red/finalize"),
        ("PATCH", "/api/v1/namespaces/t-red/status"),
        ("PATCH", "/api/v1/namespaces/t-red"),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
        ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/t-red/rolebindings"),
        ("DELETE", "/api/v1/namespaces/t-red/pods"),
        ("DELETE", "/api/v1/pods"),
        ("GET", "/api/v1/namespaces/t-red/secrets"),
        ("GET", "/api/v1/secrets"),
        ("POST", "/api/v1/namespaces/t-red/serviceaccounts/default/token"),
        ("POST", "/api/v1/namespaces/t-red/pods/x/binding"),
        ("POST", "/api/v1/namespaces/t-red/pods/x/eviction"),
        ("POST", "/api/v1/namespaces/t-red/pods/x/exec?command=sh"),
        ("GET", "/api/v1/namespaces/t-red/pods/x/exec?command=sh"),
        ("GET", "/api/v1/namespaces/t-red/pods/x/attach"),
        ("PATCH", "/api/v1/namespaces/t-red/pods/x/ephemeralcontainers"),
        ("PATCH", "/api/v1/namespaces/t-red/pods/x/status"),
        ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
        ("POST", "/apis/authorization.k8s.io/v1/namespaces/t-blue/localsubjectaccessreviews"),
        ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests"),
        ("GET", "/apis/metrics.k8s.io/v1beta1/nodes"),
    ] {
        let answer = GATE.dev(method, "red", path, Some(&json!({"kind": "X", "apiVersion": "v1"})));
        assert!(matches!(answer.status, 403 | 404), "{method} {path}: {} {}", answer.status, answer.message());
        let path = path.split('?').next().unwrap();
        let last = GATE.audit().into_iter().rev().find(|line| line["tenant"] == "red" && line["verdict"] != "allowed");
        assert!(last.is_some_and(|line| line["verdict"] != "allowed"), "{path}");
    }
}

/// Selectors, continue tokens and versions that lead to another namespace.
#[test]
fn selectors_and_versions_stay_in_the_namespace() {
    let admin = POOL.plane.admin();
    for namespace in ["t-blue", "t-red"] {
        for name in ["a", "b", "c"] {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("page-{name}"), "namespace": namespace}});
            let made = admin.create(&map).status;
            assert!(matches!(made, 201 | 409), "{made}");
        }
    }
    let own = |path: &str| {
        let answer = GATE.dev("GET", "red", path, None);
        let items = answer.body["items"].as_array().cloned().unwrap_or_default();
        assert!(items.iter().all(|item| item["metadata"]["namespace"] == "t-red"), "{path}: {}", answer.body);
        (answer.status, items.len())
    };
    assert_eq!(own("/api/v1/configmaps?fieldSelector=metadata.namespace%3Dt-blue"), (200, 0));
    assert!(own("/api/v1/configmaps?fieldSelector=metadata.namespace%3Dt-red").1 >= 3);
    assert!(own("/api/v1/configmaps?fieldSelector=metadata.namespace!%3Dt-red").1 == 0);
    assert!(own("/api/v1/configmaps?resourceVersion=0").1 >= 3);
    let page = admin.get("/api/v1/namespaces/t-blue/configmaps?limit=1").ok()["metadata"]["continue"]
        .as_str()
        .unwrap()
        .to_owned();
    own(&format!("/api/v1/configmaps?limit=10&continue={page}"));
    let page = admin.get("/api/v1/configmaps?limit=1").ok()["metadata"]["continue"].as_str().unwrap().to_owned();
    own(&format!("/api/v1/namespaces/t-red/configmaps?limit=1000&continue={page}"));
    let names = GATE.dev("GET", "red", "/api/v1/namespaces", None).ok();
    assert_eq!(names["items"].as_array().map(Vec::len), Some(1), "{names}");
    assert_eq!(names["items"][0]["metadata"]["name"], "t-red");
    for selector in ["fieldSelector=metadata.name%3Dt-blue", "labelSelector=a"] {
        assert_eq!(GATE.dev("GET", "red", &format!("/api/v1/namespaces?{selector}"), None).status, 400);
    }
}

/// Requests that two servers could read differently.
#[test]
fn smuggled_requests_are_never_answered() {
    let token = developer("red");
    let second = format!(
        "GET /tenants/red/api/v1/namespaces/t-red/configmaps/smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let head = format!(
        "POST /tenants/red/api/v1/namespaces/t-red/configmaps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    );
    for (what, rest) in [
        ("two lengths", format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}")),
        ("two different lengths", format!("Content-Length: 0\r\nContent-Length: 5\r\n\r\n{second}")),
        ("a length with a sign", format!("Content-Length: +0\r\n\r\n{second}")),
        ("a hidden encoding", format!("Transfer-Encoding: xchunked\r\n\r\n{second}")),
        ("a folded line", format!("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{second}")),
        ("a space before the colon", format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{second}")),
        (
            "an encoding twice",
            format!(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\n0\r\n\r\n{second}"
            ),
        ),
        ("an odd chunk size", format!("Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{second}")),
        ("a chunk size that overflows", format!("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n\r\n{second}")),
        ("a zero byte", format!("X: a\0b\r\nContent-Length: 0\r\n\r\n{second}")),
    ] {
        let raw = GATE.raw(format!("{head}{rest}").as_bytes());
        assert!(raw.status >= 400, "{what}: {raw:?}");
        let text = String::from_utf8_lossy(&raw.body);
        assert!(!text.contains("HTTP/1.1 "), "{what}: {text}");
    }
    assert!(!GATE.audit().iter().any(|line| line["name"] == "smuggled"));
    assert_eq!(GATE.dev("GET", "red", PODS, None).status, 200);
}

/// A refused upgrade, and then another request on its connection [Kubernetes CVE-2018-1002105].
#[test]
fn after_a_refused_upgrade_the_connection_is_not_a_tunnel() {
    let token = developer("green");
    // The Pod doesn't exist, so the API server refuses the upgrade.
    let upgrade = format!(
        "GET /tenants/green/api/v1/namespaces/t-green/pods/none/exec?command=sh HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    let second = "GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let raw = GATE.raw(format!("{upgrade}{second}").as_bytes());
    assert_eq!(raw.status, 404, "{raw:?}");
    let text = String::from_utf8_lossy(&raw.body);
    assert!(text.contains("HTTP/1.1 401"), "{text}");
    // A tenant whose tier has no sessions is refused before.
    let raw = GATE.raw(
        upgrade
            .replace("green", "red")
            .replace(&token, &developer("red"))
            .replace("Connection: Upgrade", "Connection: Upgrade, close")
            .as_bytes(),
    );
    assert_eq!(raw.status, 403);
}

/// Bodies that aren't read by everybody in the same way, or by nobody in time.
#[test]
fn odd_bodies_are_refused() {
    let path = "/api/v1/namespaces/t-red/configmaps";
    let post = |media: &str, body: &str| GATE.call("POST", "red", path, &developer("red"), Some((media, body)));
    let deep = |levels: usize| {
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"x\":{}1{}}}", "[".repeat(levels), "]".repeat(levels))
    };
    let level = |i: i32| format!("b{}: &b{} [{}]\n", i + 1, i + 1, vec![format!("*b{i}"); 10].join(","));
    let bomb = format!("b0: &b0 [x]\n{}", (0..12).map(level).collect::<String>());
    for (media, body, status) in [
        ("application/json", "{", 400),
        ("application/json", "[]", 400),
        ("application/json", "null", 400),
        ("application/json", &deep(100), 400),
        ("application/json", &deep(100_000), 400),
        ("application/json", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","name":"b"}}"#, 400),
        (
            "application/json",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"t-blue"}}"#,
            400,
        ),
        ("application/json", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#, 400),
        ("application/json", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}"#, 400),
        ("application/yaml", "a: 1\na: 2\n", 400),
        ("application/yaml", &bomb, 400),
        ("application/yaml", "a: 1\n---\nb: 1\n", 400),
        ("text/plain", "{}", 415),
        ("application/cbor", "\u{a0}", 415),
        ("application/json; charset=utf-16", "{}", 415),
        ("application/merge-patch+json", "{}", 400),
    ] {
        let answer = post(media, body);
        assert_eq!(answer.status, status, "{media} {body:.80}: {}", answer.message());
    }
    let large =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "x".repeat(4 << 20)}});
    assert!(matches!(post("application/json", &large.to_string()).status, 413 | 0));
    let patch = GATE.call("PATCH", "red", &format!("{path}/x"), &developer("red"), Some(("application/json", "{}")));
    assert_eq!(patch.status, 415);
    assert_eq!(GATE.dev("GET", "red", PODS, None).status, 200);
}

/// A client that sends its headers or its body byte by byte.
#[test]
fn slow_clients_are_cut_off() {
    let gate = Gate::before(&POOL, json!({"limits": {"headerSeconds": 1, "bodySeconds": 1}}));
    let mut slow = gate.connect(None);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: ").unwrap();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.is_empty() || String::from_utf8_lossy(&rest).contains("408"), "{rest:?}");
    let head = format!(
        "POST /tenants/red/api/v1/namespaces/t-red/configmaps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        developer("red")
    );
    assert_eq!(gate.raw(head.as_bytes()).status, 408);
    gate.logged("the slow body", |line| line["status"] == 408);
    assert_eq!(gate.dev("GET", "red", PODS, None).status, 200);
}

/// Limits of one tenant: the others don't feel them.
#[test]
fn a_flood_is_refused_and_hurts_nobody_else() {
    let gate = Gate::before(
        &POOL,
        json!({"limits": {"requestsPerSecond": 1, "burst": 5, "streams": 2, "streamSeconds": 600}}),
    );
    let watch = |tenant: &str| {
        let mut stream = gate.connect(None);
        let path = format!("/tenants/{tenant}/api/v1/namespaces/t-{tenant}/configmaps?watch=1");
        stream
            .write_all(
                request("GET", &path, &[("Authorization", &format!("Bearer {}", developer(tenant)))], None).as_bytes(),
            )
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        (stream, String::from_utf8_lossy(&first).into_owned())
    };
    let (one, first) = watch("red");
    let (two, second) = watch("red");
    let (_three, third) = watch("red");
    assert_eq!([first.as_str(), &second, &third], ["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 429"]);
    let codes: Vec<u16> = (0..8).map(|_| gate.dev("GET", "red", PODS, None).status).collect();
    assert!(codes.contains(&200) && codes.contains(&429), "{codes:?}");
    assert_eq!(gate.dev("GET", "blue", "/api/v1/namespaces/t-blue/pods", None).status, 200);
    gate.logged("the limit", |line| {
        line["verdict"] == "limited" && line["tenant"] == "red" && line["rule"].is_string()
    });
    let (_, metrics) = gate.status("/metrics");
    assert!(metrics.contains("ringfence_gateway_streams{tenant=\"red\"} 2"), "{metrics}");
    drop((one, two));
    until("the streams end", || {
        gate.status("/metrics").1.contains("ringfence_gateway_streams{tenant=\"red\"} 0").then_some(())
    });
    gate.logged("the end of a watch", |line| line["verdict"] == "ended" && line["verb"] == "watch");
}

/// Tricks with the name of the field manager.
#[test]
fn field_managers_cannot_pose_as_ringfence() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "posed"}});
    for manager in ["ringfence", "Ringfence", "ringfence-gateway"] {
        let path = format!("/api/v1/namespaces/t-red/configmaps?fieldManager={manager}");
        assert_eq!(GATE.dev("POST", "red", &path, Some(&map)).status, 400, "{manager}");
    }
}

/// Patches, applies and replacements that would undo what the gateway and the policies wrote.
#[test]
fn decorations_cannot_be_undone() {
    let image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/web:1";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "decorated"},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}}});
    let collection = "/apis/apps/v1/namespaces/t-red/deployments";
    GATE.dev("POST", "red", collection, Some(&deployment)).ok();
    let path = format!("{collection}/decorated");
    let live = GATE.dev("GET", "red", &path, None).ok();
    let hostile = json!({"spec": {"template": {"spec": {"hostNetwork": true}}}});
    let elsewhere = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "evil.example/x"}]}}}});
    let label = json!({"metadata": {"labels": {"ringfence.dev/tenant": "blue"}}});
    let patch = |media: &str, body: &Value| {
        let force = if media.contains("apply") { "&force=true" } else { "" };
        GATE.call(
            "PATCH",
            "red",
            &format!("{path}?fieldManager=x{force}"),
            &developer("red"),
            Some((media, &body.to_string())),
        )
    };
    // A wrong label is written again.
    let stamped = |answer: &Answer, body: &Value| {
        answer.is_ok() && body == &label && answer.body["metadata"]["labels"]["ringfence.dev/tenant"] == "red"
    };
    for body in [&hostile, &elsewhere, &label] {
        let query = |media: &str| patch(media, body);
        for media in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
            let answer = query(media);
            assert!(
                answer.status == 422 || stamped(&answer, body),
                "{media} {body}: {} {}",
                answer.status,
                answer.message()
            );
        }
        let mut whole = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "decorated"}});
        whole = crate::support::kubernetes::merged(whole, body);
        let answer = patch("application/apply-patch+yaml", &whole);
        assert!(answer.status == 422 || stamped(&answer, body), "apply {body}: {} {}", answer.status, answer.message());
        let put = crate::support::kubernetes::merged(live.clone(), body);
        let answer = GATE.dev("PUT", "red", &path, Some(&put));
        // With the right label, the object is one of an old version.
        assert!(answer.status == 422 || (answer.status == 409 && body == &label), "put {body}: {}", answer.status);
    }
    for operations in [
        json!([{"op": "add", "path": "/spec/template/spec/hostNetwork", "value": true}]),
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil.example/x"}]),
        json!([{"op": "replace", "path": "/metadata/labels/ringfence.dev~1tenant", "value": "blue"}]),
    ] {
        let answer = patch("application/json-patch+json", &operations);
        assert!(
            answer.status == 422 || stamped(&answer, &label),
            "{operations}: {} {}",
            answer.status,
            answer.message()
        );
    }
    // What was written can be taken away, and is written again.
    let removed = json!([{"op": "remove", "path": "/metadata/labels/ringfence.dev~1tenant"}]);
    assert_eq!(
        patch("application/json-patch+json", &removed).ok()["metadata"]["labels"]["ringfence.dev/tenant"],
        "red"
    );
    for body in [&hostile, &elsewhere] {
        let mut new = crate::support::kubernetes::merged(deployment.clone(), body);
        new["metadata"] = json!({"generateName": "hostile-"});
        assert_eq!(GATE.dev("POST", "red", &format!("{collection}?dryRun=All"), Some(&new)).status, 422);
    }
    let denied = GATE.logged("a denial", |line| line["verdict"] == "denied" && line["rule"].is_string());
    assert_eq!(denied["tenant"], "red");
    // A good change of each kind passes.
    assert_eq!(patch("application/merge-patch+json", &json!({"spec": {"replicas": 3}})).ok()["spec"]["replicas"], 3);
    assert_eq!(
        patch("application/strategic-merge-patch+json", &json!({"spec": {"replicas": 4}})).ok()["spec"]["replicas"],
        4
    );
    assert_eq!(
        patch("application/json-patch+json", &json!([{"op": "replace", "path": "/spec/replicas", "value": 5}])).ok()["spec"]
            ["replicas"],
        5
    );
    // A controller may write the status between the two requests.
    let (old, new) = until("a version that nobody else replaces", || {
        let mut put = GATE.dev("GET", "red", &path, None).ok();
        put["spec"]["replicas"] = 6.into();
        let answer = GATE.dev("PUT", "red", &path, Some(&put));
        (answer.status != 409).then(|| (put, answer.ok()))
    });
    assert_eq!(new["spec"]["replicas"], 6);
    assert_eq!(GATE.dev("PUT", "red", &path, Some(&old)).status, 409);
    GATE.dev("DELETE", "red", &path, None).ok();
}

/// Identities and headers over HTTP/2.
#[test]
fn http2_has_no_way_around() {
    let call = |path: &str, headers: &[(&str, &str)]| super::http2::call(&GATE, path, headers);
    let token = format!("Bearer {}", developer("red"));
    assert_eq!(call("/tenants/red/api/v1/namespaces/t-red/pods", &[("authorization", &token)]), 200);
    assert_eq!(
        call("/tenants/red/api/v1/namespaces/t-red/pods", &[("authorization", &token), ("impersonate-user", "admin")]),
        200
    );
    assert_eq!(call("/tenants/blue/api/v1/namespaces/t-blue/pods", &[("authorization", &token)]), 403);
    assert_eq!(call("/tenants/red/api/v1/namespaces/t-red/../t-blue/pods", &[("authorization", &token)]), 404);
    assert_eq!(call("/tenants/red/api/v1/namespaces/t-red/pods", &[]), 401);
}

#[test]
fn the_status_port_tells_health_and_figures() {
    assert_eq!(GATE.status("/livez").0, 200);
    assert_eq!(GATE.status("/readyz").0, 200);
    assert_eq!(GATE.status("/tenants/red/api").0, 404);
    GATE.dev("GET", "red", PODS, None).ok();
    let (_, text) = GATE.status("/metrics");
    assert!(text.contains("ringfence_gateway_requests_total{tenant=\"red\""), "{text}");
    let Raw { head, .. } = GATE.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(head.to_lowercase().contains("www-authenticate: bearer"), "{head}");
}
