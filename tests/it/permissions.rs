//! The policies that `ringfence iam-policy` prints name every action that the code calls. They are sufficient for their
//! purpose and have no statement that isn't needed. The sandbox enforces them on roles to show that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};
use aws_sdk_eks::types::VpcConfigRequest;
use ringfence::aws;
use ringfence::engine::clock::Clock;
use ringfence::engine::error::{Class, Error};
use ringfence::engine::kind::{Handlers, Round};
use ringfence::engine::plan::Policy;
use ringfence::kinds::aws::iam_role::IamRoleHandlers;
use ringfence::run::Session;
use ringfence::spec::{self, LoadOptions};
use ringfence::stack::permissions::MAX_POLICY;
use ringfence::template::Templates;
use serde_json::Value;

use crate::models::{self, Life};
use crate::reliability;
use crate::support::served::Served;

const SERVICES: [&str; 8] = ["ec2", "eks", "iam", "kms", "logs", "sts", "ssm", "servicequotas"];

/// Every `"service:Action"` in the sources that talk to AWS, without actions in policy documents of roles, which
/// ringfence itself doesn't call.
fn called() -> BTreeSet<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut actions = BTreeSet::new();
    let mut directories = vec![src.join("aws"), src.join("kinds/aws")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a source directory").flatten() {
            if entry.path().is_dir() {
                directories.push(entry.path());
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            for literal in without_tables(&text).split('"').skip(1).step_by(2) {
                let Some((service, action)) = literal.split_once(':') else { continue };
                let word = action.chars().all(char::is_alphanumeric) && action.starts_with(char::is_uppercase);
                if SERVICES.contains(&service) && word && !matches!(literal, "sts:AssumeRole" | "sts:TagSession") {
                    actions.insert(literal.to_owned());
                }
            }
        }
    }
    actions
}

/// The code of a kind without the tables from which the policy is made. AWS itself needs some actions of these tables
/// with the caller's permissions, so an action in a table doesn't show that ringfence calls it.
fn without_tables(text: &str) -> String {
    let mut code = text.to_owned();
    for table in ["    fn reads(&self)", "    fn permissions(&self)"] {
        while let Some(begin) = code.find(table) {
            let end = code[begin..].find("\n    }\n").map_or(code.len(), |end| begin + end);
            code.replace_range(begin..end, "");
        }
    }
    code
}

fn actions(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().expect("statements");
    let actions = statements.iter().flat_map(|s| s["Action"].as_array().expect("actions"));
    actions.filter_map(|a| a.as_str()).map(str::to_owned).collect()
}

fn is_read(action: &str) -> bool {
    let name = action.split(':').nth(1).unwrap_or_default();
    ["Describe", "Get", "List"].iter().any(|verb| name.starts_with(verb))
}

#[test]
fn the_printed_policies_name_every_action_that_the_code_calls() {
    let apply: BTreeSet<String> = examples().iter().flat_map(|spec| actions(&printed(spec, "apply"))).collect();
    assert!(called().len() > 100, "calls are found: {:?}", called());
    let missing: Vec<String> = called().difference(&apply).cloned().collect();
    assert!(missing.is_empty(), "src/stack/permissions.rs lacks {missing:?}");
    let plan = actions(&printed(&example("three-tiers"), "plan"));
    // Only commands that write need the lock and the preflight.
    let needed = |a: &String| {
        is_read(a) && !["ssm:GetParametersByPath", "servicequotas:ListServiceQuotas"].contains(&a.as_str())
    };
    let missing: Vec<String> = called().into_iter().filter(|a| needed(a) && !plan.contains(a)).collect();
    assert!(missing.is_empty(), "READS of src/stack/permissions.rs lacks {missing:?}");
    let writes: Vec<&String> = plan.iter().filter(|a| !is_read(a)).collect();
    assert!(writes.is_empty(), "READS of src/stack/permissions.rs allows changes: {writes:?}");
}

pub fn example(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("tenancy.yaml");
    fs::read_to_string(file).expect("the example")
}

pub fn examples() -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // `ci` has workflows, which hold no spec.
    names.filter(|name| name != "ci").map(|name| example(&name)).collect()
}

/// The output of `ringfence iam-policy` for `spec`, offline.
pub fn printed(spec: &str, purpose: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tenancy.yaml"), spec).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    let output = command.args(["iam-policy", "--for", purpose]).current_dir(dir.path()).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn nothing_refused(served: &Served) {
    let (_, refused) = served.server.permissions();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Actions that no lifecycle in the tests needs, with the reason why the policy has them.
const RARE: &[(&str, &str)] = &[
    ("ec2:AuthorizeSecurityGroupEgress", "a rule was taken out by hand"),
    ("ec2:DeleteNetworkInterface", "the CNI left an interface behind"),
    ("ec2:DeleteRoute", "a route was added by hand"),
    ("ec2:DeleteTags", "a tag was added by hand, or leaves the spec"),
    ("ec2:DisassociateVpcCidrBlock", "a block was added to a VPC by hand"),
    ("ec2:ModifySubnetAttribute", "a subnet was told by hand to give out public addresses"),
    ("ec2:ModifyVpcEndpoint", "an endpoint was changed by hand, or its subnets change"),
    ("ec2:ReplaceRoute", "a route was changed by hand"),
    ("ec2:ReplaceRouteTableAssociation", "another table was made the main one by hand"),
    ("ec2:UpdateSecurityGroupRuleDescriptionsIngress", "a rule was renamed by hand"),
    ("eks:AssociateEncryptionConfig", "a cluster was made without a key"),
    ("eks:DisassociateAccessPolicy", "a policy was added to an entry by hand"),
    ("eks:UntagResource", "a tag was added by hand, or leaves the spec"),
    ("eks:UpdateAccessEntry", "an entry's groups were changed by hand"),
    ("eks:UpdateAddon", "a newer version is taken"),
    ("eks:UpdateClusterVersion", "a newer version is taken"),
    ("eks:UpdateNodegroupConfig", "a pool is resized"),
    ("eks:UpdateNodegroupVersion", "a newer version is taken, or nodes get other settings"),
    ("eks:UpdatePodIdentityAssociation", "an association was changed by hand"),
    ("iam:AddClientIDToOpenIDConnectProvider", "a provider was changed by hand"),
    ("iam:DeleteRolePermissionsBoundary", "the boundary leaves the spec, or was put by hand"),
    ("iam:PutRolePermissionsBoundary", "the boundary comes into the spec, or changes"),
    ("iam:RemoveClientIDFromOpenIDConnectProvider", "a provider was changed by hand"),
    ("iam:UntagOpenIDConnectProvider", "a tag was added by hand, or leaves the spec"),
    ("iam:UntagRole", "a tag was added by hand, or leaves the spec"),
    ("iam:UpdateAssumeRolePolicy", "a trust policy was changed by hand"),
    ("kms:CancelKeyDeletion", "a key was scheduled for deletion by hand"),
    ("kms:DisableKeyRotation", "rotation was turned on by hand"),
    ("kms:EnableKey", "a key was disabled by hand"),
    ("kms:PutKeyPolicy", "a key's policy changes"),
    ("kms:UntagResource", "a tag was added by hand, or leaves the spec"),
    ("kms:UpdateAlias", "an alias leads to another key"),
    ("kms:UpdateKeyDescription", "a description was changed by hand"),
    ("logs:AssociateKmsKey", "a group was made without a key"),
    ("logs:DeleteRetentionPolicy", "retention was set by hand"),
    ("logs:DisassociateKmsKey", "a group's key changes"),
    ("logs:UntagResource", "a tag was added by hand, or leaves the spec"),
    ("servicequotas:ListServiceQuotas", "there is something to count before it is made"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policy_is_sufficient_for_the_lifecycle_of_every_example() {
    let (mut allowed, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for Life { policy, permissions: (actions_needed, refused), .. } in models::lives().await {
        assert!(refused.is_empty(), "{refused:#?}");
        assert!(actions_needed.contains("ec2:DeleteVpc") && actions_needed.contains("iam:PassRole"), "a whole life");
        allowed.extend(actions(policy));
        needed.extend(actions_needed.iter().cloned());
    }
    let rare: BTreeSet<String> = RARE.iter().map(|(action, _)| (*action).to_owned()).collect();
    let unused: Vec<&String> =
        allowed.iter().filter(|a| !needed.contains(*a) && !rare.contains(*a) && !is_read(a)).collect();
    assert!(unused.is_empty(), "no life needs {unused:#?}: say why they are allowed, or don't allow them");
    let common: Vec<&String> = rare.intersection(&needed).filter(|a| *a != "servicequotas:ListServiceQuotas").collect();
    assert!(common.is_empty(), "lives need {common:#?}: they aren't rare");
}

/// Each statement, with the policy without it.
fn without_one(policy: &Value) -> Vec<(Value, Value)> {
    let count = policy["Statement"].as_array().unwrap().len();
    let without = (0..count).map(|n| {
        let mut policy = policy.clone();
        (policy["Statement"].as_array_mut().unwrap().remove(n), policy)
    });
    without.collect()
}

/// One run in this process without the preflight. A refused call is an error.
async fn run(served: &Served, text: &str, policy: &Policy) -> Result<(), Error> {
    let options = LoadOptions { profiles_dir: None, today: Clock::today() };
    let spec = spec::load(Path::new("tenancy.yaml"), text, &options).unwrap();
    let aws = served.connect(&spec.region, &spec.name).await;
    let session = Session::on(spec, aws, BTreeMap::new(), Templates::load(None)?);
    let lock = session.lock().take("apply", Duration::from_secs(60), Duration::ZERO, &|_| {}).await?;
    let (_, plan) = session.plan(policy, false).await?;
    reliability::carry_out(&session, &plan).await;
    lock.release().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_of_the_printed_policy_is_needed() {
    let spec = example("three-tiers");
    let all = without_one(&printed(&spec, "apply"));
    assert!(all.len() > 10, "{}", all.len());
    // Other tests show that these are needed: `guardduty_resources_in_a_vpc`, and `a_main_table` for changes by hand.
    let rare = |gone: &Value| gone["Sid"] == "GuardDuty" || gone["Sid"] == "MainTables";
    for (gone, policy) in all.into_iter().filter(|(gone, _)| !rare(gone)) {
        let served = Served::enforced(&spec, &policy.to_string()).await;
        let destroy = Policy { destroy: true, delete_logs: true, ..Policy::default() };
        for (spec, policy) in
            [(spec.clone(), Policy::default()), (models::changed(&spec), Policy::default()), (spec.clone(), destroy)]
        {
            // The refusals show what failed.
            let _ended = run(&served, &spec, &policy).await;
            if !served.server.permissions().1.is_empty() {
                break;
            }
        }
        let (_, refused) = served.server.permissions();
        let named = |message: &String| {
            let (_, after) = message.split_once("is not authorized to perform: ").unwrap();
            gone["Action"].as_array().unwrap().iter().any(|action| after.split(' ').next() == action.as_str())
        };
        assert!(!refused.is_empty() && refused.iter().all(named), "without {}: {refused:#?}", gone["Sid"]);
    }
}

/// The statement that only a VPC with GuardDuty needs. It allows nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn guardduty_resources_in_a_vpc() {
    let spec = example("single-silo");
    let whole = printed(&spec, "apply");
    for allowed in [true, false] {
        let mut policy = whole.clone();
        policy["Statement"].as_array_mut().unwrap().retain(|s| allowed || s["Sid"] != "GuardDuty");
        let mut served = Served::enforced(&spec, &whole.to_string()).await;
        served.run(&["apply", "--auto-approve"], 0).await;
        served.act_as_administrator();
        crate::cli::others::guardduty(&*served.connect("eu-central-1", "foreign").await, true).await;
        served.act_as("again", &policy.to_string()).await;
        let destroy = ["destroy", "--auto-approve", "--delete-logs"];
        match allowed {
            true => drop(served.run(&destroy, 0).await),
            false => drop(served.run(&destroy, 1).await),
        }
        assert_eq!(served.server.permissions().1.is_empty(), allowed, "{:#?}", served.server.permissions().1);
    }
}

/// A VPC's main route table doesn't have our tags. ringfence empties it, or makes it the main one again after somebody
/// put a table of ours in its place. If it is deleted, ringfence makes another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_main_table() {
    let spec = example("single-silo");
    let whole = printed(&spec, "apply");
    let of = |name: &str, value: &str| aws_sdk_ec2::types::Filter::builder().name(name).values(value).build();
    for (allowed, gone) in [(true, false), (true, true), (false, false)] {
        let mut policy = whole.clone();
        policy["Statement"].as_array_mut().unwrap().retain(|s| allowed || s["Sid"] != "MainTables");
        let mut served = Served::enforced(&spec, &whole.to_string()).await;
        served.run(&["apply", "--auto-approve"], 0).await;
        served.act_as_administrator();
        let aws = served.connect("eu-central-1", "foreign").await;
        let ec2 = &aws.ec2;
        let gateways = ec2.describe_internet_gateways().send().await.unwrap().internet_gateways.unwrap();
        let (gateway, vpc) =
            (gateways[0].internet_gateway_id().unwrap(), gateways[0].attachments()[0].vpc_id().unwrap());
        let tables = ec2.describe_route_tables().filters(of("vpc-id", vpc)).send().await.unwrap().route_tables.unwrap();
        let is_main = |a: &&aws_sdk_ec2::types::RouteTableAssociation| a.main() == Some(true);
        let main = tables.iter().find(|t| t.associations().iter().any(|a| is_main(&a))).unwrap();
        let table = main.route_table_id().unwrap();
        if !gone {
            let call = ec2.create_route().route_table_id(table).gateway_id(gateway);
            call.destination_cidr_block("10.9.0.0/16").send().await.unwrap();
            served.act_as("again", &policy.to_string()).await;
            served.run(&["apply", "--auto-approve"], if allowed { 0 } else { 1 }).await;
            assert_eq!(served.server.permissions().1.is_empty(), allowed, "{:#?}", served.server.permissions().1);
            served.act_as_administrator();
        }
        if !allowed {
            continue;
        }
        let ours = tables.iter().find(|t| t.associations().iter().all(|a| !is_main(&a))).unwrap();
        let association = main.associations().iter().find(is_main).unwrap().route_table_association_id().unwrap();
        let call = ec2.replace_route_table_association().association_id(association);
        call.route_table_id(ours.route_table_id().unwrap()).send().await.unwrap();
        if gone {
            ec2.delete_route_table().route_table_id(table).send().await.unwrap();
        }
        served.act_as("once-more", &policy.to_string()).await;
        served.run(&["apply", "--auto-approve"], 0).await;
        served.run(&["plan", "--detailed-exitcode"], 0).await;
        served.run(&["destroy", "--auto-approve", "--delete-logs"], 0).await;
        nothing_refused(&served);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policy_is_sufficient_to_name_users_of_a_role() {
    let spec = example("single-silo");
    let served = Served::enforced(&spec, &printed(&spec, "apply").to_string()).await;
    served.run(&["apply", "--auto-approve"], 0).await;
    let kind = IamRoleHandlers::new(served.connect("eu-central-1", "solo").await);
    let roles = kind.observe(&Round::default(), &[]).await.unwrap().found;
    let nodes = roles.iter().find(|role| role.id.contains("node")).unwrap();
    let error = kind.delete(nodes).await.unwrap_err();
    assert!(error.help.as_ref().is_some_and(|help| help.contains("is in the instance profile eks-")), "{error:?}");
    nothing_refused(&served);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policy_for_planning_allows_a_plan_and_no_change() {
    let spec = example("three-tiers");
    let mut served = Served::enforced(&spec, &printed(&spec, "plan").to_string()).await;
    served.run(&["plan", "--detailed-exitcode"], 2).await;
    let before = served.server.dump();
    let said = served.run(&["apply", "--auto-approve"], 1).await;
    assert!(said.contains("ssm:GetParametersByPath") && said.contains("is not authorized"), "{said}");
    assert_eq!(served.server.dump(), before);
    served.act_as_administrator();
    served.run(&["apply", "--auto-approve"], 0).await;
    served.act_as("planner", &printed(&spec, "plan").to_string()).await;
    let refused = served.server.permissions().1.len();
    served.run(&["plan", "--detailed-exitcode"], 0).await;
    served.run(&["drift"], 0).await;
    served.run(&["output"], 0).await;
    assert_eq!(served.server.permissions().1.len(), refused);
}

/// Asserts that each call is refused with this code, and that the refusal names this action.
macro_rules! refused {
    ($($code:literal $action:literal: $call:expr;)*) => {$(
        let error = $call.send().await.map_err(aws::error::failed($action)).map(|_| ()).expect_err($action);
        assert_eq!((error.class, error.code.as_deref()), (Class::Denied, Some($code)), "{error}");
        let said = concat!("/ringfence is not authorized to perform: ", $action, " on resource: ");
        assert!(error.message.contains(said), "{error}");
    )*};
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_every_service_are_recognised() {
    let nothing = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"x:*","Resource":"*"}]}"#;
    let served = Served::enforced(&example("three-tiers"), nothing).await;
    let aws = served.connect("us-east-1", "acme").await;
    refused! {
        "UnauthorizedOperation" "ec2:DescribeVpcs": aws.ec2.describe_vpcs();
        "UnauthorizedOperation" "ec2:CreateVpc": aws.ec2.create_vpc().cidr_block("10.0.0.0/16");
        "AccessDenied" "iam:ListRoles": aws.iam.list_roles();
        "AccessDenied" "iam:GetRole": aws.iam.get_role().role_name("PlatformAdmin");
        "AccessDeniedException" "eks:ListClusters": aws.eks.list_clusters();
        "AccessDeniedException" "kms:ListKeys": aws.kms.list_keys();
        "AccessDeniedException" "logs:DescribeLogGroups": aws.logs.describe_log_groups();
        "AccessDeniedException" "servicequotas:ListServiceQuotas": aws_sdk_servicequotas::Client::new(&aws.config).list_service_quotas().service_code("vpc");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policy_gives_no_access_to_resources_of_others() {
    let spec = example("three-tiers");
    let mut served = Served::enforced(&spec, &printed(&spec, "apply").to_string()).await;
    let us = served.connect("us-east-1", "acme").await;
    served.act_as_administrator();
    let them = served.connect("us-east-1", "other").await;
    let vpc = them.ec2.create_vpc().cidr_block("10.0.0.0/16").send().await.unwrap().vpc.unwrap().vpc_id.unwrap();
    let key = them.kms.create_key().send().await.unwrap().key_metadata.unwrap().key_id;
    them.logs.create_log_group().log_group_name("/theirs").send().await.unwrap();
    let ours = |kind: ResourceType| {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        let tags = [tag("ringfence.dev/tenancy", "acme"), tag("ringfence.dev/region", "us-east-1")];
        TagSpecification::builder().resource_type(kind).set_tags(Some(tags.to_vec())).build()
    };
    let tags = ours(ResourceType::Vpc).tags().to_vec();
    refused! {
        "UnauthorizedOperation" "ec2:DeleteVpc": us.ec2.delete_vpc().vpc_id(&vpc);
        // Resources of others can't get our tags, and no resource can be made without them.
        "UnauthorizedOperation" "ec2:CreateTags": us.ec2.create_tags().resources(&vpc).set_tags(Some(tags));
        "UnauthorizedOperation" "ec2:CreateVpc": us.ec2.create_vpc().cidr_block("10.1.0.0/16");
        // The new resource would be ours, but it would be made in a place that isn't.
        "UnauthorizedOperation" "ec2:CreateSubnet":
            us.ec2.create_subnet().vpc_id(&vpc).cidr_block("10.0.1.0/24").tag_specifications(ours(ResourceType::Subnet));
        "AccessDenied" "iam:DeleteRole": us.iam.delete_role().role_name("PlatformAdmin");
        "AccessDeniedException" "kms:ScheduleKeyDeletion": us.kms.schedule_key_deletion().key_id(&key);
        "AccessDeniedException" "kms:CreateGrant":
            us.kms.create_grant().key_id(&key).grantee_principal("arn:aws:iam::123456789012:role/PlatformAdmin");
        "AccessDeniedException" "logs:DeleteLogGroup": us.logs.delete_log_group().log_group_name("/theirs");
    }
    let role = "arn:aws:iam::123456789012:role/PlatformAdmin";
    let network = VpcConfigRequest::builder().subnet_ids("subnet-1").build();
    let create = |name: &str| us.eks.create_cluster().name(name).role_arn(role).resources_vpc_config(network.clone());
    refused! {
        "AccessDeniedException" "eks:CreateCluster": create("theirs");
        "AccessDeniedException" "iam:PassRole": create("acme-p-1");
    }
    us.ec2.create_vpc().cidr_block("10.1.0.0/16").tag_specifications(ours(ResourceType::Vpc)).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_boundary_can_neither_be_omitted_nor_removed() {
    const BOUNDARY: &str = "arn:aws-us-gov:iam::210987654321:policy/PlatformBoundary";
    let spec = example("regulated");
    let printed = printed(&spec, "apply");
    assert!(!actions(&printed).contains("iam:DeleteRolePermissionsBoundary"));
    let mut served = Served::enforced(&spec, &printed.to_string()).await;
    let us = served.connect("us-gov-west-1", "civic").await;
    served.act_as_administrator();
    let admin = served.connect("us-gov-west-1", "civic").await;
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    let name = |end: &str| format!("civic-us-gov-west-1-t-{end}");
    let role = |aws: &aws::Aws, end: &str| {
        let call = aws.iam.create_role().role_name(name(end)).path("/civic/platform/");
        call.assume_role_policy_document(trust)
    };
    role(&admin, "free").send().await.unwrap();
    let everything = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let worker = "arn:aws-us-gov:iam::aws:policy/AmazonEKSWorkerNodePolicy";
    let put = |end: &str| us.iam.put_role_policy().role_name(name(end)).policy_name("x").policy_document(everything);
    let attach = |end: &str, arn: &str| us.iam.attach_role_policy().role_name(name(end)).policy_arn(arn);
    let bound =
        |end: &str, arn: &str| us.iam.put_role_permissions_boundary().role_name(name(end)).permissions_boundary(arn);
    refused! {
        "AccessDenied" "iam:CreateRole": role(&us, "made");
        "AccessDenied" "iam:CreateRole": role(&us, "made").permissions_boundary(worker);
        "AccessDenied" "iam:PutRolePolicy": put("free");
        "AccessDenied" "iam:AttachRolePolicy": attach("free", worker);
        "AccessDenied" "iam:PutRolePermissionsBoundary": bound("free", worker);
    }
    role(&us, "made").permissions_boundary(BOUNDARY).send().await.unwrap();
    put("made").send().await.unwrap();
    attach("made", worker).send().await.unwrap();
    bound("free", BOUNDARY).send().await.unwrap();
    refused! {
        "AccessDenied" "iam:AttachRolePolicy": attach("made", "arn:aws-us-gov:iam::aws:policy/AdministratorAccess");
        "AccessDenied" "iam:PutRolePermissionsBoundary": bound("made", worker);
        "AccessDenied" "iam:DeleteRolePermissionsBoundary":
            us.iam.delete_role_permissions_boundary().role_name(name("made"));
    }
}

/// Auto Scaling User Guide, "Service-linked roles": an account may have further ones with a suffix, for access to keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_linked_role_with_a_suffix_is_another_role() {
    let suffixed =
        "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling_x";
    let spec = format!("{}\n# {suffixed}\n", example("three-tiers"));
    let served = Served::start(&spec).await;
    let aws = served.connect("us-east-1", "acme").await;
    aws.iam.get_role().role_name("AWSServiceRoleForAutoScaling_x").send().await.unwrap();
    served.run(&["apply", "--auto-approve"], 0).await;
    let role = aws.iam.get_role().role_name("AWSServiceRoleForAutoScaling").send().await.unwrap().role.unwrap();
    assert_eq!(role.path(), "/aws-service-role/autoscaling.amazonaws.com/");
    served.run(&["plan", "--detailed-exitcode"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_managed_policies_of_the_spec_can_be_attached() {
    let spec = example("three-tiers");
    let mut served = Served::enforced(&spec, &printed(&spec, "apply").to_string()).await;
    let us = served.connect("us-east-1", "acme").await;
    served.act_as_administrator();
    let admin = served.connect("us-east-1", "acme").await;
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    let made =
        admin.iam.create_role().role_name("acme-us-east-1-t-x").path("/ringfence/").assume_role_policy_document(trust);
    made.send().await.unwrap();
    let attach = |name: &str| {
        let arn = format!("arn:aws:iam::aws:policy/{name}");
        us.iam.attach_role_policy().role_name("acme-us-east-1-t-x").policy_arn(arn)
    };
    refused! {
        "AccessDenied" "iam:AttachRolePolicy": attach("AdministratorAccess");
        // Managed policies that earlier versions attached can't be attached either.
        "AccessDenied" "iam:AttachRolePolicy": attach("AmazonEKS_CNI_Policy");
        "AccessDenied" "iam:AttachRolePolicy": attach("AmazonEC2ContainerRegistryPullOnly");
        "AccessDenied" "iam:AttachRolePolicy": attach("AmazonEKSVPCResourceController");
    }
    attach("AmazonEKSWorkerNodePolicy").send().await.unwrap();
    // Any attached policy can be detached.
    let arn = "arn:aws:iam::aws:policy/AdministratorAccess";
    admin.iam.attach_role_policy().role_name("acme-us-east-1-t-x").policy_arn(arn).send().await.unwrap();
    us.iam.detach_role_policy().role_name("acme-us-east-1-t-x").policy_arn(arn).send().await.unwrap();
}

#[test]
fn the_caller_creates_an_add_ons_associations() {
    // The tenant has no service account with a role. Only the network plugin's add-on has one.
    let solo = printed(&example("single-silo"), "apply");
    for verb in ["Create", "Update", "Delete"] {
        assert!(actions(&solo).contains(&format!("eks:{verb}PodIdentityAssociation")), "{verb}");
    }
    let text = printed(&example("three-tiers"), "apply").to_string();
    assert!(text.contains("eks-fargate-pods.amazonaws.com") && !text.contains("kms:GrantIsForAWSResource"), "{text}");
}

/// `policy` without these actions.
fn without(policy: &Value, gone: &[&str]) -> String {
    let mut policy = policy.clone();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Action"].as_array_mut().unwrap().retain(|a| !gone.iter().any(|gone| a == gone));
    }
    policy["Statement"].as_array_mut().unwrap().retain(|s| !s["Action"].as_array().unwrap().is_empty());
    policy.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_are_named_before_the_first_write() {
    const GONE: &[(&str, &str)] = &[
        ("ec2:CreateNatGateway", "ec2:CreateNatGateway: pool/shared-1/"),
        ("ec2:RunInstances", "ec2:RunInstances: "),
        (
            "eks:CreatePodIdentityAssociation",
            "eks:CreatePodIdentityAssociation: pool/shared-1/addon/vpc-cni and 1 more",
        ),
        ("eks:CreateCluster", "eks:CreateCluster: pool/shared-1/cluster and 1 more"),
        ("iam:CreateRole", "iam:CreateRole: "),
        ("iam:PassRole", "iam:PassRole: "),
        ("kms:CreateAlias", "kms:CreateAlias: "),
        ("kms:CreateGrant", "kms:CreateGrant: pool/shared-1/cluster and 1 more"),
        ("kms:CreateKey", "kms:CreateKey: "),
        ("logs:CreateLogGroup", "logs:CreateLogGroup: "),
    ];
    let spec = example("three-tiers");
    let gone: Vec<&str> = GONE.iter().map(|(action, _)| *action).collect();
    let mut served = Served::enforced(&spec, &without(&printed(&spec, "apply"), &gone)).await;
    let said = served.run(&["apply", "--auto-approve"], 1).await;
    for (_, line) in GONE {
        assert!(said.contains(line), "{line}: {said}");
    }
    // A step that needs an action twice (on the alias and on the key) counts once.
    let needing = |action: &str| said.lines().find_map(|line| line.trim().strip_prefix(action)).map(str::to_owned);
    assert_eq!(needing("kms:CreateAlias: "), needing("kms:CreateKey: "));
    assert!(said.contains("nothing was changed") && said.contains("`ringfence iam-policy`"), "{said}");
    nothing_refused(&served);
    let writes = served.server.counts().into_keys().filter(|(service, operation)| {
        !["Describe", "Get", "List", "Simulate"].iter().any(|verb| operation.starts_with(verb))
            && !["sts", "ssm"].contains(&service.as_str())
    });
    // The test itself made these two calls, for its role and the role's policy.
    assert_eq!(writes.collect::<Vec<_>>(), [("iam", "CreateRole"), ("iam", "PutRolePolicy")].map(owned));

    // A caller who may not simulate goes on, and fails at the denied call.
    let gone = [&gone[..], &["iam:SimulatePrincipalPolicy"]].concat();
    served.act_as("blind", &without(&printed(&spec, "apply"), &gone)).await;
    let said = served.run(&["apply", "--auto-approve"], 1).await;
    assert!(said.contains("AccessDenied") && said.contains("iam:CreateRole"), "{said}");
    assert!(served.server.counts().contains_key(&owned(("ec2", "CreateVpc"))));
}

fn owned((service, operation): (&str, &str)) -> (String, String) {
    (service.to_owned(), operation.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_without_steps_asks_iam_nothing() {
    let spec = example("single-silo");
    let served = Served::enforced(&spec, &printed(&spec, "apply").to_string()).await;
    let asked = || served.server.counts().get(&owned(("iam", "SimulatePrincipalPolicy"))).copied().unwrap_or_default();
    served.run(&["apply", "--auto-approve"], 0).await;
    let once = asked();
    assert!((1..=6).contains(&once), "{once}");
    served.run(&["apply", "--auto-approve"], 0).await;
    assert_eq!(asked(), once);
}

#[test]
fn unused_kinds_need_no_permissions() {
    let of = |name: &str| actions(&printed(&example(name), "apply"));
    let (all, solo, closed) = (of("three-tiers"), of("single-silo"), of("regulated"));
    for action in ["eks:CreateFargateProfile", "ec2:CreateNatGateway", "ec2:AllocateAddress", "ec2:CreateFlowLogs"] {
        assert!(all.contains(action), "{action}");
    }
    assert!(!solo.iter().any(|a| a.contains("FargateProfile") && !is_read(a)), "{solo:?}");
    assert!(!closed.iter().any(|a| a.contains("NatGateway") && !is_read(a)), "{closed:?}");
    assert!(!closed.contains("ec2:AllocateAddress"), "{closed:?}");
    let unlogged = example("three-tiers").replace("flowLogs: true", "flowLogs: false");
    let unlogged = printed(&unlogged, "apply");
    assert!(!actions(&unlogged).contains("ec2:CreateFlowLogs"));
    assert!(!unlogged.to_string().contains("vpc-flow-logs.amazonaws.com"));
}

#[test]
fn a_printed_policy_fits_in_a_role_and_in_two_managed_policies() {
    for spec in examples() {
        for purpose in ["plan", "apply"] {
            let policy = printed(&spec, purpose);
            let size = policy.to_string().len();
            let first = policy["Statement"].as_array().unwrap().iter().take_while(|s| s["Sid"] != "New");
            let first: usize = first.map(|s| s.to_string().len() + 1).sum();
            assert!(first.max(size - first) <= 6_000, "{size} characters, {first} of them before `New`");
            assert!(size <= MAX_POLICY, "{size} characters: {}", spec.lines().nth(4).unwrap());
        }
    }
}
