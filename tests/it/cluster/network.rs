//! Network access between pods and addresses.
//!
//! cyclonus, an independent implementation, evaluates NetworkPolicies. It knows
//! neither ClusterNetworkPolicies nor Services. The tests check the text of the
//! former. For Services, the VPC CNI itself adds the addresses.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::baseline::{Baseline, POOL, SILO};
use crate::support::kubernetes::{labels, program, yaml};

const TENANTS: [&str; 4] = ["red", "blue", "green", "sky"];
const ADMIN_TIER: &str = "/apis/networking.k8s.aws/v1alpha1/clusternetworkpolicies";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A pod of a tenant.
    Pod(&'static str),
    Dns,
    Metrics,
    /// An address that isn't a pod's.
    At(&'static str),
}
use Place::{At, Dns, Metrics, Pod};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Tcp(u16),
    Udp(u16),
}
use Port::{Tcp, Udp};

/// Source, target, port, and whether the traffic is allowed.
type Flow = (Place, Place, Port, bool);

const IMDS: Place = At("169.254.169.254");
const IDENTITY: Place = At("169.254.170.23");
/// The first address of the service range.
const API: Place = At("172.20.0.1");
/// The second address of the VPC.
const RESOLVER: Place = At("10.64.0.2");
/// In a private subnet: a node, an interface endpoint, or one of the control
/// plane's interfaces.
const INSIDE: Place = At("10.64.32.200");
/// In a public subnet.
const BALANCER: Place = At("10.64.252.20");
const INTERNET: Place = At("1.1.1.1");

/// Targets that no tier may reach.
const CLOSED: [(Place, Port); 19] = [
    (IMDS, Tcp(80)),
    (At("fd00:ec2::254"), Tcp(80)),
    (IDENTITY, Tcp(443)),
    (IDENTITY, Tcp(2703)),
    (At("fd00:ec2::23"), Tcp(80)),
    (At("169.254.170.2"), Tcp(80)),
    (At("169.254.169.253"), Udp(53)),
    (At("169.254.169.123"), Udp(123)),
    (At("169.254.20.10"), Udp(53)),
    (RESOLVER, Udp(53)),
    (INSIDE, Tcp(22)),
    (INSIDE, Tcp(10250)),
    (BALANCER, Tcp(80)),
    (At("10.80.0.9"), Tcp(80)),
    (At("172.16.0.9"), Tcp(80)),
    (At("192.168.0.9"), Tcp(80)),
    (At("100.64.0.9"), Tcp(80)),
    (At("2606:4700::1111"), Tcp(443)),
    (Metrics, Tcp(10251)),
];

/// The NetworkPolicies and namespaces of a cluster.
struct Policies<'a> {
    baseline: &'a Baseline,
    items: Vec<Value>,
}

impl<'a> Policies<'a> {
    /// The objects as the API server stores them.
    fn live(baseline: &'a Baseline) -> Self {
        let list = baseline.plane.admin().get("/apis/networking.k8s.io/v1/networkpolicies").ok();
        let of_a_list = |item: &Value| {
            let mut item = item.clone();
            item["apiVersion"] = "networking.k8s.io/v1".into();
            item["kind"] = "NetworkPolicy".into();
            item
        };
        Self { baseline, items: list["items"].as_array().unwrap().iter().map(of_a_list).collect() }
    }

    fn and(mut self, planted: Value) -> Self {
        self.items.push(planted);
        self
    }

    fn peer(&self, place: Place) -> Value {
        let pod = |namespace: &str, pod_labels: Value, ip: &str| {
            let live = self.baseline.plane.admin().get(&format!("/api/v1/namespaces/{namespace}")).ok();
            let internal = json!({"Namespace": namespace, "NamespaceLabels": labels(&live), "PodLabels": pod_labels});
            json!({"Internal": internal, "IP": ip})
        };
        match place {
            Pod(id) => pod(&format!("t-{id}"), json!({"app": "web"}), "10.64.1.10"),
            Dns => pod("kube-system", json!({"k8s-app": "kube-dns"}), "10.64.1.53"),
            Metrics => pod("kube-system", json!({"app.kubernetes.io/name": "metrics-server"}), "10.64.1.51"),
            At(ip) => json!({"IP": ip}),
        }
    }

    /// Whether each flow is allowed.
    fn passes(&self, flows: &[Flow]) -> Vec<bool> {
        let traffic: Vec<Value> = flows
            .iter()
            .map(|(from, to, port, _)| {
                let (protocol, port) = match port {
                    Tcp(port) => ("TCP", port),
                    Udp(port) => ("UDP", port),
                };
                json!({
                    "Source": self.peer(*from), "Destination": self.peer(*to),
                    "Protocol": protocol, "ResolvedPort": port, "ResolvedPortName": "",
                })
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, value: Value| {
            let file = dir.path().join(name);
            fs::write(&file, value.to_string()).unwrap();
            file
        };
        let list = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList", "items": self.items});
        let output = Command::new(program("cyclonus"))
            .args(["analyze", "--mode", "query-traffic", "--policy-path"])
            .arg(write("policies.json", list))
            .arg("--traffic-path")
            .arg(write("traffic.json", Value::Array(traffic)))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let answers = text.lines().filter(|line| line.contains("IS ALLOWED?"));
        let answers: Vec<bool> = answers.map(|line| line.to_lowercase().contains("true")).collect();
        assert_eq!(answers.len(), flows.len(), "{text}");
        answers
    }

    #[track_caller]
    fn hold(&self, flows: &[Flow]) {
        let wrong: Vec<&Flow> = flows
            .iter()
            .zip(self.passes(flows))
            .filter(|((.., wanted), passes)| wanted != passes)
            .map(|(f, _)| f)
            .collect();
        assert!(wrong.is_empty(), "not as wanted: {wrong:#?}");
    }
}

fn closed(from: Place) -> impl Iterator<Item = Flow> {
    CLOSED.into_iter().map(move |(to, port)| (from, to, port, false))
}

fn between_tenants() -> Vec<Flow> {
    let mut flows = Vec::new();
    for from in TENANTS {
        for to in TENANTS.into_iter().filter(|to| *to != from) {
            flows
                .extend([Tcp(80), Tcp(443), Tcp(8080), Tcp(53), Udp(53)].map(|port| (Pod(from), Pod(to), port, false)));
        }
    }
    flows
}

#[test]
fn no_tenant_reaches_another() {
    Policies::live(&POOL).hold(&between_tenants());
}

#[test]
fn a_tenant_reaches_dns_its_own_and_the_internet() {
    let mut flows = vec![
        (Pod("red"), Dns, Udp(53), true),
        (Pod("red"), Dns, Tcp(53), true),
        (Pod("red"), Dns, Tcp(9153), false),
        (Pod("red"), Pod("red"), Tcp(8080), true),
        (Pod("red"), Pod("red"), Udp(4000), true),
        (Pod("red"), IDENTITY, Tcp(80), true),
        (Pod("red"), INTERNET, Tcp(443), true),
        (Pod("red"), INTERNET, Udp(4000), true),
        // Only tenants whose pods may have tokens or roles reach it.
        (Pod("red"), API, Tcp(443), false),
        (Pod("red"), INSIDE, Tcp(443), false),
        // Ingress: only from pods of the same tenant.
        (INSIDE, Pod("red"), Tcp(8080), false),
        (BALANCER, Pod("red"), Tcp(8080), false),
        (INTERNET, Pod("red"), Tcp(8080), false),
        (Dns, Pod("red"), Tcp(8080), false),
    ];
    flows.extend(closed(Pod("red")));
    Policies::live(&POOL).hold(&flows);
}

#[test]
fn a_tier_that_opens_more_opens_just_that() {
    let mut flows = vec![
        (Pod("green"), API, Tcp(443), true),
        (Pod("green"), API, Tcp(80), false),
        (Pod("green"), INSIDE, Tcp(443), true),
        // Load balancers, and clients whose addresses they preserve.
        (BALANCER, Pod("green"), Tcp(8080), true),
        (INTERNET, Pod("green"), Tcp(8080), true),
        (INSIDE, Pod("green"), Tcp(8080), false),
        // A tenant with an AWS role reaches endpoints, but not the API server.
        (Pod("sky"), INSIDE, Tcp(443), true),
        (Pod("sky"), API, Tcp(443), false),
        // The Pod Identity agent doesn't run on Fargate.
        (Pod("sky"), IDENTITY, Tcp(80), false),
    ];
    for id in ["green", "blue", "sky"] {
        flows.extend(closed(Pod(id)));
    }
    Policies::live(&POOL).hold(&flows);

    let mut flows = vec![
        (Pod("gold"), Dns, Udp(53), true),
        (Pod("gold"), Pod("gold"), Tcp(8080), true),
        (Pod("gold"), IDENTITY, Tcp(80), true),
        (Pod("gold"), INTERNET, Tcp(443), true),
        (Pod("gold"), API, Tcp(443), false),
        (BALANCER, Pod("gold"), Tcp(8080), true),
        // In a silo cluster, nodes and internal load balancers are allowed,
        // too.
        (INSIDE, Pod("gold"), Tcp(8080), true),
    ];
    flows.extend(closed(Pod("gold")));
    Policies::live(&SILO).hold(&flows);
}

#[test]
fn the_clusters_own_pods_work_in_strict_mode() {
    for baseline in [&POOL, &SILO] {
        Policies::live(baseline).hold(&[
            (INSIDE, Dns, Udp(53), true),
            (INSIDE, Dns, Tcp(53), true),
            (INTERNET, Dns, Udp(53), false),
            (Dns, RESOLVER, Udp(53), true),
            (Dns, At("169.254.169.253"), Udp(53), true),
            (Dns, API, Tcp(443), true),
            (Dns, INSIDE, Tcp(443), true),
            (Dns, IMDS, Tcp(80), false),
            (Dns, IMDS, Tcp(53), false),
            (Dns, INTERNET, Tcp(443), false),
            (INSIDE, Metrics, Tcp(10251), true),
            (INTERNET, Metrics, Tcp(10251), false),
            (Metrics, API, Tcp(443), true),
            (Metrics, INSIDE, Tcp(443), true),
            (Metrics, INSIDE, Tcp(10250), true),
            (Metrics, IMDS, Tcp(80), false),
            (Metrics, INTERNET, Tcp(443), false),
        ]);
    }
}

/// Shows that the tests above can fail.
#[test]
fn an_opening_shows() {
    let open = |name: &str, tenant: &str, side: &str, rules: Value| {
        let mut policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": format!("t-{tenant}")},
            "spec": {"podSelector": {}, "policyTypes": [side]},
        });
        policy["spec"][side.to_lowercase()] = rules;
        policy
    };
    let flow = |from, to| [(Pod(from), Pod(to), Tcp(80), true)];
    let everything = json!([{}]);
    let out = open("out", "red", "Egress", everything.clone());
    let into = open("in", "blue", "Ingress", everything);
    // Both ends deny, so one allowing policy is not enough.
    assert_eq!(Policies::live(&POOL).and(out.clone()).passes(&flow("red", "blue")), [false]);
    assert_eq!(Policies::live(&POOL).and(into.clone()).passes(&flow("red", "blue")), [false]);
    let both = Policies::live(&POOL).and(out).and(into);
    assert_eq!(both.passes(&flow("red", "blue")), [true]);
    assert_eq!(both.passes(&flow("blue", "red")), [false]);
    assert_eq!(both.passes(&[(Pod("red"), IMDS, Tcp(80), true)]), [true]);
    let without_default = |policy: &Value| policy["metadata"]["name"] != "default-deny";
    let mut bare = Policies::live(&POOL);
    bare.items.retain(without_default);
    bare.items.retain(|p| p["spec"]["policyTypes"] == json!(["Egress"]));
    assert_eq!(bare.passes(&[(INTERNET, Pod("red"), Tcp(80), true)]), [true]);
}

/// The objects of this kind for the spec `pool.yaml` with one text replaced.
fn rendered(from: &str, to: &str, kind: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(POOL.spec()).unwrap();
    assert!(text.contains(from));
    let spec = dir.path().join("tenancy.yaml");
    fs::write(&spec, text.replace(from, to)).unwrap();
    let out = dir.path().join("rendered");
    POOL.run(&["render", "--file", spec.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let entries = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let files = entries(&out).into_iter().filter(|entry| entry.is_dir()).flat_map(|dir| entries(&dir));
    files.flat_map(|file| yaml(&fs::read_to_string(file).unwrap())).filter(|o| o["kind"] == kind).collect()
}

#[test]
fn without_a_nat_gateway_only_roles_lead_out_and_only_to_endpoints() {
    let items = rendered("natGateways: single", "natGateways: none", "NetworkPolicy");
    let mut flows = vec![
        (Pod("red"), INTERNET, Tcp(443), false),
        (Pod("red"), Dns, Udp(53), true),
        // S3, through the gateway endpoint.
        (Pod("green"), INTERNET, Tcp(443), true),
        (Pod("green"), INTERNET, Tcp(80), false),
        (Pod("green"), INSIDE, Tcp(443), true),
    ];
    flows.extend(closed(Pod("green")));
    flows.extend(between_tenants());
    Policies { baseline: &POOL, items }.hold(&flows);
}

/// All rules of a direction with this action.
fn rules<'v>(policy: &'v Value, direction: &str, action: &str) -> Vec<&'v Value> {
    let all = policy["spec"][direction].as_array().into_iter().flatten();
    all.filter(|rule| rule["action"] == action).collect()
}

#[test]
fn the_admin_tier_closes_what_a_namespace_could_open() {
    for (baseline, tenants) in [(&POOL, &TENANTS[..]), (&SILO, &["gold"])] {
        let admin = baseline.plane.admin();
        let get = |name: &str| admin.get(&format!("{ADMIN_TIER}/{name}")).ok();
        let (imds, all) = (get("ringfence-imds"), get("ringfence-tenants"));
        let everyone =
            json!({"namespaces": {"matchExpressions": [{"key": "ringfence.dev/tenant", "operator": "Exists"}]}});
        for policy in [&imds, &all] {
            assert_eq!(policy["spec"]["tier"], "Admin");
            assert_eq!(policy["spec"]["subject"], everyone);
            assert_eq!(rules(policy, "egress", "Deny").len(), policy["spec"]["egress"].as_array().unwrap().len());
        }
        assert_eq!(imds["spec"]["egress"][0]["to"], json!([{"networks": ["169.254.169.254/32"]}]));
        assert_eq!(imds["spec"]["egress"][0].get("ports"), None);
        assert_eq!(
            all["spec"]["egress"][0]["to"],
            json!([{"networks": ["10.64.0.0/19", "10.64.32.0/19", "10.64.64.0/19", "172.20.0.0/16"]}])
        );
        assert_eq!(all["spec"]["egress"][0].get("ports"), None);
        for id in tenants {
            let own = get(&format!("ringfence-tenant-{id}"));
            let namespace = admin.get(&format!("/api/v1/namespaces/t-{id}")).ok();
            assert_eq!(labels(&namespace)["ringfence.dev/tenant"], *id);
            let subject = json!({"namespaces": {"matchLabels": {"ringfence.dev/tenant": id}}});
            assert_eq!(own["spec"]["tier"], "Admin");
            assert_eq!(own["spec"]["subject"], subject);
            // At the same priority Deny wins over Pass, so the order of the
            // three policies is essential.
            let priority = |p: &Value| p["spec"]["priority"].as_i64().unwrap();
            assert!(priority(&imds) < priority(&own) && priority(&own) < priority(&all));
            // Nothing is accepted here: the namespace's own policies decide.
            assert_eq!(rules(&own, "egress", "Accept"), Vec::<&Value>::new());
            assert_eq!(own["spec"].get("ingress"), None);
            let passes = rules(&own, "egress", "Pass");
            assert_eq!(passes[0]["to"], json!([subject]));
            let beyond: Vec<&Value> =
                passes.iter().filter(|rule| rule["to"][0].get("networks").is_some()).copied().collect();
            let wanted = usize::from(["green", "sky"].contains(id));
            assert_eq!(beyond.len(), wanted, "{id}: {beyond:?}");
            for rule in beyond {
                assert_eq!(rule["ports"], json!([{"portNumber": {"protocol": "TCP", "port": 443}}]));
            }
        }
        let wrong = admin.try_create(&json!({
            "apiVersion": "networking.k8s.aws/v1alpha1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "allow"},
            "spec": {"tier": "Admin", "priority": 1, "subject": everyone,
                "egress": [{"action": "Allow", "to": [{"networks": ["0.0.0.0/0"]}]}]},
        }));
        assert_eq!(wrong.status, 422, "the test's own schema is worth nothing: {}", wrong.message());
    }
}

/// On Fargate, no NetworkPolicy is enforced.
#[test]
fn fargate_pods_have_a_security_group_of_their_own() {
    let groups = |id: &str| {
        let all = format!("/apis/vpcresources.k8s.aws/v1beta1/namespaces/t-{id}/securitygrouppolicies");
        POOL.plane.admin().get(&all).ok()["items"].clone()
    };
    assert_eq!(groups("red"), json!([]));
    let sky = groups("sky");
    assert_eq!(sky.as_array().map(Vec::len), Some(1));
    assert_eq!(sky[0]["spec"]["podSelector"], json!({}), "all pods");
    let ids: Vec<String> = serde_json::from_value(sky[0]["spec"]["securityGroups"]["groupIds"].clone()).unwrap();
    assert!(ids.len() == 1 && ids[0].starts_with("sg-"), "{ids:?}");
}

#[test]
fn calico_gets_the_same_rules() {
    let shared = ("- name: shared\n", "- name: shared\n      profile: calico\n");
    assert_eq!(rendered(shared.0, shared.1, "ClusterNetworkPolicy"), Vec::<Value>::new());
    let policies = rendered(shared.0, shared.1, "GlobalNetworkPolicy");
    let named =
        |name: &str| policies.iter().find(|p| p["metadata"]["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(policies.len(), 1 + TENANTS.len());
    for policy in &policies {
        POOL.plane.admin().try_create(policy).ok();
        // Kubernetes' own policies have order 1000.
        assert!(policy["spec"]["order"].as_i64().unwrap() < 1000);
        assert_eq!(rules(policy, "egress", "Allow"), Vec::<&Value>::new());
    }
    let imds = &named("ringfence-imds")["spec"];
    assert_eq!(imds["namespaceSelector"], "has(ringfence.dev/tenant)");
    assert_eq!(imds["egress"], json!([{"action": "Deny", "destination": {"nets": ["169.254.169.254/32"]}}]));
    for id in TENANTS {
        let own = &named(&format!("ringfence-tenant-{id}"))["spec"];
        let others =
            json!({"namespaceSelector": format!("has(ringfence.dev/tenant) && ringfence.dev/tenant != '{id}'")});
        assert_eq!(own["namespaceSelector"], format!("ringfence.dev/tenant == '{id}'"));
        assert_eq!(own["types"], json!(["Ingress", "Egress"]));
        assert_eq!(own["ingress"], json!([{"action": "Deny", "source": others}]));
        assert_eq!(own["egress"], json!([{"action": "Deny", "destination": others}]));
    }
}
