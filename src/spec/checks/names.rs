//! The names of the tenancy, its pools and its tenants: they must be valid and unique.

use std::collections::BTreeMap;

use super::Checker;
use crate::spec::error::{Code, SpecError};
use crate::spec::tree::{Mark, Node};
use crate::spec::words::quote;

impl Checker<'_, '_> {
    pub(super) fn name(&mut self) {
        let path = "metadata.name";
        let Some((node, name)) = self.at(path).and_then(Node::with_text) else { return };
        if name.is_empty() {
            return;
        }
        let mark = &node.mark;
        if !is_dns_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            let help = "use lowercase letters, digits and dashes; begin with a letter and end with a letter or digit: `acme-prod`";
            self.error(Code::BadValue, path, mark, format!("{} is not a valid name for a tenancy", quote(name)), help);
        } else if name == "sg" || name.starts_with("sg-") {
            let help = "EC2 refuses security groups whose names begin with `sg-`; choose another name";
            self.error(Code::BadValue, path, mark, format!("{} is not a valid name for a tenancy", quote(name)), help);
        } else if ["-t", "-p"].iter().any(|s| name.ends_with(s) || name.contains(&format!("{s}-"))) {
            let help = "`-t-` and `-p-` separate the tenancy's name from a tenant's or pool's; choose another name";
            self.error(Code::BadValue, path, mark, format!("{} is not a valid name for a tenancy", quote(name)), help);
        }
    }

    /// Pool names and tenant ids share one namespace. Tenants' names are for people, and must differ, too.
    pub(super) fn uniqueness(&mut self, pools: &[Node], tenants: &[Node]) {
        let pools = pools.iter().enumerate().map(|(i, n)| (format!("spec.pools[{i}].name"), n.get("name")));
        let ids = tenants.iter().enumerate().map(|(i, n)| (format!("spec.tenants[{i}].id"), n.get("id")));
        let names = tenants.iter().enumerate().map(|(i, n)| (format!("spec.tenants[{i}].name"), n.get("name")));
        self.unique(pools.chain(ids), "tenant ids and pool names must be unique among each other");
        self.unique(names, "tenant names must be unique");
    }

    pub(super) fn unique<'n>(&mut self, nodes: impl Iterator<Item = (String, Option<&'n Node>)>, help: &str) {
        let mut seen: BTreeMap<&str, &Mark> = BTreeMap::new();
        for (path, node) in nodes {
            let Some((node, text)) = node.and_then(Node::with_text) else { continue };
            match seen.get(text) {
                Some(first) => {
                    let message = format!("{} is given twice", quote(text));
                    let error = SpecError::new(Code::Duplicate, path, &node.mark, message).help(help);
                    self.findings.error(error.related(first, format!("{} is first given here", quote(text))));
                }
                None => {
                    seen.insert(text, &node.mark);
                }
            }
        }
    }
}

/// 1 to 32 of `a-z0-9`. This fits into labels, tags and names. Without a dash, no namespace `t-<id>` is a suffix of
/// another.
pub(super) fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// A label of RFC 1123. The schema checks its length.
pub(super) fn is_dns_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}
