//! The repositories of tenants' images.

use super::gateway::is_pinned;
use super::{Checker, Member};
use crate::spec::error::{Code, SpecError};
use crate::spec::profile::uses;
use crate::spec::settings::PolicyEngine;
use crate::spec::tree::Node;
use crate::spec::words::quote;

impl Checker<'_, '_> {
    /// ringfence's own image, which some clusters need.
    pub(super) fn own_image(&mut self, members: &[Member<'_>]) {
        let path = "spec.images.ringfence";
        if let Some((node, text)) = self.at(path).and_then(Node::with_text) {
            if !is_pinned(text) {
                let message = format!("{} is not an image with a digest", quote(text));
                let help = "write `REPOSITORY@sha256:DIGEST`: a tag may become another image, and this one judges every tenant's objects";
                self.error(Code::BadValue, path, &node.mark, message, help);
            }
            return;
        }
        let needs = |member: &&Member<'_>| {
            let isolation = member.said.isolation;
            let of_cluster = isolation.is_some_and(|isolation| uses(isolation, "policyEngine"));
            of_cluster && member.profile.as_ref().is_some_and(|profile| profile.policy_engine == PolicyEngine::Webhook)
        };
        if let Some(member) = members.iter().find(needs) {
            let error = member.said.error(&["policyEngine"], None);
            let message = "the webhook runs in the cluster, and the spec doesn't name its image".to_owned();
            let help = "set `spec.images.ringfence` to `REPOSITORY@sha256:DIGEST`";
            self.findings.error(SpecError { code: Code::MissingField, message, ..error }.help(help));
        }
    }

    /// The names are as in Amazon ECR API reference, CreateRepository, `repositoryName`. The repositories of a tenant
    /// must not be among the shared ones, which all tenants pull.
    pub(super) fn images(&mut self) {
        for key in ["tenants", "shared"] {
            let path = format!("spec.images.{key}");
            let Some((node, text)) = self.at(&path).and_then(Node::with_text) else { continue };
            if !is_repository(text) {
                let message = format!("{} is not a valid prefix for names of repositories", quote(text));
                let help = "use lowercase letters and digits, separated by a single `.`, `_`, `-` or `/`, such as `acme/images`";
                self.error(Code::BadValue, &path, &node.mark, message, help);
            }
        }
        let name = self.text("metadata.name").unwrap_or_default();
        let tenants = self.text("spec.images.tenants").unwrap_or(name);
        let shared = self.text("spec.images.shared").map_or_else(|| format!("{name}/shared"), str::to_owned);
        let below = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        if let Some(node) = self.at("spec.images.shared").filter(|_| below(tenants, &shared)) {
            let message = format!(
                "all tenants may pull images below {}, and that includes every tenant's own images",
                quote(&shared)
            );
            let help = format!("choose a separate prefix, such as `{tenants}/shared`");
            return self.error(Code::BadValue, "spec.images.shared", &node.mark, message, &help);
        }
        let tenants_node = self.at("spec.tenants").map(Node::items).unwrap_or_default();
        for (i, tenant) in tenants_node.iter().enumerate() {
            let Some((node, id)) = tenant.get("id").and_then(Node::with_text) else { continue };
            let own = format!("{tenants}/{id}");
            if below(&shared, &own) || below(&own, &shared) {
                let message = format!(
                    "the repositories of {} overlap the shared ones, {}, which all tenants may pull",
                    quote(id),
                    quote(&shared)
                );
                let help = "choose another id, or another `spec.images.shared`";
                self.error(Code::BadValue, &format!("spec.tenants[{i}].id"), &node.mark, message, help);
            }
        }
    }
}

/// True for words of lowercase letters and digits with one of `._-/` between two words.
fn is_repository(text: &str) -> bool {
    let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= 200 && text.split(['.', '_', '-', '/']).all(word)
}
