//! Changes that others make to our resources: controllers, gateways, tagging tools of an organisation, network
//! administrators.

use aws_sdk_cloudwatchlogs::types::PolicyType;
use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, Tag};

use super::*;

fn named(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

async fn group(aws: &Aws, name: &str) -> aws_sdk_ec2::types::SecurityGroup {
    let all = aws.ec2.describe_security_groups().filters(named("group-name", name)).send().await.unwrap();
    all.security_groups()[0].clone()
}

async fn allow(aws: &Aws, name: &str, port: i32, block: &str, description: Option<&str>) {
    let id = group(aws, name).await.group_id().unwrap().to_owned();
    let range = IpRange::builder().cidr_ip(block).set_description(description.map(str::to_owned)).build();
    let rule = IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port).ip_ranges(range).build();
    aws.ec2.authorize_security_group_ingress().group_id(id).ip_permissions(rule).send().await.unwrap();
}

async fn ports(aws: &Aws, name: &str) -> Vec<i32> {
    let group = group(aws, name).await;
    let mut ports: Vec<i32> = group.ip_permissions().iter().filter_map(|p| p.from_port()).collect();
    ports.sort_unstable();
    ports
}

const LBC: Option<&str> = Some("elbv2.k8s.aws/targetGroupBinding=shared");
const NODES: &str = "solo-t-globex-nodes";
const CONTROL_PLANE: &str = "solo-t-globex-control-plane";

/// aws-load-balancer-controller#2578 and #3637: if a tool removes the controller's rules from the nodes' security
/// groups, load balancers lose their targets.
#[test]
fn rules_of_a_load_balancer_controller() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.sandbox(async |aws, _| {
        allow(aws, NODES, 8080, "10.128.0.0/20", LBC).await;
        allow(aws, NODES, 31000, "10.128.0.0/20", Some("kubernetes.io/rule/nlb/health=a1b2")).await;
        let id = group(aws, NODES).await.group_id().unwrap().to_owned();
        let tag = Tag::builder().key("kubernetes.io/cluster/solo-t-globex").value("owned").build();
        aws.ec2.create_tags().resources(id).tags(tag).send().await.unwrap();
    });
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [] as [&str; 0]);
    let note = list(&plan["notes"]).iter().map(text).find(|n| n.contains("load balancer controller"));
    let note = note.unwrap_or_else(|| panic!("{}", plan["notes"]));
    assert!(
        note.starts_with("tenant/globex/silo/security-group: ") && note.contains("tcp 8080 from 10.128.0.0/20"),
        "{note}"
    );

    // The mark counts only in groups in which the controller writes (of nodes and pods). There, a rule without the mark
    // is removed.
    estate.sandbox(async |aws, _| {
        allow(aws, CONTROL_PLANE, 443, "10.9.0.0/16", LBC).await;
        allow(aws, NODES, 22, "10.9.0.0/16", None).await;
    });
    let plan = estate.plan(&[]);
    assert_eq!(
        steps(&plan),
        ["update tenant/globex/silo/security-group/control-plane", "update tenant/globex/silo/security-group"]
    );
    estate.run(&["apply", "--auto-approve"]).exits(0);
    estate.sandbox(async |aws, _| {
        let ports = ports(aws, NODES).await;
        assert!(ports.contains(&8080) && ports.contains(&31000) && !ports.contains(&22), "{ports:?}");
        let all = group(aws, CONTROL_PLANE).await;
        assert!(!format!("{all:?}").contains("10.9.0.0/16"));
    });

    // A replacement of the group has these rules, too.
    let state = fs::read_to_string(estate.state()).unwrap();
    let mut state: Value = serde_json::from_str(&state).unwrap();
    let resources = resources(&mut state);
    let group_of = |one: &Value| one["groupName"] == NODES;
    resources.values_mut().find(|one| group_of(one)).unwrap()["groupDescription"] = "another".into();
    fs::write(estate.state(), state.to_string()).unwrap();
    let plan = estate.plan(&[]);
    assert!(steps(&plan).contains(&"create tenant/globex/silo/security-group".to_owned()), "{:?}", steps(&plan));
    let first = before(&plan, "delete tenant/globex/silo/security-group");
    assert!(first.contains(&"update tenant/globex/silo/node-group".to_owned()), "{first:?}");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    estate.sandbox(async |aws, _| {
        let new = format!("{NODES}-g2");
        let ports = ports(aws, &new).await;
        assert!(ports.contains(&8080) && ports.contains(&31000), "{ports:?}");
        let group = group(aws, &new).await;
        assert!(group.tags().iter().any(|t| t.key() == Some("kubernetes.io/cluster/solo-t-globex")), "{group:?}");
    });
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
}

async fn flow_logs(aws: &Aws) -> String {
    let all = aws.logs.describe_log_groups().log_group_name_prefix("/ringfence/").send().await.unwrap();
    all.log_groups()[0].log_group_name().unwrap().to_owned()
}

/// CloudWatch Logs API, "PutAccountPolicy": an account-level retention policy overrides the retention of each group.
#[test]
fn a_retention_policy_of_the_account() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.sandbox(async |aws, server| {
        let call = aws.logs.put_account_policy().policy_name("keep-long").policy_type(PolicyType::RetentionPolicy);
        let document = r#"{"retentionInDays": 1096, "enforcementMode": "RETROACTIVE"}"#;
        let call = call.selection_criteria(r#"LogGroupNamePrefix IN ["/ringfence/"]"#).policy_document(document);
        call.send().await.unwrap();
        server.advance(86_400.0);
    });
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [] as [&str; 0]);
    let named = |plan: &Value| {
        let mut notes = list(&plan["notes"]).iter().map(text);
        notes.find(|note| note.contains("for 1096 days: the account's retention policy `keep-long`")).map(str::to_owned)
    };
    assert!(named(&plan).is_some_and(|note| note.starts_with("tenant/globex/")), "{}", plan["notes"]);
    estate.sandbox(async |aws, _| {
        let call = aws.logs.delete_account_policy().policy_name("keep-long").policy_type(PolicyType::RetentionPolicy);
        call.send().await.unwrap();
    });
    let plan = estate.plan(&[]);
    assert_eq!((steps(&plan), named(&plan)), (Vec::new(), None));
}

/// CloudWatch Logs user guide, "Protecting log groups from deletion".
#[test]
fn a_log_group_that_is_protected_from_deletion() {
    let estate = Estate::applied(&SINGLE_SILO);
    let protect = async |aws: &Aws, on: bool| {
        let name = flow_logs(aws).await;
        let call = aws.logs.put_log_group_deletion_protection().log_group_identifier(&name);
        call.deletion_protection_enabled(on).send().await.unwrap();
        name
    };
    let name = estate.sandbox(async |aws, _| protect(aws, true).await);
    let run = estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(1);
    let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        &*format!("log group `{name}` is protected from deletion"),
        "aws logs put-log-group-deletion-protection",
        "--no-deletion-protection-enabled",
    ] {
        assert!(said.contains(text), "{text}: {}", run.out);
    }
    estate.sandbox(async |aws, _| protect(aws, false).await);
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
}

/// The steps on which a step of the plan depends.
fn before(plan: &Value, step: &str) -> Vec<String> {
    let name = |s: &Value| format!("{} {}", text(&s["action"]), text(&s["address"]));
    let needs: BTreeMap<String, Vec<String>> =
        list(&plan["steps"]).iter().map(|s| (name(s), list(&s["needs"]).iter().map(name).collect())).collect();
    let (mut open, mut found) = (vec![step.to_owned()], BTreeSet::new());
    while let Some(one) = open.pop() {
        open.extend(needs[&one].iter().filter(|need| found.insert((*need).clone())).cloned());
    }
    found.into_iter().collect()
}

/// Edits EC2's state in the sandbox.
fn edit_resources(estate: &Estate, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let text = fs::read_to_string(estate.state()).unwrap();
    let mut state: Value = serde_json::from_str(&text).unwrap();
    edit(resources(&mut state));
    fs::write(estate.state(), state.to_string()).unwrap();
}

/// Runs a command to its end with a fault script.
fn troubled(estate: &Estate, script: &str, args: &[&str]) -> Run {
    let served = Served::start(estate, None);
    served.server.set_faults(ringfence::sandbox::Script::parse(script).unwrap());
    let run = against(&served.url(), &mut estate.bare(args));
    let Served { runtime, server, .. } = served;
    runtime.block_on(server.shutdown()).unwrap();
    run
}

/// A network interface needs the rules of its group. So a group keeps its rules as long as an interface of somebody
/// uses it.
#[test]
fn a_group_that_somebody_holds_keeps_its_rules() {
    let estate = Estate::applied(&SINGLE_SILO);
    let interface = estate.sandbox(async |aws, _| {
        let subnets = aws.ec2.describe_subnets().filters(named("tag-key", "kubernetes.io/role/internal-elb"));
        let all = subnets.send().await.unwrap().subnets.unwrap();
        let id = group(aws, NODES).await.group_id().unwrap().to_owned();
        let call = aws.ec2.create_network_interface().subnet_id(all[0].subnet_id().unwrap()).groups(id);
        let made = call.description("theirs").send().await.unwrap();
        made.network_interface().unwrap().network_interface_id().unwrap().to_owned()
    });
    let rules = |estate: &Estate| {
        estate.sandbox(async |aws, _| {
            let group = group(aws, NODES).await;
            (group.ip_permissions().len(), group.ip_permissions_egress().len())
        })
    };
    let before = rules(&estate);
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).refuses(&["still used by", &interface]);
    assert_eq!(rules(&estate).1, before.1);
    assert!(rules(&estate).0 > 0);
    estate.sandbox(async |aws, _| {
        aws.ec2.delete_network_interface().network_interface_id(&interface).send().await.unwrap();
    });
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
}

/// In a VPC with an IPv6 block, AWS gives a new group an egress rule for all IPv6 addresses, too (getmoto/moto#2647,
/// hashicorp/terraform-provider-aws#47192).
#[test]
fn a_new_group_where_there_is_ipv6() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.sandbox(async |aws, _| {
        let vpc = super::bad_days::vpc_of(aws).await;
        let call = aws.ec2.associate_vpc_cidr_block().vpc_id(vpc).amazon_provided_ipv6_cidr_block(true);
        call.send().await.unwrap();
    });
    edit_resources(&estate, |all| {
        // A gateway in the state `deleting` has no step in the plan.
        let of =
            |one: &&mut Value| one["ipv6CidrBlockAssociationSet"][0].is_object() && one["dhcpOptionsId"].is_string();
        let vpc = all.values_mut().find(of).unwrap();
        vpc["ipv6CidrBlockAssociationSet"][0]["ipv6CidrBlockState"]["state"] = "disassociating".into();
        all.values_mut().find(|one| one["groupName"] == NODES).unwrap()["groupDescription"] = "another".into();
    });
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    let egress = estate.sandbox(async |aws, _| group(aws, &format!("{NODES}-g2")).await.ip_permissions_egress);
    assert!(!format!("{egress:?}").contains("::/0"), "{egress:?}");
}

/// EC2's resources in the estate's only region.
fn resources(state: &mut Value) -> &mut serde_json::Map<String, Value> {
    fn find(value: &mut Value) -> Option<&mut Value> {
        let map = value.as_object_mut()?;
        match map.contains_key("ec2") {
            true => map.get_mut("ec2")?.get_mut("resources"),
            false => map.values_mut().find_map(find),
        }
    }
    find(state).unwrap().as_object_mut().unwrap()
}

/// If a tenant's tier has no load balancers, a rule with the mark in its group isn't a controller's.
#[test]
fn marked_rules_where_there_are_no_load_balancers() {
    let estate = Estate::applied(&REGULATED);
    let name = "civic-t-treasury-nodes";
    estate.sandbox(async |aws, _| allow(aws, name, 8080, "10.0.0.0/8", LBC).await);
    let plan = estate.plan(&[]);
    let change = &plan["steps"][0]["changes"][0];
    assert_eq!(text(&change["path"]), "load_balancers", "{:?}", steps(&plan));
    estate.run(&["apply", "--auto-approve"]).exits(0);
    estate.sandbox(async |aws, _| assert!(!ports(aws, name).await.contains(&8080)));
}

/// terraform-aws-eks#2064, #1863, #719: the spec names the networks that may reach the private endpoint, and the routes
/// to them.
#[test]
fn a_network_that_reaches_the_private_endpoint() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.sandbox(async |aws, _| {
        allow(aws, CONTROL_PLANE, 443, "10.0.0.0/16", None).await;
        let tables = aws.ec2.describe_route_tables().filters(named("tag:Name", "solo-t-globex-private-a")).send().await;
        let table = tables.unwrap().route_tables()[0].route_table_id().unwrap().to_owned();
        let gateways = aws.ec2.describe_nat_gateways().send().await.unwrap();
        let gateway = gateways.nat_gateways()[0].nat_gateway_id().unwrap().to_owned();
        let call = aws.ec2.create_route().route_table_id(table).destination_cidr_block("10.0.0.0/16");
        call.nat_gateway_id(gateway).send().await.unwrap();
        let vpcs = aws.ec2.describe_vpcs().filters(named("tag:ringfence.dev/tenancy", "solo")).send().await.unwrap();
        let vpc = vpcs.vpcs()[0].vpc_id().unwrap().to_owned();
        aws.ec2.associate_vpc_cidr_block().vpc_id(vpc).cidr_block("100.64.0.0/16").send().await.unwrap();
    });
    assert_eq!(list(&estate.plan(&[])["steps"]).len(), 3, "undeclared, all three are taken back");
    estate.edit("  access:\n", "  access:\n    privateSources: [10.0.0.0/16]\n");
    estate.edit("    zones: 2\n", "    zones: 2\n    ignore: {routes: [10.0.0.0/16], cidrBlocks: [100.64.0.0/16]}\n");
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), ["update tenant/globex/silo/security-group/control-plane"], "its description");
    let note = list(&plan["notes"])
        .iter()
        .map(text)
        .find(|n| n.contains("routes that ringfence doesn't manage are kept: 10.0.0.0/16 to nat-"));
    assert!(note.is_some(), "{}", plan["notes"]);
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    let rule = estate.sandbox(async |aws, _| format!("{:?}", group(aws, CONTROL_PLANE).await));
    assert!(rule.contains("10.0.0.0/16") && rule.contains("access.privateSources"), "{rule}");
}

/// Routes that a virtual private gateway propagates can't be deleted (VPC User Guide, "Route propagation"). So they
/// aren't drift; a plan would never converge.
#[test]
fn propagated_routes() {
    let estate = Estate::applied(&SINGLE_SILO);
    route_everywhere(
        &estate,
        &serde_json::json!({
            "destinationCidrBlock": "10.9.0.0/16", "gatewayId": "vgw-0123456789abcdef0",
            "origin": "EnableVgwRoutePropagation", "state": "active",
        }),
    );
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [] as [&str; 0]);
    let notes: Vec<&str> = list(&plan["notes"]).iter().map(super::text).filter(|n| n.contains("vgw-")).collect();
    // One note for each of our three tables, and one for the VPC's main table.
    assert_eq!(notes.len(), 4, "{}", plan["notes"]);
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
}

/// Puts a route into every table.
fn route_everywhere(estate: &Estate, route: &Value) {
    edit_resources(estate, |all| {
        for (_, table) in all.iter_mut().filter(|(id, _)| id.starts_with("rtb-")) {
            table["routeSet"].as_array_mut().unwrap().push(route.clone());
        }
    });
}

/// hashicorp/terraform-provider-aws#30515: VPC Lattice's routes can't be
/// deleted.
#[test]
fn routes_of_vpc_lattice() {
    let estate = Estate::applied(&SINGLE_SILO);
    route_everywhere(
        &estate,
        &serde_json::json!({
            "destinationPrefixListId": "pl-0123456789abcdef0", "gatewayId": "VpcLattice",
            "origin": "CreateRoute", "state": "active",
        }),
    );
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    // A main table with only such routes counts as empty.
    estate.sandbox(async |aws, _| {
        let vpc = super::bad_days::vpc_of(aws).await;
        let table = super::bad_days::table_of(aws, "tenant/globex/silo/route-table/public").await;
        super::bad_days::make_main(aws, &vpc, &table).await;
    });
    assert_eq!(steps(&estate.plan(&[])), ["update tenant/globex/silo/route-table/public"]);
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
}

/// Somebody made a route to a firewall's endpoint, while AWS itself makes routes to gateway endpoints
/// (hashicorp/terraform-provider-aws, `vpc_route_table.go`).
#[test]
fn routes_to_a_firewalls_endpoint() {
    let estate = Estate::applied(&SINGLE_SILO);
    route_everywhere(
        &estate,
        &serde_json::json!({
            "destinationCidrBlock": "10.9.0.0/16", "gatewayId": "vpce-0123456789abcdef0",
            "origin": "CreateRoute", "state": "active",
        }),
    );
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan).len(), 4, "{:?}", steps(&plan));
    estate.edit("    zones: 2\n", "    zones: 2\n    ignore: {routes: [10.9.0.0/16]}\n");
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [] as [&str; 0]);
    let notes = list(&plan["notes"]).iter().map(super::text).filter(|n| n.contains("vpce-")).count();
    assert_eq!(notes, 4, "{}", plan["notes"]);
    estate.edit("    zones: 2\n    ignore: {routes: [10.9.0.0/16]}\n", "    zones: 2\n");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// Routes that the spec leaves to others also stay in the VPC's main table. All other routes are removed.
#[test]
fn routes_of_others_in_the_main_table() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("    zones: 2\n", "    zones: 2\n    ignore: {routes: [10.9.0.0/16]}\n");
    let main = |estate: &Estate| {
        estate.sandbox(async |aws, _| {
            let vpc = super::bad_days::vpc_of(aws).await;
            let call = aws.ec2.describe_route_tables().filters(named("vpc-id", &vpc));
            let all = call.filters(named("association.main", "true")).send().await.unwrap();
            all.route_tables()[0].clone()
        })
    };
    let table = main(&estate).route_table_id().unwrap().to_owned();
    estate.sandbox(async |aws, _| {
        let vpc = super::bad_days::vpc_of(aws).await;
        let gateways = aws.ec2.describe_internet_gateways().filters(named("attachment.vpc-id", &vpc)).send().await;
        let gateway = gateways.unwrap().internet_gateways()[0].internet_gateway_id().unwrap().to_owned();
        for to in ["10.9.0.0/16", "10.8.0.0/16"] {
            let call = aws.ec2.create_route().route_table_id(&table).destination_cidr_block(to);
            call.gateway_id(&gateway).send().await.unwrap();
        }
        // An empty table exists too, but isn't made the main one: the route that must stay would be lost.
        aws.ec2.create_route_table().vpc_id(&vpc).send().await.unwrap();
    });
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), ["update tenant/globex/silo/vpc"]);
    assert!(
        plan["notes"].to_string().contains("are kept in its main route table: 10.9.0.0/16 to igw-"),
        "{}",
        plan["notes"]
    );
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    let main = main(&estate);
    let to: Vec<&str> = main.routes().iter().filter_map(|r| r.destination_cidr_block()).collect();
    assert!(main.route_table_id() == Some(&table) && to.contains(&"10.9.0.0/16"), "{to:?}");
    assert!(!to.contains(&"10.8.0.0/16"), "{to:?}");
}

/// The VPC's original route table is recognised even if a tagging tool has tagged it.
#[test]
fn a_main_table_with_tags() {
    let estate = Estate::applied(&SINGLE_SILO);
    let count = |estate: &Estate| {
        estate.sandbox(async |aws, _| {
            let vpc = super::bad_days::vpc_of(aws).await;
            let all = aws.ec2.describe_route_tables().filters(named("vpc-id", &vpc)).send().await.unwrap();
            all.route_tables().len()
        })
    };
    let before = count(&estate);
    estate.sandbox(async |aws, _| {
        let vpc = super::bad_days::vpc_of(aws).await;
        let call = aws.ec2.describe_route_tables().filters(named("vpc-id", &vpc));
        let all = call.filters(named("association.main", "true")).send().await.unwrap();
        let tag = Tag::builder().key("org:owner").value("x").build();
        let id = all.route_tables()[0].route_table_id().unwrap();
        aws.ec2.create_tags().resources(id).tags(tag).send().await.unwrap();
        let ours = super::bad_days::table_of(aws, "tenant/globex/silo/route-table/public").await;
        super::bad_days::make_main(aws, &vpc, &ours).await;
    });
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(count(&estate), before);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// VPC User Guide, "Block public access to VPCs and subnets": a NAT gateway in a subnet that is blocked in both
/// directions has no way to the internet.
#[test]
fn public_access_that_is_blocked() {
    let estate = Estate::applied(&SINGLE_SILO);
    let blocked = |mode: &str| {
        edit_resources(&estate, |all| {
            for (_, subnet) in all.iter_mut().filter(|(id, _)| id.starts_with("subnet-")) {
                subnet["blockPublicAccessStates"] = serde_json::json!({"internetGatewayBlockMode": mode});
            }
        });
        let plan = estate.plan(&[]);
        assert_eq!(steps(&plan), [] as [&str; 0]);
        let notes = list(&plan["notes"]).iter().map(|n| super::text(n).to_owned());
        notes.filter(|n| n.contains("VPC Block Public Access")).collect::<Vec<_>>()
    };
    assert_eq!(blocked("block-ingress"), [] as [&str; 0]);
    let notes = blocked("block-bidirectional");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("tenant/globex/silo/vpc: ") && notes[0].contains("--vpc-id vpc-"), "{notes:?}");
}

/// The name of the cluster's role.
async fn role(aws: &Aws) -> String {
    let all = aws.iam.list_roles().path_prefix("/ringfence/").send().await.unwrap();
    let mut names = all.roles().iter().map(|r| r.role_name());
    names.find(|name| name.contains("globex") && name.contains("cluster")).unwrap().to_owned()
}

/// `ignoreTags` works like `ignore_tags` of terraform's AWS provider.
#[test]
fn tags_of_an_organisation() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.sandbox(async |aws, _| {
        let vpcs = aws.ec2.describe_vpcs().filters(named("tag:ringfence.dev/tenancy", "solo")).send().await.unwrap();
        let vpc = vpcs.vpcs()[0].vpc_id().unwrap().to_owned();
        let tag = |k: &str| Tag::builder().key(k).value("x").build();
        let call = aws.ec2.create_tags().resources(vpc).tags(tag("org:owner")).tags(tag("AutoTag_Creator"));
        call.tags(tag("awsApplication")).send().await.unwrap();
        let cluster = aws.eks.describe_cluster().name("solo-t-globex").send().await.unwrap();
        let arn = cluster.cluster().unwrap().arn().unwrap().to_owned();
        aws.eks.tag_resource().resource_arn(arn).tags("org:owner", "x").send().await.unwrap();
        let group = "/aws/eks/solo-t-globex/cluster";
        let arn = format!("arn:aws:logs:eu-central-1:123456789012:log-group:{group}");
        aws.logs.tag_resource().resource_arn(arn).tags("org:owner", "x").send().await.unwrap();
        let tag = aws_sdk_iam::types::Tag::builder().key("org:owner").value("x").build().unwrap();
        aws.iam.tag_role().role_name(role(aws).await).tags(tag).send().await.unwrap();
    });
    assert_eq!(list(&estate.plan(&[])["steps"]).len(), 4, "undeclared, they are taken out");
    estate.edit(
        "  access:\n",
        "  tags: {team: a}\n  ignoreTags: {keys: [\"org:owner\"], keyPrefixes: [AutoTag_]}\n  access:\n",
    );
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    estate.sandbox(async |aws, _| {
        let vpcs = aws.ec2.describe_vpcs().filters(named("tag:ringfence.dev/tenancy", "solo")).send().await.unwrap();
        let keys: Vec<&str> = vpcs.vpcs()[0].tags().iter().filter_map(|t| t.key()).collect();
        for key in ["org:owner", "AutoTag_Creator", "awsApplication", "team"] {
            assert!(keys.contains(&key), "{key}: {keys:?}");
        }
        let cluster = aws.eks.describe_cluster().name("solo-t-globex").send().await.unwrap();
        let tags = cluster.cluster().unwrap().tags().unwrap();
        assert!(tags.contains_key("org:owner") && tags.contains_key("team"), "{tags:?}");
        let role = aws.iam.get_role().role_name(role(aws).await).send().await.unwrap();
        let tags = role.role().unwrap().tags();
        assert!(tags.iter().any(|t| t.key() == "org:owner") && tags.iter().any(|t| t.key() == "team"), "{tags:?}");
    });
}

/// Makes what GuardDuty's Runtime Monitoring puts into a VPC. With `tag`, it carries GuardDuty's tag.
pub async fn guardduty(aws: &Aws, tag: bool) -> String {
    guardduty_at(aws, tag, "guardduty-data").await
}

async fn guardduty_at(aws: &Aws, tag: bool, service: &str) -> String {
    let vpcs = aws.ec2.describe_vpcs().filters(named("tag:ringfence.dev/tenancy", "solo")).send().await.unwrap();
    let vpc = vpcs.vpcs()[0].vpc_id().unwrap().to_owned();
    let tags = |kind: aws_sdk_ec2::types::ResourceType| {
        let tag = tag.then(|| vec![Tag::builder().key("GuardDutyManaged").value("true").build()]);
        aws_sdk_ec2::types::TagSpecification::builder().resource_type(kind).set_tags(tag).build()
    };
    let group = aws.ec2.create_security_group().vpc_id(&vpc).group_name(format!("GuardDutyManagedSecurityGroup-{vpc}"));
    let group = group.description("x").tag_specifications(tags(aws_sdk_ec2::types::ResourceType::SecurityGroup));
    let group = group.send().await.unwrap().group_id().unwrap().to_owned();
    let subnets = aws
        .ec2
        .describe_subnets()
        .filters(named("vpc-id", &vpc))
        .filters(named("tag-key", "kubernetes.io/role/internal-elb"));
    let subnets = subnets.send().await.unwrap().subnets().iter().map(|s| s.subnet_id().unwrap().to_owned()).collect();
    let call = aws.ec2.create_vpc_endpoint().vpc_id(&vpc).service_name(format!("com.amazonaws.eu-central-1.{service}"));
    let call = call.vpc_endpoint_type(aws_sdk_ec2::types::VpcEndpointType::Interface).set_subnet_ids(Some(subnets));
    let call = call.security_group_ids(group).tag_specifications(tags(aws_sdk_ec2::types::ResourceType::VpcEndpoint));
    call.send().await.unwrap().vpc_endpoint().unwrap().vpc_endpoint_id().unwrap().to_owned()
}

/// hashicorp/terraform-provider-aws#46747: GuardDuty's endpoint blocked the deletion of subnets and the VPC.
#[test]
fn guardduty_in_a_deleted_vpc() {
    for service in ["guardduty-data", "guardduty-data-fips"] {
        let estate = Estate::applied(&SINGLE_SILO);
        estate.sandbox(async |aws, _| guardduty_at(aws, true, service).await);
        assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
        estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
        let left = estate.sandbox(async |aws, _| {
            let endpoints = aws.ec2.describe_vpc_endpoints().send().await.unwrap();
            let vpcs = aws.ec2.describe_vpcs().filters(named("tag-key", "ringfence.dev/tenancy")).send().await.unwrap();
            endpoints.vpc_endpoints().len() + vpcs.vpcs().len()
        });
        assert_eq!(left, 0);
    }
}

/// If a subnet of somebody else keeps a VPC, GuardDuty's endpoint stays, too.
#[test]
fn guardduty_in_a_vpc_that_others_keep() {
    let estate = Estate::applied(&SINGLE_SILO);
    let (endpoint, theirs) = estate.sandbox(async |aws, _| {
        let vpc = super::bad_days::vpc_of(aws).await;
        aws.ec2.associate_vpc_cidr_block().vpc_id(&vpc).cidr_block("100.64.0.0/16").send().await.unwrap();
        let made = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block("100.64.1.0/24").send().await.unwrap();
        (guardduty(aws, true).await, made.subnet().unwrap().subnet_id().unwrap().to_owned())
    });
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).refuses(&["still used by", &theirs]);
    let endpoints = |estate: &Estate| {
        estate.sandbox(async |aws, _| {
            let all = aws.ec2.describe_vpc_endpoints().send().await.unwrap();
            all.vpc_endpoints().iter().map(|e| e.vpc_endpoint_id().unwrap().to_owned()).collect::<Vec<_>>()
        })
    };
    assert_eq!(endpoints(&estate), [endpoint]);
    estate.sandbox(async |aws, _| {
        aws.ec2.delete_subnet().subnet_id(&theirs).send().await.unwrap();
    });
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
    assert_eq!(endpoints(&estate), [] as [&str; 0]);
}

/// ReleaseAddress also answers AuthFailure for an address that is released already.
#[test]
fn an_address_that_is_released_already() {
    let estate = Estate::applied(&SINGLE_SILO);
    let done = "faults: [{call: ec2:ReleaseAddress, first: true, after: {error: {code: AuthFailure}}}]";
    troubled(&estate, done, &["destroy", "--auto-approve", "--delete-logs"]).exits(0);
}

/// A new VPC whose addresses overlap another VPC of the account. The two can never be connected.
#[test]
fn a_vpc_that_overlaps_another() {
    let estate = Estate::planted(&SINGLE_SILO);
    let notes = |estate: &Estate| {
        let plan = estate.plan(&[]);
        list(&plan["notes"]).iter().map(|n| text(n).to_owned()).filter(|n| n.contains("overlaps")).collect::<Vec<_>>()
    };
    assert_eq!(notes(&estate), [] as [&str; 0]);
    estate.sandbox(async |aws, _| {
        aws.ec2.create_vpc().cidr_block("10.128.0.0/16").send().await.unwrap();
    });
    let notes = notes(&estate);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("tenant/globex/silo/vpc: the VPC's block 10.128.0.0/20 overlaps "), "{notes:?}");
}

/// Endpoints of some services accept no policy, and EC2 refuses to create one with a policy
/// (awslabs/landing-zone-accelerator-on-aws#224).
#[test]
fn an_endpoint_that_takes_no_policy() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("endpoints: [s3]", "endpoints: [s3, email-smtp, sts]");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}
