//! `GetAccountAuthorizationDetails`: all users, roles and policies of an account.

use super::super::wire::{Reply, Request};
use super::policy::is_aws;
use super::request::list;
use super::{Iam, Policy};
use serde_json::{Value, json};

impl Iam {
    pub(super) fn authorization_details(&self, req: &Request) -> Reply {
        let filter = req.texts("Filter");
        let wanted = |kind: &str| filter.is_empty() || filter.iter().any(|one| one == kind);
        let mut all: Vec<(String, Value)> = Vec::new();
        if wanted("User") {
            all.extend(self.users.values().map(|user| (format!("UserDetailList {}", user.name), user.wire())));
        }
        if wanted("Role") {
            all.extend(self.roles.values().map(|role| (format!("RoleDetailList {}", role.name), role.detail())));
        }
        for policy in self.policies(req.partition()) {
            let arn = policy["Arn"].as_str().unwrap_or_default().to_owned();
            let aws = is_aws(&arn);
            // AWS's own policies are listed only if they are attached.
            if wanted(if aws { "AWSManagedPolicy" } else { "LocalManagedPolicy" })
                && (!aws || policy["AttachmentCount"] != 0)
            {
                let mut policy = policy;
                if let Some(members) = policy.as_object_mut() {
                    members.remove("Tags");
                    let versions = self.policies.get(&arn).map(Policy::version).into_iter().collect::<Value>();
                    members.insert("PolicyVersionList".to_owned(), versions);
                }
                all.push((format!("Policies {arn}"), policy));
            }
        }
        let mut reply = list(req, "", all.into_iter().map(|(key, value)| (key.clone(), json!([key, value]))))?;
        let page = reply[""].take();
        for list in ["UserDetailList", "GroupDetailList", "RoleDetailList", "Policies"] {
            let of = page
                .as_array()
                .into_iter()
                .flatten()
                .filter(|entry| entry[0].as_str().and_then(|key| key.split(' ').next()) == Some(list));
            reply[list] = of.map(|entry| entry[1].clone()).collect();
        }
        if let Some(members) = reply.as_object_mut() {
            members.remove("");
        }
        Ok(reply)
    }
}
