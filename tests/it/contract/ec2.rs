//! VPC, its parts, and launch templates.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    AttributeBooleanValue, IpPermission, IpRange, RequestLaunchTemplateData, ResourceType, Tag, TagSpecification,
    UserIdGroupPair,
};
use ringfence::engine::address::Address;
use ringfence::engine::error::Class;
use ringfence::engine::kind::{Found, New, Round, Wanted};
use ringfence::engine::packed::Packed;
use ringfence::kinds::aws::elastic_ip::{self, ElasticIp};
use ringfence::kinds::aws::flow_log::{self, FlowLog};
use ringfence::kinds::aws::internet_gateway::{self, InternetGateway};
use ringfence::kinds::aws::launch_template::{self, LaunchTemplate};
use ringfence::kinds::aws::nat_gateway::{self, NatGateway};
use ringfence::kinds::aws::policy;
use ringfence::kinds::aws::route_table::{self, Route, RouteTable};
use ringfence::kinds::aws::security_group::{self, Permission, SecurityGroup};
use ringfence::kinds::aws::subnet::{self, Subnet};
use ringfence::kinds::aws::vpc::{self, Vpc};
use ringfence::kinds::aws::vpc_endpoint::{self, VpcEndpoint};
use serde_json::json;

use super::iam::retagged;
use super::{Contract, Ground, Lack, Subject, contracts, new, on};

const TEMPLATE_TAGS: &str = "aws.launch-template: tags changed";
const GROUP_RULE_DESCRIPTION: &str = "aws.security-group: description of a group's rule changed";
const PRIVATE_DNS: &str = "aws.vpc-endpoint: private DNS changed";
const TOKENS: &str = "client tokens of EC2";
const IP_IN_USE: &str = "aws.elastic-ip: in use";
const BLOCK_IN_USE: &str = "aws.vpc: block in use";
const HELD: &str = "aws.security-group: held by others";

pub const LACKS: &[Lack] = &[
    Lack {
        name: TEMPLATE_TAGS,
        reason: "CreateTags and DeleteTags don't reach launch templates",
        contract: |ground| Box::pin(launch_template(ground)),
        fails: "tags.cost-center",
    },
    Lack {
        name: GROUP_RULE_DESCRIPTION,
        reason: "UpdateSecurityGroupRuleDescriptions* reach CIDR blocks only",
        contract: |ground| Box::pin(security_group(ground)),
        fails: "\"ingress\"",
    },
    Lack {
        name: PRIVATE_DNS,
        reason: "ModifyVpcEndpoint leaves PrivateDnsEnabled as it is",
        contract: |ground| Box::pin(vpc_endpoint(ground)),
        fails: "private_dns",
    },
    Lack {
        name: BLOCK_IN_USE,
        reason: "blocks are dissociated from under their subnets",
        contract: |ground| Box::pin(block_in_use(ground)),
        fails: "it is in use",
    },
    Lack {
        name: HELD,
        reason: "groups in use are deleted without a DependencyViolation",
        contract: |ground| Box::pin(held_by_others(ground)),
        fails: "it is in use",
    },
    Lack {
        name: IP_IN_USE,
        reason: "addresses are released from under a NAT gateway",
        contract: |ground| Box::pin(ip_in_use(ground)),
        fails: "a NAT gateway has it",
    },
    Lack {
        name: TOKENS,
        reason: "the same call with the same token makes another",
        contract: |ground| Box::pin(same_token(ground)),
        fails: "made twice",
    },
];

contracts! {
    sandbox: [
        vpc, main_table, main_table_of_ours, block_in_use, subnet, internet_gateway, elastic_ip, nat_gateway, route_table, vpc_endpoint, security_group, flow_log,
        launch_template, half_made, replacement, same_token, ip_in_use, held_by_others, foreign_names,
    ],
    moto: [
        vpc, main_table, main_table_of_ours, subnet, internet_gateway, elastic_ip, nat_gateway, route_table, vpc_endpoint, security_group, flow_log,
        launch_template, half_made, replacement, foreign_names,
    ],
}

/// The address of a resource that a contract makes.
fn at(name: &str) -> String {
    format!("tenant/1/silo/{name}")
}

fn vpc_state(ground: &Ground, name: &str) -> vpc::State {
    vpc::State {
        cidr: "10.64.0.0/16".to_owned(),
        secondary_cidrs: vec![],
        dns_support: true,
        dns_hostnames: true,
        default_group_ingress: vec![],
        default_group_egress: vec![],
        main_routes: vec![],
        main_others: None,
        tags: ground.tags(&at(name)),
    }
}

async fn a_vpc(ground: &Ground) -> Found {
    ground.make(&on(Vpc, &ground.aws), &at("vpc"), &vpc_state(ground, "vpc")).await
}

async fn no_vpc(ground: &Ground, vpc: &Found) {
    ground.unmake(&on(Vpc, &ground.aws), vpc).await;
}

fn subnet_state(ground: &Ground, vpc: &str, number: u8) -> subnet::State {
    subnet::State {
        vpc: vpc.to_owned(),
        cidr: format!("10.64.{number}.0/24"),
        zone: format!("us-east-1{}", ["a", "b", "c"][usize::from(number)]),
        public_ip_on_launch: number == 0,
        walled: None,
        tags: ground.tags(&at(&format!("subnet-{number}"))),
    }
}

async fn a_subnet(ground: &Ground, vpc: &str, number: u8) -> Found {
    let state = subnet_state(ground, vpc, number);
    ground.make(&on(Subnet, &ground.aws), &at(&format!("subnet-{number}")), &state).await
}

async fn no_subnets(ground: &Ground, subnets: &[Found]) {
    for subnet in subnets {
        ground.unmake(&on(Subnet, &ground.aws), subnet).await;
    }
}

async fn a_group(ground: &Ground, vpc: &str, name: &str) -> Found {
    let state = group_state(ground, vpc, name);
    ground.make(&on(SecurityGroup, &ground.aws), &at(name), &state).await
}

fn group_state(ground: &Ground, vpc: &str, name: &str) -> security_group::State {
    security_group::State {
        vpc: vpc.to_owned(),
        name: format!("ringfence-{}", name),
        description: "Nodes of tenant 1".to_owned(),
        ingress: vec![],
        egress: vec![permission("-1", 0, 0, "0.0.0.0/0", "")],
        load_balancers: Some(vec![]),
        controller_tags: None,
        tags: ground.tags(&at(name)),
    }
}

fn permission(protocol: &str, from: i32, to: i32, peer: &str, description: &str) -> Permission {
    Permission { protocol: protocol.to_owned(), from, to, peer: peer.to_owned(), description: description.to_owned() }
}

async fn tag_by_hand(aws: std::sync::Arc<ringfence::aws::Aws>, found: Found) {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let call = aws.ec2.create_tags().resources(&found.id);
    call.tags(tag("cost-center", "mine")).tags(tag("extra", "")).send().await.unwrap();
    // A tag of a controller isn't drift.
    let call = aws.ec2.create_tags().resources(&found.id);
    call.tags(tag("kubernetes.io/cluster/shop", "owned")).send().await.unwrap();
}

async fn vpc(ground: &Ground) {
    let kind = on(Vpc, &ground.aws);
    let state = vpc_state(ground, "vpc");
    let plain = vpc::State { dns_support: false, dns_hostnames: false, ..state.clone() };
    Contract::new(ground, &kind, &at("vpc"), &state)
        .update("dns_hostnames", &vpc::State { dns_hostnames: false, ..state.clone() })
        .update("dns_support", &plain)
        .update("dns_support", &state)
        .update("tags", &vpc::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", tag_by_hand)
        .drift("dns_hostnames", |aws, found| async move {
            let off = AttributeBooleanValue::builder().value(false).build();
            aws.ec2.modify_vpc_attribute().vpc_id(&found.id).enable_dns_hostnames(off).send().await.unwrap();
        })
        .drift("default_group_ingress", |aws, found| async move {
            let group = default_group(&aws, &found.id).await;
            let rule = tcp(22).ip_ranges(IpRange::builder().cidr_ip("0.0.0.0/0").description("ssh").build()).build();
            aws.ec2.authorize_security_group_ingress().group_id(&group).ip_permissions(rule).send().await.unwrap();
        })
        .drift("default_group_egress", |aws, found| async move {
            let group = default_group(&aws, &found.id).await;
            let rule = tcp(443).user_id_group_pairs(UserIdGroupPair::builder().group_id(&group).build()).build();
            aws.ec2.authorize_security_group_egress().group_id(&group).ip_permissions(rule).send().await.unwrap();
        })
        .drift("secondary_cidrs", |aws, found| async move {
            let call = || aws.ec2.associate_vpc_cidr_block().vpc_id(&found.id);
            call().cidr_block("10.80.0.0/16").send().await.unwrap();
            call().amazon_provided_ipv6_cidr_block(true).send().await.unwrap();
        })
        .run()
        .await;
}

/// Routes that somebody adds to the VPC's original route table, or to a table of their own that they make the main one.
async fn main_table(ground: &Ground) {
    let kind = on(Vpc, &ground.aws);
    let gateways = on(InternetGateway, &ground.aws);
    let vpc = a_vpc(ground).await;
    let gateway = internet_gateway::State { vpc: vpc.id.clone(), tags: ground.tags(&at("gateway")) };
    let gateway = ground.make(&gateways, &at("gateway"), &gateway).await;
    let want = new(&at("vpc"), &vpc_state(ground, "vpc"));
    let ec2 = &ground.aws.ec2;
    let lead_out = async |table: &str| {
        let call = ec2.create_route().route_table_id(table).destination_cidr_block("0.0.0.0/0");
        call.gateway_id(&gateway.id).send().await.unwrap();
    };
    let put_back = async || {
        let before = super::only(ground, &kind, &want.address).await;
        let changes = super::changes(&kind, &want, &before);
        let paths: Vec<&str> = changes.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(paths, ["main_routes"]);
        assert_eq!(changes[0].before[0]["target"], gateway.id);
        kind.update(&before, &want, &changes).await.unwrap();
        super::same(ground, &kind, &want).await;
        main_of(ground, &vpc.id).await
    };

    let own = main_of(ground, &vpc.id).await;
    lead_out(&own).await;
    assert_eq!(put_back().await, own);

    let theirs = ec2.create_route_table().vpc_id(&vpc.id).send().await.unwrap();
    let theirs = theirs.route_table().unwrap().route_table_id().unwrap();
    lead_out(theirs).await;
    make_main(ground, &vpc.id, theirs).await;
    assert_eq!(put_back().await, own);
    let left = ec2.describe_route_tables().route_table_ids(theirs).send().await.unwrap();
    let routes = left.route_tables()[0].routes();
    assert!(routes.iter().any(|r| r.gateway_id() == Some(&gateway.id)), "somebody's table is as it was");

    ec2.delete_route_table().route_table_id(theirs).send().await.unwrap();
    ground.unmake(&gateways, &gateway).await;
    no_vpc(ground, &vpc).await;
}

/// The main route table of a VPC, which subnets without a table of their own use.
async fn main_association(ground: &Ground, vpc: &str) -> (String, String) {
    let filter = |name: &str, value: &str| aws_sdk_ec2::types::Filter::builder().name(name).values(value).build();
    let tables = ground.aws.ec2.describe_route_tables().filters(filter("vpc-id", vpc)).send().await.unwrap();
    let all = tables.route_tables().iter().flat_map(|t| t.associations());
    let main = all.into_iter().find(|a| a.main() == Some(true)).expect("every VPC has a main table");
    (main.route_table_id().unwrap().to_owned(), main.route_table_association_id().unwrap().to_owned())
}

async fn main_of(ground: &Ground, vpc: &str) -> String {
    main_association(ground, vpc).await.0
}

async fn make_main(ground: &Ground, vpc: &str, table: &str) {
    let (_, association) = main_association(ground, vpc).await;
    let call = ground.aws.ec2.replace_route_table_association().association_id(association);
    call.route_table_id(table).send().await.unwrap();
}

/// A table of ours is the main one and must be deleted, and the VPC's original table doesn't exist any more.
async fn main_table_of_ours(ground: &Ground) {
    let kind = on(RouteTable, &ground.aws);
    let vpc = a_vpc(ground).await;
    let own = main_of(ground, &vpc.id).await;
    let state = table_state(ground, &vpc, "routes");
    let table = ground.make(&kind, &at("routes"), &state).await;
    make_main(ground, &vpc.id, &table.id).await;
    ground.aws.ec2.delete_route_table().route_table_id(&own).send().await.unwrap();
    let table = super::only(ground, &kind, &table.address).await;
    ground.unmake(&kind, &table).await;
    no_vpc(ground, &vpc).await;
}

fn table_state(ground: &Ground, vpc: &Found, name: &str) -> route_table::State {
    route_table::State {
        vpc: vpc.id.clone(),
        routes: vec![],
        others: None,
        subnets: vec![],
        main: false,
        tags: ground.tags(&at(name)),
    }
}

/// A CIDR block that was added by hand stays while subnets use it.
async fn block_in_use(ground: &Ground) {
    let kind = on(Vpc, &ground.aws);
    let vpc = a_vpc(ground).await;
    let ec2 = &ground.aws.ec2;
    ec2.associate_vpc_cidr_block().vpc_id(&vpc.id).cidr_block("100.64.0.0/16").send().await.unwrap();
    let subnet = ec2.create_subnet().vpc_id(&vpc.id).cidr_block("100.64.1.0/24").send().await.unwrap();
    let subnet = subnet.subnet().unwrap().subnet_id().unwrap();
    let want = new(&at("vpc"), &vpc_state(ground, "vpc"));
    let before = super::only(ground, &kind, &want.address).await;
    let changes = super::changes(&kind, &want, &before);
    let error = kind.update(&before, &want, &changes).await.expect_err("it is in use");
    assert!(error.message.starts_with(&format!("the block 100.64.0.0/16 can't be removed from {}", vpc.id)), "{error}");
    assert!(error.help.as_deref().is_some_and(|help| help.contains("delete the subnets")), "{error}");
    ec2.delete_subnet().subnet_id(subnet).send().await.unwrap();
    kind.update(&before, &want, &changes).await.unwrap();
    let vpc = super::same(ground, &kind, &want).await;
    no_vpc(ground, &vpc).await;
}

fn tcp(port: i32) -> aws_sdk_ec2::types::builders::IpPermissionBuilder {
    IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port)
}

async fn default_group(aws: &ringfence::aws::Aws, vpc: &str) -> String {
    let filter = |name: &str, value: &str| aws_sdk_ec2::types::Filter::builder().name(name).values(value).build();
    let call = aws.ec2.describe_security_groups().filters(filter("vpc-id", vpc));
    let groups = call.filters(filter("group-name", "default")).send().await.unwrap();
    groups.security_groups()[0].group_id().unwrap().to_owned()
}

async fn subnet(ground: &Ground) {
    let kind = on(Subnet, &ground.aws);
    let vpc = a_vpc(ground).await;
    let state = subnet_state(ground, &vpc.id, 0);
    Contract::new(ground, &kind, &at("subnet-0"), &state)
        .update("public_ip_on_launch", &subnet::State { public_ip_on_launch: false, ..state.clone() })
        .update("public_ip_on_launch", &state)
        .update("tags", &subnet::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", tag_by_hand)
        .drift("public_ip_on_launch", |aws, found| async move {
            let off = AttributeBooleanValue::builder().value(false).build();
            aws.ec2.modify_subnet_attribute().subnet_id(&found.id).map_public_ip_on_launch(off).send().await.unwrap();
        })
        .run()
        .await;
    no_vpc(ground, &vpc).await;
}

async fn internet_gateway(ground: &Ground) {
    let kind = on(InternetGateway, &ground.aws);
    let vpc = a_vpc(ground).await;
    let state = internet_gateway::State { vpc: vpc.id.clone(), tags: ground.tags(&at("gateway")) };
    Contract::new(ground, &kind, &at("gateway"), &state)
        .update("tags", &internet_gateway::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", tag_by_hand)
        .drift("vpc", |aws, found| async move {
            let vpc = found.state["vpc"].as_str().unwrap();
            aws.ec2.detach_internet_gateway().internet_gateway_id(&found.id).vpc_id(vpc).send().await.unwrap();
        })
        .run()
        .await;
    no_vpc(ground, &vpc).await;
}

async fn elastic_ip(ground: &Ground) {
    let kind = on(ElasticIp, &ground.aws);
    let state = elastic_ip::State { tags: ground.tags(&at("ip")) };
    Contract::new(ground, &kind, &at("ip"), &state)
        .update("tags", &elastic_ip::State { tags: retagged(&state.tags) })
        .drift("tags", tag_by_hand)
        .run()
        .await;
}

async fn nat_gateway(ground: &Ground) {
    let (kind, ips) = (on(NatGateway, &ground.aws), on(ElasticIp, &ground.aws));
    let gateways = on(InternetGateway, &ground.aws);
    let vpc = a_vpc(ground).await;
    let way_out = internet_gateway::State { vpc: vpc.id.clone(), tags: ground.tags(&at("gateway")) };
    let way_out = ground.make(&gateways, &at("gateway"), &way_out).await;
    let subnet = a_subnet(ground, &vpc.id, 0).await;
    let ip = ground.make(&ips, &at("ip"), &elastic_ip::State { tags: ground.tags(&at("ip")) }).await;
    let state =
        nat_gateway::State { subnet: subnet.id.clone(), allocation: ip.id.clone(), tags: ground.tags(&at("nat")) };
    Contract::new(ground, &kind, &at("nat"), &state)
        .update("tags", &nat_gateway::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", tag_by_hand)
        .run()
        .await;
    ground.unmake(&ips, &ip).await;
    no_subnets(ground, &[subnet]).await;
    ground.unmake(&gateways, &way_out).await;
    no_vpc(ground, &vpc).await;
}

async fn route_table(ground: &Ground) {
    let kind = on(RouteTable, &ground.aws);
    let gateways = on(InternetGateway, &ground.aws);
    let nats = on(NatGateway, &ground.aws);
    let ips = on(ElasticIp, &ground.aws);
    let vpc = a_vpc(ground).await;
    let gateway = internet_gateway::State { vpc: vpc.id.clone(), tags: ground.tags(&at("gateway")) };
    let gateway = ground.make(&gateways, &at("gateway"), &gateway).await;
    let (one, two) = (a_subnet(ground, &vpc.id, 0).await, a_subnet(ground, &vpc.id, 1).await);
    let ip = ground.make(&ips, &at("ip"), &elastic_ip::State { tags: ground.tags(&at("ip")) }).await;
    let nat = nat_gateway::State { subnet: one.id.clone(), allocation: ip.id.clone(), tags: ground.tags(&at("nat")) };
    let nat = ground.make(&nats, &at("nat"), &nat).await;

    let route =
        |destination: &str, target: &Found| Route { destination: destination.to_owned(), target: target.id.clone() };
    let state = route_table::State {
        vpc: vpc.id.clone(),
        routes: vec![route("0.0.0.0/0", &gateway)],
        others: None,
        subnets: vec![one.id.clone()],
        main: false,
        tags: ground.tags(&at("routes")),
    };
    let other_target = route_table::State { routes: vec![route("0.0.0.0/0", &nat)], ..state.clone() };
    let both = route_table::State {
        routes: vec![route("192.0.2.0/24", &nat), route("0.0.0.0/0", &gateway)],
        subnets: vec![two.id.clone(), one.id.clone()],
        ..state.clone()
    };
    let (by_hand, vpc_id, subnet) = (gateway.id.clone(), vpc.id.clone(), two.id.clone());
    let (nat_id, other_subnet) = (nat.id.clone(), one.id.clone());
    Contract::new(ground, &kind, &at("routes"), &state)
        .update("routes", &other_target)
        .update("subnets", &both)
        .update("routes", &state)
        .update("routes", &route_table::State { routes: vec![], subnets: vec![], ..state.clone() })
        .update("subnets", &both)
        .update("tags", &route_table::State { tags: retagged(&state.tags), ..both.clone() })
        .drift("tags", tag_by_hand)
        .drift("routes", |aws, found| async move {
            let call = aws.ec2.create_route().route_table_id(&found.id).destination_cidr_block("198.51.100.0/24");
            call.gateway_id(&by_hand).send().await.unwrap();
        })
        .drift("routes", |aws, found| async move {
            let call = aws.ec2.replace_route().route_table_id(&found.id).destination_cidr_block("0.0.0.0/0");
            call.nat_gateway_id(&nat_id).send().await.unwrap();
            let call = aws.ec2.delete_route().route_table_id(&found.id).destination_cidr_block("192.0.2.0/24");
            call.send().await.unwrap();
        })
        .drift(
            "main",
            |_, found| async move { make_main(ground, found.state["vpc"].as_str().unwrap(), &found.id).await },
        )
        .drift("subnets", move |aws, found| async move {
            // One subnet is moved to somebody's own table in our VPC, and another is dissociated.
            let table = aws.ec2.create_route_table().vpc_id(&vpc_id).send().await.unwrap();
            let table = table.route_table().unwrap().route_table_id().unwrap().to_owned();
            let ours = aws.ec2.describe_route_tables().route_table_ids(&found.id).send().await.unwrap();
            for association in ours.route_tables()[0].associations() {
                let id = association.route_table_association_id().unwrap();
                if association.subnet_id() == Some(&subnet) {
                    let call = aws.ec2.replace_route_table_association().association_id(id);
                    call.route_table_id(&table).send().await.unwrap();
                } else if association.subnet_id() == Some(&other_subnet) {
                    aws.ec2.disassociate_route_table().association_id(id).send().await.unwrap();
                }
            }
        })
        .run()
        .await;
    // That table can only be deleted when it has none of our subnets.
    let filter = |name: &str, value: &str| aws_sdk_ec2::types::Filter::builder().name(name).values(value).build();
    let left = ground.aws.ec2.describe_route_tables().filters(filter("vpc-id", &vpc.id)).send().await.unwrap();
    for table in left.route_tables().iter().filter(|t| t.associations().iter().all(|a| a.main() != Some(true))) {
        let id = table.route_table_id().unwrap();
        ground.aws.ec2.delete_route_table().route_table_id(id).send().await.unwrap();
    }
    ground.unmake(&nats, &nat).await;
    ground.unmake(&ips, &ip).await;
    no_subnets(ground, &[one, two]).await;
    ground.unmake(&gateways, &gateway).await;
    no_vpc(ground, &vpc).await;
}

async fn vpc_endpoint(ground: &Ground) {
    let kind = on(VpcEndpoint, &ground.aws);
    let tables = on(RouteTable, &ground.aws);
    let groups = on(SecurityGroup, &ground.aws);
    let vpc = a_vpc(ground).await;
    let subnets = [a_subnet(ground, &vpc.id, 0).await, a_subnet(ground, &vpc.id, 1).await];
    let (group, other_group) = (a_group(ground, &vpc.id, "one").await, a_group(ground, &vpc.id, "two").await);
    let mut routes = Vec::new();
    for name in ["routes-0", "routes-1"] {
        let state = table_state(ground, &vpc, name);
        routes.push(ground.make(&tables, &at(name), &state).await);
    }
    let policy = |action: &str| {
        policy::canonical(&json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow", "Principal": "*", "Action": [action], "Resource": ["*"],
                "Condition": {"StringEquals": {"aws:PrincipalAccount": [ground.aws.scope.account]}},
            }],
        }))
    };

    let gateway = vpc_endpoint::State {
        vpc: vpc.id.clone(),
        service: "com.amazonaws.us-east-1.s3".to_owned(),
        kind: "Gateway".to_owned(),
        policy: policy("s3:GetObject"),
        route_tables: vec![routes[0].id.clone()],
        subnets: vec![],
        security_groups: vec![],
        private_dns: false,
        tags: ground.tags(&at("s3")),
    };
    let by_hand = routes[0].id.clone();
    Contract::new(ground, &kind, &at("s3"), &gateway)
        .update("policy", &vpc_endpoint::State { policy: policy("s3:*"), ..gateway.clone() })
        .update(
            "route_tables",
            &vpc_endpoint::State { route_tables: routes.iter().rev().map(|r| r.id.clone()).collect(), ..gateway.clone() },
        )
        .update("tags", &vpc_endpoint::State { tags: retagged(&gateway.tags), ..gateway.clone() })
        .drift("tags", tag_by_hand)
        .drift("route_tables", |aws, found| async move {
            let call = aws.ec2.modify_vpc_endpoint().vpc_endpoint_id(&found.id);
            call.remove_route_table_ids(by_hand).send().await.unwrap();
        })
        .drift("policy", |aws, found| async move {
            let open = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}"#;
            let call = aws.ec2.modify_vpc_endpoint().vpc_endpoint_id(&found.id);
            call.policy_document(open).send().await.unwrap();
        })
        .run()
        .await;

    let interface = vpc_endpoint::State {
        service: "com.amazonaws.us-east-1.ecr.api".to_owned(),
        kind: "Interface".to_owned(),
        policy: policy("ecr:BatchGetImage"),
        route_tables: vec![],
        subnets: vec![subnets[0].id.clone()],
        security_groups: vec![group.id.clone()],
        private_dns: true,
        tags: ground.tags(&at("ecr")),
        ..gateway.clone()
    };
    let by_hand = other_group.id.clone();
    Contract::new(ground, &kind, &at("ecr"), &interface)
        .part(PRIVATE_DNS, |contract| {
            contract
                .update("private_dns", &vpc_endpoint::State { private_dns: false, ..interface.clone() })
                .update("private_dns", &interface)
        })
        .update(
            "subnets",
            &vpc_endpoint::State { subnets: subnets.iter().rev().map(|s| s.id.clone()).collect(), ..interface.clone() },
        )
        .update(
            "security_groups",
            &vpc_endpoint::State { security_groups: vec![other_group.id.clone()], ..interface.clone() },
        )
        .update("security_groups", &interface)
        .drift("security_groups", |aws, found| async move {
            let call = aws.ec2.modify_vpc_endpoint().vpc_endpoint_id(&found.id);
            call.add_security_group_ids(by_hand).send().await.unwrap();
        })
        .run()
        .await;

    for table in &routes {
        ground.unmake(&tables, table).await;
    }
    ground.unmake(&groups, &group).await;
    ground.unmake(&groups, &other_group).await;
    no_subnets(ground, &subnets).await;
    no_vpc(ground, &vpc).await;
}

async fn security_group(ground: &Ground) {
    let kind = on(SecurityGroup, &ground.aws);
    let vpc = a_vpc(ground).await;
    let peer = a_group(ground, &vpc.id, "peer").await;
    let state = security_group::State {
        ingress: vec![
            permission("tcp", 10250, 10250, &peer.id, "kubelet"),
            permission("-1", 0, 0, "self", "among themselves"),
            permission("tcp", 443, 443, "10.64.0.0/16", ""),
            permission("tcp", 443, 443, "10.65.0.0/16", ""),
        ],
        egress: vec![permission("tcp", 443, 443, "0.0.0.0/0", "out")],
        ..group_state(ground, &vpc.id, "group")
    };
    let fewer = security_group::State {
        ingress: state.ingress[..2].to_vec(),
        egress: vec![permission("-1", 0, 0, "0.0.0.0/0", "")],
        ..state.clone()
    };
    let described =
        security_group::State { egress: vec![permission("-1", 0, 0, "0.0.0.0/0", "everywhere")], ..fewer.clone() };
    let group_described = security_group::State {
        ingress: vec![permission("-1", 0, 0, "self", "anything"), fewer.ingress[0].clone()],
        ..described.clone()
    };
    Contract::new(ground, &kind, &at("group"), &state)
        .update("ingress", &fewer)
        .update("egress", &described)
        .part(GROUP_RULE_DESCRIPTION, |contract| contract.update("ingress", &group_described))
        .update("ingress", &state)
        .update("ingress", &security_group::State { ingress: vec![], egress: vec![], ..state.clone() })
        .update("egress", &state)
        .update("tags", &security_group::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", tag_by_hand)
        .drift("ingress", |aws, found| async move {
            let world = IpRange::builder().cidr_ip("0.0.0.0/0").build();
            let six = aws_sdk_ec2::types::Ipv6Range::builder().cidr_ipv6("::/0").description("six").build();
            let rule = tcp(22).ip_ranges(world).ipv6_ranges(six).build();
            let call = aws.ec2.authorize_security_group_ingress().group_id(&found.id);
            call.ip_permissions(rule).send().await.unwrap();
        })
        .drift("egress", |aws, found| async move {
            let range = IpRange::builder().cidr_ip("0.0.0.0/0").build();
            let rule = tcp(443).ip_ranges(range).build();
            let call = aws.ec2.revoke_security_group_egress().group_id(&found.id);
            call.ip_permissions(rule).send().await.unwrap();
        })
        .run()
        .await;
    ground.unmake(&kind, &peer).await;
    no_vpc(ground, &vpc).await;
}

async fn flow_log(ground: &Ground) {
    let kind = on(FlowLog, &ground.aws);
    let vpc = a_vpc(ground).await;
    let group = format!("/ringfence/{}/flow", ground.aws.tenancy);
    let role = format!("flow-{}", ground.aws.tenancy);
    let trust = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow", "Principal": {"Service": "vpc-flow-logs.amazonaws.com"}, "Action": "sts:AssumeRole",
        }],
    });
    ground.aws.logs.create_log_group().log_group_name(&group).send().await.unwrap();
    let made = ground.aws.iam.create_role().role_name(&role).assume_role_policy_document(trust.to_string());
    let made = made.send().await.unwrap();
    let state = flow_log::State {
        vpc: vpc.id.clone(),
        log_group: group.clone(),
        role: made.role().unwrap().arn().to_owned(),
        traffic: "ALL".to_owned(),
        aggregation: 600,
        tags: ground.tags(&at("flow-log")),
    };
    Contract::new(ground, &kind, &at("flow-log"), &state)
        .update("tags", &flow_log::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", tag_by_hand)
        .run()
        .await;
    ground.aws.iam.delete_role().role_name(&role).send().await.unwrap();
    ground.aws.logs.delete_log_group().log_group_name(&group).send().await.unwrap();
    no_vpc(ground, &vpc).await;
}

fn template_state(ground: &Ground, name: &str, groups: &[&Found]) -> launch_template::State {
    launch_template::State {
        name: format!("{}-{name}", ground.aws.tenancy),
        image: None,
        security_groups: groups.iter().map(|g| g.id.clone()).collect(),
        metadata: launch_template::Metadata {
            endpoint: "enabled".to_owned(),
            tokens: "required".to_owned(),
            hop_limit: 1,
            ipv6: "disabled".to_owned(),
            instance_tags: "disabled".to_owned(),
        },
        volumes: vec![volume("/dev/xvda", None), volume("/dev/xvdb", Some(80))],
        user_data: "[settings.kubernetes]\nseccomp-default = true\n".to_owned(),
        instance_tags: [("Name".to_owned(), "node".to_owned()), ("cost-center".to_owned(), "saas".to_owned())].into(),
        other: BTreeMap::new(),
        tags: ground.tags(&at(name)),
    }
}

fn volume(device: &str, size: Option<i32>) -> launch_template::Volume {
    launch_template::Volume {
        device: device.to_owned(),
        size,
        kind: "gp3".to_owned(),
        iops: None,
        throughput: None,
        encrypted: true,
        key: None,
        delete_on_termination: true,
    }
}

async fn launch_template(ground: &Ground) {
    let kind = on(LaunchTemplate, &ground.aws);
    let vpc = a_vpc(ground).await;
    let (group, other) = (a_group(ground, &vpc.id, "one").await, a_group(ground, &vpc.id, "two").await);
    let state = template_state(ground, "nodes", &[&group]);
    let key = format!("arn:aws:kms:us-east-1:{}:key/1234abcd-12ab-34cd-56ef-1234567890ab", ground.aws.scope.account);
    let bigger = launch_template::Volume {
        iops: Some(3000),
        throughput: Some(125),
        key: Some(key),
        ..volume("/dev/xvdb", Some(100))
    };
    let metadata = launch_template::Metadata { instance_tags: "enabled".to_owned(), ..state.metadata.clone() };
    let no_tags = launch_template::State { instance_tags: BTreeMap::new(), user_data: String::new(), ..state.clone() };
    Contract::new(ground, &kind, &at("nodes"), &state)
        .update(
            "volumes",
            &launch_template::State { volumes: vec![bigger, volume("/dev/xvda", None)], ..state.clone() },
        )
        .update("metadata", &launch_template::State { metadata, ..state.clone() })
        .update("user_data", &no_tags)
        .update("image", &launch_template::State { image: Some("ami-0123456789abcdef0".to_owned()), ..state.clone() })
        .update(
            "security_groups",
            &launch_template::State { security_groups: vec![other.id.clone(), group.id.clone()], ..state.clone() },
        )
        .part(TEMPLATE_TAGS, |contract| {
            contract
                .update("tags", &launch_template::State { tags: retagged(&state.tags), ..state.clone() })
                .drift("tags", tag_by_hand)
        })
        .drift("other", |aws, found| async move {
            let data = RequestLaunchTemplateData::builder().key_name("mine").build();
            let call = aws.ec2.create_launch_template_version().launch_template_id(&found.id);
            let made = call.launch_template_data(data).source_version("1").send().await.unwrap();
            let version = made.launch_template_version().unwrap().version_number().unwrap();
            let call = aws.ec2.modify_launch_template().launch_template_id(&found.id);
            call.default_version(version.to_string()).send().await.unwrap();
        })
        .drift("volumes", |aws, found| async move {
            let call = aws.ec2.modify_launch_template().launch_template_id(&found.id);
            call.default_version("2").send().await.unwrap();
        })
        .run()
        .await;

    // Many templates are read in one call. Each must get its own data.
    let mut many = Vec::new();
    for size in 20..24 {
        let name = format!("nodes-{size}");
        let state = launch_template::State {
            volumes: vec![volume("/dev/xvdb", Some(size))],
            ..template_state(ground, &name, &[&group])
        };
        many.push((ground.make(&kind, &at(&name), &state).await, state));
    }
    let observation = kind.observe(&Round::default(), &[]).await.unwrap();
    for (made, state) in &many {
        let found = observation.found.iter().find(|f| f.id == made.id).unwrap();
        assert_eq!(found.state, Packed::of(state).unwrap());
        ground.unmake(&kind, made).await;
    }
    let groups = on(SecurityGroup, &ground.aws);
    ground.unmake(&groups, &group).await;
    ground.unmake(&groups, &other).await;
    no_vpc(ground, &vpc).await;
}

/// If a run crashes right after the create call, the next update completes the resource.
async fn half_made(ground: &Ground) {
    let ec2 = &ground.aws.ec2;
    let (vpcs, groups) = (on(Vpc, &ground.aws), on(SecurityGroup, &ground.aws));
    let (gateways, tables) = (on(InternetGateway, &ground.aws), on(RouteTable, &ground.aws));
    let tagged = |resource: ResourceType, name: &str| {
        let tags = ringfence::aws::tags::with_generation(&ground.tags(&at(name)), 1);
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        TagSpecification::builder().resource_type(resource).set_tags(Some(tags.collect())).build()
    };
    let state = vpc_state(ground, "vpc");
    let call = ec2.create_vpc().cidr_block(&state.cidr).tag_specifications(tagged(ResourceType::Vpc, "vpc"));
    call.send().await.unwrap();
    let vpc = completed(ground, &vpcs, "vpc", &state).await;

    let call = ec2.create_internet_gateway();
    call.tag_specifications(tagged(ResourceType::InternetGateway, "gateway")).send().await.unwrap();
    let state = internet_gateway::State { vpc: vpc.id.clone(), tags: ground.tags(&at("gateway")) };
    let gateway = completed(ground, &gateways, "gateway", &state).await;

    let state = security_group::State {
        ingress: vec![permission("tcp", 443, 443, "self", "")],
        egress: vec![permission("udp", 53, 53, "10.64.0.0/16", "names")],
        ..group_state(ground, &vpc.id, "group")
    };
    let call = ec2.create_security_group().group_name(&state.name).description(&state.description).vpc_id(&vpc.id);
    call.tag_specifications(tagged(ResourceType::SecurityGroup, "group")).send().await.unwrap();
    let group = completed(ground, &groups, "group", &state).await;

    let subnet = a_subnet(ground, &vpc.id, 0).await;
    let call = ec2.create_route_table().vpc_id(&vpc.id);
    call.tag_specifications(tagged(ResourceType::RouteTable, "routes")).send().await.unwrap();
    let state = route_table::State {
        others: None,
        vpc: vpc.id.clone(),
        routes: vec![Route { destination: "0.0.0.0/0".to_owned(), target: gateway.id.clone() }],
        subnets: vec![subnet.id.clone()],
        main: false,
        tags: ground.tags(&at("routes")),
    };
    let table = completed(ground, &tables, "routes", &state).await;

    ground.unmake(&tables, &table).await;
    no_subnets(ground, &[subnet]).await;
    ground.unmake(&groups, &group).await;
    ground.unmake(&gateways, &gateway).await;
    no_vpc(ground, &vpc).await;
}

async fn completed(ground: &Ground, kind: &Subject, name: &str, state: &impl serde::Serialize) -> Found {
    let want = new(&at(name), state);
    let half = super::only(ground, kind, &want.address).await;
    let changes = super::changes(kind, &want, &half);
    assert!(!changes.is_empty(), "{name} is half made");
    kind.update(&half, &want, &changes).await.unwrap();
    super::same(ground, kind, &want).await
}

/// The next generation exists beside the one that it replaces.
async fn replacement(ground: &Ground) {
    let (groups, templates) = (on(SecurityGroup, &ground.aws), on(LaunchTemplate, &ground.aws));
    let vpc = a_vpc(ground).await;
    let group = serde_json::to_value(group_state(ground, &vpc.id, "group")).unwrap();
    let template = serde_json::to_value(template_state(ground, "nodes", &[])).unwrap();
    for (kind, name, state) in [(&groups, "group", group), (&templates, "nodes", template)] {
        assert!(kind.facts.create_before_destroy());
        let first = new(&at(name), &state);
        let second = New { generation: 2, ..new(&at(name), &state) };
        kind.create(&first).await.unwrap();
        assert!(super::find(kind, &super::handle(&second, "")).await.is_none(), "{name}: that is the first");
        let made = kind.create(&second).await.unwrap();
        assert_eq!(super::find(kind, &super::handle(&second, "")).await.unwrap().id, made.id);
        let both = ground.observed(kind, &first.address).await;
        assert_eq!(both.len(), 2, "{both:#?}");
        for found in &both {
            assert_eq!(*found.state, state, "the name in the state is without generation");
            ground.unmake(kind, found).await;
        }
    }
    no_vpc(ground, &vpc).await;
}

/// For APIs with client tokens, a repeated create call makes no second resource.
async fn same_token(ground: &Ground) {
    let (nats, tables) = (on(NatGateway, &ground.aws), on(RouteTable, &ground.aws));
    let (endpoints, templates) = (on(VpcEndpoint, &ground.aws), on(LaunchTemplate, &ground.aws));
    let (gateways, ips) = (on(InternetGateway, &ground.aws), on(ElasticIp, &ground.aws));
    let vpc = a_vpc(ground).await;
    let gateway = internet_gateway::State { vpc: vpc.id.clone(), tags: ground.tags(&at("gateway")) };
    let gateway = ground.make(&gateways, &at("gateway"), &gateway).await;
    let subnet = a_subnet(ground, &vpc.id, 0).await;
    let ip = ground.make(&ips, &at("ip"), &elastic_ip::State { tags: ground.tags(&at("ip")) }).await;

    let table = route_table::State {
        others: None,
        vpc: vpc.id.clone(),
        routes: vec![Route { destination: "0.0.0.0/0".to_owned(), target: gateway.id.clone() }],
        subnets: vec![],
        main: false,
        tags: ground.tags(&at("routes")),
    };
    let table = twice(ground, &tables, "routes", &table).await;
    let nat =
        nat_gateway::State { subnet: subnet.id.clone(), allocation: ip.id.clone(), tags: ground.tags(&at("nat")) };
    let nat = twice(ground, &nats, "nat", &nat).await;
    let endpoint = vpc_endpoint::State {
        vpc: vpc.id.clone(),
        service: "com.amazonaws.us-east-1.s3".to_owned(),
        kind: "Gateway".to_owned(),
        policy: json!({
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}],
        }),
        route_tables: vec![table.id.clone()],
        subnets: vec![],
        security_groups: vec![],
        private_dns: false,
        tags: ground.tags(&at("s3")),
    };
    let endpoint = twice(ground, &endpoints, "s3", &endpoint).await;
    let template = twice(ground, &templates, "nodes", &template_state(ground, "nodes", &[])).await;

    ground.unmake(&templates, &template).await;
    ground.unmake(&endpoints, &endpoint).await;
    ground.unmake(&nats, &nat).await;
    ground.unmake(&tables, &table).await;
    ground.unmake(&ips, &ip).await;
    no_subnets(ground, &[subnet]).await;
    ground.unmake(&gateways, &gateway).await;
    no_vpc(ground, &vpc).await;
}

async fn twice(ground: &Ground, kind: &Subject, name: &str, state: &impl serde::Serialize) -> Found {
    let want = new(&at(name), state);
    let first = kind.create(&want).await.unwrap();
    let second = kind.create(&want).await.unwrap_or_else(|e| panic!("{name} is made twice: {e}"));
    assert_eq!(first.id, second.id, "{name} is made twice");
    ground.ready(kind, &want, &first.id).await;
    super::same(ground, kind, &want).await
}

/// The release of an address that is still in use is tried again later.
async fn ip_in_use(ground: &Ground) {
    let (nats, ips) = (on(NatGateway, &ground.aws), on(ElasticIp, &ground.aws));
    let gateways = on(InternetGateway, &ground.aws);
    let vpc = a_vpc(ground).await;
    let gateway = internet_gateway::State { vpc: vpc.id.clone(), tags: ground.tags(&at("gateway")) };
    let gateway = ground.make(&gateways, &at("gateway"), &gateway).await;
    let subnet = a_subnet(ground, &vpc.id, 0).await;
    let ip = ground.make(&ips, &at("ip"), &elastic_ip::State { tags: ground.tags(&at("ip")) }).await;
    let nat =
        nat_gateway::State { subnet: subnet.id.clone(), allocation: ip.id.clone(), tags: ground.tags(&at("nat")) };
    let nat = ground.make(&nats, &at("nat"), &nat).await;

    let error = ips.delete(&ip).await.expect_err("a NAT gateway has it");
    assert_eq!(error.class, Class::Conflict, "{error}");
    let error = gateways.delete(&gateway).await.expect_err("a public address needs it");
    assert_eq!(error.class, Class::Conflict, "{error}");
    ground.unmake(&nats, &nat).await;
    ground.unmake(&ips, &ip).await;
    no_subnets(ground, &[subnet]).await;
    ground.unmake(&gateways, &gateway).await;
    no_vpc(ground, &vpc).await;
}

/// The error of a deletion names the resource that blocks it. Leftovers of our own clusters don't block it.
async fn held_by_others(ground: &Ground) {
    let (groups, subnets) = (on(SecurityGroup, &ground.aws), on(Subnet, &ground.aws));
    let vpc = a_vpc(ground).await;
    let subnet = a_subnet(ground, &vpc.id, 0).await;
    let group = a_group(ground, &vpc.id, "group").await;
    let interface = async |description: &str| {
        let call = ground.aws.ec2.create_network_interface().subnet_id(&subnet.id).groups(&group.id);
        let made = call.description(description).send().await.unwrap();
        made.network_interface().unwrap().network_interface_id().unwrap().to_owned()
    };
    let (left_over, holding) = (interface("aws-K8S-i-0123456789abcdef0").await, interface("of the shop").await);

    for (kind, found) in [(&groups, &group), (&subnets, &subnet)] {
        let error = kind.delete(found).await.expect_err("it is in use").to_string();
        assert!(error.contains(&holding) && error.contains("of the shop"), "{error}");
        assert!(!error.contains(&left_over), "{error}");
    }
    ground.aws.ec2.delete_network_interface().network_interface_id(&holding).send().await.unwrap();
    interface("aws-K8S-i-0fedcba9876543210").await;

    let peer = security_group::State {
        ingress: vec![permission("tcp", 443, 443, &group.id, "")],
        ..group_state(ground, &vpc.id, "peer")
    };
    let peer = ground.make(&groups, &at("peer"), &peer).await;
    let error = groups.delete(&group).await.expect_err("another group's rule names it").to_string();
    assert!(error.contains(&peer.id), "{error}");
    ground.unmake(&groups, &peer).await;
    ground.unmake(&groups, &group).await;
    no_subnets(ground, &[subnet]).await;
    no_vpc(ground, &vpc).await;
}

/// A resource with a name of ours but without our tags is named, with the command to adopt it. After that command it is
/// ours.
async fn foreign_names(ground: &Ground) {
    let (groups, templates) = (on(SecurityGroup, &ground.aws), on(LaunchTemplate, &ground.aws));
    let vpc = a_vpc(ground).await;
    let group = group_state(ground, &vpc.id, "group");
    let template = template_state(ground, "nodes", &[]);
    let call = ground.aws.ec2.create_security_group().group_name(&group.name).vpc_id(&vpc.id);
    let group_id = call.description("mine").send().await.unwrap().group_id().unwrap().to_owned();
    let data = RequestLaunchTemplateData::builder().key_name("mine").build();
    let tag = TagSpecification::builder()
        .resource_type(ResourceType::LaunchTemplate)
        .tags(Tag::builder().key("of").value("mine").build())
        .build();
    let call = ground.aws.ec2.create_launch_template().launch_template_name(&template.name).tag_specifications(tag);
    let made = call.launch_template_data(data).send().await.unwrap();
    let template_id = made.launch_template().unwrap().launch_template_id().unwrap().to_owned();

    let cases = [
        (&groups, "group", Packed::of(&group).unwrap(), &group_id),
        (&templates, "nodes", Packed::of(&template).unwrap(), &template_id),
    ];
    for (kind, name, state, id) in cases {
        let wanted = [Wanted { address: Address::new(at(name)), state: state.clone() }];
        let observation = kind.observe(&Round::default(), &wanted).await.unwrap();
        assert!(observation.found.iter().all(|f| f.id != *id));
        let [foreign] = observation.foreign.as_slice() else { panic!("{:#?}", observation.foreign) };
        assert_eq!((&foreign.id, foreign.address.as_str()), (id, at(name).as_str()));

        if !ground.has(TEMPLATE_TAGS) && kind.facts.name() == launch_template::NAME {
            continue;
        }
        let words = foreign.message.split([' ', '`']).filter(|w| w.starts_with("Key="));
        let tags = words.map(|w| {
            let (key, value) = w.trim_start_matches("Key=").split_once(",Value=").unwrap();
            Tag::builder().key(key).value(value).build()
        });
        ground.aws.ec2.create_tags().resources(id).set_tags(Some(tags.collect())).send().await.unwrap();
        let observation = kind.observe(&Round::default(), &wanted).await.unwrap();
        assert!(observation.foreign.is_empty());
        let adopted = observation.found.iter().find(|f| f.id == *id).expect("adopted");
        assert_eq!(adopted.generation, 1);
        ground.unmake(kind, adopted).await;
    }
    assert!(groups.create(&new(&at("x"), &json!({}))).await.is_err(), "a wrong state is an error");
    no_vpc(ground, &vpc).await;
}
