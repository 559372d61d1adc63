//! STS: the caller's identity, and assumed roles.

use super::clock::{iso8601, wall};
use super::state::{Account, State, partition};
use super::wire::{Caller, Fault, Reply, Request, Scope, items, texts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Assumed-role sessions, by access key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sts {
    sessions: BTreeMap<String, Session>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    arn: String,
    user_id: String,
}

/// The account and identity behind an access key: one that AssumeRole issued, an account number, or any other.
pub fn caller(state: &State, default_account: &str, scope: &Scope) -> (String, Caller) {
    let key = &scope.access_key;
    let issued = |(id, account): (&String, &Account)| Some((id.clone(), account.sts.sessions.get(key)?.clone()));
    if let Some((account, Session { arn, user_id })) = state.accounts.iter().find_map(issued) {
        return (account, Caller { arn, user_id });
    }
    let number = key.len() == 12 && key.bytes().all(|b| b.is_ascii_digit());
    let account = if number { key.clone() } else { default_account.to_owned() };
    let arn = format!("arn:{}:iam::{account}:user/sandbox", partition(&scope.region));
    (account, Caller { arn, user_id: "AIDASANDBOXSANDBOX234".to_owned() })
}

pub fn call(state: &mut State, req: &Request) -> Reply {
    match req.operation.as_str() {
        "GetCallerIdentity" => Ok(json!({"UserId": req.caller.user_id, "Account": req.account, "Arn": req.caller.arn})),
        "AssumeRole" => assume_role(state, req),
        _ => Err(req.unknown_operation()),
    }
}

fn assume_role(state: &mut State, req: &Request) -> Reply {
    let arn = required(req, "RoleArn")?;
    let session = required(req, "RoleSessionName")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&session.len()) || !session.chars().all(fits) {
        return Err(invalid(format!(
            "1 validation error detected: Value '{session}' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]{{2,64}}"
        )));
    }
    let seconds = req.text("DurationSeconds").map_or(Some(3600), |seconds| seconds.parse::<u32>().ok());
    let Some(seconds) = seconds.filter(|seconds| (900..=43_200).contains(seconds)) else {
        return Err(invalid("The requested DurationSeconds must be from 900 to 43200".to_owned()));
    };
    let Some(account) = arn.split(':').nth(4).map(str::to_owned) else {
        return Err(invalid(format!("{arn} is invalid")));
    };
    let role = state.accounts.get(&account).and_then(|account| account.iam.role_by_arn(&arn));
    let Some((id, name)) =
        role.filter(|role| trusts(&role.trust_policy, req)).map(|role| (role.id.clone(), role.name.clone()))
    else {
        let message =
            format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}", req.caller.arn);
        return Err(Fault::new(403, "AccessDenied", message));
    };
    let (key, secret, token) = (state.ids.unique("ASIA"), state.ids.hex(40), state.ids.hex(160));
    // Access keys have 20 characters. Unique ids of users and roles have 21.
    let key: String = key.chars().take(20).collect();
    let arn = format!("arn:{}:sts::{account}:assumed-role/{name}/{session}", req.partition());
    let user_id = format!("{id}:{session}");
    state.account(&account).sts.sessions.insert(key.clone(), Session { arn: arn.clone(), user_id: user_id.clone() });
    Ok(json!({
        "Credentials": {
            "AccessKeyId": key, "SecretAccessKey": secret, "SessionToken": token,
            // The client compares this with its own, real clock. The sandbox itself accepts the key as long as it runs.
            "Expiration": iso8601(wall() + f64::from(seconds)),
        },
        "AssumedRoleUser": {"AssumedRoleId": user_id, "Arn": arn},
    }))
}

/// Whether a trust policy lets the caller, or its whole account, assume the role. Conditions are ignored.
fn trusts(policy: &str, req: &Request) -> bool {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = match policy.get("Statement") {
        Some(one @ Value::Object(_)) => std::slice::from_ref(one),
        _ => items(&policy, "Statement"),
    };
    let (partition, account) = (req.partition(), &req.account);
    let role = req.caller.arn.split_once(":assumed-role/").and_then(|(_, session)| session.split('/').next());
    statements.iter().any(|statement| {
        let principals = match statement.get("Principal") {
            Some(Value::String(all)) => vec![all.clone()],
            Some(principal) => texts(principal, "AWS"),
            None => Vec::new(),
        };
        statement.get("Effect") == Some(&"Allow".into())
            && texts(statement, "Action")
                .iter()
                .any(|action| ["sts:AssumeRole", "sts:*", "*"].contains(&action.as_str()))
            && principals.iter().any(|principal| {
                principal == "*"
                    || principal == account
                    || *principal == format!("arn:{partition}:iam::{account}:root")
                    || *principal == req.caller.arn
                    // The session's ARN leaves out the role's path.
                    || principal.contains(&format!(":iam::{account}:role/")) && principal.rsplit('/').next() == role
            })
    })
}

fn required(req: &Request, name: &str) -> Result<String, Fault> {
    req.text(name).ok_or_else(|| {
        invalid(format!(
            "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

fn invalid(message: String) -> Fault {
    Fault::new(400, "ValidationError", message)
}
