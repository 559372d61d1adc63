//! Operations that AWS accepts and doesn't finish: resources that fail, that never become ready, that others change.

use ringfence::engine::plan::{Action, Step};
use ringfence::engine::report::{Line, Outcome};

use super::*;

const GROUP: &str = "tenant/7/silo/node-group";
const CLUSTER: &str = "tenant/7/silo/cluster";
const NAT: &str = "tenant/7/silo/nat-gateway/a";

impl Ground {
    /// Applies without faults. Returns the snapshot and the estate.
    async fn applied(spec: &str) -> (Vec<u8>, Estate) {
        let ground = Self::new(spec);
        ground.undisturbed(&apply()).await;
        (ground.server.snapshot().unwrap(), ground.estate())
    }

    /// Runs, and returns the errors of failed steps by address.
    async fn failures(&self, policy: &Policy) -> (Report, BTreeMap<String, String>) {
        let report = self.run(policy).await.unwrap();
        let words = |(line, e): (&Line, &Error)| {
            (line.address.to_string(), format!("{e}; {}", e.help.as_deref().unwrap_or_default()))
        };
        let failed = report.failed().map(words).collect();
        (report, failed)
    }

    /// Asserts that only `address` failed, and that its error contains `says`.
    async fn fails(&self, policy: &Policy, address: &str, says: &[&str]) -> Report {
        let (report, failed) = self.failures(policy).await;
        assert_eq!(failed.keys().collect::<Vec<_>>(), [address], "{failed:#?}");
        for word in says {
            assert!(failed[address].contains(word), "`{word}` isn't said: {failed:#?}");
        }
        report
    }

    fn calls(&self, operation: &str) -> u64 {
        let counts = self.server.counts();
        counts.iter().filter(|((_, name), _)| name == operation).map(|(_, count)| count).sum()
    }

    /// Asserts that the next run without faults converges to `wanted`, and that the plan after it is empty. `anew`: a
    /// resource has another generation, and so another name, or an update was sent again.
    async fn goes_on(&self, policy: &Policy, wanted: &Estate, anew: bool) {
        self.faults("{}");
        self.undisturbed(policy).await;
        let (_, after) = self.session().await.unwrap().plan(policy, false).await.unwrap();
        assert!(after.is_empty(), "{:?}", steps(&after));
        let estate = self.estate();
        assert_eq!(estate.addresses(), wanted.addresses());
        if !anew {
            let mut differences = wanted.differences(&estate);
            // EKS keeps records of the failed updates, and the order of a set may differ.
            differences.retain(|line| !line.contains("/updates") && !line.contains("/routeTableIdSet/"));
            assert!(differences.is_empty(), "{differences:#?}");
        }
    }
}

fn outcome<'r>(report: &'r Report, address: &str) -> &'r Outcome {
    &report.lines.iter().find(|line| line.address.as_str() == address).unwrap().outcome
}

/// A resource whose creation AWS accepted, and which then failed.
struct Failure {
    rule: &'static str,
    tier: &'static str,
    address: &'static str,
    says: &'static [&'static str],
    call: &'static str,
    /// Addresses that don't depend on it and must be done.
    done: &'static [&'static str],
}

const FAILURES: &[Failure] = &[
    Failure {
        rule: "kind: eks:nodegroup, name: '*-7*', ends: CREATE_FAILED, because: {code: AsgInstanceLaunchFailures, message: No capacity}",
        tier: "premium",
        address: GROUP,
        says: &["CREATE_FAILED: AsgInstanceLaunchFailures: No capacity", "run the same command"],
        call: "CreateNodegroup",
        done: &["tenant/7/silo/node-group/system", NAT],
    },
    Failure {
        rule: "kind: eks:fargate-profile, ends: CREATE_FAILED, because: {code: AccessDenied, message: Not today}",
        tier: "serverless",
        address: "tenant/7/fargate/shared-1/profile",
        says: &["CREATE_FAILED: AccessDenied: Not today", "run the same command"],
        call: "CreateFargateProfile",
        done: &["pool/shared-1/node-group/system"],
    },
    Failure {
        rule: "kind: eks:addon, name: kube-proxy, ends: CREATE_FAILED, because: {code: InternalFailure, message: No luck}",
        tier: "premium",
        address: "tenant/7/silo/addon/kube-proxy",
        says: &["CREATE_FAILED: InternalFailure: No luck", "run the same command"],
        call: "CreateAddon",
        done: &["tenant/7/silo/addon/vpc-cni"],
    },
    Failure {
        rule: "kind: eks:addon, name: kube-proxy, ends: DEGRADED, because: {code: ConfigurationConflict, message: Twice}",
        tier: "premium",
        address: "tenant/7/silo/addon/kube-proxy",
        says: &["DEGRADED: ConfigurationConflict: Twice", "run the same command"],
        call: "CreateAddon",
        done: &["tenant/7/silo/addon/vpc-cni"],
    },
    Failure {
        rule: "kind: ec2:natgateway, ends: failed, because: {code: InternalError, message: Network gone}",
        tier: "premium",
        address: NAT,
        says: &["InternalError: Network gone", "run the same command"],
        call: "CreateNatGateway",
        done: &["tenant/7/silo/key", "tenant/7/silo/endpoint/sts"],
    },
    Failure {
        rule: "kind: ec2:vpc-endpoint, ends: failed, because: {code: InternalError, message: No room}",
        tier: "premium",
        address: "tenant/7/silo/endpoint/sts",
        says: &["failed: No room", "run the same command"],
        call: "CreateVpcEndpoint",
        done: &["tenant/7/silo/key", NAT],
    },
    Failure {
        rule: "kind: eks:cluster, ends: FAILED, because: {code: InternalFailure, message: No control plane}",
        tier: "premium",
        address: CLUSTER,
        says: &["InternalFailure: No control plane", "run the same command"],
        call: "CreateCluster",
        done: &[NAT, "tenant/7/silo/endpoint/sts"],
    },
];

impl Failure {
    async fn is_survived(&self) {
        let Self { rule, tier, address, says, call, done } = self;
        let spec = alone(tier);
        let (_, wanted) = Ground::applied(&spec).await;
        let ground = Ground::new(&spec);
        ground.faults(&format!("resources: [{{{rule}}}]"));
        let report = ground.fails(&apply(), address, says).await;
        for one in *done {
            assert!(matches!(outcome(&report, one), Outcome::Done), "{one}: {:?}", outcome(&report, one));
        }
        let again = apply();
        let tried = ground.calls(call);
        let degraded = rule.contains("DEGRADED");
        // A degraded resource is repaired by an update, for which the fault script has no rule.
        if !degraded {
            ground.fails(&again, address, says).await;
            let more = ground.calls(call) - tried;
            assert!(more >= 1 && ground.calls(call) <= 2 * tried, "{call}: {more} more calls than {tried}");
        }
        ground.goes_on(&again, &wanted, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_creation_is_repeated() {
    at_once(3, FAILURES, |failure| failure.is_survived()).await;
    note(
        "made, accepted by AWS, then failed; twice",
        FAILURES.len(),
        "named in AWS's words, the rest done; next run as undisturbed",
    );
}

/// A resource that never becomes ready: the step ends by the kind's time limit, and the next run waits for the same
/// resource instead of making another.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_waits_for_a_stuck_resource() {
    let all = [
        ("eks:cluster", CLUSTER, "CreateCluster"),
        ("eks:nodegroup, name: '*-7'", GROUP, "CreateNodegroup"),
        ("eks:addon, name: kube-proxy", "tenant/7/silo/addon/kube-proxy", "CreateAddon"),
        ("eks:fargate-profile", "tenant/7/fargate/shared-1/profile", "CreateFargateProfile"),
        ("ec2:natgateway", NAT, "CreateNatGateway"),
        ("ec2:vpc-endpoint", "tenant/7/silo/endpoint/sts", "CreateVpcEndpoint"),
    ];
    let count = all.len();
    at_once(3, all, async |(kind, address, call)| {
        let spec = alone(if address.contains("fargate") { "serverless" } else { "premium" });
        let (_, wanted) = Ground::applied(&spec).await;
        let ground = Ground::new(&spec);
        ground.faults(&format!("resources: [{{kind: {kind}, stuck: true}}]"));
        ground.fails(&apply(), address, &["the resource wasn't ready in time", "run the same command"]).await;
        let made = ground.calls(call);
        // The resource is still stuck. The run waits for it and doesn't make another one.
        ground.fails(&apply(), address, &["the resource wasn't ready in time"]).await;
        let others = ground.calls(call) - made;
        assert!(address == CLUSTER || address == NAT || others == 0, "{call}: {others} more");
        let resumed = {
            ground.faults("{}");
            let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
            plan.steps.iter().filter(|s| s.address.as_str() == address).map(|s| s.action).collect::<Vec<_>>()
        };
        assert!(!resumed.contains(&Action::Create) && !resumed.contains(&Action::Delete), "{address}: {resumed:?}");
        ground.goes_on(&apply(), &wanted, false).await;
    })
    .await;
    note("made, and never ready", count, "ends by the kind's time limit; next run waits on, as undisturbed");
}

/// Resources that are as slow as the time limits allow.
#[tokio::test(flavor = "multi_thread")]
async fn slow_resources_are_not_failures() {
    let spec = alone("premium");
    let (_, wanted) = Ground::applied(&spec).await;
    let ground = Ground::new(&spec);
    let kinds = ["eks:nodegroup", "eks:addon", "ec2:natgateway", "ec2:vpc-endpoint"];
    let rules: Vec<_> = kinds.iter().map(|kind| format!("{{kind: '{kind}', slower: 4}}")).collect();
    ground.faults(&format!("resources: [{}, {{kind: 'eks:cluster', slower: 2}}]", rules.join(", ")));
    ground.undisturbed(&apply()).await;
    ground.goes_on(&apply(), &wanted, false).await;
    note("everything two to four times as slow", 1, "as undisturbed");
}

/// A resource that can't be deleted is named. Deletions that depend on it are skipped, and all others are done.
#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_cannot_be_deleted_is_named() {
    let failed = "because: {code: Ec2SecurityGroupDeletionFailure, message: In use}";
    let all = [
        (
            format!("eks:nodegroup, name: '*-7', ends: DELETE_FAILED, {failed}"),
            GROUP,
            "can't be deleted: DELETE_FAILED",
        ),
        (
            format!("eks:fargate-profile, ends: DELETE_FAILED, {failed}"),
            "tenant/7/fargate/shared-1/profile",
            "can't be deleted: DELETE_FAILED",
        ),
        (format!("eks:cluster, ends: FAILED, {failed}"), CLUSTER, "can't be deleted"),
        ("eks:nodegroup, name: '*-7', stuck: true".to_owned(), GROUP, "the resource wasn't deleted in time"),
        ("eks:cluster, stuck: true".to_owned(), CLUSTER, "the resource wasn't deleted in time"),
        ("ec2:natgateway, stuck: true".to_owned(), NAT, "the resource wasn't deleted in time"),
    ];
    let count = all.len();
    at_once(3, all, async |(rule, address, says)| {
        let spec = alone(if address.contains("fargate") { "serverless" } else { "premium" });
        let (begin, _) = Ground::applied(&spec).await;
        let calm = Ground::begun(&spec, Some(&begin));
        calm.undisturbed(&destroy()).await;
        let wanted = calm.estate();
        let ground = Ground::begun(&spec, Some(&begin));
        ground.faults(&format!("resources: [{{kind: {rule}, during: delete}}]"));
        let said = if rule.contains("ends") { "Ec2SecurityGroupDeletionFailure: In use" } else { "the same command" };
        let report = ground.fails(&destroy(), address, &[says, said]).await;
        assert!(!matches!(outcome(&report, vpc_of(address)), Outcome::Done), "{report:?}");
        ground.goes_on(&destroy(), &wanted, false).await;
    })
    .await;
    note("deletions that fail or never end", count, "named in AWS's words; next run as undisturbed");
}

fn vpc_of(address: &str) -> &'static str {
    if address.contains("fargate") { "pool/shared-1/vpc" } else { "tenant/7/silo/vpc" }
}

/// A silo and a changed spec: another endpoint, which is an update of the cluster, and other tags, which come before
/// it. And the expected result.
async fn to_change() -> (impl Fn() -> Ground, Estate) {
    let spec = alone("premium");
    let (begin, _) = Ground::applied(&spec).await;
    let spec = spec.replace("endpoint: private", "endpoint: restricted, allowedCidrs: [203.0.113.0/24]");
    let spec = spec.replace("  network:", "  tags: {stage: second}\n  network:");
    let begun = move || Ground::begun(&spec, Some(&begin));
    let calm = begun();
    calm.undisturbed(&apply()).await;
    (begun, calm.estate())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_is_named_and_tried_once() {
    let (begin, wanted) = to_change().await;
    let ground = begin();
    let failed = "because: {code: SubnetNotFound, message: It went}";
    ground.faults(&format!("resources: [{{kind: eks:cluster, during: update, ends: Failed, {failed}}}]"));
    let report = ground.fails(&apply(), CLUSTER, &["ended as Failed: SubnetNotFound: It went"]).await;
    assert_eq!(ground.calls("UpdateClusterConfig"), 1);
    assert!(matches!(outcome(&report, "tenant/7/silo/vpc"), Outcome::Done));
    ground.fails(&apply(), CLUSTER, &["ended as Failed"]).await;
    assert_eq!(ground.calls("UpdateClusterConfig"), 2);
    ground.goes_on(&apply(), &wanted, false).await;

    // An update that never ends: the run waits for it to the time limit, and so does the next run.
    let ground = begin();
    ground.faults("resources: [{kind: eks:cluster, during: update, stuck: true}]");
    ground.fails(&apply(), CLUSTER, &["is still in progress after", "run the same command"]).await;
    ground.goes_on(&apply(), &wanted, false).await;
    assert_eq!(ground.calls("UpdateClusterConfig"), 1);
    note(
        "a cluster's update that fails, or never ends",
        2,
        "named in AWS's words, tried once a run; next run as undisturbed",
    );
}

/// A node group and an add-on that were changed by hand. The update that reverts the change fails once.
#[tokio::test(flavor = "multi_thread")]
async fn updates_of_groups_and_addons_fail_too() {
    let spec = alone("premium");
    let (begin, wanted) = Ground::applied(&spec).await;
    let group = ("eks:nodegroup, ends: Failed", GROUP, "ended as Failed: InternalFailure");
    let addon = |ends: &'static str, says| (ends, "tenant/7/silo/addon/vpc-cni", says);
    let all = [
        group,
        addon("eks:addon, ends: Failed", "UPDATE_FAILED"),
        addon("eks:addon, ends: DEGRADED", "DEGRADED: InternalFailure"),
    ];
    let count = all.len();
    for (rule, address, says) in all {
        let ground = Ground::begun(&spec, Some(&begin));
        let aws = ground.session().await.unwrap().aws;
        let cluster = aws.eks.list_clusters().send().await.unwrap().clusters()[0].clone();
        if address == GROUP {
            let groups = aws.eks.list_nodegroups().cluster_name(&cluster).send().await.unwrap();
            let group = groups.nodegroups().iter().find(|name| name.ends_with("-7")).unwrap();
            let labels = aws_sdk_eks::types::UpdateLabelsPayload::builder().add_or_update_labels("by", "hand").build();
            let call = aws.eks.update_nodegroup_config().cluster_name(&cluster).nodegroup_name(group).labels(labels);
            call.send().await.unwrap();
        } else {
            let call = aws.eks.update_addon().cluster_name(&cluster).addon_name("vpc-cni").configuration_values("{}");
            call.send().await.unwrap();
        }
        ground.server.advance(600.0);
        ground.faults(&format!("resources: [{{kind: {rule}, during: update}}]"));
        ground.fails(&apply(), address, &[says]).await;
        ground.goes_on(&apply(), &wanted, false).await;
    }
    note("updates of node groups and add-ons that fail", count, "named in AWS's words; next run as undisturbed");
}

/// Somebody changes the cluster between our plan and our update. The run waits for that update, and then makes its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_by_others_is_waited_for() {
    let (begin, wanted) = to_change().await;
    let ground = begin();
    ground.faults("resources: [{kind: eks:cluster, during: update, slower: 5, times: 1}]");
    let session = ground.session().await.unwrap();
    let (_, plan) = session.plan(&apply(), false).await.unwrap();
    let other = ground.session().await.unwrap().aws;
    let cluster = other.eks.list_clusters().send().await.unwrap().clusters()[0].clone();
    let shift = aws_sdk_eks::types::ZonalShiftConfigRequest::builder().enabled(true).build();
    other.eks.update_cluster_config().name(&cluster).zonal_shift_config(shift).send().await.unwrap();
    let report = carry_out(&session, &plan).await;
    let failed: Vec<_> = report.failed().collect();
    assert!(failed.is_empty() && report.left().next().is_none(), "{failed:?}");
    let refused = ground.calls("UpdateClusterConfig");
    assert!(refused > 2, "ours was refused while theirs ran: {refused} calls");
    ground.goes_on(&apply(), &wanted, true).await;
    note("a cluster's update by others while ours is due", 1, "waited for, then done");
}

/// A cluster accepts one change of its Fargate profiles at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_in_deletion_delays_another_one() {
    let one = alone("serverless");
    let two = one.replace(
        "tier: serverless, pool: shared-1}]",
        "tier: serverless, pool: shared-1}, {id: \"8\", name: eight, tier: serverless, pool: shared-1}]",
    );
    assert_ne!(one, two);
    let (begin, _) = Ground::applied(&one).await;
    let calm = Ground::new(&two);
    calm.undisturbed(&apply()).await;
    let wanted = calm.estate();
    let ground = Ground::begun(&two, Some(&begin));
    ground.faults("resources: [{kind: eks:fargate-profile, during: delete, slower: 5}]");
    let session = ground.session().await.unwrap();
    let (_, plan) = session.plan(&apply(), false).await.unwrap();
    let by_hand = &session.aws.eks;
    let cluster = by_hand.list_clusters().send().await.unwrap().clusters()[0].clone();
    let profiles = by_hand.list_fargate_profiles().cluster_name(&cluster).send().await.unwrap();
    let profile = &profiles.fargate_profile_names()[0];
    by_hand.delete_fargate_profile().cluster_name(&cluster).fargate_profile_name(profile).send().await.unwrap();
    let report = carry_out(&session, &plan).await;
    assert!(matches!(outcome(&report, "tenant/8/fargate/shared-1/profile"), Outcome::Done), "{report:?}");
    assert!(ground.calls("CreateFargateProfile") > 1, "the first was refused");
    // The profile is made again, with another name if the old one was still being deleted.
    ground.goes_on(&apply(), &wanted, true).await;
    note("a Fargate profile deleted by hand while another is made", 1, "waited for, then both made");
}

/// While the resource is being deleted, the plan waits for that instead of failing.
#[tokio::test(flavor = "multi_thread")]
async fn a_resource_in_deletion_is_created_again_after_it() {
    let spec = alone("premium");
    let (begin, wanted) = Ground::applied(&spec).await;
    let ground = Ground::begun(&spec, Some(&begin));
    ground.faults("resources: [{kind: eks:nodegroup, during: delete, slower: 3}]");
    let by_hand = ground.session().await.unwrap().aws;
    let cluster = by_hand.eks.list_clusters().send().await.unwrap().clusters()[0].clone();
    let groups = by_hand.eks.list_nodegroups().cluster_name(&cluster).send().await.unwrap();
    let group = groups.nodegroups().iter().find(|name| name.ends_with("-7")).unwrap();
    by_hand.eks.delete_nodegroup().cluster_name(&cluster).nodegroup_name(group).send().await.unwrap();
    let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
    let about = |s: &&Step| s.address.as_str() == GROUP;
    assert!(plan.steps.iter().filter(about).any(|s| s.action == Action::Create), "{:?}", steps(&plan));
    ground.goes_on(&apply(), &wanted, true).await;
    note("a node group deleted by hand, still on its way out", 1, "made again");
}
