//! Changes that the spec asks for and that are impossible are shown as blocked.
//! A resource that stays keeps everything that it uses. All other steps go on.

use aws_sdk_ec2::types::Tag;
use aws_sdk_eks::types::{UpdateStatus, VpcConfigRequest};

use super::*;

const CLUSTER: &str = "tenant/globex/silo/cluster";

/// The plan as a JSON document. Blocked changes make the exit code 1.
fn planned(estate: &Estate, args: &[&str]) -> Value {
    let run = estate.run(&[&["plan", "--format", "json", "--detailed-exitcode"], args].concat());
    let plan = run.json();
    run.exits(match (list(&plan["blocked"]), list(&plan["steps"])) {
        ([], []) => 0,
        ([], _) => 2,
        _ => 1,
    });
    plan
}

fn blocked(plan: &Value) -> BTreeSet<&str> {
    list(&plan["blocked"]).iter().map(|b| text(&b["address"])).collect()
}

fn notes(plan: &Value) -> String {
    list(&plan["notes"]).iter().map(text).collect::<Vec<_>>().join("\n")
}

/// Position of `step` (`action address`) in the plan.
#[track_caller]
fn position(plan: &Value, step: &str) -> usize {
    let all = steps(plan);
    all.iter().position(|s| s == step).unwrap_or_else(|| panic!("no step {step}: {all:#?}"))
}

/// The cluster's subnets, sorted.
fn subnets(estate: &Estate) -> Vec<String> {
    estate.sandbox(async |aws, _| {
        let cluster = aws.eks.describe_cluster().name("solo-t-globex").send().await.unwrap().cluster.unwrap();
        let mut subnets = cluster.resources_vpc_config().unwrap().subnet_ids().to_vec();
        subnets.sort();
        subnets
    })
}

/// The role of an EKS cluster can't be changed, and a cluster whose role is
/// deleted can't be repaired (aws/containers-roadmap#2771,
/// terraform-aws-eks#1382).
#[test]
fn a_blocked_cluster_keeps_its_resources_and_a_revert_restores_all() {
    let estate = Estate::applied(&SINGLE_SILO);
    let role = "tenant/globex/silo/role/cluster";
    estate.edit("  tenants:\n", "  iam: {path: /acme/}\n  tags: {team: blue}\n  tenants:\n");
    let plan = planned(&estate, &[]);
    assert_eq!(blocked(&plan), [role].into());
    let help = text(&plan["blocked"][0]["help"]);
    assert!(help.contains(&format!("--allow-replace {CLUSTER}")), "{help}");
    let steps = steps(&plan);
    assert!(steps.contains(&"create tenant/globex/silo/role/nodes".to_owned()), "others move: {steps:#?}");
    // Changes in place are still made.
    for one in [CLUSTER, role] {
        let of: Vec<&String> = steps.iter().filter(|s| s.ends_with(&format!(" {one}"))).collect();
        assert_eq!(of, [&format!("update {one}")]);
    }
    let reasons: Vec<&str> = list(&plan["blocked"]).iter().map(|b| text(&b["reason"])).collect();
    assert!(reasons.iter().any(|r| r.contains(CLUSTER) && r.contains("path")), "{reasons:#?}");
    estate.run(&["apply", "--auto-approve"]).exits(1);
    let arn = estate.sandbox(async |aws, _| {
        let role = aws.iam.get_role().role_name("solo-eu-central-1-t-globex-cluster").send().await.unwrap();
        role.role.unwrap().arn
    });
    assert_eq!(arn, "arn:aws:iam::123456789012:role/ringfence/solo-eu-central-1-t-globex-cluster");

    estate.write(&SINGLE_SILO.text());
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let plan = planned(&estate, &[]);
    assert_eq!((super::steps(&plan), blocked(&plan)), (vec![], BTreeSet::new()));
}

/// If a cluster may be replaced, everything in it is replaced too: EKS deletes
/// no cluster that has node groups (EKS, DeleteCluster).
#[test]
fn an_allowed_replacement_of_a_cluster_includes_everything_in_it() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("  tenants:\n", "  iam: {path: /acme/}\n  tenants:\n");
    let plan = planned(&estate, &["--allow-replace", CLUSTER]);
    assert_eq!(blocked(&plan), BTreeSet::new());
    let gone = position(&plan, &format!("delete {CLUSTER}"));
    for inside in ["node-group", "node-group/system", "addon/coredns"] {
        let inside = format!("tenant/globex/silo/{inside}");
        assert!(position(&plan, &format!("delete {inside}")) < gone, "{inside}");
        assert!(position(&plan, &format!("create {inside}")) > gone, "{inside}");
    }
    estate.run(&["apply", "--auto-approve", "--allow-replace", CLUSTER]).exits(0);
    let plan = planned(&estate, &[]);
    assert_eq!((steps(&plan), blocked(&plan)), (vec![], BTreeSet::new()));
}

/// Resources in a cluster still use the cluster's present service addresses.
#[test]
fn a_blocked_change_of_the_service_cidr_affects_nothing_else() {
    let estate = Estate::applied(&TWO_POOLS);
    estate.edit("    zones: 3\n", "    zones: 3\n    serviceCidr: 10.100.0.0/16\n");
    let plan = planned(&estate, &[]);
    assert_eq!(blocked(&plan), ["pool/lubeck/cluster", "pool/visby/cluster"].into());
    assert_eq!(steps(&plan), [] as [&str; 0]);
    let plan = planned(&estate, &["--allow-replace", "pool/visby/cluster"]);
    assert_eq!(blocked(&plan), ["pool/lubeck/cluster"].into());
    assert!(steps(&plan).iter().all(|s| !s.contains("lubeck") && !s.contains("salt")), "{:#?}", steps(&plan));
}

/// A cluster stays in the zones in which it was made (EKS, UpdateClusterConfig;
/// aws/containers-roadmap#2258). Its nodes may use more or fewer zones.
#[test]
fn nodes_go_to_more_zones_and_leave_them_again() {
    let estate = Estate::applied(&SINGLE_SILO);
    let before = subnets(&estate);
    estate.edit("zones: 2", "zones: 3");
    let plan = planned(&estate, &[]);
    assert!(steps(&plan).iter().all(|s| !s.ends_with(CLUSTER)), "{:#?}", steps(&plan));
    assert!(notes(&plan).contains(CLUSTER), "{}", notes(&plan));
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let plan = planned(&estate, &[]);
    assert_eq!((steps(&plan), blocked(&plan)), (vec![], BTreeSet::new()));
    assert_eq!(subnets(&estate), before);

    // Access of nodes in the third zone to the API server is removed after
    // these nodes.
    estate.edit("zones: 3", "zones: 2");
    let plan = planned(&estate, &[]);
    for way in ["security-group/control-plane", "endpoint/s3"] {
        let way = position(&plan, &format!("update tenant/globex/silo/{way}"));
        for nodes in ["node-group", "node-group/system"] {
            assert!(position(&plan, &format!("delete tenant/globex/silo/{nodes}")) < way, "{:#?}", steps(&plan));
        }
        assert!(position(&plan, "delete tenant/globex/silo/subnet/private-c") > way, "{:#?}", steps(&plan));
    }
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&planned(&estate, &[])), [] as [&str; 0]);
    assert_eq!(subnets(&estate), before);
}

#[test]
fn the_zones_of_a_cluster_keep_their_subnets() {
    let estate = Estate::planted(&SINGLE_SILO);
    estate.edit("zones: 2", "zones: 3");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let before = subnets(&estate);
    assert_eq!(before.len(), 3);
    estate.edit("zones: 3", "zones: 2");
    let plan = planned(&estate, &[]);
    for step in steps(&plan) {
        for kept in [CLUSTER, "/private-c", "/security-group/control-plane", "/endpoint/s3"] {
            assert!(!step.ends_with(kept), "{step}");
        }
    }
    position(&plan, "delete tenant/globex/silo/subnet/public-c");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let plan = planned(&estate, &[]);
    assert_eq!((steps(&plan), blocked(&plan)), (vec![], BTreeSet::new()));
    assert_eq!(subnets(&estate), before);
}

/// A VPC's CIDR block with subnets of somebody else can't be removed (EC2,
/// DisassociateVpcCidrBlock; cluster-api-provider-aws#3277, #5291). Nothing
/// else is blocked.
#[test]
fn a_cidr_block_with_foreign_subnets_is_named_and_blocks_nothing() {
    let estate = Estate::applied(&SINGLE_SILO);
    let (vpc, theirs) = estate.sandbox(async |aws, _| {
        let of = |name: &str| aws_sdk_ec2::types::Filter::builder().name("tag:Name").values(name).build();
        let vpcs = aws.ec2.describe_vpcs().filters(of("solo-t-globex")).send().await.unwrap();
        let vpc = vpcs.vpcs()[0].vpc_id().unwrap().to_owned();
        aws.ec2.associate_vpc_cidr_block().vpc_id(&vpc).cidr_block("100.64.0.0/16").send().await.unwrap();
        let subnet = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block("100.64.0.0/20").send().await.unwrap();
        let theirs = subnet.subnet().unwrap().subnet_id().unwrap().to_owned();
        let ours = aws.ec2.describe_subnets().filters(of("solo-t-globex-private-a")).send().await.unwrap();
        let ours = ours.subnets()[0].subnet_id().unwrap().to_owned();
        aws.ec2.delete_tags().resources(ours).tags(Tag::builder().key("Name").build()).send().await.unwrap();
        let open = VpcConfigRequest::builder().public_access_cidrs("0.0.0.0/0").build();
        let name = "solo-t-globex";
        let update = aws.eks.update_cluster_config().name(name).resources_vpc_config(open).send().await.unwrap();
        let id = update.update.unwrap().id.unwrap();
        loop {
            let now = aws.eks.describe_update().name(name).update_id(&id).send().await.unwrap().update.unwrap();
            if now.status() == Some(&UpdateStatus::Successful) {
                break;
            }
            aws.clock.sleep(std::time::Duration::from_millis(50)).await;
        }
        (vpc, theirs)
    });
    let plan = planned(&estate, &[]);
    assert_eq!(blocked(&plan), ["tenant/globex/silo/vpc"].into());
    let reason = text(&plan["blocked"][0]["reason"]);
    for part in [&*vpc, &*theirs, "100.64.0.0/16"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_eq!(
        steps(&plan).into_iter().collect::<BTreeSet<_>>(),
        [format!("update {CLUSTER}"), "update tenant/globex/silo/subnet/private-a".to_owned()].into()
    );
    // A change of tags isn't blocked.
    let cluster = &list(&plan["steps"])[position(&plan, &format!("update {CLUSTER}"))];
    assert_eq!(list(&cluster["needs"]).len(), 0, "{cluster}");
    let run = estate.run(&["apply", "--auto-approve"]).exits(1);
    assert!(!run.out.contains("failed"), "{}", run.out);
    let plan = planned(&estate, &[]);
    assert_eq!((steps(&plan), blocked(&plan)), (vec![], ["tenant/globex/silo/vpc"].into()));

    estate.sandbox(async |aws, _| aws.ec2.delete_subnet().subnet_id(&theirs).send().await.unwrap());
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&planned(&estate, &[])), [] as [&str; 0]);
}

/// A move isn't mistaken for a VPC without its tags: only resources that can't
/// be in another VPC show that a VPC has lost its tags.
#[test]
fn a_tenant_can_move_to_a_pool_that_the_same_change_adds() {
    let estate = Estate::applied(&TWO_POOLS);
    estate.edit("    - name: lubeck\n", "    - name: lubeck\n    - name: bruges\n");
    estate.edit("tier: standard\n      pool: lubeck", "tier: standard\n      pool: bruges");
    let plan = planned(&estate, &[]);
    assert_eq!(blocked(&plan), BTreeSet::new());
    let made = position(&plan, "create pool/bruges/vpc");
    assert!(position(&plan, "create tenant/salt/pool/bruges/security-group") > made);
}

#[test]
fn a_renamed_pool_does_not_make_its_vpc_another_ones() {
    let estate = Estate::applied(&TWO_POOLS);
    let text = TWO_POOLS.text().replace("visby", "gotland");
    estate.write(&text);
    let run = estate.run(&["plan"]).exits(0);
    assert!(!(run.out + &run.err).contains("lost its ownership tags"));
}

#[test]
fn a_vpc_without_its_tags_is_found_by_the_resources_in_it() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.sandbox(async |aws, _| {
        let of = aws_sdk_ec2::types::Filter::builder().name("tag:Name").values("solo-t-globex").build();
        let vpcs = aws.ec2.describe_vpcs().filters(of).send().await.unwrap();
        let vpc = vpcs.vpcs()[0].vpc_id().unwrap();
        let tag = Tag::builder().key("ringfence.dev/tenancy").build();
        aws.ec2.delete_tags().resources(vpc).tags(tag).send().await.unwrap();
    });
    let plan = planned(&estate, &[]);
    assert_eq!(blocked(&plan), ["tenant/globex/silo/vpc"].into());
    assert!(text(&plan["blocked"][0]["reason"]).contains("lost its ownership tags"), "{plan}");
}

/// Nothing of this tenancy is found, but the account has roles of an estate
/// with the same shape.
#[test]
fn an_estate_under_a_former_name_or_in_a_former_region_is_named() {
    let estate = Estate::applied(&SINGLE_SILO);
    assert!(!notes(&planned(&estate, &[])).contains("different estate"));
    let renamed = [("  name: solo\n", "  name: duo\n", "metadata.name"), ("eu-central-1", "eu-west-1", "spec.region")];
    for (from, to, field) in renamed {
        estate.write(&SINGLE_SILO.text());
        estate.edit(from, to);
        let notes = notes(&planned(&estate, &[]));
        for part in ["`solo` in eu-central-1", "tenant/globex", field] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }
}
