//! Common code of the EKS kinds: the list of clusters, which each round reads once, waiting for updates, and tags.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_eks::types::{Cluster, ClusterStatus, Update, UpdateStatus};
use aws_smithy_types::error::operation::BuildError;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;

use super::foreign::TagStyle;
use crate::aws::Aws;
use crate::aws::error::{failed, is_not_found};
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Foreign, Found, Handle, Round, Wanted};
use crate::engine::packed::Packed;
use crate::engine::pause::Patience;

/// Concurrent calls to APIs without a bulk read. AWS publishes no rate limits for EKS. Five concurrent calls are
/// below the rates at which other users report throttling.
const PARALLEL: usize = 5;

/// Reads each of `items`, several at a time. The results keep the order of the items.
pub(super) async fn gather<T, R, F, Fut>(items: impl IntoIterator<Item = T>, read: F) -> Result<Vec<R>>
where
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<R>>,
{
    let reads: Vec<Fut> = items.into_iter().map(read).collect();
    stream::iter(reads).buffered(PARALLEL).try_collect().await
}

/// `None` if the service answers that the resource doesn't exist.
pub(super) fn optional<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The details of `name`, which a list has just returned. If the call doesn't find `name`, the existence of the
/// resource is unknown: reads are eventually consistent, or someone has deleted it since.
pub(super) fn listed<T>(one: Option<T>, call: &str, name: &str) -> Result<T> {
    one.ok_or_else(|| {
        Error::new(
            Class::NotYet,
            format!("the list of resources has `{name}`, but the call for its details doesn't find it"),
        )
        .operation(call)
        .help("run the same command again")
    })
}

/// The cluster of a resource with `state`.
pub(super) fn host(state: &Packed) -> Option<String> {
    Some(state.get("cluster")?.as_str()?.to_owned())
}

/// A part of a request with all required members.
pub(super) fn built<T>(part: std::result::Result<T, BuildError>) -> Result<T> {
    part.map_err(|e| Error::bug(format!("a request is incomplete: {e}")))
}

/// Tags as EKS and CloudWatch Logs return them.
pub(super) fn tags_of(map: Option<&HashMap<String, String>>) -> Tags {
    map.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Tags as EKS and CloudWatch Logs accept them.
pub(super) fn tag_map(tags: &Tags) -> HashMap<String, String> {
    tags.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The tags to write for the desired tags `to`. They include the generation if the resource with the tags `from` is
/// ours by descent and has no ownership tags yet.
pub(super) fn adopted(aws: &Aws, from: &Tags, to: &Tags, generation: u32) -> Tags {
    if aws.owned(from).is_some() { to.clone() } else { tags::with_generation(to, generation) }
}

/// Changes the tags of any EKS resource to `to`.
pub(super) async fn retag(aws: &Aws, arn: &str, from: &Tags, to: &Tags) -> Result<()> {
    let (write, remove) = tags::difference(from, to);
    if !write.is_empty() {
        aws.eks
            .tag_resource()
            .resource_arn(arn)
            .set_tags(Some(tag_map(&write)))
            .send()
            .await
            .map_err(failed("eks:TagResource"))?;
    }
    if !remove.is_empty() {
        aws.eks
            .untag_resource()
            .resource_arn(arn)
            .set_tag_keys(Some(remove))
            .send()
            .await
            .map_err(failed("eks:UntagResource"))?;
    }
    Ok(())
}

/// Every cluster whose name could belong to this tenancy, ours or not.
pub(super) async fn clusters(aws: &Aws, round: &Round) -> Result<Arc<Vec<Cluster>>> {
    round
        .once("eks.clusters", || async {
            let prefix = format!("{}-", aws.tenancy);
            let mut pages = aws.eks.list_clusters().into_paginator().items().send();
            let mut names = Vec::new();
            while let Some(name) = pages.next().await {
                let name = name.map_err(failed("eks:ListClusters"))?;
                if name.starts_with(&prefix) {
                    names.push(name);
                }
            }
            let clusters =
                gather(names, |name| async move { listed(cluster(aws, &name).await?, "eks:DescribeCluster", &name) });
            clusters.await
        })
        .await
}

pub(super) async fn cluster(aws: &Aws, name: &str) -> Result<Option<Cluster>> {
    let answer = aws.eks.describe_cluster().name(name).send().await.map_err(failed("eks:DescribeCluster"));
    Ok(optional(answer)?.and_then(|o| o.cluster))
}

/// A cluster of ours that can contain resources.
#[derive(Clone)]
pub(super) struct Live {
    pub name: String,
    pub address: Address,
    /// Kubernetes minor version.
    pub version: String,
}

/// Our clusters that are neither being created nor being deleted. A failed cluster has no resources, and EKS answers
/// no calls about its contents.
async fn live(aws: &Aws, round: &Round) -> Result<Vec<Live>> {
    let all = clusters(aws, round).await?;
    Ok(all
        .iter()
        .filter(|c| {
            use ClusterStatus::{Creating, Deleting, Failed, Pending};
            !matches!(c.status(), Some(Creating | Deleting | Failed | Pending))
        })
        .filter_map(|c| {
            let (address, _) = aws.owned(&tags_of(c.tags()))?;
            Some(Live {
                name: c.name().unwrap_or_default().to_owned(),
                address,
                version: c.version().unwrap_or_default().to_owned(),
            })
        })
        .collect())
}

/// Everything that `list` returns for each of our clusters, with its cluster.
pub(super) async fn in_each<T, F, Fut>(aws: &Aws, round: &Round, list: F) -> Result<Vec<(Live, T)>>
where
    F: Fn(String) -> Fut,
    Fut: Future<Output = Result<Vec<T>>>,
{
    let lists = gather(live(aws, round).await?, |cluster| {
        let all = list(cluster.name.clone());
        async move { Ok(all.await?.into_iter().map(|one| (cluster.clone(), one)).collect::<Vec<_>>()) }
    });
    Ok(lists.await?.into_iter().flatten().collect())
}

/// The addresses of wanted resources, by the names in their states.
pub(super) fn named<S: DeserializeOwned, K: Ord>(
    wanted: &[Wanted],
    name: impl Fn(S) -> K,
) -> Result<BTreeMap<K, &Address>> {
    wanted.iter().map(|one| Ok((name(one.state.typed()?), &one.address))).collect()
}

/// The resource of each handle. `read` finds one by its name; it counts only if its tags have the handle's address and
/// generation.
pub(super) async fn find<'h, S, F, Fut>(handles: &'h [Handle], read: F) -> Result<Vec<Option<Found>>>
where
    S: DeserializeOwned,
    F: Fn(&'h Handle, S) -> Fut,
    Fut: Future<Output = Result<Option<Found>>>,
{
    let read = &read;
    gather(handles, |handle| async move {
        let found = read(handle, handle.state.typed()?).await?;
        Ok(found.filter(|f| f.address == handle.address && f.generation == handle.generation))
    })
    .await
}

/// A resource with the tags `has` that has a name that the spec wants.
pub(super) fn foreign(aws: &Aws, address: &Address, arn: &str, what: &str, has: &Tags) -> Foreign {
    let command = format!("aws eks tag-resource --resource-arn {arn}");
    super::foreign::foreign(aws, address, arn, what, has, &command, TagStyle::Map)
}

/// Starts an update and waits for its end. A cluster runs one update at a time. The cluster's status may not show a
/// running update yet (EKS User Guide, "Update cluster"), so a conflict is retried within `limit`.
pub(super) async fn update<F, Fut>(
    aws: &Aws,
    cluster: &str,
    node_group: Option<&str>,
    limit: Duration,
    start: F,
) -> Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Option<Update>>>,
{
    let mut pause = Patience::new(&aws.clock, limit);
    let update = loop {
        match start().await {
            Err(error) if error.class == Class::Conflict && pause.wait().await => {}
            other => break other?,
        }
    };
    let Some(id) = update.and_then(|u| u.id) else {
        return Ok(());
    };
    let mut pause = Patience::new(&aws.clock, limit);
    let what = node_group
        .map_or_else(|| format!("cluster `{cluster}`"), |group| format!("node group `{group}` of `{cluster}`"));
    loop {
        let answer = aws
            .eks
            .describe_update()
            .name(cluster)
            .set_nodegroup_name(node_group.map(str::to_owned))
            .update_id(&id)
            .send()
            .await
            .map_err(failed("eks:DescribeUpdate"));
        let update = optional(answer)?.and_then(|o| o.update);
        let status = update.as_ref().and_then(|u| u.status());
        match status {
            Some(UpdateStatus::Successful) => return Ok(()),
            Some(status @ (UpdateStatus::Failed | UpdateStatus::Cancelled)) => {
                let errors = update.as_ref().map(|u| u.errors()).unwrap_or_default().iter();
                let errors =
                    issues(errors.map(|e| (e.error_code().map(|c| c.as_str()), e.error_message(), e.resource_ids())));
                return Err(Error::new(
                    Class::Failed,
                    format!("update {id} of {what} ended as {}: {errors}", status.as_str()),
                ));
            }
            _ if pause.wait().await => {}
            _ => {
                return Err(Error::new(
                    Class::Timeout,
                    format!("update {id} of {what} is still in progress after {} min", limit.as_secs() / 60),
                )
                .help("EKS continues the update; run the same command later"));
            }
        }
    }
}

/// Health issues or update errors on one line: `Code: message (ids); …`.
pub(super) fn issues<'a>(issues: impl Iterator<Item = (Option<&'a str>, Option<&'a str>, &'a [String])>) -> String {
    let texts: Vec<String> = issues
        .map(|(code, message, ids)| {
            let mut text = code.unwrap_or("Unknown").to_owned();
            if let Some(message) = message {
                text = format!("{text}: {}", message.trim_end_matches('.'));
            }
            if !ids.is_empty() {
                text = format!("{text} ({})", ids.join(", "));
            }
            text
        })
        .collect();
    if texts.is_empty() { "EKS names no reason".to_owned() } else { texts.join("; ") }
}

/// The `names` that are another generation of `name`.
pub(super) fn siblings<'n>(names: &'n [String], name: &str) -> impl Iterator<Item = &'n String> {
    let (name, next) = (name.to_owned(), format!("{name}-g"));
    names.iter().filter(move |n| **n == name || n.strip_prefix(&next).is_some_and(|g| g.parse::<u32>().is_ok()))
}
