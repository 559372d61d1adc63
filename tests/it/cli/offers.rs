//! Before the first write, everything that AWS doesn't offer is named with its place in the spec.

use std::io::{BufRead, BufReader};

use super::*;

/// A pool tenant and a silo, in `region`.
fn spec(region: &str, zones: u8, endpoints: &str, tenants: &str) -> String {
    format!(
        "apiVersion: ringfence.dev/v1alpha1
kind: Tenancy
metadata: {{name: blue}}
spec:
  region: {region}
  accountId: \"123456789012\"
  kubernetesVersion: \"1.36\"
  network: {{supernet: 10.40.0.0/13, vpcPrefix: 18, zones: {zones}, natGateways: single, endpoints: [{endpoints}]}}
  access: {{endpoint: private, admins: [arn:aws:iam::123456789012:role/PlatformAdmin]}}
  pools: [{{name: main}}]
  tenants:
{tenants}"
    )
}

const ALPHA: &str = "    - {id: a1, name: alpha, tier: standard, pool: main}\n";

fn silo(overrides: &str) -> String {
    format!("{ALPHA}    - {{id: b2, name: beta, tier: premium, overrides: {{{overrides}}}}}\n")
}

fn estate(spec: &str) -> Estate {
    let estate = Estate::new(&THREE_TIERS);
    estate.write(spec);
    estate
}

/// The text without line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn asked(served: &Served) -> Vec<String> {
    let asked = served.server.counts().into_keys().map(|(_, operation)| operation);
    asked.filter(|o| o.starts_with("DescribeInstanceType") || o == "DescribeVpcEndpointServices").collect()
}

fn written(served: &Served) -> bool {
    served.server.counts().keys().any(|(service, operation)| service != "ssm" && operation.starts_with("Create"))
}

/// Sources: eksctl #4238 and #6461, terraform-aws-eks #1279. Other cases were added.
#[test]
fn all_missing_offers_are_named_together() {
    let tenants = "    - {id: a1, name: alpha, tier: standard, pool: main, overrides: {nodes: {instanceTypes: [m77i.large]}}}
    - id: b2
      name: beta
      tier: premium
      overrides:
        nodes: {instanceTypes: [g6e.xlarge]}
        addons: {coredns: {version: v1.99.0-eksbuild.1}}
    - {id: c3, name: gamma, tier: premium, overrides: {nodes: {instanceTypes: [mac2.metal]}, systemNodes: {architecture: x86_64, amiFamily: al2023, instanceTypes: [inf2.xlarge]}}, waivers: [{control: HOST-1, reason: tried, until: 2027-01-31}]}
";
    let estate = estate(&spec("us-east-1", 2, "s3", tenants));
    // The first plan makes the sandbox create the principals that the spec names.
    estate.run(&["plan"]);
    let wanted = [
        ("EC2 offers no instance type `m77i.large` in us-east-1", "did you mean `m7i.large`?", 12),
        (
            "`g6e.xlarge` has a GPU (NVIDIA L40S), but the standard image of Bottlerocket has no driver",
            "amiFamily: custom",
            17,
        ),
        ("EKS offers no version `v1.99.0-eksbuild.1` of coredns for Kubernetes 1.36", "EKS recommends `v1.", 18),
        (
            "`mac2.metal` has the architecture arm64_mac, but the nodes' image is for x86_64",
            "an instance type for x86_64",
            19,
        ),
        (
            "`inf2.xlarge` has a Neuron device, but the standard image of Amazon Linux 2023",
            "amiFamily: bottlerocket",
            19,
        ),
    ];
    let served = Served::start(&estate, None);
    let plan = against(&served.url(), &mut estate.bare(&["plan"])).exits(1);
    let apply = against(&served.url(), &mut estate.bare(&["apply", "--auto-approve"])).exits(1);
    for said in [flat(&plan.out), flat(&apply.err)] {
        for (message, help, line) in wanted {
            assert!(said.contains(message) && said.contains(help), "{message}, {help}: {said}");
            assert!(said.contains(&format!("tenancy.yaml:{line}:")), "{message}: {said}");
        }
    }
    assert!(!apply.err.contains("run the same command"), "{}", apply.err);
    assert!(!written(&served), "something was made");
    let json = against(&served.url(), &mut estate.bare(&["plan", "--format", "json"])).exits(1).json();
    let paths: Vec<&str> = list(&json["errors"]).iter().map(|e| text(&e["path"])).collect();
    assert_eq!(
        paths,
        [
            "spec.tenants[0].overrides.nodes.instanceTypes[0]",
            "spec.tenants[1].overrides.nodes.instanceTypes[0]",
            "spec.tenants[1].overrides.addons.coredns.version",
            "spec.tenants[2].overrides.nodes.instanceTypes[0]",
            "spec.tenants[2].overrides.systemNodes.instanceTypes[0]",
        ]
    );
    for format in ["markdown", "html"] {
        let plan = against(&served.url(), &mut estate.bare(&["plan", "--format", format])).exits(1);
        assert!(plan.out.contains("m77i.large") && plan.out.contains("tenancy.yaml:12"), "{}", plan.out);
    }
    // Without the preflight, AWS refuses the same, but a quarter of an hour later.
    let run = against(&served.url(), &mut estate.bare(&["apply", "--auto-approve", "--no-preflight"]));
    let run = run.exits(1);
    assert!(flat(&run.out).contains("The following supplied instance types do not exist: [m77i.large]"), "{}", run.out);
    assert!(flat(&run.out).contains("[g6e.xlarge] is not a valid instance type for requested amiType"), "{}", run.out);
}

/// ec2-spot-workshops #154: a zone that lacks a type.
#[test]
fn a_type_must_be_offered_in_each_zone_of_the_vpc() {
    let estate = estate(&spec("us-west-2", 4, "s3", &silo("nodes: {instanceTypes: [m4.large]}")));
    let said = flat(&estate.run(&["plan"]).exits(1).out);
    assert!(
        said.contains("EC2 offers no `m4.large` in `us-west-2d`, where tenant/b2/silo/node-group has a subnet"),
        "{said}"
    );
    let run = estate.run(&["apply", "--auto-approve", "--no-preflight"]).exits(1);
    assert!(
        flat(&run.out).contains("is not supported in your requested Availability Zone (us-west-2d)"),
        "{}",
        run.out
    );
    // A second instance type that the zone has is enough.
    estate.edit("[m4.large]", "[m4.large, m5.large]");
    let run = estate.run(&["apply", "--auto-approve"]).exits(0);
    assert!(
        flat(&run.out).contains("Note: tenant/b2/silo/node-group: EC2 offers no m4.large in us-west-2d"),
        "{}",
        run.out
    );
    estate.run(&["plan", "--detailed-exitcode"]).exits(0);
    // If the tier itself names the type, many tenants give one finding.
    let many: String = (0..3).map(|n| format!("    - {{id: c{n}, name: c{n}, tier: big}}\n")).collect();
    fs::create_dir(estate.path().join("profiles")).unwrap();
    let profile = "extends: premium\nnodes:\n  instanceTypes: [p3.2xlarge]\n";
    fs::write(estate.path().join("profiles/big.yaml"), profile).unwrap();
    estate.write(&spec("us-west-2", 2, "s3", &format!("{ALPHA}{many}")));
    let said = flat(&estate.run(&["plan", "--profiles", "profiles"]).exits(1).out);
    assert_eq!(said.matches("`p3.2xlarge` has a GPU").count(), 1, "{said}");
    assert!(said.contains("profiles/big.yaml:3") && said.contains("2 more of the same profile"), "{said}");
}

/// terraform-aws-vpc #462 and #785: a service that isn't in every zone.
#[test]
fn an_endpoint_goes_where_its_service_is() {
    let estate = estate(&spec("us-east-1", 2, "s3, sts, email-smtp", &silo("")));
    let served = Served::start(&estate, None);
    let aws = served.aws();
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}]}"#;
    let made = aws.iam.create_role().role_name("PlatformAdmin").assume_role_policy_document(trust);
    served.runtime.block_on(made.send()).unwrap();
    let run = against(&served.url(), &mut estate.bare(&["apply", "--auto-approve"])).exits(0);
    let note =
        "endpoint/email-smtp: the service doesn't exist in us-east-1b; the endpoint gets an interface in us-east-1a";
    assert!(flat(&run.out).contains(note), "{}", run.out);
    against(&served.url(), &mut estate.bare(&["plan", "--detailed-exitcode"])).exits(0);
    let subnets = || {
        let endpoints = served.runtime.block_on(aws.ec2.describe_vpc_endpoints().send()).unwrap();
        let mail = endpoints.vpc_endpoints().iter().find(|e| e.service_name().unwrap().ends_with("email-smtp"));
        mail.unwrap().subnet_ids().len()
    };
    assert_eq!(subnets(), 1);

    // A region without the service.
    let xml = "<?xml version=\"1.0\"?><DescribeVpcEndpointServicesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><serviceDetailSet/></DescribeVpcEndpointServicesResponse>";
    let nothing = bad_days::response("200 OK", "Content-Type: text/xml\r\n", xml);
    let (url, _) = bad_days::in_front(served.server.addr(), "DescribeVpcEndpointServices", nothing);
    estate.edit("[s3, sts, email-smtp]", "[s3, sts, email-smtp, kms]");
    let run = against(&url, &mut estate.bare(&["apply", "--auto-approve"]));
    let run = run.refuses(&["us-east-1 has no endpoint service `kms`", "spec.network.endpoints[3]", "NAT gateways"]);
    assert!(run.err.contains("tenancy.yaml:8:"), "{}", run.err);
}

/// Fargate has no zone apne1-az3, which older accounts have.
#[test]
fn fargate_runs_in_the_zones_that_have_it() {
    let tenants = format!("{ALPHA}    - {{id: f6, name: foxtrot, tier: serverless, pool: main}}\n");
    let estate = estate(&spec("ap-northeast-1", 3, "s3", &tenants));
    let run = estate.run(&["apply", "--auto-approve"]).exits(0);
    let note = "tenant/f6/fargate/main/profile: Fargate doesn't run in ap-northeast-1b (apne1-az3)";
    assert!(flat(&run.out).contains(note), "{}", run.out);
    estate.run(&["plan", "--detailed-exitcode"]).exits(0);
    let state: Value = serde_json::from_slice(&fs::read(estate.state()).unwrap()).unwrap();
    let cluster = &state["accounts"]["123456789012"]["regions"]["ap-northeast-1"]["eks"]["clusters"]["blue-p-main"];
    let profile = cluster["profiles"].as_object().unwrap().values().next().unwrap();
    assert_eq!(list(&profile["body"]["subnets"]).len(), 2, "{profile}");
}

/// Only resources that are to be made are checked. A caller without the permission to check goes on.
#[test]
fn only_resources_to_create_are_checked() {
    let estate = Estate::applied(&THREE_TIERS);
    let served = Served::start(&estate, None);
    against(&served.url(), &mut estate.bare(&["plan", "--detailed-exitcode"])).exits(0);
    assert_eq!(asked(&served), [] as [&str; 0]);
    drop(served);
    let estate = Estate::new(&THREE_TIERS);
    estate.run(&["plan"]);
    let served = Served::start(&estate, None);
    let denied =
        "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>No.</Message></Error></Errors></Response>";
    let refusal = bad_days::response("403 Forbidden", "Content-Type: text/xml\r\n", denied);
    let (url, _) = bad_days::in_front(served.server.addr(), "DescribeInstanceTypeOfferings", refusal);
    let run = against(&url, &mut estate.bare(&["plan"])).exits(0);
    assert!(flat(&run.out).contains("the instance types could not be checked"), "{}", run.out);
}

/// The sandbox with the quotas of a new account.
#[test]
fn a_fresh_account_has_room_for_little() {
    let estate = Estate::new(&THREE_TIERS);
    let room = |more: &[&str]| {
        let serve = [&["sandbox", "--listen", "127.0.0.1:0"][..], more].concat();
        let mut serving = estate.bare(&serve).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(serving.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        let plan = against(url, &mut estate.bare(&["plan"]));
        serving.kill().unwrap();
        serving.wait().unwrap();
        flat(&plan.exits(0).err)
    };
    let fresh = room(&["--account", "fresh"]);
    for text in
        ["EC2-VPC Elastic IPs (L-0263D0A3): 0 of 5 in use, 6 to be created", "(L-1216C47A): the quota is 5 vCPUs"]
    {
        assert!(fresh.contains(text), "{text}: {fresh}");
    }
    let raised = room(&["--account", "fresh", "--quota", "L-0263D0A3=6"]);
    assert!(!raised.contains("L-0263D0A3") && raised.contains("L-1216C47A"), "{raised}");
    for usual in [room(&[]), room(&["--account", "production"])] {
        assert!(!usual.contains("quotas are too small"), "{usual}");
    }
}
