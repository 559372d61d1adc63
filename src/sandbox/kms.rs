//! KMS: symmetric customer keys, their policies, aliases and rotation.

use super::iam::document::{allows, check_shape, principal_exists, principals, statements};
use super::pages::{self, Pages};
use super::state::State;
use super::tags::{Tags, check_tag};
use super::wire::{Fault, Reply, Request, texts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Kms {
    /// By key id.
    keys: BTreeMap<String, Key>,
    /// Aliases by name (`alias/…`).
    aliases: BTreeMap<String, Alias>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Key {
    id: String,
    pub arn: String,
    created: f64,
    description: String,
    enabled: bool,
    /// When the key is deleted (unix seconds).
    deletion: Option<f64>,
    /// JSON.
    policy: String,
    pub tags: Tags,
    /// Days between rotations, and the start (unix seconds).
    rotation: Option<(u32, f64)>,
    grants: Vec<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Alias {
    key: String,
    created: f64,
    updated: f64,
}

const DAY: f64 = 86_400.0;

pub fn call(state: &mut State, req: &Request) -> Reply {
    let kms = &mut state.region(&req.account, &req.region).kms;
    kms.settle(req.now);
    match req.operation.as_str() {
        "CreateKey" => create_key(state, req),
        "PutKeyPolicy" => {
            let policy = checked_policy(state, req, &required(req, "Policy")?)?;
            policy_name(req)?;
            let kms = &mut state.region(&req.account, &req.region).kms;
            kms.changeable(req)?.policy = policy;
            Ok(json!({}))
        }
        "CreateGrant" => {
            let (id, token) = (state.ids.hex(64).to_lowercase(), state.ids.hex(64));
            let kms = &mut state.region(&req.account, &req.region).kms;
            let key = kms.usable(req)?;
            let mut grant = json!({
                "KeyId": key.arn, "GrantId": id, "CreationDate": req.now,
                "IssuingAccount": format!("arn:{}:iam::{}:root", req.partition(), req.account),
            });
            for member in ["Name", "GranteePrincipal", "RetiringPrincipal", "Operations", "Constraints"] {
                if let Some(value) = req.params.get(member) {
                    grant[member] = value.clone();
                }
            }
            key.grants.push(grant);
            Ok(json!({"GrantId": id, "GrantToken": token}))
        }
        _ => kms.call(req),
    }
}

impl Kms {
    #[expect(clippy::too_many_lines, reason = "one branch for each action of the service")]
    fn call(&mut self, req: &Request) -> Reply {
        match req.operation.as_str() {
            "DescribeKey" => {
                let key = self.find(&required(req, "KeyId")?, req, true)?;
                Ok(json!({"KeyMetadata": key.metadata(req)}))
            }
            "ListKeys" => {
                let keys = self.keys.values();
                paged(req, "Keys", keys.map(|key| (key.id.clone(), json!({"KeyId": key.id, "KeyArn": key.arn}))))
            }
            "ListAliases" => {
                let only = match req.text("KeyId") {
                    Some(id) => Some(self.find(&id, req, false)?.id.clone()),
                    None => None,
                };
                let wanted = self.aliases.iter().filter(|(_, alias)| only.as_ref().is_none_or(|id| *id == alias.key));
                let aliases = wanted.map(|(name, alias)| {
                    let wire = json!({
                        "AliasName": name, "AliasArn": req.arn(name), "TargetKeyId": alias.key,
                        "CreationDate": alias.created, "LastUpdatedDate": alias.updated,
                    });
                    (name.clone(), wire)
                });
                paged(req, "Aliases", aliases)
            }
            "CreateAlias" | "UpdateAlias" => self.put_alias(req),
            "DeleteAlias" => {
                let name = required(req, "AliasName")?;
                self.aliases.remove(&name).map(|_| json!({})).ok_or_else(|| no_alias(req, &name))
            }
            "EnableKeyRotation" => {
                let days = match req.params.get("RotationPeriodInDays") {
                    Some(days) => days
                        .as_u64()
                        .and_then(|days| u32::try_from(days).ok())
                        .filter(|days| (90..=2560).contains(days)),
                    None => Some(365),
                };
                let days = days.ok_or_else(|| validation("RotationPeriodInDays must be between 90 and 2560"))?;
                let key = self.usable(req)?;
                let since = key.rotation.map_or(req.now, |(_, since)| since);
                key.rotation = Some((days, since));
                Ok(json!({}))
            }
            "DisableKeyRotation" => {
                self.usable(req)?.rotation = None;
                Ok(json!({}))
            }
            "GetKeyRotationStatus" => {
                let key = self.key(req)?;
                let mut reply = json!({"KeyId": key.arn, "KeyRotationEnabled": false});
                if let (Some((days, since)), None) = (key.rotation, key.deletion) {
                    let period = f64::from(days) * DAY;
                    let rotations = ((req.now - since) / period).floor() + 1.0;
                    reply["KeyRotationEnabled"] = true.into();
                    reply["RotationPeriodInDays"] = days.into();
                    reply["NextRotationDate"] = (since + rotations * period).into();
                }
                Ok(reply)
            }
            "GetKeyPolicy" => {
                policy_name(req)?;
                Ok(json!({"Policy": self.key(req)?.policy, "PolicyName": "default"}))
            }
            "ListKeyPolicies" => {
                self.key(req)?;
                Ok(json!({"PolicyNames": ["default"], "Truncated": false}))
            }
            "ListResourceTags" => {
                let tags = self.key(req)?.tags.iter();
                paged(req, "Tags", tags.map(|(key, value)| (key.clone(), json!({"TagKey": key, "TagValue": value}))))
            }
            "TagResource" => {
                let new = new_tags(req)?;
                let key = self.changeable(req)?;
                let mut tags = key.tags.clone();
                tags.extend(new);
                key.tags = at_most_50(tags)?;
                Ok(json!({}))
            }
            "UntagResource" => {
                let key = self.changeable(req)?;
                for name in req.texts("TagKeys") {
                    key.tags.remove(&name);
                }
                Ok(json!({}))
            }
            "ScheduleKeyDeletion" => {
                let days = req.params.get("PendingWindowInDays").map_or(Some(30), Value::as_u64);
                let days = days.filter(|days| (7..=30).contains(days));
                let days = days.ok_or_else(|| validation("PendingWindowInDays must be between 7 and 30 days"))?;
                let key = self.changeable(req)?;
                let at = req.now + days as f64 * DAY;
                key.deletion = Some(at);
                key.enabled = false;
                Ok(
                    json!({"KeyId": key.arn, "DeletionDate": at, "KeyState": "PendingDeletion", "PendingWindowInDays": days}),
                )
            }
            "CancelKeyDeletion" => {
                let key = self.key(req)?;
                if key.deletion.take().is_none() {
                    return Err(invalid_state(format!("{} is not pending deletion.", key.arn)));
                }
                Ok(json!({"KeyId": key.arn}))
            }
            "EnableKey" | "DisableKey" => {
                self.changeable(req)?.enabled = req.operation == "EnableKey";
                Ok(json!({}))
            }
            "UpdateKeyDescription" => {
                self.changeable(req)?.description = req.text("Description").unwrap_or_default();
                Ok(json!({}))
            }
            "ListGrants" => {
                let grants = self.key(req)?.grants.iter();
                paged(
                    req,
                    "Grants",
                    grants.map(|grant| (grant["GrantId"].as_str().unwrap_or_default().to_owned(), grant.clone())),
                )
            }
            _ => Err(req.unknown_operation()),
        }
    }

    /// Removes the keys whose waiting period has ended, and their aliases.
    fn settle(&mut self, now: f64) {
        self.keys.retain(|_, key| key.deletion.is_none_or(|at| at > now));
        self.aliases.retain(|_, alias| self.keys.contains_key(&alias.key));
    }

    /// The key of an ARN.
    pub fn by_arn(&self, arn: &str) -> Option<&Key> {
        self.keys.values().find(|key| key.arn == arn)
    }

    /// The key of an ARN, id, alias or alias ARN. Other services accept all of these.
    pub fn named(&self, name: &str) -> Option<&Key> {
        let alias = name.find("alias/").and_then(|at| name.get(at..)).and_then(|alias| self.aliases.get(alias));
        let id = alias.map_or(name, |alias| alias.key.as_str());
        self.keys.get(id).or_else(|| self.by_arn(id))
    }

    fn find(&mut self, id: &str, req: &Request, aliases: bool) -> Result<&mut Key, Fault> {
        let here = req.arn("");
        let local = id.strip_prefix(&here).unwrap_or(id);
        let local = match local.strip_prefix("key/") {
            Some(key) => key,
            None if local.starts_with("alias/") && aliases => {
                &self.aliases.get(local).ok_or_else(|| no_alias(req, local))?.key
            }
            None if local.starts_with("alias/") || local.starts_with("arn:") => {
                return Err(Fault::new(400, "InvalidArnException", format!("Invalid keyId {id}")));
            }
            None => local,
        };
        let missing = || not_found(format!("Key '{}' does not exist", req.arn(&format!("key/{local}"))));
        self.keys.get_mut(local).ok_or_else(missing)
    }

    fn key(&mut self, req: &Request) -> Result<&mut Key, Fault> {
        self.find(&required(req, "KeyId")?, req, false)
    }

    /// A key that may be changed: not one that is pending deletion.
    fn changeable(&mut self, req: &Request) -> Result<&mut Key, Fault> {
        let key = self.key(req)?;
        key.not_pending()?;
        Ok(key)
    }

    /// A key that is enabled.
    fn usable(&mut self, req: &Request) -> Result<&mut Key, Fault> {
        let key = self.changeable(req)?;
        if !key.enabled {
            return Err(Fault::new(400, "DisabledException", format!("{} is disabled.", key.arn)));
        }
        Ok(key)
    }

    fn put_alias(&mut self, req: &Request) -> Reply {
        let name = required(req, "AliasName")?;
        let rest = name.strip_prefix("alias/").unwrap_or_default();
        if rest.is_empty() || name.len() > 256 || !rest.chars().all(|c| c.is_ascii_alphanumeric() || "/_-".contains(c))
        {
            let message =
                format!("Alias {name:?} must begin with alias/ and have letters, digits, /, _ and - after it");
            return Err(Fault::new(
                400,
                if rest.is_empty() { "ValidationException" } else { "InvalidAliasNameException" },
                message,
            ));
        }
        if rest.starts_with("aws/") {
            return Err(Fault::new(
                400,
                "NotAuthorizedException",
                "Alias names that begin with alias/aws/ are AWS's own",
            ));
        }
        let key = self.find(&required(req, "TargetKeyId")?, req, false)?;
        key.not_pending()?;
        let key = key.id.clone();
        let alias = self.aliases.get_mut(&name);
        match alias {
            Some(_) if req.operation == "CreateAlias" => {
                let message = format!("An alias with the name {} already exists", req.arn(&name));
                Err(Fault::new(400, "AlreadyExistsException", message))
            }
            Some(alias) => {
                (alias.key, alias.updated) = (key, req.now);
                Ok(json!({}))
            }
            None if req.operation == "UpdateAlias" => Err(no_alias(req, &name)),
            None => {
                self.aliases.insert(name, Alias { key, created: req.now, updated: req.now });
                Ok(json!({}))
            }
        }
    }
}

impl Key {
    /// Whether the key is enabled. `Err` has the key state.
    pub fn enabled(&self) -> Result<(), &'static str> {
        match (self.deletion, self.enabled) {
            (Some(_), _) => Err("PendingDeletion"),
            (None, false) => Err("Disabled"),
            (None, true) => Ok(()),
        }
    }

    /// Whether the key policy alone allows `action` to a principal (kind `AWS` or `Service`). Conditions are ignored.
    pub fn allows(&self, kind: &str, who: &str, action: &str) -> bool {
        let policy = serde_json::from_str(&self.policy).unwrap_or_default();
        allows(&policy, action, |one, name| (one == kind && name == who) || (one == "AWS" && name == "*"))
    }

    fn not_pending(&self) -> Result<(), Fault> {
        match self.deletion {
            Some(_) => Err(invalid_state(format!("{} is pending deletion.", self.arn))),
            None => Ok(()),
        }
    }

    fn metadata(&self, req: &Request) -> Value {
        let mut metadata = json!({
            "AWSAccountId": req.account, "KeyId": self.id, "Arn": self.arn, "CreationDate": self.created,
            "Enabled": self.enabled, "Description": self.description, "KeyUsage": "ENCRYPT_DECRYPT",
            "KeyState": self.enabled().err().unwrap_or("Enabled"), "Origin": "AWS_KMS", "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT", "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"], "MultiRegion": false,
        });
        if let Some(at) = self.deletion {
            metadata["DeletionDate"] = at.into();
        }
        metadata
    }
}

fn create_key(state: &mut State, req: &Request) -> Reply {
    for (member, only) in [
        ("KeySpec", "SYMMETRIC_DEFAULT"),
        ("CustomerMasterKeySpec", "SYMMETRIC_DEFAULT"),
        ("KeyUsage", "ENCRYPT_DECRYPT"),
        ("Origin", "AWS_KMS"),
        ("MultiRegion", "false"),
    ] {
        if let Some(value) = req.text(member).filter(|value| value != only) {
            let message = format!("ringfence's sandbox has only keys with {member} {only}, not {value}");
            return Err(Fault::new(400, "UnsupportedOperationException", message));
        }
    }
    let policy = req.text("Policy").unwrap_or_else(|| {
        let root = format!("arn:{}:iam::{}:root", req.partition(), req.account);
        let statement = json!({
            "Sid": "Enable IAM User Permissions", "Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*",
            "Resource": "*",
        });
        json!({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]}).to_string()
    });
    let policy = checked_policy(state, req, &policy)?;
    let id = state.ids.uuid();
    let key = Key {
        arn: req.arn(&format!("key/{id}")),
        id: id.clone(),
        created: req.now,
        description: req.text("Description").unwrap_or_default(),
        enabled: true,
        policy,
        tags: at_most_50(new_tags(req)?)?,
        ..Key::default()
    };
    let reply = json!({"KeyMetadata": key.metadata(req)});
    state.region(&req.account, &req.region).kms.keys.insert(id, key);
    Ok(reply)
}

/// Checks a key policy, and returns it as KMS stores it, indented. A policy that would lock the caller out needs
/// `BypassPolicyLockoutSafetyCheck`.
fn checked_policy(state: &State, req: &Request, text: &str) -> Result<String, Fault> {
    let malformed = |message: &str| Fault::new(400, "MalformedPolicyDocumentException", message);
    if text.len() > 32_768 {
        return Err(Fault::new(400, "LimitExceededException", "Key policies may have 32768 bytes"));
    }
    let policy: Value = serde_json::from_str(text).map_err(|_| malformed("Policy contains invalid JSON."))?;
    check_shape(&policy).map_err(|fault| malformed(&fault.message))?;
    for statement in statements(&policy) {
        if texts(statement, "Action").is_empty() && texts(statement, "NotAction").is_empty() {
            return Err(malformed("Policy statement must contain actions."));
        }
        if texts(statement, "Resource").is_empty() && texts(statement, "NotResource").is_empty() {
            return Err(malformed("Policy statement must contain resources."));
        }
        let named = principals(statement);
        let exist = named.iter().all(|(kind, who)| principal_exists(state, kind, who));
        if !exist || (named.is_empty() && statement["NotPrincipal"].is_null()) {
            return Err(malformed("Policy contains a statement with one or more invalid principals."));
        }
    }
    let root = format!("arn:{}:iam::{}:root", req.partition(), req.account);
    // A session's ARN doesn't have the path of its role.
    let session = req.caller.arn.split_once(":assumed-role/").and_then(|(_, rest)| rest.split('/').next());
    let role = session.and_then(|name| state.accounts.get(&req.account)?.iam.role_by_name(name));
    let caller = role.map_or(req.caller.arn.as_str(), |role| role.arn.as_str());
    let kept = allows(&policy, "kms:PutKeyPolicy", |kind, who| {
        kind == "AWS" && (who == "*" || who == root || who == req.account || who == caller || who == req.caller.arn)
    });
    if !kept && req.text("BypassPolicyLockoutSafetyCheck").as_deref() != Some("true") {
        return Err(malformed("The new key policy will not allow you to update the key policy in the future."));
    }
    Ok(serde_json::to_string_pretty(&policy).unwrap_or_default())
}

fn paged(req: &Request, list: &str, all: impl Iterator<Item = (String, Value)>) -> Reply {
    const PAGES: Pages = Pages { size: "Limit", token: "Marker", next: "NextMarker", usual: 100, most: 1000 };
    let mut reply = pages::paged(req, &PAGES, list, all).map_err(|why| validation(&why))?;
    reply["Truncated"] = reply.get("NextMarker").is_some().into();
    Ok(reply)
}

fn new_tags(req: &Request) -> Result<Tags, Fault> {
    let mut tags = Tags::new();
    for tag in req.items("Tags") {
        let of = |name: &str| tag[name].as_str().unwrap_or_default().to_owned();
        let (key, value) = (of("TagKey"), of("TagValue"));
        let fault = |message: String| Fault::new(400, "TagException", message);
        check_tag(&key, &value).map_err(|(at, rule)| fault(format!("Tag {key:?}: {at}: {rule}")))?;
        if tags.insert(key, value).is_some() {
            return Err(fault("Duplicate tag keys".to_owned()));
        }
    }
    Ok(tags)
}

fn at_most_50(tags: Tags) -> Result<Tags, Fault> {
    if tags.len() > 50 {
        return Err(Fault::new(400, "LimitExceededException", "A key can have 50 tags"));
    }
    Ok(tags)
}

fn policy_name(req: &Request) -> Result<(), Fault> {
    match req.text("PolicyName") {
        Some(name) if name != "default" => Err(not_found(format!("No such policy exists: {name}"))),
        _ => Ok(()),
    }
}

fn required(req: &Request, name: &str) -> Result<String, Fault> {
    let missing = || {
        let member =
            format!("{}{}", name.get(..1).unwrap_or_default().to_ascii_lowercase(), name.get(1..).unwrap_or_default());
        validation(&format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
        ))
    };
    req.text(name).ok_or_else(missing)
}

fn validation(message: &str) -> Fault {
    Fault::new(400, "ValidationException", message)
}

fn invalid_state(message: String) -> Fault {
    Fault::new(400, "KMSInvalidStateException", message)
}

fn not_found(message: String) -> Fault {
    Fault::new(400, "NotFoundException", message)
}

fn no_alias(req: &Request, name: &str) -> Fault {
    not_found(format!("Alias {} is not found.", req.arn(name)))
}
