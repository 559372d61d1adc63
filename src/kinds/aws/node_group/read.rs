//! Node groups as EKS describes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_eks::types::{AmiTypes, Nodegroup, NodegroupStatus, NodegroupUpdateConfig, Taint as SdkTaint};

use super::facts::{CUSTOM, State, Taint};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::Tags;
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::engine::kind::{Found, Repair, Round, Status};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::aws::eks::{Live, gather, in_each, issues, listed, optional, tags_of};
use crate::kinds::aws::logical;

/// `control_plane`: the Kubernetes version of the cluster, if known.
pub(super) fn found(
    aws: &Aws,
    group: &Nodegroup,
    control_plane: Option<&str>,
    instance_tags: Tags,
) -> Result<Option<Found>> {
    let Some((address, generation)) = aws.owned(&tags_of(group.tags())) else {
        return Ok(None);
    };
    let name = group.nodegroup_name().unwrap_or_default();
    let arn = group.nodegroup_arn().unwrap_or_default();
    let mut state = State { instance_tags, ..observed(aws, group, generation) };
    if let Some(version) = control_plane.filter(|_| state.ami_type == CUSTOM) {
        state.version = version.to_owned();
    }
    Ok(Some(Found {
        address,
        generation,
        id: arn.to_owned(),
        outputs: outputs(name, arn),
        state: Packed::of(&state)?,
        status: status(group),
        refs: Vec::new(),
    }))
}

async fn names(aws: &Aws, cluster: &str) -> Result<Vec<String>> {
    let mut pages = aws.eks.list_nodegroups().cluster_name(cluster).into_paginator().items().send();
    let mut names = Vec::new();
    while let Some(name) = pages.next().await {
        names.push(name.map_err(failed("eks:ListNodegroups"))?);
    }
    Ok(names)
}

/// Every node group of our clusters, ours or not, read once a round.
pub async fn all(aws: &Aws, round: &Round) -> Result<Arc<Vec<(Live, Nodegroup)>>> {
    round
        .once("eks.node-groups", || async {
            let names = in_each(aws, round, |cluster| async move { names(aws, &cluster).await }).await?;
            let groups = gather(names, |(cluster, name)| async move {
                let group = listed(group(aws, &cluster.name, &name).await?, "eks:DescribeNodegroup", &name)?;
                Ok((cluster, group))
            });
            groups.await
        })
        .await
}

pub(super) async fn group(aws: &Aws, cluster: &str, name: &str) -> Result<Option<Nodegroup>> {
    let call = aws.eks.describe_nodegroup().cluster_name(cluster).nodegroup_name(name);
    let answer = optional(call.send().await.map_err(failed("eks:DescribeNodegroup")))?;
    Ok(answer.and_then(|o| o.nodegroup))
}

pub(super) fn observed(aws: &Aws, group: &Nodegroup, generation: u32) -> State {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let scaling = group.scaling_config();
    let template = group.launch_template();
    let mut subnets = group.subnets().to_vec();
    subnets.sort();
    let mut taints: Vec<Taint> = group.taints().iter().map(taint).collect();
    taints.sort();
    State {
        cluster: text(group.cluster_name()),
        name: logical(group.nodegroup_name().unwrap_or_default(), generation),
        role: text(group.node_role()),
        subnets,
        ami_type: text(group.ami_type().map(|t| t.as_str())),
        capacity_type: text(group.capacity_type().map(|t| t.as_str())),
        instance_types: group.instance_types().to_vec(),
        template: text(template.and_then(|t| t.id())),
        template_version: text(template.and_then(|t| t.version())),
        instance_tags: BTreeMap::new(),
        labels: tags_of(group.labels()),
        taints,
        min: scaling.and_then(|s| s.min_size()).unwrap_or_default(),
        max: scaling.and_then(|s| s.max_size()).unwrap_or_default(),
        desired: scaling.and_then(|s| s.desired_size()).unwrap_or_default(),
        max_unavailable: group.update_config().map(at_once).unwrap_or_default(),
        version: text(group.version()),
        release_version: group
            .release_version()
            .filter(|_| group.ami_type() != Some(&AmiTypes::Custom))
            .map(str::to_owned),
        repair: group.node_repair_config().and_then(|r| r.enabled()),
        tags: aws.observed(&tags_of(group.tags())),
    }
}

fn status(group: &Nodegroup) -> Status {
    let all = group.health().map(|h| h.issues()).unwrap_or_default();
    let text = |status: &NodegroupStatus| {
        if all.is_empty() {
            return status.as_str().to_owned();
        }
        let all = all.iter().map(|i| (i.code().map(|c| c.as_str()), i.message(), i.resource_ids()));
        format!("{}: {}", status.as_str(), issues(all))
    };
    match group.status() {
        Some(NodegroupStatus::Active) => Status::Ready,
        Some(NodegroupStatus::Deleting) => Status::Deleting,
        Some(s @ (NodegroupStatus::Creating | NodegroupStatus::Updating)) => Status::Pending(text(s)),
        Some(s @ (NodegroupStatus::CreateFailed | NodegroupStatus::DeleteFailed)) => {
            Status::Failed { why: text(s), repair: Repair::Replace }
        }
        Some(s) => Status::Failed { why: text(s), repair: Repair::Manual },
        None => Status::Pending("no status".to_owned()),
    }
}

fn taint(taint: &SdkTaint) -> Taint {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Taint { key: text(taint.key()), value: text(taint.value()), effect: text(taint.effect().map(|e| e.as_str())) }
}

fn at_once(config: &NodegroupUpdateConfig) -> String {
    match (config.max_unavailable_percentage(), config.max_unavailable()) {
        (Some(percentage), _) => format!("{percentage}%"),
        (None, count) => count.unwrap_or(1).to_string(),
    }
}

/// The images of our node groups, by address.
pub async fn images(aws: &Aws, round: &Round) -> Result<BTreeMap<Address, Image>> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let image = |group: &Nodegroup| {
        let (address, _) = aws.owned(&tags_of(group.tags()))?;
        let ami_type = text(group.ami_type().map(|t| t.as_str()));
        let (version, release) = (text(group.version()), text(group.release_version()));
        (ami_type != CUSTOM).then_some((address, Image { ami_type, version, release }))
    };
    Ok(all(aws, round).await?.iter().filter_map(|(_, group)| image(group)).collect())
}

/// An image published by AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub ami_type: String,
    /// Kubernetes minor version.
    pub version: String,
    pub release: String,
}

pub(super) fn outputs(name: &str, arn: &str) -> Outputs {
    Outputs::from([("name".to_owned(), name.to_owned()), ("arn".to_owned(), arn.to_owned())])
}
