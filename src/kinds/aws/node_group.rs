use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Instance, InstanceNetworkInterface, Tag};
use aws_sdk_eks::types::{
    AmiTypes, CapacityTypes, ErrorCode, LaunchTemplateSpecification, NodeRepairConfig, Nodegroup,
    NodegroupScalingConfig, NodegroupStatus, NodegroupUpdateConfig, Taint as SdkTaint, TaintEffect,
    UpdateLabelsPayload, UpdateTaintsPayload,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eks::{Live, gather, host, issues, listed, live, optional, retag, siblings, tag_map, tags_of, update};
use super::foreign::{TagStyle, claim, foreign};
use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use super::{ec2, launch_template, logical, node_entry, physical};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result, typed, untyped};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Repair, Round, Rule, Scope, Status, Verb,
    Wanted,
};
use crate::engine::value::Outputs;
use crate::k8s::client::Call;
use crate::k8s::{Clusters, Target};
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.node-group";

/// The time limit for a change of settings, and the fixed part of the limit for an update of all nodes.
const SETTLE: Duration = Duration::from_secs(3600);

/// The time limit for replacing one batch of nodes: EKS waits 15 minutes for pods to leave a node, and new nodes must
/// start before (EKS User Guide, "Understand each phase of node updates").
const ROUND: Duration = Duration::from_secs(1800);

/// The largest batch of nodes that EKS replaces (same page).
const MOST_AT_ONCE: u32 = 100;

/// The tags that EKS writes to the instances of a managed node group.
const CLUSTER_TAG: &str = "eks:cluster-name";
const GROUP_TAG: &str = "eks:nodegroup-name";

/// The number of resources that one call can tag (EC2 API, CreateTags: at most 1,000).
const TAGGED_AT_ONCE: usize = 500;

/// The AMI type of groups whose launch template names the image. The image then also decides the Kubernetes version.
const CUSTOM: &str = "CUSTOM";

/// Changes of these fields replace the nodes.
const ROLLING: [&str; 3] = ["release_version", "template_version", "version"];

/// A managed node group.
///
/// A taint or label that someone changed is corrected in place. EKS updates existing nodes at once, while a
/// replacement would leave a pool without the taint for minutes.
///
/// Outputs: `name` (with generation), `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    /// The name without generation.
    pub name: String,
    /// ARN.
    pub role: String,
    pub subnets: Vec<String>,
    /// Such as `BOTTLEROCKET_x86_64`.
    pub ami_type: String,
    /// `ON_DEMAND` or `SPOT`.
    pub capacity_type: String,
    pub instance_types: Vec<String>,
    /// The id of the launch template.
    pub template: String,
    /// The version number of the launch template. An observed state has the default version if that differs from the
    /// group's version in tags only.
    pub template_version: String,
    /// The tags of the group's instances and of their volumes, as far as they are ours. EKS replaces nodes for any
    /// new version of a template (aws/containers-roadmap 2647), so running instances are tagged in place.
    pub instance_tags: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub min: i32,
    pub max: i32,
    /// The number of nodes at creation. Later the autoscaler owns the number, within `min` and `max`.
    pub desired: i32,
    /// How many nodes an update replaces at the same time: `2`, or `33%`.
    pub max_unavailable: String,
    /// Kubernetes minor version.
    pub version: String,
    /// The image's release, such as `1.66.0-2d3f4b6c`. `None` means that EKS chooses it, or the launch template of a
    /// custom image.
    pub release_version: Option<String>,
    /// True if EKS replaces nodes that stay unhealthy. `None` means unknown.
    pub repair: Option<bool>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    pub key: String,
    pub value: String,
    /// `NO_SCHEDULE`, `NO_EXECUTE` or `PREFER_NO_SCHEDULE`.
    pub effect: String,
}

pub struct NodeGroup;

pub struct NodeGroupHandlers {
    aws: Arc<Aws>,
    clusters: Arc<Clusters>,
}

impl NodeGroupHandlers {
    pub fn new(aws: Arc<Aws>, clusters: Arc<Clusters>) -> Self {
        Self { aws, clusters }
    }

    async fn template_of(&self, group: &Nodegroup, templates: &[launch_template::Ours]) -> Result<Started> {
        let used = group.launch_template();
        let version = used.and_then(|t| t.version()).unwrap_or_default().to_owned();
        let Some(ours) = used.and_then(|t| t.id()).and_then(|id| templates.iter().find(|t| t.id() == id)) else {
            return Ok(Started { version, tags: Tags::new() });
        };
        let (current, data) = ours.current();
        if version == current {
            return Ok(Started { version, tags: launch_template::instance_tags(data) });
        }
        let (versions, _) = launch_template::versions(&self.aws, ours.id(), [version.as_str()].into()).await?;
        Ok(match versions.get(&version) {
            Some(used) => Started {
                tags: launch_template::instance_tags(used),
                version: if launch_template::alike(used, data) { current } else { version },
            },
            None => Started { version, tags: Tags::new() },
        })
    }

    /// The template version that the group's nodes must be updated to, or `None`. Different tags alone need no
    /// update. If the nodes are replaced for another reason (`rolls`), they get the newest tags.
    async fn next_version(&self, now: &State, to: &State, rolls: bool) -> Result<Option<String>> {
        if now.template_version == to.template_version && !rolls {
            return Ok(None);
        }
        let numbers = [now.template_version.as_str(), to.template_version.as_str()];
        let numbers = numbers.into_iter().filter(|number| !number.is_empty()).collect();
        let (versions, current) = launch_template::versions(&self.aws, &to.template, numbers).await?;
        let same = |a: &str, b: &str| match (versions.get(a), versions.get(b)) {
            (Some(a), Some(b)) => launch_template::alike(a, b),
            _ => a == b,
        };
        if same(&now.template_version, &to.template_version) && !rolls {
            return Ok(None);
        }
        let newest = current.filter(|current| same(current, &to.template_version));
        Ok(newest.or_else(|| Some(to.template_version.clone())).filter(|version| *version != now.template_version))
    }

    /// The default version of a group's template, if it differs from the wanted version in tags only.
    async fn newest(&self, state: &State) -> Result<String> {
        let none = State { template_version: String::new(), ..state.clone() };
        Ok(self.next_version(&none, state, true).await?.unwrap_or_else(|| state.template_version.clone()))
    }

    /// Changes the tags of a group's instances, and of the resources launched with them, to `to`. Removes our tags in
    /// `from` that `to` lacks.
    async fn tag_instances(&self, cluster: &str, group: &str, from: &Tags, to: &Tags) -> Result<()> {
        let stale: Vec<&String> = from.keys().filter(|key| !to.contains_key(*key)).collect();
        if from == to {
            return Ok(());
        }
        let all = instances(&self.aws, [cluster].into()).await?;
        let differs = |instance: &&Instance| {
            let has = ec2::tags(instance.tags());
            to.iter().any(|(key, value)| has.get(key) != Some(value)) || stale.iter().any(|key| has.contains_key(*key))
        };
        let own = all.iter().filter(|i| is_of(i, cluster, group)).filter(differs);
        let resources: Vec<String> = own.flat_map(parts).map(str::to_owned).collect();
        for some in resources.chunks(TAGGED_AT_ONCE) {
            let call = self.aws.ec2.create_tags().set_resources(Some(some.to_vec()));
            call.set_tags(Some(ec2::sdk_tags(to))).send().await.map_err(failed("ec2:CreateTags"))?;
            if !stale.is_empty() {
                let keys = stale.iter().map(|key| Tag::builder().key(*key).build()).collect();
                let call = self.aws.ec2.delete_tags().set_resources(Some(some.to_vec())).set_tags(Some(keys));
                call.send().await.map_err(failed("ec2:DeleteTags"))?;
            }
        }
        Ok(())
    }

    /// Help for pods that a PodDisruptionBudget keeps on their nodes. If the cluster can be read, the help names the
    /// budgets that allow no eviction.
    async fn budgets(&self, cluster: &str) -> String {
        let after = "allow a disruption or add pods, then run the same command, which continues with the remaining nodes; ringfence never forces an eviction";
        match self.tight_budgets(cluster).await.as_deref() {
            Ok([]) | Err(_) => format!(
                "a PodDisruptionBudget keeps pods on a node: `kubectl get pdb --all-namespaces` shows the budgets with 0 allowed disruptions; {after}"
            ),
            Ok(names) => format!("these PodDisruptionBudgets allow no eviction now: {}; {after}", names.join(", ")),
        }
    }

    /// `namespace/name` of each budget that allows no disruption.
    async fn tight_budgets(&self, name: &str) -> Result<Vec<String>> {
        let cluster = super::eks::cluster(&self.aws, name).await?;
        let authority = cluster.as_ref().and_then(|c| c.certificate_authority()).and_then(|a| a.data());
        let target = Target {
            cluster: name,
            endpoint: cluster.as_ref().and_then(|c| c.endpoint()).unwrap_or_default(),
            certificate_authority: authority.unwrap_or_default(),
        };
        let cluster = self.clusters.get(target).await?;
        let all = cluster.call(&Call::get("list", "/apis/policy/v1/poddisruptionbudgets")).await?;
        let tight = |one: &&Value| one["status"]["disruptionsAllowed"] == 0 && one["status"]["expectedPods"] != 0;
        let text = |one: &Value, field: &str| one["metadata"][field].as_str().unwrap_or_default().to_owned();
        let all = all["items"].as_array().into_iter().flatten().filter(tight);
        Ok(all.map(|one| format!("{}/{}", text(one, "namespace"), text(one, "name"))).collect())
    }

    /// `control_plane`: the Kubernetes version of the cluster, if known.
    fn found(&self, group: &Nodegroup, control_plane: Option<&str>, instance_tags: Tags) -> Result<Option<Found>> {
        let Some((address, generation)) = self.aws.owned(&tags_of(group.tags())) else {
            return Ok(None);
        };
        let name = group.nodegroup_name().unwrap_or_default();
        let arn = group.nodegroup_arn().unwrap_or_default();
        let mut state = State { instance_tags, ..observed(&self.aws, group, generation) };
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

impl Kind for NodeGroup {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host<'a>(&self, state: &'a Value) -> Option<&'a str> {
        host(state)
    }

    fn deleted_after(&self) -> &'static [&'static str] {
        &["k8s.manifest"]
    }

    fn loses(&self, found: &Found, replaced: bool) -> Option<String> {
        let state: State = typed(&found.state).ok().filter(|_| !replaced)?;
        Some(format!(
            "all pods on node group {} of cluster {}, and the data on the disks of its nodes",
            state.name, state.cluster
        ))
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
            ("release_version", Rule::ServerDefault),
            ("repair", Rule::ServerDefault),
        ]
    }

    fn runs_pods(&self) -> bool {
        true
    }

    fn create_before_destroy(&self) -> bool {
        true
    }

    fn predict(&self, new: &New, _scope: &Scope) -> Outputs {
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
            Verb::Create => Pace::secs(170, 2400),
            Verb::Update => Pace::secs(300, 2 * 3600),
            Verb::Delete => Pace::secs(360, 3600),
        }
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }

    /// EKS drains a node before it leaves its group, for any reason (UpdateNodegroupVersion, API reference).
    fn disturbs(&self, from: &Found, changes: &[Change]) -> Vec<String> {
        let mut all = Vec::new();
        if changes.iter().any(|c| c.replaces) {
            all.push("a new node group replaces the old one, and the pods on the old nodes are evicted".to_owned());
        } else if changes.iter().any(|c| ROLLING.contains(&c.path.as_str())) {
            all.push("the update replaces all nodes in batches and evicts their pods".to_owned());
        }
        let nodes = from.state.get("desired").and_then(Value::as_i64).unwrap_or_default();
        let bound = |path: &str| changes.iter().find(|c| c.path == path).and_then(|c| c.after.as_i64());
        let count = |n: i64| if n == 1 { "1 node".to_owned() } else { format!("{n} nodes") };
        if let Some(max) = bound("max").filter(|max| *max < nodes) {
            all.push(format!(
                "the group has {}, but the maximum is {max}: EKS removes {} and evicts the pods there",
                count(nodes),
                count(nodes - max)
            ));
        }
        if let Some(min) = bound("min").filter(|min| *min > nodes) {
            all.push(format!(
                "the group has {}, but the minimum is {min}: EKS starts {}",
                count(nodes),
                count(min - nodes)
            ));
        }
        all
    }
}

impl ResourceKind for NodeGroup {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(NodeGroupHandlers::new(clients.aws.clone(), clients.clusters.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("eks", "L-6D54EA21", Per::Cluster(|name| Counted::NodeGroups(name)))]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeInstances", "eks:DescribeNodegroup", "eks:ListNodegroups"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Clusters, When::Made, &["eks:CreateNodegroup", "eks:TagResource"]),
            (On::Clusters, When::Gone, &["eks:DeleteNodegroup"]),
            (On::Clusters, When::Perhaps, &["eks:UpdateNodegroupConfig", "eks:UpdateNodegroupVersion"]),
            // EKS checks that the caller may launch the template's instances (Auto Scaling User Guide, "Launch
            // template support"), and reads the node role with the caller's permissions
            // (aws-controllers-k8s/community, issue 2164).
            (On::Anything, When::Made, &["ec2:RunInstances"]),
            (On::Roles, When::Made, &["iam:ListAttachedRolePolicies"]),
        ]
    }

    fn passes_roles_to(&self) -> &'static [&'static str] {
        &["ec2.amazonaws.com", "eks.amazonaws.com"]
    }
}

#[async_trait]
impl Handlers for NodeGroupHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let (mut named, mut sizes, mut tagged) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for Wanted { address, state } in wanted {
            let state: State = typed(state)?;
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
            if let Some(mut found) = self.found(group, Some(&cluster.version), Tags::new())? {
                let template = self.template_of(group, &templates).await?;
                let own: Vec<&Instance> = instances.iter().filter(|i| is_of(i, &cluster.name, name)).collect();
                let mut state: State = typed(&found.state)?;
                let wanted = tagged.get(&found.address);
                state.instance_tags = shown_tags(&own, wanted.unwrap_or(&template.tags), &template.tags);
                state.template_version = template.version;
                found.state = untyped(&state)?;
                let nodes = group.scaling_config().and_then(|s| s.desired_size()).unwrap_or_default();
                if let Some((min, max, desired)) = sizes.get(&found.address)
                    && nodes.min(*max).max(*min) != *desired
                {
                    resized.insert(format!("{} has {nodes}, not {desired}", found.address));
                }
                seen.found.push(found);
            } else if let Some(address) = named.get(&(cluster.name.clone(), name.to_owned())) {
                let arn = group.nodegroup_arn().unwrap_or_default();
                let command = format!("aws eks tag-resource --resource-arn {arn}");
                let what = format!("the node group `{name}` of cluster `{}`", cluster.name);
                let has = tags_of(group.tags());
                seen.foreign.push(foreign(&self.aws, address, arn, &what, &has, &command, TagStyle::Map));
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
        gather(handles, |handle| async move {
            let state: State = typed(&handle.state)?;
            let name = physical(&state.name, handle.generation);
            let group = group(&self.aws, &state.cluster, &name).await?;
            // The group's instances are read at the end, for all groups together.
            let found = group.map(|g| self.found(&g, Some(&state.version), state.instance_tags)).transpose()?.flatten();
            Ok(found.filter(|f| f.address == handle.address && f.generation == handle.generation))
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = typed(&new.state)?;
        let name = physical(&state.name, new.generation);
        let version = match new.generation {
            1 => state.template_version.clone(),
            // A plan ignores tags that earlier template versions had.
            _ => self.newest(&state).await?,
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
        let to: State = typed(&to.state)?;
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
        let version = self.next_version(&now, &to, newer.is_some() || released).await?;
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
            let nodes = u32::try_from(now.desired.clamp(to.min, to.max)).unwrap_or_default();
            let limit = SETTLE + ROUND * rounds(nodes, &to.max_unavailable);
            let ended = update(&self.aws, cluster, Some(&name), limit, || {
                let call = call.clone();
                async move { call.send().await.map(|o| o.update).map_err(failed("eks:UpdateNodegroupVersion")) }
            });
            if let Err(error) = ended.await {
                let held = error.message.contains(ErrorCode::PodEvictionFailure.as_str());
                return Err(if held { error.help(self.budgets(cluster).await) } else { error });
            }
        }
        let before: State = typed(&from.state)?;
        self.tag_instances(cluster, &name, &before.instance_tags, &to.instance_tags).await?;
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

async fn names(aws: &Aws, cluster: &str) -> Result<Vec<String>> {
    let mut pages = aws.eks.list_nodegroups().cluster_name(cluster).into_paginator().items().send();
    let mut names = Vec::new();
    while let Some(name) = pages.next().await {
        names.push(name.map_err(failed("eks:ListNodegroups"))?);
    }
    Ok(names)
}

/// Every node group of our clusters, ours or not, read once a round.
pub(super) async fn all(aws: &Aws, round: &Round) -> Result<Arc<Vec<(Live, Nodegroup)>>> {
    round
        .once("eks.node-groups", || async {
            let names = gather(live(aws, round).await?, |cluster| async move {
                let names = names(aws, &cluster.name).await?;
                Ok(names.into_iter().map(move |name| (cluster.clone(), name)).collect::<Vec<_>>())
            });
            let groups = gather(names.await?.into_iter().flatten(), |(cluster, name)| async move {
                let group = listed(group(aws, &cluster.name, &name).await?, "eks:DescribeNodegroup", &name)?;
                Ok((cluster, group))
            });
            groups.await
        })
        .await
}

async fn group(aws: &Aws, cluster: &str, name: &str) -> Result<Option<Nodegroup>> {
    let call = aws.eks.describe_nodegroup().cluster_name(cluster).nodegroup_name(name);
    let answer = optional(call.send().await.map_err(failed("eks:DescribeNodegroup")))?;
    Ok(answer.and_then(|o| o.nodegroup))
}

fn observed(aws: &Aws, group: &Nodegroup, generation: u32) -> State {
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

fn template(state: &State, version: String) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().id(&state.template).version(version).build()
}

/// The launch template version of a group's nodes.
struct Started {
    /// The version, or the default version if that differs in tags only.
    version: String,
    /// The tags in that version.
    tags: Tags,
}

/// Instances of managed node groups of these clusters, by the tags that EKS writes to them (policy of the role
/// AWSServiceRoleForAmazonEKSNodegroup).
async fn instances(aws: &Aws, clusters: BTreeSet<&str>) -> Result<Vec<Instance>> {
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

fn is_of(instance: &Instance, cluster: &str, group: &str) -> bool {
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
fn shown_tags(instances: &[&Instance], wanted: &Tags, given: &Tags) -> Tags {
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

/// Keeps the autoscaler's desired size, within the bounds.
fn scaling(state: &State, desired: i32) -> NodegroupScalingConfig {
    NodegroupScalingConfig::builder()
        .min_size(state.min)
        .max_size(state.max)
        .desired_size(desired.min(state.max).max(state.min))
        .build()
}

/// The fields that EKS accepts: AWS's images have releases, and a release of Amazon Linux belongs to one Kubernetes
/// version.
fn release(state: &State) -> Option<String> {
    let fits = |release: &&String| {
        state.ami_type.starts_with("BOTTLEROCKET") || release.starts_with(&format!("{}.", state.version))
    };
    state.release_version.as_ref().filter(|_| state.ami_type != CUSTOM).filter(fits).cloned()
}

fn repair_config(state: &State) -> Option<NodeRepairConfig> {
    state.repair.map(|enabled| NodeRepairConfig::builder().enabled(enabled).build())
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

fn at_once(config: &NodegroupUpdateConfig) -> String {
    match (config.max_unavailable_percentage(), config.max_unavailable()) {
        (Some(percentage), _) => format!("{percentage}%"),
        (None, count) => count.unwrap_or(1).to_string(),
    }
}

fn update_config(state: &State) -> Result<NodegroupUpdateConfig> {
    let text = &state.max_unavailable;
    let number = |digits: &str| {
        digits.parse::<i32>().map_err(|_| Error::bug(format!("`{text}` is neither a number of nodes nor a percentage")))
    };
    let config = NodegroupUpdateConfig::builder();
    Ok(match text.strip_suffix('%') {
        Some(percentage) => config.max_unavailable_percentage(number(percentage)?),
        None => config.max_unavailable(number(text)?),
    }
    .build())
}

/// The number of batches in which `nodes` are replaced.
fn rounds(nodes: u32, max_unavailable: &str) -> u32 {
    let number = |digits: &str| digits.parse::<u32>().unwrap_or(1);
    let at_once = match max_unavailable.strip_suffix('%') {
        Some(percentage) => nodes.saturating_mul(number(percentage)) / 100,
        None => number(max_unavailable),
    };
    nodes.div_ceil(at_once.clamp(1, MOST_AT_ONCE))
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

/// A taint is identified by key and effect. Its value can be updated.
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
            instance_tags: BTreeMap::new(),
            labels: BTreeMap::new(),
            taints: taints.iter().map(taint).collect(),
            min: 2,
            max: 4,
            desired,
            max_unavailable: String::new(),
            version: String::new(),
            release_version: None,
            repair: None,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn the_autoscalers_size_is_kept_within_the_bounds() {
        let size = |desired| scaling(&state(desired, &[]), desired).desired_size().unwrap();
        assert_eq!([size(0), size(3), size(9)], [2, 3, 4]);
    }

    #[test]
    fn an_update_takes_as_many_rounds_as_its_pace_makes() {
        let rounds =
            [(2, "1"), (2, "33%"), (9, "33%"), (100, "33%"), (450, "33%"), (450, "100%"), (40, "1%"), (0, "33%")]
                .map(|(nodes, pace)| rounds(nodes, pace));
        assert_eq!(rounds, [2, 2, 5, 4, 5, 5, 40, 0]);
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
