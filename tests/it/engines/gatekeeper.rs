//! The real Gatekeeper, with the constraints of a cluster's policies and without the policies themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence::engines::{LeftOut, gatekeeper};
use ringfence::guard::{Guard, Operation, User};
use serde_json::{Value, json};

use super::Rows;
use super::corpus::{CLUSTERS, Case, Cluster, review};
use crate::cluster::hostile::{WORKLOADS, inputs, workload};
use crate::support::judge::creation;
use crate::support::kubernetes::{Api, ControlPlane, Options, free_ports, https, program, yaml};

/// A control plane with Gatekeeper.
pub struct Gatekeeper {
    plane: ControlPlane,
    /// Of its webhooks.
    port: u16,
    certificate: String,
}

impl Gatekeeper {
    pub fn start(namespaces: &BTreeMap<String, Value>, objects: &[Value]) -> Self {
        let mut plane = ControlPlane::start(Options::default());
        install_crds(&plane);
        for namespace in namespaces.values().chain([&named("gatekeeper-system")]) {
            let answer = plane.admin().create(namespace);
            assert!(answer.is_ok() || answer.status == 409, "{}", answer.message());
        }
        let [port, health] = free_ports();
        let (dir, certificate) = plane.certificate_for("gatekeeper");
        plane.spawn(
            "gatekeeper",
            &[
                format!("--kubeconfig={}", plane.kubeconfig().display()),
                "--debug-use-fake-pod".to_owned(),
                "--disable-cert-rotation".to_owned(),
                format!("--cert-dir={}", dir.display()),
                "--host=127.0.0.1".to_owned(),
                format!("--port={port}"),
                format!("--health-addr=127.0.0.1:{health}"),
                "--operation=webhook,mutation-webhook,mutation-controller,mutation-status,status,generate".to_owned(),
            ],
        );
        let engine = Self { plane, port, certificate };
        engine.apply(objects);
        engine
    }

    /// Templates come first, because Gatekeeper makes the kinds of constraints from them.
    fn apply(&self, objects: &[Value]) {
        for object in objects {
            let mut object = object.clone();
            object.as_object_mut().unwrap().remove("requires");
            let collection = at(&object).rsplit_once('/').unwrap().0.to_owned();
            self.plane.until(&format!("{} is created", at(&object)), |admin| {
                let answer = admin.post(&collection, &object);
                assert!(matches!(answer.status, 201 | 404 | 500), "{}: {}", answer.status, answer.message());
                answer.is_ok()
            });
        }
        for object in objects {
            self.plane.until(&format!("{} is in force", at(object)), |admin| {
                let live = admin.get(&at(object)).body;
                let pods = live["status"]["byPod"].as_array().cloned().unwrap_or_default();
                let errors = pods.iter().flat_map(|pod| pod["errors"].as_array().cloned().unwrap_or_default());
                let errors: Vec<_> = errors.collect();
                assert!(errors.is_empty(), "{}: {errors:?}", at(object));
                let enforced = |pod: &Value| pod["enforced"] != json!(false);
                !pods.is_empty() && pods.iter().all(enforced)
            });
        }
    }

    /// Adds the webhooks of Gatekeeper's Helm chart, with the values that ringfence asks for.
    fn add_webhooks(&self) {
        let values = self.plane.kubeconfig().with_file_name("values.yaml");
        fs::write(&values, gatekeeper::HELM_VALUES).unwrap();
        let output = Command::new(program("helm"))
            .args(["template", "gatekeeper", "--namespace=gatekeeper-system", "--values"])
            .arg(values)
            .arg(module().join("charts/gatekeeper"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for mut object in yaml(&String::from_utf8(output.stdout).unwrap()) {
            if !object["kind"].as_str().is_some_and(|kind| kind.ends_with("WebhookConfiguration")) {
                continue;
            }
            for webhook in object["webhooks"].as_array_mut().unwrap() {
                let at = webhook["clientConfig"]["service"]["path"].as_str().unwrap();
                let url = format!("https://127.0.0.1:{}{at}", self.port);
                webhook["clientConfig"] = json!({"url": url, "caBundle": STANDARD.encode(&self.certificate)});
            }
            self.plane.admin().create(&object).ok();
        }
    }

    /// As ringfence does, or the API server would mount tokens.
    fn without_tokens(&self, namespaces: &BTreeMap<String, Value>) {
        for namespace in namespaces.keys() {
            let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
            let change = json!({"automountServiceAccountToken": false});
            self.plane.until(&account, |admin| admin.patch(&account, &change).is_ok());
        }
    }

    /// The API as a user, who may do everything.
    fn api(&self, user: &User) -> Api<'_> {
        let mut groups: Vec<_> = user.groups.iter().map(String::as_str).collect();
        groups.push("system:masters");
        self.plane.user(&user.username, &groups)
    }

    /// The refusals of a request, as the API server would ask the webhook. Empty if the request is admitted.
    fn refusals(&self, case: &Case) -> BTreeSet<(String, String)> {
        let answer = &https(self.port, "/v1/admit", &review(&case.request, "1"))["response"];
        let text = answer["status"]["message"].as_str().unwrap_or_default();
        if answer["allowed"] == true {
            return BTreeSet::new();
        }
        text.lines()
            .map(|line| {
                let (constraint, message) = line.split_once("] ").unwrap_or(("", line));
                (constraint.trim_start_matches('[').to_owned(), said(message))
            })
            .collect()
    }
}

/// The path of an object of Gatekeeper. Its plurals are the kinds in lower case, but for ConstraintTemplates.
fn at(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let plural = if kind == "constrainttemplate" { "constrainttemplates" } else { &kind };
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap();
    format!("/apis/{}/{plural}/{}", text("/apiVersion"), text("/metadata/name"))
}

fn named(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The directory of Gatekeeper's Go module.
fn module() -> PathBuf {
    let output = Command::new("go")
        .args(["mod", "download", "-json", "github.com/open-policy-agent/gatekeeper/v3"])
        .current_dir(inputs().join("gatekeeper"))
        .output()
        .unwrap();
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    facts["Dir"].as_str().expect("the module can be downloaded").into()
}

fn install_crds(plane: &ControlPlane) {
    let mut files: Vec<_> =
        fs::read_dir(module().join("charts/gatekeeper/crds")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for file in files {
        for object in yaml(&fs::read_to_string(file).unwrap()) {
            plane.admin().create(&object).ok();
        }
    }
}

/// Subresources of which the chart's webhook is told, with those of no policy left out.
const SUBRESOURCES: [&str; 2] = ["ephemeralcontainers", "resize"];

/// Why the webhook isn't told of a request. It is told of all requests that the chart's rules select.
fn untold(case: &Case) -> Option<&'static str> {
    let request = &case.request;
    let exempt = ["kube-system", "kube-public", "kube-node-lease", "default", "gatekeeper-system"];
    match () {
        () if request.namespace.is_none() || request.is_namespace() => Some("the object is in no namespace"),
        () if exempt.contains(&request.namespace.as_deref().unwrap_or_default()) => Some("the namespace is exempt"),
        () if !matches!(request.operation, Operation::Create | Operation::Update) => {
            Some("it is a deletion or a session")
        }
        () if request.subresource.as_deref().is_some_and(|s| !SUBRESOURCES.contains(&s)) => {
            Some("it is for a subresource")
        }
        () => None,
    }
}

/// A message. Of an expression without a value, only which one: the texts of errors are those of a CEL library.
fn said(message: &str) -> String {
    message.split_once(" resulted in error: ").map_or(message, |(expression, _)| expression).to_owned()
}

/// The native refusals that Gatekeeper must give, too, and the reasons of the others.
fn expected(case: &Case, left_out: &[LeftOut]) -> (BTreeSet<(String, String)>, Vec<String>) {
    let mut reasons = Vec::new();
    let mut wanted = BTreeSet::new();
    for refusal in &case.refusals {
        let left = left_out.iter().find(|left| {
            left.policy == refusal.policy && left.part.as_ref().is_none_or(|part| *part == refusal.message)
        });
        match left.map(|left| left.reason.as_str()).or(untold(case)) {
            Some(reason) => reasons.push(reason.to_owned()),
            None => {
                wanted.insert((refusal.binding.clone(), said(&refusal.message)));
            }
        }
    }
    (wanted, reasons)
}

/// The rows of docs/engines.md.
pub static ROWS: LazyLock<Rows> = LazyLock::new(|| {
    let (mut rows, mut wrong) = (Rows::new(), Vec::new());
    CLUSTERS.iter().for_each(|cluster| compare(cluster, &mut rows, &mut wrong));
    let total: usize = CLUSTERS.iter().map(|cluster| cluster.cases.len()).sum();
    assert!(wrong.is_empty(), "{} of {total} differ:\n{}", wrong.len(), wrong.join("\n"));
    rows
});

/// Asks Gatekeeper about every case of a cluster. Without a listed reason, all verdicts and messages must be the native
/// ones.
fn compare(cluster: &Cluster, rows: &mut Rows, wrong: &mut Vec<String>) {
    let objects: Vec<_> = cluster.policies.iter().chain(cluster.namespaces.values()).cloned().collect();
    let left_out = gatekeeper::left_out(&objects).unwrap();
    let engine = Gatekeeper::start(&cluster.namespaces, &gatekeeper::render(&objects).unwrap());
    for case in &cluster.cases {
        let (wanted, reasons) = expected(case, &left_out);
        let found = if untold(case).is_some() { BTreeSet::new() } else { engine.refusals(case) };
        if found != wanted {
            let Case { suite, name, .. } = case;
            wrong.push(format!("{}, {suite}: {name}\n  native {wanted:?}\n  Gatekeeper {found:?}", cluster.name));
        }
        let same = found.is_empty() == case.refusals.is_empty();
        let difference = if same { None } else { reasons.first().map(String::as_str) };
        rows.entry(case.suite.clone()).or_default().add(found.is_empty(), difference);
    }
}

/// Each rule of the native policies is in a template, word for word, or is listed as left out. Each template has a
/// Constraint that refuses.
#[test]
fn every_rule_is_taken_or_left_out() {
    for cluster in CLUSTERS.iter() {
        let objects = gatekeeper::render(&cluster.policies).unwrap();
        let left = gatekeeper::left_out(&cluster.policies).unwrap();
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        let mut taken = 0;
        for policy in cluster.policies.iter().filter(|o| o["kind"] == "ValidatingAdmissionPolicy") {
            let name = policy["metadata"]["name"].as_str().unwrap();
            let of_policy: Vec<&LeftOut> = left.iter().filter(|left| left.policy == name).collect();
            let whole = of_policy.iter().any(|left| left.part.is_none());
            let validations = policy["spec"]["validations"].as_array().unwrap();
            let is_there =
                |validation: &&Value| text.iter().any(|text| text.contains(&validation["expression"].to_string()));
            let missing = validations.iter().filter(|validation| !is_there(validation)).count();
            taken += validations.len() - missing;
            assert!(whole || missing == of_policy.len(), "{name}: {missing} missing, {of_policy:?}");
        }
        assert!(taken > 30, "{}: {taken}", cluster.name);
        let of_kind = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).count();
        let templates = of_kind("ConstraintTemplate");
        assert_eq!(objects.len(), 2 * templates, "{}", cluster.name);
        for object in objects.iter().filter(|o| o["kind"] != "ConstraintTemplate") {
            let actions = &object["spec"]["scopedEnforcementActions"];
            assert_eq!(
                (&actions[0]["action"], actions.as_array().map(Vec::len)),
                (&json!("deny"), Some(1)),
                "{object}"
            );
        }
    }
}

#[test]
#[ignore = "`make engines` runs it: it builds and asks Gatekeeper"]
fn every_case_gets_the_native_verdict() {
    let rows = &*ROWS;
    assert!(rows["hostile pods"].refused > 5000, "{rows:#?}");
    assert_eq!(rows["harmless objects"].refused, 0, "{rows:#?}");
}

/// A part of the cases, through an API server that asks the webhook as the Helm chart's configuration says.
#[test]
#[ignore = "`make engines` runs it: it builds and asks Gatekeeper"]
fn the_api_server_asks_the_webhook_that_the_chart_configures() {
    let cluster = &CLUSTERS[0];
    let objects: Vec<_> = cluster.policies.iter().chain(cluster.namespaces.values()).cloned().collect();
    let left_out = gatekeeper::left_out(&objects).unwrap();
    let engine = Gatekeeper::start(&cluster.namespaces, &gatekeeper::render(&objects).unwrap());
    engine.without_tokens(&cluster.namespaces);
    engine.add_webhooks();
    let told = |case: &&Case| case.request.operation == Operation::Create && untold(case).is_none();
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cluster.cases.iter().filter(told).step_by(9) {
        let (wanted, _) = expected(case, &left_out);
        let answer = engine.api(&case.request.user).try_unjudged(case.request.object.as_ref().unwrap());
        let denied = answer.message().contains(r#"admission webhook "validation.gatekeeper.sh" denied the request: "#);
        // The API server's own refusals come before the webhook.
        if answer.is_ok() || denied {
            *counts.entry(denied).or_insert(0) += 1;
            if denied == wanted.is_empty() {
                wrong.push(format!("{}: native {wanted:?}\n  server {}", case.name, answer.message()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    assert!(counts[&true] > 100 && counts[&false] > 20, "{counts:?}");
}

/// Where the API server has no mutating policies, the mutators write the same fields.
#[test]
#[ignore = "`make engines` runs it: it builds and asks Gatekeeper"]
fn mutators_fill_in_what_the_mutating_policies_would() {
    let (newer, older) = (&CLUSTERS[0], &CLUSTERS[2]);
    let mutates = |object: &&Value| object["kind"].as_str().is_some_and(|kind| kind.starts_with("Mutating"));
    let mutating: Vec<_> = newer.policies.iter().filter(mutates).cloned().collect();
    let objects: Vec<_> = older.policies.iter().chain(older.namespaces.values()).cloned().collect();
    let mut all = gatekeeper::render(&objects).unwrap();
    all.extend(gatekeeper::mutators(&mutating, &objects).unwrap());
    let engine = Gatekeeper::start(&older.namespaces, &all);
    engine.add_webhooks();
    let guard = Guard::decorating(objects.iter().chain(&mutating)).unwrap();
    let user = User { username: "somebody@red".to_owned(), groups: vec!["tenant:red".to_owned()] };
    let image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/web:1";
    let container = |name: &str| json!([{"name": name, "image": image, "imagePullPolicy": "Always"}]);
    let spec =
        json!({"containers": container("c"), "initContainers": container("i"), "automountServiceAccountToken": false});
    let pod = json!({"metadata": {"labels": {"app": "harmless"}}, "spec": spec});
    let mut written = vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap"}),
        json!({"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"]}),
    ];
    let workloads = WORKLOADS.iter().filter(|(_, kind, _)| *kind != "ReplicaSet");
    written.extend(workloads.map(|(api, kind, _)| workload(api, kind, &pod)));
    for mut object in written {
        object["metadata"] = json!({"name": "web", "namespace": "t-red"});
        let native = guard.review(creation(&user, &object), older.namespaces.get("t-red"), &|_| false);
        assert!(native.admits(), "{}: {:?}", object["kind"], native.refusals);
        let answer = engine.api(&user).try_unjudged(&object);
        assert!(answer.is_ok(), "{}: {}", object["kind"], answer.message());
        let native = native.object.unwrap();
        assert!(has(&answer.body, &native), "{:#}\nlacks a part of\n{native:#}", answer.body);
    }
}

/// Whether an object has all of these fields. The API server adds others, and items of lists.
fn has(object: &Value, fields: &Value) -> bool {
    match (object, fields) {
        (_, Value::Object(fields)) => fields.iter().all(|(name, value)| has(&object[name], value)),
        (Value::Array(all), Value::Array(items)) => items.iter().all(|item| all.iter().any(|one| has(one, item))),
        _ => object == fields,
    }
}
