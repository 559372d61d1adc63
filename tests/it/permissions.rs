//! The policies in `docs/permissions` name every action that the code calls.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
    let policy: serde_json::Value = serde_json::from_str(&text).expect("JSON");
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
