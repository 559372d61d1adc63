//! Tags, and the tags, blocks and routes of others that ringfence ignores.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::Checker;
use super::access::is_ec2_id;
use crate::spec::error::Code;
use crate::spec::network;
use crate::spec::tree::{Entry, Mark, Node};
use crate::spec::words::{join, quote};

/// Keys of tags that ringfence writes in addition to those of the spec.
const OWN_TAGS: &[&str] = &[
    "Name",
    "kubernetes.io/role/elb",
    "kubernetes.io/role/internal-elb",
    "ringfence.dev/address",
    "ringfence.dev/generation",
    "ringfence.dev/region",
    "ringfence.dev/tenancy",
    "ringfence.dev/tenant",
];
/// Prefixes of keys that ringfence leaves to in-cluster controllers.
const CONTROLLERS: &[&str] = &["elbv2.k8s.aws/", "k8s.io/cluster-autoscaler/", "karpenter.sh/"];

impl Checker<'_, '_> {
    /// The limits of tags are those of most AWS services. IAM ignores case when it compares keys.
    pub(super) fn tags(&mut self) {
        let mut seen: BTreeMap<String, &Mark> = BTreeMap::new();
        for Entry { key, key_mark, value } in self.at("spec.tags").map(Node::entries).unwrap_or_default() {
            let path = join("spec.tags", key);
            let lower = key.to_lowercase();
            let allowed = |c: char| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c);
            let reserved = ["aws:", "ringfence.dev/", "kubernetes.io/", "eks:"].iter().find(|p| lower.starts_with(*p));
            let controllers = CONTROLLERS.iter().find(|p| lower.starts_with(*p));
            let message = if let Some(prefix) = reserved {
                Some((format!("tag keys that begin with `{prefix}` are reserved"), "choose another key"))
            } else if let Some(prefix) = controllers {
                Some((
                    format!(
                        "tag keys that begin with `{prefix}` belong to in-cluster controllers, which find resources by them"
                    ),
                    "remove it, and tag by hand the resources that the controller must find: ringfence doesn't remove such tags",
                ))
            } else if key == "awsApplication" {
                Some(("the tag key `awsApplication` belongs to AWS myApplications".to_owned(), "choose another key"))
            } else if lower == "name" {
                Some(("ringfence writes the tag `Name` itself".to_owned(), "choose another key"))
            } else if key.is_empty() || key.chars().count() > 128 {
                Some((
                    format!("the tag key has {} characters", key.chars().count()),
                    "a tag key has 1 to 128 characters",
                ))
            } else if !key.chars().all(allowed) {
                Some((format!("{} is not a valid tag key", quote(key)), "use letters, digits, spaces and `_.:/=+-@`"))
            } else {
                None
            };
            if let Some((message, help)) = message {
                self.error(Code::BadValue, &path, key_mark, message, help);
            }
            if let Some(first) = seen.insert(lower, key_mark) {
                self.duplicate(&path, key_mark, first, key);
            }
            let Some(text) = value.text() else { continue };
            if text.chars().count() > 256 {
                let message = format!("the tag value has {} characters", text.chars().count());
                self.error(Code::BadValue, &path, &value.mark, message, "a tag value has at most 256 characters");
            } else if !text.chars().all(allowed) {
                let message = format!("{} is not a valid tag value", quote(text));
                self.error(Code::BadValue, &path, &value.mark, message, "use letters, digits, spaces and `_.:/=+-@`");
            }
        }
    }

    /// Checks what ringfence is to ignore. Tags, blocks and routes that ringfence writes itself can't be ignored.
    pub(super) fn ignored(&mut self) {
        let tags = self.at("spec.tags").map(Node::entries).unwrap_or_default();
        let own: Vec<&str> = OWN_TAGS.iter().copied().chain(tags.iter().map(|e| e.key.as_str())).collect();
        for (list, whole) in [("keys", true), ("keyPrefixes", false)] {
            let path = format!("spec.ignoreTags.{list}");
            for (i, node) in self.at(&path).map(Node::items).unwrap_or_default().iter().enumerate() {
                let Some(text) = node.text() else { continue };
                let here = format!("{path}[{i}]");
                let covers = |own: &&&str| {
                    if whole { **own == text } else { own.starts_with(text) || text.starts_with("ringfence.dev/") }
                };
                if text.is_empty() || text.chars().count() > 128 {
                    let message = format!("the tag key has {} characters", text.chars().count());
                    self.error(Code::BadValue, &here, &node.mark, message, "a tag key has 1 to 128 characters");
                } else if let Some(own) = own.iter().find(covers) {
                    let message =
                        format!("ringfence can't ignore {}: this covers `{own}`, which it writes itself", quote(text));
                    self.error(
                        Code::BadValue,
                        &here,
                        &node.mark,
                        message,
                        "remove it, or write the full key of the other tags",
                    );
                }
            }
        }
        let supernet = self.text("spec.network.supernet").and_then(|t| t.parse::<Ipv4Net>().ok());
        for list in ["cidrBlocks", "routes"] {
            let path = format!("spec.network.ignore.{list}");
            for (i, node) in self.at(&path).map(Node::items).unwrap_or_default().iter().enumerate() {
                let here = format!("{path}[{i}]");
                if list == "routes" && node.text().is_some_and(|t| t.starts_with("pl-") && is_ec2_id(t)) {
                    continue;
                }
                let Some(cidr) = network::cidr(node, &here, self.findings) else { continue };
                if cidr.prefix_len() == 0 {
                    let message = "ringfence can't ignore the default route: it writes it itself".to_owned();
                    self.error(
                        Code::BadValue,
                        &here,
                        &node.mark,
                        message,
                        "name the destinations of the routes that others add",
                    );
                } else if list == "cidrBlocks" && supernet.is_some_and(|s| s.contains(&cidr) || cidr.contains(&s)) {
                    let message = format!("{cidr} overlaps the supernet: ringfence allocates blocks from it itself");
                    self.error(Code::Network, &here, &node.mark, message, "name a block outside of `network.supernet`");
                }
            }
        }
    }
}
