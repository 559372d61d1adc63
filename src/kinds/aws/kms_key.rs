use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_kms::config::Builder;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::types::{KeyMetadata, KeyState, Tag};
use aws_smithy_types::date_time::Format;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::costs::{Cost, Unit};
use super::eks::{built, gather, listed, optional};
use super::foreign::{TagStyle, claim, foreign};
use super::permission::{self, On, When};
use super::policy;
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::{self, Tags};
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Repair, Round, Rule, Scope, Status, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.kms-key";

/// A tag that this kind writes in addition to the state's tags. It is never part of the state.
const WINDOW: &str = "ringfence.dev/deletion-window";
/// KMS's own default, in days (ScheduleKeyDeletion).
const DEFAULT_WINDOW: i32 = 30;
/// KMS's own default, in days (EnableKeyRotation).
const DEFAULT_ROTATION: i32 = 365;

/// A symmetric key with its alias, rotation and policy. A key that is pending deletion counts as absent, except if
/// its alias exists. This kind deletes the alias first, so a key with an alias was scheduled for deletion by someone
/// else, and that deletion is canceled. Outputs: `id`, `arn`, `alias`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Includes the prefix `alias/`.
    pub alias: String,
    pub description: String,
    pub policy: Value,
    pub rotation: bool,
    /// Days between rotations.
    pub rotation_days: i32,
    /// 7 to 30 days. The value is used when the key is deleted, so the tag `ringfence.dev/deletion-window` stores it,
    /// too.
    pub deletion_window_days: i32,
    pub tags: BTreeMap<String, String>,
}

pub struct KmsKey;

pub struct KmsKeyHandlers {
    aws: Arc<Aws>,
    /// Ids of the keys that this run created, by token. If a creation failed after CreateKey, its retry continues
    /// with this key: KMS has neither client tokens nor unique names.
    made: Mutex<BTreeMap<String, String>>,
}

impl KmsKeyHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws, made: Mutex::default() }
    }

    /// Every alias with the id of its key. Aliases without a key are AWS's own before their first use.
    async fn aliases(&self) -> Result<BTreeMap<String, String>> {
        let mut pages = self.aws.kms.list_aliases().limit(100).into_paginator().items().send();
        let mut aliases = BTreeMap::new();
        while let Some(alias) = pages.next().await {
            let alias = alias.map_err(failed("kms:ListAliases"))?;
            if let (Some(name), Some(key)) = (alias.alias_name, alias.target_key_id) {
                aliases.insert(name, key);
            }
        }
        Ok(aliases)
    }

    /// Keys without an alias. One of ours whose creation was interrupted may be among them.
    async fn unaliased(&self, aliases: &BTreeMap<String, String>) -> Result<Vec<String>> {
        let aliased: BTreeSet<&String> = aliases.values().collect();
        let mut pages = self.aws.kms.list_keys().limit(1000).into_paginator().items().send();
        let mut keys = Vec::new();
        while let Some(key) = pages.next().await {
            let key = key.map_err(failed("kms:ListKeys"))?;
            keys.extend(key.key_id.filter(|id| !aliased.contains(id)));
        }
        Ok(keys)
    }

    async fn tags(&self, key: &str) -> Result<Tags> {
        let mut pages = self.aws.kms.list_resource_tags().key_id(key).into_paginator().items().send();
        let mut tags = Tags::new();
        while let Some(tag) = pages.next().await {
            let tag = tag.map_err(failed("kms:ListResourceTags"))?;
            tags.insert(tag.tag_key, tag.tag_value);
        }
        Ok(tags)
    }

    async fn describe(&self, key: &str) -> Result<Option<KeyMetadata>> {
        let answer = self.aws.kms.describe_key().key_id(key).send().await.map_err(failed("kms:DescribeKey"));
        Ok(optional(answer)?.and_then(|o| o.key_metadata))
    }

    /// A key with the tags `has`, if it is ours and not deleted by us.
    async fn found(&self, key: &str, alias: Option<&str>, has: &Tags) -> Result<Option<Found>> {
        let Some((address, generation)) = self.aws.owned(has) else {
            return Ok(None);
        };
        let kms = &self.aws.kms;
        let (metadata, policy, rotation) = futures::join!(
            self.describe(key),
            kms.get_key_policy().key_id(key).policy_name("default").send(),
            kms.get_key_rotation_status().key_id(key).send(),
        );
        let leaves = |m: &KeyMetadata| alias.is_none() && is_leaving(m);
        let metadata = listed(metadata?, "kms:DescribeKey", key)?;
        if leaves(&metadata) {
            return Ok(None);
        }
        let policy = policy.map_err(failed("kms:GetKeyPolicy"))?;
        let rotation = rotation.map_err(failed("kms:GetKeyRotationStatus"))?;
        let alias = alias.unwrap_or_default();
        let mut tags = self.aws.observed(has);
        let window = tags.remove(WINDOW).and_then(|days| days.parse().ok());
        let state = State {
            alias: alias.to_owned(),
            description: metadata.description().unwrap_or_default().to_owned(),
            policy: policy::parse(policy.policy().unwrap_or_default()),
            rotation: rotation.key_rotation_enabled(),
            rotation_days: rotation.rotation_period_in_days().unwrap_or(DEFAULT_ROTATION),
            deletion_window_days: window.unwrap_or(DEFAULT_WINDOW),
            tags,
        };
        let status = match metadata.key_state() {
            Some(KeyState::Enabled) | None => Status::Ready,
            Some(s @ (KeyState::Creating | KeyState::Updating)) => Status::Pending(s.as_str().to_owned()),
            Some(KeyState::Disabled) => {
                Status::Failed { why: "the key is disabled".to_owned(), repair: Repair::Update }
            }
            Some(KeyState::PendingDeletion) => {
                let date = metadata.deletion_date().map(|date| date.fmt(Format::DateTime).unwrap_or_default());
                let date = date.unwrap_or_else(|| "an unknown date".to_owned());
                Status::Failed { why: format!("it is scheduled for deletion on {date}"), repair: Repair::Update }
            }
            Some(other) => {
                Status::Failed { why: format!("the key's state is {}", other.as_str()), repair: Repair::Manual }
            }
        };
        Ok(Some(Found {
            address,
            generation,
            id: metadata.key_id().to_owned(),
            outputs: outputs(&metadata, alias),
            state: Packed::of(&state)?,
            status,
            refs: Vec::new(),
        }))
    }

    /// Our keys with or without alias, and keys of others under a wanted alias.
    async fn read(&self, wanted: &[Wanted]) -> Result<Observation> {
        let aliases = self.aliases().await?;
        let unaliased = self.unaliased(&aliases).await?;
        let prefix = format!("alias/ringfence/{}-", self.aws.tenancy);
        let mut named = BTreeMap::new();
        for Wanted { address, state } in wanted {
            named.insert(state.typed::<State>()?.alias, address);
        }
        // By key, because two aliases may belong to one key. A wanted alias takes precedence.
        let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
        for (alias, key) in &aliases {
            if named.contains_key(alias) || (alias.starts_with(&prefix) && !keys.contains_key(key.as_str())) {
                keys.insert(key, alias);
            }
        }
        let mut seen = Observation::default();
        let aliased = gather(keys, |(key, alias)| async move {
            let has = self.tags(key).await?;
            Ok((key, alias, self.found(key, Some(alias), &has).await?, has))
        });
        for (key, alias, found, has) in aliased.await? {
            match (found, named.get(alias)) {
                (Some(found), _) => seen.found.push(found),
                (None, Some(address))
                    if self.aws.owned(&has).is_none() && self.describe(key).await?.is_some_and(|m| !is_leaving(&m)) =>
                {
                    let command = format!("aws kms tag-resource --key-id {key}");
                    let what = format!("the KMS key `{key}` with the alias `{alias}`");
                    seen.foreign.push(foreign(&self.aws, address, key, &what, &has, &command, TagStyle::TagKey));
                }
                (None, _) => {}
            }
        }
        let lost = gather(unaliased, |key| async move {
            match self.tags(&key).await {
                Ok(has) => self.found(&key, None, &has).await.map(|found| (key, Some(found))),
                // Other owners' key policies often deny this read. Ours allow it to their own account.
                Err(error) if error.class == Class::Denied => Ok((key, None)),
                Err(error) => Err(error),
            }
        });
        let mut unread = Vec::new();
        for (key, found) in lost.await? {
            match found {
                Some(found) => seen.found.extend(found),
                None => unread.push(key),
            }
        }
        if !unread.is_empty() {
            seen.notes.push(format!(
                "KMS keys without an alias whose tags can't be read, so they count as not ours: {}",
                unread.join(", "),
            ));
        }
        Ok(seen)
    }

    /// Points `alias` at `key`. The alias may still point at a key of ours that is pending deletion.
    async fn name_key(&self, alias: &str, key: &str, new: &New) -> Result<()> {
        let kms = &self.aws.kms;
        let made = kms.create_alias().alias_name(alias).target_key_id(key).send().await;
        let Err(taken) = made.map_err(failed("kms:CreateAlias")) else {
            return Ok(());
        };
        if taken.class != Class::Exists {
            return Err(taken);
        }
        let has = self.aliases().await?.get(alias).cloned();
        if let Some(other) = has.filter(|other| other != key) {
            let has = self.tags(&other).await?;
            if self.aws.owned(&has).is_none_or(|(address, _)| address != new.address) {
                return claim(&self.aws, new, Some(&has), taken);
            }
            kms.update_alias().alias_name(alias).target_key_id(key).send().await.map_err(failed("kms:UpdateAlias"))?;
        }
        Ok(())
    }

    async fn rotate(&self, key: &str, state: &State) -> Result<()> {
        let kms = &self.aws.kms;
        if state.rotation {
            kms.enable_key_rotation()
                .key_id(key)
                .rotation_period_in_days(state.rotation_days)
                .send()
                .await
                .map_err(failed("kms:EnableKeyRotation"))?;
        } else {
            kms.disable_key_rotation().key_id(key).send().await.map_err(failed("kms:DisableKeyRotation"))?;
        }
        Ok(())
    }
}

impl Kind for KmsKey {
    fn name(&self) -> &'static str {
        NAME
    }

    fn unlocks_data(&self) -> bool {
        true
    }

    fn creates_once(&self) -> bool {
        false
    }

    fn loses(&self, found: &Found, _replaced: bool) -> Option<String> {
        let state: State = found.state.typed().ok()?;
        Some(format!(
            "all data encrypted with key {}, after the waiting period of {} days; until then `aws kms cancel-key-deletion` cancels the deletion",
            found.id, state.deletion_window_days
        ))
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("policy", Rule::Mentions)]
    }

    fn predict(&self, new: &New, _scope: &Scope) -> Outputs {
        new.state.typed::<State>().map(|s| Outputs::from([("alias".to_owned(), s.alias)])).unwrap_or_default()
    }

    fn moves(&self, changes: &[Change]) -> &'static [&'static str] {
        if changes.iter().any(|c| c.path == "alias") { &["alias"] } else { &[] }
    }

    fn summary(&self, state: &Packed) -> String {
        state.typed::<State>().map(|s| s.alias).unwrap_or_default()
    }
}

impl ResourceKind for KmsKey {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(KmsKeyHandlers::new(clients.aws.clone()))
    }

    fn costs(&self, _state: &Packed) -> Vec<Cost> {
        vec![Cost::fixed(Unit::KeyMonth, 1)]
    }

    fn reads(&self) -> &'static [&'static str] {
        &[
            "kms:DescribeKey",
            "kms:GetKeyPolicy",
            "kms:GetKeyRotationStatus",
            "kms:ListAliases",
            "kms:ListKeys",
            "kms:ListResourceTags",
        ]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["kms:CreateKey", "kms:TagResource"]),
            // Tags may take minutes until they count for access (KMS Developer Guide, "ABAC for AWS KMS"), and these
            // actions are called immediately after the key is created.
            (On::Keys, When::Made, &["kms:CreateAlias"]),
            (On::Keys, When::Perhaps, &["kms:EnableKeyRotation"]),
            (On::Aliases, When::Made, &["kms:CreateAlias"]),
            (On::Aliases, When::Perhaps, &["kms:DeleteAlias", "kms:UpdateAlias"]),
            (On::Ours, When::Gone, &["kms:ScheduleKeyDeletion"]),
            (On::Ours, When::Tagged, &["kms:TagResource"]),
            (
                On::Ours,
                When::Perhaps,
                &[
                    "kms:CancelKeyDeletion",
                    "kms:DeleteAlias",
                    "kms:DisableKeyRotation",
                    "kms:EnableKey",
                    "kms:PutKeyPolicy",
                    "kms:UntagResource",
                    "kms:UpdateAlias",
                    "kms:UpdateKeyDescription",
                ],
            ),
        ]
    }
}

#[async_trait]
impl Handlers for KmsKeyHandlers {
    async fn observe(&self, _round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        self.read(wanted).await
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let mut wanted = Vec::new();
        for handle in handles {
            wanted.push(Wanted { address: handle.address.clone(), state: handle.state.clone() });
        }
        let found = self.read(&wanted).await?.found;
        let find = |h: &Handle| {
            let same = |f: &&Found| f.address == h.address && (h.id.is_empty() || f.id == h.id);
            found.iter().find(same).cloned()
        };
        Ok(handles.iter().map(find).collect())
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&new.token).cloned();
        let key = match made {
            Some(key) => key,
            None => {
                let answer = self
                    .aws
                    .kms
                    .create_key()
                    .description(&state.description)
                    .policy(state.policy.to_string())
                    .set_tags(Some(sdk_tags(&tags::with_generation(&all_tags(&state), new.generation))?))
                    .customize()
                    .config_override(Builder::default().retry_config(RetryConfig::disabled()))
                    .send()
                    .await
                    .map_err(failed("kms:CreateKey"))?;
                let key = answer.key_metadata().map(|k| k.key_id().to_owned()).unwrap_or_default();
                if key.is_empty() {
                    return Err(Error::new(Class::Unclear, "the answer names no key").operation("kms:CreateKey"));
                }
                self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(new.token.clone(), key.clone());
                key
            }
        };
        self.name_key(&state.alias, &key, new).await?;
        if state.rotation {
            self.rotate(&key, &state).await?;
        }
        let scope = &self.aws.scope;
        let arn = format!("arn:{}:kms:{}:{}:key/{key}", scope.partition, scope.region, scope.account);
        let outputs =
            Outputs::from([("id".to_owned(), key.clone()), ("arn".to_owned(), arn), ("alias".to_owned(), state.alias)]);
        Ok(Made { id: key, outputs, ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (before, after): (State, State) = (from.state.typed()?, to.state.typed()?);
        let (kms, key) = (&self.aws.kms, from.id.as_str());
        if matches!(from.status, Status::Failed { repair: Repair::Update, .. }) {
            // Someone else has disabled the key or scheduled its deletion.
            if self.describe(key).await?.is_some_and(|metadata| is_leaving(&metadata)) {
                self.call_off(key).await?;
                // Aliases are eventually consistent: the key may be gone.
                self.name_key(&before.alias, key, to).await?;
            }
            kms.enable_key().key_id(key).send().await.map_err(failed("kms:EnableKey")).map_err(not_yet)?;
        }
        if before.policy != after.policy {
            kms.put_key_policy()
                .key_id(key)
                .policy_name("default")
                .policy(after.policy.to_string())
                .send()
                .await
                .map_err(failed("kms:PutKeyPolicy"))?;
        }
        if before.description != after.description {
            kms.update_key_description()
                .key_id(key)
                .description(&after.description)
                .send()
                .await
                .map_err(failed("kms:UpdateKeyDescription"))?;
        }
        if before.alias != after.alias {
            self.name_key(&after.alias, key, to).await?;
            self.forget(&before.alias).await?;
        }
        if (before.rotation, before.rotation_days) != (after.rotation, after.rotation_days) {
            self.rotate(key, &after).await?;
        }
        let (write, remove) = tags::difference(&all_tags(&before), &all_tags(&after));
        if !write.is_empty() {
            kms.tag_resource()
                .key_id(key)
                .set_tags(Some(sdk_tags(&write)?))
                .send()
                .await
                .map_err(failed("kms:TagResource"))?;
        }
        if !remove.is_empty() {
            kms.untag_resource()
                .key_id(key)
                .set_tag_keys(Some(remove))
                .send()
                .await
                .map_err(failed("kms:UntagResource"))?;
        }
        let mut outputs = from.outputs.clone();
        outputs.insert("alias".to_owned(), after.alias);
        Ok(Made { id: from.id.clone(), outputs, ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        self.forget(&state.alias).await?;
        let answer = self
            .aws
            .kms
            .schedule_key_deletion()
            .key_id(&found.id)
            .pending_window_in_days(state.deletion_window_days)
            .send()
            .await
            .map_err(failed("kms:ScheduleKeyDeletion"));
        match answer {
            // A key whose deletion is scheduled can't be scheduled again (KMS API, "ScheduleKeyDeletion").
            Err(error) if error.message.contains("pending deletion") => Ok(true),
            other => optional(other).map(|_| true),
        }
    }
}

impl KmsKeyHandlers {
    async fn call_off(&self, key: &str) -> Result<()> {
        let answer = self.aws.kms.cancel_key_deletion().key_id(key).send().await;
        match answer.map_err(failed("kms:CancelKeyDeletion")) {
            // The answer to an earlier attempt was lost. If the key is in another state, the next call reports it.
            Err(error) if is_invalid_state(&error) => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn forget(&self, alias: &str) -> Result<()> {
        if alias.is_empty() {
            return Ok(());
        }
        let answer = self.aws.kms.delete_alias().alias_name(alias).send().await;
        optional(answer.map_err(failed("kms:DeleteAlias"))).map(drop)
    }
}

fn is_leaving(key: &KeyMetadata) -> bool {
    matches!(key.key_state(), Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion))
}

fn is_invalid_state(error: &Error) -> bool {
    error.code.as_deref() == Some("KMSInvalidStateException")
}

/// A canceled deletion may still be shown for a moment (KMS Developer Guide, "Eventual consistency").
fn not_yet(error: Error) -> Error {
    if is_invalid_state(&error) { Error { class: Class::NotYet, ..error } } else { error }
}

/// The state's tags and the deletion window.
fn all_tags(state: &State) -> Tags {
    let mut tags = state.tags.clone();
    tags.insert(WINDOW.to_owned(), state.deletion_window_days.to_string());
    tags
}

fn sdk_tags(tags: &Tags) -> Result<Vec<Tag>> {
    tags.iter().map(|(k, v)| built(Tag::builder().tag_key(k).tag_value(v).build())).collect()
}

fn outputs(key: &KeyMetadata, alias: &str) -> Outputs {
    Outputs::from([
        ("id".to_owned(), key.key_id().to_owned()),
        ("arn".to_owned(), key.arn().unwrap_or_default().to_owned()),
        ("alias".to_owned(), alias.to_owned()),
    ])
}
