//! The Rego of `ringfence::engines::opa`, in a real OPA.
//!
//! Policies and Namespaces are written as kube-mgmt writes them: a ConfigMap's key at `v1/policies/<namespace>/<name>/<key>`,
//! Namespaces at `v1/data/kubernetes/namespaces` (README and `pkg/configmap`, `pkg/data` of kube-mgmt).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Child;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::Config;
use ringfence::engines::LeftOut;
use ringfence::engines::opa::{left_out, render};
use ringfence::guard::{self, Refusal};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Rows;
use super::corpus::{CLUSTERS, Case, Cluster, review};
use crate::support::kubernetes::{RUNTIME, free_ports, spawned, until};

/// A running OPA.
pub struct Opa {
    client: kube::Client,
    dir: TempDir,
    child: Child,
}

impl Opa {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [port] = free_ports();
        let flags = ["run", "--server", "--disable-telemetry", "--addr", &format!("127.0.0.1:{port}")];
        let child = spawned(dir.path(), "opa", &flags.map(str::to_owned));
        let config = Config::new(format!("http://127.0.0.1:{port}").parse().unwrap());
        let client = {
            let _runtime = RUNTIME.enter();
            kube::Client::try_from(config).unwrap()
        };
        let opa = Self { client, dir, child };
        until("OPA is there", || (opa.call(Method::GET, "/health", String::new()).0 == 200).then_some(()));
        opa
    }

    /// An OPA with what kube-mgmt loads in this cluster.
    fn of(cluster: &Cluster) -> Self {
        let opa = Self::start();
        opa.write_namespaces(&cluster.namespaces);
        for map in render(&cluster.policies).unwrap() {
            opa.write_policy(&map);
        }
        opa
    }

    pub fn write_namespaces(&self, namespaces: &BTreeMap<String, Value>) {
        let answer = self.call(Method::PUT, "/v1/data/kubernetes/namespaces", json!(namespaces).to_string());
        assert_eq!(answer.0, 204, "{answer:?}");
    }

    #[track_caller]
    pub fn write_policy(&self, map: &Value) {
        let metadata = &map["metadata"];
        for (key, module) in map["data"].as_object().unwrap() {
            let [namespace, name] = [&metadata["namespace"], &metadata["name"]].map(|value| value.as_str().unwrap());
            let at = format!("/v1/policies/{namespace}/{name}/{key}");
            let answer = self.call(Method::PUT, &at, module.as_str().unwrap().to_owned());
            assert_eq!(answer.0, 200, "{at}: {:#}", answer.1);
        }
    }

    /// The answer to a webhook's request: whether it is allowed, and the message.
    #[track_caller]
    pub fn answer(&self, request: &guard::Request) -> (bool, String) {
        static UIDS: AtomicUsize = AtomicUsize::new(1);
        let uid = format!("uid-{}", UIDS.fetch_add(1, Ordering::Relaxed));
        let (status, answer) = self.call(Method::POST, "/", review(request, &uid).to_string());
        assert_eq!((status, &answer["kind"]), (200, &"AdmissionReview".into()), "{}: {answer:#}", request.name);
        let response = &answer["response"];
        assert_eq!(response["uid"], uid);
        let message = response["status"]["message"].as_str().unwrap_or_default();
        (response["allowed"].as_bool().unwrap(), message.to_owned())
    }

    fn call(&self, method: Method, path: &str, body: String) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.into_bytes())).unwrap();
        RUNTIME.block_on(async {
            let Ok(response) = self.client.send(request).await else { return (0, Value::Null) };
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&bytes).unwrap_or_default())
        })
    }
}

impl Drop for Opa {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = self.dir.path();
    }
}

/// The native refusals that OPA has to give, too.
fn expected<'c>(case: &'c Case, left: &[LeftOut]) -> Vec<&'c Refusal> {
    let is_left = |refusal: &&Refusal| {
        left.iter()
            .any(|left| left.policy == refusal.policy && left.part.as_ref().is_none_or(|part| *part == refusal.message))
    };
    case.refusals.iter().filter(|refusal| !is_left(refusal)).collect()
}

/// Whether two messages are alike, apart from the order in a list of names.
fn same(one: &str, two: &str) -> bool {
    let words = |text: &str| {
        let mut words: Vec<String> = text.split([' ', ',', ';']).map(str::to_owned).collect();
        words.sort();
        words
    };
    one == two || words(one) == words(two)
}

/// What OPA says about all cases.
struct Outcome {
    rows: Rows,
    count: usize,
    /// Differences that aren't explained.
    wrong: Vec<String>,
    report: String,
}

/// Is computed once, for the test and for docs/engines.md.
static OUTCOME: LazyLock<Outcome> = LazyLock::new(|| {
    let mut outcome = Outcome { rows: Rows::new(), count: 0, wrong: Vec::new(), report: String::new() };
    for cluster in CLUSTERS.iter() {
        let opa = Opa::of(cluster);
        let left = left_out(&cluster.policies).unwrap();
        let start = Instant::now();
        for case in &cluster.cases {
            outcome.add(case, &left, opa.answer(&case.request));
        }
        outcome.count += cluster.cases.len();
        let each = start.elapsed() / u32::try_from(cluster.cases.len()).unwrap();
        writeln!(outcome.report, "{}: {} cases, {each:?} each", cluster.name, cluster.cases.len()).unwrap();
    }
    outcome
});

/// OPA's rows of docs/engines.md.
pub fn rows() -> Rows {
    OUTCOME.rows.clone()
}

impl Outcome {
    fn add(&mut self, case: &Case, left: &[LeftOut], (allowed, message): (bool, String)) {
        let expected = expected(case, left);
        let native: Vec<&str> = expected.iter().map(|refusal| refusal.message.as_str()).collect();
        let has_fault = native.iter().any(|message| message.contains("resulted in error"));
        if allowed != native.is_empty() || !has_fault && !same(&message, &native.join("; ")) {
            let Case { suite, name, request, .. } = case;
            let request = review(request, "x");
            self.wrong.push(format!("{suite}: {name}\n  OPA: {message}\n  native: {native:?}\n  {request}"));
        }
        let is_left = allowed && !case.refusals.is_empty();
        let row = self.rows.entry(case.suite.clone()).or_default();
        row.add(allowed, is_left.then_some("the rule asks the API server's authorizer"));
    }
}

#[test]
fn opa_gives_the_native_verdicts() {
    let Outcome { rows, count, wrong, report } = &*OUTCOME;
    println!("{report}{rows:#?}");
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), shown.join("\n"));
    assert!(*count > 5000, "{count} cases");
}
