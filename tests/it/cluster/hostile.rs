//! Hostile objects, created as users of the tenant. The right rule must refuse each of them.
//!
//! The attacks are data: `tests/kubernetes/hostile`. The API server can't prevent all attacks of the list of attacks on
//! shared clusters. These rows are handled elsewhere:
//!
//! | row | attack | where it is prevented |
//! |---|---|---|
//! | 5 | node admission bypass (CVE-2021-25735) | versions that the spec allows |
//! | 12 | IMDS from a pod's own network | hop limit and tokens (launch template), network policies |
//! | 28, 29, 30 | disk, PIDs, memory of the node | quota and limits below; user data; nodes of its own |
//! | 32, 33 | containerd and runc | AMI and Bottlerocket versions |
//! | 44 | names of other tenants' services in DNS | accepted: names aren't secret, traffic is closed |
//! | 45 | names of namespaces that end alike | ids without dashes (spec), version of the VPC CNI |
//! | 46 | traffic before a policy is programmed | strict mode of the VPC CNI |
//! | 47 | a flood of requests | object counts of the quota |
//! | 50 | forged logs | audit logs of the cluster |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use ringfence::engine::clock::Clock;
use ringfence::spec::{self, LoadOptions};
use ringfence::stack::{self, Facts};
use ringfence::template::Templates;
use serde_json::{Map, Value, json};

use super::baseline::{Baseline, OLDER, POOL, SILO};
use crate::support::judge::Judge;
use crate::support::kubernetes::{Answer, Api, collection, labels, merged, path, yaml};

/// The ECR registry of the account.
const ECR: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
/// The repositories that all tenants may pull.
const IMAGES: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared";

/// How a tenant is isolated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Pool,
    Silo,
    Fargate,
}

/// A tenant, and the cluster in which it is tested.
pub struct Home {
    baseline: &'static LazyLock<Baseline>,
    pub id: &'static str,
    /// The lowest of its 256 user and group IDs.
    pub first: u32,
    other_id: &'static str,
    other_first: u32,
    isolation: Isolation,
    /// Whether the Kubernetes version has mutating policies.
    pub mutates: bool,
    prepared: OnceLock<()>,
}

const RED_IDS: (&str, u32) = ("red", 813_747_456);
const BLUE_IDS: (&str, u32) = ("blue", 2_003_212_544);

pub static RED: Home = home(&POOL, true, RED_IDS, BLUE_IDS, Isolation::Pool);
pub static GREEN: Home = home(&POOL, true, ("green", 1_100_857_856), RED_IDS, Isolation::Pool);
pub static SKY: Home = home(&POOL, true, ("sky", 1_982_271_488), RED_IDS, Isolation::Fargate);
pub static GOLD: Home = home(&SILO, true, ("gold", 616_785_408), RED_IDS, Isolation::Silo);
pub static OLD_RED: Home = home(&OLDER, false, RED_IDS, BLUE_IDS, Isolation::Pool);
pub static OLD_GREEN: Home = home(&OLDER, false, ("green", 1_100_857_856), RED_IDS, Isolation::Pool);

const fn home(
    baseline: &'static LazyLock<Baseline>,
    mutates: bool,
    (id, first): (&'static str, u32),
    (other_id, other_first): (&'static str, u32),
    isolation: Isolation,
) -> Home {
    Home { baseline, mutates, id, first, other_id, other_first, isolation, prepared: OnceLock::new() }
}

impl Home {
    pub fn admin(&self) -> Api<'_> {
        self.baseline.plane.admin()
    }

    /// A user of the tenant.
    pub fn person(&self) -> Api<'_> {
        self.baseline.plane.tenant(self.id)
    }

    /// A user to whom RBAC by mistake gives everything in the tenant's namespace.
    fn mistake(&self) -> Api<'_> {
        self.baseline.plane.user("mistake", &[])
    }

    pub fn namespace(&self) -> String {
        format!("t-{}", self.id)
    }

    /// A namespace like the tenant's, but without Pod Security. So every refusal there comes from our own rules.
    pub fn twin(&self) -> String {
        format!("twin-{}", self.id)
    }

    /// Makes the twin, and the objects that attacks need: a service account that isn't declared, a runtime class, a
    /// priority class of somebody else.
    pub fn prepare(&self) {
        self.prepared.get_or_init(|| {
            let admin = self.admin();
            let mut twin = admin.get(&format!("/api/v1/namespaces/{}", self.namespace())).ok();
            let kept = |map: &Value, also: &[&str]| -> Map<String, Value> {
                let ours = |k: &str| k.starts_with("ringfence.dev/") && !also.contains(&k);
                map.as_object().into_iter().flatten().filter(|(k, _)| ours(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            // Without the labels of ringfence's own objects.
            twin["metadata"] = json!({
                "name": self.twin(),
                "labels": kept(&twin["metadata"]["labels"], &["ringfence.dev/tenancy"]),
                "annotations": kept(&twin["metadata"]["annotations"], &["ringfence.dev/address"]),
            });
            admin.create(&twin).ok();
            for object in [
                json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}),
                json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "foreign"}, "value": 500}),
            ] {
                made(&admin.create(&object));
            }
            for namespace in [self.namespace(), self.twin()] {
                let own = json!({"ringfence.dev/tenant": self.id});
                let metadata = json!({"name": "mistake", "namespace": namespace, "labels": own});
                let rbac = "rbac.authorization.k8s.io";
                let group = json!({"kind": "Group", "apiGroup": rbac, "name": format!("tenant:{}", self.id)});
                let user = json!({"kind": "User", "apiGroup": rbac, "name": "mistake"});
                let subjects = if namespace == self.twin() { vec![user, group] } else { vec![user] };
                for object in [
                    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
                           "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
                    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
                           "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "mistake"}, "subjects": subjects}),
                    json!({"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": false,
                           "metadata": {"name": "ghost", "namespace": namespace, "labels": own}}),
                ] {
                    admin.create(&object).ok();
                }
            }
            let base = self.pod(&self.twin(), self.complete());
            let mut privileged = base.clone();
            privileged["spec"]["containers"][0]["securityContext"]["privileged"] = true.into();
            privileged["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = true.into();
            self.baseline.plane.until("the twin is one of the tenant's namespaces", |_| {
                self.person().try_unjudged(&base).is_ok() && !self.person().try_unjudged(&privileged).is_ok()
            });
        });
    }

    /// The spec of a harmless pod, as its author writes it.
    pub fn plain(&self) -> Value {
        json!({"containers": [self.container("main")]})
    }

    /// The same with all fields that mutating policies fill in.
    pub fn complete(&self) -> Value {
        let mut spec = json!({
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": self.first, "runAsGroup": self.first, "fsGroup": self.first,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self.complete_container("main")],
        });
        if self.isolation == Isolation::Pool {
            spec["nodeSelector"] = json!({"tenantID": self.id});
            spec["tolerations"] = json!([{"key": "tenantID", "operator": "Equal", "value": self.id}]);
        }
        spec
    }

    /// The harmless pod as an author must write it for this Kubernetes version.
    pub fn harmless(&self) -> Value {
        if self.mutates { self.plain() } else { self.complete() }
    }

    fn container(&self, name: &str) -> Value {
        json!({"name": name, "image": format!("{IMAGES}/web:1")})
    }

    pub fn complete_container(&self, name: &str) -> Value {
        json!({
            "name": name,
            "image": format!("{IMAGES}/web:1"),
            "imagePullPolicy": "Always",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        })
    }

    /// Such a pod, as the validating policies see it.
    pub fn pod(&self, namespace: &str, spec: Value) -> Value {
        let mut pod = self.written(namespace, spec);
        if self.isolation == Isolation::Fargate {
            // EKS adds this label itself.
            pod["metadata"]["labels"]["eks.amazonaws.com/fargate-profile"] = format!("t-{}", self.id).into();
            pod["spec"]["schedulerName"] = "fargate-scheduler".into();
            pod["spec"]["priorityClassName"] = "system-node-critical".into();
        }
        pod
    }

    /// Such a pod, as an author writes it in a pod template.
    pub fn written(&self, namespace: &str, spec: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
               "metadata": {"name": "hostile", "namespace": namespace, "labels": {"app": "harmless"}}});
        if !self.mutates {
            pod["metadata"]["labels"]["ringfence.dev/tenant"] = self.id.into();
        }
        pod
    }

    /// What decides like the API server.
    pub fn judge(&self) -> Arc<Judge> {
        self.baseline.plane.judge()
    }

    /// The mutating policies of its cluster, whether its version has any or not.
    pub fn mutating_policies(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.baseline.spec()).unwrap();
        let options = LoadOptions { profiles_dir: Some(inputs().join("profiles")), today: Clock::today() };
        let spec = spec::load(Path::new("tenancy.yaml"), &text, &options).unwrap();
        let templates = Templates::built_in().unwrap();
        stack::mutating_policies(&spec, &Facts::assumed(&spec), &templates, self.id).unwrap()
    }

    /// The text of a file, with this tenant's values.
    pub fn filled(&self, file: &str) -> String {
        let text = fs::read_to_string(inputs().join(file)).unwrap();
        let values = [
            ("$OTHER_ID", self.other_id.to_owned()),
            ("$ID", self.id.to_owned()),
            ("$OTHER_FIRST", self.other_first.to_string()),
            ("$FIRST", self.first.to_string()),
            ("$LAST", (self.first + 255).to_string()),
            ("$BELOW", (self.first - 1).to_string()),
            ("$ABOVE", (self.first + 256).to_string()),
            ("$ECR", ECR.to_owned()),
            ("$POD", self.harmless().to_string()),
        ];
        values.iter().fold(text, |text, (name, value)| text.replace(name, value))
    }

    /// Reads a file of attacks.
    pub fn read(&self, file: &str) -> Vec<Value> {
        let text = self.filled(&format!("hostile/{file}"));
        let Some(Value::Array(attacks)) = yaml(&text).into_iter().next() else { panic!("{file} is a list") };
        attacks.into_iter().filter(|a| !self.is_among(&a["except"])).collect()
    }

    pub fn is_among(&self, kinds: &Value) -> bool {
        let own = match self.isolation {
            Isolation::Pool => "pool",
            Isolation::Silo => "silo",
            Isolation::Fargate => "fargate",
        };
        let balancers = if matches!(self.id, "green" | "gold") { "load-balancers" } else { "no-load-balancers" };
        let ports = if self.id == "green" { "node-ports" } else { "no-node-ports" };
        let stamped = if self.mutates { "stamped" } else { "not-stamped" };
        let tags = [self.id, own, balancers, ports, stamped];
        kinds.as_array().is_some_and(|k| tags.iter().any(|tag| k.contains(&(*tag).into())))
    }
}

pub fn inputs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes")
}

/// Unexpected results. All of them are reported at the end.
#[derive(Default)]
pub struct Findings {
    tried: usize,
    wrong: Vec<String>,
}

impl Findings {
    /// `control` may name several controls, of which any may refuse, or be `server`.
    pub fn refused(&mut self, what: &str, control: &str, answer: &Answer) {
        let by = |c: &str| c == "server" || answer.message().contains(&format!(" denied request: {c}: "));
        let refused = matches!(answer.status, 403 | 422);
        self.expect(refused && control.split('|').any(by), what, &format!("refused by {control}"), answer);
    }

    pub fn admitted(&mut self, what: &str, answer: &Answer) {
        self.expect(answer.is_ok(), what, "admitted", answer);
    }

    pub fn expect(&mut self, right: bool, what: &str, wanted: &str, answer: &Answer) {
        self.tried += 1;
        if !right {
            let message: String = answer.message().chars().take(400).collect();
            self.wrong.push(format!("{what}: not {wanted}, but {} {message}", answer.status));
        }
    }

    fn and(mut self, more: Self) -> Self {
        self.tried += more.tried;
        self.wrong.extend(more.wrong);
        self
    }

    #[track_caller]
    pub fn none(self) {
        let mut text = format!("{} of {} went wrong:", self.wrong.len(), self.tried);
        self.wrong.iter().for_each(|w| write!(text, "\n- {w}").unwrap());
        assert!(self.tried > 0 && self.wrong.is_empty(), "{text}");
    }
}

/// Kinds that make pods, and the path of their pod template.
pub const WORKLOADS: [(&str, &str, &str); 7] = [
    ("apps/v1", "Deployment", "/spec/template"),
    ("apps/v1", "ReplicaSet", "/spec/template"),
    ("apps/v1", "StatefulSet", "/spec/template"),
    ("apps/v1", "DaemonSet", "/spec/template"),
    ("batch/v1", "Job", "/spec/template"),
    ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template"),
    ("v1", "ReplicationController", "/spec/template"),
];

/// A workload of this kind whose template is such a pod.
pub fn workload(api: &str, kind: &str, pod: &Value) -> Value {
    let mut template = json!({"metadata": pod["metadata"], "spec": pod["spec"]});

    let own = labels(pod).into_iter().filter(|(k, _)| k == "ringfence.dev/tenant").collect::<BTreeMap<_, _>>();
    let metadata = json!({"name": "hostile", "namespace": pod["metadata"]["namespace"], "labels": own});
    template["metadata"].as_object_mut().unwrap().retain(|k, _| k != "name" && k != "namespace");
    if kind.ends_with("Job") {
        template["spec"]["restartPolicy"] = "Never".into();
    }
    let selector = json!({"app": "harmless"});
    let spec = match kind {
        "Job" => json!({"template": template}),
        "CronJob" => json!({"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}}),
        "ReplicationController" => json!({"selector": selector, "template": template}),
        "StatefulSet" => json!({"serviceName": "x", "selector": {"matchLabels": selector}, "template": template}),
        _ => json!({"selector": {"matchLabels": selector}, "template": template}),
    };
    json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec})
}

/// The list of containers into which an attack is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The attack is in the pod itself, not in a container.
    Pod,
    Containers,
    InitContainers,
}

impl Place {
    pub fn all(attack: &Value) -> &'static [Place] {
        if attack["container"].is_null() { &[Place::Pod] } else { &[Place::Containers, Place::InitContainers] }
    }

    pub fn field(self) -> &'static str {
        match self {
            Place::Pod => "",
            Place::Containers => "containers",
            Place::InitContainers => "initContainers",
        }
    }
}

/// The harmless pod with the attack merged into it. The hostile container is the second of its kind, so that a rule
/// that only checks the first one is found.
pub fn made_hostile(pod: &Value, attack: &Value, place: Place) -> Value {
    let mut pod = pod.clone();
    for field in ["metadata", "spec"] {
        if !attack[field].is_null() {
            pod[field] = merged(pod[field].take(), &attack[field]);
        }
    }
    if place != Place::Pod {
        let mut harmless = pod["spec"]["containers"][0].clone();
        let mut hostile = merged(harmless.clone(), &attack["container"]);
        hostile["name"] = "second".into();
        if place == Place::InitContainers {
            harmless["name"] = "first".into();
            // Only init containers that keep running may have probes and hooks.
            hostile["restartPolicy"] = "Always".into();
        }
        pod["spec"][place.field()] = json!([harmless, hostile]);
    }
    pod
}

pub fn name(attack: &Value) -> &str {
    attack["name"].as_str().unwrap()
}

/// The control that must refuse. `server` if Pod Security has refused already.
fn control<'a>(attack: &'a Value, beside: bool, answer: &Answer) -> &'a str {
    if beside && answer.message().contains("violates PodSecurity \"restricted:v1.34\"") {
        return "server";
    }
    attack["control"].as_str().unwrap()
}

/// A run of a file's attacks for one tenant.
struct Trial {
    home: &'static Home,
    attacks: Vec<Value>,
    findings: Findings,
}

impl Trial {
    /// Tries every attack as a pod without Pod Security, as a pod with it, in every kind that makes pods (created and
    /// updated), and as ephemeral containers.
    fn of(home: &'static Home, file: &str) -> Findings {
        home.prepare();
        let mut trial = Self { home, attacks: home.read(file), findings: Findings::default() };
        let harmless = if home.mutates { vec![home.plain(), home.complete()] } else { vec![home.complete()] };
        let Home { id, .. } = home;
        trial.pods(&format!("Pod of {id}"), &home.pod(&home.namespace(), home.harmless()), true);
        for spec in harmless {
            trial.pods(&format!("Pod of {id} without Pod Security"), &home.pod(&home.twin(), spec), false);
        }
        for (api, kind, template) in WORKLOADS {
            trial.workloads(api, kind, template);
        }
        trial.updates();
        trial.ephemeral(&home.namespace());
        trial.ephemeral(&home.twin());
        trial.findings
    }

    fn pods(&mut self, what: &str, base: &Value, beside: bool) {
        let by = self.home.person();
        self.findings.admitted(&format!("{what}: harmless"), &by.try_create(base));
        self.each(what, beside, "", |attack, place| by.try_create(&made_hostile(base, attack, place)));
    }

    fn workloads(&mut self, api: &str, kind: &str, template: &str) {
        let base = self.home.written(&self.home.namespace(), self.home.harmless());
        let harmless = workload(api, kind, &base);
        let mut by = self.home.person();
        // If RBAC refuses the tenant, the attack is tried with more rights: admission must refuse, too.
        if by.try_create(&harmless).message().contains("cannot create resource") {
            by = self.home.admin();
        }
        let what = format!("{kind} of {}", self.home.id);
        self.findings.admitted(&format!("{what}: harmless"), &by.try_create(&harmless));
        self.each(&what, false, template, |attack, place| {
            by.try_create(&workload(api, kind, &made_hostile(&base, attack, place)))
        });
    }

    /// A harmless Deployment that an update makes hostile.
    fn updates(&mut self) {
        let base = self.home.written(&self.home.namespace(), self.home.harmless());
        let own = json!({"metadata": {"name": "kept"}, "spec": {"replicas": 0}});
        let kept = merged(workload("apps/v1", "Deployment", &base), &own);
        let by = self.home.person();
        made(&by.create(&kept));
        let at = format!("{}?dryRun=All", path(&kept));
        let what = format!("Deployment of {}, updated", self.home.id);
        self.findings.admitted(&format!("{what}: harmless"), &by.put(&at, &kept));
        self.each(&what, false, "/spec/template", |attack, place| {
            by.put(&at, &merged(workload("apps/v1", "Deployment", &made_hostile(&base, attack, place)), &own))
        });
    }

    /// Sends every attack and checks the answer. With `beside`, Pod Security is active, too, and may refuse first.
    fn each(&mut self, what: &str, beside: bool, template: &str, send: impl Fn(&Value, Place) -> Answer) {
        for attack in &self.attacks {
            for place in Place::all(attack) {
                let answer = send(attack, *place);
                let what = format!("{what}, {}: {}", place.field(), name(attack));
                let spec = answer.body.pointer(template).map_or(&Value::Null, |t| &t["spec"]);
                let stamped = match place {
                    _ if attack["becomes"].is_null() || !answer.is_ok() => false,
                    // The template may stay as it is: its pods are filled in.
                    _ if !template.is_empty() && self.home.mutates => true,
                    Place::Pod => has(spec, &attack["becomes"]),
                    _ => has(&spec[place.field()][1], &attack["becomes"]),
                };
                if !stamped {
                    self.findings.refused(&what, control(attack, beside, &answer), &answer);
                }
            }
        }
    }

    /// Tries the attacks on containers as ephemeral containers of a running pod.
    fn ephemeral(&mut self, namespace: &str) {
        let mut pod = self.home.pod(namespace, self.home.harmless());
        pod["metadata"]["name"] = "debugged".into();
        made(&self.home.person().create(&pod));
        let at = format!("{}/ephemeralcontainers?dryRun=All", path(&pod));
        let patch = |container: &Value| json!({"spec": {"ephemeralContainers": [container]}});
        let harmless = self.home.complete_container("debug");
        let beside = namespace == self.home.namespace();
        let what = format!("ephemeral container in {namespace}");
        // RBAC refuses tenants. Admission must refuse, too.
        if beside {
            let answer = self.home.person().patch(&at, &patch(&harmless));
            self.findings.expect(answer.status == 403, &what, "refused by RBAC", &answer);
        }
        self.findings.admitted(&format!("{what}: harmless"), &self.home.admin().patch(&at, &patch(&harmless)));
        for attack in self.attacks.iter().filter(|a| !a["container"].is_null() && a["spec"].is_null()) {
            let container = merged(harmless.clone(), &attack["container"]);
            let answer = self.home.admin().patch(&at, &patch(&container));
            let what = format!("{what}: {}", name(attack));
            // The server accepts none of these fields in ephemeral containers.
            let never = ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"];
            let control = match never.iter().any(|f| !container[*f].is_null()) {
                true => "server",
                false => control(attack, beside, &answer),
            };
            let found = &answer.body["spec"]["ephemeralContainers"][0];
            if attack["becomes"].is_null() || !answer.is_ok() || !has(found, &attack["becomes"]) {
                self.findings.refused(&what, control, &answer);
            }
        }
    }
}

/// Asserts that the object was created now, or existed before.
#[track_caller]
pub fn made(answer: &Answer) {
    assert!(answer.is_ok() || answer.status == 409, "{}: {}", answer.status, answer.message());
}

/// Whether a merge patch would change nothing.
pub fn has(object: &Value, patch: &Value) -> bool {
    merged(object.clone(), patch) == *object
}

#[test]
fn hostile_pods_of_a_shared_cluster_are_refused() {
    Trial::of(&RED, "pods.yaml").none();
}

#[test]
fn hostile_pods_are_refused_where_nothing_is_stamped() {
    Trial::of(&OLD_RED, "pods.yaml").none();
}

#[test]
fn what_is_missing_is_asked_for_where_nothing_is_stamped() {
    Trial::of(&OLD_RED, "absent.yaml").none();
}

#[test]
fn hostile_pods_of_a_silo_are_refused() {
    Trial::of(&GOLD, "pods.yaml").none();
}

#[test]
fn hostile_pods_on_fargate_are_refused() {
    Trial::of(&SKY, "pods.yaml").none();
}

/// Pods with the changes that EKS makes before validation.
#[test]
fn what_eks_writes_into_fargate_pods_is_admitted_and_no_more() {
    let eks = |profile: &str| {
        let mut pod = SKY.pod("t-sky", SKY.plain());
        pod["metadata"]["labels"]["eks.amazonaws.com/fargate-profile"] = profile.into();
        pod["metadata"]["annotations"] = json!({"Logging": "LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND"});
        pod["spec"]["schedulerName"] = "fargate-scheduler".into();
        pod["spec"]["priorityClassName"] = "system-node-critical".into();
        pod
    };
    // The volume that IRSA's webhook adds for a service account with a role.
    let token = |audience: &str| {
        json!({"name": "aws-iam-token", "projected": {"sources": [
        {"serviceAccountToken": {"audience": audience, "expirationSeconds": 86400, "path": "token"}}]}})
    };
    let mut findings = Findings::default();
    let sky = SKY.person();
    findings.admitted("its own profile", &sky.try_create(&eks("t-sky")));
    let unchanged = SKY.written("t-sky", SKY.plain());
    findings.refused("a pod that would run elsewhere", "NODE-3", &sky.try_create(&unchanged));
    for (what, profile) in [("another tenant's", "t-red"), ("one that begins alike", "t-sky2"), ("none", "")] {
        findings.refused(&format!("profile: {what}"), "NODE-3", &sky.try_create(&eks(profile)));
    }
    let mut pod = eks("t-sky");
    pod["spec"]["serviceAccountName"] = "courier".into();
    pod["spec"]["volumes"] = json!([token("sts.amazonaws.com")]);
    findings.admitted("a token for its role", &sky.try_create(&pod));
    pod["spec"]["volumes"] = json!([token("https://kubernetes.default.svc")]);
    findings.refused("a token for the API server", "API-1", &sky.try_create(&pod));
    let cases = [
        (json!({"schedulerName": "evil"}), "NODE-2"),
        (json!({"priorityClassName": "system-cluster-critical"}), "QUOTA-1"),
        (json!({"nodeSelector": {"tenantID": "red"}}), "NODE-2"),
        (json!({"tolerations": [{"key": "tenantID", "value": "red"}]}), "NODE-1"),
        (json!({"hostNetwork": true}), "POD-5"),
        (json!({"nodeName": "x"}), "NODE-2"),
    ];
    for (change, control) in cases {
        let pod = merged(eks("t-sky"), &json!({"spec": change}));
        let answer = sky.try_create(&pod);
        let beside = answer.message().contains("violates PodSecurity");
        findings.refused(&change.to_string(), if beside { "server" } else { control }, &answer);
    }
    findings.none();
}

/// The tier that allows everything that a tier can allow: nothing more is allowed.
#[test]
fn a_tier_allows_exactly_what_it_lists() {
    GREEN.prepare();
    let mut findings = Findings::default();
    let green = GREEN.person();
    let pod = |change: Value| merged(GREEN.pod("t-green", GREEN.plain()), &json!({"spec": change}));
    let container = |change: Value| json!({"containers": [merged(GREEN.container("main"), &change)]});
    let host = |path: &str, read_only: &[bool]| {
        let mounts: Vec<_> = read_only
            .iter()
            .enumerate()
            .map(|(i, r)| json!({"name": "h", "mountPath": format!("/m{i}"), "readOnly": r}))
            .collect();
        merged(
            container(json!({"volumeMounts": mounts})),
            &json!({"volumes": [{"name": "h", "hostPath": {"path": path}}]}),
        )
    };
    let profile =
        |p: &str| json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": p}}});
    let token = |audience: &str| {
        json!({"serviceAccountName": "builder", "volumes": [{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"audience": audience, "path": "t"}}]}}]})
    };
    let add = |c: &str| container(json!({"securityContext": {"capabilities": {"add": [c], "drop": ["ALL"]}}}));
    let image = |i: &str| container(json!({"image": i}));
    for (what, change) in [
        ("its host path, read-only", host("/opt/models", &[true])),
        ("its host path, read-only twice", host("/opt/models", &[true, true])),
        ("its host path, not mounted", host("/opt/models", &[])),
        ("its seccomp profile", profile("profiles/audit.json")),
        ("its seccomp profile in a container", container(profile("profiles/audit.json"))),
        ("the API server's token", json!({"serviceAccountName": "builder", "automountServiceAccountToken": true})),
        (
            "the API server's token in a volume",
            json!({"serviceAccountName": "builder", "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
        ),
        ("what Pod Identity adds", token("pods.eks.amazonaws.com")),
        ("a permitted capability", add("NET_BIND_SERVICE")),
        ("another permitted capability", add("CHOWN")),
        ("its registry", image("registry.k8s.io/pause:3.10")),
        (
            "its registry by digest",
            image("registry.k8s.io/pause@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ),
    ] {
        findings.admitted(what, &green.try_create(&pod(change)));
    }
    let ephemeral = json!({"initContainers": [{"name": "i", "image": format!("{IMAGES}/x"), "volumeMounts": [{"name": "h", "mountPath": "/m"}]}]});
    for (what, control, change) in [
        ("its host path, to write", "POD-4", host("/opt/models", &[false])),
        ("its host path, once to write", "POD-4", host("/opt/models", &[true, false])),
        ("its host path, to write while starting", "POD-4", merged(host("/opt/models", &[true]), &ephemeral)),
        ("a host path that begins alike", "POD-4", host("/opt/models-secret", &[true])),
        ("the host path above", "POD-4", host("/opt", &[true])),
        ("the root", "POD-4", host("/", &[true])),
        ("a way up", "POD-4|server", host("/opt/models/../../etc", &[true])),
        ("a way up at the end", "POD-4|server", host("/opt/models/..", &[true])),
        ("another host path below the same name", "POD-4", host("/mnt/opt/models", &[true])),
        ("the host path in another case", "POD-4", host("/opt/Models", &[true])),
        ("another seccomp profile", "POD-6", profile("profiles/other.json")),
        ("a seccomp profile that begins alike", "POD-6", profile("profiles/audit.json.d/x")),
        ("no seccomp profile", "POD-6|server", json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
        ("another capability", "POD-2|server", add("SYS_ADMIN")),
        ("a capability in lower case", "POD-2|server", add("chown")),
        ("a token for another audience", "API-1", token("vault.example.com")),
        ("a host that begins as its registry", "ADM-3", image("registry.k8s.io.evil.io/x")),
        ("a host that begins as its registry, without a dot", "ADM-3", image("registry.k8s.iox/y")),
        ("its registry as a name", "ADM-3", image("registry.k8s.io@evil.io/x")),
        ("its registry as a name and password", "ADM-3", image("registry.k8s.io:x@evil.io/x")),
        ("its registry as an image of Docker Hub", "ADM-3", image("registry.k8s.io")),
        ("its registry as an image of Docker Hub with a tag", "ADM-3", image("registry.k8s.io:latest")),
        (
            "its registry as an image of Docker Hub with a digest",
            "ADM-3",
            image("registry.k8s.io@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ),
        ("a dot that any letter matches", "ADM-3", image("registryxk8s.io/x")),
        ("another tenant's priority", "QUOTA-1", json!({"priorityClassName": "ringfence-standard-10000"})),
    ] {
        findings.refused(what, control, &green.try_create(&pod(change)));
    }
    findings.none();
}

/// A tier with sessions lets its tenants add ephemeral containers to their Pods. The rules for containers apply.
#[test]
fn ephemeral_containers_follow_the_rules() {
    GREEN.prepare();
    let mut findings = Findings::default();
    let green = GREEN.person();
    let volume = json!({"volumes": [{"name": "h", "hostPath": {"path": "/opt/models"}}]});
    let mut running = merged(GREEN.pod("t-green", GREEN.plain()), &json!({"spec": volume}));
    running["metadata"]["name"] = "models".into();
    green.create(&running);
    let at = format!("{}/ephemeralcontainers?dryRun=All", path(&running));
    let debug = |read_only: bool| {
        let mounts = json!({"volumeMounts": [{"name": "h", "mountPath": "/m", "readOnly": read_only}]});
        json!({"spec": {"ephemeralContainers": [merged(GREEN.complete_container("d"), &mounts)]}})
    };
    findings.admitted("ephemeral, read-only", &green.patch(&at, &debug(true)));
    findings.refused("ephemeral, to write", "POD-4", &green.patch(&at, &debug(false)));
    for (what, control, change) in [
        ("privileged", "POD-1|server", json!({"securityContext": {"privileged": true}})),
        ("another capability", "POD-2|server", json!({"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}})),
        ("root", "POD-3|server", json!({"securityContext": {"runAsUser": 0}})),
        ("without seccomp", "POD-6|server", json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
        ("another registry's image", "ADM-3", json!({"image": "docker.io/library/busybox"})),
    ] {
        let container = merged(GREEN.complete_container("d"), &change);
        let patch = json!({"spec": {"ephemeralContainers": [container]}});
        findings.refused(&format!("ephemeral, {what}"), control, &green.patch(&at, &patch));
    }
    findings.none();
}

/// Objects other than pods: created hostile, and made hostile by an update.
fn objects(home: &Home) -> Findings {
    home.prepare();
    let mut findings = Findings::default();
    for group in home.read("objects.yaml") {
        let mut harmless = group["object"].clone();
        harmless["metadata"]["namespace"] = home.namespace().into();
        if !home.mutates {
            harmless["metadata"]["labels"] = json!({"ringfence.dev/tenant": home.id});
        }
        let kind = harmless["kind"].as_str().unwrap().to_owned();
        let by = if group["by"] == "tenant" { home.person() } else { home.mistake() };
        if group["by"] != "tenant" {
            let answer = home.person().try_create(&harmless);
            let refused = answer.status == 403 && answer.message().contains("cannot create resource");
            findings.expect(refused, &format!("{kind} by a tenant"), "refused by RBAC", &answer);
        }
        findings.admitted(&format!("{kind} in {}: harmless", home.namespace()), &by.try_create(&harmless));
        let kept = merged(harmless.clone(), &json!({"metadata": {"name": "kept"}}));
        made(&by.create(&kept));
        for attack in group["changes"].as_array().unwrap().iter().filter(|a| !home.is_among(&a["except"])) {
            let what = format!("{kind} in {}: {}", home.namespace(), name(attack));
            let rule = attack["control"].as_str().unwrap();
            findings.refused(&what, rule, &by.try_create(&merged(harmless.clone(), &attack["change"])));
            let answer = by.patch(&format!("{}?dryRun=All", path(&kept)), &attack["change"]);
            // Some fields can't be changed at all. That is as good as a refusal.
            let fixed = answer.status == 422 && !answer.message().contains("denied request");
            findings.refused(&format!("{what} (update)"), if fixed { "server" } else { rule }, &answer);
        }
    }
    findings
}

#[test]
fn hostile_objects_of_a_shared_cluster_are_refused() {
    objects(&RED).none();
}

#[test]
fn hostile_objects_are_refused_whatever_a_tier_opens() {
    objects(&GREEN).none();
}

#[test]
fn hostile_objects_are_refused_where_nothing_is_stamped() {
    objects(&OLD_RED).and(objects(&OLD_GREEN)).none();
}

#[test]
fn hostile_objects_of_a_silo_and_on_fargate_are_refused() {
    objects(&GOLD).and(objects(&SKY)).none();
}

/// In a tier without load balancers, an Ingress is refused, too.
#[test]
fn an_ingress_is_a_load_balancer() {
    let mut findings = Findings::default();
    for home in [&RED, &OLD_RED, &SKY] {
        home.prepare();
        let labels = json!({"ringfence.dev/tenant": home.id});
        let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "x", "namespace": home.namespace(), "labels": labels},
            "spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}});
        findings.refused(home.id, "NET-3", &home.mistake().try_create(&ingress));
    }
    findings.none();
}

/// Requests that reach beyond the namespace or act as somebody else.
#[test]
fn rbac_refuses_the_rest() {
    let mut findings = Findings::default();
    for home in [&RED, &GREEN, &SKY, &GOLD, &OLD_RED] {
        for attack in home.read("forbidden.yaml") {
            // GREEN's tier opens sessions.
            if home.id == GREEN.id && attack["sessions"] == true {
                continue;
            }
            let (verb, path) = attack["call"].as_str().unwrap().split_once(' ').unwrap();
            let api = home.person();
            let answer = match verb {
                "GET" => api.get(path),
                "DELETE" => api.delete(path),
                "PATCH" => api.patch(path, &attack["body"]),
                _ => api.post(path, &attack["body"]),
            };
            let refused = answer.status == 403 && answer.message().contains(" cannot ");
            findings.expect(refused, &format!("{}: {}", home.id, name(&attack)), "refused by RBAC", &answer);
        }
    }
    findings.none();
}

/// Fields of a pod that may change while it runs.
#[test]
fn pods_cant_be_made_hostile_later() {
    let mut findings = Findings::default();
    for home in [&RED, &OLD_RED, &GOLD, &SKY] {
        home.prepare();
        let mut pod = home.pod(&home.namespace(), home.harmless());
        pod["metadata"]["name"] = "settled".into();
        pod["spec"]["initContainers"] = json!([merged(pod["spec"]["containers"][0].clone(), &json!({"name": "init"}))]);
        let created = home.person().create(&pod).ok();
        let at = format!("{}?dryRun=All", path(&pod));
        let list = |field: &str, change: Value| {
            let mut list = created["spec"][field].clone();
            list[0] = merged(list[0].take(), &change);
            json!({"spec": {field: list}})
        };
        let tolerating = |toleration: Value| {
            let mut tolerations = created["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
            tolerations.push(toleration);
            json!({"spec": {"tolerations": tolerations}})
        };
        findings.admitted("a label", &home.person().patch(&at, &json!({"metadata": {"labels": {"a": "b"}}})));
        let new = list("containers", json!({"image": format!("{IMAGES}/web:2")}));
        findings.admitted("a newer image", &home.person().patch(&at, &new));
        let cases = [
            ("ADM-3", list("containers", json!({"image": "evil.io/x"}))),
            ("ADM-3", list("initContainers", json!({"image": format!("{ECR}.evil.io/x")}))),
            ("NODE-1", tolerating(json!({"operator": "Exists"}))),
            ("NODE-1", tolerating(json!({"key": "tenantID", "value": home.other_id}))),
            ("NODE-1", tolerating(json!({"key": "CriticalAddonsOnly", "operator": "Exists"}))),
            ("NODE-3", json!({"metadata": {"labels": {"eks.amazonaws.com/fargate-profile": "t-other"}}})),
            ("NS-2", json!({"metadata": {"labels": {"ringfence.dev/tenancy": "acme"}}})),
        ];
        for (control, change) in cases {
            findings.refused(&format!("{} {change}", home.id), control, &home.person().patch(&at, &change));
        }
        // A resize beyond the namespace's limits, by a user who may resize.
        let resize = format!("{}/resize?dryRun=All", path(&pod));
        let larger = json!({"spec": {"containers": [merged(created["spec"]["containers"][0].clone(),
            &json!({"resources": {"limits": {"cpu": "900"}}}))]}});
        let answer = home.person().patch(&resize, &larger);
        findings.expect(answer.status == 403, "resize by a tenant", "refused", &answer);
        let answer = home.admin().patch(&resize, &larger);
        findings.expect(answer.status == 403 && answer.message().contains("maximum cpu"), "resize", "refused", &answer);
    }
    findings.none();
}

/// A policy that refuses everything would pass the tests above. So pods that only look like attacks, and pods with
/// empty fields, must be admitted.
#[test]
fn pods_that_only_look_hostile_are_admitted() {
    let mut findings = Findings::default();
    let claim = json!({"storageClassName": "gp3", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let volume = |source: Value| json!({"volumes": [merged(json!({"name": "v"}), &source)]});
    let container = |change: Value| json!({"containers": [change]});
    let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "harmless"}}}]}});
    let own = |home: &Home| {
        json!({"runAsUser": home.first + 7, "runAsGroup": home.first + 9, "fsGroup": home.first + 9,
        "supplementalGroups": [home.first + 255]})
    };
    let cases = |home: &Home| {
        vec![
            json!({"securityContext": {}, "volumes": [], "tolerations": [], "nodeSelector": {}, "affinity": {}, "hostAliases": []}),
            json!({"hostNetwork": false, "hostPID": false, "hostIPC": false, "nodeName": "", "priorityClassName": ""}),
            container(json!({"securityContext": {}, "ports": [], "volumeMounts": [], "resources": {}})),
            container(
                json!({"securityContext": {"privileged": false, "capabilities": {}, "seLinuxOptions": {}, "windowsOptions": {}}}),
            ),
            container(
                json!({"securityContext": {"capabilities": {"add": [], "drop": ["ALL", "NET_RAW"]}, "procMount": "Default"}}),
            ),
            container(
                json!({"ports": [{"containerPort": 8080, "hostPort": 0}], "livenessProbe": {"httpGet": {"port": 8080, "host": ""}},
                "readinessProbe": {"tcpSocket": {"port": 8080}}, "startupProbe": {"grpc": {"port": 9090}},
                "lifecycle": {"preStop": {"exec": {"command": ["true"]}}, "postStart": {"sleep": {"seconds": 1}}}}),
            ),
            container(
                json!({"image": "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com/acme/shared/team/web/api@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}),
            ),
            json!({"securityContext": own(home)}),
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}], "seLinuxOptions": {}}}),
            json!({"hostUsers": false}),
            json!({"affinity": affinity, "shareProcessNamespace": true, "enableServiceLinks": false, "terminationGracePeriodSeconds": 5}),
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]}),
            volume(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}})),
            volume(json!({"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "x"}},
                {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}})),
            volume(json!({"persistentVolumeClaim": {"claimName": "x"}})),
            volume(json!({"ephemeral": {"volumeClaimTemplate": {"spec": claim}}})),
            volume(json!({"image": {"reference": format!("{IMAGES}/models:1"), "pullPolicy": "Always"}})),
        ]
    };
    for home in [&RED, &GOLD, &SKY] {
        for case in cases(home) {
            let mut spec = merged(home.plain(), &case);
            if !case["containers"].is_null() {
                spec["containers"] = json!([merged(home.container("main"), &case["containers"][0])]);
            }
            let answer = home.person().try_create(&home.pod(&home.namespace(), spec.clone()));
            findings.admitted(&format!("Pod of {}: {case}", home.id), &answer);
            let answer =
                home.person().try_create(&workload("apps/v1", "Deployment", &home.written(&home.namespace(), spec)));
            findings.admitted(&format!("Deployment of {}: {case}", home.id), &answer);
        }
    }
    findings.none();
}

/// Quota and limits of the namespace (rows 28, 30, 47).
#[test]
fn pods_are_limited() {
    let mut findings = Findings::default();
    for home in [&RED, &GOLD, &SKY, &OLD_RED] {
        let pod = home.pod(&home.namespace(), home.harmless());
        let answer = home.person().try_create(&pod);
        for resource in ["cpu", "memory", "ephemeral-storage"] {
            let limit = &answer.body["spec"]["containers"][0]["resources"]["limits"][resource];
            findings.expect(limit.is_string(), resource, "limited by default", &answer);
            let mut greedy = pod.clone();
            greedy["spec"]["containers"][0]["resources"] = json!({"limits": {resource: "100Ti"}});
            let answer = home.person().try_create(&greedy);
            let refused = answer.status == 403 && answer.message().contains(&format!("maximum {resource}"));
            findings.expect(refused, &format!("{} {resource}", home.id), "refused by the limits", &answer);
        }
        let whole = merged(pod.clone(), &json!({"spec": {"resources": {"limits": {"cpu": "4000"}}}}));
        let answer = home.person().try_create(&whole);
        let refused = answer.status == 403 && answer.message().contains("exceeded quota");
        findings.expect(refused, &format!("{} all containers", home.id), "refused by the quota", &answer);
    }
    findings.none();
}

/// The labels and annotations of a tenant's namespace say who owns it and which rules apply. A user who may only edit
/// namespaces can't change them.
#[test]
fn tenants_cannot_change_the_labels_of_their_namespaces() {
    let mut findings = Findings::default();
    for home in [&RED, &OLD_RED, &GOLD] {
        let admin = home.admin();
        let rbac = "rbac.authorization.k8s.io";
        admin
            .create(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "namespaces"},
                "rules": [{"apiGroups": [""], "resources": ["namespaces", "namespaces/status", "namespaces/finalize"], "verbs": ["*"]}]}))
            .ok();
        admin
            .create(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "namespaces"},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "namespaces"},
                "subjects": [{"apiGroup": rbac, "kind": "User", "name": "editor"}]}))
            .ok();
        let editor = home.baseline.plane.user("editor", &[]);
        let at = format!("/api/v1/namespaces/{}", home.namespace());
        home.baseline.plane.until("the editor may edit", |_| editor.get(&at).is_ok());
        let live = admin.get(&at).ok();
        let mut changes = vec![
            json!({"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}),
            json!({"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}),
            json!({"labels": {"pod-security.kubernetes.io/enforce": null}}),
            json!({"labels": {"pod-security.kubernetes.io/enforce-version": "latest"}}),
            json!({"labels": {"pod-security.kubernetes.io/enforce-version": null}}),
            json!({"labels": {"pod-security.kubernetes.io/audit": null}}),
            json!({"labels": {"pod-security.kubernetes.io/warn": "privileged"}}),
            json!({"labels": {"ringfence.dev/tenant": home.other_id}}),
            json!({"labels": {"ringfence.dev/tenant": ""}}),
            json!({"labels": {"ringfence.dev/tenant": null}}),
            json!({"labels": {"ringfence.dev/tenancy": null}}),
            json!({"labels": null}),
            json!({"annotations": {"ringfence.dev/new": "x"}}),
        ];
        for name in live["metadata"]["annotations"].as_object().into_iter().flatten().map(|(k, _)| k) {
            changes.push(json!({"annotations": {name: "x"}}));
            changes.push(json!({"annotations": {name: null}}));
        }
        findings.admitted(
            "a label of its own",
            &editor.patch(&format!("{at}?dryRun=All"), &json!({"metadata": {"labels": {"a": "b"}}})),
        );
        for change in changes {
            let change = json!({"metadata": change});
            for part in ["", "/status"] {
                let answer = editor.patch(&format!("{at}{part}?dryRun=All"), &change);
                findings.refused(&format!("{}{part} {change}", home.id), "NS-1|NS-2|ADM-1", &answer);
            }
            let whole = merged(live.clone(), &change);
            let answer = editor.put(&format!("{at}/finalize?dryRun=All"), &whole);
            let same = answer.is_ok()
                && answer.body["metadata"]["labels"] == live["metadata"]["labels"]
                && answer.body["metadata"]["annotations"] == live["metadata"]["annotations"];
            if !same {
                findings.refused(&format!("{}/finalize {change}", home.id), "NS-1|NS-2|ADM-1", &answer);
            }
        }
        // A namespace that pretends to be a tenant's: created so, or changed into one.
        let posing = |name: &str, id: &str| {
            json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"ringfence.dev/tenant": id}}})
        };
        for id in [home.id, home.other_id, "nobody", ""] {
            let answer = editor.try_create(&posing("posing", id));
            findings.refused(&format!("a namespace of {id:?}"), "NS-1|NS-2", &answer);
        }
        let plain = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plain"}});
        findings.admitted("a namespace of nobody's", &editor.create(&plain));
        let change = json!({"metadata": {"labels": {"ringfence.dev/tenant": home.id}}});
        for part in ["", "/status"] {
            let answer = editor.patch(&format!("/api/v1/namespaces/plain{part}?dryRun=All"), &change);
            findings.refused(&format!("a namespace that becomes the tenant's{part}"), "NS-1|NS-2", &answer);
        }
        findings.refused("the tenant's namespace gone", "NS-1", &editor.delete(&format!("{at}?dryRun=All")));
        findings.admitted("nobody's namespace gone", &editor.delete("/api/v1/namespaces/plain?dryRun=All"));
    }
    findings.none();
}

/// Only Kubernetes' own controllers may write endpoints, even if RBAC allows others to (rows 2, 4).
#[test]
fn endpoints_are_the_controllers() {
    let mut findings = Findings::default();
    for home in [&RED, &OLD_RED, &GOLD] {
        home.prepare();
        let namespace = home.namespace();
        let metadata = json!({"name": "routed", "namespace": namespace, "labels": {"ringfence.dev/tenant": home.id}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": {"app": "harmless"}, "ports": [{"port": 80}]}});
        home.person().create(&service).ok();
        let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        let own = format!("{slices}?labelSelector=kubernetes.io/service-name%3Drouted");
        home.baseline.plane.until("the controllers write the service's endpoints", |admin| {
            let made = admin.get(&own).body["items"].as_array().is_some_and(|l| !l.is_empty());
            made && admin.get(&format!("/api/v1/namespaces/{namespace}/endpoints/routed")).is_ok()
        });
        let slice = home.admin().get(&own).ok()["items"][0].clone();
        let metadata = json!({"name": "forged", "namespace": namespace,
            "labels": {"kubernetes.io/service-name": "routed", "ringfence.dev/tenant": home.id,
                       "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}});
        let forged = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.64.0.9"]}], "ports": [{"port": 80}]});
        let classic = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
            "subsets": [{"addresses": [{"ip": "10.64.0.9"}], "ports": [{"port": 80}]}]});
        let address = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.64.0.9"]}]});
        let mistake = home.mistake();
        for (what, answer) in [
            ("EndpointSlice", mistake.try_create(&forged)),
            ("Endpoints", mistake.try_create(&classic)),
            (
                "EndpointSlice (update)",
                mistake
                    .patch(&format!("{slices}/{}?dryRun=All", slice["metadata"]["name"].as_str().unwrap()), &address),
            ),
            (
                "Endpoints (update)",
                mistake.patch(
                    &format!("/api/v1/namespaces/{namespace}/endpoints/routed?dryRun=All"),
                    &json!({"subsets": [{"addresses": [{"ip": "10.64.0.9"}], "ports": [{"port": 80}]}]}),
                ),
            ),
        ] {
            findings.refused(&format!("{} {what}", home.id), "NET-3|NET-4", &answer);
        }
        // The status fields that decide where traffic goes.
        let patches = [
            ("services/routed/status", json!({"status": {"loadBalancer": {"ingress": [{"ip": "8.8.8.8"}]}}})),
            ("pods/debugged/status", json!({"status": {"podIP": "10.64.0.9", "podIPs": [{"ip": "10.64.0.9"}]}})),
        ];
        for (what, patch) in patches {
            let answer = home.person().patch(&format!("/api/v1/namespaces/{namespace}/{what}"), &patch);
            findings.expect(answer.status == 403, what, "refused by RBAC", &answer);
        }
    }
    findings.none();
}

/// An object always carries its tenant's label, even if its author writes another one.
#[test]
fn objects_carry_their_tenants_label() {
    let mut findings = Findings::default();
    for home in [&RED, &SKY, &GOLD, &OLD_RED] {
        home.prepare();
        let pod = home.pod(&home.namespace(), home.harmless());
        let metadata = json!({"name": "labelled", "namespace": home.namespace()});
        let mut all = vec![
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}),
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata}),
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata,
                "spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}}),
            pod.clone(),
        ];
        for (api, kind, _) in WORKLOADS.iter().filter(|(_, k, _)| *k != "DaemonSet" && *k != "ReplicationController") {
            all.push(workload(api, kind, &home.written(&home.namespace(), home.harmless())));
        }
        for mut object in all {
            let kind = object["kind"].as_str().unwrap().to_owned();
            object["metadata"]["labels"]["ringfence.dev/tenant"] = home.other_id.into();
            let answer = home.person().try_create(&object);
            let own = |v: &Value| labels(v).get("ringfence.dev/tenant").is_some_and(|id| id == home.id);
            let what = format!("{kind} of {}", home.id);
            if home.mutates {
                findings.expect(answer.is_ok() && own(&answer.body), &what, "stamped", &answer);
            } else {
                findings.refused(&what, "NS-2", &answer);
            }
            if let Some((_, _, template)) = WORKLOADS.iter().find(|(_, k, _)| *k == kind) {
                let mut object = object.clone();
                object["metadata"]["labels"]["ringfence.dev/tenant"] = home.id.into();
                object.pointer_mut(template).unwrap()["metadata"]["labels"]["ringfence.dev/tenant"] =
                    home.other_id.into();
                let answer = home.person().try_create(&object);
                let right = answer.is_ok() && answer.body.pointer(template).is_some_and(own);
                if !right {
                    findings.refused(&format!("{what}, its pods"), "NS-2", &answer);
                }
            }
        }
        // The label can't be changed or removed later.
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "relabelled", "namespace": home.namespace(),
            "labels": {"ringfence.dev/tenant": home.id}}});
        home.person().create(&map).ok();
        for label in [json!(home.other_id), json!(""), Value::Null] {
            let change = json!({"metadata": {"labels": {"ringfence.dev/tenant": label}}});
            let answer = home.person().patch(&format!("{}?dryRun=All", path(&map)), &change);
            let kept =
                answer.is_ok() && labels(&answer.body).get("ringfence.dev/tenant").is_some_and(|id| id == home.id);
            if !kept {
                findings.refused(&format!("{} {change}", home.id), "NS-2", &answer);
            }
        }
    }
    findings.none();
}

/// Requests of Kubernetes and of administrators are not refused, and no administrator is locked out.
#[test]
fn the_system_and_administrators_arent_caught() {
    let mut findings = Findings::default();
    for home in [&RED, &GOLD, &OLD_RED] {
        let admin = home.admin();
        admin.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "unlabelled"}}));
        home.baseline.plane.until("a namespace of no tenant has its account", |admin| {
            admin.get("/api/v1/namespaces/unlabelled/serviceaccounts/default").is_ok()
        });
        for namespace in ["kube-system", "kube-public", "kube-node-lease", "default", "unlabelled"] {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent", "namespace": namespace, "labels": {"app": "harmless"}},
            "spec": {
                "hostNetwork": true, "hostPID": true, "nodeName": "x", "priorityClassName": "system-node-critical",
                "tolerations": [{"operator": "Exists"}], "securityContext": {"runAsUser": 0},
                "containers": [{"name": "a", "image": "nginx", "securityContext": {"privileged": true}}],
                "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
            }});
            let as_is = |answer: &Answer, template: &str| {
                let Some(pod) = answer.body.pointer(template) else { return false };
                answer.is_ok()
                    && pod["spec"]["nodeSelector"].is_null()
                    && pod["spec"]["tolerations"].as_array().is_some_and(|t| t.len() < 4)
                    && !labels(pod).contains_key("ringfence.dev/tenant")
            };
            let answer = admin.try_create(&pod);
            findings.expect(as_is(&answer, ""), &format!("a pod in {namespace}"), "admitted as it is", &answer);
            for (api, kind, template) in WORKLOADS {
                if kind.ends_with("Job") || kind == "DaemonSet" || kind == "Deployment" {
                    let answer = admin.try_create(&workload(api, kind, &pod));
                    findings.expect(
                        as_is(&answer, template),
                        &format!("a {kind} in {namespace}"),
                        "admitted as it is",
                        &answer,
                    );
                }
            }
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": namespace},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "externalIPs": ["8.8.8.8"]}});
            findings.admitted(&format!("a Service in {namespace}"), &admin.try_create(&service));
            let labelled = json!({"metadata": {"labels": {"a": "b"}}});
            findings.admitted(
                &format!("a label on {namespace}"),
                &admin.patch(&format!("/api/v1/namespaces/{namespace}?dryRun=All"), &labelled),
            );
        }
        let kinds = [
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ];
        for kind in kinds.iter().filter(|k| home.mutates || k.starts_with("validating")) {
            let all = format!("/apis/admissionregistration.k8s.io/v1/{kind}");
            let items = admin.get(&all).ok()["items"].as_array().cloned().unwrap_or_default();
            for item in items.iter().map(|i| i["metadata"]["name"].as_str().unwrap()) {
                let changed = json!({"metadata": {"labels": {"a": "b"}}});
                findings.admitted(
                    &format!("{kind} {item} changed"),
                    &admin.patch(&format!("{all}/{item}?dryRun=All"), &changed),
                );
                findings.admitted(&format!("{kind} {item} gone"), &admin.delete(&format!("{all}/{item}?dryRun=All")));
            }
            findings.expect(!items.is_empty(), kind, "in use", &admin.get(&all));
        }
        let at = format!("/api/v1/namespaces/{}?dryRun=All", home.namespace());
        let opened = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged", "ringfence.dev/tenant": null}}});
        findings.admitted("a tenant's namespace opened by an administrator", &admin.patch(&at, &opened));
        findings.admitted("a tenant's namespace gone by an administrator", &admin.delete(&at));
        let fresh = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fresh", "labels": {"ringfence.dev/tenant": home.id}}});
        findings.admitted("a tenant's namespace by an administrator", &admin.try_create(&fresh));
        for kind in ["pods", "deployments", "services"] {
            let root = if kind == "deployments" { "/apis/apps/v1" } else { "/api/v1" };
            let answer = admin.delete(&format!("{root}/namespaces/{}/{kind}?dryRun=All", home.namespace()));
            findings.admitted(&format!("all {kind} of a tenant gone by an administrator"), &answer);
        }
    }
    findings.none();
}

/// Shows that the paths of workloads in this module exist on the server.
#[test]
fn workloads_go_where_they_should() {
    let pod = RED.pod("t-red", RED.plain());
    for (api, kind, template) in WORKLOADS {
        let object = workload(api, kind, &pod);
        assert!(object.pointer(template).is_some_and(|t| t["spec"]["containers"].is_array()), "{kind}");
        assert_eq!(RED.admin().get(&collection(&object)).status, 200, "{kind}");
    }
}
