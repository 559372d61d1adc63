//! Calls about roles, with their inline and attached policies.

use super::super::clock::iso8601;
use super::super::quotas;
use super::super::state::State;
use super::super::wire::{Fault, Reply, Request, texts};
use super::document::{characters, identity_policy, statements, trust_policy};
use super::request::{
    conflict, description, encoded, invalid, list, list_tags, name, new_tags, no_such, over, path, required, tag,
    untag, wire_tags,
};
use super::{Iam, Role, SERVICE_LINKED_PATH, last_segment};
use serde_json::{Map, Value, json};

/// Service-linked roles: service, role name, and AWS's policy on it (in `/aws-service-role/`; only AWS can attach it).
const SERVICE_LINKED: &[(&str, &str, &str)] = &[
    ("eks.amazonaws.com", "AWSServiceRoleForAmazonEKS", "AmazonEKSServiceRolePolicy"),
    ("eks-nodegroup.amazonaws.com", "AWSServiceRoleForAmazonEKSNodegroup", "AWSServiceRoleForAmazonEKSNodegroup"),
    ("eks-fargate.amazonaws.com", "AWSServiceRoleForAmazonEKSForFargate", "AmazonEKSForFargateServiceRolePolicy"),
    ("autoscaling.amazonaws.com", "AWSServiceRoleForAutoScaling", "AutoScalingServiceRolePolicy"),
    ("spot.amazonaws.com", "AWSServiceRoleForEC2Spot", "AWSEC2SpotServiceRolePolicy"),
    (
        "elasticloadbalancing.amazonaws.com",
        "AWSServiceRoleForElasticLoadBalancing",
        "AWSElasticLoadBalancingServiceRolePolicy",
    ),
];

pub fn call(state: &mut State, req: &Request) -> Reply {
    let limit = quotas::limit(&state.quotas, "L-0DA4ABF3");
    match req.operation.as_str() {
        "CreateRole" => create_role(state, req),
        "CreateServiceLinkedRole" => {
            let service = required(req, "AWSServiceName")?;
            let role = create_service_linked_role(state, &req.account, req.partition(), &service, req.now)?;
            Ok(json!({"Role": role.wire(true)}))
        }
        "UpdateAssumeRolePolicy" => {
            let trust = trust_policy(state, req, &required(req, "PolicyDocument")?)?;
            own_role(state, req)?.trust_policy = trust;
            Ok(json!({}))
        }
        "PutRolePermissionsBoundary" => {
            let arn = required(req, "PermissionsBoundary")?;
            state.account(&req.account).iam.boundary(req, Some(&arn))?;
            own_role(state, req)?.boundary = Some(arn);
            Ok(json!({}))
        }
        _ => state.account(&req.account).iam.role_call(req, limit),
    }
}

impl Iam {
    fn role_call(&mut self, req: &Request, limit: f64) -> Reply {
        match req.operation.as_str() {
            "GetRole" => Ok(json!({"Role": self.role(req)?.wire(true)})),
            "ListRoles" => {
                let prefix = req.text("PathPrefix").unwrap_or_else(|| "/".to_owned());
                let roles = self.roles.values().filter(|role| role.path.starts_with(&prefix));
                list(req, "Roles", roles.map(|role| (role.name.clone(), role.wire(false))))
            }
            "UpdateRole" => {
                let (description, session) = (description(req)?, max_session(req)?);
                let role = self.own_role(req)?;
                role.description = description.or(role.description.take());
                role.max_session = session.unwrap_or(role.max_session);
                Ok(json!({}))
            }
            "UpdateRoleDescription" => {
                let description = description(req)?;
                let role = self.own_role(req)?;
                role.description = description;
                Ok(json!({"Role": role.wire(true)}))
            }
            "DeleteRole" => self.delete_role(req),
            "TagRole" => tag(&mut self.own_role(req)?.tags, req, "Role"),
            "UntagRole" => untag(&mut self.own_role(req)?.tags, req),
            "ListRoleTags" => list_tags(&self.role(req)?.tags, req),
            "DeleteRolePermissionsBoundary" => {
                let gone = self.own_role(req)?.boundary.take();
                gone.map(|_| json!({})).ok_or_else(|| {
                    no_such(format!(
                        "Role {} does not have a permissions boundary.",
                        req.text("RoleName").unwrap_or_default()
                    ))
                })
            }
            "AttachRolePolicy" => self.attach(req, limit),
            "DetachRolePolicy" => {
                let arn = required(req, "PolicyArn")?;
                let attached = &mut self.own_role(req)?.attached;
                let at = attached.iter().position(|one| *one == arn);
                let at = at.ok_or_else(|| no_such(format!("Policy {arn} was not found.")))?;
                attached.remove(at);
                Ok(json!({}))
            }
            "ListAttachedRolePolicies" => {
                let role = self.role(req)?;
                list(req, "AttachedPolicies", role.attached.iter().map(|arn| (arn.clone(), attached(arn))))
            }
            "PutRolePolicy" => {
                let name = policy_name(req)?;
                let document = required(req, "PolicyDocument")?;
                identity_policy(&document)?;
                let role = self.own_role(req)?;
                let others = role.inline.iter().filter(|(other, _)| **other != name).map(|(_, text)| characters(text));
                if others.sum::<usize>() + characters(&document) > 10_240 {
                    let message = format!("Maximum policy size of 10240 bytes exceeded for role {}", role.name);
                    return Err(Fault::new(409, "LimitExceeded", message));
                }
                role.inline.insert(name, document);
                Ok(json!({}))
            }
            "GetRolePolicy" => {
                let (name, role) = (policy_name(req)?, self.role(req)?);
                let text = role.inline.get(&name).ok_or_else(|| no_inline(&name))?;
                Ok(json!({"RoleName": role.name, "PolicyName": name, "PolicyDocument": encoded(text)}))
            }
            "DeleteRolePolicy" => {
                let name = policy_name(req)?;
                let gone = self.own_role(req)?.inline.remove(&name);
                gone.map(|_| json!({})).ok_or_else(|| no_inline(&name))
            }
            "ListRolePolicies" => {
                let names = self.role(req)?.inline.keys();
                list(req, "PolicyNames", names.map(|name| (name.clone(), name.as_str().into())))
            }
            "ListInstanceProfilesForRole" => {
                let profiles = self.role(req)?.instance_profiles();
                list(req, "InstanceProfiles", profiles.into_iter())
            }
            _ => Err(req.unknown_operation()),
        }
    }

    fn role(&self, req: &Request) -> Result<&Role, Fault> {
        let name = required(req, "RoleName")?;
        self.roles.get(&name).ok_or_else(|| no_role(&name))
    }

    /// A role that callers may change: not a service-linked role.
    fn own_role(&mut self, req: &Request) -> Result<&mut Role, Fault> {
        let name = required(req, "RoleName")?;
        let role = self.roles.get_mut(&name).ok_or_else(|| no_role(&name))?;
        if role.path.starts_with(SERVICE_LINKED_PATH) {
            let message = format!(
                "Cannot perform the operation on the protected role '{name}' - this role is only modifiable by AWS"
            );
            return Err(Fault::new(400, "UnmodifiableEntity", message));
        }
        Ok(role)
    }

    fn delete_role(&mut self, req: &Request) -> Reply {
        let role = self.own_role(req)?;
        if !role.attached.is_empty() {
            return Err(conflict("Cannot delete entity, must detach all policies first."));
        }
        if !role.inline.is_empty() {
            return Err(conflict("Cannot delete entity, must delete policies first."));
        }
        if !role.profiles.is_empty() {
            return Err(conflict("Cannot delete entity, must remove roles from instance profile first."));
        }
        let name = role.name.clone();
        self.roles.remove(&name);
        Ok(json!({}))
    }

    fn attach(&mut self, req: &Request, limit: f64) -> Reply {
        let arn = required(req, "PolicyArn")?;
        let known = self.attachable(req.partition(), &arn)?;
        let role = self.own_role(req)?;
        if !known {
            let message = format!("Policy {arn} does not exist or is not attachable.");
            return Err(no_such(message));
        }
        if !role.attached.contains(&arn) {
            if role.attached.len() as f64 >= limit {
                return Err(over("PoliciesPerRole", limit));
            }
            role.attached.push(arn);
        }
        Ok(json!({}))
    }
}

impl Role {
    fn wire(&self, full: bool) -> Value {
        let mut role = json!({
            "Path": self.path, "RoleName": self.name, "RoleId": self.id, "Arn": self.arn, "CreateDate": self.created,
            "AssumeRolePolicyDocument": encoded(&self.trust_policy), "Description": self.description,
            "MaxSessionDuration": self.max_session,
        });
        if full {
            role["PermissionsBoundary"] = self.wire_boundary();
            role["Tags"] = wire_tags(&self.tags);
            role["RoleLastUsed"] = json!({});
        }
        role
    }

    fn wire_boundary(&self) -> Value {
        self.boundary.as_ref().map_or(
            Value::Null,
            |arn| json!({"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": arn}),
        )
    }

    pub(super) fn detail(&self) -> Value {
        let inline = self.inline.iter();
        let inline = inline.map(|(name, text)| json!({"PolicyName": name, "PolicyDocument": encoded(text)}));
        json!({
            "Path": self.path, "RoleName": self.name, "RoleId": self.id, "Arn": self.arn, "CreateDate": self.created,
            "AssumeRolePolicyDocument": encoded(&self.trust_policy),
            "InstanceProfileList": self.instance_profiles().into_iter().map(|(_, profile)| profile).collect::<Value>(),
            "RolePolicyList": inline.collect::<Value>(),
            "AttachedManagedPolicies": self.attached.iter().map(|arn| attached(arn)).collect::<Value>(),
            "PermissionsBoundary": self.wire_boundary(), "Tags": wire_tags(&self.tags), "RoleLastUsed": {},
        })
    }

    fn instance_profiles(&self) -> Vec<(String, Value)> {
        let root = self.arn.split(":role/").next().unwrap_or_default();
        let profile = |name: &String| {
            let profile = json!({
                "Path": "/", "InstanceProfileName": name, "InstanceProfileId": format!("AIPA{}", self.id.get(4..).unwrap_or_default()),
                "Arn": format!("{root}:instance-profile/{name}"), "CreateDate": self.created, "Roles": [self.wire(false)],
            });
            (name.clone(), profile)
        };
        self.profiles.iter().map(profile).collect()
    }

    pub(super) fn uses(&self, policy: &str) -> bool {
        self.boundary.as_deref() == Some(policy) || self.attached.iter().any(|arn| arn == policy)
    }

    /// Whether the trust policy lets this service (`eks.amazonaws.com`) assume the role.
    pub fn trusts(&self, service: &str) -> bool {
        let trust: Value = serde_json::from_str(&self.trust_policy).unwrap_or_default();
        statements(&trust).iter().any(|statement| {
            statement["Effect"] == "Allow" && texts(&statement["Principal"], "Service").iter().any(|one| one == service)
        })
    }

    /// Whether AWS's policy of this name (path included, `service-role/X`) is attached.
    pub fn has_managed(&self, name: &str) -> bool {
        self.attached.iter().any(|arn| arn.split_once(":iam::aws:policy/").is_some_and(|(_, policy)| policy == name))
    }
}

fn create_role(state: &mut State, req: &Request) -> Reply {
    let name = name(req, "RoleName", 64)?;
    let path = path(req)?;
    let tags = new_tags(req)?;
    let trust_policy = trust_policy(state, req, &required(req, "AssumeRolePolicyDocument")?)?;
    let role = Role {
        arn: format!("arn:{}:iam::{}:role{path}{name}", req.partition(), req.account),
        id: state.ids.unique("AROA"),
        path,
        created: iso8601(req.now),
        trust_policy,
        description: description(req)?,
        max_session: max_session(req)?.unwrap_or(3600),
        boundary: req.text("PermissionsBoundary"),
        tags,
        name,
        ..Role::default()
    };
    let limit = quotas::limit(&state.quotas, "L-FE177D64");
    let iam = &mut state.account(&req.account).iam;
    iam.boundary(req, role.boundary.as_deref())?;
    if iam.roles.contains_key(&role.name) {
        let message = format!("Role with name {} already exists.", role.name);
        return Err(Fault::new(409, "EntityAlreadyExists", message));
    }
    if iam.roles.len() as f64 >= limit {
        return Err(over("RolesPerAccount", limit));
    }
    let reply = json!({"Role": role.wire(true)});
    iam.roles.insert(role.name.clone(), role);
    Ok(reply)
}

/// Makes the service-linked role of a service (`eks.amazonaws.com`). An existing one is an error.
pub fn create_service_linked_role(
    state: &mut State,
    account: &str,
    partition: &str,
    service: &str,
    now: f64,
) -> Result<Role, Fault> {
    let Some((_, name, policy)) = SERVICE_LINKED.iter().find(|(one, ..)| *one == service) else {
        let message =
            format!("Service {service} is not known, or ringfence's sandbox has no service-linked role for it.");
        return Err(Fault::new(400, "InvalidInput", message));
    };
    let path = format!("{SERVICE_LINKED_PATH}{service}/");
    let role = Role {
        name: (*name).to_owned(),
        id: state.ids.unique("AROA"),
        arn: format!("arn:{partition}:iam::{account}:role{path}{name}"),
        path,
        created: iso8601(now),
        trust_policy: trust_in("Service", service),
        max_session: 3600,
        attached: vec![format!("arn:{partition}:iam::aws:policy{SERVICE_LINKED_PATH}{policy}")],
        ..Role::default()
    };
    let roles = &mut state.account(account).iam.roles;
    if roles.contains_key(*name) {
        let message =
            format!("Service role name {name} has been taken in this account, please try a different suffix.");
        return Err(Fault::new(400, "InvalidInput", message));
    }
    roles.insert((*name).to_owned(), role.clone());
    Ok(role)
}

pub(super) fn trust_in(kind: &str, who: &str) -> String {
    let mut principal = Map::new();
    principal.insert(kind.to_owned(), who.into());
    let statement = json!({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"});
    json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
}

fn own_role<'s>(state: &'s mut State, req: &Request) -> Result<&'s mut Role, Fault> {
    state.account(&req.account).iam.own_role(req)
}

fn attached(arn: &str) -> Value {
    json!({"PolicyName": last_segment(arn), "PolicyArn": arn})
}

fn max_session(req: &Request) -> Result<Option<u32>, Fault> {
    let Some(text) = req.text("MaxSessionDuration") else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds| (3600..=43_200).contains(seconds));
    let constraint = "Member must have value between 3600 and 43200";
    seconds.map(Some).ok_or_else(|| invalid(&text, "maxSessionDuration", constraint))
}

fn policy_name(req: &Request) -> Result<String, Fault> {
    name(req, "PolicyName", 128)
}

fn no_role(name: &str) -> Fault {
    no_such(format!("The role with name {name} cannot be found."))
}

fn no_inline(name: &str) -> Fault {
    no_such(format!("The role policy with name {name} cannot be found."))
}
