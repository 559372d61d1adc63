use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_eks::types::{FargateProfile as Profile, FargateProfileSelector, FargateProfileStatus};
use serde::{Deserialize, Serialize};

use super::costs::{Cost, Unit};
use super::eks::{
    find, foreign, gather, host, in_each, issues, listed, named, optional, retag, siblings, tag_map, tags_of,
};
use super::foreign::claim;
use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use super::{logical, node_entry, physical};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags;
use crate::engine::error::{Class, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Repair, Round, Rule, Scope, Status, Verb,
    Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.fargate-profile";

/// A Fargate profile. Only its tags can be changed. Outputs: `name` (with generation), `arn` (once it exists).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    /// The name without generation.
    pub name: String,
    /// ARN of the pod execution role.
    pub role: String,
    pub subnets: Vec<String>,
    pub selectors: Vec<Selector>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
}

pub struct FargateProfile;

pub struct FargateProfileHandlers {
    aws: Arc<Aws>,
}

impl FargateProfileHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn names(&self, cluster: &str) -> Result<Vec<String>> {
        let mut pages = self.aws.eks.list_fargate_profiles().cluster_name(cluster).into_paginator().items().send();
        let mut names = Vec::new();
        while let Some(name) = pages.next().await {
            names.push(name.map_err(failed("eks:ListFargateProfiles"))?);
        }
        Ok(names)
    }

    /// Every Fargate profile of our clusters, ours or not, read once a round.
    pub(super) async fn all(&self, round: &Round) -> Result<Arc<Vec<Profile>>> {
        round
            .once("eks.fargate-profiles", || async {
                let names = in_each(&self.aws, round, |cluster| async move { self.names(&cluster).await }).await?;
                let profiles = gather(names, |(cluster, name)| async move {
                    listed(self.profile(&cluster.name, &name).await?, "eks:DescribeFargateProfile", &name)
                });
                profiles.await
            })
            .await
    }

    async fn profile(&self, cluster: &str, name: &str) -> Result<Option<Profile>> {
        let call = self.aws.eks.describe_fargate_profile().cluster_name(cluster).fargate_profile_name(name);
        let answer = optional(call.send().await.map_err(failed("eks:DescribeFargateProfile")))?;
        Ok(answer.and_then(|o| o.fargate_profile))
    }

    fn found(&self, profile: &Profile) -> Result<Option<Found>> {
        let all = tags_of(profile.tags());
        let Some((address, generation)) = self.aws.owned(&all) else {
            return Ok(None);
        };
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let name = text(profile.fargate_profile_name());
        let mut subnets = profile.subnets().to_vec();
        subnets.sort();
        let mut selectors: Vec<Selector> = profile
            .selectors()
            .iter()
            .map(|s| Selector { namespace: text(s.namespace()), labels: tags_of(s.labels()) })
            .collect();
        selectors.sort();
        let state = State {
            cluster: text(profile.cluster_name()),
            name: logical(&name, generation),
            role: text(profile.pod_execution_role_arn()),
            subnets,
            selectors,
            tags: self.aws.observed(&all),
        };
        let arn = text(profile.fargate_profile_arn());
        Ok(Some(Found {
            address,
            generation,
            outputs: outputs(&name, &arn),
            id: arn,
            state: Packed::of(&state)?,
            status: status(profile),
            refs: Vec::new(),
        }))
    }
}

impl Kind for FargateProfile {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host(&self, state: &Packed) -> Option<String> {
        host(state)
    }

    fn deleted_after(&self) -> &'static [&'static str] {
        &["k8s.manifest"]
    }

    /// EKS deletes a profile's pods with it (EKS User Guide, "Delete a Fargate
    /// profile").
    fn loses(&self, found: &Found, replaced: bool) -> Option<String> {
        let state: State = found.state.typed().ok().filter(|_| !replaced)?;
        Some(format!("all pods on Fargate of profile {} of cluster {}", state.name, state.cluster))
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("cluster", Rule::Replace),
            ("name", Rule::Replace),
            ("role", Rule::Replace),
            ("subnets", Rule::Replace),
            ("subnets", Rule::Unordered),
            ("selectors", Rule::Replace),
            ("selectors", Rule::Unordered),
        ]
    }

    fn runs_pods(&self) -> bool {
        true
    }

    fn create_before_destroy(&self) -> bool {
        true
    }

    /// EKS runs one change of a cluster's profiles at a time. A second one gets a conflict (terraform-provider-aws
    /// 13372 and 16272).
    fn lane(&self, state: &Packed) -> Option<String> {
        state.typed::<State>().ok().map(|s| format!("fargate:{}", s.cluster))
    }

    fn predict(&self, new: &New, _scope: &Scope) -> Outputs {
        new.state
            .typed::<State>()
            .map(|s| Outputs::from([("name".to_owned(), physical(&s.name, new.generation))]))
            .unwrap_or_default()
    }

    fn summary(&self, state: &Packed) -> String {
        state
            .typed::<State>()
            .map(|s| s.selectors.into_iter().map(|s| s.namespace).collect::<Vec<_>>().join(", "))
            .unwrap_or_default()
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            Verb::Create => Pace::secs(120, 900),
            Verb::Update => Pace::secs(2, 120),
            Verb::Delete => Pace::secs(180, 1800),
        }
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for FargateProfile {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(FargateProfileHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("eks", "L-23414FF3", Per::Cluster(|name| Counted::FargateProfiles(name)))]
    }

    fn costs(&self, _state: &Packed) -> Vec<Cost> {
        vec![Cost::metered(Unit::FargatePod)]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["eks:DescribeFargateProfile", "eks:ListFargateProfiles"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Clusters, When::Made, &["eks:CreateFargateProfile", "eks:TagResource"]),
            (On::Clusters, When::Gone, &["eks:DeleteFargateProfile"]),
        ]
    }

    fn passes_roles_to(&self) -> &'static [&'static str] {
        // AWS doesn't document which of the two services is checked: the role trusts the first, and the second one is
        // called.
        &["eks-fargate-pods.amazonaws.com", "eks.amazonaws.com"]
    }
}

#[async_trait]
impl Handlers for FargateProfileHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let named = named(wanted, |state: State| (state.cluster, state.name))?;
        let mut seen = Observation::default();
        for profile in self.all(round).await?.iter() {
            let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
            let key = (text(profile.cluster_name()), text(profile.fargate_profile_name()));
            if let Some(found) = self.found(profile)? {
                seen.found.push(found);
            } else if let Some(address) = named.get(&key) {
                let arn = profile.fargate_profile_arn().unwrap_or_default();
                let what = format!("the Fargate profile `{}` of cluster `{}`", key.1, key.0);
                seen.foreign.push(foreign(&self.aws, address, arn, &what, &tags_of(profile.tags())));
            }
        }
        Ok(seen)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        find(handles, |handle, state: State| async move {
            let name = physical(&state.name, handle.generation);
            Ok(self.profile(&state.cluster, &name).await?.map(|p| self.found(&p)).transpose()?.flatten())
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let name = physical(&state.name, new.generation);
        node_entry::forget_stale(&self.aws, &state.cluster, &state.role).await?;
        let selector = |s: &Selector| {
            FargateProfileSelector::builder()
                .namespace(&s.namespace)
                .set_labels(Some(tag_map(&s.labels)).filter(|labels| !labels.is_empty()))
                .build()
        };
        let call = self
            .aws
            .eks
            .create_fargate_profile()
            .cluster_name(&state.cluster)
            .fargate_profile_name(&name)
            .pod_execution_role_arn(&state.role)
            .set_subnets(Some(state.subnets.clone()))
            .set_selectors(Some(state.selectors.iter().map(selector).collect()))
            .client_request_token(&new.token)
            .set_tags(Some(tag_map(&tags::with_generation(&state.tags, new.generation))));
        let answer = call.send().await.map_err(failed("eks:CreateFargateProfile"));
        let profile = match answer {
            Ok(answer) => answer.fargate_profile,
            Err(error) if error.class == Class::Conflict => {
                let profile = self.profile(&state.cluster, &name).await?;
                let has = profile
                    .as_ref()
                    .filter(|p| p.status() != Some(&FargateProfileStatus::Deleting))
                    .map(|p| tags_of(p.tags()));
                claim(&self.aws, new, has.as_ref(), error)?;
                profile
            }
            Err(error) => return Err(error),
        };
        let arn = profile.and_then(|p| p.fargate_profile_arn).unwrap_or_default();
        Ok(Made { outputs: outputs(&name, &arn), id: arn, ready: false })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (before, after): (State, State) = (from.state.typed()?, to.state.typed()?);
        retag(&self.aws, &from.id, &before.tags, &after.tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        let call = self
            .aws
            .eks
            .delete_fargate_profile()
            .cluster_name(&state.cluster)
            .fargate_profile_name(physical(&state.name, found.generation));
        let answer = call.send().await.map_err(failed("eks:DeleteFargateProfile"));
        Ok(optional(answer)?.is_none())
    }

    async fn deleted(&self, found: &Found) -> Result<()> {
        let state: State = found.state.typed()?;
        let call = self.aws.eks.list_fargate_profiles().cluster_name(&state.cluster);
        let left = optional(call.send().await.map_err(failed("eks:ListFargateProfiles")))?;
        // If the cluster is deleted, there is no entry.
        let Some(left) = left.and_then(|o| o.fargate_profile_names) else { return Ok(()) };
        for name in siblings(&left, &state.name) {
            let next = self.profile(&state.cluster, name).await?;
            // The next generation may have another role.
            if next.is_some_and(|profile| profile.pod_execution_role_arn() == Some(state.role.as_str())) {
                return Ok(());
            }
        }
        node_entry::delete(&self.aws, &state.cluster, &state.role).await
    }
}

fn status(profile: &Profile) -> Status {
    let all = profile.health().map(|h| h.issues()).unwrap_or_default().iter();
    let text = |status: &FargateProfileStatus| {
        let all = all.map(|i| (i.code().map(|c| c.as_str()), i.message(), i.resource_ids()));
        format!("{}: {}", status.as_str(), issues(all))
    };
    match profile.status() {
        Some(FargateProfileStatus::Active) => Status::Ready,
        Some(FargateProfileStatus::Deleting) => Status::Deleting,
        Some(FargateProfileStatus::Creating) => Status::Pending("CREATING".to_owned()),
        Some(s) => Status::Failed { why: text(s), repair: Repair::Replace },
        None => Status::Pending("no status".to_owned()),
    }
}

fn outputs(name: &str, arn: &str) -> Outputs {
    Outputs::from([("name".to_owned(), name.to_owned()), ("arn".to_owned(), arn.to_owned())])
}
