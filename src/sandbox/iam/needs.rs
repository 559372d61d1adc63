//! The permissions that a call needs: its own action on each resource that it names, and the dependent actions that AWS
//! checks as well.
//!
//! Actions, resource types and condition keys are those of the Service Authorization Reference ("Actions, resources,
//! and condition keys for …"). A resource type that the reference marks as optional counts if the call names one.
//! Anything that the reference doesn't say has its source beside it. A missing resource is not checked: the service
//! itself answers that it is missing.

use super::super::ec2::Ec2;
use super::super::kms::Kms;
use super::super::state::{Region, State};
use super::super::tags::Tags;
use super::super::wire::{Request, Service, items, text, texts};
use super::{Iam, SERVICE_LINKED_PATH};
use serde_json::Value;
use std::collections::BTreeMap;

/// Values by condition key. Keys are in lower case.
pub type Context = BTreeMap<String, Vec<String>>;

/// One permission.
#[derive(Debug)]
pub struct Need {
    /// `ec2:CreateVpc`.
    pub action: String,
    /// An ARN, or `*` for actions without a resource.
    pub resource: String,
    pub context: Context,
}

/// EC2's operations that have resources: operation, the type that it creates (if any), and the parameters that name
/// existing resources.
const EC2: &[(&str, &str, &[&str])] = &[
    ("AllocateAddress", "elastic-ip", &[]),
    ("AssociateRouteTable", "", &["RouteTableId", "SubnetId"]),
    ("AssociateVpcCidrBlock", "", &["VpcId"]),
    ("AttachInternetGateway", "", &["InternetGatewayId", "VpcId"]),
    ("AuthorizeSecurityGroupEgress", "security-group-rule", &["GroupId"]),
    ("AuthorizeSecurityGroupIngress", "security-group-rule", &["GroupId"]),
    ("CreateFlowLogs", "vpc-flow-log", &["ResourceId"]),
    ("CreateInternetGateway", "internet-gateway", &[]),
    ("CreateLaunchTemplate", "launch-template", &[]),
    ("CreateLaunchTemplateVersion", "", &["LaunchTemplateId", "LaunchTemplateName"]),
    ("CreateNatGateway", "natgateway", &["AllocationId", "SubnetId"]),
    ("CreateNetworkInterface", "network-interface", &["SubnetId", "SecurityGroupId"]),
    ("CreateRoute", "", &["RouteTableId"]),
    ("CreateRouteTable", "route-table", &["VpcId"]),
    ("CreateSecurityGroup", "security-group", &["VpcId"]),
    ("CreateSubnet", "subnet", &["VpcId"]),
    ("CreateTags", "", &["ResourceId"]),
    ("CreateVpc", "vpc", &[]),
    ("CreateVpcEndpoint", "vpc-endpoint", &["VpcId", "RouteTableId", "SubnetId", "SecurityGroupId"]),
    ("DeleteFlowLogs", "", &["FlowLogId"]),
    ("DeleteInternetGateway", "", &["InternetGatewayId"]),
    ("DeleteLaunchTemplate", "", &["LaunchTemplateId", "LaunchTemplateName"]),
    ("DeleteLaunchTemplateVersions", "", &["LaunchTemplateId", "LaunchTemplateName"]),
    ("DeleteNatGateway", "", &["NatGatewayId"]),
    ("DeleteNetworkInterface", "", &["NetworkInterfaceId"]),
    ("DeleteRoute", "", &["RouteTableId"]),
    ("DeleteRouteTable", "", &["RouteTableId"]),
    ("DeleteSecurityGroup", "", &["GroupId"]),
    ("DeleteSubnet", "", &["SubnetId"]),
    ("DeleteTags", "", &["ResourceId"]),
    ("DeleteVpc", "", &["VpcId"]),
    ("DeleteVpcEndpoints", "", &["VpcEndpointId"]),
    ("DescribeVpcAttribute", "", &["VpcId"]),
    ("DetachInternetGateway", "", &["InternetGatewayId", "VpcId"]),
    ("DisassociateRouteTable", "", &["AssociationId"]),
    ("DisassociateVpcCidrBlock", "", &["AssociationId"]),
    ("ModifyLaunchTemplate", "", &["LaunchTemplateId", "LaunchTemplateName"]),
    ("ModifySubnetAttribute", "", &["SubnetId"]),
    ("ModifyVpcAttribute", "", &["VpcId"]),
    (
        "ModifyVpcEndpoint",
        "",
        &[
            "VpcEndpointId",
            "AddRouteTableId",
            "RemoveRouteTableId",
            "AddSubnetId",
            "RemoveSubnetId",
            "AddSecurityGroupId",
            "RemoveSecurityGroupId",
        ],
    ),
    ("ReleaseAddress", "", &["AllocationId"]),
    ("ReplaceRoute", "", &["RouteTableId"]),
    ("ReplaceRouteTableAssociation", "", &["RouteTableId", "AssociationId"]),
    ("RevokeSecurityGroupEgress", "", &["GroupId"]),
    ("RevokeSecurityGroupIngress", "", &["GroupId"]),
    ("UpdateSecurityGroupRuleDescriptionsEgress", "", &["GroupId"]),
    ("UpdateSecurityGroupRuleDescriptionsIngress", "", &["GroupId"]),
];

/// EKS's operations that aren't about a cluster.
const EKS_AT_LARGE: &[&str] = &[
    "DescribeAddonConfiguration",
    "DescribeAddonVersions",
    "DescribeClusterVersions",
    "ListAccessPolicies",
    "ListClusters",
];

pub fn of(state: &State, req: &Request) -> Vec<Need> {
    let account = state.accounts.get(&req.account);
    let (no_iam, nothing) = (Iam::default(), Region::default());
    let iam = account.map_or(&no_iam, |account| &account.iam);
    let here = account.and_then(|account| account.regions.get(&req.region)).unwrap_or(&nothing);
    let mut needs = Needs { req, all: Vec::new() };
    match req.service {
        Service::Ec2 => needs.ec2(&here.ec2),
        Service::Eks => needs.eks(here, iam),
        Service::Iam => needs.iam(iam),
        Service::Kms => needs.kms(&here.kms),
        Service::Logs => needs.logs(),
        Service::Ssm => needs.ssm(),
        Service::Quotas => needs.on("*", []),
        // GetCallerIdentity needs no permission. AssumeRole is decided by the role's trust policy, which `sts`
        // evaluates.
        Service::Sts => {}
    }
    needs.all
}

struct Needs<'r> {
    req: &'r Request,
    all: Vec<Need>,
}

impl Needs<'_> {
    fn add<'k>(&mut self, action: &str, resource: impl Into<String>, keys: impl IntoIterator<Item = Key<'k>>) {
        let mut context = Context::from([("aws:requestedregion".to_owned(), vec![self.req.region.clone()])]);
        for key in keys {
            key.put(&mut context);
        }
        self.all.push(Need { action: action.to_owned(), resource: resource.into(), context });
    }

    /// Adds the call's own action on a resource.
    fn on<'k>(&mut self, resource: impl Into<String>, keys: impl IntoIterator<Item = Key<'k>>) {
        let action = format!("{}:{}", self.req.service.name(), self.req.operation);
        self.add(&action, resource, keys);
    }

    /// The ARN of a resource of another service than the called one.
    fn elsewhere(&self, service: &str, resource: &str) -> String {
        let Request { region, account, .. } = self.req;
        format!("arn:{}:{service}:{region}:{account}:{resource}", self.req.partition())
    }

    /// Adds `iam:PassRole`. If AWS doesn't document to which service the role is passed, any service that the policy
    /// names is enough.
    fn pass_role(&mut self, role: Option<String>, services: &[&str]) {
        if let Some(role) = role {
            self.add("iam:PassRole", role, [Key::Some("iam:PassedToService", services)]);
        }
    }

    fn ec2(&mut self, ec2: &Ec2) {
        let req = self.req;
        let Some((operation, makes, named)) = EC2.iter().find(|(operation, ..)| *operation == req.operation) else {
            return self.on("*", []);
        };
        let mut tags = Tags::new();
        for specification in req.items("TagSpecification") {
            tags.extend(pairs(items(specification, "Tag"), "Key", "Value"));
        }
        // New rules of a group count as resources only if the call tags them.
        if !makes.is_empty() && (*makes != "security-group-rule" || !tags.is_empty()) {
            let new = req.arn(&format!("{makes}/*"));
            self.on(new.clone(), [Key::Request(&tags)]);
            if !tags.is_empty() {
                self.add("ec2:CreateTags", new, [Key::Request(&tags), Key::One("ec2:CreateAction", operation)]);
            }
        }
        let ids = named.iter().flat_map(|param| req.texts(param));
        for id in ids.flat_map(|name| ec2.resources_of(&name)) {
            let Some((kind, have)) = ec2.tagged(&id) else { continue };
            let arn = req.arn(&format!("{kind}/{id}"));
            let vpc = ec2.vpc_of(&id).map(|vpc| req.arn(&format!("vpc/{vpc}")));
            let vpc = vpc.as_deref().map(|arn| Key::One("ec2:Vpc", arn));
            let new = if *operation == "CreateTags" { pairs(req.items("Tag"), "Key", "Value") } else { Tags::new() };
            self.on(arn, [Key::Resource(&have), Key::Request(&new)].into_iter().chain(vpc));
        }
        match *operation {
            "CreateFlowLogs" => {
                self.pass_role(req.text("DeliverLogsPermissionArn"), &["vpc-flow-logs.amazonaws.com"]);
            }
            // The "dependent actions" of CreateVpcEndpoint without route53:AssociateVPCWithHostedZone. AWS's own policy
            // AmazonVPCFullAccess allows any endpoint and doesn't have that action.
            "CreateVpcEndpoint" => {
                for action in ["DescribeSecurityGroups", "DescribeSubnets", "DescribeVpcs"] {
                    self.add(&format!("ec2:{action}"), "*", []);
                }
            }
            _ => {}
        }
    }

    fn eks(&mut self, here: &Region, iam: &Iam) {
        let req = self.req;
        let operation = req.operation.as_str();
        let tags = named_tags(&req.params);
        let cluster = req.text("clusterName").or_else(|| req.text("name")).unwrap_or_default();
        match operation {
            _ if EKS_AT_LARGE.contains(&operation) => return self.on("*", []),
            // The reference lists no resource for it, but EKS checks the action on the future cluster's ARN
            // (cortexlabs/cortex, issue 1232, quotes the refusal).
            "CreateCluster" => self.on(req.arn(&format!("cluster/{cluster}")), [Key::Request(&tags)]),
            "TagResource" | "UntagResource" | "ListTagsForResource" => {
                let arn = req.text("resourceArn").unwrap_or_default();
                let have = here.eks.by_arn(&arn).unwrap_or_default();
                self.on(arn, [Key::Resource(&have), Key::Request(&tags)]);
            }
            _ => {
                if let Some((arn, have)) = here.eks.named(req) {
                    self.on(arn, [Key::Resource(&have), Key::Request(&tags)]);
                }
            }
        }
        let part = |param: &str| format!("{cluster}/{}", req.text(param).unwrap_or_else(|| "*".to_owned()));
        let new = match operation {
            "CreateCluster" => Some(format!("cluster/{cluster}")),
            "CreateNodegroup" => Some(format!("nodegroup/{}/*", part("nodegroupName"))),
            "CreateFargateProfile" => Some(format!("fargateprofile/{}/*", part("fargateProfileName"))),
            "CreateAddon" => Some(format!("addon/{}/*", part("addonName"))),
            "CreateAccessEntry" => Some(format!("access-entry/{cluster}/*")),
            "CreatePodIdentityAssociation" => Some(format!("podidentityassociation/{cluster}/*")),
            _ => None,
        };
        if let Some(new) = new.filter(|_| !tags.is_empty()) {
            self.add("eks:TagResource", req.arn(&new), [Key::Request(&tags)]);
        }
        match operation {
            "CreateCluster" => {
                self.pass_role(req.text("roleArn"), &["eks.amazonaws.com"]);
                self.service_linked(iam, "eks.amazonaws.com", "AWSServiceRoleForAmazonEKS");
                self.envelope(&here.kms);
            }
            "AssociateEncryptionConfig" => self.envelope(&here.kms),
            "CreateNodegroup" => {
                let role = req.text("nodeRole");
                self.node_role(role.as_deref());
                self.pass_role(role, &["ec2.amazonaws.com", "ec2.amazonaws.com.cn", "eks.amazonaws.com"]);
                self.service_linked(iam, "eks-nodegroup.amazonaws.com", "AWSServiceRoleForAmazonEKSNodegroup");
                self.instances(&here.ec2, &req.params["launchTemplate"], req.texts("subnets"));
            }
            "UpdateNodegroupVersion" => self.instances(&here.ec2, &req.params["launchTemplate"], Vec::new()),
            "CreateFargateProfile" => {
                self.pass_role(
                    req.text("podExecutionRoleArn"),
                    &["eks-fargate-pods.amazonaws.com", "eks.amazonaws.com"],
                );
                self.service_linked(iam, "eks-fargate.amazonaws.com", "AWSServiceRoleForAmazonEKSForFargate");
            }
            "CreateAddon" | "UpdateAddon" => {
                self.pass_role(req.text("serviceAccountRoleArn"), &["eks.amazonaws.com"]);
                // AWS doesn't document this. The cautious assumption: the caller needs the permission to make the
                // associations.
                for association in req.items("podIdentityAssociations") {
                    self.add("eks:CreatePodIdentityAssociation", req.arn(&format!("cluster/{cluster}")), []);
                    self.pass_role(text(association, "roleArn"), &["pods.eks.amazonaws.com"]);
                }
            }
            "CreatePodIdentityAssociation" | "UpdatePodIdentityAssociation" => {
                self.pass_role(req.text("roleArn"), &["pods.eks.amazonaws.com"]);
            }
            _ => {}
        }
    }

    /// EKS reads the node role with the caller's permissions before it makes the group (aws-controllers-k8s/community,
    /// issue 2164; terraform-aws-eks, issue 823).
    fn node_role(&mut self, role: Option<&str>) {
        self.add("ec2:DescribeSubnets", "*", []);
        if let Some(role) = role {
            self.add("iam:ListAttachedRolePolicies", role, []);
        }
        let linked = "role/aws-service-role/eks-nodegroup.amazonaws.com/AWSServiceRoleForAmazonEKSNodegroup";
        let linked = self.role_arn(linked);
        self.add("iam:GetRole", linked, []);
    }

    /// Adds the permissions to launch instances from a template (EC2 user guide, "IAM permissions required for Amazon
    /// EC2 launch templates"; Auto Scaling user guide, "Launch template support").
    fn instances(&mut self, ec2: &Ec2, template: &Value, subnets: Vec<String>) {
        const RUN: &str = "ec2:RunInstances";
        let Some(name) = text(template, "id").or_else(|| text(template, "name")) else { return };
        let version = text(template, "version").unwrap_or_default();
        let Some(template) = ec2.launch_template(&name, &version) else { return };
        let groups = [texts(&template.data, "securityGroupIdSet"), groups_of_interfaces(&template.data)].concat();
        for id in [vec![template.id], subnets, groups].concat() {
            if let Some((kind, have)) = ec2.tagged(&id) {
                let arn = self.elsewhere("ec2", &format!("{kind}/{id}"));
                self.add(RUN, arn, [Key::Resource(&have)]);
            }
        }
        let image = format!("arn:{}:ec2:{}::image/*", self.req.partition(), self.req.region);
        self.add(RUN, image, []);
        for made in ["instance", "network-interface", "volume"] {
            let specifications = items(&template.data, "tagSpecificationSet").iter();
            let of = specifications.filter(|one| text(one, "resourceType").as_deref() == Some(made));
            let tags: Tags = of.flat_map(|one| pairs(items(one, "tagSet"), "key", "value")).collect();
            let new = self.elsewhere("ec2", &format!("{made}/*"));
            self.add(RUN, new.clone(), [Key::Request(&tags)]);
            if !tags.is_empty() {
                self.add("ec2:CreateTags", new, [Key::Request(&tags), Key::One("ec2:CreateAction", "RunInstances")]);
            }
        }
    }

    /// Adds the permissions for envelope encryption of a cluster's secrets with a customer managed key. CreateCluster
    /// doesn't support `kms:GrantIsForAWSResource` (EKS user guide, `security-k8s`), so the grant is checked without
    /// that condition key.
    fn envelope(&mut self, kms: &Kms) {
        for config in self.req.items("encryptionConfig") {
            let name = text(&config["provider"], "keyArn").unwrap_or_default();
            if let Some(key) = kms.named(&name) {
                self.add("kms:DescribeKey", &key.arn, [Key::Resource(&key.tags)]);
                self.add("kms:CreateGrant", &key.arn, [Key::Resource(&key.tags)]);
            }
        }
    }

    fn role_arn(&self, resource: &str) -> String {
        format!("arn:{}:iam::{}:{resource}", self.req.partition(), self.req.account)
    }

    /// Adds `iam:CreateServiceLinkedRole`, which a service's first use needs.
    fn service_linked(&mut self, iam: &Iam, service: &str, role: &str) {
        if iam.role_by_name(role).is_none() {
            let arn = self.role_arn(&format!("role{SERVICE_LINKED_PATH}{service}/{role}"));
            self.add("iam:CreateServiceLinkedRole", arn, [Key::One("iam:AWSServiceName", service)]);
        }
    }

    fn iam(&mut self, iam: &Iam) {
        let req = self.req;
        let tags = pairs(req.items("Tags"), "Key", "Value");
        let path = req.text("Path").unwrap_or_else(|| "/".to_owned());
        match req.operation.as_str() {
            "CreateServiceLinkedRole" => {
                let service = req.text("AWSServiceName").unwrap_or_default();
                let arn = self.role_arn(&format!("role{SERVICE_LINKED_PATH}{service}/*"));
                self.on(arn, [Key::One("iam:AWSServiceName", &service)]);
            }
            // "Tagging IAM resources": tags at creation need the permission to tag.
            "CreateRole" => {
                let arn = self.role_arn(&format!("role{path}{}", req.text("RoleName").unwrap_or_default()));
                let boundary = req.text("PermissionsBoundary");
                let boundary = boundary.as_deref().map(|arn| Key::One("iam:PermissionsBoundary", arn));
                self.on(arn.clone(), [Key::Request(&tags)].into_iter().chain(boundary));
                if !tags.is_empty() {
                    self.add("iam:TagRole", arn, [Key::Request(&tags)]);
                }
            }
            "CreateOpenIDConnectProvider" => {
                let host = req.text("Url").unwrap_or_default();
                let arn = self.role_arn(&format!("oidc-provider/{}", host.trim_start_matches("https://")));
                self.on(arn.clone(), [Key::Request(&tags)]);
                if !tags.is_empty() {
                    self.add("iam:TagOpenIDConnectProvider", arn, [Key::Request(&tags)]);
                }
            }
            "CreateUser" | "CreatePolicy" => {
                let (kind, name) =
                    if req.operation == "CreateUser" { ("user", "UserName") } else { ("policy", "PolicyName") };
                let arn = self.role_arn(&format!("{kind}{path}{}", req.text(name).unwrap_or_default()));
                self.on(arn, [Key::Request(&tags)]);
            }
            "SimulatePrincipalPolicy" => self.on(req.text("PolicySourceArn").unwrap_or_default(), []),
            _ => {
                if let Some(arn) = req.text("OpenIDConnectProviderArn") {
                    let have = iam.oidc.get(&arn).map(|provider| provider.tags.clone()).unwrap_or_default();
                    return self.on(arn, [Key::Resource(&have), Key::Request(&tags)]);
                }
                let Some(name) = req.text("RoleName") else {
                    return self.on(req.text("PolicyArn").unwrap_or_else(|| "*".to_owned()), []);
                };
                let Some(role) = iam.role_by_name(&name) else { return };
                let policy = req.text("PolicyArn");
                let policy = policy.as_deref().map(|arn| Key::One("iam:PolicyARN", arn));
                // For these actions, `iam:PermissionsBoundary` is the boundary that the role has or gets.
                let boundary = match req.operation.as_str() {
                    "PutRolePermissionsBoundary" => req.text("PermissionsBoundary"),
                    "AttachRolePolicy"
                    | "DeleteRolePermissionsBoundary"
                    | "DeleteRolePolicy"
                    | "DetachRolePolicy"
                    | "PutRolePolicy" => role.boundary.clone(),
                    _ => None,
                };
                let boundary = boundary.as_deref().map(|arn| Key::One("iam:PermissionsBoundary", arn));
                let keys = [Key::Resource(&role.tags), Key::Request(&tags)].into_iter().chain(policy).chain(boundary);
                self.on(&role.arn, keys);
            }
        }
    }

    fn kms(&mut self, kms: &Kms) {
        let req = self.req;
        let tags = pairs(req.items("Tags"), "TagKey", "TagValue");
        let mut keys = [req.text("KeyId"), req.text("TargetKeyId")].into_iter().flatten().collect::<Vec<_>>();
        match req.operation.as_str() {
            // KMS developer guide, "Creating keys": a key with tags needs kms:TagResource. The reference also lists
            // kms:PutKeyPolicy. By the API reference the key policy must grant that, not the caller's own policies.
            "CreateKey" => {
                self.on("*", [Key::Request(&tags)]);
                if !tags.is_empty() {
                    self.add("kms:TagResource", req.arn("key/*"), [Key::Request(&tags)]);
                }
                return;
            }
            // "Controlling access to aliases": the action is checked on the alias, and on the keys to which it refers
            // before and after the call.
            "CreateAlias" | "UpdateAlias" | "DeleteAlias" => {
                let alias = req.text("AliasName").unwrap_or_default();
                self.on(req.arn(&alias), []);
                if req.operation != "CreateAlias" {
                    keys.push(alias);
                }
            }
            "ListAliases" | "ListKeys" => return self.on("*", []),
            _ => {}
        }
        for key in keys.iter().filter_map(|name| kms.named(name)) {
            self.on(&key.arn, [Key::Resource(&key.tags), Key::Request(&tags)]);
        }
    }

    fn logs(&mut self) {
        let req = self.req;
        let group = req.text("logGroupName").map(|name| req.arn(&format!("log-group:{name}")));
        let arn = group.or_else(|| req.text("resourceArn")).or_else(|| req.text("logGroupIdentifier"));
        let Some(arn) = arn else { return self.on("*", []) };
        let tags = named_tags(&req.params);
        self.on(arn.clone(), [Key::Request(&tags)]);
        // API reference, CreateLogGroup.
        if req.operation == "CreateLogGroup" && !tags.is_empty() {
            self.add("logs:TagResource", arn, [Key::Request(&tags)]);
        }
    }

    fn ssm(&mut self) {
        let req = self.req;
        let arn = |name: &str| req.arn(&format!("parameter/{}", name.trim_start_matches('/')));
        let tags = pairs(req.items("Tags"), "Key", "Value");
        let names =
            ["Name", "Names", "Path", "ResourceId"].iter().flat_map(|param| req.texts(param)).collect::<Vec<_>>();
        if names.is_empty() {
            return self.on("*", []);
        }
        for name in &names {
            self.on(arn(name), [Key::Request(&tags)]);
            // Systems Manager user guide, "Tagging parameters": tags in the call that creates the parameter need the
            // permission, too.
            if req.operation == "PutParameter" && !tags.is_empty() {
                self.add("ssm:AddTagsToResource", arn(name), [Key::Request(&tags)]);
            }
        }
    }
}

/// Condition keys that go together.
enum Key<'k> {
    /// `aws:RequestTag/…` and `aws:TagKeys`.
    Request(&'k Tags),
    /// `aws:ResourceTag/…`.
    Resource(&'k Tags),
    One(&'k str, &'k str),
    Some(&'k str, &'k [&'k str]),
}

impl Key<'_> {
    fn put(self, context: &mut Context) {
        let mut set = |key: &str, values: Vec<String>| context.insert(key.to_ascii_lowercase(), values);
        match self {
            Self::Request(tags) if tags.is_empty() => {}
            Self::Request(tags) => {
                for (key, value) in tags {
                    set(&format!("aws:RequestTag/{key}"), vec![value.clone()]);
                }
                set("aws:TagKeys", tags.keys().cloned().collect());
            }
            Self::Resource(tags) => {
                for (key, value) in tags {
                    set(&format!("aws:ResourceTag/{key}"), vec![value.clone()]);
                }
            }
            Self::One(key, value) => {
                set(key, vec![value.to_owned()]);
            }
            Self::Some(key, values) => {
                set(key, values.iter().map(|value| (*value).to_owned()).collect());
            }
        }
    }
}

fn pairs(tags: &[Value], key: &str, value: &str) -> Tags {
    tags.iter().filter_map(|tag| Some((text(tag, key)?, text(tag, value).unwrap_or_default()))).collect()
}

/// `tags` as a map.
fn named_tags(params: &Value) -> Tags {
    let tags = params["tags"].as_object().into_iter().flatten();
    tags.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn groups_of_interfaces(template: &Value) -> Vec<String> {
    items(template, "networkInterfaceSet").iter().flat_map(|interface| texts(interface, "groupSet")).collect()
}
