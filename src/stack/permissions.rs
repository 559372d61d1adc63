//! The permissions that a spec needs of whoever runs ringfence, as an IAM
//! policy. Which conditions and resources an action supports is from the
//! Service Authorization Reference; where it doesn't say for sure, the action
//! is allowed on everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::aws::tags;
use crate::engine::desired::Desired;
use crate::kinds::aws::{
    access_entry, eks_addon, eks_cluster, elastic_ip, fargate_profile, flow_log, iam_role, internet_gateway, kms_key,
    launch_template, log_group, nat_gateway, node_group, oidc_provider, pod_identity, route_table, security_group,
    service_linked_role, subnet, vpc, vpc_endpoint,
};
use crate::spec::Spec;
use crate::spec::names::Names;

/// Characters of a role's inline policies, white space not counted (IAM quotas).
pub const MAX_POLICY: usize = 10_240;

/// Where actions are allowed: each is a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Anything,
    /// What carries this tenancy's tags.
    Ours,
    /// What gets this tenancy's tags when it is made.
    New,
    /// Tags, only as a part of making something that gets ours.
    TaggedWhenMade,
    Clusters,
    Logs,
    Keys,
    Grants,
    Aliases,
    Roles,
    Issuers,
    Lock,
}

use Scope::{Aliases, Anything, Clusters, Grants, Issuers, Keys, Lock, Logs, New, Ours, Roles, TaggedWhenMade};

/// Every read of every kind: what left the spec is looked for too.
const READS: &[&str] = &[
    "ec2:DescribeAddresses",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeFlowLogs",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeNatGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcAttribute",
    "ec2:DescribeVpcEndpoints",
    "ec2:DescribeVpcs",
    "eks:DescribeAccessEntry",
    "eks:DescribeAddon",
    "eks:DescribeAddonVersions",
    "eks:DescribeCluster",
    "eks:DescribeClusterVersions",
    "eks:DescribeFargateProfile",
    "eks:DescribeNodegroup",
    "eks:DescribePodIdentityAssociation",
    "eks:DescribeUpdate",
    "eks:ListAccessEntries",
    "eks:ListAddons",
    "eks:ListAssociatedAccessPolicies",
    "eks:ListClusters",
    "eks:ListFargateProfiles",
    "eks:ListNodegroups",
    "eks:ListPodIdentityAssociations",
    "iam:GetAccountAuthorizationDetails",
    "iam:GetOpenIDConnectProvider",
    "iam:GetRole",
    "iam:ListOpenIDConnectProviders",
    "iam:ListRoles",
    "kms:DescribeKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListAliases",
    "kms:ListKeys",
    "kms:ListResourceTags",
    "logs:DescribeLogGroups",
    "logs:ListTagsForResource",
    "sts:GetCallerIdentity",
];

/// The changes of each kind, with what AWS asks for in the caller's name.
const CHANGES: &[(&str, Scope, &[&str])] = &[
    (vpc::NAME, New, &["ec2:CreateVpc"]),
    (vpc::NAME, TaggedWhenMade, &["ec2:CreateTags"]),
    (
        vpc::NAME,
        Ours,
        &[
            "ec2:CreateTags",
            "ec2:DeleteTags",
            "ec2:DeleteVpc",
            "ec2:DisassociateVpcCidrBlock",
            "ec2:ModifyVpcAttribute",
        ],
    ),
    // The VPC's default group, which no call that makes it can tag, loses its rules too.
    (
        vpc::NAME,
        Anything,
        &[
            "ec2:AuthorizeSecurityGroupEgress",
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:RevokeSecurityGroupEgress",
            "ec2:RevokeSecurityGroupIngress",
            "ec2:UpdateSecurityGroupRuleDescriptionsEgress",
            "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
        ],
    ),
    (subnet::NAME, New, &["ec2:CreateSubnet"]),
    (subnet::NAME, Ours, &["ec2:CreateSubnet", "ec2:DeleteSubnet", "ec2:ModifySubnetAttribute"]),
    // Interfaces that EKS and the CNI left behind have their tags, not ours.
    (subnet::NAME, Anything, &["ec2:DeleteNetworkInterface"]),
    (internet_gateway::NAME, New, &["ec2:CreateInternetGateway"]),
    (
        internet_gateway::NAME,
        Ours,
        &["ec2:AttachInternetGateway", "ec2:DeleteInternetGateway", "ec2:DetachInternetGateway"],
    ),
    (elastic_ip::NAME, New, &["ec2:AllocateAddress"]),
    (elastic_ip::NAME, Ours, &["ec2:ReleaseAddress"]),
    (nat_gateway::NAME, New, &["ec2:CreateNatGateway"]),
    (nat_gateway::NAME, Ours, &["ec2:CreateNatGateway", "ec2:DeleteNatGateway"]),
    (route_table::NAME, New, &["ec2:CreateRouteTable"]),
    (
        route_table::NAME,
        Ours,
        &[
            "ec2:AssociateRouteTable",
            "ec2:CreateRoute",
            "ec2:CreateRouteTable",
            "ec2:DeleteRoute",
            "ec2:DeleteRouteTable",
            "ec2:DisassociateRouteTable",
            "ec2:ReplaceRoute",
            "ec2:ReplaceRouteTableAssociation",
        ],
    ),
    (vpc_endpoint::NAME, New, &["ec2:CreateVpcEndpoint"]),
    (vpc_endpoint::NAME, Ours, &["ec2:CreateVpcEndpoint", "ec2:DeleteVpcEndpoints", "ec2:ModifyVpcEndpoint"]),
    (security_group::NAME, New, &["ec2:CreateSecurityGroup"]),
    (security_group::NAME, Ours, &["ec2:CreateSecurityGroup", "ec2:DeleteSecurityGroup"]),
    (flow_log::NAME, New, &["ec2:CreateFlowLogs"]),
    (flow_log::NAME, Ours, &["ec2:CreateFlowLogs", "ec2:DeleteFlowLogs"]),
    (launch_template::NAME, New, &["ec2:CreateLaunchTemplate"]),
    (
        launch_template::NAME,
        Ours,
        &["ec2:CreateLaunchTemplateVersion", "ec2:DeleteLaunchTemplate", "ec2:ModifyLaunchTemplate"],
    ),
    (kms_key::NAME, New, &["kms:CreateKey", "kms:TagResource"]),
    // Tags may count for access minutes after they are written (KMS Developer
    // Guide, ABAC), and these are called as soon as the key exists.
    (kms_key::NAME, Keys, &["kms:CreateAlias", "kms:EnableKeyRotation"]),
    (kms_key::NAME, Grants, &["kms:CreateGrant"]),
    (kms_key::NAME, Aliases, &["kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias"]),
    (
        kms_key::NAME,
        Ours,
        &[
            "kms:DeleteAlias",
            "kms:DisableKeyRotation",
            "kms:EnableKey",
            "kms:PutKeyPolicy",
            "kms:ScheduleKeyDeletion",
            "kms:TagResource",
            "kms:UntagResource",
            "kms:UpdateAlias",
            "kms:UpdateKeyDescription",
        ],
    ),
    (
        log_group::NAME,
        Logs,
        &[
            "logs:AssociateKmsKey",
            "logs:CreateLogGroup",
            "logs:DeleteLogGroup",
            "logs:DeleteRetentionPolicy",
            "logs:DisassociateKmsKey",
            "logs:PutRetentionPolicy",
            "logs:TagResource",
            "logs:UntagResource",
        ],
    ),
    (
        iam_role::NAME,
        Roles,
        &[
            "iam:AttachRolePolicy",
            "iam:CreateRole",
            "iam:DeleteRole",
            "iam:DeleteRolePermissionsBoundary",
            "iam:DeleteRolePolicy",
            "iam:DetachRolePolicy",
            "iam:PutRolePermissionsBoundary",
            "iam:PutRolePolicy",
            "iam:TagRole",
            "iam:UntagRole",
            "iam:UpdateAssumeRolePolicy",
        ],
    ),
    (
        oidc_provider::NAME,
        Issuers,
        &[
            "iam:AddClientIDToOpenIDConnectProvider",
            "iam:CreateOpenIDConnectProvider",
            "iam:DeleteOpenIDConnectProvider",
            "iam:RemoveClientIDFromOpenIDConnectProvider",
            "iam:TagOpenIDConnectProvider",
            "iam:UntagOpenIDConnectProvider",
        ],
    ),
    (
        eks_cluster::NAME,
        Clusters,
        &[
            "eks:AssociateEncryptionConfig",
            "eks:CreateCluster",
            "eks:DeleteCluster",
            "eks:TagResource",
            "eks:UntagResource",
            "eks:UpdateClusterConfig",
            "eks:UpdateClusterVersion",
            // EKS makes entries for nodes' roles, which go with the roles.
            "eks:DeleteAccessEntry",
        ],
    ),
    (
        access_entry::NAME,
        Clusters,
        &[
            "eks:AssociateAccessPolicy",
            "eks:CreateAccessEntry",
            "eks:DisassociateAccessPolicy",
            "eks:UpdateAccessEntry",
        ],
    ),
    (eks_addon::NAME, Clusters, &["eks:CreateAddon", "eks:DeleteAddon", "eks:UpdateAddon"]),
    (
        pod_identity::NAME,
        Clusters,
        &["eks:CreatePodIdentityAssociation", "eks:DeletePodIdentityAssociation", "eks:UpdatePodIdentityAssociation"],
    ),
    (
        node_group::NAME,
        Clusters,
        &["eks:CreateNodegroup", "eks:DeleteNodegroup", "eks:UpdateNodegroupConfig", "eks:UpdateNodegroupVersion"],
    ),
    // EKS checks that the caller could start the template's instances itself.
    (node_group::NAME, Anything, &["ec2:RunInstances", "iam:ListInstanceProfilesForRole"]),
    (fargate_profile::NAME, Clusters, &["eks:CreateFargateProfile", "eks:DeleteFargateProfile"]),
];

/// The lock's, which whoever changes things holds.
const LOCK: &[&str] = &["ssm:AddTagsToResource", "ssm:DeleteParameters", "ssm:GetParametersByPath", "ssm:PutParameter"];

/// The services that get roles of ours, by the kind that hands them over.
const PASSED: &[(&str, &[&str])] = &[
    (eks_cluster::NAME, &["eks.amazonaws.com"]),
    (eks_addon::NAME, &["eks.amazonaws.com", "pods.eks.amazonaws.com"]),
    (pod_identity::NAME, &["pods.eks.amazonaws.com"]),
    (node_group::NAME, &["ec2.amazonaws.com", "eks.amazonaws.com"]),
    (fargate_profile::NAME, &["eks-fargate-pods.amazonaws.com"]),
    (flow_log::NAME, &["vpc-flow-logs.amazonaws.com"]),
];

/// Reading, for `plan`, `drift` and `output`. The same for every spec.
pub fn reads() -> Value {
    json!({"Version": "2012-10-17", "Statement": [statement("Read", READS, &json!("*"), None)]})
}

/// Reading, and the changes of the kinds in `desired`, which `spec` became.
/// The account is the spec's, or any.
pub fn changes(spec: &Spec, desired: &Desired) -> Value {
    let kinds: BTreeSet<&str> = desired.iter().map(|r| r.kind).collect();
    let mut scopes: BTreeMap<Scope, BTreeSet<&str>> = BTreeMap::new();
    for (_, scope, actions) in CHANGES.iter().filter(|(kind, ..)| kinds.contains(kind)) {
        scopes.entry(*scope).or_default().extend(*actions);
    }
    scopes.entry(Lock).or_default().extend(LOCK);
    let place = Place::new(spec);
    let mut statements = vec![statement("Read", READS, &json!("*"), None)];
    statements.extend(scopes.into_iter().map(|(scope, actions)| {
        let actions: Vec<&str> = actions.into_iter().collect();
        statement(&format!("{scope:?}"), &actions, &place.resources(scope), place.condition(scope))
    }));
    let mut passed: BTreeSet<String> = BTreeSet::new();
    for service in PASSED.iter().filter(|(kind, _)| kinds.contains(kind)).flat_map(|(_, services)| *services) {
        passed.insert((*service).to_owned());
        if *service == "ec2.amazonaws.com" && place.partition == "aws-cn" {
            passed.insert("ec2.amazonaws.com.cn".to_owned());
        }
    }
    let to = json!({"StringEquals": {"iam:PassedToService": passed}});
    statements.push(statement("PassRoles", &["iam:PassRole"], &place.resources(Roles), Some(to)));
    let linked: BTreeSet<&str> = desired
        .iter()
        .filter(|r| r.kind == service_linked_role::NAME)
        .filter_map(|r| r.state["service"].as_str())
        .collect();
    let service = json!({"StringEquals": {"iam:AWSServiceName": linked}});
    let roles = json!(format!("{}:role/aws-service-role/*", place.iam()));
    statements.push(statement("ServiceLinkedRoles", &["iam:CreateServiceLinkedRole"], &roles, Some(service)));
    json!({"Version": "2012-10-17", "Statement": statements})
}

fn statement(sid: &str, actions: &[&str], resources: &Value, condition: Option<Value>) -> Value {
    let mut statement = json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources});
    if let Some(condition) = condition {
        statement["Condition"] = condition;
    }
    statement
}

/// What ARNs are made of.
struct Place<'a> {
    partition: &'a str,
    region: &'a str,
    account: &'a str,
    tenancy: &'a str,
    /// Path and beginning of the roles' names.
    roles: String,
}

impl<'a> Place<'a> {
    fn new(spec: &'a Spec) -> Self {
        Self {
            partition: spec.partition(),
            region: &spec.region,
            account: spec.account_id.as_deref().unwrap_or("*"),
            tenancy: &spec.name,
            roles: format!("{}{}", spec.iam.path, Names::new(spec).role_prefix()),
        }
    }

    fn iam(&self) -> String {
        format!("arn:{}:iam::{}", self.partition, self.account)
    }

    fn resources(&self, scope: Scope) -> Value {
        let Self { partition, region, account, tenancy, roles } = self;
        let at = |service: &str, what: &str| format!("arn:{partition}:{service}:{region}:{account}:{what}");
        match scope {
            Anything | Ours | New | TaggedWhenMade => json!("*"),
            // Clusters, and what has its cluster's name in its ARN.
            Clusters => json!([at("eks", &format!("*/{tenancy}-p-*")), at("eks", &format!("*/{tenancy}-t-*"))]),
            Logs => json!([
                at("logs", &format!("log-group:/aws/eks/{tenancy}-*")),
                at("logs", &format!("log-group:/ringfence/{tenancy}-*")),
            ]),
            Keys | Grants => json!(at("kms", "key/*")),
            Aliases => json!(at("kms", &format!("alias/ringfence/{tenancy}-*"))),
            Roles => json!(format!("{}:role{roles}*", self.iam())),
            Issuers => json!(format!("{}:oidc-provider/oidc.eks.{region}.*", self.iam())),
            Lock => json!(at("ssm", &format!("parameter/ringfence/{tenancy}/{region}/*"))),
        }
    }

    fn condition(&self, scope: Scope) -> Option<Value> {
        let tags = |whose: &str| {
            let key = |tag: &str| format!("aws:{whose}/{tag}");
            json!({"StringEquals": {key(tags::TENANCY): self.tenancy, key(tags::REGION): self.region}})
        };
        match scope {
            Ours => Some(tags("ResourceTag")),
            New => Some(tags("RequestTag")),
            TaggedWhenMade => {
                let mut condition = tags("RequestTag");
                // Absent from calls that only tag: nobody else's things can be made ours.
                condition["StringLike"] = json!({"ec2:CreateAction": "*"});
                Some(condition)
            }
            Grants => Some(json!({"Bool": {"kms:GrantIsForAWSResource": "true"}})),
            _ => None,
        }
    }
}
