//! Who calls: identities and assumed roles.

use super::state::{Account, State};
use super::wire::{Caller, Reply, Request, Scope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sessions by access key.
#[derive(Debug, Default, Serialize, Deserialize)]
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
        return (account, Caller { arn, user_id, access_key: key.clone() });
    }
    let number = key.len() == 12 && key.bytes().all(|b| b.is_ascii_digit());
    let account = if number { key.clone() } else { default_account.to_owned() };
    let arn = format!("arn:{}:iam::{account}:user/sandbox", super::state::partition(&scope.region));
    (account, Caller { arn, user_id: "AIDASANDBOXSANDBOX234".to_owned(), access_key: key.clone() })
}

pub fn call(_state: &mut State, req: &Request) -> Reply {
    Err(req.unknown_operation())
}
