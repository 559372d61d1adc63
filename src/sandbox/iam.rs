//! IAM: roles, policies, OIDC providers and users of an account.
//!
//! Error texts are AWS's, as users have quoted them. Those of AWS's managed policies that work with EKS needs exist by
//! name. [`managed`] has the documents of some.

mod details;
pub mod document;
pub mod enforce;
mod managed;
mod needs;
mod oidc;
mod policy;
mod request;
mod role;
mod user;

use super::clock::iso8601;
use super::state::State;
use super::tags::Tags;
use super::wire::{Reply, Request};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

pub use role::create_service_linked_role;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Iam {
    roles: BTreeMap<String, Role>,
    users: BTreeMap<String, User>,
    /// Customer managed policies by ARN.
    policies: BTreeMap<String, Policy>,
    /// OIDC providers by ARN.
    oidc: BTreeMap<String, Oidc>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Role {
    pub name: String,
    pub id: String,
    pub arn: String,
    path: String,
    created: String,
    /// JSON.
    pub trust_policy: String,
    description: Option<String>,
    max_session: u32,
    boundary: Option<String>,
    tags: Tags,
    /// Inline policies by name, JSON as sent.
    inline: BTreeMap<String, String>,
    /// ARNs of attached managed policies, in the order of attachment.
    pub attached: Vec<String>,
    /// Names of the instance profiles that hold the role. Managed node groups make such profiles.
    profiles: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct User {
    name: String,
    id: String,
    arn: String,
    path: String,
    created: String,
    tags: Tags,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Policy {
    name: String,
    id: String,
    arn: String,
    path: String,
    created: String,
    description: Option<String>,
    document: String,
    tags: Tags,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Oidc {
    url: String,
    clients: Vec<String>,
    thumbprints: Vec<String>,
    created: String,
    tags: Tags,
}

const SERVICE_LINKED_PATH: &str = "/aws-service-role/";

pub fn call(state: &mut State, req: &Request) -> Reply {
    match req.operation.as_str() {
        "GetAccountAuthorizationDetails" => state.account(&req.account).iam.authorization_details(req),
        "SimulatePrincipalPolicy" => enforce::simulate(&state.account(&req.account).iam, req),
        "ListAccountAliases" => Ok(json!({"AccountAliases": [], "IsTruncated": false})),
        operation if operation.contains("OpenIDConnectProvider") => oidc::call(state, req),
        operation if operation.contains("Role") => role::call(state, req),
        operation if operation.contains("User") => user::call(state, req),
        _ => policy::call(state, req),
    }
}

impl Iam {
    /// The role with exactly this ARN (path included).
    pub fn role_by_arn(&self, arn: &str) -> Option<&Role> {
        self.roles.get(last_segment(arn)).filter(|role| role.arn == arn)
    }

    /// Whether the role or user of an ARN exists. The account's root always exists.
    pub fn principal(&self, arn: &str) -> bool {
        match arn.splitn(6, ':').nth(5).unwrap_or_default() {
            "root" => arn.contains(":iam::"),
            user if user.starts_with("user/") => self.users.get(last_segment(arn)).is_some_and(|user| user.arn == arn),
            _ => self.role_by_arn(arn).is_some(),
        }
    }

    /// The role of an assumed-role session. The session's ARN has the role's name without its path.
    pub fn role_by_name(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// Puts the role into an instance profile, as a managed node group does with its node role.
    pub fn add_instance_profile(&mut self, role_arn: &str, profile: &str) {
        if let Some(role) = self.roles.get_mut(last_segment(role_arn)) {
            role.profiles.push(profile.to_owned());
        }
    }

    pub fn remove_instance_profile(&mut self, role_arn: &str, profile: &str) {
        if let Some(role) = self.roles.get_mut(last_segment(role_arn)) {
            role.profiles.retain(|one| one != profile);
        }
    }
}

/// Makes the role or user of `arn` (in any account) if it is missing. A role's trust policy names its own account.
pub fn seed_principal(state: &mut State, arn: &str, now: f64) {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [_, partition, "iam", _, account, resource] = parts.as_slice() else { return };
    let Some((kind, path)) = resource.split_once('/') else { return };
    let (path, name) = path.rsplit_once('/').map_or(("/".to_owned(), path), |(path, name)| (format!("/{path}/"), name));
    let (name, arn, created) = (name.to_owned(), arn.to_owned(), iso8601(now));
    let id = state.ids.unique(match kind {
        "role" => "AROA",
        "policy" => "ANPA",
        _ => "AIDA",
    });
    let trust_policy = role::trust_in("AWS", &format!("arn:{partition}:iam::{account}:root"));
    let iam = &mut state.account(account).iam;
    match kind {
        "role" => {
            iam.roles.entry(name.clone()).or_insert(Role {
                name,
                id,
                arn,
                path,
                created,
                trust_policy,
                max_session: 3600,
                ..Role::default()
            });
        }
        "user" => {
            iam.users.entry(name.clone()).or_insert(User { name, id, arn, path, created, ..User::default() });
        }
        "policy" => {
            // The policy grants nothing: only the real account knows its document.
            let document =
                json!({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]});
            let (description, document, tags) = (None, document.to_string(), Tags::default());
            iam.policies.entry(arn.clone()).or_insert(Policy {
                name,
                id,
                arn,
                path,
                created,
                description,
                document,
                tags,
            });
        }
        _ => {}
    }
}

fn last_segment(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}
