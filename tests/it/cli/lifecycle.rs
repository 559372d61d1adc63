//! The whole lifecycle of an estate: create, change, destroy.

use super::*;

/// The change in an estate's lifecycle, and what the plan must show for it.
struct Change {
    from: &'static str,
    to: &'static str,
    /// Asserts that the plan has this change and no other.
    just_that: fn(&Value),
}

fn life(example: &'static Example, change: &Change) {
    let estate = Estate::new(example);
    estate.run(&["validate"]).exits(0);

    fs::write(estate.state(), &example.applied().before).unwrap();
    let before = estate.holds();
    assert!(!list(&estate.plan(&[])["steps"]).is_empty());
    similar(&estate.holds(), &before, "after a plan");

    fs::write(estate.state(), &example.applied().after).unwrap();
    let said = estate.run(&["plan", "--detailed-exitcode"]).exits(0);
    assert!(said.out.contains("\nNo changes. All "), "{}", said.out);

    estate.edit(change.from, change.to);
    let plan = estate.plan(&[]);
    assert_eq!(list(&plan["blocked"]), [] as [Value; 0]);
    (change.just_that)(&plan);
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let left = estate.plan(&[]);
    assert_eq!(steps(&left), [] as [&str; 0]);

    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
    similar(&estate.holds(), &before, example.name);
    let after = estate.plan(&["--destroy", "--delete-logs"]);
    assert_eq!((steps(&after), list(&after["kept"])), (vec![], [].as_slice()));
}

/// Panics with the place where two values differ.
#[track_caller]
fn similar(found: &Value, wanted: &Value, at: &str) {
    if let (Value::Object(f), Value::Object(w)) = (found, wanted) {
        let keys: BTreeSet<&String> = f.keys().chain(w.keys()).collect();
        for key in keys {
            similar(&found[key.as_str()], &wanted[key.as_str()], &format!("{at}.{key}"));
        }
    } else {
        assert_eq!(found, wanted, "at {at}");
    }
}

#[test]
fn three_tiers_with_one_more_tenant() {
    let change = Change {
        from: "    - id: \"34567\"",
        to: "    - {id: \"45678\", name: hooli, tier: standard, pool: shared-1}\n    - id: \"34567\"",
        just_that: |plan| {
            for step in steps(plan) {
                assert!(step.starts_with("create tenant/45678/pool/shared-1/"), "{step}");
            }
            assert_eq!(plan["summary"]["add"], list(&plan["steps"]).len());
            assert!(steps(plan).contains(&"create tenant/45678/pool/shared-1/node-group".to_owned()));
        },
    };
    life(&THREE_TIERS, &change);
}

#[test]
fn single_silo_with_more_nodes() {
    let change = Change {
        from: "max: 3",
        to: "max: 4",
        just_that: |plan| {
            assert_eq!(steps(plan), ["update tenant/globex/silo/node-group"]);
            let changes = list(&plan["steps"][0]["changes"]);
            assert_eq!(changes.len(), 1, "{changes:#?}");
            assert_eq!((&changes[0]["before"], &changes[0]["after"]), (&Value::from(3), &Value::from(4)));
        },
    };
    life(&SINGLE_SILO, &change);
}

#[test]
fn regulated_with_one_more_endpoint() {
    let change = Change {
        from: "        nodes: {min: 3, max: 9, desired: 3}",
        to: "        nodes: {min: 3, max: 9, desired: 3}\n        network: {endpoints: [autoscaling, ec2, ecr.api, ecr.dkr, eks, eks-auth, elasticloadbalancing, kms, logs, s3, ssm, sts]}",
        just_that: |plan| assert_eq!(steps(plan), ["create tenant/treasury/silo/endpoint/ssm"]),
    };
    life(&REGULATED, &change);
}

#[test]
fn two_pools_with_flow_logs_off_in_one() {
    let change = Change {
        from: "        natGateways: none",
        to: "        natGateways: none\n        flowLogs: false",
        just_that: |plan| {
            assert_eq!(steps(plan), ["delete pool/visby/flow-log", "delete pool/visby/role/flow-logs"]);
            let kept: Vec<&str> = list(&plan["kept"]).iter().map(|k| text(&k["address"])).collect();
            assert_eq!(kept, ["pool/visby/log-group/flow-logs"], "audit logs stay");
        },
    };
    life(&TWO_POOLS, &change);
}

#[test]
fn pool_of_twenty_with_a_tag() {
    let change = Change {
        from: "  pools:\n",
        to: "  tags:\n    cost-center: saas\n  pools:\n",
        just_that: |plan| {
            let taken = list(&plan["steps"]);
            assert_eq!(plan["summary"]["change"], taken.len());
            let paths: BTreeSet<&str> =
                taken.iter().flat_map(|s| list(&s["changes"])).map(|c| text(&c["path"])).collect();
            // A new version of the launch template tags instances and volumes.
            assert_eq!(paths, ["instance_tags.cost-center", "tags.cost-center"].into());
            assert!(steps(plan).contains(&"update pool/market/vpc".to_owned()));
        },
    };
    life(&POOL_OF_TWENTY, &change);
}

/// A security group rule that somebody added by hand is removed.
#[test]
fn a_rule_added_by_hand_is_removed() {
    let estate = Estate::applied(&SINGLE_SILO);
    let before = estate.holds();
    estate.sandbox(async |aws, _| {
        let named = aws_sdk_ec2::types::Filter::builder()
            .name("tag:ringfence.dev/address")
            .values("tenant/globex/silo/security-group")
            .build();
        let groups = aws.ec2.describe_security_groups().filters(named).send().await.unwrap();
        let group = groups.security_groups()[0].group_id().unwrap().to_owned();
        let anywhere = aws_sdk_ec2::types::IpRange::builder().cidr_ip("0.0.0.0/0").build();
        let ssh = aws_sdk_ec2::types::IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(22)
            .to_port(22)
            .ip_ranges(anywhere)
            .build();
        aws.ec2.authorize_security_group_ingress().group_id(group).ip_permissions(ssh).send().await.unwrap();
    });
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), ["update tenant/globex/silo/security-group"]);
    assert_eq!(list(&plan["steps"][0]["changes"]).len(), 1);
    let shown = estate.run(&["drift"]).exits(2);
    assert!(shown.out.contains("0.0.0.0/0"), "{}", shown.out);

    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    similar(&estate.holds(), &before, "single-silo");
}
