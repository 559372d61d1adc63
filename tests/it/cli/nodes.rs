//! Changes of nodes, and what the plan says about them before.

use aws_sdk_eks::types::NodegroupScalingConfig;
use http::Method;
use ringfence::k8s::client::Call;
use ringfence::k8s::{Clusters, Target};

use super::*;

const CLUSTER: &str = "solo-t-globex";
const GROUP: &str = "t-globex";
const ADDRESS: &str = "tenant/globex/silo/node-group";
const SIZES: &str = "min: 2, max: 3, desired: 2";

/// The notes of a plan that hold `text`.
fn notes<'p>(plan: &'p Value, what: &str) -> Vec<&'p str> {
    list(&plan["notes"]).iter().map(text).filter(|note| note.contains(what)).collect()
}

/// The group as EKS describes it.
fn group(estate: &Estate) -> aws_sdk_eks::types::Nodegroup {
    estate.sandbox(async |aws, _| described(aws).await)
}

async fn described(aws: &Aws) -> aws_sdk_eks::types::Nodegroup {
    let call = aws.eks.describe_nodegroup().cluster_name(CLUSTER).nodegroup_name(GROUP);
    call.send().await.unwrap().nodegroup.unwrap()
}

/// Changes the size of the group, as the autoscaler or a person does.
fn resize(estate: &Estate, nodes: i32) {
    estate.sandbox(async |aws, _| {
        let size = NodegroupScalingConfig::builder().min_size(2).max_size(3).desired_size(nodes).build();
        let call = aws.eks.update_nodegroup_config().cluster_name(CLUSTER).nodegroup_name(GROUP).scaling_config(size);
        call.send().await.unwrap();
        while described(aws).await.scaling_config.unwrap().desired_size() != Some(nodes) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn nodes_with_fips_join_where_no_fips_endpoint_answers() {
    // FIPS endpoints don't exist outside of the US and Canada. The other case, without a way to the internet, is the
    // example `regulated`, which another test applies.
    let estate = Estate::new(&SINGLE_SILO);
    estate.edit("nodes: {instanceTypes", "nodes: {fips: true, instanceTypes");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(group(&estate).ami_type().unwrap().as_str(), "BOTTLEROCKET_x86_64_FIPS");
}

#[test]
fn nodes_removed_by_a_lower_maximum_are_noted() {
    let estate = Estate::applied(&SINGLE_SILO);
    resize(&estate, 3);
    estate.edit(SIZES, "min: 1, max: 1, desired: 1");
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [format!("update {ADDRESS}")]);
    let wanted = format!(
        "{ADDRESS}: the group has 3 nodes, but the maximum is 1: EKS removes 2 nodes and evicts the pods there"
    );
    assert_eq!(notes(&plan, "evicts"), [wanted]);
    // EKS refuses a maximum below the desired size, so both are lowered together.
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let sizes = group(&estate).scaling_config.unwrap();
    assert_eq!((sizes.min_size(), sizes.max_size(), sizes.desired_size()), (Some(1), Some(1), Some(1)));
    assert_eq!(steps(&estate.plan(&[])), [""; 0]);
}

#[test]
fn nodes_started_by_a_higher_minimum_are_noted() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit(SIZES, "min: 3, max: 3, desired: 3");
    let plan = estate.plan(&[]);
    let wanted = format!("{ADDRESS}: the group has 2 nodes, but the minimum is 3: EKS starts 1 node");
    assert_eq!(notes(&plan, "the minimum is"), [wanted]);
    assert!(notes(&plan, "`desired` is used only").is_empty(), "it becomes what is asked for: {plan:#}");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(group(&estate).scaling_config.unwrap().desired_size(), Some(3));
}

#[test]
fn a_changed_desired_size_is_a_note() {
    let estate = Estate::applied(&SINGLE_SILO);
    assert!(notes(&estate.plan(&[]), "`desired`").is_empty());
    estate.edit(SIZES, "min: 2, max: 3, desired: 3");
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [""; 0]);
    let [note] = notes(&plan, "`desired` is used only when a node group is created")[..] else { panic!("{plan:#}") };
    assert!(note.ends_with(&format!("{ADDRESS} has 2, not 3")), "{note}");
    let drift = estate.run(&["drift"]).exits(0);
    assert!(drift.out.contains("`desired` is used only"), "{}", drift.out);
}

#[test]
fn a_replaced_group_evicts_its_pods() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("instanceTypes: [m7i.large]", "instanceTypes: [m7i.xlarge]");
    let plan = estate.plan(&[]);
    let wanted = format!("{ADDRESS}: a new node group replaces the old one, and the pods on the old nodes are evicted");
    assert_eq!(notes(&plan, "evicted"), [wanted]);
}

#[test]
fn a_budget_that_stops_an_update_of_nodes_is_named() {
    let estate = Estate::applied(&SINGLE_SILO);
    let served = Served::start(&estate, None);
    let aws = served.aws();
    served.runtime.block_on(async {
        let cluster = aws.eks.describe_cluster().name(CLUSTER).send().await.unwrap().cluster.unwrap();
        let clusters = Clusters::new(aws.clone(), BTreeMap::new());
        let authority = cluster.certificate_authority().and_then(|a| a.data()).unwrap();
        let target =
            Target { cluster: CLUSTER, endpoint: cluster.endpoint().unwrap(), certificate_authority: authority };
        let api = clusters.get(target).await.unwrap();
        for (name, allowed) in [("ledger", 0), ("web", 1)] {
            let budget = serde_json::json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": name, "namespace": "t-globex"},
                "status": {"disruptionsAllowed": allowed, "expectedPods": 2},
            });
            let path = "/apis/policy/v1/namespaces/t-globex/poddisruptionbudgets";
            let body = Some(("application/json", budget.to_string().into_bytes()));
            api.call(&Call { method: Method::POST, body, ..Call::get("create", path) }).await.unwrap();
        }
    });
    // Source of DescribeUpdate's answer: EKS user guide, "Understand each phase of node updates".
    let because = "{code: PodEvictionFailure, message: Reached max retries while trying to evict pods from nodes}";
    let script = format!("resources: [{{kind: eks:nodegroup, during: update, ends: Failed, because: {because}}}]");
    served.server.set_faults(Script::parse(&script).unwrap());
    estate.edit("nodes: {instanceTypes", "nodes: {podPidsLimit: 512, instanceTypes");
    let run = against(&served.url(), &mut estate.bare(&["apply", "--auto-approve"])).exits(1);
    let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "PodEvictionFailure: Reached max retries",
        "these PodDisruptionBudgets allow no eviction now: t-globex/ledger;",
        "ringfence never forces an eviction",
    ] {
        assert!(said.contains(part), "{part}: {}", run.out);
    }
}

/// A node group that was made months ago, with an older release.
fn on_release(estate: &Estate, release: &str) {
    let state = fs::read_to_string(estate.state()).unwrap();
    let newest = "\"releaseVersion\":\"1.66.0-2d3f4b6c\"";
    assert!(state.contains(newest), "the sandbox's newest image");
    fs::write(estate.state(), state.replace(newest, &format!("\"releaseVersion\":\"{release}\""))).unwrap();
}

#[test]
fn images_older_than_the_newest_are_a_note_until_an_upgrade_takes_them() {
    let estate = Estate::applied(&SINGLE_SILO);
    assert!(notes(&estate.plan(&[]), "image").is_empty());
    on_release(&estate, "1.63.0-7bb1c0d2");
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [""; 0]);
    let wanted = format!(
        "{ADDRESS}, tenant/globex/silo/node-group/system: the nodes keep image release 1.63.0-7bb1c0d2, and the newest is 1.66.0-2d3f4b6c; --upgrade installs it if the spec sets no `releaseVersion`"
    );
    assert_eq!(notes(&plan, "image release"), [wanted]);
    let drift = estate.run(&["drift"]).exits(0);
    assert!(drift.out.contains("the newest is 1.66.0-2d3f4b6c"), "{}", drift.out);

    let plan = estate.plan(&["--upgrade"]);
    assert_eq!(
        steps(&plan).into_iter().collect::<BTreeSet<_>>(),
        [format!("update {ADDRESS}"), "update tenant/globex/silo/node-group/system".to_owned()].into()
    );
    assert_eq!(list(&plan["steps"][0]["changes"])[0]["path"], "release_version");
    assert!(!notes(&plan, "evicts their pods").is_empty(), "{plan:#}");
    estate.run(&["apply", "--auto-approve", "--upgrade"]).exits(0);
    assert_eq!(group(&estate).release_version(), Some("1.66.0-2d3f4b6c"));
    assert_eq!(steps(&estate.plan(&["--upgrade"])), [""; 0]);
}

#[test]
fn another_change_of_nodes_leaves_their_image() {
    let estate = Estate::applied(&SINGLE_SILO);
    on_release(&estate, "1.63.0-7bb1c0d2");
    estate.edit("nodes: {instanceTypes", "nodes: {podPidsLimit: 512, instanceTypes");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(group(&estate).release_version(), Some("1.63.0-7bb1c0d2"));
}

#[test]
fn unsafe_images_are_replaced_without_upgrade() {
    let estate = Estate::applied(&SINGLE_SILO);
    on_release(&estate, "1.61.0-5ce1a8b6");
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan).len(), 2, "{plan:#}");
    let change = &list(&plan["steps"][0]["changes"])[0];
    assert_eq!((text(&change["before"]), text(&change["after"])), ("1.61.0-5ce1a8b6", "1.66.0-2d3f4b6c"));
    let drift = estate.run(&["drift"]).exits(2);
    assert!(drift.out.contains("release_version"), "{}", drift.out);
}

#[test]
fn nodes_get_the_release_of_the_spec() {
    let estate = Estate::new(&SINGLE_SILO);
    estate.edit("nodes: {instanceTypes", "nodes: {releaseVersion: 1.62.1-e1d1c9a5, instanceTypes");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let made = group(&estate);
    assert_eq!(made.release_version(), Some("1.62.1-e1d1c9a5"));
    assert_eq!(made.node_repair_config().and_then(|r| r.enabled()), Some(true));
    assert_eq!(steps(&estate.plan(&["--upgrade"])), [""; 0], "the pin holds");
    assert_eq!(notes(&estate.plan(&[]), "the newest is 1.66.0-2d3f4b6c").len(), 1);
    estate.edit("1.62.1-e1d1c9a5", "1.63.0-7bb1c0d2");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(group(&estate).release_version(), Some("1.63.0-7bb1c0d2"));
    // EKS can't go back to an older release (EKS API, UpdateNodegroupVersion). All other steps go on.
    estate.edit("1.63.0-7bb1c0d2", "1.62.1-e1d1c9a5");
    estate.edit("max: 3", "max: 4");
    let run = estate.run(&["apply", "--auto-approve"]).exits(1);
    let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    let refusal =
        "the nodes run image release 1.63.0-7bb1c0d2, and EKS can't roll a node group back to the older release 1.62.1";
    assert!(said.contains(refusal) && said.contains("or later"), "{said}");
    let group = group(&estate);
    assert_eq!(group.release_version(), Some("1.63.0-7bb1c0d2"));
    assert_eq!(group.scaling_config().and_then(|s| s.max_size()), Some(4));
}

#[test]
fn in_china_node_repair_is_not_sent() {
    let estate = Estate::new(&SINGLE_SILO);
    estate.edit("region: eu-central-1", "region: cn-north-1");
    estate.edit("arn:aws:iam::", "arn:aws-cn:iam::");
    let plan = estate.plan(&[]);
    let of = |kind: &str| {
        list(&plan["steps"])
            .iter()
            .filter(|s| s["kind"] == kind)
            .map(|s| s["state"]["repair"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("aws.node-group"), [Value::Null, Value::Null]);
}

/// Values of a tag of the instances, volumes and interfaces of the group, by id.
async fn tagged(aws: &Aws, key: &str) -> BTreeMap<String, Option<String>> {
    let value = |tags: &[aws_sdk_ec2::types::Tag]| {
        tags.iter().find(|t| t.key() == Some(key)).and_then(|t| t.value()).map(str::to_owned)
    };
    let filter = |name: &str, value: &str| aws_sdk_ec2::types::Filter::builder().name(name).values(value).build();
    let call = aws.ec2.describe_instances().filters(filter("tag:eks:nodegroup-name", GROUP));
    let mut all = BTreeMap::new();
    for instance in call.send().await.unwrap().reservations().iter().flat_map(|r| r.instances()) {
        let id = instance.instance_id().unwrap();
        all.insert(id.to_owned(), value(instance.tags()));
        let volumes = aws.ec2.describe_volumes().filters(filter("attachment.instance-id", id)).send().await.unwrap();
        all.extend(volumes.volumes().iter().map(|v| (v.volume_id().unwrap().to_owned(), value(v.tags()))));
        for interface in instance.network_interfaces() {
            let id = interface.network_interface_id().unwrap();
            let found = aws.ec2.describe_network_interfaces().network_interface_ids(id).send().await.unwrap();
            all.insert(id.to_owned(), value(found.network_interfaces()[0].tag_set()));
        }
    }
    all
}

#[test]
fn a_changed_tag_reaches_the_nodes_and_replaces_none() {
    let estate = Estate::new(&SINGLE_SILO);
    estate.edit("  access:", "  tags: {cost-center: saas, team: blue}\n  access:");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let before = estate.sandbox(async |aws, _| tagged(aws, "cost-center").await);
    assert!(before.len() >= 8 && before.values().all(|v| v.as_deref() == Some("saas")), "{before:#?}");

    estate.edit("{cost-center: saas, team: blue}", "{cost-center: ops}");
    let plan = estate.plan(&[]);
    assert!(notes(&plan, "evict").is_empty(), "{plan:#}");
    let group_step = list(&plan["steps"]).iter().find(|s| s["address"] == ADDRESS).unwrap();
    let paths: BTreeSet<&str> = list(&group_step["changes"]).iter().map(|c| text(&c["path"])).collect();
    let wanted = ["instance_tags.cost-center", "instance_tags.team", "tags.cost-center", "tags.team"];
    assert_eq!(paths, wanted.into());
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let (costs, teams, made) = estate
        .sandbox(async |aws, _| (tagged(aws, "cost-center").await, tagged(aws, "team").await, described(aws).await));
    assert!(costs.keys().eq(before.keys()), "the same nodes: {before:#?} {costs:#?}");
    assert!(costs.values().all(|v| v.as_deref() == Some("ops")), "{costs:#?}");
    assert!(teams.values().all(Option::is_none), "{teams:#?}");
    assert_eq!(made.launch_template.unwrap().version(), Some("1"), "EKS replaces nodes for any other version");
    assert_eq!(steps(&estate.plan(&[])), [""; 0]);

    // A node that starts now gets the old tags, because the group still has the old version of the launch template.
    resize(&estate, 3);
    estate.sandbox(async |aws, _| {
        let one = costs.keys().find(|id| id.starts_with("i-")).unwrap();
        let tag = aws_sdk_ec2::types::Tag::builder().key("cost-center").value("saas").build();
        aws.ec2.create_tags().resources(one).tags(tag).send().await.unwrap();
    });
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [format!("update {ADDRESS}")]);
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let costs = estate.sandbox(async |aws, _| tagged(aws, "cost-center").await);
    assert!(costs.values().all(|v| v.as_deref() == Some("ops")), "{costs:#?}");

    // The group gets the newest version when its nodes are replaced for another reason.
    estate.edit("nodes: {instanceTypes", "nodes: {podPidsLimit: 512, instanceTypes");
    let plan = estate.plan(&[]);
    assert_eq!(notes(&plan, "evicts their pods").len(), 1);
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(group(&estate).launch_template.unwrap().version(), Some("3"));
    assert_eq!(steps(&estate.plan(&[])), [""; 0]);
}

#[test]
fn a_replacement_of_nodes_applies_pending_tags() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("  access:", "  tags: {cost-center: ops}\n  access:");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(group(&estate).launch_template.unwrap().version(), Some("1"));
    on_release(&estate, "1.63.0-7bb1c0d2");
    estate.run(&["apply", "--auto-approve", "--upgrade"]).exits(0);
    assert_eq!(group(&estate).launch_template.unwrap().version(), Some("2"));
}

#[test]
fn a_replaced_group_starts_with_the_tags_of_the_same_plan() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("  access:", "  tags: {cost-center: ops}\n  access:");
    estate.edit("instanceTypes: [m7i.large]", "instanceTypes: [m7i.xlarge]");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    let template = estate.sandbox(async |aws, _| {
        let groups = aws.eks.list_nodegroups().cluster_name(CLUSTER).send().await.unwrap().nodegroups.unwrap();
        let name = groups.into_iter().find(|name| name.starts_with(GROUP)).unwrap();
        let call = aws.eks.describe_nodegroup().cluster_name(CLUSTER).nodegroup_name(name);
        call.send().await.unwrap().nodegroup.unwrap().launch_template.unwrap()
    });
    assert_eq!(template.version(), Some("2"));
    assert_eq!(steps(&estate.plan(&[])), [""; 0]);
}
