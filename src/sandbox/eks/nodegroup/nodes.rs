//! The instances of a node group.

use super::super::super::ec2::NewInstance;
use super::super::super::wire::{items, texts};
use super::super::{Cluster, World};
use serde_json::Value;

pub(super) fn owner(cluster: &str, group: &str) -> String {
    format!("eks/{cluster}/{group}")
}

pub(super) fn instance_profile(body: &Value) -> String {
    let arn = body["nodegroupArn"].as_str().unwrap_or_default();
    format!("eks-{}", arn.rsplit('/').next().unwrap_or_default())
}

/// Starts the nodes: the desired number, but at most one in each subnet. They carry the launch template's security
/// groups, or else the cluster's.
pub(super) fn attach(w: &mut World<'_>, cluster: &Cluster, body: &Value) {
    let name = body["nodegroupName"].as_str().unwrap_or_default();
    let id = body["launchTemplate"]["id"].as_str().unwrap_or_default();
    let version = body["launchTemplate"]["version"].as_str().unwrap_or_default();
    let data = w.here.ec2.launch_template(id, version).map(|template| template.data).unwrap_or_default();
    let interfaces = items(&data, "networkInterfaceSet").iter();
    let mut groups = texts(&data, "securityGroupIdSet");
    groups.extend(interfaces.flat_map(|one| texts(one, "groupSet")));
    if groups.is_empty() {
        groups.push(cluster.security_group.clone());
    }
    let types = texts(body, "instanceTypes");
    let kind = types.first().map(String::as_str).or(data["instanceType"].as_str()).unwrap_or_default();
    // Tags that EKS and Auto Scaling set (the policy AWSServiceRoleForAmazonEKSNodegroup checks the first two).
    let cluster_name = cluster.name();
    let tags = [
        ("eks:cluster-name".to_owned(), cluster_name.to_owned()),
        ("eks:nodegroup-name".to_owned(), name.to_owned()),
        ("aws:eks:cluster-name".to_owned(), cluster_name.to_owned()),
        (format!("kubernetes.io/cluster/{cluster_name}"), "owned".to_owned()),
    ];
    let owner = owner(cluster_name, name);
    let have = w.here.ec2.instances(&owner);
    let nodes = body["scalingConfig"]["desiredSize"].as_u64().unwrap_or_default() as usize;
    let subnets = texts(body, "subnets");
    for (id, _) in have.iter().skip(nodes) {
        w.here.ec2.stop_instance(id);
    }
    let free = subnets.iter().filter(|subnet| !have.iter().any(|(_, taken)| taken == *subnet));
    for subnet in free.take(nodes.min(subnets.len()).saturating_sub(have.len())) {
        let new = NewInstance {
            account: w.account,
            region: w.region,
            subnet_id: subnet,
            groups: &groups,
            kind,
            owner: &owner,
            template: &data,
            tags: &tags,
        };
        // A full subnet gets no node: an Auto Scaling group would start it in another subnet.
        let _node = w.here.ec2.start_instance(w.ids, &new);
    }
}
