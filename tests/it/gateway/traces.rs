//! What a collector gets of a gateway's requests, by OTLP.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::json;

use super::fixture::{Gate, Raw, developer, request};
use super::stub::{Stub, respond};
use crate::cluster::baseline::POOL;
use crate::support::kubernetes::until;

/// Takes what exporters send.
struct Collector {
    stub: Stub,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start(status: &'static str) -> Self {
        let bodies = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let kept = bodies.clone();
        let stub = Stub::start(move |head, stream| {
            kept.lock().unwrap().push(body(head, stream));
            respond(stream, status, "")
        });
        Self { stub, bodies }
    }

    fn url(&self) -> String {
        format!("{}/v1/traces", self.stub.url())
    }

    fn exported(&self) -> Vec<ExportTraceServiceRequest> {
        self.bodies.lock().unwrap().iter().map(|body| Message::decode(body.as_slice()).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.exported().into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Waits for the span of a request, and gives it with the spans below it, by name.
    fn request(&self, name: &str) -> (Span, BTreeMap<String, Span>) {
        let root = until(name, || self.spans().into_iter().find(|span| span.name == name));
        let below = self.spans().into_iter().filter(|span| span.trace_id == root.trace_id && span.name != name);
        let below = below.map(|span| (span.name.clone(), span)).collect();
        (root, below)
    }
}

fn body(head: &str, stream: &mut TcpStream) -> Vec<u8> {
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    body
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn values(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |attribute: &KeyValue| match attribute.value.clone().and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.as_str(), text(attribute))).collect()
}

/// In front of an API server that answers each request, with its own body if it has one.
fn traced(endpoint: &str) -> (Stub, Gate) {
    let stub = Stub::start(|head, stream| {
        let body = String::from_utf8(body(head, stream)).unwrap();
        let status = if head.contains("/broken") { "500 Internal Server Error" } else { "200 OK" };
        respond(stream, status, if body.is_empty() { "{}" } else { &body })
    });
    let gate = Gate::start(&stub.url(), None, &POOL.spec(), json!({"traces": {"endpoint": endpoint}}));
    (stub, gate)
}

fn ask(gate: &Gate, method: &str, path: &str, more: &[(&str, &str)], body: Option<&str>) -> Raw {
    let bearer = format!("Bearer {}", developer("red"));
    let headers: Vec<_> = [("Authorization", bearer.as_str())].into_iter().chain(more.iter().copied()).collect();
    let path = format!("/tenants/red/api/v1/namespaces/t-red/{path}");
    gate.raw(request(method, &path, &headers, body.map(|body| ("application/json", body))).as_bytes())
}

#[test]
fn a_request_is_a_trace_of_its_own() {
    let collector = Collector::start("200 OK");
    let (server, gate) = traced(&collector.url());
    let theirs = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{theirs}-b7ad6b7169203331-01");
    let object =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "stringData": {"a": "hunter2"}});
    let context = [("traceparent", parent.as_str()), ("tracestate", "a=b"), ("baggage", "tenant=gold")];
    let answer = ask(&gate, "POST", "secrets?fieldValidation=Strict", &context, Some(&object.to_string()));
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let sent = server.last().to_lowercase();

    let (root, parts) = collector.request("create secrets");
    assert_eq!(root.kind, SpanKind::Server as i32);
    assert!(root.parent_span_id.is_empty(), "{root:?}");
    assert_ne!(hex(&root.trace_id), theirs);
    assert_eq!(root.links.iter().map(|link| hex(&link.trace_id)).collect::<Vec<_>>(), [theirs]);
    let line = gate.logged("the request", |line| line["resource"] == "secrets");
    assert_eq!(line["trace"], hex(&root.trace_id));
    let found = values(&root.attributes);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("user.name", "https://login.example.com#dev@red"),
        ("ringfence.tenant", "red"),
        ("ringfence.verdict", "allowed"),
        ("ringfence.request", line["id"].as_str().unwrap()),
        ("k8s.namespace.name", "t-red"),
    ] {
        assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}: {found:?}");
    }
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    assert_eq!(names, ["authentication", "examination", "request to the API server"]);
    assert!(parts.values().all(|part| part.parent_span_id == root.span_id), "{parts:#?}");

    // The API server's spans are children of the gateway's request to it.
    let call = &parts["request to the API server"];
    assert_eq!(call.kind, SpanKind::Client as i32);
    let ours = format!("traceparent: 00-{}-{}-01", hex(&root.trace_id), hex(&call.span_id));
    assert!(sent.contains(&ours), "{sent}");
    assert!(!sent.contains("baggage") && !sent.contains("tracestate: a=b"), "{sent}");

    let service = collector.exported()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(values(&service.attributes).get("service.name").map(String::as_str), Some("ringfence-gateway"));
    for body in collector.bodies.lock().unwrap().iter() {
        let text = String::from_utf8_lossy(body);
        let signature = developer("red").rsplit_once('.').unwrap().1.to_owned();
        for secret in ["Bearer", "hunter2", "gateway-token", "fieldValidation", &signature] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[test]
fn refusals_and_failures_are_told_apart() {
    let collector = Collector::start("200 OK");
    let (_server, mut gate) = traced(&collector.url());
    assert_eq!(gate.raw(request("GET", "/tenants/red/api/v1/pods", &[], None).as_bytes()).status, 401);
    assert_eq!(ask(&gate, "GET", "secrets", &[], None).status, 403);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
        "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "nginx"}]}});
    assert_eq!(ask(&gate, "POST", "pods", &[], Some(&pod.to_string())).status, 422);
    assert_eq!(ask(&gate, "GET", "pods/broken", &[], None).status, 500);
    // The last spans are sent before the gateway ends.
    gate.stop();
    assert_eq!(collector.spans().iter().filter(|span| span.parent_span_id.is_empty()).count(), 4);
    let told = |name: &str| {
        let (root, parts) = collector.request(name);
        let verdict = values(&root.attributes)["ringfence.verdict"].clone();
        let failed = root.status.unwrap_or_default().code == 2;
        (verdict, failed, parts.contains_key("request to the API server"))
    };
    assert_eq!(told("request"), ("unauthenticated".to_owned(), false, false));
    assert_eq!(told("list secrets"), ("forbidden".to_owned(), false, false));
    assert_eq!(told("create pods"), ("denied".to_owned(), false, false));
    assert_eq!(told("get pods"), ("allowed".to_owned(), true, true));
}

#[test]
fn a_collector_that_is_not_there_costs_no_request() {
    let refusing = Collector::start("403 Forbidden");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, why) in
        [(refusing.url(), "the collector answers 403"), (format!("http://{closed}/v1/traces"), "can't be delivered")]
    {
        let (_server, mut gate) = traced(&endpoint);
        for _ in 0..3 {
            assert_eq!(ask(&gate, "GET", "pods", &[], None).status, 200);
        }
        let notes = || fs::read_to_string(gate.dir.path().join("stderr")).unwrap_or_default();
        until(why, || notes().contains(why).then_some(()));
        assert_eq!(ask(&gate, "GET", "pods", &[], None).status, 200);
        assert_eq!(notes().matches("traces can't be delivered").count(), 1, "{}", notes());
        gate.stop();
    }
}
