//! Service accounts that have an IAM role.

use std::collections::BTreeMap;

use super::Checker;
use super::names::is_dns_label;
use crate::spec::arn;
use crate::spec::error::Code;
use crate::spec::tree::{Mark, Node};
use crate::spec::words::quote;

impl Checker<'_, '_> {
    pub(super) fn service_accounts(&mut self, node: &Node, path: &str) {
        let mut seen: BTreeMap<&str, &Mark> = BTreeMap::new();
        for (i, account) in node.get("serviceAccounts").map(Node::items).unwrap_or_default().iter().enumerate() {
            let here = format!("{path}.serviceAccounts[{i}]");
            if let Some((at, name)) = account.get("name").and_then(Node::with_text) {
                let help = match name {
                    "default" => {
                        "every pod uses `default` unless it names another; give the service account with an IAM role a name of its own"
                    }
                    _ if name.is_empty() || is_dns_label(name) => "",
                    _ => "use lowercase letters and digits, with dashes only inside: `uploader`",
                };
                if !help.is_empty() {
                    let message = format!("{} is not a valid name for a service account with an IAM role", quote(name));
                    self.error(Code::BadValue, &format!("{here}.name"), &at.mark, message, help);
                }
                match seen.get(name) {
                    Some(first) => self.duplicate(&format!("{here}.name"), &at.mark, first, name),
                    None => {
                        seen.insert(name, &at.mark);
                    }
                }
            }
            let mut policies: BTreeMap<&str, &Mark> = BTreeMap::new();
            for (k, policy) in account.get("policies").map(Node::items).unwrap_or_default().iter().enumerate() {
                let here = format!("{here}.policies[{k}]");
                let Some(text) = policy.text() else { continue };
                if let Err((message, help)) = arn::policy(text, self.region(), self.account()) {
                    self.error(Code::BadValue, &here, &policy.mark, message, help);
                } else if let Some(name) = text.split_once("::aws:policy/").map(|(_, n)| n).filter(|n| is_unbounded(n))
                {
                    let message = format!("the policy {} gives access to every tenant's resources", quote(name));
                    let help =
                        "write a policy of your own that names this tenant's resources; no waiver allows this one";
                    self.error(Code::Forbidden, &here, &policy.mark, message, help);
                }
                if let Some(first) = policies.insert(text, &policy.mark) {
                    self.duplicate(&here, &policy.mark, first, text);
                }
            }
        }
    }
}

/// True for policies of AWS that give access to (almost) everything in the account.
fn is_unbounded(policy: &str) -> bool {
    matches!(policy, "AdministratorAccess" | "IAMFullAccess" | "PowerUserAccess")
}
