//! The Rego of `ringfence::engines::opa`, in a real OPA.
//!
//! Policies and Namespaces are written as kube-mgmt writes them: a ConfigMap's key at `v1/policies/<namespace>/<name>/<key>`,
//! Namespaces at `v1/data/kubernetes/namespaces` (README and `pkg/configmap`, `pkg/data` of kube-mgmt).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::Config;
use ringfence::engine::clock::Clock;
use ringfence::engines::LeftOut;
use ringfence::engines::opa::{ANNOTATIONS, NAMESPACE, left_out, render};
use ringfence::guard::{self, Operation, Refusal};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Rows;
use super::corpus::{CLUSTERS, Case, Cluster, review};
use crate::support::kubernetes::{Api, ControlPlane, Options, RUNTIME, free_ports, spawned, until, yaml};

/// A running OPA.
pub struct Opa {
    client: kube::Client,
    url: String,
    /// With its log and its certificate.
    dir: TempDir,
    child: Child,
}

impl Opa {
    pub fn start() -> Self {
        Self::with(None)
    }

    /// With a certificate and its key, it serves HTTPS.
    fn with(tls: Option<[String; 2]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [port] = free_ports();
        let mut flags = vec!["run".to_owned(), "--server".to_owned(), "--disable-telemetry".to_owned()];
        flags.push(format!("--addr=127.0.0.1:{port}"));
        for (name, pem) in ["tls-cert-file", "tls-private-key-file"].iter().zip(tls.iter().flatten()) {
            fs::write(dir.path().join(name), pem).unwrap();
            flags.push(format!("--{name}={}", dir.path().join(name).display()));
        }
        let child = spawned(dir.path(), "opa", &flags);
        let url = format!("{}://127.0.0.1:{port}", if tls.is_some() { "https" } else { "http" });
        let mut config = Config::new(url.parse().unwrap());
        config.accept_invalid_certs = true;
        let client = {
            let _runtime = RUNTIME.enter();
            kube::Client::try_from(config).unwrap()
        };
        let opa = Self { client, url, dir, child };
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

/// Is computed once, for the tests.
static OUTCOME: LazyLock<Outcome> = LazyLock::new(|| {
    let mut outcome = Outcome { rows: Rows::new(), count: 0, wrong: Vec::new(), report: String::new() };
    for cluster in CLUSTERS.iter() {
        let opa = Opa::of(cluster);
        let left = left_out(&cluster.policies).unwrap();
        let clock = Clock::real();
        for case in &cluster.cases {
            outcome.add(case, &left, opa.answer(&case.request));
        }
        outcome.count += cluster.cases.len();
        let each = clock.elapsed() / u32::try_from(cluster.cases.len()).unwrap();
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
    let Outcome { count, wrong, report, .. } = &*OUTCOME;
    println!("{report}{:#?}", rows());
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), shown.join("\n"));
    assert!(*count > 5000, "{count} cases");
}

fn first_case(cluster: &Cluster) -> &Case {
    cluster.cases.iter().find(|case| case.suite == "harmless objects" && case.refusals.is_empty()).unwrap()
}

/// kube-mgmt loads policies and Namespaces one after the other, in no certain order.
#[test]
fn nothing_is_admitted_before_everything_is_loaded() {
    let cluster = &CLUSTERS[0];
    let case = first_case(cluster);
    let opa = Opa::start();
    let mut maps = render(&cluster.policies).unwrap();
    let main = maps.pop().unwrap();
    assert_eq!(main["metadata"]["name"], "ringfence-main");
    opa.write_policy(&main);
    opa.write_namespaces(&cluster.namespaces);
    maps.reverse();
    for map in &maps {
        let (allowed, message) = opa.answer(&case.request);
        let waits = format!("the policy {} isn't loaded into OPA yet", map["metadata"]["name"].as_str().unwrap());
        assert!(!allowed && message.contains(&waits), "{message}");
        opa.write_policy(map);
    }
    assert_eq!(opa.answer(&case.request), (true, String::new()));
}

/// Where the name decides, a Namespace need not be known. So the system's own namespaces stay free.
#[test]
fn an_unknown_namespace_is_refused_unless_its_name_decides() {
    let cluster = &CLUSTERS[0];
    let opa = Opa::of(cluster);
    opa.write_namespaces(&BTreeMap::new());
    let case = first_case(cluster);
    let (allowed, message) = opa.answer(&case.request);
    assert!(!allowed && message.contains("isn't known to OPA yet"), "{message}");
    let system = cluster.cases.iter().find(|case| case.name == "Pod in kube-system").unwrap();
    assert_eq!(opa.answer(&system.request), (true, String::new()));
}

/// The table of docs/opa.md.
#[test]
fn only_rules_that_ask_the_authorizer_are_left_out() {
    let text = include_str!("../../../docs/opa.md");
    for cluster in CLUSTERS.iter() {
        let left = left_out(&cluster.policies).unwrap();
        let (whole, parts): (Vec<&LeftOut>, Vec<_>) = left.iter().partition(|left| left.part.is_none());
        let whole: Vec<&str> = whole.iter().map(|left| left.policy.as_str()).collect();
        assert_eq!(whole, ["ringfence-controllers-objects", "ringfence-namespaces", "ringfence-service-accounts"]);
        assert!(whole.iter().all(|policy| text.contains(&format!("| `{policy}` | whole |"))));
        let [part] = parts.as_slice() else { panic!("{parts:?}") };
        assert_eq!(part.policy, "ringfence-labels");
        assert!(part.part.as_ref().unwrap().starts_with("NS-2: only ringfence may set labels and annotations"));
    }
}

fn documented_webhook() -> Value {
    let text = include_str!("../../../docs/opa.md");
    let values = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    yaml(values)[0]["admissionController"].take()
}

/// The values of the chart in docs/opa.md make a webhook that gets every request which OPA refuses, and none of the system.
#[test]
fn the_documented_webhook_asks_about_what_opa_refuses() {
    let values = documented_webhook();
    let group = "admissionregistration.k8s.io/v1";
    let webhook = guard::Guard::new(&[
        json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "webhook"}, "spec": {
            "matchConstraints": {"namespaceSelector": values["namespaceSelector"], "resourceRules": values["rules"]},
            "validations": [{"expression": "false"}]}}),
        json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "webhook"},
            "spec": {"policyName": "webhook", "validationActions": ["Deny"]}}),
    ])
    .unwrap();
    for cluster in CLUSTERS.iter() {
        let left = left_out(&cluster.policies).unwrap();
        for case in &cluster.cases {
            let asks = !webhook.review(case.request.clone(), case.namespace.as_ref(), &|_| false).admits();
            let of_node = case.request.resource == "nodes";
            assert!(asks || of_node || expected(case, &left).is_empty(), "{}", case.name);
            assert!(
                !asks || case.request.namespace.as_ref().is_some_and(|name| name.starts_with('t')),
                "{}",
                case.name
            );
        }
    }
}

/// Kubernetes' limit of a ConfigMap is 1 MiB.
#[test]
fn config_maps_are_far_from_their_limit() {
    for cluster in CLUSTERS.iter() {
        for map in render(&cluster.policies).unwrap() {
            assert!(map.to_string().len() < 100_000, "{}: {}", map["metadata"]["name"], map.to_string().len());
        }
    }
}

/// A real kube-mgmt, if `KUBEBUILDER_ASSETS` has one. Its Go module can't be downloaded, so it isn't built.
fn kube_mgmt() -> Option<PathBuf> {
    let given = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?).join("kube-mgmt");
    given.exists().then_some(given)
}

/// Loads the ConfigMaps and the Namespaces of an API server, as kube-mgmt does.
fn load(opa: &Opa, admin: &Api<'_>) {
    let list = |path: &str| admin.get(path).ok()["items"].as_array().cloned().unwrap();
    let named = |object: Value| (object["metadata"]["name"].as_str().unwrap().to_owned(), object);
    opa.write_namespaces(&list("/api/v1/namespaces").into_iter().map(named).collect());
    let at = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?labelSelector=openpolicyagent.org/policy%3Drego");
    list(&at).iter().for_each(|map| opa.write_policy(map));
}

fn loaded_by_kube_mgmt(opa: &Opa, plane: &ControlPlane) -> Child {
    let flags = [
        format!("--kubeconfig={}", plane.kubeconfig().display()),
        format!("--opa-url={}/v1", opa.url),
        "--opa-allow-insecure".to_owned(),
        format!("--namespaces={NAMESPACE}"),
        "--replicate-cluster=v1/namespaces".to_owned(),
    ];
    let child = spawned(opa.dir.path(), "kube-mgmt", &flags);
    let at = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?labelSelector=openpolicyagent.org/policy%3Drego");
    plane.until("kube-mgmt has loaded all", |admin| {
        let maps = admin.get(&at).ok()["items"].as_array().cloned().unwrap();
        maps.iter().all(|map| map["metadata"]["annotations"][ANNOTATIONS[0]] == r#"{"status":"ok"}"#)
    });
    child
}

/// An API server without native policies, whose webhook is OPA.
#[test]
fn an_api_server_refuses_what_opa_refuses() {
    let cluster = &CLUSTERS[0];
    let left = left_out(&cluster.policies).unwrap();
    let plane = ControlPlane::start(Options::default());
    let admin = plane.admin();
    let mut tenant = cluster.namespaces["t-red"].clone();
    let labels = tenant["metadata"]["labels"].as_object_mut().unwrap();
    // Pod Security would refuse first.
    labels.retain(|label, _| !label.starts_with("pod-security"));
    admin.create(&tenant).ok();
    admin.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).ok();
    for map in render(&cluster.policies).unwrap() {
        admin.create(&map).ok();
    }
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let pem = made.cert.pem();
    let opa = Opa::with(Some([pem.clone(), made.signing_key.serialize_pem()]));
    let loader = kube_mgmt().map(|_| loaded_by_kube_mgmt(&opa, &plane));
    if loader.is_none() {
        load(&opa, &admin);
    }
    plane.until("the account is there", |admin| {
        admin.get("/api/v1/namespaces/t-red/serviceaccounts/default").status == 200
    });
    // As in a tenant's namespace, where no Pod gets a token.
    let account = json!({"automountServiceAccountToken": false});
    admin.patch("/api/v1/namespaces/t-red/serviceaccounts/default", &account).ok();
    let mut webhook = documented_webhook();
    let client = json!({"url": format!("{}/", opa.url), "caBundle": STANDARD.encode(&pem)});
    webhook = json!({"name": "webhook.openpolicyagent.org", "rules": webhook["rules"], "clientConfig": client,
        "namespaceSelector": webhook["namespaceSelector"], "failurePolicy": webhook["failurePolicy"],
        "admissionReviewVersions": ["v1"], "sideEffects": "None"});
    admin
        .create(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "opa"}, "webhooks": [webhook]}))
        .ok();
    let refused = "admission webhook \"webhook.openpolicyagent.org\" denied the request: ";
    let of_red = |case: &&Case| {
        // All are sent by an administrator.
        case.suite != "the system and administrators"
            && case.request.resource == "pods"
            && case.request.namespace.as_deref() == Some("t-red")
            && case.request.operation == Operation::Create
            && (case.suite != "hostile pods" || case.name.starts_with("complete Pod"))
    };
    let cases: Vec<&Case> = cluster.cases.iter().filter(of_red).collect();
    plane.until("OPA is asked", |admin| {
        let case = cases.iter().find(|case| !case.refusals.is_empty()).unwrap();
        admin.try_unjudged(case.request.object.as_ref().unwrap()).message().contains(refused)
    });
    let mut counts = BTreeMap::new();
    for case in cases {
        let answer = admin.try_unjudged(case.request.object.as_ref().unwrap());
        let by_opa = answer.message().split_once(refused).map(|(_, message)| message);
        let native: Vec<&str> = expected(case, &left).iter().map(|refusal| refusal.message.as_str()).collect();
        match by_opa {
            // The server's plugins add to the object, so there may be more refusals.
            Some(message) => {
                let says = |one: &&str| message.contains(one.split(": ").next().unwrap_or_default());
                assert!(!native.is_empty() && native.iter().all(says), "{}: {message}\n{native:?}", case.name);
            }
            // The server itself may refuse before.
            None => assert!(native.is_empty() || !answer.is_ok(), "{}: {native:?}", case.name),
        }
        *counts.entry((by_opa.is_some(), answer.is_ok())).or_insert(0) += 1;
    }
    println!("refused by OPA, admitted: {counts:?}; loaded by kube-mgmt: {}", loader.is_some());
    assert!(counts[&(true, false)] > 200 && counts[&(false, true)] > 20, "{counts:?}");
    if let Some(mut loader) = loader {
        drop(loader.stdin.take());
        let _ = loader.wait();
    }
}
