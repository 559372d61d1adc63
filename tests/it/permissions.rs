//! The policies in `docs/permissions` name every action that the code calls,
//! and those that `ringfence iam-policy` prints are enough for what they are
//! printed for, and no more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ringfence::stack::permissions::MAX_POLICY;
use serde_json::Value;

use crate::models;
use crate::support::served::Served;

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

fn allowed(policy: &str) -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/permissions").join(policy);
    let text = fs::read_to_string(file).expect("the policy");
    actions(&serde_json::from_str(&text).expect("JSON"))
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
fn applying_is_allowed_every_call() {
    let missing: Vec<String> = called().difference(&allowed("apply.json")).cloned().collect();
    assert!(missing.is_empty(), "docs/permissions/apply.json lacks {missing:?}");
}

#[test]
fn planning_is_allowed_every_read_and_nothing_else() {
    let plan = allowed("plan.json");
    // The lock is for those that write.
    let needed = |a: &String| is_read(a) && a != "ssm:GetParametersByPath";
    let missing: Vec<String> = called().into_iter().filter(|a| needed(a) && !plan.contains(a)).collect();
    assert!(missing.is_empty(), "docs/permissions/plan.json lacks {missing:?}");
    let writes: Vec<&String> = plan.iter().filter(|a| !is_read(a)).collect();
    assert!(writes.is_empty(), "docs/permissions/plan.json allows changes: {writes:?}");
}

/// What AWS asks for in the caller's name, while it does what was called.
const IMPLIED: [&str; 5] =
    ["ec2:RunInstances", "iam:ListInstanceProfilesForRole", "iam:PassRole", "kms:CreateGrant", "ssm:AddTagsToResource"];

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

struct Call {
    action: String,
    params: Value,
    account: String,
    region: String,
}

/// The program's calls, oldest first.
fn calls(served: &Served) -> Vec<Call> {
    let text = fs::read_to_string(served.calls()).unwrap();
    let calls = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let part = |key: &str| line[key].as_str().unwrap().to_owned();
        let action = format!("{}:{}", part("service"), part("operation"));
        Call { action, params: line["params"].clone(), account: part("account"), region: part("region") }
    });
    // The ground that an estate stands on.
    calls.filter(|call| call.action != "iam:CreatePolicy").collect()
}

fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| fits(tail, rest)))),
    }
}

/// The ARN, without its partition, of what a call is about, where the call names it.
fn resource(call: &Call) -> Option<String> {
    let Call { action, params, account, region } = call;
    let param = |key: &str| params[key].as_str();
    let cluster = || param("name").or(param("clusterName"));
    Some(match action.as_str() {
        "ssm:PutParameter" => format!("ssm:{region}:{account}:parameter{}", param("Name")?),
        "ssm:GetParametersByPath" => format!("ssm:{region}:{account}:parameter{}", param("Path")?),
        "iam:CreateRole" => format!("iam::{account}:role{}{}", param("Path")?, param("RoleName")?),
        "iam:CreateOpenIDConnectProvider" => {
            format!("iam::{account}:oidc-provider/{}", param("Url")?.trim_start_matches("https://"))
        }
        "kms:CreateAlias" => format!("kms:{region}:{account}:{}", param("AliasName")?),
        "logs:CreateLogGroup" => format!("logs:{region}:{account}:log-group:{}", param("logGroupName")?),
        "eks:CreateCluster" | "eks:CreateNodegroup" => format!("eks:{region}:{account}:cluster/{}", cluster()?),
        _ => return None,
    })
}

/// Does a statement allow `call`, as far as the call itself shows its
/// resource and the tags of what it makes?
fn allows(policy: &Value, call: &Call) -> bool {
    let text = call.params.to_string();
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        let named = statement["Action"].as_array().unwrap().iter().any(|a| a == call.action.as_str());
        let resources = match &statement["Resource"] {
            Value::Array(all) => all.iter().map(|r| r.as_str().unwrap()).collect(),
            one => vec![one.as_str().unwrap()],
        };
        let arn = resource(call);
        let there = arn.is_none_or(|arn| {
            resources.iter().any(|r| *r == "*" || r.splitn(3, ':').nth(2).is_some_and(|r| fits(r, &arn)))
        });
        let equal = statement["Condition"]["StringEquals"].as_object().into_iter().flatten();
        let tagged = equal
            .filter_map(|(key, value)| Some((key.strip_prefix("aws:RequestTag/")?, value.as_str()?)))
            .all(|(key, value)| text.contains(key) && text.contains(value));
        named && there && tagged
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policy_allows_the_whole_life_of_every_example_and_nothing_that_is_never_called() {
    let mut known = called();
    known.extend(IMPLIED.map(str::to_owned));
    let lives: Vec<_> = examples().into_iter().map(|spec| (spec.clone(), tokio::spawn(models::life(spec)))).collect();
    let mut printed_actions = Vec::new();
    for (spec, life) in lives {
        let policy = printed(&spec, "apply");
        let calls = calls(&life.await.unwrap());
        assert!(calls.iter().any(|c| c.action == "ec2:DeleteVpc"), "a whole life");
        let refused: BTreeSet<String> =
            calls.iter().filter(|c| !allows(&policy, c)).map(|c| format!("{} {:?}", c.action, resource(c))).collect();
        assert!(refused.is_empty(), "{refused:#?}\n{policy:#}");
        known.extend(calls.into_iter().map(|c| c.action));
        printed_actions.push(actions(&policy));
    }
    for actions in printed_actions {
        let stale: Vec<&String> = actions.difference(&known).collect();
        assert!(stale.is_empty(), "nothing calls {stale:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policy_for_planning_allows_what_reads_call_and_no_change() {
    let spec = example("three-tiers");
    let policy = printed(&spec, "plan");
    let writes: Vec<String> = actions(&policy).into_iter().filter(|a| !is_read(a)).collect();
    assert!(writes.is_empty(), "{writes:?}");
    let served = Served::start(&spec).await;
    served.run(&["plan", "--detailed-exitcode"], 2).await;
    let first = calls(&served);
    served.run(&["apply", "--auto-approve"], 0).await;
    let made = calls(&served).len();
    served.run(&["plan", "--detailed-exitcode"], 0).await;
    served.run(&["drift"], 0).await;
    served.run(&["output"], 0).await;
    let later = calls(&served).split_off(made);
    assert!(first.len() > 10 && later.len() > first.len());
    let refused: BTreeSet<String> =
        first.iter().chain(&later).filter(|c| !allows(&policy, c)).map(|c| c.action.clone()).collect();
    assert!(refused.is_empty(), "{refused:?}");
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
