use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_cloudwatchlogs::types::LogGroup as Group;
use serde::{Deserialize, Serialize};

use super::costs::{Cost, Unit};
use super::eks::{adopted, clusters, gather, listed, optional, tag_map, tags_of};
use super::foreign::{TagStyle, claim, foreign};
use super::permission::{self, On, When};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Round, Rule, Scope, Status, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.log-group";

/// Outputs: `name`, `arn` (both predicted; the ARN without `:*`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub name: String,
    /// `None`: the events never expire.
    pub retention_days: Option<i32>,
    /// ARN of its key.
    pub key: Option<String>,
    pub tags: BTreeMap<String, String>,
}

/// True if a group without tags was created by a cluster of ours.
enum Descent {
    Of(Address),
    /// The log group of a cluster that doesn't exist.
    Gone,
    None,
}

pub struct LogGroup;

pub struct LogGroupHandlers {
    aws: Arc<Aws>,
}

impl LogGroupHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    /// The groups with the name prefix `prefix`, with their tags.
    async fn list(&self, prefix: &str) -> Result<Vec<(Group, Tags)>> {
        let mut pages =
            self.aws.logs.describe_log_groups().log_group_name_prefix(prefix).into_paginator().items().send();
        let mut groups = Vec::new();
        while let Some(group) = pages.next().await {
            groups.push(group.map_err(failed("logs:DescribeLogGroups"))?);
        }
        let tagged = gather(groups, |group| async move {
            let name = group.log_group_name().unwrap_or_default();
            let tags = listed(self.tags(name).await?, "logs:ListTagsForResource", name)?;
            Ok((group, tags))
        });
        tagged.await
    }

    async fn tags(&self, name: &str) -> Result<Option<Tags>> {
        let call = self.aws.logs.list_tags_for_resource().resource_arn(arn(&self.aws.scope, name));
        let answer = optional(call.send().await.map_err(failed("logs:ListTagsForResource")))?;
        Ok(answer.map(|o| tags_of(o.tags())))
    }

    /// A group's state. If a policy of the account sets the retention, no other setting counts, so the state has the
    /// `wanted` retention (CloudWatch Logs API, "PutAccountPolicy").
    fn found(
        &self,
        address: Address,
        generation: u32,
        (group, has): (&Group, &Tags),
        wanted: Option<&State>,
    ) -> Result<Found> {
        let name = group.log_group_name().unwrap_or_default();
        let wanted = wanted.filter(|_| group.retention_policy_name().is_some());
        let state = State {
            name: name.to_owned(),
            retention_days: wanted.map_or(group.retention_in_days(), |wanted| wanted.retention_days),
            key: group.kms_key_id().map(str::to_owned),
            tags: self.aws.observed(has),
        };
        Ok(Found {
            address,
            generation,
            id: name.to_owned(),
            outputs: outputs(&self.aws.scope, name),
            state: Packed::of(&state)?,
            status: Status::Ready,
            refs: Vec::new(),
        })
    }

    /// Adds a note if a group is protected from deletion (CloudWatch Logs API, "PutLogGroupDeletionProtection"). The
    /// owner of the protection must remove it.
    async fn protected(&self, name: &str, error: Error) -> Error {
        let groups = match self.list(name).await {
            Ok(groups) => groups,
            Err(unread) => {
                return error.help(format!("the deletion protection of log group `{name}` can't be read: {unread}"));
            }
        };
        let group = groups.iter().find(|(g, _)| g.log_group_name() == Some(name));
        if group.and_then(|(g, _)| g.deletion_protection_enabled()) != Some(true) {
            return error;
        }
        error.help(format!(
            "log group `{name}` is protected from deletion; if its logs may be deleted, run `aws logs put-log-group-deletion-protection \
             --log-group-identifier {} --no-deletion-protection-enabled`, then the same command",
            arn(&self.aws.scope, name),
        ))
    }

    async fn retain(&self, name: &str, days: Option<i32>) -> Result<()> {
        match days {
            Some(days) => {
                let call = self.aws.logs.put_retention_policy().log_group_name(name).retention_in_days(days);
                call.send().await.map_err(failed("logs:PutRetentionPolicy"))?;
            }
            None => {
                let call = self.aws.logs.delete_retention_policy().log_group_name(name);
                call.send().await.map_err(failed("logs:DeleteRetentionPolicy"))?;
            }
        }
        Ok(())
    }
}

/// The ARN without `:*`, which the tag calls require (CloudWatch Logs API, "ListTagsForResource").
fn arn(scope: &Scope, name: &str) -> String {
    format!("arn:{}:logs:{}:{}:log-group:{name}", scope.partition, scope.region, scope.account)
}

fn outputs(scope: &Scope, name: &str) -> Outputs {
    Outputs::from([("name".to_owned(), name.to_owned()), ("arn".to_owned(), arn(scope, name))])
}

impl Kind for LogGroup {
    fn name(&self) -> &'static str {
        NAME
    }

    fn known_as(&self) -> &'static [&'static str] {
        &["name", "arn"]
    }

    fn keeps_data(&self) -> bool {
        true
    }

    fn loses(&self, found: &Found, replaced: bool) -> Option<String> {
        (!replaced).then(|| format!("the logs in {}", found.id))
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("name", Rule::Replace)]
    }

    fn predict(&self, new: &New, scope: &Scope) -> Outputs {
        new.state.typed::<State>().map(|s| outputs(scope, &s.name)).unwrap_or_default()
    }

    fn summary(&self, state: &Packed) -> String {
        state.typed::<State>().map(|s| s.name).unwrap_or_default()
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for LogGroup {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(LogGroupHandlers::new(clients.aws.clone()))
    }

    fn costs(&self, _state: &Packed) -> Vec<Cost> {
        vec![Cost::metered(Unit::LogGigabyte)]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["logs:DescribeLogGroups", "logs:ListTagsForResource"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Logs, When::Made, &["logs:CreateLogGroup", "logs:TagResource"]),
            (On::Logs, When::Gone, &["logs:DeleteLogGroup"]),
            (On::Logs, When::Tagged, &["logs:TagResource"]),
            (
                On::Logs,
                When::Perhaps,
                &[
                    "logs:AssociateKmsKey",
                    "logs:DeleteRetentionPolicy",
                    "logs:DisassociateKmsKey",
                    "logs:PutRetentionPolicy",
                    "logs:UntagResource",
                ],
            ),
        ]
    }
}

#[async_trait]
impl Handlers for LogGroupHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let mut named = BTreeMap::new();
        for Wanted { address, state } in wanted {
            let state: State = state.typed()?;
            named.insert(state.name.clone(), (address, state));
        }
        let ours = [format!("/aws/eks/{}-", self.aws.tenancy), format!("/ringfence/{}-", self.aws.tenancy)];
        let others = named.keys().filter(|name| !ours.iter().any(|prefix| name.starts_with(prefix)));
        let prefixes: Vec<String> = ours.iter().chain(others).cloned().collect();
        let groups = gather(prefixes, |prefix| async move { self.list(&prefix).await }).await?;
        let clusters = clusters(&self.aws, round).await?;
        // EKS creates a missing group for a cluster's logs, and creates it again for late events. Such a group has no
        // tags, and is ours by descent, except if the cluster belongs to someone else.
        let descent = |group: &str, has: &Tags| {
            let name = group.strip_prefix("/aws/eks/").and_then(|rest| rest.strip_suffix("/cluster"));
            let Some(name) = name.filter(|_| has.is_empty()) else {
                return Descent::None;
            };
            match clusters.iter().find(|c| c.name() == Some(name)) {
                None => Descent::Gone,
                Some(cluster) => {
                    self.aws.owned(&tags_of(cluster.tags())).map_or(Descent::None, |(address, _)| Descent::Of(address))
                }
            }
        };
        let mut seen = Observation::default();
        for (group, has) in groups.into_iter().flatten() {
            let name = group.log_group_name().unwrap_or_default();
            let of = named.get(name);
            let wanted = of.map(|(_, state)| state);
            if let Some((address, generation)) = self.aws.owned(&has) {
                seen.notes.extend(wanted.and_then(|_| decided(&address, &group)));
                seen.found.push(self.found(address, generation, (&group, &has), wanted)?);
                continue;
            }
            match (descent(name, &has), of) {
                (Descent::Of(_) | Descent::Gone, Some((address, _))) => {
                    seen.notes.extend(decided(address, &group));
                    seen.found.push(self.found((*address).clone(), 1, (&group, &has), wanted)?);
                }
                (Descent::Of(cluster), None) => {
                    seen.found.push(self.found(cluster.join("log-group"), 1, (&group, &has), None)?);
                }
                (_, Some((address, _))) => {
                    let command = format!("aws logs tag-resource --resource-arn {}", arn(&self.aws.scope, name));
                    let what = format!("the log group `{name}`");
                    seen.foreign.push(foreign(&self.aws, address, name, &what, &has, &command, TagStyle::Map));
                }
                (_, None) => {}
            }
        }
        Ok(seen)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        gather(handles, |handle| async move {
            let wanted: State = handle.state.typed()?;
            let groups = self.list(&wanted.name).await?;
            let Some((group, has)) = groups.iter().find(|(g, _)| g.log_group_name() == Some(&wanted.name)) else {
                return Ok(None);
            };
            match self.aws.owned(has) {
                Some((address, generation)) if address == handle.address => {
                    self.found(address, generation, (group, has), Some(&wanted)).map(Some)
                }
                // The group is ours by descent, because it was found before.
                None if !handle.id.is_empty() => {
                    self.found(handle.address.clone(), handle.generation, (group, has), Some(&wanted)).map(Some)
                }
                _ => Ok(None),
            }
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let call = self
            .aws
            .logs
            .create_log_group()
            .log_group_name(&state.name)
            .set_kms_key_id(state.key.clone())
            .set_tags(Some(tag_map(&tags::with_generation(&state.tags, new.generation))));
        match call.send().await.map_err(failed("logs:CreateLogGroup")) {
            Err(error) if error.class == Class::Exists => {
                claim(&self.aws, new, self.tags(&state.name).await?.as_ref(), error)?;
            }
            other => drop(other?),
        }
        if state.retention_days.is_some() {
            self.retain(&state.name, state.retention_days).await?;
        }
        Ok(Made { outputs: outputs(&self.aws.scope, &state.name), id: state.name, ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (before, after): (State, State) = (from.state.typed()?, to.state.typed()?);
        let (logs, name) = (&self.aws.logs, from.id.as_str());
        if before.key != after.key {
            match &after.key {
                Some(key) => {
                    let call = logs.associate_kms_key().log_group_name(name).kms_key_id(key);
                    call.send().await.map_err(failed("logs:AssociateKmsKey"))?;
                }
                None => {
                    let call = logs.disassociate_kms_key().log_group_name(name);
                    call.send().await.map_err(failed("logs:DisassociateKmsKey"))?;
                }
            }
        }
        if before.retention_days != after.retention_days {
            self.retain(name, after.retention_days).await?;
        }
        let to_tags = adopted(&self.aws, &before.tags, &after.tags, from.generation);
        let (write, remove) = tags::difference(&before.tags, &to_tags);
        if !write.is_empty() {
            let call = logs.tag_resource().resource_arn(arn(&self.aws.scope, name)).set_tags(Some(tag_map(&write)));
            call.send().await.map_err(failed("logs:TagResource"))?;
        }
        if !remove.is_empty() {
            let call = logs.untag_resource().resource_arn(arn(&self.aws.scope, name)).set_tag_keys(Some(remove));
            call.send().await.map_err(failed("logs:UntagResource"))?;
        }
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let call = self.aws.logs.delete_log_group().log_group_name(&found.id);
        match optional(call.send().await.map_err(failed("logs:DeleteLogGroup"))) {
            Err(error) if error.code.as_deref() == Some("ValidationException") => {
                Err(self.protected(&found.id, error).await)
            }
            answer => answer.map(|_| true),
        }
    }
}

/// The note about a group whose retention a policy of the account sets.
fn decided(address: &Address, group: &Group) -> Option<String> {
    let policy = group.retention_policy_name()?;
    let name = group.log_group_name().unwrap_or_default();
    let time = group.retention_in_days().map_or("for ever".to_owned(), |days| format!("for {days} days"));
    Some(format!(
        "{address}: log group `{name}` keeps its events {time}: the account's retention policy `{policy}` \
         overrides the spec"
    ))
}
