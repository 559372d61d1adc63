//! Access to the API servers: principals, and networks of the public and the private endpoint.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::{Checker, Member};
use crate::spec::control::Control;
use crate::spec::error::{Code, SpecError};
use crate::spec::tree::{Mark, Node};
use crate::spec::words::quote;
use crate::spec::{arn, network};

impl<'a> Checker<'a, '_> {
    pub(super) fn access(&mut self) {
        for key in ["admins", "operators"] {
            let path = format!("spec.access.{key}");
            let Some(list) = self.at(&path) else { continue };
            let mut seen: BTreeMap<String, &Mark> = BTreeMap::new();
            for (i, node) in list.items().iter().enumerate() {
                let here = format!("{path}[{i}]");
                let Some(text) = node.text() else { continue };
                match arn::principal(text, self.region()) {
                    Err((message, help)) => self.error(Code::BadValue, &here, &node.mark, message, help),
                    Ok(principal) => match seen.get(&principal.arn) {
                        Some(first) => self.duplicate(&here, &node.mark, first, &principal.arn),
                        None => {
                            seen.insert(principal.arn, &node.mark);
                        }
                    },
                }
            }
        }
        let cidrs = self.at("spec.access.allowedCidrs");
        let mut seen: BTreeMap<Ipv4Net, &Mark> = BTreeMap::new();
        for (i, node) in cidrs.map(Node::items).unwrap_or_default().iter().enumerate() {
            let here = format!("spec.access.allowedCidrs[{i}]");
            let Some(cidr) = network::public(node, &here, self.findings) else { continue };
            if let Some(first) = seen.insert(cidr, &node.mark) {
                self.duplicate(&here, &node.mark, first, &cidr.to_string());
            }
        }
        self.private_sources();
        let endpoint = self.at("spec.access.endpoint");
        let restricted = endpoint.and_then(Node::text) == Some("restricted");
        match (endpoint, cidrs.filter(|c| !c.items().is_empty())) {
            (Some(endpoint), None) if restricted => {
                let message = "without `allowedCidrs`, EKS opens the public endpoints to the whole internet".to_owned();
                let help = "add `allowedCidrs`, or `endpoint: private`";
                self.error(Code::MissingField, "spec.access.endpoint", &endpoint.mark, message, help);
            }
            (_, Some(cidrs)) if !restricted => {
                let message = "`allowedCidrs` has no effect on private endpoints".to_owned();
                let help = "set `endpoint: restricted`, or `allowedCidrs: []`";
                let mark = cidrs.items().first().map_or(&cidrs.mark, |c| &c.mark);
                self.error(Code::BadValue, "spec.access.allowedCidrs", mark, message, help);
            }
            _ => {}
        }
    }

    /// Networks that reach the private endpoint. They become rules of the control planes' security groups.
    pub(super) fn private_sources(&mut self) {
        let supernet = self.text("spec.network.supernet").and_then(|t| t.parse::<Ipv4Net>().ok());
        let mut seen: BTreeMap<&str, &Mark> = BTreeMap::new();
        for (i, node) in self.at("spec.access.privateSources").map(Node::items).unwrap_or_default().iter().enumerate() {
            let here = format!("spec.access.privateSources[{i}]");
            let Some(text) = node.text() else { continue };
            if let Some(first) = seen.insert(text, &node.mark) {
                self.duplicate(&here, &node.mark, first, text);
            }
            if text.starts_with("pl-") || text.starts_with("sg-") {
                if !is_ec2_id(text) {
                    let message = format!("{} is not the id of a prefix list or a security group", quote(text));
                    let help = "an id is `pl-` or `sg-`, followed by 8 or 17 hexadecimal digits";
                    self.error(Code::BadValue, &here, &node.mark, message, help);
                }
                continue;
            }
            let Some(cidr) = network::cidr(node, &here, self.findings) else { continue };
            if cidr.prefix_len() < network::OPEN_PREFIX {
                let message = format!("{cidr} lets almost every connected network reach the API servers");
                self.error(Code::BadValue, &here, &node.mark, message, "name only the networks that need access");
            } else if supernet.is_some_and(|s| s.contains(&cidr) || cidr.contains(&s)) {
                let message = format!(
                    "{cidr} overlaps the tenancy's own supernet: if its VPCs are connected, tenants reach each other's API servers"
                );
                let warning = SpecError::new(Code::Network, &*here, &node.mark, message);
                self.findings.warn(warning.help("name only the networks that need access"));
            }
        }
    }

    /// Refuses public endpoints that are open to the whole internet (API-1).
    pub(super) fn open_endpoints(&mut self, clusters: &mut [&mut Member<'a>]) {
        let cidrs = self.at("spec.access.allowedCidrs").map(Node::items).unwrap_or_default();
        for (i, node) in cidrs.iter().enumerate() {
            let cidr = node.text().and_then(|t| t.parse::<Ipv4Net>().ok());
            let Some(cidr) = cidr.filter(|c| c.prefix_len() < network::OPEN_PREFIX) else { continue };
            let mut unexcused = Vec::new();
            for cluster in clusters.iter_mut() {
                cluster.used.insert(Control::ApiAccess);
                if !cluster.waived.contains(&Control::ApiAccess) {
                    unexcused.push(cluster.what.clone());
                }
            }
            if unexcused.is_empty() {
                continue;
            }
            let control = Control::ApiAccess;
            let message = format!(
                "{cidr} opens the API servers to a large part of the internet ({control}, {})",
                control.title()
            );
            let help =
                format!("name only your own networks, or add a waiver for {control} to {}", unexcused.join(", "));
            self.error(Code::WeakenedControl, &format!("spec.access.allowedCidrs[{i}]"), &node.mark, message, help);
        }
    }
}

/// `pl-` or `sg-` and hexadecimal digits.
pub(super) fn is_ec2_id(text: &str) -> bool {
    let digits = text.split_once('-').map_or("", |(_, digits)| digits);
    matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
