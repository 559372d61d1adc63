//! Where tenants' images are.

use super::Checker;
use crate::spec::error::Code;
use crate::spec::tree::Node;
use crate::spec::words::quote;

impl Checker<'_, '_> {
    /// Amazon ECR API reference, CreateRepository, `repositoryName`. No tenant's repositories may be everybody's.
    pub(super) fn images(&mut self) {
        for key in ["tenants", "shared"] {
            let path = format!("spec.images.{key}");
            let Some((node, text)) = self.at(&path).and_then(Node::with_text) else { continue };
            if !is_repository(text) {
                let message = format!("{} can't begin the name of a repository", quote(text));
                let help = "small letters and digits, with single `.`, `_`, `-` and `/` inside: `acme/images`";
                self.error(Code::BadValue, &path, &node.mark, message, help);
            }
        }
        let name = self.text("metadata.name").unwrap_or_default();
        let tenants = self.text("spec.images.tenants").unwrap_or(name);
        let shared = self.text("spec.images.shared").map_or_else(|| format!("{name}/shared"), str::to_owned);
        let below = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        if let Some(node) = self.at("spec.images.shared").filter(|_| below(tenants, &shared)) {
            let message =
                format!("every tenant would pull what is below {}, all other tenants' images too", quote(&shared));
            let help = format!("a name of its own, such as `{tenants}/shared`");
            return self.error(Code::BadValue, "spec.images.shared", &node.mark, message, &help);
        }
        let tenants_node = self.at("spec.tenants").map(Node::items).unwrap_or_default();
        for (i, tenant) in tenants_node.iter().enumerate() {
            let Some((node, id)) = tenant.get("id").and_then(Node::with_text) else { continue };
            let own = format!("{tenants}/{id}");
            if below(&shared, &own) || below(&own, &shared) {
                let message = format!("the repositories of {} would be everybody's: {}", quote(id), quote(&shared));
                let help = "another id, or another `spec.images.shared`";
                self.error(Code::BadValue, &format!("spec.tenants[{i}].id"), &node.mark, message, help);
            }
        }
    }
}

/// Words of small letters and digits, with one of `._-/` between two.
fn is_repository(text: &str) -> bool {
    let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= 200 && text.split(['.', '_', '-', '/']).all(word)
}
