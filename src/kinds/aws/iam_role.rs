use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::types::{EntityType, RoleDetail, Tag};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eks::{built, optional};
use super::foreign::{TagStyle, claim, foreign};
use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use super::{logical, physical, policy};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Round, Rule, Scope, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.iam-role";

/// A role with its trust policy, attached policies and inline policies. Outputs: `name`, `arn` (both predicted).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// At most 64 characters. The name includes the region, because IAM is global.
    pub name: String,
    /// Such as `/ringfence/acme/`.
    pub path: String,
    /// The trust policy: who may assume the role.
    pub trust: Value,
    /// ARNs of managed policies.
    pub attached: Vec<String>,
    /// Inline policies by name.
    pub inline: BTreeMap<String, Value>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    pub tags: BTreeMap<String, String>,
}

pub struct IamRole;

pub struct IamRoleHandlers {
    aws: Arc<Aws>,
}

impl IamRoleHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    fn found(&self, role: &RoleDetail) -> Result<Option<Found>> {
        let all = tags_of(role.tags());
        let Some((address, generation)) = self.aws.owned(&all) else {
            return Ok(None);
        };
        let name = role.role_name().unwrap_or_default();
        let mut attached: Vec<String> =
            role.attached_managed_policies().iter().filter_map(|p| p.policy_arn().map(str::to_owned)).collect();
        attached.sort();
        let inline = role.role_policy_list().iter().map(|p| {
            (p.policy_name().unwrap_or_default().to_owned(), policy::parse(p.policy_document().unwrap_or_default()))
        });
        let state = State {
            name: logical(name, generation),
            path: role.path().unwrap_or("/").to_owned(),
            trust: policy::parse(role.assume_role_policy_document().unwrap_or_default()),
            attached,
            inline: inline.collect(),
            boundary: role.permissions_boundary().and_then(|b| b.permissions_boundary_arn()).map(str::to_owned),
            tags: self.aws.observed(&all),
        };
        Ok(Some(Found {
            address,
            generation,
            id: name.to_owned(),
            outputs: outputs(&self.aws.scope, &state.path, name),
            state: Packed::of(&state)?,
            status: Status::Ready,
            refs: Vec::new(),
        }))
    }

    /// Changes the role `name` from one state to another.
    async fn sync(&self, name: &str, from: &State, to: &State) -> Result<()> {
        let iam = &self.aws.iam;
        if from.trust != to.trust {
            iam.update_assume_role_policy()
                .role_name(name)
                .policy_document(to.trust.to_string())
                .send()
                .await
                .map_err(failed("iam:UpdateAssumeRolePolicy"))?;
        }
        match &to.boundary {
            boundary if *boundary == from.boundary => {}
            Some(boundary) => {
                iam.put_role_permissions_boundary()
                    .role_name(name)
                    .permissions_boundary(boundary)
                    .send()
                    .await
                    .map_err(failed("iam:PutRolePermissionsBoundary"))?;
            }
            None => {
                iam.delete_role_permissions_boundary()
                    .role_name(name)
                    .send()
                    .await
                    .map_err(failed("iam:DeleteRolePermissionsBoundary"))?;
            }
        }
        for (policy, document) in to.inline.iter().filter(|(k, v)| from.inline.get(*k) != Some(v)) {
            iam.put_role_policy()
                .role_name(name)
                .policy_name(policy)
                .policy_document(document.to_string())
                .send()
                .await
                .map_err(failed("iam:PutRolePolicy"))?;
        }
        for arn in to.attached.iter().filter(|a| !from.attached.contains(a)) {
            iam.attach_role_policy()
                .role_name(name)
                .policy_arn(arn)
                .send()
                .await
                .map_err(failed("iam:AttachRolePolicy"))?;
        }
        for policy in from.inline.keys().filter(|k| !to.inline.contains_key(*k)) {
            self.delete_inline(name, policy).await?;
        }
        for arn in from.attached.iter().filter(|a| !to.attached.contains(a)) {
            self.detach(name, arn).await?;
        }
        let (write, remove) = tags::difference(&from.tags, &to.tags);
        if !write.is_empty() {
            iam.tag_role()
                .role_name(name)
                .set_tags(Some(sdk_tags(&write)?))
                .send()
                .await
                .map_err(failed("iam:TagRole"))?;
        }
        if !remove.is_empty() {
            iam.untag_role()
                .role_name(name)
                .set_tag_keys(Some(remove))
                .send()
                .await
                .map_err(failed("iam:UntagRole"))?;
        }
        Ok(())
    }

    async fn detach(&self, name: &str, arn: &str) -> Result<()> {
        let call = self.aws.iam.detach_role_policy().role_name(name).policy_arn(arn);
        optional(call.send().await.map_err(failed("iam:DetachRolePolicy"))).map(drop)
    }

    async fn delete_inline(&self, name: &str, policy: &str) -> Result<()> {
        let call = self.aws.iam.delete_role_policy().role_name(name).policy_name(policy);
        optional(call.send().await.map_err(failed("iam:DeleteRolePolicy"))).map(drop)
    }

    /// For the case that no resource is ours: finds estates with the same roles under another name or in another
    /// region, such as this tenancy's former name. IAM is global, so its roles show them.
    fn former(&self, all: &[RoleDetail], wanted: &[Wanted]) -> Vec<String> {
        let wanted: BTreeSet<&Address> = wanted.iter().map(|w| &w.address).collect();
        let (tenancy, region) = (&self.aws.tenancy, &self.aws.scope.region);
        let mut estates: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for role in all {
            let mut tags = tags_of(role.tags());
            let (Some(of), Some(at)) = (tags.remove(tags::TENANCY), tags.remove(tags::REGION)) else { continue };
            let address = tags.get(tags::ADDRESS).map(Address::new).filter(|address| wanted.contains(address));
            if let Some(address) = address.filter(|_| (of == *tenancy) != (at == *region)) {
                estates.entry((of, at)).or_default().insert(address.owner().to_string());
            }
        }
        let words = |((of, at), owners): ((String, String), BTreeSet<String>)| {
            let owners = owners.into_iter().collect::<Vec<_>>().join(", ");
            let field = if at == *region { "metadata.name" } else { "spec.region" };
            format!(
                "the tenancy `{of}` in {at} has {owners} in this account, which this spec has, too. A different {field} means a \
                different estate: all its resources are created, and the resources of the other one stay, with their costs. If \
                the same estate is meant, restore {field}"
            )
        };
        estates.into_iter().map(words).collect()
    }

    /// Names the instance profiles that block the deletion of a role. EKS creates one for each node group and deletes
    /// it with the group. The read needs no further permission, because roles are read with the same call.
    async fn in_use(&self, name: &str, error: Error) -> Error {
        let roles = match read(&self.aws).await {
            Ok(roles) => roles,
            Err(unread) => {
                return error.help(format!("the instance profiles of role `{name}` can't be read: {unread}"));
            }
        };
        let role = roles.iter().find(|r| r.role_name() == Some(name));
        let profiles = role.map(|r| r.instance_profile_list()).unwrap_or_default();
        let profiles: Vec<&str> = profiles.iter().map(|p| p.instance_profile_name()).collect();
        if profiles.is_empty() {
            return error;
        }
        error.help(format!(
            "role `{name}` is in the instance profile {}; if nothing uses this instance profile any more, run `aws iam remove-role-from-instance-profile` and then the same command",
            profiles.join(", "),
        ))
    }
}

fn outputs(scope: &Scope, path: &str, name: &str) -> Outputs {
    let arn = format!("arn:{}:iam::{}:role{path}{name}", scope.partition, scope.account);
    Outputs::from([("name".to_owned(), name.to_owned()), ("arn".to_owned(), arn)])
}

impl Kind for IamRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("name", Rule::CreateOnly),
            ("path", Rule::Replace),
            ("attached", Rule::Unordered),
            ("trust", Rule::Mentions),
            ("inline", Rule::Mentions),
        ]
    }

    fn create_before_destroy(&self) -> bool {
        true
    }

    fn predict(&self, new: &New, scope: &Scope) -> Outputs {
        new.state
            .typed::<State>()
            .map(|state| outputs(scope, &state.path, &physical(&state.name, new.generation)))
            .unwrap_or_default()
    }

    fn summary(&self, state: &Packed) -> String {
        state.typed::<State>().map(|s| s.name).unwrap_or_default()
    }

    fn pace(&self, _verb: Verb) -> Pace {
        Pace::secs(2, 120)
    }
}

impl ResourceKind for IamRole {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(IamRoleHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("iam", "L-FE177D64", Per::Account(Counted::Roles))]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["iam:GetAccountAuthorizationDetails", "iam:GetRole"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Bounded, When::Made, &["iam:CreateRole"]),
            (On::Roles, When::Made, &["iam:TagRole"]),
            (On::Roles, When::Gone, &["iam:DeleteRole"]),
            (On::Roles, When::Tagged, &["iam:TagRole"]),
            // Actions that only remove permissions need no condition. Policies that were attached outside of
            // ringfence are removed, too.
            (
                On::Roles,
                When::Perhaps,
                &["iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:UntagRole", "iam:UpdateAssumeRolePolicy"],
            ),
            (On::Bounded, When::Perhaps, &["iam:PutRolePolicy"]),
            (On::Attached, When::Perhaps, &["iam:AttachRolePolicy"]),
        ]
    }
}

#[async_trait]
impl Handlers for IamRoleHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let all = roles(&self.aws, round).await?;
        let mut seen = Observation::default();
        for role in all.iter() {
            seen.found.extend(self.found(role)?);
        }
        if seen.found.is_empty() {
            seen.notes = self.former(&all, wanted);
        }
        for Wanted { address, state } in wanted {
            let name = state.typed::<State>()?.name;
            let taken = all.iter().find(|r| r.role_name() == Some(&name));
            if let Some(role) = taken
                && let has = tags_of(role.tags())
                && self.aws.owned(&has).is_none_or(|(theirs, _)| theirs != *address)
            {
                let command = format!("aws iam tag-role --role-name {name}");
                let what = format!("the IAM role `{name}`");
                seen.foreign.push(foreign(&self.aws, address, &name, &what, &has, &command, TagStyle::Key));
            }
        }
        Ok(seen)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let mut found = Vec::new();
        for role in read(&self.aws).await? {
            found.extend(self.found(&role)?);
        }
        let find = |h: &Handle| found.iter().find(|f| f.address == h.address && f.generation == h.generation).cloned();
        Ok(handles.iter().map(find).collect())
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let name = physical(&state.name, new.generation);
        let call = self
            .aws
            .iam
            .create_role()
            .role_name(&name)
            .path(&state.path)
            .assume_role_policy_document(state.trust.to_string())
            .set_permissions_boundary(state.boundary.clone())
            .set_tags(Some(sdk_tags(&tags::with_generation(&state.tags, new.generation))?));
        match call.send().await.map_err(failed("iam:CreateRole")) {
            Err(error) if error.class == Class::Exists => {
                let answer = self.aws.iam.get_role().role_name(&name).send().await.map_err(failed("iam:GetRole"));
                let has = optional(answer)?.and_then(|o| o.role).map(|r| tags_of(r.tags()));
                claim(&self.aws, new, has.as_ref(), error)?;
            }
            other => drop(other?),
        }
        let bare = State { attached: Vec::new(), inline: BTreeMap::new(), ..state.clone() };
        self.sync(&name, &bare, &state).await?;
        Ok(Made { outputs: outputs(&self.aws.scope, &state.path, &name), id: name, ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (before, after): (State, State) = (from.state.typed()?, to.state.typed()?);
        self.sync(&from.id, &before, &after).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        for arn in &state.attached {
            self.detach(&found.id, arn).await?;
        }
        for policy in state.inline.keys() {
            self.delete_inline(&found.id, policy).await?;
        }
        let answer = self.aws.iam.delete_role().role_name(&found.id).send().await.map_err(failed("iam:DeleteRole"));
        match optional(answer) {
            Err(error) if error.class == Class::Conflict => Err(self.in_use(&found.id, error).await),
            other => other.map(|_| true),
        }
    }
}

/// Every role of the account with all details, read once a round.
pub(super) async fn roles(aws: &Aws, round: &Round) -> Result<Arc<Vec<RoleDetail>>> {
    round.once("iam.roles", || read(aws)).await
}

/// The ARNs of all roles by name. A session's ARN has no path.
pub async fn arns(round: &Round, aws: &Aws) -> Result<BTreeMap<String, String>> {
    let roles = roles(aws, round).await?;
    Ok(roles.iter().filter_map(|r| Some((r.role_name.clone()?, r.arn.clone()?))).collect())
}

async fn read(aws: &Aws) -> Result<Vec<RoleDetail>> {
    let mut pages =
        aws.iam.get_account_authorization_details().filter(EntityType::Role).max_items(1000).into_paginator().send();
    let mut roles = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(failed("iam:GetAccountAuthorizationDetails"))?;
        roles.extend(page.role_detail_list.unwrap_or_default());
    }
    Ok(roles)
}

pub(super) fn tags_of(tags: &[Tag]) -> Tags {
    tags.iter().map(|t| (t.key().to_owned(), t.value().to_owned())).collect()
}

pub(super) fn sdk_tags(tags: &Tags) -> Result<Vec<Tag>> {
    tags.iter().map(|(k, v)| built(Tag::builder().key(k).value(v).build())).collect()
}
