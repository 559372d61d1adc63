//! The IAM permissions that ringfence needs for a spec, as an IAM policy. The Service Authorization Reference says
//! which conditions and resources an action supports. If the reference isn't clear, the statement allows the action
//! on all resources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::aws::tags;
use crate::engine::address::Address;
use crate::engine::desired::Desired;
use crate::engine::packed::Packed;
use crate::engine::plan::{Action, Step};
use crate::kinds::aws::permission::On::{
    Aliases, Anything, Attached, Bounded, Clusters, Grants, GuardDuty, Issuers, Keys, Lock, Logs, MainTables, New,
    Ours, Roles, TaggedWhenMade,
};
use crate::kinds::aws::permission::When::{Gone, Made, Tagged};
use crate::kinds::aws::permission::{On, Permission, When};
use crate::kinds::aws::{eks_addon, iam_role, pod_identity, service_linked_role};
use crate::kinds::{self, ResourceKind};
use crate::spec::Spec;
use crate::spec::names::Names;

/// The maximum length of a role's inline policies, without white space (IAM quotas).
pub const MAX_POLICY: usize = 10_240;

/// Reads for several kinds, and reads of what AWS offers.
const READS: &[&str] = &[
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeVpcEndpointServices",
    "eks:DescribeAddonVersions",
    "eks:DescribeClusterVersions",
    "eks:DescribeUpdate",
    "eks:ListUpdates",
    "iam:GetPolicy",
    "servicequotas:ListAWSDefaultServiceQuotas",
    "servicequotas:ListServiceQuotas",
    "ssm:GetParameters",
    "sts:GetCallerIdentity",
];

/// Reads of the checks before the first write. IAM's simulation reveals no more than
/// iam:GetAccountAuthorizationDetails does, which shows every policy of the account. The caller's role name isn't
/// known here, so the simulation is allowed on all resources.
const PREFLIGHT: &[&str] = &["iam:SimulatePrincipalPolicy"];

/// The lock's calls, for every command that changes resources.
const LOCK: &[&str] = &["ssm:AddTagsToResource", "ssm:DeleteParameters", "ssm:GetParametersByPath", "ssm:PutParameter"];

/// All kinds with the permissions of their calls.
struct Table(Vec<Arc<dyn ResourceKind>>);

impl Table {
    fn new() -> Self {
        Self(kinds::all())
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, Permission)> {
        self.0.iter().flat_map(|kind| kind.permissions().iter().map(|row| (kind.name(), *row)))
    }

    /// The reads of all kinds, including kinds that have left the spec: their resources must be found, too.
    fn reads(&self) -> Vec<&'static str> {
        let reads: BTreeSet<&str> = self.0.iter().flat_map(|kind| kind.reads()).chain(READS).copied().collect();
        reads.into_iter().collect()
    }

    /// The services to which the kind passes our roles.
    fn passed(&self, kind: &str) -> &'static [&'static str] {
        self.0.iter().find(|k| k.name() == kind).map(|k| k.passes_roles_to()).unwrap_or_default()
    }

    /// The actions that every step of a kind needs.
    fn needed(&self, kind: &str, when: When) -> BTreeSet<&'static str> {
        let of = |(_, _, actions): Permission| actions.first().map(|action| service(action));
        let own = self.rows().find(|(k, _)| *k == kind).and_then(|(_, row)| of(row));
        let rows = |beside: &dyn Fn(On) -> bool| {
            let all = self.rows().filter(|(_, row)| row.1 == when);
            let rows = all.filter(|(k, row)| *k == kind || (beside(row.0) && of(*row) == own));
            rows.flat_map(|(_, row)| row.2).copied().collect::<BTreeSet<_>>()
        };
        // The actions for tagging any EC2 resource are listed with the VPC kind.
        let actions = rows(&|scope| scope == TaggedWhenMade);
        if actions.is_empty() && when == Tagged { rows(&|_| true) } else { actions }
    }
}

/// The permissions to read, for `plan`, `drift` and `output`. They don't depend on the spec.
pub fn reads() -> Value {
    let table = Table::new();
    json!({"Version": "2012-10-17", "Statement": [statement("Read", &table.reads(), &json!("*"), None)]})
}

/// The permissions to read, and to change the kinds in `desired`, which was built from `spec`. The account is the
/// spec's account, or any account.
pub fn changes(spec: &Spec, desired: &Desired) -> Value {
    let table = Table::new();
    let mut kinds: BTreeSet<&str> = desired.iter().map(|r| r.kind).collect();
    // EKS creates, changes and deletes an add-on's own associations with the caller's permissions.
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
    let mut scopes: BTreeMap<On, BTreeSet<&str>> = BTreeMap::new();
    let bounded = if spec.iam.permissions_boundary.is_some() { Bounded } else { Roles };
    for (_, (scope, _, actions)) in table.rows().filter(|(kind, _)| kinds.contains(kind)) {
        let scope = if scope == Bounded { bounded } else { scope };
        scopes.entry(scope).or_default().extend(actions);
    }
    scopes.entry(Lock).or_default().extend(LOCK);
    // A caller who must set the boundary on each role must not be allowed to remove it. If the spec has no boundary,
    // a boundary that was added outside of ringfence is drift and is removed.
    let boundary = match bounded {
        Bounded => "iam:PutRolePermissionsBoundary",
        _ => "iam:DeleteRolePermissionsBoundary",
    };
    scopes.entry(bounded).or_default().insert(boundary);
    scopes.entry(Anything).or_default().extend(PREFLIGHT);
    let place = Place::new(spec, spec.account_id.as_deref().unwrap_or("*"));
    let mut statements = vec![statement("Read", &table.reads(), &json!("*"), None)];
    statements.extend(scopes.into_iter().map(|(scope, actions)| {
        let actions: Vec<&str> = actions.into_iter().collect();
        statement(&format!("{scope:?}"), &actions, &place.resources(scope), place.condition(scope, &attached))
    }));
    let mut passed: BTreeSet<String> = BTreeSet::new();
    for service in kinds.iter().flat_map(|kind| table.passed(kind)) {
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

/// Actions of one service that steps require, and the simulation request for them.
#[derive(Debug, Default)]
pub struct Question {
    /// The actions, with the addresses that need each.
    pub actions: BTreeMap<&'static str, Vec<Address>>,
    /// ARNs. Actions support different resource types, so an action counts as allowed if IAM allows it on one of the
    /// ARNs.
    pub resources: Vec<String>,
    /// Condition keys and their values, as the steps' calls send them.
    pub context: Vec<(String, String)>,
}

/// The actions that `steps` require in `account`. Of an update, only the tagging actions are known: its other calls
/// depend on what exists.
pub fn questions(spec: &Spec, account: &str, steps: &[Step]) -> Vec<Question> {
    let table = Table::new();
    let place = Place::new(spec, account);
    let mut questions: BTreeMap<&str, Question> = BTreeMap::new();
    let mut passed = BTreeMap::new();
    for step in steps {
        let mut actions = match step.action {
            Action::Create => table.needed(step.kind, Made),
            Action::Delete => table.needed(step.kind, Gone),
            Action::Update if step.changes.iter().any(|c| c.path.starts_with("tags") && !c.after.is_null()) => {
                table.needed(step.kind, Tagged)
            }
            Action::Update | Action::Wait => BTreeSet::new(),
        };
        if step.action == Action::Create {
            // If AWS doesn't document to which service a role is passed, there is no request to simulate.
            if let [service] = table.passed(step.kind) {
                actions.insert("iam:PassRole");
                passed.entry("iam:PassedToService").or_insert_with(|| (*service).to_owned());
            }
            if step.kind == eks_addon::NAME && step.state.as_ref().is_some_and(associates) {
                actions.extend(table.needed(pod_identity::NAME, Made));
            }
            let linked = step.state.as_ref().filter(|_| step.kind == service_linked_role::NAME);
            if let Some(service) = linked.and_then(|state| state["service"].as_str()) {
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

/// True if an add-on's state has Pod Identity associations.
fn associates(state: &Packed) -> bool {
    state["pod_identity"].as_object().is_some_and(|roles| !roles.is_empty())
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

/// The parts of ARNs.
struct Place<'a> {
    partition: &'a str,
    region: &'a str,
    account: &'a str,
    tenancy: &'a str,
    /// The path and the name prefix of the roles.
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

    fn resources(&self, scope: On) -> Value {
        let Self { partition, region, account, tenancy, roles, boundary: _ } = self;
        let at = |service: &str, what: &str| format!("arn:{partition}:{service}:{region}:{account}:{what}");
        match scope {
            Anything | Ours | New | TaggedWhenMade => json!("*"),
            MainTables => json!(at("ec2", "route-table/*")),
            GuardDuty => json!([at("ec2", "security-group/*"), at("ec2", "vpc-endpoint/*")]),
            // ARNs of clusters and of resources whose ARN has the cluster's name.
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

    /// The tenancy's resources, as the calls of a service name them.
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

    /// Condition keys that a service's calls about the tenancy's resources have.
    fn keys(&self, service: &str) -> Vec<(String, String)> {
        let ours = [(tags::TENANCY, self.tenancy), (tags::REGION, self.region)];
        let tag = |whose: &str| ours.map(|(tag, value)| (format!("aws:{whose}/{tag}"), value.to_owned()));
        let mut keys = [tag("RequestTag"), tag("ResourceTag")].concat();
        let own = match service {
            "ec2" => Some(("ec2:CreateAction", "CreateVpc")),
            _ => None,
        };
        keys.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
        // IAM is a global service, so its calls have no region of the estate.
        if service != "iam" {
            keys.push(("aws:RequestedRegion".to_owned(), self.region.to_owned()));
        }
        keys
    }

    /// `attached`: the policies that the spec attaches to roles.
    fn condition(&self, scope: On, attached: &BTreeSet<&str>) -> Option<Value> {
        let tags = |whose: &str| {
            let key = |tag: &str| format!("aws:{whose}/{tag}");
            json!({"StringEquals": {key(tags::TENANCY): self.tenancy, key(tags::REGION): self.region}})
        };
        match scope {
            Ours | Grants => Some(tags("ResourceTag")),
            New => Some(tags("RequestTag")),
            TaggedWhenMade => {
                let mut condition = tags("RequestTag");
                // The key is absent from calls that only add tags. So the caller can't take over another owner's
                // resources by tagging them.
                condition["StringLike"] = json!({"ec2:CreateAction": "*"});
                Some(condition)
            }
            // Both keys are needed: Service Authorization Reference, IAM; IAM User Guide, "Permissions boundaries".
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
