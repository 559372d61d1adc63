//! Changes by hand: the plan names each field, and the next apply reverts them.

use aws_sdk_ec2::types::{
    AttributeBooleanValue, IpPermission, IpRange, LaunchTemplateInstanceMetadataOptionsRequest,
    RequestLaunchTemplateData, Tag,
};
use aws_sdk_eks::types::{
    AccessScope, AccessScopeType, NodegroupScalingConfig, Taint, TaintEffect, UpdateTaintsPayload, VpcConfigRequest,
};
use ringfence::engine::address::Address;
use ringfence::engine::plan::Action;

use super::*;

/// `address: field` of each change.
fn changes(plan: &Plan) -> Vec<String> {
    let updates = plan.steps.iter().filter(|s| s.action == Action::Update);
    let all = updates.flat_map(|s| s.changes.iter().map(|c| format!("{}: {}", s.address, c.path)));
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one list of all that is changed by hand")]
async fn changes_by_hand_are_named_and_reverted() {
    let spec = three_tiers();
    let (calm, ground) = (Ground::new(&spec), Ground::new(&spec));
    calm.undisturbed(&apply()).await;
    ground.undisturbed(&apply()).await;
    let session = ground.session().await.unwrap();
    let (look, _) = session.plan(&apply(), false).await.unwrap();
    let found = |address: &str| look.observed.current(&Address::new(address)).unwrap_or_else(|| panic!("{address}"));
    let id = |address: &str| found(address).id.clone();
    let field = |address: &str, field: &str| found(address).state[field].as_str().unwrap().to_owned();
    let aws = session.aws.clone();
    let silo = |what: &str| format!("tenant/12345/silo/{what}");
    let mut wanted: Vec<(String, &str)> = Vec::new();

    // An ingress rule to the tenant's nodes.
    let group = silo("security-group");
    let open = IpRange::builder().cidr_ip("0.0.0.0/0").build();
    let rule = IpPermission::builder().ip_protocol("tcp").from_port(22).to_port(22).ip_ranges(open).build();
    let call = aws.ec2.authorize_security_group_ingress().group_id(id(&group)).ip_permissions(rule);
    call.send().await.unwrap();
    wanted.push((group, "ingress"));

    // A route that doesn't use the NAT gateway.
    let table = silo("route-table/private-a");
    let gateway = id(&silo("internet-gateway"));
    let call = aws.ec2.create_route().route_table_id(id(&table)).destination_cidr_block("198.51.100.0/24");
    call.gateway_id(gateway).send().await.unwrap();
    wanted.push((table, "routes"));

    let subnet = silo("subnet/private-a");
    let yes = AttributeBooleanValue::builder().value(true).build();
    let call = aws.ec2.modify_subnet_attribute().subnet_id(id(&subnet)).map_public_ip_on_launch(yes);
    call.send().await.unwrap();
    wanted.push((subnet, "public_ip_on_launch"));

    let vpc = silo("vpc");
    let no = AttributeBooleanValue::builder().value(false).build();
    let call = aws.ec2.modify_vpc_attribute().vpc_id(id(&vpc)).enable_dns_hostnames(no);
    call.send().await.unwrap();
    wanted.push((vpc.clone(), "dns_hostnames"));
    aws.ec2
        .delete_tags()
        .resources(id(&vpc))
        .tags(Tag::builder().key("ringfence.dev/tenant").build())
        .send()
        .await
        .unwrap();
    wanted.push((vpc, "tags"));

    // A policy that gives nodes more permissions.
    let role = silo("role/nodes");
    let call = aws.iam.attach_role_policy().role_name(id(&role));
    call.policy_arn("arn:aws:iam::aws:policy/AdministratorAccess").send().await.unwrap();
    wanted.push((role.clone(), "attached"));
    let all = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
    let call = aws.iam.put_role_policy().role_name(id(&role)).policy_name("theirs").policy_document(all);
    call.send().await.unwrap();
    wanted.push((role.clone(), "inline"));
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;
    let call = aws.iam.update_assume_role_policy().role_name(id(&role)).policy_document(trust);
    call.send().await.unwrap();
    wanted.push((role, "trust"));

    let key = silo("key");
    aws.kms.disable_key_rotation().key_id(id(&key)).send().await.unwrap();
    wanted.push((key, "rotation"));

    let logs = silo("log-group/cluster");
    aws.logs.put_retention_policy().log_group_name(id(&logs)).retention_in_days(1).send().await.unwrap();
    wanted.push((logs, "retention"));

    // The nodes lose their taint, so pods of any tenant could run there.
    let nodes = "tenant/23456/pool/shared-1/node-group".to_owned();
    let (cluster, name) = (field(&nodes, "cluster"), found(&nodes).outputs["name"].clone());
    let taints = found(&nodes).state["taints"].as_array().unwrap().clone();
    let taint = Taint::builder()
        .key(taints[0]["key"].as_str().unwrap())
        .value(taints[0]["value"].as_str().unwrap())
        .effect(TaintEffect::from(taints[0]["effect"].as_str().unwrap()))
        .build();
    let call = aws.eks.update_nodegroup_config().cluster_name(&cluster).nodegroup_name(&name);
    call.taints(UpdateTaintsPayload::builder().remove_taints(taint).build()).send().await.unwrap();
    ground.server.advance(600.0);
    let scaling = NodegroupScalingConfig::builder().max_size(99).build();
    let call = aws.eks.update_nodegroup_config().cluster_name(&cluster).nodegroup_name(&name);
    call.scaling_config(scaling).send().await.unwrap();
    wanted.extend([(nodes.clone(), "taints"), (nodes, "max")]);

    // The API server becomes public.
    let shared = "pool/shared-1/cluster".to_owned();
    let open = VpcConfigRequest::builder().endpoint_public_access(true).build();
    let call = aws.eks.update_cluster_config().name(id(&shared)).resources_vpc_config(open);
    call.send().await.unwrap();
    wanted.push((shared.clone(), "endpoint_public"));

    // Users of a tenant become administrators of the shared cluster.
    let entry = look.observed.found.keys().find(|a| a.as_str().starts_with("tenant/23456/pool/shared-1/access"));
    if let Some(entry) = entry.map(ToString::to_string) {
        let scope = AccessScope::builder().r#type(AccessScopeType::Cluster).build();
        let policy = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy";
        let call =
            aws.eks.associate_access_policy().cluster_name(id(&shared)).principal_arn(field(&entry, "principal"));
        call.policy_arn(policy).access_scope(scope).send().await.unwrap();
        wanted.push((entry, "policies"));
    }

    // New nodes give their role's credentials to every pod (IMDS hop limit).
    let template = silo("launch-template");
    let options = LaunchTemplateInstanceMetadataOptionsRequest::builder().http_put_response_hop_limit(2).build();
    let data = RequestLaunchTemplateData::builder().metadata_options(options).build();
    let call = aws.ec2.create_launch_template_version().launch_template_id(id(&template)).source_version("1");
    let made = call.launch_template_data(data).send().await.unwrap();
    let version = made.launch_template_version().unwrap().version_number().unwrap();
    let call = aws.ec2.modify_launch_template().launch_template_id(id(&template));
    call.default_version(version.to_string()).send().await.unwrap();
    wanted.push((template, "hop_limit"));

    let endpoint = silo("endpoint/sts");
    let open =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}"#;
    let call = aws.ec2.modify_vpc_endpoint().vpc_endpoint_id(id(&endpoint)).policy_document(open);
    call.send().await.unwrap();
    wanted.push((endpoint, "policy"));
    ground.server.advance(1200.0);

    let session = ground.session().await.unwrap();
    let (_, plan) = session.plan(&apply(), false).await.unwrap();
    let seen = changes(&plan);
    for (address, field) in &wanted {
        let named = |change: &String| change.starts_with(&format!("{address}: ")) && change.contains(field);
        assert!(seen.iter().any(named), "{address}: {field} isn't in {seen:#?}");
    }
    let touched: std::collections::BTreeSet<&str> = plan.steps.iter().map(|s| s.address.as_str()).collect();
    // The node group changes with its launch template.
    let follows = "tenant/12345/silo/node-group";
    let others: Vec<_> = touched
        .iter()
        .filter(|a| **a != follows)
        .filter(|a| !wanted.iter().any(|(address, _)| address == *a))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    // The changes are reverted even if each answer is lost once.
    ground.faults("faults: [{only: changes, first: true, after: drop}]");
    ground.undisturbed(&apply()).await;
    ground.faults("{}");
    let (_, after) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
    assert!(after.is_empty(), "{:?}", changes(&after));
    let mut differences = calm.estate().differences(&ground.estate());
    // Old versions of a launch template and EKS's records of updates stay.
    // Taints are a set without an order.
    let told = ["launch", "ersion", "/updates: ", "/taints/"];
    differences.retain(|line| !told.iter().any(|what| line.contains(what)));
    assert!(differences.is_empty(), "{differences:#?}");
    note(
        "a field changed by hand, in fourteen kinds; every answer to its undoing lost once",
        wanted.len(),
        "named in the plan, and as undisturbed after it",
    );
}
