//! CloudWatch Logs: log groups, their retention, key and tags; streams by name, without events.

use super::kms::Kms;
use super::pages::{self, Pages};
use super::state::State;
use super::tags::{Tags, check_tag};
use super::wire::{Fault, Reply, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Logs {
    groups: BTreeMap<String, Group>,
    /// The account-level retention policies, by name.
    #[serde(default)]
    retentions: BTreeMap<String, Retention>,
}

/// An account-level retention policy. It overrides the retention of groups, from one day after its creation on
/// (CloudWatch Logs API, "PutAccountPolicy").
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Retention {
    created: f64,
    /// When it takes effect.
    since: f64,
    /// Days; none is for ever.
    days: Option<u64>,
    /// Prefixes of group names. Empty: every group.
    prefixes: Vec<String>,
    /// True: only for groups that are created later.
    new_only: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Group {
    /// Unix seconds.
    created: f64,
    /// Days; none is for ever.
    retention: Option<u64>,
    /// ARN.
    key: Option<String>,
    class: String,
    protected: bool,
    tags: Tags,
    /// Streams and when they were created (unix seconds).
    streams: BTreeMap<String, f64>,
}

const DAYS: &[u64] =
    &[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

pub fn call(state: &mut State, req: &Request) -> Reply {
    let region = state.region(&req.account, &req.region);
    region.logs.call(&region.kms, req)
}

impl Logs {
    /// Makes a missing group, as a service does for itself: without encryption and without retention.
    pub fn ensure(&mut self, name: &str, now: f64) {
        let class = "STANDARD".to_owned();
        self.groups.entry(name.to_owned()).or_insert(Group { created: now, class, ..Group::default() });
    }

    fn call(&mut self, kms: &Kms, req: &Request) -> Reply {
        match req.operation.as_str() {
            "CreateLogGroup" => self.create(kms, req),
            "DescribeLogGroups" => self.describe(req),
            "DeleteLogGroup" => {
                let (name, group) = self.group(req)?;
                // CloudWatch Logs API, "DeleteLogGroup" (ValidationException); user guide, "Protecting log groups from
                // deletion". The text isn't public.
                if group.protected {
                    let message = format!("Log group {name} has deletion protection: turn it off before deleting it");
                    return Err(Fault::new(400, "ValidationException", message));
                }
                self.groups.remove(&name);
                Ok(json!({}))
            }
            "PutLogGroupDeletionProtection" => {
                let identifier = req.text("logGroupIdentifier").unwrap_or_default();
                let name = identifier.rsplit(":log-group:").next().unwrap_or_default().to_owned();
                let on = req.params["deletionProtectionEnabled"] == true;
                self.groups.get_mut(&name).ok_or_else(missing)?.protected = on;
                Ok(json!({}))
            }
            "PutAccountPolicy" => self.put_account_policy(req),
            "DeleteAccountPolicy" => {
                self.retentions.remove(&req.text("policyName").unwrap_or_default()).ok_or_else(missing)?;
                Ok(json!({}))
            }
            "PutRetentionPolicy" => {
                let days = req.params.get("retentionInDays").and_then(Value::as_u64).unwrap_or_default();
                if !DAYS.contains(&days) {
                    let message = format!(
                        "1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: {DAYS:?}"
                    );
                    return Err(invalid(message));
                }
                self.group(req)?.1.retention = Some(days);
                Ok(json!({}))
            }
            "DeleteRetentionPolicy" => {
                self.group(req)?.1.retention = None;
                Ok(json!({}))
            }
            "AssociateKmsKey" => {
                let arn = req.text("kmsKeyId").unwrap_or_default();
                let (name, group) = self.group(req)?;
                usable(kms, req, &arn, &name)?;
                group.key = Some(arn);
                Ok(json!({}))
            }
            "DisassociateKmsKey" => {
                self.group(req)?.1.key = None;
                Ok(json!({}))
            }
            "TagResource" => tag(self.by_arn(req)?, req),
            "TagLogGroup" => tag(self.group(req)?.1, req),
            "UntagResource" => untag(self.by_arn(req)?, req.texts("tagKeys")),
            "UntagLogGroup" => untag(self.group(req)?.1, req.texts("tags")),
            "ListTagsForResource" => Ok(json!({"tags": self.by_arn(req)?.tags})),
            "ListTagsLogGroup" => Ok(json!({"tags": self.group(req)?.1.tags})),
            "CreateLogStream" => {
                let stream = req.text("logStreamName").filter(|name| !name.contains([':', '*']));
                let stream = stream.ok_or_else(|| invalid("logStreamName must be there, without : and *"))?;
                let streams = &mut self.group(req)?.1.streams;
                if streams.contains_key(&stream) {
                    return Err(Fault::new(
                        400,
                        "ResourceAlreadyExistsException",
                        "The specified log stream already exists",
                    ));
                }
                streams.insert(stream, req.now);
                Ok(json!({}))
            }
            "DescribeLogStreams" => {
                let prefix = req.text("logStreamNamePrefix").unwrap_or_default();
                let (group, Group { streams, .. }) = self.group(req)?;
                let streams = streams.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(name, created)| {
                    let arn = req.arn(&format!("log-group:{group}:log-stream:{name}"));
                    let wire = json!({
                        "logStreamName": name, "creationTime": millis(*created), "arn": arn, "storedBytes": 0,
                    });
                    (name.clone(), wire)
                });
                paged(req, "logStreams", streams)
            }
            _ => Err(req.unknown_operation()),
        }
    }

    fn group(&mut self, req: &Request) -> Result<(String, &mut Group), Fault> {
        let name = req.text("logGroupName").ok_or_else(|| invalid("logGroupName must not be null"))?;
        let group = self.groups.get_mut(&name).ok_or_else(missing)?;
        Ok((name, group))
    }

    /// The group of an ARN. The tagging calls accept no ARN with `:*` at its end.
    fn by_arn(&mut self, req: &Request) -> Result<&mut Group, Fault> {
        let arn = req.text("resourceArn").unwrap_or_default();
        let name = arn.strip_prefix(&req.arn("log-group:")).filter(|name| !name.ends_with(":*"));
        let name = name.ok_or_else(|| invalid(format!("Invalid resource ARN: {arn}")))?;
        self.groups.get_mut(name).ok_or_else(missing)
    }

    fn create(&mut self, kms: &Kms, req: &Request) -> Reply {
        let name = req.text("logGroupName").unwrap_or_default();
        let named = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/#".contains(c));
        if !named || !(1..=512).contains(&name.len()) || name.starts_with("aws/") {
            let message =
                format!("Log group name {name:?} must have 1–512 letters, digits and ._-/# and not begin with aws/");
            return Err(invalid(message));
        }
        let class = req.text("logGroupClass").unwrap_or_else(|| "STANDARD".to_owned());
        if !["STANDARD", "INFREQUENT_ACCESS", "DELIVERY"].contains(&class.as_str()) {
            return Err(invalid(format!("Unknown logGroupClass {class}")));
        }
        let key = req.text("kmsKeyId");
        if let Some(arn) = &key {
            usable(kms, req, arn, &name)?;
        }
        if self.groups.contains_key(&name) {
            return Err(Fault::new(400, "ResourceAlreadyExistsException", "The specified log group already exists"));
        }
        let protected = req.params["deletionProtectionEnabled"] == true;
        let mut group = Group { created: req.now, key, class, protected, ..Group::default() };
        tag(&mut group, req)?;
        self.groups.insert(name, group);
        Ok(json!({}))
    }

    fn put_account_policy(&mut self, req: &Request) -> Reply {
        let name = req.text("policyName").ok_or_else(|| invalid("policyName must not be null"))?;
        if req.text("policyType").as_deref() != Some("RETENTION_POLICY") {
            return Err(invalid("ringfence's sandbox has account policies of the type RETENTION_POLICY only"));
        }
        let document = req.text("policyDocument").unwrap_or_default();
        let document: Value = serde_json::from_str(&document).map_err(|_| invalid("The policy is no JSON"))?;
        let days = document["retentionInDays"].as_u64();
        let valid =
            days.map_or(document["retentionInDays"] == "NEVER_EXPIRE", |days| days >= 30 && DAYS.contains(&days));
        let mode = document["enforcementMode"].as_str().unwrap_or_default();
        if !valid || !["NEW_ONLY", "RETROACTIVE"].contains(&mode) {
            return Err(invalid("retentionInDays or enforcementMode isn't valid"));
        }
        let prefixes = match req.text("selectionCriteria") {
            None => Vec::new(),
            Some(text) => text
                .strip_prefix("LogGroupNamePrefix IN ")
                .and_then(|list| serde_json::from_str(list).ok())
                .ok_or_else(|| invalid("selectionCriteria isn't valid"))?,
        };
        let created = self.retentions.get(&name).map_or(req.now, |before| before.created);
        let since = req.now + 86_400.0;
        self.retentions.insert(name, Retention { created, since, days, prefixes, new_only: mode == "NEW_ONLY" });
        Ok(json!({}))
    }

    /// The account-level policy for a group: the longest of several; of equal ones, the oldest.
    fn retention(&self, name: &str, group: &Group, now: f64) -> Option<(&str, &Retention)> {
        let of = self.retentions.iter().filter(|(_, one)| {
            let selected = one.prefixes.is_empty() || one.prefixes.iter().any(|prefix| name.starts_with(prefix));
            selected && one.since <= now && (!one.new_only || group.created > one.created)
        });
        let longest = of.max_by(|(_, a), (_, b)| {
            let days = |one: &Retention| one.days.unwrap_or(u64::MAX);
            days(a).cmp(&days(b)).then(b.created.total_cmp(&a.created))
        });
        longest.map(|(policy, one)| (policy.as_str(), one))
    }

    fn describe(&self, req: &Request) -> Reply {
        let (prefix, pattern) = (req.text("logGroupNamePrefix"), req.text("logGroupNamePattern"));
        if prefix.is_some() && pattern.is_some() {
            return Err(invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."));
        }
        let only = req.texts("logGroupIdentifiers");
        let class = req.text("logGroupClass");
        let pattern = pattern.unwrap_or_default().to_lowercase();
        let groups = self.groups.iter().filter(|(name, group)| {
            prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix))
                && name.to_lowercase().contains(&pattern)
                && class.as_ref().is_none_or(|class| group.class == *class)
                && (only.is_empty() || only.iter().any(|one| one.rsplit(":log-group:").next() == Some(name)))
        });
        let groups = groups.map(|(name, group)| {
            let arn = req.arn(&format!("log-group:{name}"));
            let mut wire = json!({
                "logGroupName": name, "creationTime": millis(group.created), "metricFilterCount": 0,
                "arn": format!("{arn}:*"), "storedBytes": 0, "logGroupClass": group.class, "logGroupArn": arn,
                "deletionProtectionEnabled": group.protected,
            });
            let retention = self.retention(name, group, req.now);
            let days = retention.map_or(group.retention, |(_, retention)| retention.days);
            if let Some(days) = days {
                wire["retentionInDays"] = days.into();
            }
            if let Some((policy, _)) = retention {
                wire["retentionPolicyName"] = policy.into();
            }
            if let Some(key) = &group.key {
                wire["kmsKeyId"] = key.as_str().into();
            }
            (name.clone(), wire)
        });
        paged(req, "logGroups", groups)
    }
}

/// Checks the key of a group: it must be in this region and enabled, and its policy must allow the service. The error
/// is AccessDenied (hashicorp/terraform-provider-aws issue 29282, hashicorp/terraform issue 24194).
fn usable(kms: &Kms, req: &Request, arn: &str, group: &str) -> Result<(), Fault> {
    let service = format!("logs.{}.{}", req.region, super::state::dns_suffix(&req.region));
    let fine = kms.by_arn(arn).is_some_and(|key| {
        key.enabled().is_ok()
            && [service.as_str(), "logs.amazonaws.com"].iter().any(|who| key.allows("Service", who, "kms:Encrypt"))
    });
    let message = || {
        let group = req.arn(&format!("log-group:{group}"));
        format!("The specified KMS key does not exist or is not allowed to be used with Arn '{group}'")
    };
    if fine { Ok(()) } else { Err(Fault::new(400, "AccessDeniedException", message())) }
}

fn tag(group: &mut Group, req: &Request) -> Reply {
    let mut tags = group.tags.clone();
    for (key, value) in req.params.get("tags").and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        check_tag(key, value).map_err(|(at, rule)| invalid(format!("Tag {key:?}: {at}: {rule}")))?;
        tags.insert(key.clone(), value.to_owned());
    }
    if tags.len() > 50 {
        return Err(Fault::new(400, "TooManyTagsException", "A log group can have 50 tags"));
    }
    group.tags = tags;
    Ok(json!({}))
}

fn untag(group: &mut Group, keys: Vec<String>) -> Reply {
    group.tags.retain(|key, _| !keys.contains(key));
    Ok(json!({}))
}

fn paged(req: &Request, list: &str, all: impl Iterator<Item = (String, Value)>) -> Reply {
    const PAGES: Pages = Pages { size: "limit", token: "nextToken", next: "nextToken", usual: 50, most: 50 };
    pages::paged(req, &PAGES, list, all).map_err(invalid)
}

fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

fn missing() -> Fault {
    Fault::new(400, "ResourceNotFoundException", "The specified log group does not exist.")
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(400, "InvalidParameterException", message)
}
