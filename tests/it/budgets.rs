//! The limit of AWS calls for an estate. `benches/report.py` measures more; this test fails if the number grows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::support::served::Served;

const SILOS: usize = 10;

fn spec() -> String {
    let mut spec = String::from(
        "apiVersion: ringfence.dev/v1alpha1
kind: Tenancy
metadata: {name: budget}
spec:
  region: us-east-1
  kubernetesVersion: \"1.36\"
  network:
    supernet: 10.64.0.0/12
    vpcPrefix: 16
    zones: 3
    natGateways: per-zone
    endpoints: [s3, ecr.api, ecr.dkr, sts, ec2, eks, eks-auth, logs]
    flowLogs: true
  access:
    endpoint: private
    admins: [arn:aws:iam::123456789012:role/PlatformAdmin]
  tenants:
",
    );
    for n in 0..SILOS {
        writeln!(spec, "    - {{id: s{n}, name: silo {n}, tier: premium}}").unwrap();
    }
    spec
}

/// Whether a call is for a kind that the terraform baseline has, too: VPC, subnets, NAT, routes, security groups,
/// endpoints, flow logs, KMS, IAM roles, cluster, launch template, node group.
fn of_the_baseline(service: &str, operation: &str) -> bool {
    match service {
        "eks" => operation.contains("Cluster") || operation.contains("Nodegroup"),
        "iam" => !operation.contains("ServiceLinkedRole") && !operation.contains("OpenIDConnectProvider"),
        _ => ["ec2", "kms", "sts"].contains(&service),
    }
}

/// Calls since `before`: for the kinds of the baseline, and in total.
fn since(before: &BTreeMap<(String, String), u64>, now: &BTreeMap<(String, String), u64>) -> (u64, u64) {
    let new = now.iter().map(|(action, count)| (action, count - before.get(action).copied().unwrap_or_default()));
    new.fold((0, 0), |(kinds, all), ((service, operation), count)| {
        (kinds + if of_the_baseline(service, operation) { count } else { 0 }, all + count)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_silos_keep_their_budgets() {
    let served = Served::start(&spec()).await;
    let start = served.server.counts();
    served.run(&["apply", "--auto-approve"], 0).await;
    let applied = served.server.counts();
    served.run(&["plan", "--detailed-exitcode"], 0).await;
    let planned = served.server.counts();
    let (apply, _) = since(&start, &applied);
    let (plan, plan_in_all) = since(&applied, &planned);
    assert!(apply <= 1000, "apply from nothing: {apply} calls for the baseline's kinds, at most 1,000");
    assert!(plan <= 150, "plan without a change: {plan} calls for the baseline's kinds, at most 150");
    assert!(plan_in_all <= 350, "plan without a change: {plan_in_all} calls with everything, at most 350");
}
