//! The requests on which policy engines are compared, with the verdict of the native policies.
//!
//! All objects are those of other tests: hostile ones, harmless ones, generated ones, and the pods of the Pod Security
//! Standards. The native verdict is the guard's, which other tests hold to that of a real API server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use ringfence::engine::clock::Clock;
use ringfence::engine::value;
use ringfence::guard::{Guard, Operation, Refusal, Request, User, defaults};
use ringfence::kinds::k8s::manifest;
use ringfence::spec::{self, LoadOptions};
use ringfence::stack::{self, Facts};
use ringfence::template::Templates;
use serde_json::{Value, json};

use crate::cluster::baseline;
use crate::cluster::harmless::{COMMON, EXPOSED, ON_NODES};
use crate::cluster::hostile::{
    GOLD, GREEN, Home, OLD_GREEN, OLD_RED, Place, RED, SKY, WORKLOADS, inputs, made_hostile, name, workload,
};
use crate::cluster::{guard as generated, pod_security};
use crate::fuzz::Dice;
use crate::support::judge::creation;
use crate::support::kubernetes::{merged, yaml};

/// A request, as a webhook gets it: after the mutating policies.
pub struct Case {
    pub suite: String,
    pub name: String,
    pub request: Request,
    /// The Namespace object of the request's namespace.
    pub namespace: Option<Value>,
    /// The native refusals. None if the request is admitted.
    pub refusals: Vec<Refusal>,
}

/// A cluster, as ringfence renders it.
pub struct Cluster {
    pub name: &'static str,
    /// Its admission policies and their bindings.
    pub policies: Vec<Value>,
    pub namespaces: BTreeMap<String, Value>,
    pub cases: Vec<Case>,
}

/// A shared cluster, a silo, and a shared cluster of a version without mutating policies.
pub static CLUSTERS: LazyLock<Vec<Cluster>> = LazyLock::new(|| {
    let all: [(_, _, _, &[&'static Home]); 3] = [
        ("pool", "1.36", "pool.yaml", &[&RED, &GREEN, &SKY]),
        ("silo", "1.36", "silo.yaml", &[&GOLD]),
        ("older pool", "1.35", "pool.yaml", &[&OLD_RED, &OLD_GREEN]),
    ];
    all.into_iter().map(|(name, version, spec, homes)| Collector::new(name, version, spec).collected(homes)).collect()
});

/// The request as an `AdmissionReview` of `admission.k8s.io/v1`.
pub fn review(request: &Request, uid: &str) -> Value {
    let mut inner = request.variable();
    let options = match request.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => "PodExecOptions",
    };
    inner["uid"] = uid.into();
    inner["object"] = request.object.clone().unwrap_or_default();
    inner["oldObject"] = request.old_object.clone().unwrap_or_default();
    inner["options"] = json!({"kind": options, "apiVersion": "meta.k8s.io/v1"});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": inner})
}

/// Namespaces of no tenant.
const OTHERS: [&str; 5] = ["kube-system", "kube-public", "kube-node-lease", "default", "unlabelled"];

struct Collector {
    cluster: Cluster,
    guard: Guard,
}

impl Collector {
    fn new(name: &'static str, version: &str, spec: &str) -> Self {
        let (policies, mut namespaces) = rendered(spec, version);
        for name in OTHERS {
            namespaces
                .insert(name.to_owned(), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        }
        for tenant in
            namespaces.keys().filter_map(|name| name.strip_prefix("t-")).map(str::to_owned).collect::<Vec<_>>()
        {
            let mut twin = namespaces[&format!("t-{tenant}")].clone();
            twin["metadata"]["name"] = format!("twin-{tenant}").into();
            namespaces.insert(format!("twin-{tenant}"), twin);
        }
        for (name, namespace) in &mut namespaces {
            namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.as_str().into();
        }
        let guard = Guard::new(&policies).unwrap();
        Self { cluster: Cluster { name, policies, namespaces, cases: Vec::new() }, guard }
    }

    fn collected(mut self, homes: &[&'static Home]) -> Cluster {
        for (i, home) in homes.iter().enumerate() {
            // All kinds for one tenant are enough.
            self.hostile_pods(home, if home.mutates && home.id == RED.id { &WORKLOADS } else { &WORKLOADS[..1] });
            self.hostile_objects(home);
            self.harmless(home);
            self.generated(home, i as u64);
        }
        self.pod_security(homes[0]);
        self.others(homes[0]);
        self.cluster
    }

    /// Adds a request. Returns its object after the mutating policies.
    fn add(&mut self, suite: &str, name: String, mut request: Request) -> Value {
        let namespace = request.namespace.as_ref().map(|name| self.cluster.namespaces[name].clone());
        let is_admin = request.user.groups.iter().any(|group| group == "system:masters");
        let verdict = self.guard.review(request.clone(), namespace.as_ref(), &|_| is_admin);
        if request.object.is_some() && verdict.object.is_none() {
            // A mutating policy refuses, so no webhook is asked.
            return Value::Null;
        }
        request.object = verdict.object;
        request.object = defaults::prepared(&request).or(request.object);
        let object = request.object.clone().unwrap_or_default();
        self.cluster.cases.push(Case { suite: suite.to_owned(), name, request, namespace, refusals: verdict.refusals });
        object
    }

    fn create(&mut self, suite: &str, name: String, user: &User, object: &Value) -> Value {
        self.add(suite, name, creation(user, object))
    }

    fn update(&mut self, suite: &str, name: String, user: &User, [old, new]: [&Value; 2], subresource: Option<&str>) {
        let mut request = creation(user, new);
        request.operation = Operation::Update;
        request.old_object = Some(old.clone());
        request.subresource = subresource.map(str::to_owned);
        self.add(suite, name, request);
    }

    /// Every attack as a Pod, in the kinds that make Pods (created and updated), and as ephemeral containers.
    fn hostile_pods(&mut self, home: &Home, workloads: &[(&str, &str, &str)]) {
        let suite = "hostile pods";
        let mut attacks = home.read("pods.yaml");
        if !home.mutates {
            attacks.extend(home.read("absent.yaml"));
        }
        let by = person(home);
        let complete = home.pod(&home.namespace(), home.complete());
        let plain = home.pod(&home.namespace(), home.harmless());
        let written = home.written(&home.namespace(), home.harmless());
        let running = self.create("harmless objects", format!("Pod of {}", home.id), &by, &complete);
        let deployed = workload("apps/v1", "Deployment", &written);
        let kept = self.create("harmless objects", format!("Deployment of {}", home.id), &by, &deployed);
        for attack in &attacks {
            for place in Place::all(attack) {
                let named = |what: &str| format!("{what} of {}, {}: {}", home.id, place.field(), name(attack));
                for (what, pod) in [("complete Pod", &complete), ("Pod", &plain)] {
                    self.create(suite, named(what), &by, &made_hostile(pod, attack, *place));
                }
                let hostile = made_hostile(&written, attack, *place);
                for (api, kind, _) in workloads {
                    self.create(suite, named(kind), &by, &workload(api, kind, &hostile));
                }
                let changed = workload("apps/v1", "Deployment", &hostile);
                self.update(suite, named("Deployment (update)"), &by, [&kept, &changed], None);
            }
            if !attack["container"].is_null() && attack["spec"].is_null() {
                let container = merged(home.complete_container("debug"), &attack["container"]);
                let changed = merged(running.clone(), &json!({"spec": {"ephemeralContainers": [container]}}));
                let name = format!("ephemeral container of {}: {}", home.id, name(attack));
                self.update(suite, name, &by, [&running, &changed], Some("ephemeralcontainers"));
            }
        }
    }

    fn hostile_objects(&mut self, home: &Home) {
        let suite = "hostile objects";
        for group in home.read("objects.yaml") {
            let mut harmless = group["object"].clone();
            harmless["metadata"]["namespace"] = home.namespace().into();
            if !home.mutates {
                harmless["metadata"]["labels"] = json!({"ringfence.dev/tenant": home.id});
            }
            let kind = harmless["kind"].as_str().unwrap().to_owned();
            let by = if group["by"] == "tenant" { person(home) } else { user("mistake", &[]) };
            let kept = self.create("harmless objects", format!("{kind} of {}", home.id), &by, &harmless);
            for attack in group["changes"].as_array().unwrap().iter().filter(|a| !home.is_among(&a["except"])) {
                let what = format!("{kind} of {}: {}", home.id, name(attack));
                self.create(suite, what.clone(), &by, &merged(harmless.clone(), &attack["change"]));
                let changed = merged(kept.clone(), &attack["change"]);
                self.update(suite, format!("{what} (update)"), &by, [&kept, &changed], None);
            }
        }
    }

    fn harmless(&mut self, home: &Home) {
        let suite = "harmless objects";
        if !home.mutates {
            return;
        }
        let mut texts = vec![COMMON];
        if home.id != SKY.id {
            texts.push(ON_NODES);
        }
        if [GREEN.id, GOLD.id].contains(&home.id) {
            texts.push(EXPOSED);
        }
        for mut object in texts.into_iter().flat_map(yaml) {
            object["metadata"]["namespace"] = home.namespace().into();
            let name = format!("{} {} of {}", object["kind"], object["metadata"]["name"], home.id);
            if object["kind"] == "Pod" {
                defaults::fargate(&mut object, &self.cluster.namespaces[&home.namespace()]);
            }
            let kept = self.create(suite, name.clone(), &person(home), &object);
            self.update(suite, format!("{name} (unchanged)"), &person(home), [&kept, &kept], None);
            let mut gone = creation(&person(home), &object);
            gone.operation = Operation::Delete;
            gone.old_object = Some(kept);
            gone.object = None;
            self.add(suite, format!("{name} (deleted)"), gone);
        }
    }

    fn generated(&mut self, home: &Home, seed: u64) {
        let tables = generated::fields(home);
        let mut dice = Dice(1000 + seed);
        for i in 0..400 {
            let object = generated::object(home, &tables, &mut dice, home.mutates && i % 2 == 0);
            self.create("generated objects", format!("{i} of {}", home.id), &person(home), &object);
        }
    }

    fn pod_security(&mut self, home: &Home) {
        for outcome in ["fail", "pass"] {
            for fixture in pod_security::fixtures(home, outcome, home.mutates) {
                let (suite, name) = fixture.path.rsplit_once('/').unwrap();
                let suite = format!("Pod Security {}", suite.replace('/', " "));
                self.create(&suite, name.to_owned(), &person(home), &fixture.within(&home.namespace()));
            }
        }
    }

    /// Requests of the system and of administrators, and what others may not do in their place.
    fn others(&mut self, home: &Home) {
        let suite = "the system and administrators";
        let admin = user("admin", &["system:masters"]);
        for namespace in OTHERS {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent", "namespace": namespace},
                "spec": {"hostNetwork": true, "hostPID": true, "nodeName": "x", "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "a", "image": "nginx", "securityContext": {"privileged": true}}],
                    "volumes": [{"name": "h", "hostPath": {"path": "/"}}]}});
            self.create(suite, format!("Pod in {namespace}"), &admin, &pod);
            for (api, kind, _) in WORKLOADS {
                self.create(suite, format!("{kind} in {namespace}"), &admin, &workload(api, kind, &pod));
            }
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": namespace},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "externalIPs": ["8.8.8.8"]}});
            self.create(suite, format!("Service in {namespace}"), &admin, &service);
        }
        let namespace = home.namespace();
        let own = json!({"ringfence.dev/tenant": home.id});
        let metadata = json!({"name": "x", "namespace": namespace, "labels": own});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.64.0.9"]}]});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": true,
            "metadata": merged(metadata.clone(), &json!({"annotations": {"eks.amazonaws.com/role-arn": "x"}}))});
        let labelled = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": merged(metadata, &json!({"labels": {"ringfence.dev/tenancy": "acme"}}))});
        let pod = home.pod(&namespace, home.complete());
        let node = |labels: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ip-10-0-0-1", "labels": labels}});
        let users = [
            admin.clone(),
            person(home),
            user("mistake", &[]),
            user("system:serviceaccount:kube-system:endpointslice-controller", &[]),
            user("system:serviceaccount:kube-system:daemon-set-controller", &[]),
            user("system:node:ip-10-0-0-1", &["system:nodes"]),
        ];
        for by in &users {
            for object in [&slice, &account, &labelled, &pod] {
                self.create(suite, format!("{} by {}", object["kind"], by.username), by, object);
            }
            for labels in [json!({"tenantID": home.id}), json!({"tenantID": "other"}), json!({"a": "b"}), json!({})] {
                let what = format!("labels {labels} of a node by {}", by.username);
                self.update(suite, what, by, [&node(json!({"tenantID": home.id})), &node(labels)], None);
            }
            let object = self.cluster.namespaces[&namespace].clone();
            let changed = merged(object.clone(), &json!({"metadata": {"labels": {"ringfence.dev/tenant": "other"}}}));
            self.update(suite, format!("Namespace by {}", by.username), by, [&object, &changed], None);
        }
    }
}

fn user(username: &str, groups: &[&str]) -> User {
    let groups = groups.iter().chain(&["system:authenticated"]).map(|group| (*group).to_owned()).collect();
    User { username: username.to_owned(), groups }
}

/// Somebody of a tenant.
fn person(home: &Home) -> User {
    user(&format!("somebody@{}", home.id), &[&format!("tenant:{}", home.id)])
}

/// The admission policies, their bindings and the Namespaces of a spec's first cluster.
fn rendered(file: &str, version: &str) -> (Vec<Value>, BTreeMap<String, Value>) {
    let text = baseline::filled(&fs::read_to_string(inputs().join(file)).unwrap(), version);
    let options = LoadOptions { profiles_dir: Some(inputs().join("profiles")), today: Clock::today() };
    let spec = spec::load(Path::new("tenancy.yaml"), &text, &options).unwrap();
    let desired = stack::build(&spec, &Facts::assumed(&spec), &Templates::built_in().unwrap()).unwrap();
    let (mut policies, mut namespaces) = (Vec::new(), BTreeMap::new());
    for resource in desired.iter().filter(|resource| resource.kind == manifest::NAME) {
        let object = value::shown(&resource.state.value()["object"]);
        let kind = object["kind"].as_str().unwrap_or_default();
        if kind.contains("AdmissionPolicy") {
            policies.push(object);
        } else if kind == "Namespace" {
            namespaces.insert(object["metadata"]["name"].as_str().unwrap().to_owned(), object);
        }
    }
    (policies, namespaces)
}
