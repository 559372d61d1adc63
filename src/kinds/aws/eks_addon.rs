use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_eks::types::{Addon, AddonIssueCode, AddonPodIdentityAssociations, AddonStatus, ResolveConflicts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::eks::{
    built, find, foreign, gather, host, in_each, issues, listed, named, optional, retag, tag_map, tags_of,
};
use super::foreign::claim;
use super::permission::{self, On, When};
use super::pod_identity;
use crate::arn::name_in;
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags;
use crate::engine::error::{Class, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Repair, Round, Rule, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.eks-addon";

/// A managed add-on. An observed state has the field `service_account_role` if someone set an IRSA role outside of
/// ringfence. Outputs: `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    /// Such as `vpc-cni`.
    pub name: String,
    pub version: String,
    /// Configuration values as JSON. An empty object means none.
    pub configuration: Value,
    /// Role ARNs by service account, for Pod Identity.
    pub pod_identity: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

/// Role ARNs by service account.
type Roles = BTreeMap<String, String>;

pub struct EksAddon;

pub struct EksAddonHandlers {
    aws: Arc<Aws>,
}

impl EksAddonHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn names(&self, cluster: &str) -> Result<Vec<String>> {
        let mut pages = self.aws.eks.list_addons().cluster_name(cluster).into_paginator().items().send();
        let mut names = Vec::new();
        while let Some(name) = pages.next().await {
            names.push(name.map_err(failed("eks:ListAddons"))?);
        }
        Ok(names)
    }

    async fn addon(&self, cluster: &str, name: &str) -> Result<Option<Addon>> {
        let call = self.aws.eks.describe_addon().cluster_name(cluster).addon_name(name);
        let answer = optional(call.send().await.map_err(failed("eks:DescribeAddon")))?;
        Ok(answer.and_then(|o| o.addon))
    }

    /// Every add-on of our clusters, ours or not, read once a round. Their versions are needed before the desired
    /// add-ons are known.
    async fn all(&self, round: &Round) -> Result<Arc<Vec<(Addon, Roles)>>> {
        round
            .once("eks.addons", || async {
                let names = in_each(&self.aws, round, |cluster| async move { self.names(&cluster).await }).await?;
                let addons = gather(names, |(cluster, name)| async move {
                    let addon = listed(self.addon(&cluster.name, &name).await?, "eks:DescribeAddon", &name)?;
                    let roles = self.roles(&addon).await?;
                    Ok((addon, roles))
                });
                addons.await
            })
            .await
    }

    /// The add-on's own associations, if the add-on is ours.
    async fn roles(&self, addon: &Addon) -> Result<Roles> {
        let cluster = addon.cluster_name().unwrap_or_default();
        let mut roles = Roles::new();
        if self.aws.owned(&tags_of(addon.tags())).is_none() {
            return Ok(roles);
        }
        for arn in addon.pod_identity_associations() {
            // An add-on goes on naming an association that somebody has deleted: then it lacks the role.
            if let Some(association) = pod_identity::describe(&self.aws, cluster, name_in(arn)).await? {
                roles.insert(association.service_account.unwrap_or_default(), association.role_arn.unwrap_or_default());
            }
        }
        Ok(roles)
    }

    fn found(&self, addon: &Addon, roles: &Roles, waiting: bool) -> Result<Option<Found>> {
        let all = tags_of(addon.tags());
        let Some((address, generation)) = self.aws.owned(&all) else {
            return Ok(None);
        };
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let state = State {
            cluster: text(addon.cluster_name()),
            name: text(addon.addon_name()),
            version: text(addon.addon_version()),
            configuration: configuration(addon.configuration_values()),
            pod_identity: roles.clone(),
            tags: self.aws.observed(&all),
        };
        let role = addon.service_account_role_arn().map(Value::from);
        let state = Packed::of(&state)?.with([("service_account_role", role)]);
        let arn = text(addon.addon_arn());
        Ok(Some(Found {
            address,
            generation,
            outputs: outputs(&arn),
            id: arn,
            state,
            status: status(addon, waiting),
            refs: Vec::new(),
        }))
    }
}

impl Kind for EksAddon {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host(&self, state: &Packed) -> Option<String> {
        host(state)
    }

    fn brings_apis(&self) -> bool {
        true
    }

    fn deleted_after(&self) -> &'static [&'static str] {
        &[super::node_group::NAME, super::fargate_profile::NAME]
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("cluster", Rule::Replace), ("name", Rule::Replace)]
    }

    fn summary(&self, state: &Packed) -> String {
        state.typed::<State>().map(|s| format!("{} {}", s.name, s.version)).unwrap_or_default()
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            Verb::Create | Verb::Update => Pace::secs(50, 1200),
            Verb::Delete => Pace::secs(40, 1200),
        }
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for EksAddon {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(EksAddonHandlers::new(clients.aws.clone()))
    }

    fn reads(&self) -> &'static [&'static str] {
        &["eks:DescribeAddon", "eks:ListAddons"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Clusters, When::Made, &["eks:CreateAddon", "eks:TagResource"]),
            (On::Clusters, When::Gone, &["eks:DeleteAddon"]),
            (On::Clusters, When::Perhaps, &["eks:UpdateAddon"]),
        ]
    }

    fn passes_roles_to(&self) -> &'static [&'static str] {
        &["eks.amazonaws.com", "pods.eks.amazonaws.com"]
    }
}

#[async_trait]
impl Handlers for EksAddonHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let named = named(wanted, |state: State| (state.cluster, state.name))?;
        let mut seen = Observation::default();
        for (addon, roles) in self.all(round).await?.iter() {
            let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
            let key = (text(addon.cluster_name()), text(addon.addon_name()));
            match (self.found(addon, roles, false)?, named.get(&key)) {
                (Some(found), _) => seen.found.push(found),
                (None, Some(address)) => {
                    let arn = addon.addon_arn().unwrap_or_default();
                    let what = format!("the add-on `{}` of cluster `{}`", key.1, key.0);
                    seen.foreign.push(foreign(&self.aws, address, arn, &what, &tags_of(addon.tags())));
                }
                (None, None) => {}
            }
        }
        Ok(seen)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        find(handles, |_, state: State| async move {
            let Some(addon) = self.addon(&state.cluster, &state.name).await? else {
                return Ok(None);
            };
            self.found(&addon, &self.roles(&addon).await?, true)
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let call = self
            .aws
            .eks
            .create_addon()
            .cluster_name(&state.cluster)
            .addon_name(&state.name)
            .addon_version(&state.version)
            .resolve_conflicts(ResolveConflicts::Overwrite)
            .set_configuration_values((state.configuration != json!({})).then(|| state.configuration.to_string()))
            .set_pod_identity_associations(Some(associations(&state)?).filter(|a| !a.is_empty()))
            .client_request_token(&new.token)
            .set_tags(Some(tag_map(&tags::with_generation(&state.tags, new.generation))));
        let addon = match call.send().await.map_err(failed("eks:CreateAddon")) {
            Ok(answer) => answer.addon,
            Err(error) if error.class == Class::Conflict => {
                let addon = self.addon(&state.cluster, &state.name).await?;
                let has =
                    addon.as_ref().filter(|a| a.status() != Some(&AddonStatus::Deleting)).map(|a| tags_of(a.tags()));
                claim(&self.aws, new, has.as_ref(), error)?;
                addon
            }
            Err(error) => return Err(error),
        };
        let arn = addon.and_then(|a| a.addon_arn).unwrap_or_default();
        Ok(Made { outputs: outputs(&arn), id: arn, ready: false })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (before, after): (State, State) = (from.state.typed()?, to.state.typed()?);
        retag(&self.aws, &from.id, &before.tags, &after.tags).await?;
        let same = (&before.version, &before.configuration, &before.pod_identity)
            == (&after.version, &after.configuration, &after.pod_identity)
            && from.state.get("service_account_role").is_none();
        if same && from.status == Status::Ready {
            return Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true });
        }
        // An update that names no role takes the role away (terraform-provider-aws 19402); an empty list does so with
        // associations (EKS API, UpdateAddon, "podIdentityAssociations"), an empty object with settings. EKS refuses
        // even an empty list of associations for add-ons that can have none (aws/containers-roadmap issue 2712,
        // terraform-aws-eks issue 3520).
        let none = before.pod_identity.is_empty() && after.pod_identity.is_empty();
        self.aws
            .eks
            .update_addon()
            .cluster_name(&after.cluster)
            .addon_name(&after.name)
            .addon_version(&after.version)
            .resolve_conflicts(ResolveConflicts::Overwrite)
            .configuration_values(after.configuration.to_string())
            .set_pod_identity_associations(Some(associations(&after)?).filter(|_| !none))
            .send()
            .await
            .map_err(failed("eks:UpdateAddon"))?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: false })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        let call = self.aws.eks.delete_addon().cluster_name(&state.cluster).addon_name(&state.name);
        Ok(optional(call.send().await.map_err(failed("eks:DeleteAddon")))?.is_none())
    }
}

/// `waiting`: the add-on was just created or changed, so its pods may still be starting. EKS may report DEGRADED
/// during that time.
fn status(addon: &Addon, waiting: bool) -> Status {
    let all = addon.health().map(|h| h.issues()).unwrap_or_default();
    let text = |status: &AddonStatus| {
        let all = all.iter().map(|i| (i.code().map(|c| c.as_str()), i.message(), i.resource_ids()));
        format!("{}: {}", status.as_str(), issues(all))
    };
    let starting = all.iter().all(|i| i.code() == Some(&AddonIssueCode::InsufficientNumberOfReplicas));
    match addon.status() {
        Some(AddonStatus::Active) => Status::Ready,
        Some(AddonStatus::Deleting) => Status::Deleting,
        Some(s @ (AddonStatus::Creating | AddonStatus::Updating)) if all.is_empty() => {
            Status::Pending(s.as_str().to_owned())
        }
        Some(s @ (AddonStatus::Creating | AddonStatus::Updating)) => Status::Pending(text(s)),
        Some(s @ AddonStatus::Degraded) if waiting && starting => Status::Pending(text(s)),
        Some(s @ AddonStatus::CreateFailed) => Status::Failed { why: text(s), repair: Repair::Replace },
        Some(s) => Status::Failed { why: text(s), repair: Repair::Update },
        None => Status::Pending("no status".to_owned()),
    }
}

/// Configuration values are JSON or YAML. Ours are JSON. A text that isn't JSON was set by someone else, and stays a
/// string.
fn configuration(values: Option<&str>) -> Value {
    match values {
        None | Some("") => json!({}),
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

fn associations(state: &State) -> Result<Vec<AddonPodIdentityAssociations>> {
    let association = |(account, role): (&String, &String)| {
        built(AddonPodIdentityAssociations::builder().service_account(account).role_arn(role).build())
    };
    state.pod_identity.iter().map(association).collect()
}

fn outputs(arn: &str) -> Outputs {
    Outputs::from([("arn".to_owned(), arn.to_owned())])
}
