//! The instances of node groups, and their tags.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Instance, InstanceNetworkInterface, Tag};

use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::Tags;
use crate::engine::error::Result;
use crate::kinds::aws::ec2;

/// The tags that EKS writes to the instances of a managed node group.
const CLUSTER_TAG: &str = "eks:cluster-name";
const GROUP_TAG: &str = "eks:nodegroup-name";

/// The number of resources that one call can tag (EC2 API, CreateTags: at most 1,000).
const TAGGED_AT_ONCE: usize = 500;

/// Instances of managed node groups of these clusters, by the tags that EKS writes to them (policy of the role
/// AWSServiceRoleForAmazonEKSNodegroup).
pub(super) async fn instances(aws: &Aws, clusters: BTreeSet<&str>) -> Result<Vec<Instance>> {
    let clusters: Vec<&str> = clusters.into_iter().collect();
    let mut all = Vec::new();
    for some in clusters.chunks(ec2::FILTER_VALUES) {
        let mut pages = aws
            .ec2
            .describe_instances()
            .filters(ec2::filter(&format!("tag:{CLUSTER_TAG}"), some.iter().copied()))
            .filters(ec2::filter("instance-state-name", ["pending", "running", "stopping", "stopped"]))
            .max_results(1000)
            .into_paginator()
            .items()
            .send();
        while let Some(reservation) = pages.next().await {
            all.extend(reservation.map_err(failed("ec2:DescribeInstances"))?.instances.unwrap_or_default());
        }
    }
    Ok(all)
}

pub(super) fn is_of(instance: &Instance, cluster: &str, group: &str) -> bool {
    let has = |key: &str, value: &str| instance.tags().iter().any(|t| t.key() == Some(key) && t.value() == Some(value));
    has(CLUSTER_TAG, cluster) && has(GROUP_TAG, group)
}

/// The instance and the resources launched with it. Resources attached later don't count: volumes of
/// PersistentVolumeClaims outlive the instance, and pods' interfaces aren't the primary interface.
fn parts(instance: &Instance) -> impl Iterator<Item = &str> {
    let volumes = instance.block_device_mappings().iter().filter_map(|m| m.ebs());
    let volumes = volumes.filter(|v| v.delete_on_termination() == Some(true)).filter_map(|v| v.volume_id());
    let first = |i: &&InstanceNetworkInterface| i.attachment().and_then(|a| a.device_index()) == Some(0);
    let interfaces = instance.network_interfaces().iter().filter(first).filter_map(|i| i.network_interface_id());
    instance.instance_id().into_iter().chain(volumes).chain(interfaces)
}

/// The values that instances have for the `wanted` tags and for those that were `given`. If instances differ, all
/// values are shown. Without instances, no tag is missing.
pub(super) fn shown_tags(instances: &[&Instance], wanted: &Tags, given: &Tags) -> Tags {
    if instances.is_empty() {
        return wanted.clone();
    }
    let all: Vec<Tags> = instances.iter().map(|i| ec2::tags(i.tags())).collect();
    let keys: BTreeSet<&String> = wanted.keys().chain(given.keys()).collect();
    let shown = |key: &String| {
        let values: BTreeSet<Option<&String>> = all.iter().map(|tags| tags.get(key)).collect();
        if values.len() == 1 {
            return values.into_iter().next().flatten().cloned();
        }
        let texts = values.into_iter().map(|v| v.map_or("none", String::as_str)).collect::<Vec<_>>();
        Some(texts.join(", or "))
    };
    keys.into_iter().filter_map(|key| Some((key.clone(), shown(key)?))).collect()
}

/// Changes the tags of a group's instances, and of the resources launched with them, to `to`. Removes our tags in
/// `from` that `to` lacks.
pub(super) async fn tag_instances(aws: &Aws, cluster: &str, group: &str, from: &Tags, to: &Tags) -> Result<()> {
    let stale: Vec<&String> = from.keys().filter(|key| !to.contains_key(*key)).collect();
    if from == to {
        return Ok(());
    }
    let all = instances(aws, [cluster].into()).await?;
    let differs = |instance: &&Instance| {
        let has = ec2::tags(instance.tags());
        to.iter().any(|(key, value)| has.get(key) != Some(value)) || stale.iter().any(|key| has.contains_key(*key))
    };
    let own = all.iter().filter(|i| is_of(i, cluster, group)).filter(differs);
    let resources: Vec<String> = own.flat_map(parts).map(str::to_owned).collect();
    for some in resources.chunks(TAGGED_AT_ONCE) {
        let call = aws.ec2.create_tags().set_resources(Some(some.to_vec()));
        call.set_tags(Some(ec2::sdk_tags(to))).send().await.map_err(failed("ec2:CreateTags"))?;
        if !stale.is_empty() {
            let keys = stale.iter().map(|key| Tag::builder().key(*key).build()).collect();
            let call = aws.ec2.delete_tags().set_resources(Some(some.to_vec())).set_tags(Some(keys));
            call.send().await.map_err(failed("ec2:DeleteTags"))?;
        }
    }
    Ok(())
}
