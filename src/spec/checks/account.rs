//! Region, account and IAM.

use super::Checker;
use crate::spec::arn;
use crate::spec::error::Code;
use crate::spec::region::{self, is_region};
use crate::spec::tree::Node;
use crate::spec::words::{one_of, quote};

impl Checker<'_, '_> {
    pub(super) fn region_and_account(&mut self) {
        if let Some((node, region)) = self.at("spec.region").and_then(Node::with_text) {
            let help = one_of(region, region::REGIONS);
            let message = match (is_region(region), region::REGIONS.contains(&region)) {
                (_, true) => None,
                (true, false) => Some(format!("this version of ringfence doesn't know the region {}", quote(region))),
                (false, false) => Some(format!("{} is not a region", quote(region))),
            };
            if let Some(message) = message {
                self.error(Code::BadValue, "spec.region", &node.mark, message, help);
            }
        }
        let account = self.at("spec.accountId").and_then(Node::with_text);
        if let Some((node, account)) = account.filter(|(_, account)| !arn::is_account(account)) {
            let message = format!("{} is not an account id", quote(account));
            self.error(Code::BadValue, "spec.accountId", &node.mark, message, "an account id has 12 digits, in quotes");
        }
        if let Some(node) = self.at("spec.kubernetesVersion") {
            self.version(node, "spec.kubernetesVersion");
        }
    }

    pub(super) fn iam(&mut self) {
        if let Some((node, path)) = self.at("spec.iam.path").and_then(Node::with_text) {
            let graphic = path.bytes().all(|b| b.is_ascii_graphic());
            if !graphic || !path.starts_with('/') || !path.ends_with('/') || path.contains("//") {
                let message = format!("{} is not an IAM path", quote(path));
                let help = "a path begins and ends with a slash, such as `/ringfence/`";
                self.error(Code::BadValue, "spec.iam.path", &node.mark, message, help);
            }
        }
        if let Some((node, text)) = self.at("spec.iam.permissionsBoundary").and_then(Node::with_text)
            && let Err((message, help)) = arn::policy(text, self.region(), self.account())
        {
            self.error(Code::BadValue, "spec.iam.permissionsBoundary", &node.mark, message, help);
        }
    }
}
