#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::aws::tags;
use crate::engine::desired::Resource;
use crate::engine::graph;
use crate::engine::value::{display, references, walk};
use crate::kinds::aws::security_group::Permission;
use crate::spec::names::Names;
use crate::spec::{KubernetesVersion, LoadOptions, Owner, load};

fn spec(text: &str) -> Spec {
    let options = LoadOptions { profiles_dir: None, today: jiff::civil::date(2026, 11, 23) };
    load(Path::new("tenancy.yaml"), text, &options).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn example(name: &str) -> Spec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("tenancy.yaml");
    spec(&std::fs::read_to_string(path).unwrap())
}

fn examples() -> Vec<(String, Spec)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<String> =
        std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    // Workflows, which hold no spec.
    names.retain(|name| name != "ci");
    names.sort();
    names.into_iter().map(|n| (n.clone(), example(&n))).collect()
}

fn built(spec: &Spec) -> Desired {
    built_with(spec, &Facts::assumed(spec))
}

fn built_with(spec: &Spec, facts: &Facts) -> Desired {
    build(spec, facts, &Templates::built_in().unwrap()).unwrap_or_else(|e| panic!("{e}"))
}

/// The facts about addresses after an apply of `desired`.
fn observed(facts: &Facts, desired: &Desired) -> Facts {
    let mut facts = facts.clone();
    for r in desired.iter() {
        let text = |key: &str| r.state[key].as_str().unwrap_or_default().to_owned();
        match r.kind {
            "aws.vpc" => drop(facts.vpcs.insert(r.address.clone(), text("cidr").parse().unwrap())),
            "aws.subnet" => {
                let subnet = Subnet { cidr: text("cidr").parse().unwrap(), zone: text("zone") };
                facts.subnets.insert(r.address.clone(), subnet);
            }
            _ => {}
        }
    }
    facts
}

fn at<'d>(desired: &'d Desired, address: &str) -> &'d Resource {
    desired.get(&Address::new(address)).unwrap_or_else(|| panic!("no {address}"))
}

fn state<T: serde::de::DeserializeOwned>(desired: &Desired, address: &str) -> T {
    at(desired, address).state.typed().unwrap()
}

fn blocks(desired: &Desired) -> BTreeMap<String, String> {
    let lies = |r: &&Resource| matches!(r.kind, "aws.vpc" | "aws.subnet");
    let cidr = |r: &Resource| (r.address.to_string(), r.state["cidr"].as_str().unwrap().to_owned());
    desired.iter().filter(lies).map(cidr).collect()
}

/// Every unit that AWS bills for the example, counted by hand: a silo with three zones and a pool with three zones.
#[test]
fn kinds_tell_what_aws_bills() {
    use crate::kinds::aws::costs::{Amount, Cost};
    let kinds = crate::kinds::all();
    let desired = built(&example("three-tiers"));
    let costs = |r: &Resource| kinds.iter().find(|k| k.name() == r.kind).unwrap().costs(&r.state);
    let mut fixed: BTreeMap<String, u32> = BTreeMap::new();
    let mut metered: BTreeSet<String> = BTreeSet::new();
    let mut nodes = 0;
    for Cost { unit, amount } in desired.iter().flat_map(costs) {
        let unit = serde_json::to_value(&unit).unwrap()["unit"].as_str().unwrap().to_owned();
        match amount {
            Amount::Fixed(count) => *fixed.entry(unit).or_default() += count,
            Amount::Nodes { min, .. } => nodes += min,
            Amount::EachNode(size) => assert!(size > 0),
            Amount::Metered => drop(metered.insert(unit)),
        }
    }
    let count = |kind: &str| u32::try_from(desired.iter().filter(|r| r.kind == kind).count()).unwrap();
    let interfaces = desired.iter().filter(|r| r.kind == "aws.vpc-endpoint" && r.state["type"] == "Interface");
    let zones: u32 = interfaces.map(|r| u32::try_from(r.state["subnets"].as_array().unwrap().len()).unwrap()).sum();
    let expected = [
        ("cluster-hour", 2),
        ("endpoint-hour", zones),
        ("key-month", count("aws.kms-key")),
        ("nat-gateway-hour", 6),
        ("public-address-hour", 6),
    ];
    assert_eq!(fixed, expected.map(|(unit, count)| (unit.to_owned(), count)).into());
    assert!(nodes >= count("aws.node-group"), "{nodes}");
    for unit in ["fargate-pod", "nat-gateway-gigabyte", "endpoint-gigabyte", "log-gigabyte"] {
        assert!(metered.contains(unit), "{unit} is missing: {metered:?}");
    }
}

/// A spec with silos in this order, in a supernet with few blocks.
fn silos(ids: &[String]) -> Spec {
    let tenants: String =
        ids.iter().map(|id| format!("    - {{id: \"{id}\", name: t{id}, tier: premium}}\n")).collect();
    let text = format!(
        "apiVersion: ringfence.dev/v1alpha1\nkind: Tenancy\nmetadata: {{name: acme}}\nspec:\n  region: us-east-1\n  kubernetesVersion: \"1.36\"\n  network: {{supernet: 10.64.0.0/12, vpcPrefix: 20, endpoints: [s3]}}\n  access: {{admins: [\"arn:aws:iam::123456789012:role/Admin\"]}}\n  tenants:\n{tenants}"
    );
    spec(&text)
}

#[test]
fn three_tiers_by_address() {
    let desired = built(&example("three-tiers"));
    let line = |r: &Resource| {
        format!("{:<64} {:<24} {}", r.address.as_str(), r.kind, r.controls.join(" ")).trim_end().to_owned()
    };
    insta::assert_snapshot!(desired.iter().map(line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn three_tiers_in_full() {
    let desired = built(&example("three-tiers"));
    let whole =
        |r: &&Resource| ["12345", "23456", "34567", "shared-1"].iter().any(|id| r.address.as_str().contains(id));
    let one_of_each: BTreeMap<&str, &Resource> = desired.iter().filter(whole).map(|r| (r.kind, r)).collect();
    let mut text = String::new();
    for (kind, r) in one_of_each {
        let after: Vec<String> = r.after.iter().map(ToString::to_string).collect();
        let state = serde_json::to_string_pretty(&r.state).unwrap();
        let state: Vec<String> = state.lines().map(readable).collect();
        text.push_str(&format!("{kind} {}\nafter {}\n{}\n\n", r.address, after.join(" "), state.join("\n")));
    }
    insta::assert_snapshot!(text);
}

/// Writes references as `<address.output>`, also if a reference is the whole value.
fn readable(line: &str) -> String {
    display(&format!("{line} ")).trim_end().to_owned()
}

#[test]
fn every_example_is_a_graph_without_circles_or_loose_ends() {
    for (name, spec) in examples() {
        let desired = built(&spec);
        let order = graph::order(&desired).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(order.len(), desired.len(), "{name}");
        for r in desired.iter() {
            for (address, output) in references(&r.state) {
                let known: &[&str] = match at(&desired, address.as_str()).kind {
                    "aws.eks-cluster" => &["name", "arn", "endpoint", "certificate_authority", "issuer", "version"],
                    "aws.iam-role" | "aws.log-group" => &["name", "arn"],
                    "aws.kms-key" => &["id", "arn", "alias"],
                    "aws.launch-template" => &["id", "version"],
                    "aws.oidc-provider" => &["arn", "issuer"],
                    _ => &["id"],
                };
                assert!(known.contains(&output.as_str()), "{}: {address} has no output {output}", r.address);
            }
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for (name, spec) in examples() {
        let bytes = || serde_json::to_string(&built(&spec)).unwrap();
        assert_eq!(bytes(), bytes(), "{name}");
    }
}

/// All resources that must be done before this one.
fn before(desired: &Desired, address: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut next = vec![Address::new(address)];
    while let Some(address) = next.pop() {
        for need in graph::needs(desired.get(&address).unwrap()) {
            if all.insert(need.to_string()) {
                next.push(need);
            }
        }
    }
    all
}

#[test]
fn what_waits_for_what() {
    let desired = built(&example("three-tiers"));
    let cluster = before(&desired, "pool/shared-1/cluster");
    assert!(!cluster.iter().any(|a| a.contains("nat-gateway") || a.contains("endpoint")), "{cluster:?}");
    for need in ["log-group/cluster", "key", "role/cluster", "security-group/control-plane"] {
        assert!(cluster.contains(&format!("pool/shared-1/{need}")), "{need}");
    }
    assert!(cluster.contains("tenancy/service-linked-role/eks"));
    assert!(before(&desired, "pool/shared-1/key").contains("tenancy/service-linked-role/autoscaling"));

    let nodes = before(&desired, "tenant/23456/pool/shared-1/node-group");
    for need in [
        "addon/vpc-cni",
        "addon/kube-proxy",
        "addon/eks-pod-identity-agent",
        "endpoint/s3",
        "endpoint/ecr.api",
        "route-table/private-a",
        "nat-gateway/a",
        "security-group/system-nodes",
        "security-group/control-plane",
    ] {
        assert!(nodes.contains(&format!("pool/shared-1/{need}")), "{need}");
    }
    assert!(nodes.iter().all(|a| !a.contains("k8s/") && !a.contains("coredns")), "{nodes:?}");

    let dns = before(&desired, "pool/shared-1/addon/coredns");
    assert!(dns.contains("pool/shared-1/node-group/system"));
    assert!(dns.iter().any(|a| a.starts_with("pool/shared-1/k8s/networkpolicy/kube-system/")), "{dns:?}");
    assert!(dns.iter().any(|a| a.starts_with("pool/shared-1/cluster/access-entry/")));

    let binding = before(&desired, "tenant/23456/pool/shared-1/k8s/rolebinding/tenant");
    for first in ["resourcequota/tenant", "limitrange/tenant", "networkpolicy/default-deny", "namespace/t-23456"] {
        assert!(binding.contains(&format!("tenant/23456/pool/shared-1/k8s/{first}")), "{first}");
    }
    assert!(binding.contains("pool/shared-1/k8s/priorityclass/ringfence-standard-10000"));
    let none = built(&example("regulated"));
    assert!(none.iter().all(|r| r.kind != "aws.nat-gateway" && r.kind != "aws.elastic-ip"));
}

#[test]
fn no_arn_of_another_partition() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/three-tiers/tenancy.yaml"));
    let text = text.unwrap().replace(
        "      pool: shared-1\n      overrides:",
        "      pool: shared-1\n      serviceAccounts: [{name: up, policies: [\"arn:aws:iam::123456789012:policy/up\"]}]\n      overrides:",
    );
    for (region, partition, suffix) in
        [("us-gov-west-1", "aws-us-gov", "amazonaws.com"), ("cn-north-1", "aws-cn", "amazonaws.com.cn")]
    {
        let text = text.replace("us-east-1", region).replace("arn:aws:", &format!("arn:{partition}:"));
        // GovCloud has no Fargate.
        let text = if partition == "aws-us-gov" { text.replace("tier: serverless", "tier: standard") } else { text };
        let spec = spec(&text);
        let desired = built(&spec);
        for r in desired.iter() {
            walk(&r.state, &mut |s| assert!(!s.contains("arn:aws:"), "{}: {s}", r.address));
        }
        let policy = at(&desired, "pool/shared-1/key").state["policy"].to_string();
        assert!(policy.contains(&format!("logs.{region}.{suffix}")), "{policy}");
    }
}

/// IAM user guide, "IAM and STS quotas": white space isn't counted. The placeholder of a reference is longer than the
/// real id.
#[test]
fn every_role_fits_within_iams_quotas() {
    let length = |document: &Value| document.to_string().chars().count();
    for (name, spec) in examples() {
        for role in built(&spec).iter().filter(|r| r.kind == "aws.iam-role") {
            let inline: usize = role.state["inline"].as_object().unwrap().values().map(length).sum();
            assert!(inline <= 10_240, "{name}: {}: {inline}", role.address);
            assert!(length(&role.state["trust"]) <= 2048, "{name}: {}", role.address);
            assert!(role.state["attached"].as_array().unwrap().len() <= 10, "{name}: {}", role.address);
        }
    }
}

/// The repositories from which a tenant's nodes may pull, and those of EKS.
fn repositories(spec: &Spec) -> (Value, Value) {
    let desired = built(spec);
    let policy = at(&desired, "tenant/23456/pool/shared-1/role/nodes")
        .state
        .pointer("/inline/images/Statement")
        .unwrap()
        .clone();
    let of = |sid: &str| policy.as_array().unwrap().iter().find(|s| s["Sid"] == sid).map(|s| s["Resource"].clone());
    (of("Images").unwrap_or_default(), of("ImagesOfEks").unwrap())
}

#[test]
fn nodes_pull_from_the_registries_that_their_tenant_may_use() {
    let mut spec = example("three-tiers");
    let own = [
        "arn:aws:ecr:us-east-1:123456789012:repository/acme/23456/*",
        "arn:aws:ecr:us-east-1:123456789012:repository/acme/shared/*",
    ];
    assert_eq!(repositories(&spec), (json!(own), json!("arn:aws:ecr:us-east-1:602401143452:repository/*")));
    spec.images = crate::spec::Images { tenants: "saas".into(), shared: "base".into(), ringfence: None };
    let moved = [
        "arn:aws:ecr:us-east-1:123456789012:repository/base/*",
        "arn:aws:ecr:us-east-1:123456789012:repository/saas/23456/*",
    ];
    assert_eq!(repositories(&spec).0, json!(moved));
    let mut with = |registries: &[&str]| {
        Arc::make_mut(&mut spec.tenants[1].profile).pods.allowed_registries =
            registries.iter().map(|r| (*r).to_owned()).collect();
        repositories(&spec).0
    };
    assert_eq!(
        with(&["registry.example.com/acme", "public.ecr.aws/x/y", "1.dkr.ecr.us-east-1.amazonaws.com/x"]),
        Value::Null
    );
    let other = "arn:aws:ecr:eu-west-1:999999999999:repository/team";
    assert_eq!(
        with(&["999999999999.dkr-ecr.eu-west-1.on.aws/team"]),
        json!([other, format!("{other}/*")]),
        "an account that the tier trusts"
    );
    assert_eq!(
        with(&["999999999999.dkr.ecr-fips.us-west-2.amazonaws.com"]),
        "arn:aws:ecr:us-west-2:999999999999:repository/*"
    );
    assert_eq!(with(&["*"]), "arn:aws:ecr:*:*:repository/*");
}

#[test]
fn images_of_eks_are_in_an_account_of_the_region() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/three-tiers/tenancy.yaml"));
    let text = text.unwrap().replace("tier: serverless", "tier: standard");
    for (region, arn) in [
        ("eu-west-1", "arn:aws:ecr:eu-west-1:602401143452:repository/*"),
        ("ap-east-1", "arn:aws:ecr:ap-east-1:800184023465:repository/*"),
        ("us-gov-west-1", "arn:aws-us-gov:ecr:us-gov-west-1:013241004608:repository/*"),
        ("cn-northwest-1", "arn:aws-cn:ecr:cn-northwest-1:961992271922:repository/*"),
        // If the account isn't known: any account except this one.
        ("eusc-de-east-1", "arn:aws-eusc:ecr:eusc-de-east-1:*:repository/*"),
    ] {
        let partition = crate::spec::region::partition_of(region);
        let spec = spec(&text.replace("us-east-1", region).replace("arn:aws:", &format!("arn:{partition}:")));
        assert_eq!(repositories(&spec).1, arn);
        let policy = at(&built(&spec), "tenant/23456/pool/shared-1/role/nodes").state.to_string();
        assert!(policy.contains(r#"{"StringNotEquals":{"aws:ResourceAccount":"123456789012"}}"#), "{policy}");
    }
}

#[test]
fn endpoint_names_by_region() {
    let names = |region: &str, service: &str| endpoints::endpoint_services(region, service);
    assert_eq!(names("us-east-1", "ecr.api"), ["com.amazonaws.us-east-1.ecr.api"]);
    assert_eq!(names("us-gov-west-1", "sts"), ["com.amazonaws.us-gov-west-1.sts"]);
    assert_eq!(names("eusc-de-east-1", "ecr.api"), ["eu.amazonaws.eusc-de-east-1.ecr.api"]);
    assert_eq!(names("cn-north-1", "ecr.api")[0], "cn.com.amazonaws.cn-north-1.ecr.api");
    assert_eq!(names("cn-north-1", "s3")[0], "com.amazonaws.cn-north-1.s3");
}

/// In China an endpoint service's name has one of two forms. It isn't known for every service which one.
#[test]
fn endpoint_names_that_only_aws_knows() {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join("single-silo").join("tenancy.yaml"),
    );
    let text = text.unwrap().replace("eu-central-1", "cn-north-1").replace("arn:aws:", "arn:aws-cn:");
    let spec = spec(&text.replace("endpoints: [s3]", "endpoints: [s3, eks-auth, kms]"));
    let (usual, chinese) = ("com.amazonaws.cn-north-1.eks-auth", "cn.com.amazonaws.cn-north-1.eks-auth");
    let mut facts = Facts::assumed(&spec);
    assert!(services_to_ask(&spec, &facts).is_superset(&[usual, chinese].map(str::to_owned).into()));
    let service = |facts: &Facts, name: &str| {
        let address = format!("tenant/globex/silo/endpoint/{name}");
        at(&built_with(&spec, facts), &address).state["service"].as_str().unwrap().to_owned()
    };
    assert_eq!(service(&facts, "eks-auth"), usual);
    let offered = |zones: BTreeSet<String>| EndpointService { zones, policies: true };
    facts.services.insert(usual.to_owned(), offered(BTreeSet::new()));
    facts.services.insert(chinese.to_owned(), offered(["cn-north-1a".to_owned()].into()));
    assert_eq!(service(&facts, "eks-auth"), chinese);
    assert_eq!(service(&facts, "kms"), "com.amazonaws.cn-north-1.kms");
}

fn rules(permissions: &[Permission]) -> Vec<String> {
    let rule =
        |p: &Permission| format!("{} {}-{} {}", p.protocol, p.from, p.to, display(&format!("{} ", p.peer)).trim());
    permissions.iter().map(rule).collect()
}

#[test]
fn groups_of_a_pool_and_its_tenants() {
    use crate::kinds::aws::security_group::State;
    let desired = built(&example("three-tiers"));
    let ingress = |address: &str| rules(&state::<State>(&desired, address).ingress);
    let control = "<pool/shared-1/security-group/control-plane.id>";
    let system = "<pool/shared-1/security-group/system-nodes.id>";
    let tenant: BTreeSet<String> = [
        "-1 0-0 self".to_owned(),
        format!("tcp 10250-10250 {control}"),
        format!("tcp 443-443 {control}"),
        format!("tcp 4443-4443 {control}"),
        format!("tcp 8443-8443 {control}"),
        format!("tcp 9443-9443 {control}"),
        format!("tcp 10250-10250 {system}"),
    ]
    .into();
    for group in ["tenant/23456/pool/shared-1/security-group", "tenant/34567/fargate/shared-1/security-group"] {
        assert_eq!(ingress(group).into_iter().collect::<BTreeSet<_>>(), tenant);
    }
    let private = ["10.64.0.0/19", "10.64.32.0/19", "10.64.64.0/19"];
    let from_private = |rule: &str| private.map(|cidr| format!("{rule} {cidr}")).to_vec();
    assert_eq!(ingress("pool/shared-1/security-group/control-plane"), from_private("tcp 443-443"));
    assert_eq!(ingress("pool/shared-1/security-group/endpoints"), from_private("tcp 443-443"));
    let nodes = ingress("pool/shared-1/security-group/system-nodes");
    for rule in from_private("tcp 53-53").into_iter().chain(from_private("udp 53-53")) {
        assert!(nodes.contains(&rule), "{rule}");
    }
    assert!(nodes.contains(&format!("tcp 10251-10251 {control}")));

    // Nodes never use the cluster's own security group.
    for r in desired.iter() {
        assert!(references(&r.state).iter().all(|(_, output)| output != "security_group"), "{}", r.address);
    }
    // No shared security group has a rule about a tenant.
    let shared = desired.iter().filter(|r| r.kind == "aws.security-group" && r.address.as_str().starts_with("pool/"));
    for r in shared {
        assert!(references(&r.state).iter().all(|(a, _)| !a.as_str().starts_with("tenant/")), "{}", r.address);
    }
}

#[test]
fn nodes_of_a_pool_tenant() {
    use crate::kinds::aws::{launch_template, node_group};
    let desired = built(&example("three-tiers"));
    let group: node_group::State = state(&desired, "tenant/23456/pool/shared-1/node-group");
    assert_eq!(group.labels, BTreeMap::from([("tenantID".to_owned(), "23456".to_owned())]));
    let taints: Vec<String> = group.taints.iter().map(|t| format!("{}={}:{}", t.key, t.value, t.effect)).collect();
    assert_eq!(taints, ["tenantID=23456:NO_EXECUTE", "tenantID=23456:NO_SCHEDULE"]);
    assert_eq!(group.ami_type, "BOTTLEROCKET_x86_64");
    let silo: node_group::State = state(&desired, "tenant/12345/silo/node-group");
    assert!(silo.taints.is_empty());
    assert_eq!(silo.labels["tenantID"], "12345");
    let system: node_group::State = state(&desired, "pool/shared-1/node-group/system");
    assert!(system.taints.is_empty());
    assert!(system.labels.keys().all(|k| !k.contains("kubernetes.io/") && !k.contains("k8s.io/")));

    for address in [
        "tenant/23456/pool/shared-1/launch-template",
        "tenant/12345/silo/launch-template",
        "pool/shared-1/launch-template/system",
    ] {
        let template: launch_template::State = state(&desired, address);
        assert_eq!((template.metadata.tokens.as_str(), template.metadata.hop_limit), ("required", 1));
        assert!(at(&desired, address).controls.contains(&"NET-2"));
        assert!(template.volumes.iter().all(|v| v.encrypted && v.key.is_some() && v.kind == "gp3"));
        assert_eq!(template.volumes.iter().map(|v| v.device.as_str()).collect::<Vec<_>>(), ["/dev/xvda", "/dev/xvdb"]);
        assert!(
            !template.instance_tags.contains_key(tags::ADDRESS) && template.instance_tags.contains_key("cost-center")
        );
        let data: toml::Value = toml::from_str(&template.user_data).unwrap();
        let settings = &data["settings"];
        assert_eq!(settings["host-containers"]["admin"]["enabled"].as_bool(), Some(false));
        assert_eq!(settings["host-containers"]["control"]["enabled"].as_bool(), Some(false));
        assert_eq!(settings["kubernetes"]["seccomp-default"].as_bool(), Some(true));
        assert_eq!(settings["kubernetes"]["pod-pids-limit"].as_integer(), Some(1024));
        assert_eq!(settings["kernel"]["lockdown"].as_str(), Some("integrity"));
        // Syntax that Bottlerocket's merge can't read (EKS User Guide, launch templates).
        assert!(!template.user_data.contains("[\"") && !template.user_data.contains("\\\""));
    }
}

#[test]
fn user_data_of_a_custom_image_names_its_cluster() {
    use crate::kinds::aws::{launch_template, node_group};
    let mut spec = example("three-tiers");
    let nodes = &mut Arc::make_mut(&mut spec.tenants[1].profile).nodes;
    (nodes.ami_family, nodes.ami_id) = (crate::spec::AmiFamily::Custom, Some("ami-0123456789abcdef0".to_owned()));
    let desired = built(&spec);
    let template: launch_template::State = state(&desired, "tenant/23456/pool/shared-1/launch-template");
    assert_eq!(template.image.as_deref(), Some("ami-0123456789abcdef0"));
    for part in
        ["multipart/mixed", "application/node.eks.aws", "--node-labels=tenantID=23456", "tenantID=23456:NoExecute"]
    {
        assert!(template.user_data.contains(part), "{part}: {}", template.user_data);
    }
    let group: node_group::State = state(&desired, "tenant/23456/pool/shared-1/node-group");
    assert_eq!(group.ami_type, "CUSTOM");
    graph::order(&desired).unwrap();
}

#[test]
fn a_weakened_launch_template_carries_no_control() {
    let mut spec = example("three-tiers");
    let profile = Arc::make_mut(&mut spec.tenants[1].profile);
    profile.imds.hop_limit = 2;
    profile.nodes.ami_family = crate::spec::AmiFamily::Al2023;
    let desired = built(&spec);
    let controls = &at(&desired, "tenant/23456/pool/shared-1/launch-template").controls;
    assert!(!controls.contains(&"NET-2") && !controls.contains(&"HOST-1"), "{controls:?}");
}

#[test]
fn a_fargate_profile_matches_its_tenant_only() {
    use crate::kinds::aws::fargate_profile::State;
    let desired = built(&example("three-tiers"));
    let profile: State = state(&desired, "tenant/34567/fargate/shared-1/profile");
    assert_eq!(profile.selectors.len(), 1);
    assert_eq!(profile.selectors[0].namespace, "t-34567");
    let trust = &at(&desired, "tenant/34567/fargate/shared-1/role/pod-execution").state["trust"];
    let arn = "arn:aws:eks:us-east-1:123456789012:fargateprofile/acme-p-shared-1/*";
    assert_eq!(trust.pointer("/Statement/0/Condition/ArnLike/aws:SourceArn").unwrap(), arn);
    let policy = at(&desired, "tenant/34567/fargate/shared-1/k8s/securitygrouppolicy.vpcresources.k8s.aws/tenant");
    assert_eq!(policy.state["requires"], "vpcresources.k8s.aws/v1beta1");
    assert!(
        desired
            .get(&Address::new("tenant/23456/pool/shared-1/k8s/securitygrouppolicy.vpcresources.k8s.aws/tenant"))
            .is_none()
    );
    assert!(desired.get(&Address::new("pool/shared-1/oidc-provider")).is_none());
}

#[test]
fn service_accounts_act_with_roles_of_their_own() {
    let account =
        || vec![crate::spec::ServiceAccount { name: "up".into(), policies: vec!["arn:aws:iam::1:policy/p".into()] }];
    let mut spec = example("three-tiers");
    spec.tenants[1].service_accounts = account();
    spec.tenants[2].service_accounts = account();
    let desired = built(&spec);
    let condition =
        |address: &str| at(&desired, address).state.pointer("/trust/Statement/0/Condition").unwrap().clone();
    let pool = condition("tenant/23456/pool/shared-1/role/sa-up");
    assert_eq!(pool["ArnEquals"]["aws:SourceArn"], "arn:aws:eks:us-east-1:123456789012:cluster/acme-p-shared-1");
    assert_eq!(pool["StringEquals"]["aws:RequestTag/kubernetes-namespace"], "t-23456");
    assert!(desired.contains(&Address::new("tenant/23456/pool/shared-1/pod-identity/up")));
    let fargate = condition("tenant/34567/fargate/shared-1/role/sa-up");
    let keys: Vec<String> = fargate["StringEquals"].as_object().unwrap().keys().map(|k| readable(k)).collect();
    assert_eq!(keys, ["<pool/shared-1/oidc-provider.issuer>:aud", "<pool/shared-1/oidc-provider.issuer>:sub"]);
    assert!(!desired.contains(&Address::new("tenant/34567/fargate/shared-1/pod-identity/up")));
    let annotated = at(&desired, "tenant/34567/fargate/shared-1/k8s/serviceaccount/up");
    assert!(annotated.state.pointer("/object/metadata/annotations/eks.amazonaws.com~1role-arn").is_some());
    graph::order(&desired).unwrap();
}

#[test]
fn endpoint_policies_let_in_what_must_work() {
    let desired = built(&example("three-tiers"));
    let statements =
        |service: &str| at(&desired, &format!("pool/shared-1/endpoint/{service}")).state["policy"]["Statement"].clone();
    let s3 = statements("s3");
    let ours = &s3[0]["Condition"]["StringEquals"];
    assert_eq!(
        (&ours["aws:PrincipalAccount"], &ours["aws:ResourceAccount"]),
        (&json!("123456789012"), &json!("123456789012"))
    );
    assert_eq!(s3[1]["Resource"], "arn:aws:s3:::prod-us-east-1-starport-layer-bucket/*");
    assert_eq!(s3[1]["Action"], "s3:GetObject");
    let sts = statements("sts");
    assert_eq!(sts[1]["Action"], "sts:AssumeRoleWithWebIdentity");
    assert_eq!(statements("ecr.api").as_array().unwrap().len(), 1);
    assert_eq!(s3.as_array().unwrap().len(), 2);
    // If images of registry.k8s.io may run, the S3 endpoint's policy allows them.
    let mut spec = example("three-tiers");
    let tenant = spec.tenants.iter_mut().find(|t| t.pool().is_some()).unwrap();
    Arc::make_mut(&mut tenant.profile).pods.allowed_registries.push("registry.k8s.io/sig-storage/".to_owned());
    let desired = built(&spec);
    let s3 = &at(&desired, "pool/shared-1/endpoint/s3").state["policy"]["Statement"];
    assert_eq!(s3[2]["Resource"], "arn:aws:s3:::prod-registry-k8s-io-us-east-1/*");
}

#[test]
fn objects_say_whose_they_are() {
    let desired = built(&example("three-tiers"));
    for r in desired.iter().filter(|r| r.kind == "k8s.manifest") {
        let metadata = &r.state["object"]["metadata"];
        assert_eq!(metadata["labels"]["ringfence.dev/tenancy"], "acme", "{}", r.address);
        assert_eq!(metadata["annotations"]["ringfence.dev/address"], r.address.as_str());
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "ringfence");
        assert!(r.state["object"].get("controls").is_none() && r.state["object"].get("requires").is_none());
    }
    let namespace = at(&desired, "tenant/34567/fargate/shared-1/k8s/namespace/t-34567");
    assert_eq!(namespace.state["object"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce-version"], "v1.34");
    assert_eq!(namespace.state["object"]["metadata"]["labels"]["ringfence.dev/tenant"], "34567");
    let quota = at(&desired, "tenant/34567/fargate/shared-1/k8s/resourcequota/tenant");
    assert_eq!(quota.state["object"]["spec"]["hard"]["pods"], "40");
}

/// Converts each object to Kubernetes' own types and back. Unknown fields are lost, so a misspelt field shows.
#[test]
fn objects_have_only_fields_that_kubernetes_knows() {
    use k8s_openapi::api::{
        admissionregistration::v1 as admission, apps::v1 as apps, core::v1 as core, networking::v1 as net,
        policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
    };
    fn through<T: serde::de::DeserializeOwned + Serialize>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
    }
    for (name, spec) in examples() {
        for r in built(&spec).iter().filter(|r| r.kind == "k8s.manifest") {
            let object = &r.state["object"];
            let back = match object["kind"].as_str().unwrap() {
                "ClusterRole" => through::<rbac::ClusterRole>(object),
                "ClusterRoleBinding" => through::<rbac::ClusterRoleBinding>(object),
                "Deployment" => through::<apps::Deployment>(object),
                "LimitRange" => through::<core::LimitRange>(object),
                "MutatingAdmissionPolicy" => through::<admission::MutatingAdmissionPolicy>(object),
                "MutatingAdmissionPolicyBinding" => through::<admission::MutatingAdmissionPolicyBinding>(object),
                "Namespace" => through::<core::Namespace>(object),
                "NetworkPolicy" => through::<net::NetworkPolicy>(object),
                "PodDisruptionBudget" => through::<policy::PodDisruptionBudget>(object),
                "PriorityClass" => through::<scheduling::PriorityClass>(object),
                "ResourceQuota" => through::<core::ResourceQuota>(object),
                "Role" => through::<rbac::Role>(object),
                "RoleBinding" => through::<rbac::RoleBinding>(object),
                "Service" => through::<core::Service>(object),
                "ServiceAccount" => through::<core::ServiceAccount>(object),
                "ValidatingAdmissionPolicy" => through::<admission::ValidatingAdmissionPolicy>(object),
                "ValidatingAdmissionPolicyBinding" => through::<admission::ValidatingAdmissionPolicyBinding>(object),
                "ClusterNetworkPolicy" | "SecurityGroupPolicy" => continue,
                other => panic!("{name}: {} is a {other}, which this test doesn't know", r.address),
            };
            assert_eq!(&back, object, "{name}: {}", r.address);
        }
    }
}

/// The gateway acts as the spec's tenants, by name, and has no other permission.
#[test]
fn the_gateway_acts_as_tenants_and_as_nobody_else() {
    let desired = built(&example("gateway"));
    let role = "arn:aws:iam::123456789012:role/acme-gateway";
    let entries: Vec<&Resource> = desired.iter().filter(|r| r.kind == "aws.access-entry").collect();
    let (of_gateway, others): (Vec<&Resource>, Vec<_>) = entries.iter().partition(|r| r.state["principal"] == role);
    assert_eq!(of_gateway.len(), 2, "one for each cluster");
    for entry in of_gateway {
        assert_eq!(entry.controls, ["API-1"]);
        assert_eq!((&entry.state["groups"], &entry.state["policies"]), (&json!(["ringfence:gateway"]), &json!([])));
    }
    assert!(others.iter().all(|r| r.state["groups"] == json!([])), "{others:?}");

    let rbac = "rbac.authorization.k8s.io";
    let outside = json!({"apiGroup": rbac, "kind": "Group", "name": "ringfence:gateway"});
    let inside = json!({"kind": "ServiceAccount", "name": "gateway", "namespace": "ringfence-gateway"});
    let found: Vec<&Resource> = desired.iter().filter(|r| r.address.as_str().contains("/k8s/clusterrole")).collect();
    assert_eq!(found.len(), 6, "two for each tenant");
    for r in found {
        assert_eq!(r.controls, ["API-1"]);
        let object = &r.state["object"];
        let id = object["metadata"]["labels"]["ringfence.dev/tenant"].as_str().unwrap();
        assert_eq!(object["metadata"]["name"], format!("ringfence-gateway-{id}"));
        if object["kind"] == "ClusterRole" {
            let named = |resource: &str| {
                json!({"apiGroups": [""], "resources": [resource], "resourceNames": [format!("tenant:{id}")],
                    "verbs": ["impersonate"]})
            };
            let extra = json!({"apiGroups": ["authentication.k8s.io"],
                "resources": ["userextras/ringfence.dev/identity"], "verbs": ["impersonate"]});
            assert_eq!(object["rules"], json!([named("users"), named("groups"), extra]));
        } else {
            let role = json!({"apiGroup": rbac, "kind": "ClusterRole", "name": format!("ringfence-gateway-{id}")});
            assert_eq!(object["roleRef"], role);
            // A pool's gateway reaches the tenants of its pool only.
            let subjects = if id == "hooli" { json!([outside]) } else { json!([outside, inside]) };
            assert_eq!(object["subjects"], subjects, "{id}");
            let first = before(&desired, r.address.as_str());
            assert!(first.iter().any(|a| a.ends_with("/networkpolicy/default-deny")), "bindings come last: {first:?}");
        }
    }
    let without = built(&example("three-tiers"));
    assert!(without.iter().all(|r| !r.state.to_string().contains("ringfence:gateway")));
    let mut only_inside = example("gateway");
    only_inside.gateway.as_mut().unwrap().role = None;
    let only_inside = built(&only_inside);
    let binding = at(&only_inside, "tenant/globex/pool/shared-1/k8s/clusterrolebinding/ringfence-gateway-globex");
    assert_eq!(binding.state["object"]["subjects"], json!([inside]));
    assert!(only_inside.iter().all(|r| !r.state.to_string().contains("ringfence:gateway")));
    let mut nobody = example("gateway");
    nobody.gateway.as_mut().unwrap().role = None;
    nobody.pools[0].gateway = None;
    assert!(built(&nobody).iter().all(|r| !r.state.to_string().contains("impersonate")), "nobody runs a gateway");
}

#[test]
fn pods_of_the_gateway() {
    let desired = built(&example("gateway"));
    let home = "pool/shared-1/k8s";
    let object = |name: &str| at(&desired, &format!("{home}/{name}")).state["object"].clone();
    let deployment = format!("{home}/deployment/ringfence-gateway/gateway");
    let first = before(&desired, &deployment);
    assert!(first.contains(&format!("{home}/namespace/ringfence-gateway")), "{first:?}");
    for policy in ["default-deny", "gateway"] {
        let address = format!("{home}/networkpolicy/ringfence-gateway/{policy}");
        let first = before(&desired, &address);
        assert!(first.contains(&format!("{home}/namespace/ringfence-gateway")), "{policy}: {first:?}");
    }
    // Admission policies treat a namespace with a tenant's label as the tenant's.
    let namespace = object("namespace/ringfence-gateway");
    assert_eq!(namespace["metadata"]["labels"].get("ringfence.dev/tenant"), None);
    assert!(desired.iter().all(|r| !r.address.as_str().starts_with("tenant/hooli/silo/k8s/namespace/ringfence")));
    let service = object("service/ringfence-gateway/gateway");
    assert_eq!(service["spec"]["loadBalancerClass"], "service.k8s.aws/nlb");
    assert_eq!(
        service["metadata"]["annotations"]["service.beta.kubernetes.io/aws-load-balancer-scheme"], "internal",
        "not open to the internet"
    );
    let pull = at(&desired, "pool/shared-1/role/system-nodes").state.pointer("/inline/images").unwrap().to_string();
    assert!(pull.contains("123456789012:repository/platform/ringfence\""), "{pull}");

    let mut spec = example("gateway");
    let pods = spec.pools[0].gateway.as_mut().unwrap();
    (pods.load_balancer, pods.replicas) = (false, 5);
    (pods.config_map, pods.certificate_secret) = ("settings".to_owned(), "certificate".to_owned());
    let other = built(&spec);
    let state = |name: &str| at(&other, &format!("{home}/{name}")).state["object"].clone();
    let service = state("service/ringfence-gateway/gateway");
    assert_eq!((&service["spec"]["type"], service["spec"].get("loadBalancerClass")), (&json!("ClusterIP"), None));
    let spec = state("deployment/ringfence-gateway/gateway")["spec"].clone();
    assert_eq!(spec["replicas"], 5);
    let volumes = &spec["template"]["spec"]["volumes"];
    assert_eq!(
        (&volumes[0]["configMap"]["name"], &volumes[1]["secret"]["secretName"]),
        (&json!("settings"), &json!("certificate"))
    );
}

/// The rules of a tenant's Role for a subresource of Pods, or for Namespaces.
fn verbs(desired: &Desired, role: &str, resource: &str) -> Value {
    let rules = at(desired, role).state["object"]["rules"].as_array().unwrap().clone();
    let of = rules.into_iter().find(|r| r["resources"].as_array().unwrap().iter().any(|one| one == resource));
    of.map(|rule| rule["verbs"].clone()).unwrap_or_default()
}

#[test]
fn sessions_are_open_where_the_tier_opens_them() {
    let desired = built(&example("gateway"));
    let globex = "tenant/globex/pool/shared-1/k8s/role/tenant";
    let initech = "tenant/initech/fargate/shared-1/k8s/role/tenant";
    for (resource, of_globex) in [
        ("pods/exec", json!(["create", "get"])),
        ("pods/attach", json!(["create", "get"])),
        ("pods/portforward", json!(["create", "get"])),
        ("pods/ephemeralcontainers", Value::Null),
    ] {
        assert_eq!(verbs(&desired, globex, resource), of_globex, "{resource}");
        assert_eq!(verbs(&desired, initech, resource), Value::Null, "{resource}");
    }
    let mut own = example("gateway");
    Arc::make_mut(&mut own.tenants[2].profile).sessions.ephemeral_containers = true;
    let own = built(&own);
    assert_eq!(verbs(&own, initech, "pods/ephemeralcontainers"), json!(["get", "patch", "update"]));
    assert_eq!(verbs(&own, initech, "pods/exec"), Value::Null);
    assert_eq!(verbs(&own, initech, "namespaces"), json!(["get", "watch"]));
}

#[test]
fn hostile_names_stay_names() {
    let hostile = "x\"\n---\nkind: ClusterRoleBinding\n# {{ tenancy.account }}";
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("manifests/tenant");
    std::fs::create_dir_all(&folder).unwrap();
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: about, namespace: {{ tenant.namespace | json }}}\ndata:\n  name: ";
    let mut spec = example("three-tiers");
    spec.tenants[1].name = hostile.to_owned();
    for (value, accepted) in
        [("{{ tenant.name | json }}", true), ("\"{{ tenant.name }}\"", false), ("{{ tenant.name }}", false)]
    {
        std::fs::write(folder.join("about.yaml"), format!("{object}{value}\n")).unwrap();
        let templates = Templates::load(Some(directory.path())).unwrap();
        match build(&spec, &Facts::assumed(&spec), &templates) {
            Ok(desired) => {
                assert!(accepted, "{value}");
                let map = at(&desired, "tenant/23456/pool/shared-1/k8s/configmap/about");
                assert_eq!(map.state["object"]["data"]["name"], hostile);
            }
            Err(error) => assert!(!accepted && error.message.contains("tenant/23456/pool"), "{error}"),
        }
    }
}

/// The structure of a value without the content of its texts. User data is decoded first.
fn skeleton(value: &Value) -> Value {
    match value {
        Value::String(_) => Value::Null,
        Value::Array(all) => all.iter().map(skeleton).collect(),
        Value::Object(members) => {
            let read = |key: &String, one: &Value| match one.as_str().filter(|_| key == "user_data") {
                Some(text) if text.starts_with("MIME") => json!(text.lines().count()),
                Some(text) => skeleton(&serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()),
                None => skeleton(one),
            };
            members.iter().map(|(key, one)| (key.clone(), read(key, one))).collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// Pointers to all texts in `value`.
fn texts(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at),
        Value::Array(all) => all.iter().enumerate().for_each(|(n, one)| texts(one, format!("{at}/{n}"), found)),
        Value::Object(members) => {
            members.iter().for_each(|(key, one)| texts(one, format!("{at}/{}", key.replace('/', "~1")), found));
        }
        _ => {}
    }
}

/// For every text in a spec: a text with YAML, TOML, JSON, template or shell syntax is refused or stays text, and a
/// text that YAML would read as another type stays a text.
#[test]
fn no_text_of_a_spec_becomes_anything_else() {
    const MARKUP: [&str; 4] = [
        "x\"\n---\nkind: ClusterRoleBinding\n[settings.host-containers.admin]\nenabled = true\n",
        "\"}], \"Resource\": \"*",
        "'; $(id) `id` && id | id; \"$HOME\"",
        "{{ tenancy.account }}{% raw %}",
    ];
    const WORDS: [&str; 4] = ["null", "1e3", "0777", "no"];
    let (mut accepted, mut refused) = (0, 0);
    for name in ["three-tiers", "two-pools", "regulated"] {
        let benign = example(name);
        let wanted = skeleton(&serde_json::to_value(built(&benign)).unwrap());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("tenancy.yaml");
        let tree: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut places = Vec::new();
        texts(&tree, String::new(), &mut places);
        let loaded = |place: &str, text: &str| {
            let mut tree = tree.clone();
            *tree.pointer_mut(place).unwrap() = text.into();
            let options = LoadOptions { profiles_dir: None, today: jiff::civil::date(2026, 11, 23) };
            load(Path::new("tenancy.yaml"), &tree.to_string(), &options).ok()
        };
        for (place, text) in places.iter().flat_map(|place| MARKUP.map(|text| (place, text))) {
            assert!(loaded(place, text).is_none(), "{name}{place} = {text:?}");
            refused += 1;
        }
        // Ids and names of pools and tenancies are parts of other names, so they aren't free texts.
        let free = |place: &&String| {
            place.starts_with("/spec/tags/")
                || (place.starts_with("/spec/tenants/") && place.ends_with("/name") && place.matches('/').count() == 4)
        };
        for (place, text) in places.iter().filter(free).flat_map(|place| WORDS.map(|text| (place, text))) {
            let spec = loaded(place, text).unwrap_or_else(|| panic!("{name}{place} = {text:?}"));
            let desired = skeleton(&serde_json::to_value(built(&spec)).unwrap());
            assert!(desired == wanted, "{name}{place} = {text:?}");
            accepted += 1;
        }
    }
    assert!(accepted >= 20 && refused >= 300, "{accepted} accepted, {refused} refused");
}

#[test]
fn a_template_that_makes_no_object_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("manifests/cluster");
    std::fs::create_dir_all(&folder).unwrap();
    let spec = example("three-tiers");
    for (text, what) in [
        ("[1]", "isn't an object"),
        ("a: 1", "no apiVersion"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {}", "no metadata.name"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: a}\ncontrols: [NET-99]", "NET-99"),
    ] {
        std::fs::write(folder.join("mine.yaml"), text).unwrap();
        let templates = Templates::load(Some(directory.path())).unwrap();
        let error = build(&spec, &Facts::assumed(&spec), &templates).unwrap_err();
        assert!(error.message.contains("mine.yaml") && error.message.contains(what), "{error}");
    }
}

/// Different objects have different addresses, even if their kinds, namespaces and names are the same when joined with
/// dashes, or after replacing characters that a tag can't have.
#[test]
fn objects_have_one_address_each() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("manifests/cluster");
    std::fs::create_dir_all(&folder).unwrap();
    let object = |api: &str, kind: &str, namespace: &str, name: &str| {
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{namespace: {namespace}, name: \"{name}\"}}\n")
    };
    let role = |name: &str| object("rbac.authorization.k8s.io/v1", "ClusterRole", "~", name);
    let all = [
        object("v1", "ConfigMap", "a-b", "c"),
        object("v1", "ConfigMap", "a", "b-c"),
        object("v1", "ConfigMap", "a", "b.c"),
        object("networking.k8s.io/v1", "NetworkPolicy", "a", "b"),
        object("crd.projectcalico.org/v1", "NetworkPolicy", "a", "b"),
        role("view-it"),
        role("view:it"),
        role("View-it"),
        role("view it"),
        role("view/it"),
        role("view=20it"),
    ];
    std::fs::write(folder.join("mine.yaml"), all.join("---\n")).unwrap();
    let spec = example("single-silo");
    let built = build(&spec, &Facts::assumed(&spec), &Templates::load(Some(directory.path())).unwrap()).unwrap();
    let plain = build(&spec, &Facts::assumed(&spec), &Templates::built_in().unwrap()).unwrap();
    let new: BTreeSet<&str> =
        built.iter().map(|r| r.address.as_str()).filter(|a| plain.get(&Address::new(a)).is_none()).collect();
    assert_eq!(new.len(), all.len(), "{new:#?}");
    for address in ["configmap/a-b/c", "networkpolicy.crd.projectcalico.org/a/b", "clusterrole/view=2fit"] {
        assert!(new.contains(format!("tenant/globex/silo/k8s/{address}").as_str()), "{address} of {new:#?}");
    }
    assert!(new.iter().all(|a| Address::new(a).as_str() == *a), "an address reads back as it is");
}

#[test]
fn versions_of_addons() {
    let spec = example("three-tiers");
    let address = Address::new("pool/shared-1/addon/vpc-cni");
    let version = |facts: &Facts| {
        build(&spec, facts, &Templates::built_in().unwrap())
            .map(|d| d.get(&address).unwrap().state["version"].as_str().unwrap().to_owned())
    };
    let mut facts = Facts::assumed(&spec);
    let offer = |facts: &mut Facts, default: &str, all: &[&str]| {
        let versions = all.iter().map(|v| format!("v{v}")).collect();
        for addons in facts.offered.values_mut() {
            addons.insert(
                "vpc-cni".to_owned(),
                Offer { default: Some(format!("v{default}")), versions: Clone::clone(&versions) },
            );
        }
    };
    offer(&mut facts, "1.22.4-eksbuild.1", &["1.23.1-eksbuild.1", "1.22.4-eksbuild.1", "1.21.0-eksbuild.4"]);
    assert_eq!(version(&facts).unwrap(), "v1.22.4-eksbuild.1");
    facts.addons.insert(address.clone(), "v1.23.1-eksbuild.1".to_owned());
    assert_eq!(version(&facts).unwrap(), "v1.23.1-eksbuild.1", "what runs stays");
    facts.upgrade = true;
    assert_eq!(version(&facts).unwrap(), "v1.22.4-eksbuild.1", "unless EKS recommends another and it is asked for");
    facts.upgrade = false;
    facts.addons.insert(address.clone(), "v1.21.0-eksbuild.4".to_owned());
    assert_eq!(version(&facts).unwrap(), "v1.22.4-eksbuild.1", "what runs is below the floor");
    offer(&mut facts, "1.21.0-eksbuild.4", &["1.22.10-eksbuild.2", "1.22.4-eksbuild.9", "1.21.0-eksbuild.4"]);
    assert_eq!(version(&facts).unwrap(), "v1.22.10-eksbuild.2", "what EKS recommends is below the floor");
    offer(&mut facts, "1.21.0-eksbuild.4", &["1.21.0-eksbuild.4"]);
    assert!(version(&facts).is_err_and(|e| e.message.contains("vpc-cni")));
}

#[test]
fn clusters_go_one_minor_at_a_time_and_never_back() {
    let v = |minor| KubernetesVersion { major: 1, minor };
    for (running, nodes, wanted, next) in [
        (None, None, 36, 36),
        (Some(36), None, 36, 36),
        (Some(34), Some(34), 36, 35),
        (Some(35), None, 36, 36),
        (Some(37), Some(37), 36, 37),
        // EKS upgrades no control plane whose nodes are behind it.
        (Some(35), Some(34), 36, 35),
        (Some(35), Some(34), 35, 35),
    ] {
        assert_eq!(facts::next_version(running.map(v), nodes.map(v), v(wanted)), v(next));
    }
}

#[test]
fn zones_and_subnets_that_exist_stay() {
    let mut spec = example("single-silo");
    let facts = Facts::assumed(&spec);
    let first = built_with(&spec, &facts);
    let mut later = observed(&facts, &first);
    // A new zone sorts before the others, and another zone is gone.
    later.zones.remove(0);
    assert_eq!(blocks(&built_with(&spec, &later)), blocks(&first));
    // Another zone gets blocks beside the existing ones.
    spec.network.zones += 2;
    let grown = blocks(&built_with(&spec, &later));
    assert!(blocks(&first).iter().all(|(address, cidr)| grown.get(address) == Some(cidr)));
    assert!(grown.len() > blocks(&first).len());
    disjoint(&grown);
    let mut fresh = facts;
    fresh.zones.truncate(2);
    let error = build(&spec, &fresh, &Templates::built_in().unwrap()).unwrap_err();
    assert!(error.message.contains("zones"), "{error}");
}

/// Asserts that subnets lie in their VPC and don't overlap.
fn disjoint(blocks: &BTreeMap<String, String>) {
    let net = |cidr: &String| cidr.parse::<Ipv4Net>().unwrap();
    let subnets: Vec<(&String, Ipv4Net)> =
        blocks.iter().filter(|(a, _)| a.contains("/subnet/")).map(|(a, c)| (a, net(c))).collect();
    for (address, subnet) in &subnets {
        let vpc = net(&blocks[&format!("{}/vpc", address.split("/subnet/").next().unwrap())]);
        assert!(vpc.contains(subnet), "{address} {subnet} isn't in {vpc}");
        assert!(subnet.prefix_len() <= 28);
        for (other, there) in subnets.iter().filter(|(a, _)| a != address) {
            assert!(!there.contains(subnet), "{address} {subnet} overlaps {other} {there}");
        }
    }
}

#[test]
fn every_size_that_the_spec_allows_has_room() {
    let mut spec = example("single-silo");
    let allowed = [(2, 26), (3, 25), (4, 25), (5, 24), (6, 24)];
    for (zones, longest) in allowed {
        for prefix in 16..=longest {
            (spec.network.zones, spec.network.vpc_prefix) = (zones, prefix);
            let blocks = blocks(&built(&spec));
            assert_eq!(blocks.len(), 1 + 2 * usize::from(zones));
            disjoint(&blocks);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_tenants_means_nothing(ids in prop::collection::btree_set("[a-z0-9]{1,8}", 1..6).prop_map(Vec::from_iter).prop_shuffle()) {
        let mut sorted = ids.clone();
        sorted.sort();
        let (shuffled, sorted) = (silos(&ids), silos(&sorted));
        prop_assert_eq!(serde_json::to_string(&built(&shuffled)).unwrap(), serde_json::to_string(&built(&sorted)).unwrap());
    }

    #[test]
    fn coming_and_going_moves_nobody(
        ids in prop::collection::btree_set("[a-z0-9]{1,8}", 2..7).prop_map(Vec::from_iter).prop_shuffle(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (stay, change) = ids.split_at(1 + cut.index(ids.len() - 1));
        let few = silos(stay);
        let facts = Facts::assumed(&few);
        let first = built_with(&few, &facts);
        // New tenants are added …
        let all = silos(&ids);
        let facts = observed(&facts, &first);
        let second = built_with(&all, &facts);
        for (address, cidr) in blocks(&first) {
            prop_assert_eq!(blocks(&second).get(&address).cloned(), Some(cidr));
        }
        disjoint(&blocks(&second));
        // … and the first ones leave the spec, while their VPCs still exist.
        let facts = observed(&facts, &second);
        let rest = silos(change);
        if !change.is_empty() {
            for (address, cidr) in blocks(&built_with(&rest, &facts)) {
                prop_assert_eq!(blocks(&second).get(&address).cloned(), Some(cidr));
            }
        }
        let vpcs: BTreeSet<String> = blocks(&second).into_iter().filter(|(a, _)| a.ends_with("/vpc")).map(|(_, c)| c).collect();
        prop_assert_eq!(vpcs.len(), ids.len());
    }
}

/// Names that are too long are cut, and are still recognised as this tenancy's.
#[test]
fn long_role_names_are_recognised() {
    use crate::kinds::aws::access_entry::is_named_ours;
    let mut spec = example("single-silo");
    for (name, region) in [("solo", "eu-central-1"), ("a-tenancy-of-thirty-two-letters-", "ap-southeast-99")] {
        (spec.name, spec.region) = (name.to_owned(), region.to_owned());
        let names = Names::new(&spec);
        let long = "x".repeat(32);
        for owner in [Owner::Tenant("globex"), Owner::Tenant(&long), Owner::Pool(&long)] {
            for purpose in ["nodes", "pod-execution"] {
                let role = format!("arn:aws:iam::123456789012:role/some/path/{}", names.role(owner, purpose));
                assert!(is_named_ours(name, region, &role), "{role}");
                assert!(!is_named_ours("other", region, &role), "{role}");
            }
        }
    }
}

/// Nodes never get a newer version than a control plane that the run doesn't change. They aren't upgraded again while
/// somebody rolls the control plane back.
#[test]
fn nodes_follow_their_control_plane() {
    let mut spec = example("three-tiers");
    let version =
        |desired: &Desired, group: &str| display(&state::<serde_json::Value>(desired, group)["version"].to_string());
    let (group, of) = ("tenant/23456/pool/shared-1/node-group", "pool/shared-1/cluster");
    assert_eq!(version(&built(&spec), group), format!("\"<{of}.version>\""));
    let v = |minor| KubernetesVersion { major: 1, minor };
    let mut facts = Facts::assumed(&spec);
    facts.kubernetes.insert(Address::new(of), v(36));
    let node_group = |minor| NodeGroup { cluster: "acme-p-shared-1".to_owned(), version: v(minor) };
    facts.node_groups.insert(Address::new(group), node_group(35));
    for pool in &mut spec.pools {
        pool.kubernetes_version = v(35);
    }
    let desired = built_with(&spec, &facts);
    assert_eq!(version(&desired, group), "\"1.35\"");
    let refusals: Vec<_> = desired.refusals.iter().map(|r| (r.address.as_str(), r.pending)).collect();
    assert_eq!(refusals, [(of, false)]);
}

/// No run upgrades a node group that left the spec. It is named, with the command that removes it.
#[test]
fn a_node_group_that_left_the_spec_holds_up_upgrades() {
    let mut spec = example("three-tiers");
    let v = |minor| KubernetesVersion { major: 1, minor };
    let brought_to = |spec: &mut Spec, minor| spec.pools.iter_mut().for_each(|p| p.kubernetes_version = v(minor));
    brought_to(&mut spec, 35);
    let mut facts = Facts::assumed(&spec);
    brought_to(&mut spec, 36);
    facts.kubernetes.insert(Address::new("pool/shared-1/cluster"), v(35));
    let group = |minor| NodeGroup { cluster: "acme-p-shared-1".to_owned(), version: v(minor) };
    facts.node_groups.insert(Address::new("tenant/23456/pool/shared-1/node-group"), group(34));
    let refusals = |facts: &Facts| -> Vec<(bool, String)> {
        built_with(&spec, facts).refusals.into_iter().map(|r| (r.pending, r.help)).collect()
    };
    assert_eq!(refusals(&facts), [(true, "run the same command again after this run".to_owned())]);
    facts.node_groups.insert(Address::new("tenant/gone/pool/shared-1/node-group"), group(34));
    let help = "delete the resources that left the spec (--allow-destroy tenant/gone/pool/shared-1), then run the same command again";
    assert_eq!(refusals(&facts), [(false, help.to_owned())]);
}

/// The spec can't have tags that ringfence leaves to controllers.
#[test]
fn controllers_tags_are_refused_in_a_spec() {
    for prefix in tags::CONTROLLERS {
        let text = format!(
            "apiVersion: ringfence.dev/v1alpha1\nkind: Tenancy\nmetadata: {{name: acme}}\nspec:\n  region: us-east-1\n  kubernetesVersion: \"1.36\"\n  network: {{supernet: 10.64.0.0/12, endpoints: [s3]}}\n  tags: {{{prefix}x: a}}\n  tenants: [{{id: a, name: a, tier: premium}}]\n"
        );
        let options = LoadOptions { profiles_dir: None, today: jiff::civil::date(2026, 11, 23) };
        let errors = load(Path::new("tenancy.yaml"), &text, &options).unwrap_err().0;
        assert_eq!(errors[0].path, format!("spec.tags[{:?}]", format!("{prefix}x")), "{}", errors[0]);
    }
}
