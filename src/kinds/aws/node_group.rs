use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_eks::types::{
    AmiTypes, CapacityTypes, LaunchTemplateSpecification, Nodegroup, NodegroupScalingConfig, NodegroupStatus,
    NodegroupUpdateConfig, Taint as SdkTaint, TaintEffect, UpdateLabelsPayload, UpdateTaintsPayload,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access_entry::forget_stale;
use super::eks::{Live, delete_node_entry, gather, issues, live, optional, retag, tag_map, tags_of, update};
use super::foreign::{TagStyle, claim, foreign};
use super::{logical, physical};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags;
use crate::engine::error::{Class, Error, Result, typed, untyped};
use crate::engine::kind::{
    Change, Found, Handle, Kind, Made, New, Observation, Pace, Repair, Round, Rule, Status, Verb, Wanted,
};
use crate::engine::value::Outputs;

pub const NAME: &str = "aws.node-group";

/// For one update of a node group: a new template version drains every node.
const UPDATE_LIMIT: Duration = Duration::from_secs(3600);

/// The AMI type of groups whose launch template names the image: it decides
/// the Kubernetes version, too.
const CUSTOM: &str = "CUSTOM";

/// A managed node group.
///
/// A taint or label that was changed by hand is put right in place: EKS does
/// that on existing nodes at once, while a replacement would leave a pool open
/// for minutes.
/// Outputs: `name` (with generation), `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    /// Without generation.
    pub name: String,
    /// ARN.
    pub role: String,
    pub subnets: Vec<String>,
    /// Such as `BOTTLEROCKET_x86_64`.
    pub ami_type: String,
    /// `ON_DEMAND` or `SPOT`.
    pub capacity_type: String,
    pub instance_types: Vec<String>,
    /// Id of the launch template.
    pub template: String,
    /// Number of its version.
    pub template_version: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub min: i32,
    pub max: i32,
    /// Sent at creation; the autoscaler's from then on, but kept between `min`
    /// and `max`.
    pub desired: i32,
    pub max_unavailable: i32,
    /// Kubernetes minor version.
    pub version: String,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    pub key: String,
    pub value: String,
    /// `NO_SCHEDULE`, `NO_EXECUTE` or `PREFER_NO_SCHEDULE`.
    pub effect: String,
}

pub struct NodeGroup {
    aws: Arc<Aws>,
}

impl NodeGroup {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn names(&self, cluster: &str) -> Result<Vec<String>> {
        let mut pages = self.aws.eks.list_nodegroups().cluster_name(cluster).into_paginator().items().send();
        let mut names = Vec::new();
        while let Some(name) = pages.next().await {
            names.push(name.map_err(failed("eks:ListNodegroups"))?);
        }
        Ok(names)
    }

    /// Every node group of our clusters, ours or not, read once a round.
    pub(super) async fn all(&self, round: &Round) -> Result<Arc<Vec<(Live, Nodegroup)>>> {
        round
            .once("eks.node-groups", || async {
                let names = gather(live(&self.aws, round).await?, |cluster| async move {
                    let names = self.names(&cluster.name).await?;
                    Ok(names.into_iter().map(move |name| (cluster.clone(), name)).collect::<Vec<_>>())
                });
                let groups = gather(names.await?.into_iter().flatten(), |(cluster, name)| async move {
                    Ok(self.group(&cluster.name, &name).await?.map(|group| (cluster, group)))
                });
                Ok(groups.await?.into_iter().flatten().collect())
            })
            .await
    }

    async fn group(&self, cluster: &str, name: &str) -> Result<Option<Nodegroup>> {
        let call = self.aws.eks.describe_nodegroup().cluster_name(cluster).nodegroup_name(name);
        let answer = optional(call.send().await.map_err(failed("eks:DescribeNodegroup")))?;
        Ok(answer.and_then(|o| o.nodegroup))
    }

    /// `control_plane` is the cluster's Kubernetes version, where it is known.
    fn found(&self, group: &Nodegroup, control_plane: Option<&str>) -> Result<Option<Found>> {
        let Some((address, generation)) = self.aws.owned(&tags_of(group.tags())) else {
            return Ok(None);
        };
        let name = group.nodegroup_name().unwrap_or_default();
        let arn = group.nodegroup_arn().unwrap_or_default();
        let mut state = observed(group, generation);
        if let Some(version) = control_plane.filter(|_| state.ami_type == CUSTOM) {
            state.version = version.to_owned();
        }
        Ok(Some(Found {
            address,
            generation,
            id: arn.to_owned(),
            outputs: outputs(name, arn),
            state: untyped(&state)?,
            status: status(group),
            refs: Vec::new(),
        }))
    }
}

#[async_trait]
impl Kind for NodeGroup {
    fn name(&self) -> &'static str {
        NAME
    }

    fn deleted_after(&self) -> &'static [&'static str] {
        &["k8s.manifest"]
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("cluster", Rule::Replace),
            ("name", Rule::Replace),
            ("role", Rule::Replace),
            ("subnets", Rule::Replace),
            ("subnets", Rule::Unordered),
            ("ami_type", Rule::Replace),
            ("capacity_type", Rule::Replace),
            ("instance_types", Rule::Replace),
            ("template", Rule::Replace),
            ("taints", Rule::Unordered),
            ("desired", Rule::CreateOnly),
        ]
    }

    fn create_before_destroy(&self) -> bool {
        true
    }

    fn predict(&self, new: &New) -> Outputs {
        typed::<State>(&new.state)
            .map(|s| Outputs::from([("name".to_owned(), physical(&s.name, new.generation))]))
            .unwrap_or_default()
    }

    fn summary(&self, state: &Value) -> String {
        typed::<State>(state)
            .map(|s| format!("{}, {} to {} nodes", s.instance_types.join("/"), s.min, s.max))
            .unwrap_or_default()
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            Verb::Create => Pace::secs(180, 2400),
            Verb::Update => Pace::secs(300, 2 * 3600),
            Verb::Delete => Pace::secs(360, 3600),
        }
    }

    fn repair(&self, found: &Found) -> Repair {
        let failed = [NodegroupStatus::CreateFailed, NodegroupStatus::DeleteFailed];
        match &found.status {
            Status::Failed(text) if failed.iter().any(|s| text.starts_with(s.as_str())) => Repair::Replace,
            _ => Repair::Manual,
        }
    }

    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let mut named = BTreeMap::new();
        for Wanted { address, state } in wanted {
            let state: State = typed(state)?;
            named.insert((state.cluster, state.name), address);
        }
        let mut seen = Observation::default();
        for (cluster, group) in self.all(round).await?.iter() {
            let name = group.nodegroup_name().unwrap_or_default();
            if let Some(found) = self.found(group, Some(&cluster.version))? {
                seen.found.push(found);
            } else if let Some(address) = named.get(&(cluster.name.clone(), name.to_owned())) {
                let arn = group.nodegroup_arn().unwrap_or_default();
                let command = format!("aws eks tag-resource --resource-arn {arn}");
                let what = format!("the node group `{name}` of cluster `{}`", cluster.name);
                let has = tags_of(group.tags());
                seen.foreign.push(foreign(&self.aws, address, arn, &what, &has, &command, TagStyle::Map));
            }
        }
        Ok(seen)
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        gather(handles, |handle| async move {
            let state: State = typed(&handle.state)?;
            let name = physical(&state.name, handle.generation);
            let group = self.group(&state.cluster, &name).await?;
            let found = group.map(|g| self.found(&g, Some(&state.version))).transpose()?.flatten();
            Ok(found.filter(|f| f.address == handle.address && f.generation == handle.generation))
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = typed(&new.state)?;
        let name = physical(&state.name, new.generation);
        forget_stale(&self.aws, &state.cluster, &state.role).await?;
        let own_image = state.ami_type == CUSTOM;
        let call = self
            .aws
            .eks
            .create_nodegroup()
            .cluster_name(&state.cluster)
            .nodegroup_name(&name)
            .node_role(&state.role)
            .set_subnets(Some(state.subnets.clone()))
            .set_ami_type((!own_image).then(|| AmiTypes::from(state.ami_type.as_str())))
            .set_version((!own_image).then(|| state.version.clone()))
            .capacity_type(CapacityTypes::from(state.capacity_type.as_str()))
            .set_instance_types(Some(state.instance_types.clone()).filter(|types| !types.is_empty()))
            .launch_template(template(&state))
            .set_labels(Some(tag_map(&state.labels)))
            .set_taints(Some(state.taints.iter().map(sdk_taint).collect()))
            .scaling_config(scaling(&state, state.desired))
            .update_config(NodegroupUpdateConfig::builder().max_unavailable(state.max_unavailable).build())
            .client_request_token(&new.token)
            .set_tags(Some(tag_map(&tags::with_generation(&state.tags, new.generation))));
        let group = match call.send().await.map_err(failed("eks:CreateNodegroup")) {
            Ok(answer) => answer.nodegroup,
            Err(error) if error.class == Class::Conflict => {
                let group = self.group(&state.cluster, &name).await?;
                let has = group
                    .as_ref()
                    .filter(|g| g.status() != Some(&NodegroupStatus::Deleting))
                    .map(|g| tags_of(g.tags()));
                claim(&self.aws, new, has.as_ref(), error)?;
                group
            }
            Err(error) => return Err(error),
        };
        let arn = group.and_then(|g| g.nodegroup_arn).unwrap_or_default();
        Ok(Made { outputs: outputs(&name, &arn), id: arn, ready: false })
    }

    /// What differs is read again first, so that an update that was cut short
    /// goes on where it stopped.
    fn disturbs(&self, changes: &[Change]) -> Option<&'static str> {
        let rolls = changes.iter().any(|c| matches!(c.path.as_str(), "template_version" | "version"));
        rolls.then_some("the update replaces every node, a few at a time, and evicts what runs on it")
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let to: State = typed(&to.state)?;
        let (cluster, name) = (to.cluster.as_str(), physical(&to.name, from.generation));
        let gone = || {
            Error::new(Class::NotFound, format!("node group `{name}` of cluster `{cluster}` doesn't exist any more"))
        };
        let group = self.group(cluster, &name).await?.ok_or_else(gone)?;
        let now = observed(&group, from.generation);

        retag(&self.aws, &from.id, &now.tags, &to.tags).await?;

        let (labels, taints) = (label_changes(&now, &to), taint_changes(&now, &to));
        let sized = (now.min, now.max) != (to.min, to.max);
        let paced = now.max_unavailable != to.max_unavailable;
        if labels.is_some() || taints.is_some() || sized || paced {
            let call = self
                .aws
                .eks
                .update_nodegroup_config()
                .cluster_name(cluster)
                .nodegroup_name(&name)
                .set_labels(labels)
                .set_taints(taints)
                .set_scaling_config(sized.then(|| scaling(&to, now.desired)))
                .set_update_config(
                    paced.then(|| NodegroupUpdateConfig::builder().max_unavailable(to.max_unavailable).build()),
                );
            update(&self.aws, cluster, Some(&name), UPDATE_LIMIT, || {
                let call = call.clone();
                async move { call.send().await.map(|o| o.update).map_err(failed("eks:UpdateNodegroupConfig")) }
            })
            .await?;
        }

        let newer = (to.ami_type != CUSTOM && now.version != to.version).then(|| to.version.clone());
        let templated = now.template_version != to.template_version;
        if newer.is_some() || templated {
            let call = self
                .aws
                .eks
                .update_nodegroup_version()
                .cluster_name(cluster)
                .nodegroup_name(&name)
                .set_version(newer)
                .set_launch_template(templated.then(|| template(&to)));
            update(&self.aws, cluster, Some(&name), UPDATE_LIMIT, || {
                let call = call.clone();
                async move { call.send().await.map(|o| o.update).map_err(failed("eks:UpdateNodegroupVersion")) }
            })
            .await?;
        }
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: false })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = typed(&found.state)?;
        let call = self
            .aws
            .eks
            .delete_nodegroup()
            .cluster_name(&state.cluster)
            .nodegroup_name(physical(&state.name, found.generation));
        Ok(optional(call.send().await.map_err(failed("eks:DeleteNodegroup")))?.is_none())
    }

    async fn deleted(&self, found: &Found) -> Result<()> {
        let state: State = typed(&found.state)?;
        let call = self.aws.eks.list_nodegroups().cluster_name(&state.cluster);
        let left = optional(call.send().await.map_err(failed("eks:ListNodegroups")))?.and_then(|o| o.nodegroups);
        delete_node_entry(&self.aws, &state.cluster, &state.role, &state.name, left).await
    }
}

fn observed(group: &Nodegroup, generation: u32) -> State {
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
        labels: tags_of(group.labels()),
        taints,
        min: scaling.and_then(|s| s.min_size()).unwrap_or_default(),
        max: scaling.and_then(|s| s.max_size()).unwrap_or_default(),
        desired: scaling.and_then(|s| s.desired_size()).unwrap_or_default(),
        max_unavailable: group.update_config().and_then(|u| u.max_unavailable()).unwrap_or_default(),
        version: text(group.version()),
        tags: tags::observed(&tags_of(group.tags())),
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
        Some(s) => Status::Failed(text(s)),
        None => Status::Pending("no status".to_owned()),
    }
}

fn template(state: &State) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().id(&state.template).version(&state.template_version).build()
}

/// The desired size stays the autoscaler's, within the bounds.
fn scaling(state: &State, desired: i32) -> NodegroupScalingConfig {
    NodegroupScalingConfig::builder()
        .min_size(state.min)
        .max_size(state.max)
        .desired_size(desired.min(state.max).max(state.min))
        .build()
}

fn taint(taint: &SdkTaint) -> Taint {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Taint { key: text(taint.key()), value: text(taint.value()), effect: text(taint.effect().map(|e| e.as_str())) }
}

fn sdk_taint(taint: &Taint) -> SdkTaint {
    SdkTaint::builder().key(&taint.key).value(&taint.value).effect(TaintEffect::from(taint.effect.as_str())).build()
}

fn label_changes(now: &State, to: &State) -> Option<UpdateLabelsPayload> {
    let write: HashMap<String, String> =
        to.labels.iter().filter(|(k, v)| now.labels.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let remove: Vec<String> = now.labels.keys().filter(|k| !to.labels.contains_key(*k)).cloned().collect();
    (!write.is_empty() || !remove.is_empty()).then(|| {
        UpdateLabelsPayload::builder()
            .set_add_or_update_labels(Some(write).filter(|w| !w.is_empty()))
            .set_remove_labels(Some(remove).filter(|r| !r.is_empty()))
            .build()
    })
}

/// A taint is its key and effect; its value can be updated.
fn taint_changes(now: &State, to: &State) -> Option<UpdateTaintsPayload> {
    let same = |a: &Taint, b: &Taint| (&a.key, &a.effect) == (&b.key, &b.effect);
    let write: Vec<SdkTaint> = to.taints.iter().filter(|t| !now.taints.contains(t)).map(sdk_taint).collect();
    let remove: Vec<SdkTaint> =
        now.taints.iter().filter(|t| !to.taints.iter().any(|k| same(k, t))).map(sdk_taint).collect();
    (!write.is_empty() || !remove.is_empty()).then(|| {
        UpdateTaintsPayload::builder()
            .set_add_or_update_taints(Some(write).filter(|w| !w.is_empty()))
            .set_remove_taints(Some(remove).filter(|r| !r.is_empty()))
            .build()
    })
}

fn outputs(name: &str, arn: &str) -> Outputs {
    Outputs::from([("name".to_owned(), name.to_owned()), ("arn".to_owned(), arn.to_owned())])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn state(desired: i32, taints: &[(&str, &str, &str)]) -> State {
        let taint = |(key, value, effect): &(&str, &str, &str)| Taint {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            effect: (*effect).to_owned(),
        };
        State {
            cluster: String::new(),
            name: String::new(),
            role: String::new(),
            subnets: Vec::new(),
            ami_type: String::new(),
            capacity_type: String::new(),
            instance_types: Vec::new(),
            template: String::new(),
            template_version: String::new(),
            labels: BTreeMap::new(),
            taints: taints.iter().map(taint).collect(),
            min: 2,
            max: 4,
            desired,
            max_unavailable: 1,
            version: String::new(),
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn the_autoscalers_size_is_kept_within_the_bounds() {
        let size = |desired| scaling(&state(desired, &[]), desired).desired_size().unwrap();
        assert_eq!([size(0), size(3), size(9)], [2, 3, 4]);
    }

    #[test]
    fn a_taint_with_another_value_is_updated_and_not_removed() {
        let now = state(2, &[("tenantID", "1", "NO_SCHEDULE"), ("x", "y", "NO_EXECUTE")]);
        let to = state(2, &[("tenantID", "2", "NO_SCHEDULE"), ("tenantID", "2", "NO_EXECUTE")]);
        let changes = taint_changes(&now, &to).unwrap();
        assert_eq!(changes.add_or_update_taints().len(), 2);
        let removed: Vec<_> = changes.remove_taints().iter().filter_map(|t| t.key()).collect();
        assert_eq!(removed, ["x"]);
        assert!(taint_changes(&to, &to).is_none());
    }
}
