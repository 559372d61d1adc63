//! Policy documents: grammar, principals, and what they allow.

use super::super::quotas;
use super::super::state::State;
use super::super::wire::{Fault, Request, texts};
use super::request::over;
use serde_json::{Value, json};

/// Whether a principal of a policy exists: `*`, an account, a role, a user, a session, a service, a federated identity.
/// Principals of accounts that the sandbox doesn't have are assumed to exist.
pub fn principal_exists(state: &State, kind: &str, who: &str) -> bool {
    match kind {
        "Service" => [".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu"].iter().any(|end| who.ends_with(end)),
        "AWS" if who == "*" || is_account(who) => true,
        "AWS" => {
            let parts: Vec<&str> = who.splitn(6, ':').collect();
            let ["arn", _, service @ ("iam" | "sts"), "", account, resource] = parts.as_slice() else { return false };
            let Some(known) = state.accounts.get(*account) else { return is_account(account) };
            match resource.split_once('/') {
                Some(("assumed-role", _)) => *service == "sts",
                _ => known.iam.principal(who),
            }
        }
        "Federated" | "CanonicalUser" => true,
        _ => false,
    }
}

/// The principals of a statement, as (kind, name).
pub fn principals(statement: &Value) -> Vec<(String, String)> {
    match &statement["Principal"] {
        Value::String(all) => vec![("AWS".to_owned(), all.clone())],
        Value::Object(kinds) => {
            let of = |kind: &String| {
                texts(&statement["Principal"], kind).into_iter().map(|who| (kind.clone(), who)).collect::<Vec<_>>()
            };
            kinds.keys().flat_map(of).collect()
        }
        _ => Vec::new(),
    }
}

/// The statements of a policy. `Statement` may be a list or a single statement.
pub fn statements(policy: &Value) -> &[Value] {
    match &policy["Statement"] {
        Value::Array(list) => list,
        one => std::slice::from_ref(one),
    }
}

/// Checks a trust policy and returns it as IAM stores it: an account number becomes the ARN of its root, and a list of
/// one principal becomes a string.
pub fn trust_policy(state: &State, req: &Request, document: &str) -> Result<String, Fault> {
    let mut policy: Value =
        serde_json::from_str(document).map_err(|_| malformed("This policy contains invalid Json"))?;
    check_shape(&policy)?;
    for statement in statements(&policy) {
        let has = |field: &str| !statement[field].is_null();
        if !has("Principal") && !has("NotPrincipal") {
            return Err(malformed("Missing required field Principal"));
        }
        if has("Resource") || has("NotResource") {
            return Err(malformed("Has prohibited field Resource"));
        }
        if !has("Action") && !has("NotAction") {
            return Err(malformed("Missing required field Action"));
        }
        if texts(statement, "Action").iter().any(|action| !action.starts_with("sts:") && action != "*") {
            return Err(malformed("AssumeRole policy may only specify STS AssumeRole actions."));
        }
        for (kind, who) in principals(statement) {
            if !principal_exists(state, &kind, &who) {
                let kind = if kind == "Service" { "SERVICE" } else { &kind };
                return Err(malformed(format!("Invalid principal in policy: \"{kind}\":\"{who}\"")));
            }
        }
    }
    let list = match policy.get_mut("Statement") {
        Some(Value::Array(list)) => list.iter_mut().collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    for statement in list {
        let Some(kinds) = statement.get_mut("Principal").and_then(Value::as_object_mut) else { continue };
        for who in kinds.values_mut() {
            let mut names = texts(&json!({"who": who}), "who");
            for name in names.iter_mut().filter(|name| is_account(name)) {
                *name = format!("arn:{}:iam::{name}:root", req.partition());
            }
            names.sort();
            *who = if names.len() == 1 { names.swap_remove(0).into() } else { names.into() };
        }
    }
    let text = policy.to_string();
    let limit = quotas::limit(&state.quotas, "L-C07B4B0D");
    if characters(&text) as f64 > limit {
        return Err(over("ACLSizePerRole", limit));
    }
    Ok(text)
}

/// Checks an inline policy of a role, or a managed policy.
pub fn identity_policy(document: &str) -> Result<(), Fault> {
    let policy: Value = serde_json::from_str(document).map_err(|_| malformed("Syntax errors in policy."))?;
    check_shape(&policy)?;
    if policy["Version"] != "2012-10-17" {
        return Err(malformed("Policy document must be version 2012-10-17 or greater."));
    }
    for statement in statements(&policy) {
        let has = |field: &str| !texts(statement, field).is_empty();
        if statement.get("Principal").is_some() || statement.get("NotPrincipal").is_some() {
            return Err(malformed("Policy document should not specify a principal."));
        }
        if !has("Action") && !has("NotAction") {
            return Err(malformed("Policy statement must contain actions."));
        }
        if !has("Resource") && !has("NotResource") {
            return Err(malformed("Policy statement must contain resources."));
        }
        if texts(statement, "Action").iter().any(|action| action != "*" && !action.contains(':')) {
            let message = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.";
            return Err(malformed(message));
        }
        for resource in texts(statement, "Resource") {
            if resource != "*" && (!resource.starts_with("arn:") || resource.splitn(6, ':').count() < 6) {
                return Err(malformed(format!("Resource {resource} must be in ARN format or \"*\".")));
            }
        }
    }
    Ok(())
}

/// Checks the grammar that all policies share.
pub fn check_shape(policy: &Value) -> Result<(), Fault> {
    const STATEMENT: &[&str] =
        &["Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"];
    let syntax = || malformed("Syntax errors in policy.");
    let known = |value: &Value, names: &[&str]| {
        value.as_object().is_some_and(|members| members.keys().all(|key| names.contains(&key.as_str())))
    };
    let version = matches!(policy["Version"].as_str(), None | Some("2012-10-17" | "2008-10-17"));
    let statements = statements(policy);
    if !known(policy, &["Version", "Id", "Statement"]) || !version || statements.is_empty() {
        return Err(syntax());
    }
    let fine = |statement: &Value| {
        let condition = &statement["Condition"];
        known(statement, STATEMENT)
            && (statement["Effect"] == "Allow" || statement["Effect"] == "Deny")
            && (condition.is_null()
                || condition.as_object().is_some_and(|operators| operators.values().all(Value::is_object)))
    };
    if statements.iter().all(fine) { Ok(()) } else { Err(syntax()) }
}

/// The number of characters that count for IAM's size quotas. White space doesn't count.
pub fn characters(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}

/// Whether a policy allows an action to one of the principals that `who` accepts. Deny statements with a condition are
/// ignored.
pub fn allows(policy: &Value, action: &str, who: impl Fn(&str, &str) -> bool) -> bool {
    let says = |effect: &str| {
        statements(policy).iter().any(|statement| {
            statement["Effect"] == effect
                && texts(statement, "Action").iter().any(|pattern| matches(pattern, action))
                && principals(statement).iter().any(|(kind, name)| who(kind, name))
                && (effect == "Allow" || statement["Condition"].is_null())
        })
    };
    says("Allow") && !says("Deny")
}

/// Whether an action pattern such as `kms:Encrypt*` covers an action. Upper and lower case are the same.
pub fn matches(pattern: &str, action: &str) -> bool {
    like(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase())
}

/// Whether a text fits a pattern with `*` for any characters and `?` for one.
pub fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // The position of the last `*`, and how much of the text it covers so far.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(one) if *one == b'?' || text.get(t) == Some(one) => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, covered)) => {
                    star = Some((at, covered + 1));
                    (p, t) = (at + 1, covered + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == b'*'))
}

pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

pub fn malformed(message: impl Into<String>) -> Fault {
    Fault::new(400, "MalformedPolicyDocument", message)
}
