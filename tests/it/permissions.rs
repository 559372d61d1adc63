//! The policies that `ringfence iam-policy` prints name every action that the
//! code calls, are enough for what they are printed for, and no more: shown by
//! roles that a sandbox holds to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringfence::cli::session::Session;
use ringfence::engine::clock::Clock;
use ringfence::engine::error::Error;
use ringfence::engine::plan::Policy;
use ringfence::spec::{self, LoadOptions};
use ringfence::stack::permissions::MAX_POLICY;
use ringfence::template::Templates;
use serde_json::Value;

use crate::support::served::Served;
use crate::{models, reliability};

const SERVICES: [&str; 8] = ["ec2", "eks", "iam", "kms", "logs", "sts", "ssm", "servicequotas"];

/// Every `"service:Action"` in the sources that talk to AWS. What roles are
/// trusted with isn't called by us.
fn called() -> BTreeSet<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut actions = BTreeSet::new();
    for dir in ["aws", "kinds/aws"] {
        for file in fs::read_dir(src.join(dir)).expect("a source directory").flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            for literal in text.split('"').skip(1).step_by(2) {
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
    let missing: Vec<String> = called().difference(&apply).cloned().collect();
    assert!(missing.is_empty(), "src/stack/permissions.rs lacks {missing:?}");
    let plan = actions(&printed(&example("three-tiers"), "plan"));
    // The lock and the look before the first write are for those that write.
    let needed = |a: &String| {
        is_read(a) && !["ssm:GetParametersByPath", "servicequotas:ListServiceQuotas"].contains(&a.as_str())
    };
    let missing: Vec<String> = called().into_iter().filter(|a| needed(a) && !plan.contains(a)).collect();
    assert!(missing.is_empty(), "READS of src/stack/permissions.rs lacks {missing:?}");
    let writes: Vec<&String> = plan.iter().filter(|a| !is_read(a)).collect();
    assert!(writes.is_empty(), "READS of src/stack/permissions.rs allows changes: {writes:?}");
}

fn example(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("tenancy.yaml");
    fs::read_to_string(file).expect("the example")
}

fn examples() -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| example(&name)).collect()
}

/// What `ringfence iam-policy` prints for `spec`, with no AWS to ask.
fn printed(spec: &str, purpose: &str) -> Value {
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

/// What no life needs, and why it is in the policy nevertheless.
const RARE: &[(&str, &str)] = &[
    ("ec2:CreateLaunchTemplateVersion", "a template's settings change"),
    ("ec2:DeleteNetworkInterface", "the CNI left an interface behind"),
    ("ec2:DeleteRoute", "a route was added by hand"),
    ("ec2:DeleteTags", "a tag was added by hand, or leaves the spec"),
    ("ec2:DisassociateRouteTable", "a subnet was given another table by hand"),
    ("ec2:DisassociateVpcCidrBlock", "a block was added to a VPC by hand"),
    ("ec2:ModifyLaunchTemplate", "a template's settings change"),
    ("ec2:ModifyVpcEndpoint", "an endpoint was changed by hand, or its subnets change"),
    ("ec2:ReplaceRoute", "a route was changed by hand"),
    ("ec2:ReplaceRouteTableAssociation", "another table was made the main one by hand"),
    ("ec2:UpdateSecurityGroupRuleDescriptionsEgress", "a rule was renamed by hand"),
    ("ec2:UpdateSecurityGroupRuleDescriptionsIngress", "a rule was renamed by hand"),
    ("eks:AssociateEncryptionConfig", "a cluster was made without a key"),
    ("eks:DisassociateAccessPolicy", "a policy was added to an entry by hand"),
    ("eks:UntagResource", "a tag was added by hand, or leaves the spec"),
    ("eks:UpdateAccessEntry", "an entry's groups were changed by hand"),
    ("eks:UpdateAddon", "a newer version is taken"),
    ("eks:UpdateClusterVersion", "a newer version is taken"),
    ("eks:UpdateNodegroupConfig", "a pool is resized"),
    ("eks:UpdateNodegroupVersion", "a newer version is taken, or the template has changed"),
    ("eks:UpdatePodIdentityAssociation", "an association was changed by hand"),
    ("iam:AddClientIDToOpenIDConnectProvider", "a provider was changed by hand"),
    ("iam:DeleteRolePermissionsBoundary", "the boundary leaves the spec"),
    ("iam:PutRolePermissionsBoundary", "the boundary changes"),
    ("iam:RemoveClientIDFromOpenIDConnectProvider", "a provider was changed by hand"),
    ("iam:UntagOpenIDConnectProvider", "a tag was added by hand, or leaves the spec"),
    ("iam:UntagRole", "a tag was added by hand, or leaves the spec"),
    ("iam:UpdateAssumeRolePolicy", "a trust policy was changed by hand"),
    ("kms:DeleteAlias", "an alias is renamed"),
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
async fn the_printed_policy_lets_the_whole_life_of_every_example_pass_and_names_nothing_beside_it() {
    let lives: Vec<_> = examples()
        .into_iter()
        .map(|spec| {
            tokio::spawn(async move {
                let policy = printed(&spec, "apply");
                let served = Served::enforced(&spec, &policy.to_string()).await;
                models::live(&served, &spec).await;
                nothing_refused(&served);
                let (needed, _) = served.server.permissions();
                assert!(needed.contains("ec2:DeleteVpc") && needed.contains("iam:PassRole"), "a whole life");
                (actions(&policy), needed)
            })
        })
        .collect();
    let (mut allowed, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for life in lives {
        let (policy, life) = life.await.unwrap();
        allowed.extend(policy);
        needed.extend(life);
    }
    let rare: BTreeSet<String> = RARE.iter().map(|(action, _)| (*action).to_owned()).collect();
    let unused: Vec<&String> =
        allowed.iter().filter(|a| !needed.contains(*a) && !rare.contains(*a) && !is_read(a)).collect();
    assert!(unused.is_empty(), "no life needs {unused:#?}: say why they are allowed, or don't allow them");
    let common: Vec<&String> = rare.intersection(&needed).filter(|a| *a != "servicequotas:ListServiceQuotas").collect();
    assert!(common.is_empty(), "lives need {common:#?}: they aren't rare");
}

/// The policy, and the name of the statement that it lacks.
fn without_one(policy: &Value) -> Vec<(String, Value)> {
    let count = policy["Statement"].as_array().unwrap().len();
    let without = (0..count).map(|n| {
        let mut policy = policy.clone();
        let gone = policy["Statement"].as_array_mut().unwrap().remove(n);
        (gone["Sid"].as_str().unwrap().to_owned(), policy)
    });
    without.collect()
}

/// One run in this process, with nothing looked at before. What isn't allowed at all is an error.
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
async fn without_any_one_statement_of_the_printed_policy_a_life_is_refused() {
    let spec = example("three-tiers");
    let all = without_one(&printed(&spec, "apply"));
    assert!(all.len() > 10, "{}", all.len());
    for (sid, policy) in all {
        let served = Served::enforced(&spec, &policy.to_string()).await;
        let destroy = Policy { destroy: true, delete_logs: true, ..Policy::default() };
        for (spec, policy) in
            [(spec.clone(), Policy::default()), (models::changed(&spec), Policy::default()), (spec.clone(), destroy)]
        {
            // What fails is seen in the refusals.
            let _ended = run(&served, &spec, &policy).await;
            if !served.server.permissions().1.is_empty() {
                break;
            }
        }
        let (_, refused) = served.server.permissions();
        let named = |message: &String| message.contains("is not authorized to perform: ");
        assert!(!refused.is_empty() && refused.iter().all(named), "without {sid}: {refused:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policy_for_planning_suffices_for_it_and_stops_an_apply_before_it_changes_anything() {
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

/// `policy` without some actions.
fn without(policy: &Value, gone: &[&str]) -> String {
    let mut policy = policy.clone();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Action"].as_array_mut().unwrap().retain(|a| !gone.iter().any(|gone| a == gone));
    }
    policy["Statement"].as_array_mut().unwrap().retain(|s| !s["Action"].as_array().unwrap().is_empty());
    policy.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plan_needs_and_the_caller_lacks_is_said_before_the_first_write() {
    const GONE: &[(&str, &str)] = &[
        ("ec2:CreateNatGateway", "ec2:CreateNatGateway: pool/shared-1/"),
        ("ec2:RunInstances", "ec2:RunInstances: "),
        ("eks:CreateCluster", "eks:CreateCluster: pool/shared-1/cluster and 1 more"),
        ("iam:CreateRole", "iam:CreateRole: "),
        ("iam:PassRole", "iam:PassRole: "),
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
    assert!(said.contains("nothing was changed") && said.contains("`ringfence iam-policy`"), "{said}");
    nothing_refused(&served);
    let writes = served.server.counts().into_keys().filter(|(service, operation)| {
        !["Describe", "Get", "List", "Simulate"].iter().any(|verb| operation.starts_with(verb))
            && !["sts", "ssm"].contains(&service.as_str())
    });
    // A test's own: the role, and its policy.
    assert_eq!(writes.collect::<Vec<_>>(), [("iam", "CreateRole"), ("iam", "PutRolePolicy")].map(owned));

    // Who may not ask goes on, to where it fails.
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
fn a_spec_needs_no_permissions_of_kinds_that_it_has_none_of() {
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
            let reads = policy["Statement"][0].to_string().len();
            assert_eq!(policy["Statement"][0]["Sid"], "Read");
            assert!(reads.max(size - reads) <= 6_000, "{size} characters, {reads} of them for reading");
            assert!(size <= MAX_POLICY, "{size} characters: {}", spec.lines().nth(4).unwrap());
        }
    }
}
