//! Calls about managed policies: the account's own, and those of AWS.

use super::super::clock::iso8601;
use super::super::state::State;
use super::super::wire::{Fault, Reply, Request};
use super::document::{characters, identity_policy};
use super::managed::managed;
use super::request::{
    at_most, conflict, description, encoded, list, name, new_tags, no_such, path, required, wire_tags,
};
use super::{Iam, Policy, Role};
use serde_json::{Value, json};

pub fn call(state: &mut State, req: &Request) -> Reply {
    if req.operation == "CreatePolicy" {
        return create_policy(state, req);
    }
    let iam = &mut state.account(&req.account).iam;
    match req.operation.as_str() {
        "GetPolicy" => Ok(json!({"Policy": iam.policy(req)?.1})),
        "GetPolicyVersion" => iam.policy_version(req),
        "ListPolicies" => iam.list_policies(req),
        "DeletePolicy" => {
            let (arn, _) = iam.policy(req)?;
            if iam.roles.values().any(|role| role.uses(&arn)) {
                return Err(conflict("Cannot delete a policy attached to entities."));
            }
            iam.policies
                .remove(&arn)
                .map(|_| json!({}))
                .ok_or_else(|| Fault::new(403, "AccessDenied", format!("Policy {arn} is AWS's and can't be deleted.")))
        }
        "ListEntitiesForPolicy" => {
            let (arn, _) = iam.policy(req)?;
            let boundary = req.text("PolicyUsageFilter").as_deref() == Some("PermissionsBoundary");
            let uses = |role: &&Role| {
                if boundary { role.boundary.as_ref() == Some(&arn) } else { role.attached.contains(&arn) }
            };
            let roles = iam.roles.values().filter(uses);
            let roles = roles.map(|role| (role.name.clone(), json!({"RoleName": role.name, "RoleId": role.id})));
            let mut reply = list(req, "PolicyRoles", roles)?;
            reply["PolicyUsers"] = json!([]);
            reply["PolicyGroups"] = json!([]);
            Ok(reply)
        }
        _ => Err(req.unknown_operation()),
    }
}

impl Iam {
    /// Whether a policy of this ARN exists and customers may attach it.
    pub(super) fn attachable(&self, partition: &str, arn: &str) -> Result<bool, Fault> {
        if !arn.starts_with("arn:") {
            let message = format!("ARN {arn} is not valid.");
            return Err(Fault::new(400, "InvalidInput", message));
        }
        Ok(self.policies.contains_key(arn) || managed(partition).any(|(one, ..)| one == arn))
    }

    pub(super) fn boundary(&self, req: &Request, arn: Option<&str>) -> Result<(), Fault> {
        match arn {
            Some(arn) if !self.attachable(req.partition(), arn)? => {
                Err(no_such(format!("Scope ARN: {arn} does not exist or is not attachable.")))
            }
            _ => Ok(()),
        }
    }

    /// ARN and wire form of the policy that the request names.
    fn policy(&self, req: &Request) -> Result<(String, Value), Fault> {
        let arn = required(req, "PolicyArn")?;
        let found = self.policies(req.partition()).find(|policy| policy["Arn"] == arn.as_str());
        found.map(|policy| (arn.clone(), policy)).ok_or_else(|| no_such(format!("Policy {arn} was not found.")))
    }

    /// All policies, the account's own first.
    pub(super) fn policies(&self, partition: &str) -> impl Iterator<Item = Value> {
        let own = self.policies.values().map(|policy| {
            self.wire_policy(&policy.arn, &policy.name, &policy.path, &policy.id, &policy.created, policy)
        });
        let none = Policy::default();
        let aws = managed(partition).map(|(arn, path, name)| {
            // On AWS these ids are fixed. Here they are at least the same in every run.
            let letters = name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_uppercase(), "");
            let id = format!("ANPA{letters:A<17.17}");
            (arn, path, name, id)
        });
        let aws: Vec<Value> = aws
            .map(|(arn, path, name, id)| self.wire_policy(&arn, name, path, &id, "2015-05-27T18:00:00Z", &none))
            .collect();
        own.chain(aws)
    }

    fn wire_policy(&self, arn: &str, name: &str, path: &str, id: &str, created: &str, policy: &Policy) -> Value {
        let count = |uses: &dyn Fn(&Role) -> bool| self.roles.values().filter(|role| uses(role)).count();
        json!({
            "PolicyName": name, "PolicyId": id, "Arn": arn, "Path": path, "DefaultVersionId": "v1",
            "AttachmentCount": count(&|role| role.attached.iter().any(|one| one == arn)),
            "PermissionsBoundaryUsageCount": count(&|role| role.boundary.as_deref() == Some(arn)),
            "IsAttachable": true, "Description": policy.description, "CreateDate": created, "UpdateDate": created,
            "Tags": wire_tags(&policy.tags),
        })
    }

    fn list_policies(&self, req: &Request) -> Reply {
        let scope = req.text("Scope").unwrap_or_default();
        let prefix = req.text("PathPrefix").unwrap_or_else(|| "/".to_owned());
        let attached = req.text("OnlyAttached").as_deref() == Some("true");
        let wanted = |policy: &Value| {
            let aws = is_aws(policy["Arn"].as_str().unwrap_or_default());
            (scope != "AWS" || aws)
                && (scope != "Local" || !aws)
                && policy["Path"].as_str().is_some_and(|path| path.starts_with(&prefix))
                && (!attached || policy["AttachmentCount"] != 0)
        };
        let policies = self.policies(req.partition()).filter(wanted).map(|mut policy| {
            if let Some(members) = policy.as_object_mut() {
                members.remove("Tags");
                members.remove("Description");
            }
            (policy["Arn"].as_str().unwrap_or_default().to_owned(), policy)
        });
        list(req, "Policies", policies)
    }

    fn policy_version(&self, req: &Request) -> Reply {
        let (arn, _) = self.policy(req)?;
        let version = required(req, "VersionId")?;
        let own = self.policies.get(&arn).ok_or_else(|| {
            no_such(format!("ringfence's sandbox doesn't hold the documents of AWS's own policies such as {arn}."))
        })?;
        if version != "v1" {
            let message = format!("Policy {arn} version {version} does not exist or is not attachable.");
            return Err(no_such(message));
        }
        Ok(json!({"PolicyVersion": own.version()}))
    }
}

impl Policy {
    pub(super) fn version(&self) -> Value {
        json!({
            "Document": encoded(&self.document), "VersionId": "v1", "IsDefaultVersion": true, "CreateDate": self.created,
        })
    }
}

fn create_policy(state: &mut State, req: &Request) -> Reply {
    let (name, path, tags) = (name(req, "PolicyName", 128)?, path(req)?, new_tags(req)?);
    let document = required(req, "PolicyDocument")?;
    identity_policy(&document)?;
    at_most(characters(&document), 6_144, "PolicySize")?;
    let policy = Policy {
        id: state.ids.unique("ANPA"),
        arn: format!("arn:{}:iam::{}:policy{path}{name}", req.partition(), req.account),
        path,
        created: iso8601(req.now),
        description: description(req)?,
        document,
        tags,
        name,
    };
    let iam = &mut state.account(&req.account).iam;
    if iam.policies.values().any(|one| one.name == policy.name) {
        let message = format!("A policy called {} already exists. Duplicate names are not allowed.", policy.name);
        return Err(Fault::new(409, "EntityAlreadyExists", message));
    }
    let arn = policy.arn.clone();
    iam.policies.insert(arn.clone(), policy);
    let made = iam.policies(req.partition()).find(|policy| policy["Arn"] == arn.as_str());
    Ok(json!({"Policy": made}))
}

pub(super) fn is_aws(arn: &str) -> bool {
    arn.contains(":iam::aws:")
}
