//! The gateway: its URL and its role.

use super::Checker;
use crate::arn::principal_key;
use crate::spec::arn;
use crate::spec::error::{Code, SpecError};
use crate::spec::tree::Node;
use crate::spec::url::https_mistake;
use crate::spec::words::quote;

impl Checker<'_, '_> {
    pub(super) fn gateway(&mut self) {
        if let Some((node, text)) = self.at("spec.gateway.url").and_then(Node::with_text) {
            let mistake = https_mistake(text).or(text.ends_with('/').then_some("it ends with a slash"));
            if let Some(mistake) = mistake {
                let message = format!("{} can't be the gateway's URL: {mistake}", quote(text));
                let help = "write an https URL without a slash at the end, such as `https://gateway.acme.example`";
                self.error(Code::BadValue, "spec.gateway.url", &node.mark, message, help);
            }
        }
        let path = "spec.gateway.role";
        let Some((node, text)) = self.at(path).and_then(Node::with_text) else { return };
        let principal = match arn::principal(text, self.region()) {
            Ok(principal) => principal,
            Err((message, help)) => return self.error(Code::BadValue, path, &node.mark, message, help),
        };
        if principal.session || !principal.arn.contains(":role/") {
            let message = "the gateway needs a role, but this is the ARN of a user or of a session".to_owned();
            let help = "write the ARN of the role that the gateway runs with; a user's credentials never expire";
            return self.error(Code::BadValue, path, &node.mark, message, help);
        }
        // A cluster has one access entry for a principal (EKS User Guide, "Create access entries"). An administrator
        // may act as anybody, and the gateway must not.
        for other in ["spec.access.admins", "spec.access.operators"] {
            let same = |n: &&Node| n.text().and_then(principal_key) == principal_key(&principal.arn);
            if let Some(first) = self.at(other).map(Node::items).unwrap_or_default().iter().find(same) {
                let message = format!("this role is also in `{other}`, so the gateway would be an administrator");
                let error = SpecError::new(Code::Duplicate, path, &node.mark, message);
                let error = error.help("give the gateway a role of its own");
                return self.findings.error(error.related(&first.mark, format!("the entry of `{other}`")));
            }
        }
    }
}
