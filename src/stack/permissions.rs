//! The permissions that a spec needs of whoever runs ringfence, as an IAM
//! policy. Which conditions and resources an action supports is from the
//! Service Authorization Reference; where it doesn't say for sure, the action
//! is allowed on everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::aws::tags;
use crate::engine::address::Address;
use crate::engine::desired::Desired;
use crate::engine::plan::{Action, Step};
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
    /// What GuardDuty put into VPCs of ours by itself.
    GuardDuty,
    /// Main route tables, which come with their VPCs and without tags. The ids of our VPCs (`ec2:Vpc`) aren't known yet, so
    /// these are all tables that carry no tenancy's tags.
    MainTables,
    /// What gets this tenancy's tags when it is made.
    New,
    /// Tags, only as a part of making something that gets ours.
    TaggedWhenMade,
    Clusters,
    Logs,
    Keys,
    /// This tenancy's keys, which EKS gets grants on.
    Grants,
    Aliases,
    Roles,
    /// Roles that have the spec's permissions boundary, where it has one.
    Bounded,
    /// The same, and the policies that the spec's roles get.
    Attached,
    Issuers,
    Lock,
}

use Scope::{
    Aliases, Anything, Attached, Bounded, Clusters, Grants, GuardDuty, Issuers, Keys, Lock, Logs, MainTables, New,
    Ours, Roles, TaggedWhenMade,
};

/// Every read of every kind: what left the spec is looked for too.
const READS: &[&str] = &[
    "ec2:DescribeAddresses",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeFlowLogs",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeNatGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcAttribute",
    "ec2:DescribeVpcEndpointServices",
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
    "eks:ListUpdates",
    "iam:GetAccountAuthorizationDetails",
    "iam:GetOpenIDConnectProvider",
    "iam:GetPolicy",
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
    "servicequotas:ListAWSDefaultServiceQuotas",
    "servicequotas:ListServiceQuotas",
    "ssm:GetParameters",
    "sts:GetCallerIdentity",
];

/// When a step can't do without an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It makes something of this kind.
    Made,
    /// It deletes something of this kind.
    Gone,
    /// It writes tags: of this kind, and of kinds of the same service that have none of their own here.
    Tagged,
    /// Sometimes.
    Perhaps,
}

use When::{Gone, Made, Perhaps, Tagged};

/// The changes of each kind, with what AWS asks for in the caller's name.
const CHANGES: &[(&str, Scope, When, &[&str])] = &[
    (vpc::NAME, New, Made, &["ec2:CreateVpc"]),
    (vpc::NAME, TaggedWhenMade, Made, &["ec2:CreateTags"]),
    (vpc::NAME, Ours, Tagged, &["ec2:CreateTags"]),
    (vpc::NAME, Ours, Gone, &["ec2:DeleteVpc"]),
    (vpc::NAME, Ours, Perhaps, &["ec2:DeleteTags", "ec2:DisassociateVpcCidrBlock", "ec2:ModifyVpcAttribute"]),
    // The VPC's default group, which no call that makes it can tag, loses its rules too.
    (
        vpc::NAME,
        Anything,
        Perhaps,
        &[
            "ec2:AuthorizeSecurityGroupEgress",
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:RevokeSecurityGroupEgress",
            "ec2:RevokeSecurityGroupIngress",
            "ec2:UpdateSecurityGroupRuleDescriptionsEgress",
            "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
        ],
    ),
    (subnet::NAME, New, Made, &["ec2:CreateSubnet"]),
    (subnet::NAME, Ours, Made, &["ec2:CreateSubnet"]),
    (subnet::NAME, Ours, Gone, &["ec2:DeleteSubnet"]),
    // The second for an endpoint of GuardDuty's that leaves the subnet.
    (subnet::NAME, Ours, Perhaps, &["ec2:ModifySubnetAttribute", "ec2:ModifyVpcEndpoint"]),
    (subnet::NAME, GuardDuty, Perhaps, &["ec2:ModifyVpcEndpoint"]),
    (vpc::NAME, GuardDuty, Perhaps, &["ec2:DeleteSecurityGroup", "ec2:DeleteVpcEndpoints"]),
    // Interfaces that EKS and the CNI left behind have their tags, not ours.
    (subnet::NAME, Anything, Perhaps, &["ec2:DeleteNetworkInterface"]),
    (internet_gateway::NAME, New, Made, &["ec2:CreateInternetGateway"]),
    (internet_gateway::NAME, Ours, Made, &["ec2:AttachInternetGateway"]),
    (internet_gateway::NAME, Ours, Gone, &["ec2:DeleteInternetGateway"]),
    (internet_gateway::NAME, Ours, Perhaps, &["ec2:DetachInternetGateway"]),
    (elastic_ip::NAME, New, Made, &["ec2:AllocateAddress"]),
    (elastic_ip::NAME, Ours, Gone, &["ec2:ReleaseAddress"]),
    (nat_gateway::NAME, New, Made, &["ec2:CreateNatGateway"]),
    (nat_gateway::NAME, Ours, Made, &["ec2:CreateNatGateway"]),
    (nat_gateway::NAME, Ours, Gone, &["ec2:DeleteNatGateway"]),
    (route_table::NAME, New, Made, &["ec2:CreateRouteTable"]),
    (route_table::NAME, Ours, Made, &["ec2:CreateRouteTable"]),
    (route_table::NAME, Ours, Gone, &["ec2:DeleteRouteTable"]),
    (
        route_table::NAME,
        Ours,
        Perhaps,
        &[
            "ec2:AssociateRouteTable",
            "ec2:CreateRoute",
            "ec2:DeleteRoute",
            "ec2:DisassociateRouteTable",
            "ec2:ReplaceRoute",
            "ec2:ReplaceRouteTableAssociation",
        ],
    ),
    (route_table::NAME, MainTables, Perhaps, &["ec2:DeleteRoute", "ec2:ReplaceRouteTableAssociation"]),
    // Without route53:AssociateVPCWithHostedZone, which the reference lists beside it: AmazonVPCFullAccess, AWS's own
    // policy for making any endpoint, does without, too.
    (vpc_endpoint::NAME, New, Made, &["ec2:CreateVpcEndpoint"]),
    (vpc_endpoint::NAME, Ours, Made, &["ec2:CreateVpcEndpoint"]),
    (vpc_endpoint::NAME, Ours, Gone, &["ec2:DeleteVpcEndpoints"]),
    (vpc_endpoint::NAME, Ours, Perhaps, &["ec2:ModifyVpcEndpoint"]),
    (security_group::NAME, New, Made, &["ec2:CreateSecurityGroup"]),
    (security_group::NAME, Ours, Made, &["ec2:CreateSecurityGroup"]),
    (security_group::NAME, Ours, Gone, &["ec2:DeleteSecurityGroup"]),
    (flow_log::NAME, New, Made, &["ec2:CreateFlowLogs"]),
    (flow_log::NAME, Ours, Made, &["ec2:CreateFlowLogs"]),
    (flow_log::NAME, Ours, Gone, &["ec2:DeleteFlowLogs"]),
    (launch_template::NAME, New, Made, &["ec2:CreateLaunchTemplate"]),
    (launch_template::NAME, Ours, Gone, &["ec2:DeleteLaunchTemplate"]),
    (launch_template::NAME, Ours, Perhaps, &["ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate"]),
    (kms_key::NAME, New, Made, &["kms:CreateKey", "kms:TagResource"]),
    // Tags may count for access minutes after they are written (KMS Developer
    // Guide, ABAC), and these are called as soon as the key exists.
    (kms_key::NAME, Keys, Made, &["kms:CreateAlias"]),
    (kms_key::NAME, Keys, Perhaps, &["kms:EnableKeyRotation"]),
    (kms_key::NAME, Aliases, Made, &["kms:CreateAlias"]),
    (kms_key::NAME, Aliases, Perhaps, &["kms:DeleteAlias", "kms:UpdateAlias"]),
    (kms_key::NAME, Ours, Gone, &["kms:ScheduleKeyDeletion"]),
    (kms_key::NAME, Ours, Tagged, &["kms:TagResource"]),
    (
        kms_key::NAME,
        Ours,
        Perhaps,
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
    (log_group::NAME, Logs, Made, &["logs:CreateLogGroup", "logs:TagResource"]),
    (log_group::NAME, Logs, Gone, &["logs:DeleteLogGroup"]),
    (log_group::NAME, Logs, Tagged, &["logs:TagResource"]),
    (
        log_group::NAME,
        Logs,
        Perhaps,
        &[
            "logs:AssociateKmsKey",
            "logs:DeleteRetentionPolicy",
            "logs:DisassociateKmsKey",
            "logs:PutRetentionPolicy",
            "logs:UntagResource",
        ],
    ),
    (iam_role::NAME, Bounded, Made, &["iam:CreateRole"]),
    (iam_role::NAME, Roles, Made, &["iam:TagRole"]),
    (iam_role::NAME, Roles, Gone, &["iam:DeleteRole"]),
    (iam_role::NAME, Roles, Tagged, &["iam:TagRole"]),
    // What only takes rights away needs no condition: policies that were attached by hand go too.
    (
        iam_role::NAME,
        Roles,
        Perhaps,
        &["iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:UntagRole", "iam:UpdateAssumeRolePolicy"],
    ),
    (iam_role::NAME, Bounded, Perhaps, &["iam:PutRolePolicy"]),
    (iam_role::NAME, Attached, Perhaps, &["iam:AttachRolePolicy"]),
    (oidc_provider::NAME, Issuers, Made, &["iam:CreateOpenIDConnectProvider", "iam:TagOpenIDConnectProvider"]),
    (oidc_provider::NAME, Issuers, Gone, &["iam:DeleteOpenIDConnectProvider"]),
    (oidc_provider::NAME, Issuers, Tagged, &["iam:TagOpenIDConnectProvider"]),
    (
        oidc_provider::NAME,
        Issuers,
        Perhaps,
        &[
            "iam:AddClientIDToOpenIDConnectProvider",
            "iam:RemoveClientIDFromOpenIDConnectProvider",
            "iam:UntagOpenIDConnectProvider",
        ],
    ),
    (eks_cluster::NAME, Clusters, Made, &["eks:CreateCluster", "eks:TagResource"]),
    // Of the cluster's key, in the caller's name. EKS User Guide, "Encrypt Kubernetes secrets with KMS on existing
    // clusters" and "Security considerations for Kubernetes": `kms:GrantIsForAWSResource` isn't supported for
    // CreateCluster, so the key's tags are what limits it (KMS Developer Guide, "ABAC for AWS KMS").
    (eks_cluster::NAME, Grants, Made, &["kms:CreateGrant"]),
    (eks_cluster::NAME, Clusters, Gone, &["eks:DeleteCluster"]),
    (eks_cluster::NAME, Clusters, Tagged, &["eks:TagResource"]),
    (
        eks_cluster::NAME,
        Clusters,
        Perhaps,
        &[
            "eks:AssociateEncryptionConfig",
            "eks:UntagResource",
            "eks:UpdateClusterConfig",
            "eks:UpdateClusterVersion",
            // EKS makes entries for nodes' roles, which go with the roles.
            "eks:DeleteAccessEntry",
        ],
    ),
    (access_entry::NAME, Clusters, Made, &["eks:CreateAccessEntry", "eks:TagResource"]),
    (access_entry::NAME, Clusters, Gone, &["eks:DeleteAccessEntry"]),
    (
        access_entry::NAME,
        Clusters,
        Perhaps,
        &["eks:AssociateAccessPolicy", "eks:DisassociateAccessPolicy", "eks:UpdateAccessEntry"],
    ),
    (eks_addon::NAME, Clusters, Made, &["eks:CreateAddon", "eks:TagResource"]),
    (eks_addon::NAME, Clusters, Gone, &["eks:DeleteAddon"]),
    (eks_addon::NAME, Clusters, Perhaps, &["eks:UpdateAddon"]),
    (pod_identity::NAME, Clusters, Made, &["eks:CreatePodIdentityAssociation", "eks:TagResource"]),
    (pod_identity::NAME, Clusters, Gone, &["eks:DeletePodIdentityAssociation"]),
    (pod_identity::NAME, Clusters, Perhaps, &["eks:UpdatePodIdentityAssociation"]),
    (node_group::NAME, Clusters, Made, &["eks:CreateNodegroup", "eks:TagResource"]),
    (node_group::NAME, Clusters, Gone, &["eks:DeleteNodegroup"]),
    (node_group::NAME, Clusters, Perhaps, &["eks:UpdateNodegroupConfig", "eks:UpdateNodegroupVersion"]),
    // EKS checks that the caller could start the template's instances itself (Auto Scaling User Guide, "Launch template
    // support"), and looks at the node role as the caller (aws-controllers-k8s/community, issue 2164).
    (node_group::NAME, Anything, Made, &["ec2:RunInstances"]),
    (node_group::NAME, Roles, Made, &["iam:ListAttachedRolePolicies"]),
    (fargate_profile::NAME, Clusters, Made, &["eks:CreateFargateProfile", "eks:TagResource"]),
    (fargate_profile::NAME, Clusters, Gone, &["eks:DeleteFargateProfile"]),
];

/// What is looked at before the first write. IAM's simulation tells no more than iam:GetAccountAuthorizationDetails,
/// which shows every policy of the account, and the role's own name isn't known here: so it is allowed on everything.
const PREFLIGHT: &[&str] = &["iam:SimulatePrincipalPolicy"];

/// The lock's, which whoever changes things holds.
const LOCK: &[&str] = &["ssm:AddTagsToResource", "ssm:DeleteParameters", "ssm:GetParametersByPath", "ssm:PutParameter"];

/// The services that get roles of ours, by the kind that hands them over.
const PASSED: &[(&str, &[&str])] = &[
    (eks_cluster::NAME, &["eks.amazonaws.com"]),
    (eks_addon::NAME, &["eks.amazonaws.com", "pods.eks.amazonaws.com"]),
    (pod_identity::NAME, &["pods.eks.amazonaws.com"]),
    (node_group::NAME, &["ec2.amazonaws.com", "eks.amazonaws.com"]),
    // Which of the two is asked for isn't written anywhere: the role trusts the first, the second is who is called.
    (fargate_profile::NAME, &["eks-fargate-pods.amazonaws.com", "eks.amazonaws.com"]),
    (flow_log::NAME, &["vpc-flow-logs.amazonaws.com"]),
];

/// Reading, for `plan`, `drift` and `output`. The same for every spec.
pub fn reads() -> Value {
    json!({"Version": "2012-10-17", "Statement": [statement("Read", READS, &json!("*"), None)]})
}

/// Reading, and the changes of the kinds in `desired`, which `spec` became.
/// The account is the spec's, or any.
pub fn changes(spec: &Spec, desired: &Desired) -> Value {
    let mut kinds: BTreeSet<&str> = desired.iter().map(|r| r.kind).collect();
    // An add-on's own associations are made, changed and deleted in the caller's name, too.
    if desired.iter().any(|r| r.kind == eks_addon::NAME && associates(&r.state)) {
        kinds.insert(pod_identity::NAME);
    }
    let attached: BTreeSet<&str> = desired
        .iter()
        .filter(|r| r.kind == iam_role::NAME)
        .filter_map(|r| r.state["attached"].as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut scopes: BTreeMap<Scope, BTreeSet<&str>> = BTreeMap::new();
    let bounded = if spec.iam.permissions_boundary.is_some() { Bounded } else { Roles };
    for (_, scope, _, actions) in CHANGES.iter().filter(|(kind, ..)| kinds.contains(kind)) {
        let scope = if *scope == Bounded { bounded } else { *scope };
        scopes.entry(scope).or_default().extend(*actions);
    }
    scopes.entry(Lock).or_default().extend(LOCK);
    // Whoever must give each role the boundary may never take it away again. Without one in the spec, one that was put
    // by hand is drift.
    let boundary = match bounded {
        Bounded => "iam:PutRolePermissionsBoundary",
        _ => "iam:DeleteRolePermissionsBoundary",
    };
    scopes.entry(bounded).or_default().insert(boundary);
    scopes.entry(Anything).or_default().extend(PREFLIGHT);
    let place = Place::new(spec, spec.account_id.as_deref().unwrap_or("*"));
    let mut statements = vec![statement("Read", READS, &json!("*"), None)];
    statements.extend(scopes.into_iter().map(|(scope, actions)| {
        let actions: Vec<&str> = actions.into_iter().collect();
        statement(&format!("{scope:?}"), &actions, &place.resources(scope), place.condition(scope, &attached))
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

/// Actions that steps can't do without, and what to ask IAM about them: those of one service.
#[derive(Debug, Default)]
pub struct Question {
    /// With the addresses that need each.
    pub actions: BTreeMap<&'static str, Vec<Address>>,
    /// ARNs. Of which kind they are differs from action to action: it is enough to be allowed on one.
    pub resources: Vec<String>,
    /// Condition keys and their values, as the steps' calls have them.
    pub context: Vec<(String, String)>,
}

/// What `steps` can't do without in `account`. An update is asked about as far as it writes tags; which calls it makes
/// beside hangs on what exists.
pub fn questions(spec: &Spec, account: &str, steps: &[Step]) -> Vec<Question> {
    let place = Place::new(spec, account);
    let mut questions: BTreeMap<&str, Question> = BTreeMap::new();
    let mut passed = BTreeMap::new();
    for step in steps {
        let mut actions = match step.action {
            Action::Create => needed(step.kind, Made),
            Action::Delete => needed(step.kind, Gone),
            Action::Update if step.changes.iter().any(|c| c.path.starts_with("tags") && !c.after.is_null()) => {
                needed(step.kind, Tagged)
            }
            Action::Update | Action::Wait => BTreeSet::new(),
        };
        if step.action == Action::Create {
            // Where AWS doesn't say to which service a role is handed, there is nothing to ask.
            if let Some((_, [service])) = PASSED.iter().find(|(kind, _)| *kind == step.kind) {
                actions.insert("iam:PassRole");
                passed.entry("iam:PassedToService").or_insert_with(|| (*service).to_owned());
            }
            if step.kind == eks_addon::NAME && step.state.as_ref().is_some_and(associates) {
                actions.extend(needed(pod_identity::NAME, Made));
            }
            let linked = step.state.as_ref().and_then(|state| state["service"].as_str());
            if let Some(service) = linked.filter(|_| step.kind == service_linked_role::NAME) {
                actions.insert("iam:CreateServiceLinkedRole");
                passed.entry("iam:AWSServiceName").or_insert_with(|| service.to_owned());
            }
        }
        for action in actions {
            let question = questions.entry(service(action)).or_default();
            question.actions.entry(action).or_default().push(step.address.clone());
        }
    }
    for (service, question) in &mut questions {
        question.resources = place.subjects(service);
        question.context = place.keys(service);
        if *service == "iam" {
            let boundary = spec.iam.permissions_boundary.as_ref();
            question.context.extend(boundary.map(|arn| ("iam:PermissionsBoundary".to_owned(), arn.clone())));
            question.context.extend(passed.iter().map(|(key, to)| ((*key).to_owned(), to.clone())));
        }
    }
    questions.into_values().collect()
}

/// Whether an add-on, by its state, has Pod Identity associations.
fn associates(state: &Value) -> bool {
    state["pod_identity"].as_object().is_some_and(|roles| !roles.is_empty())
}

/// What every step of a kind needs.
fn needed(kind: &str, when: When) -> BTreeSet<&'static str> {
    let of = |row: &(&str, Scope, When, &[&'static str])| row.3.first().map(|action| service(action));
    let own = CHANGES.iter().find(|(k, ..)| *k == kind).and_then(of);
    let rows = |beside: &dyn Fn(Scope) -> bool| {
        let rows = CHANGES.iter().filter(|row| row.2 == when && (row.0 == kind || (beside(row.1) && of(row) == own)));
        rows.flat_map(|(.., actions)| *actions).copied().collect::<BTreeSet<_>>()
    };
    // What EC2 asks for where anything is tagged stands with the VPC.
    let actions = rows(&|scope| scope == TaggedWhenMade);
    if actions.is_empty() && when == Tagged { rows(&|_| true) } else { actions }
}

fn service(action: &str) -> &str {
    action.split(':').next().unwrap_or_default()
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
    boundary: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn new(spec: &'a Spec, account: &'a str) -> Self {
        Self {
            partition: spec.partition(),
            region: &spec.region,
            account,
            tenancy: &spec.name,
            roles: format!("{}{}", spec.iam.path, Names::new(spec).role_prefix()),
            boundary: spec.iam.permissions_boundary.as_deref(),
        }
    }

    fn iam(&self) -> String {
        format!("arn:{}:iam::{}", self.partition, self.account)
    }

    fn resources(&self, scope: Scope) -> Value {
        let Self { partition, region, account, tenancy, roles, boundary: _ } = self;
        let at = |service: &str, what: &str| format!("arn:{partition}:{service}:{region}:{account}:{what}");
        match scope {
            Anything | Ours | New | TaggedWhenMade => json!("*"),
            MainTables => json!(at("ec2", "route-table/*")),
            GuardDuty => json!([at("ec2", "security-group/*"), at("ec2", "vpc-endpoint/*")]),
            // Clusters, and what has its cluster's name in its ARN.
            Clusters => json!([at("eks", &format!("*/{tenancy}-p-*")), at("eks", &format!("*/{tenancy}-t-*"))]),
            Logs => json!([
                at("logs", &format!("log-group:/aws/eks/{tenancy}-*")),
                at("logs", &format!("log-group:/ringfence/{tenancy}-*")),
            ]),
            Keys | Grants => json!(at("kms", "key/*")),
            Aliases => json!(at("kms", &format!("alias/ringfence/{tenancy}-*"))),
            Roles | Bounded | Attached => json!(format!("{}:role{roles}*", self.iam())),
            Issuers => json!(format!("{}:oidc-provider/oidc.eks.{region}.*", self.iam())),
            Lock => json!(at("ssm", &format!("parameter/ringfence/{tenancy}/{region}/*"))),
        }
    }

    /// Resources of ours as a service's calls name them.
    fn subjects(&self, service: &str) -> Vec<String> {
        const EC2: &[&str] = &[
            "elastic-ip",
            "instance",
            "internet-gateway",
            "launch-template",
            "natgateway",
            "route-table",
            "security-group",
            "subnet",
            "vpc",
            "vpc-endpoint",
            "vpc-flow-log",
        ];
        const EKS: &[&str] = &["access-entry", "addon", "fargateprofile", "nodegroup", "podidentityassociation"];
        let Self { partition, region, account, tenancy, roles, boundary: _ } = self;
        let at = |what: String| format!("arn:{partition}:{service}:{region}:{account}:{what}");
        match service {
            "ec2" => std::iter::once("*".to_owned()).chain(EC2.iter().map(|kind| at(format!("{kind}/*")))).collect(),
            "eks" => ["p", "t"]
                .iter()
                .flat_map(|owner| {
                    let cluster = format!("{tenancy}-{owner}-1");
                    let parts = EKS.iter().map(|part| at(format!("{part}/{cluster}/1/1"))).collect::<Vec<_>>();
                    std::iter::once(at(format!("cluster/{cluster}"))).chain(parts)
                })
                .collect(),
            "kms" => vec!["*".to_owned(), at("key/*".to_owned()), at(format!("alias/ringfence/{tenancy}-1"))],
            "logs" => vec![
                at(format!("log-group:/aws/eks/{tenancy}-p-1/cluster")),
                at(format!("log-group:/ringfence/{tenancy}-p-1/flow")),
            ],
            _ => vec![
                format!("{}:role{roles}1", self.iam()),
                format!("{}:role/aws-service-role/eks.amazonaws.com/AWSServiceRoleForAmazonEKS", self.iam()),
                format!("{}:oidc-provider/oidc.eks.{region}.amazonaws.com/id/1", self.iam()),
            ],
        }
    }

    /// Condition keys that a service's calls about things of ours have.
    fn keys(&self, service: &str) -> Vec<(String, String)> {
        let ours = [(tags::TENANCY, self.tenancy), (tags::REGION, self.region)];
        let tag = |whose: &str| ours.map(|(tag, value)| (format!("aws:{whose}/{tag}"), value.to_owned()));
        let mut keys = [tag("RequestTag"), tag("ResourceTag")].concat();
        let own = match service {
            "ec2" => Some(("ec2:CreateAction", "CreateVpc")),
            _ => None,
        };
        keys.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
        // IAM's calls go elsewhere.
        if service != "iam" {
            keys.push(("aws:RequestedRegion".to_owned(), self.region.to_owned()));
        }
        keys
    }

    /// `attached` are the policies that the spec's roles get.
    fn condition(&self, scope: Scope, attached: &BTreeSet<&str>) -> Option<Value> {
        let tags = |whose: &str| {
            let key = |tag: &str| format!("aws:{whose}/{tag}");
            json!({"StringEquals": {key(tags::TENANCY): self.tenancy, key(tags::REGION): self.region}})
        };
        match scope {
            Ours | Grants => Some(tags("ResourceTag")),
            New => Some(tags("RequestTag")),
            TaggedWhenMade => {
                let mut condition = tags("RequestTag");
                // Absent from calls that only tag: nobody else's things can be made ours.
                condition["StringLike"] = json!({"ec2:CreateAction": "*"});
                Some(condition)
            }
            // Both keys: Service Authorization Reference, IAM; IAM User Guide, "Permissions boundaries".
            Bounded => self.boundary.map(|arn| json!({"StringEquals": {"iam:PermissionsBoundary": arn}})),
            Attached => {
                let mut condition = json!({"ArnEquals": {"iam:PolicyARN": attached}});
                if let Some(arn) = self.boundary {
                    condition["StringEquals"] = json!({"iam:PermissionsBoundary": arn});
                }
                Some(condition)
            }
            MainTables => Some(json!({"Null": {format!("aws:ResourceTag/{}", tags::TENANCY): "true"}})),
            GuardDuty => Some(json!({"StringEquals": {"aws:ResourceTag/GuardDutyManaged": "true"}})),
            _ => None,
        }
    }
}
