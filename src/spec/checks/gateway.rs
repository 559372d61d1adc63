//! The gateway: its URL, its role, and its Pods.

use super::Checker;
use super::names::is_dns_label;
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

    /// The gateway inside of a pool's cluster.
    pub(super) fn gateway_pods(&mut self, pool: &Node, path: &str) {
        let Some(entry) = pool.entry("gateway") else { return };
        let path = format!("{path}.gateway");
        if self.at("spec.gateway").is_none() {
            let message = "the pool has a gateway, but the tenancy has none".to_owned();
            let help = "add `spec.gateway` with the gateway's `url`";
            self.error(Code::MissingField, &path, &entry.key_mark, message, help);
        }
        if let Some((node, text)) = entry.value.get("image").and_then(Node::with_text).filter(|(_, t)| !is_pinned(t)) {
            let message = format!("{} is not an image with a digest", quote(text));
            let help = "write `REPOSITORY@sha256:DIGEST`: a tag may become another image, and the gateway acts as every tenant";
            self.error(Code::BadValue, &format!("{path}.image"), &node.mark, message, help);
        }
        for field in ["configMap", "certificateSecret"] {
            let Some((node, text)) = entry.value.get(field).and_then(Node::with_text) else { continue };
            if !text.is_empty() && !is_dns_label(text) {
                let message = format!("{} is not a valid name", quote(text));
                let help = "use lowercase letters and digits, with dashes only inside: `gateway`";
                self.error(Code::BadValue, &format!("{path}.{field}"), &node.mark, message, help);
            }
        }
    }
}

/// `REPOSITORY[:TAG]@sha256:DIGEST`, with a host in front.
pub(super) fn is_pinned(text: &str) -> bool {
    let Some((name, digest)) = text.split_once("@sha256:") else { return false };
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._:/-".contains(&b);
    let host = name.split_once('/').map_or("", |(host, _)| host);
    let parts = name.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()));
    digest.len() == 64 && digest.bytes().all(hex) && name.bytes().all(plain) && host.contains('.') && parts
}
