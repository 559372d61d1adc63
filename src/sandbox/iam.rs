//! IAM: roles, policies, OIDC providers and users of an account.
//!
//! Error texts are AWS's, as users have quoted them. AWS's managed policies exist by name, as far as work with EKS
//! meets them. [`managed`] has the documents of some.

pub mod document;
pub mod enforce;
mod managed;
mod needs;

use super::clock::iso8601;
use super::quotas;
use super::state::State;
use super::wire::{Fault, Reply, Request, texts};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use document::{characters, identity_policy, statements, trust_policy};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub type Tags = BTreeMap<String, String>;

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

/// AWS's managed policies: path and names.
const MANAGED: &[(&str, &str)] = &[
    (
        "/",
        "AWSXRayDaemonWriteAccess AdministratorAccess AmazonDynamoDBFullAccess AmazonDynamoDBReadOnlyAccess \
         AmazonEC2ContainerRegistryFullAccess AmazonEC2ContainerRegistryPowerUser AmazonEC2ContainerRegistryPullOnly \
         AmazonEC2ContainerRegistryReadOnly AmazonEC2FullAccess AmazonEC2ReadOnlyAccess AmazonEKSBlockStoragePolicy \
         AmazonEKSClusterPolicy AmazonEKSComputePolicy AmazonEKSFargatePodExecutionRolePolicy \
         AmazonEKSLoadBalancingPolicy AmazonEKSNetworkingPolicy AmazonEKSServicePolicy AmazonEKSVPCResourceController \
         AmazonEKSWorkerNodeMinimalPolicy AmazonEKSWorkerNodePolicy AmazonEKS_CNI_Policy \
         AmazonPrometheusRemoteWriteAccess AmazonRDSReadOnlyAccess AmazonRoute53FullAccess AmazonS3FullAccess \
         AmazonS3ReadOnlyAccess AmazonSNSFullAccess AmazonSNSReadOnlyAccess AmazonSQSFullAccess \
         AmazonSQSReadOnlyAccess AmazonSSMManagedInstanceCore AmazonSSMReadOnlyAccess CloudWatchAgentServerPolicy \
         CloudWatchLogsFullAccess CloudWatchReadOnlyAccess ElasticLoadBalancingFullAccess IAMFullAccess \
         IAMReadOnlyAccess PowerUserAccess ReadOnlyAccess SecretsManagerReadWrite SecurityAudit",
    ),
    (
        "/service-role/",
        "AWSLambdaBasicExecutionRole AmazonEBSCSIDriverPolicy AmazonEC2RoleforSSM AmazonEFSCSIDriverPolicy",
    ),
    ("/job-function/", "SystemAdministrator ViewOnlyAccess"),
];

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

const SERVICE_LINKED_PATH: &str = "/aws-service-role/";

/// Characters that IAM doesn't encode when it URL-encodes a policy document (RFC 3986).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub fn call(state: &mut State, req: &Request) -> Reply {
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
        "CreateUser" => create_user(state, req),
        "CreatePolicy" => create_policy(state, req),
        "CreateOpenIDConnectProvider" => create_oidc(state, req),
        _ => state.accounts.entry(req.account.clone()).or_default().iam.call(req, &state.quotas),
    }
}

impl Iam {
    #[expect(clippy::too_many_lines, reason = "one branch for each action of the service")]
    fn call(&mut self, req: &Request, quotas: &BTreeMap<String, f64>) -> Reply {
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
            "AttachRolePolicy" => self.attach(req, quotas::limit(quotas, "L-0DA4ABF3")),
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
            "GetAccountAuthorizationDetails" => self.authorization_details(req),
            "GetPolicy" => Ok(json!({"Policy": self.policy(req)?.1})),
            "GetPolicyVersion" => self.policy_version(req),
            "ListPolicies" => self.list_policies(req),
            "DeletePolicy" => {
                let (arn, _) = self.policy(req)?;
                if self.roles.values().any(|role| role.uses(&arn)) {
                    return Err(conflict("Cannot delete a policy attached to entities."));
                }
                self.policies.remove(&arn).map(|_| json!({})).ok_or_else(|| {
                    Fault::new(403, "AccessDenied", format!("Policy {arn} is AWS's and can't be deleted."))
                })
            }
            "ListEntitiesForPolicy" => {
                let (arn, _) = self.policy(req)?;
                let boundary = req.text("PolicyUsageFilter").as_deref() == Some("PermissionsBoundary");
                let uses = |role: &&Role| {
                    if boundary { role.boundary.as_ref() == Some(&arn) } else { role.attached.contains(&arn) }
                };
                let roles = self.roles.values().filter(uses);
                let roles = roles.map(|role| (role.name.clone(), json!({"RoleName": role.name, "RoleId": role.id})));
                let mut reply = list(req, "PolicyRoles", roles)?;
                reply["PolicyUsers"] = json!([]);
                reply["PolicyGroups"] = json!([]);
                Ok(reply)
            }
            "GetUser" => Ok(json!({"User": self.user(req)?.wire()})),
            "ListUsers" => {
                let prefix = req.text("PathPrefix").unwrap_or_else(|| "/".to_owned());
                let users = self.users.values().filter(|user| user.path.starts_with(&prefix));
                list(req, "Users", users.map(|user| (user.name.clone(), user.wire())))
            }
            "DeleteUser" => {
                let name = self.user(req)?.name.clone();
                self.users.remove(&name);
                Ok(json!({}))
            }
            "SimulatePrincipalPolicy" => enforce::simulate(self, req),
            "ListAccountAliases" => Ok(json!({"AccountAliases": [], "IsTruncated": false})),
            "GetOpenIDConnectProvider" => {
                let Oidc { url, clients, thumbprints, created, tags } = self.oidc(req)?;
                Ok(json!({
                    "Url": url, "ClientIDList": clients, "ThumbprintList": thumbprints, "CreateDate": created,
                    "Tags": wire_tags(tags),
                }))
            }
            "ListOpenIDConnectProviders" => {
                let arns = self.oidc.keys().map(|arn| json!({"Arn": arn}));
                Ok(json!({"OpenIDConnectProviderList": arns.collect::<Value>()}))
            }
            // As on AWS, the deletion of a missing provider succeeds.
            "DeleteOpenIDConnectProvider" => {
                self.oidc.remove(&required(req, "OpenIDConnectProviderArn")?);
                Ok(json!({}))
            }
            "TagOpenIDConnectProvider" => tag(&mut self.oidc(req)?.tags, req, "OpenIdConnectProvider"),
            "UntagOpenIDConnectProvider" => untag(&mut self.oidc(req)?.tags, req),
            "ListOpenIDConnectProviderTags" => list_tags(&self.oidc(req)?.tags, req),
            "AddClientIDToOpenIDConnectProvider" => {
                let client = required(req, "ClientID")?;
                let clients = &mut self.oidc(req)?.clients;
                if !clients.contains(&client) {
                    at_most(clients.len() + 1, 100, "ClientIdsPerOpenIdConnectProvider")?;
                    clients.push(client);
                }
                Ok(json!({}))
            }
            "RemoveClientIDFromOpenIDConnectProvider" => {
                let client = required(req, "ClientID")?;
                self.oidc(req)?.clients.retain(|one| *one != client);
                Ok(json!({}))
            }
            "UpdateOpenIDConnectProviderThumbprint" => {
                let thumbprints = thumbprints(req)?;
                self.oidc(req)?.thumbprints = thumbprints;
                Ok(json!({}))
            }
            _ => Err(req.unknown_operation()),
        }
    }

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

    /// Whether a policy of this ARN exists and customers may attach it.
    fn attachable(&self, partition: &str, arn: &str) -> Result<bool, Fault> {
        if !arn.starts_with("arn:") {
            let message = format!("ARN {arn} is not valid.");
            return Err(Fault::new(400, "InvalidInput", message));
        }
        Ok(self.policies.contains_key(arn) || managed(partition).any(|(one, ..)| one == arn))
    }

    fn boundary(&self, req: &Request, arn: Option<&str>) -> Result<(), Fault> {
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
    fn policies(&self, partition: &str) -> impl Iterator<Item = Value> {
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

    fn authorization_details(&self, req: &Request) -> Reply {
        let filter = req.texts("Filter");
        let wanted = |kind: &str| filter.is_empty() || filter.iter().any(|one| one == kind);
        let mut all: Vec<(String, Value)> = Vec::new();
        if wanted("User") {
            all.extend(self.users.values().map(|user| (format!("UserDetailList {}", user.name), user.wire())));
        }
        if wanted("Role") {
            all.extend(self.roles.values().map(|role| (format!("RoleDetailList {}", role.name), role.detail())));
        }
        for policy in self.policies(req.partition()) {
            let arn = policy["Arn"].as_str().unwrap_or_default().to_owned();
            let aws = is_aws(&arn);
            // AWS's own policies are listed only if they are attached.
            if wanted(if aws { "AWSManagedPolicy" } else { "LocalManagedPolicy" })
                && (!aws || policy["AttachmentCount"] != 0)
            {
                let mut policy = policy;
                if let Some(members) = policy.as_object_mut() {
                    members.remove("Tags");
                    let versions = self.policies.get(&arn).map(Policy::version).into_iter().collect::<Value>();
                    members.insert("PolicyVersionList".to_owned(), versions);
                }
                all.push((format!("Policies {arn}"), policy));
            }
        }
        let mut reply = list(req, "", all.into_iter().map(|(key, value)| (key.clone(), json!([key, value]))))?;
        let page = reply[""].take();
        for list in ["UserDetailList", "GroupDetailList", "RoleDetailList", "Policies"] {
            let of = page
                .as_array()
                .into_iter()
                .flatten()
                .filter(|entry| entry[0].as_str().and_then(|key| key.split(' ').next()) == Some(list));
            reply[list] = of.map(|entry| entry[1].clone()).collect();
        }
        if let Some(members) = reply.as_object_mut() {
            members.remove("");
        }
        Ok(reply)
    }

    fn user(&self, req: &Request) -> Result<&User, Fault> {
        let name = req.text("UserName").unwrap_or_else(|| last_segment(&req.caller.arn).to_owned());
        let found = self.users.get(&name);
        found.ok_or_else(|| no_such(format!("The user with name {name} cannot be found.")))
    }

    fn oidc(&mut self, req: &Request) -> Result<&mut Oidc, Fault> {
        let arn = required(req, "OpenIDConnectProviderArn")?;
        let found = self.oidc.get_mut(&arn);
        found.ok_or_else(|| no_such(format!("OpenIDConnect Provider not found for arn {arn}")))
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

    fn detail(&self) -> Value {
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

    fn uses(&self, policy: &str) -> bool {
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

impl User {
    fn wire(&self) -> Value {
        json!({
            "Path": self.path, "UserName": self.name, "UserId": self.id, "Arn": self.arn, "CreateDate": self.created,
            "Tags": wire_tags(&self.tags),
        })
    }
}

impl Policy {
    fn version(&self) -> Value {
        json!({
            "Document": encoded(&self.document), "VersionId": "v1", "IsDefaultVersion": true, "CreateDate": self.created,
        })
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
    let trust_policy = trust_in("AWS", &format!("arn:{partition}:iam::{account}:root"));
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

fn trust_in(kind: &str, who: &str) -> String {
    let mut principal = Map::new();
    principal.insert(kind.to_owned(), who.into());
    let statement = json!({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"});
    json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
}

fn own_role<'s>(state: &'s mut State, req: &Request) -> Result<&'s mut Role, Fault> {
    state.account(&req.account).iam.own_role(req)
}

fn create_user(state: &mut State, req: &Request) -> Reply {
    let (name, path, tags) = (name(req, "UserName", 64)?, path(req)?, new_tags(req)?);
    let user = User {
        id: state.ids.unique("AIDA"),
        arn: format!("arn:{}:iam::{}:user{path}{name}", req.partition(), req.account),
        path,
        created: iso8601(req.now),
        tags,
        name,
    };
    let users = &mut state.account(&req.account).iam.users;
    if users.contains_key(&user.name) {
        let message = format!("User with name {} already exists.", user.name);
        return Err(Fault::new(409, "EntityAlreadyExists", message));
    }
    let reply = json!({"User": user.wire()});
    users.insert(user.name.clone(), user);
    Ok(reply)
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

fn create_oidc(state: &mut State, req: &Request) -> Reply {
    let url = required(req, "Url")?;
    let tags = new_tags(req)?;
    let Some(host) = url.strip_prefix("https://").filter(|rest| !rest.is_empty() && !rest.contains(['?', '#'])) else {
        return Err(Fault::new(400, "ValidationError", "Invalid Open ID Connect Provider URL"));
    };
    let clients = req.texts("ClientIDList");
    at_most(clients.len(), 100, "ClientIdsPerOpenIdConnectProvider")?;
    let mut thumbprints = thumbprints(req)?;
    if thumbprints.is_empty() {
        // AWS computes it from the provider's certificate. This is the thumbprint of the CA of EKS's issuers.
        thumbprints.push("9e99a48a9960b14926bb7f3b02e22da2b0ab7280".to_owned());
    }
    let arn = format!("arn:{}:iam::{}:oidc-provider/{host}", req.partition(), req.account);
    let limit = quotas::limit(&state.quotas, "L-858F3967");
    let providers = &mut state.account(&req.account).iam.oidc;
    if providers.contains_key(&arn) {
        return Err(Fault::new(409, "EntityAlreadyExists", format!("Provider with url {url} already exists.")));
    }
    if providers.len() as f64 >= limit {
        return Err(over("OpenIdConnectProvidersPerAccount", limit));
    }
    let reply = json!({"OpenIDConnectProviderArn": arn, "Tags": wire_tags(&tags)});
    providers.insert(arn, Oidc { url: host.to_owned(), clients, thumbprints, created: iso8601(req.now), tags });
    Ok(reply)
}

/// How a service pages its lists: its names for page size and token, the default page size and the largest.
pub struct Pages {
    pub size: &'static str,
    pub token: &'static str,
    pub next: &'static str,
    pub usual: usize,
    pub most: usize,
}

/// One page of a list, sorted by key. The token for the next page holds the last key of this one.
///
/// # Errors
/// What is wrong with the size or the token.
pub fn paged(
    req: &Request,
    pages: &Pages,
    list: &str,
    all: impl Iterator<Item = (String, Value)>,
) -> Result<Value, String> {
    let size = req.text(pages.size).map_or(Some(pages.usual), |size| size.parse().ok());
    let size = size.filter(|size| (1..=pages.most).contains(size));
    let size = size.ok_or_else(|| format!("{} must be between 1 and {}", pages.size, pages.most))?;
    let decoded = |token: String| String::from_utf8(STANDARD.decode(token).ok()?).ok();
    let after = match req.text(pages.token) {
        Some(token) => decoded(token).ok_or_else(|| format!("{} is not valid", pages.token))?,
        None => String::new(),
    };
    let mut rest: Vec<_> = all.filter(|(key, _)| after.is_empty() || *key > after).collect();
    rest.sort_by(|a, b| a.0.cmp(&b.0));
    let more = rest.len() > size;
    rest.truncate(size);
    let mut reply = json!({});
    if let Some((last, _)) = rest.last().filter(|_| more) {
        reply[pages.next] = STANDARD.encode(last).into();
    }
    reply[list] = rest.into_iter().map(|(_, value)| value).collect();
    Ok(reply)
}

fn list(req: &Request, list: &str, all: impl Iterator<Item = (String, Value)>) -> Reply {
    const PAGES: Pages = Pages { size: "MaxItems", token: "Marker", next: "Marker", usual: 100, most: 1000 };
    let mut reply = paged(req, &PAGES, list, all).map_err(|why| Fault::new(400, "ValidationError", why))?;
    reply["IsTruncated"] = reply.get("Marker").is_some().into();
    Ok(reply)
}

fn managed(partition: &str) -> impl Iterator<Item = (String, &'static str, &'static str)> {
    MANAGED.iter().flat_map(move |(path, names)| {
        names.split(' ').map(move |name| (format!("arn:{partition}:iam::aws:policy{path}{name}"), *path, name))
    })
}

fn is_aws(arn: &str) -> bool {
    arn.contains(":iam::aws:")
}

fn attached(arn: &str) -> Value {
    json!({"PolicyName": last_segment(arn), "PolicyArn": arn})
}

fn last_segment(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

fn encoded(document: &str) -> String {
    utf8_percent_encode(document, ENCODED).to_string()
}

fn required(req: &Request, name: &str) -> Result<String, Fault> {
    req.text(name).ok_or_else(|| {
        let at = name.chars().enumerate().map(|(n, c)| if n == 0 { c.to_ascii_lowercase() } else { c });
        let message = format!(
            "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null",
            at.collect::<String>()
        );
        Fault::new(400, "ValidationError", message)
    })
}

fn name(req: &Request, member: &str, longest: usize) -> Result<String, Fault> {
    let name = required(req, member)?;
    if name.chars().count() > longest {
        let constraint = format!("Member must have length less than or equal to {longest}");
        return Err(invalid(&name, member, &constraint));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)) {
        let message = "The specified value for the name is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-";
        return Err(Fault::new(400, "ValidationError", message.replace("the name", member)));
    }
    Ok(name)
}

fn policy_name(req: &Request) -> Result<String, Fault> {
    name(req, "PolicyName", 128)
}

fn path(req: &Request) -> Result<String, Fault> {
    let Some(path) = req.text("Path") else { return Ok("/".to_owned()) };
    let shaped = path.starts_with('/') && path.ends_with('/') && path.chars().all(|c| ('!'..='~').contains(&c));
    if !shaped || path.len() > 512 {
        let message = "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.";
        return Err(Fault::new(400, "ValidationError", message));
    }
    Ok(path)
}

fn description(req: &Request) -> Result<Option<String>, Fault> {
    match req.text("Description") {
        Some(text) if text.chars().count() > 1000 => {
            Err(invalid(&text, "description", "Member must have length less than or equal to 1000"))
        }
        text => Ok(text),
    }
}

fn max_session(req: &Request) -> Result<Option<u32>, Fault> {
    let Some(text) = req.text("MaxSessionDuration") else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds| (3600..=43_200).contains(seconds));
    let constraint = "Member must have value between 3600 and 43200";
    seconds.map(Some).ok_or_else(|| invalid(&text, "maxSessionDuration", constraint))
}

fn thumbprints(req: &Request) -> Result<Vec<String>, Fault> {
    let thumbprints = req.texts("ThumbprintList");
    at_most(thumbprints.len(), 5, "ThumbprintsPerOpenIdConnectProvider")?;
    match thumbprints.iter().find(|one| one.len() != 40 || !one.bytes().all(|b| b.is_ascii_hexdigit())) {
        Some(bad) => Err(invalid(bad, "thumbprintList", "Member must have length equal to 40")),
        None => Ok(thumbprints),
    }
}

/// Tags of a request, checked by IAM's rules, which EC2 and others share: at most 50 tags; keys of 1–128 and values of
/// at most 256 characters; letters, digits, spaces and `_.:/=+-@`; `aws:` is reserved.
fn new_tags(req: &Request) -> Result<Tags, Fault> {
    let mut tags = Tags::new();
    for tag in req.items("Tags") {
        let of = |name: &str| tag[name].as_str().unwrap_or_default().to_owned();
        let (key, value) = (of("Key"), of("Value"));
        check_tag(&key, &value).map_err(|(at, constraint)| {
            invalid(if at == "key" { &key } else { &value }, &format!("tags.1.member.{at}"), &constraint)
        })?;
        if tags.keys().any(|other| other.eq_ignore_ascii_case(&key)) {
            let message = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
            return Err(Fault::new(400, "InvalidInput", message));
        }
        tags.insert(key, value);
    }
    if tags.len() > 50 {
        return Err(invalid("[…]", "tags", "Member must have length less than or equal to 50"));
    }
    Ok(tags)
}

/// On error: the part of the tag (`key` or `value`) that breaks a rule, and the rule.
pub fn check_tag(key: &str, value: &str) -> Result<(), (&'static str, String)> {
    let plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c));
    let pattern = r"Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]";
    let too_long = |most: usize| format!("Member must have length less than or equal to {most}");
    if key.is_empty() {
        Err(("key", "Member must have length greater than or equal to 1".to_owned()))
    } else if key.chars().count() > 128 {
        Err(("key", too_long(128)))
    } else if value.chars().count() > 256 {
        Err(("value", too_long(256)))
    } else if !plain(key) {
        Err(("key", format!("{pattern}+")))
    } else if !plain(value) {
        Err(("value", format!("{pattern}*")))
    } else if key.to_ascii_lowercase().starts_with("aws:") {
        Err(("key", "Member must not begin with aws:, which is reserved for AWS".to_owned()))
    } else {
        Ok(())
    }
}

fn tag(tags: &mut Tags, req: &Request, kind: &str) -> Reply {
    let mut all = tags.clone();
    all.extend(new_tags(req)?);
    at_most(all.len(), 50, &format!("TagsPer{kind}"))?;
    *tags = all;
    Ok(json!({}))
}

fn untag(tags: &mut Tags, req: &Request) -> Reply {
    for key in req.texts("TagKeys") {
        tags.remove(&key);
    }
    Ok(json!({}))
}

fn list_tags(tags: &Tags, req: &Request) -> Reply {
    list(req, "Tags", tags.iter().map(|(key, value)| (key.clone(), json!({"Key": key, "Value": value}))))
}

fn wire_tags(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

fn invalid(value: &str, at: &str, constraint: &str) -> Fault {
    let message =
        format!("1 validation error detected: Value '{value}' at '{at}' failed to satisfy constraint: {constraint}");
    Fault::new(400, "ValidationError", message)
}

fn conflict(message: &str) -> Fault {
    Fault::new(409, "DeleteConflict", message)
}

fn no_such(message: String) -> Fault {
    Fault::new(404, "NoSuchEntity", message)
}

fn no_role(name: &str) -> Fault {
    no_such(format!("The role with name {name} cannot be found."))
}

fn no_inline(name: &str) -> Fault {
    no_such(format!("The role policy with name {name} cannot be found."))
}

fn at_most(count: usize, most: usize, quota: &str) -> Result<(), Fault> {
    if count > most { Err(over(quota, most as f64)) } else { Ok(()) }
}

fn over(quota: &str, limit: f64) -> Fault {
    Fault::new(409, "LimitExceeded", format!("Cannot exceed quota for {quota}: {limit}"))
}
