//! The calls of the kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::Instance;
use aws_sdk_eks::types::{AmiTypes, CapacityTypes, ErrorCode, NodegroupStatus};

use super::budgets::budgets;
use super::facts::{CUSTOM, State};
use super::instances::{instances, is_of, shown_tags, tag_instances};
use super::read::{all, found, group, observed, outputs};
use super::settings::{
    SETTLE, label_changes, release, repair_config, scaling, sdk_taint, taint_changes, time_to_roll, update_config,
};
use super::template::{newest, next_version, template, template_of};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::{self, Tags};
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Change, Found, Handle, Handlers, Made, New, Observation, Round, Wanted};
use crate::engine::packed::Packed;
use crate::k8s::Clusters;
use crate::kinds::aws::eks::{find, foreign, optional, retag, siblings, tag_map, tags_of, update};
use crate::kinds::aws::foreign::claim;
use crate::kinds::aws::{launch_template, node_entry, physical};

pub struct NodeGroupHandlers {
    aws: Arc<Aws>,
    clusters: Arc<Clusters>,
}

impl NodeGroupHandlers {
    pub fn new(aws: Arc<Aws>, clusters: Arc<Clusters>) -> Self {
        Self { aws, clusters }
    }
}

#[async_trait]
impl Handlers for NodeGroupHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let (mut named, mut sizes, mut tagged) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for Wanted { address, state } in wanted {
            let state: State = state.typed()?;
            sizes.insert(address, (state.min, state.max, state.desired));
            tagged.insert(address, state.instance_tags);
            named.insert((state.cluster, state.name), address);
        }
        let mut seen = Observation::default();
        let mut resized = BTreeSet::new();
        let (groups, templates) = futures::try_join!(all(&self.aws, round), launch_template::ours(&self.aws, round))?;
        let clusters = groups.iter().map(|(cluster, _)| cluster.name.as_str()).collect();
        let instances = instances(&self.aws, clusters).await?;
        for (cluster, group) in groups.iter() {
            let name = group.nodegroup_name().unwrap_or_default();
            if let Some(mut found) = found(&self.aws, group, Some(&cluster.version), Tags::new())? {
                let template = template_of(&self.aws, group, &templates).await?;
                let own: Vec<&Instance> = instances.iter().filter(|i| is_of(i, &cluster.name, name)).collect();
                let mut state: State = found.state.typed()?;
                let wanted = tagged.get(&found.address);
                state.instance_tags = shown_tags(&own, wanted.unwrap_or(&template.tags), &template.tags);
                state.template_version = template.version;
                found.state = Packed::of(&state)?;
                let nodes = group.scaling_config().and_then(|s| s.desired_size()).unwrap_or_default();
                if let Some((min, max, desired)) = sizes.get(&found.address)
                    && nodes.min(*max).max(*min) != *desired
                {
                    resized.insert(format!("{} has {nodes}, not {desired}", found.address));
                }
                seen.found.push(found);
            } else if let Some(address) = named.get(&(cluster.name.clone(), name.to_owned())) {
                let arn = group.nodegroup_arn().unwrap_or_default();
                let what = format!("the node group `{name}` of cluster `{}`", cluster.name);
                seen.foreign.push(foreign(&self.aws, address, arn, &what, &tags_of(group.tags())));
            }
        }
        if !resized.is_empty() {
            let resized = resized.into_iter().collect::<Vec<_>>().join(", ");
            seen.notes.push(format!(
                "`desired` is used only when a node group is created. Later the autoscaler or `aws eks update-nodegroup-config --scaling-config` sets the number of nodes: {resized}"
            ));
        }
        Ok(seen)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        find(handles, |handle, state: State| async move {
            let name = physical(&state.name, handle.generation);
            let group = group(&self.aws, &state.cluster, &name).await?;
            // The group's instances are read at the end, for all groups together.
            Ok(group.map(|g| found(&self.aws, &g, Some(&state.version), state.instance_tags)).transpose()?.flatten())
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let name = physical(&state.name, new.generation);
        let version = match new.generation {
            1 => state.template_version.clone(),
            // A plan ignores tags that earlier template versions had.
            _ => newest(&self.aws, &state).await?,
        };
        node_entry::forget_stale(&self.aws, &state.cluster, &state.role).await?;
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
            .set_release_version(release(&state))
            .set_node_repair_config(repair_config(&state))
            .capacity_type(CapacityTypes::from(state.capacity_type.as_str()))
            .set_instance_types(Some(state.instance_types.clone()).filter(|types| !types.is_empty()))
            .launch_template(template(&state, version))
            .set_labels(Some(tag_map(&state.labels)))
            .set_taints(Some(state.taints.iter().map(sdk_taint).collect()))
            .scaling_config(scaling(&state, state.desired))
            .update_config(update_config(&state)?)
            .client_request_token(&new.token)
            .set_tags(Some(tag_map(&tags::with_generation(&state.tags, new.generation))));
        let group = match call.send().await.map_err(failed("eks:CreateNodegroup")) {
            Ok(answer) => answer.nodegroup,
            Err(error) if error.class == Class::Conflict => {
                let group = group(&self.aws, &state.cluster, &name).await?;
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

    /// Reads the group first to find what differs, so that the rest of an interrupted update is completed.
    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let to: State = to.state.typed()?;
        let (cluster, name) = (to.cluster.as_str(), physical(&to.name, from.generation));
        let gone =
            || Error::new(Class::NotFound, format!("node group `{name}` of cluster `{cluster}` no longer exists"));
        let group = group(&self.aws, cluster, &name).await?.ok_or_else(gone)?;
        let now = observed(&self.aws, &group, from.generation);

        retag(&self.aws, &from.id, &now.tags, &to.tags).await?;

        let (labels, taints) = (label_changes(&now, &to), taint_changes(&now, &to));
        let sized = (now.min, now.max) != (to.min, to.max);
        let paced = now.max_unavailable != to.max_unavailable;
        let repaired = to.repair.is_some() && now.repair != to.repair;
        if labels.is_some() || taints.is_some() || sized || paced || repaired {
            let call = self
                .aws
                .eks
                .update_nodegroup_config()
                .cluster_name(cluster)
                .nodegroup_name(&name)
                .set_labels(labels)
                .set_taints(taints)
                .set_scaling_config(sized.then(|| scaling(&to, now.desired)))
                .set_update_config(paced.then(|| update_config(&to)).transpose()?)
                .set_node_repair_config(repaired.then(|| repair_config(&to)).flatten());
            update(&self.aws, cluster, Some(&name), SETTLE, || {
                let call = call.clone();
                async move { call.send().await.map(|o| o.update).map_err(failed("eks:UpdateNodegroupConfig")) }
            })
            .await?;
        }

        let newer = (to.ami_type != CUSTOM && now.version != to.version).then(|| to.version.clone());
        let released = release(&to).is_some_and(|release| now.release_version.as_ref() != Some(&release));
        let version = next_version(&self.aws, &now, &to, newer.is_some() || released).await?;
        if newer.is_some() || version.is_some() || released {
            let call = self
                .aws
                .eks
                .update_nodegroup_version()
                .cluster_name(cluster)
                .nodegroup_name(&name)
                .set_version(newer)
                // Without a version EKS uses the newest one.
                .set_release_version(release(&to))
                .set_launch_template(version.map(|version| template(&to, version)));
            let ended = update(&self.aws, cluster, Some(&name), time_to_roll(&now, &to), || {
                let call = call.clone();
                async move { call.send().await.map(|o| o.update).map_err(failed("eks:UpdateNodegroupVersion")) }
            });
            if let Err(error) = ended.await {
                let held = error.message.contains(ErrorCode::PodEvictionFailure.as_str());
                return Err(if held { error.help(budgets(&self.aws, &self.clusters, cluster).await) } else { error });
            }
        }
        let before: State = from.state.typed()?;
        tag_instances(&self.aws, cluster, &name, &before.instance_tags, &to.instance_tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: false })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        let call = self
            .aws
            .eks
            .delete_nodegroup()
            .cluster_name(&state.cluster)
            .nodegroup_name(physical(&state.name, found.generation));
        Ok(optional(call.send().await.map_err(failed("eks:DeleteNodegroup")))?.is_none())
    }

    async fn deleted(&self, found: &Found) -> Result<()> {
        let state: State = found.state.typed()?;
        let call = self.aws.eks.list_nodegroups().cluster_name(&state.cluster);
        let left = optional(call.send().await.map_err(failed("eks:ListNodegroups")))?.and_then(|o| o.nodegroups);
        // If the cluster is deleted, there is no entry.
        let Some(left) = left else { return Ok(()) };
        for name in siblings(&left, &state.name) {
            let next = group(&self.aws, &state.cluster, name).await?;
            // The next generation may have another role.
            if next.is_some_and(|group| group.node_role() == Some(state.role.as_str())) {
                return Ok(());
            }
        }
        node_entry::delete(&self.aws, &state.cluster, &state.role).await
    }
}
