//! Pools, tenants and the profiles that they name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::names::{is_dns_label, is_id};
use super::{Checker, Member};
use crate::spec::error::Code;
use crate::spec::profile::{self, Loaded};
use crate::spec::said::Said;
use crate::spec::settings::IsolationModel;
use crate::spec::tree::{Mark, Node};
use crate::spec::words::{one_of, quote};
use crate::spec::{profile_schema, structure};

impl<'a> Checker<'a, '_> {
    pub(super) fn pool(&mut self, index: usize, node: &'a Node) -> Member<'a> {
        let path = format!("spec.pools[{index}]");
        let name = node.get("name");
        if let Some((at, text)) = name.and_then(Node::with_text).filter(|(_, t)| !t.is_empty()) {
            let generation =
                text.rsplit_once("-g").is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            let help = match (is_dns_label(text), generation) {
                (false, _) => "use lowercase letters and digits, with dashes only inside: `shared-1`",
                (true, true) => {
                    "names that end in `-g` and a number are reserved for replacements; choose another name"
                }
                (true, false) => "",
            };
            if !help.is_empty() {
                let message = format!("{} is not a valid name for a pool", quote(text));
                self.error(Code::BadValue, &format!("{path}.name"), &at.mark, message, help);
            }
        }
        if let Some(version) = node.get("kubernetesVersion") {
            self.version(version, &format!("{path}.kubernetesVersion"));
        }
        self.gateway_pods(node, &path);
        let what = format!("pool {}", quote(name.and_then(Node::text).unwrap_or("without a name")));
        let profile = node.get("profile");
        let loaded = match profile.and_then(Node::text) {
            Some(text) => profile.and_then(|n| self.loaded(text, n, &format!("{path}.profile"), true)),
            None => self.profiles.get("shared"),
        };
        let (anchor, key) = match (profile, name) {
            (Some(profile), _) => (profile.mark.clone(), "profile"),
            (None, Some(name)) => (name.mark.clone(), "name"),
            (None, None) => (node.mark.clone(), "name"),
        };
        self.member(node, path, what, anchor, key, loaded)
    }

    pub(super) fn tenant(&mut self, index: usize, node: &'a Node) -> Member<'a> {
        let path = format!("spec.tenants[{index}]");
        let id = node.get("id");
        if let Some((at, text)) = id.and_then(Node::with_text).filter(|(_, text)| !is_id(text)) {
            let plain: String = text.to_lowercase().chars().filter(char::is_ascii_alphanumeric).take(32).collect();
            let such = if plain.is_empty() { "a1b2c3" } else { &plain };
            let message = format!("{} is not a valid tenant id", quote(text));
            let help = format!("use 1 to 32 lowercase letters and digits, such as `{such}`");
            self.error(Code::BadValue, &format!("{path}.id"), &at.mark, message, help);
        }
        if let Some((at, text)) = node.get("name").and_then(Node::with_text) {
            let allowed = |c: char| c.is_ascii_alphanumeric() || " _.-".contains(c);
            if !text.is_empty() && (!text.chars().all(allowed) || text.trim() != text) {
                let message = format!("{} is not a valid name for a tenant", quote(text));
                let help = "use letters, digits and `_.-`, with spaces only inside";
                self.error(Code::BadValue, &format!("{path}.name"), &at.mark, message, help);
            }
        }
        let what = format!("tenant {}", quote(id.and_then(Node::text).unwrap_or("without an id")));
        let tier = node.get("tier");
        let loaded =
            tier.and_then(Node::with_text).and_then(|(n, t)| self.loaded(t, n, &format!("{path}.tier"), false));
        let (anchor, key) = match (tier, id) {
            (Some(tier), _) => (tier.mark.clone(), "tier"),
            (None, Some(id)) => (id.mark.clone(), "id"),
            (None, None) => (node.mark.clone(), "id"),
        };
        self.tenants_pool(node, &path, loaded, &anchor);
        self.service_accounts(node, &path);
        self.member(node, path, what, anchor, key, loaded)
    }

    /// The profile of this name. `None`, after an error, if it can't be a tenant's tier or a pool's profile.
    pub(super) fn loaded(&mut self, name: &str, node: &Node, path: &str, for_pool: bool) -> Option<&'a Loaded> {
        let profiles = self.profiles;
        let help = || one_of(name, &profiles.names(for_pool));
        let kind = if for_pool { "profile for pools" } else { "tier" };
        let Some(loaded) = profiles.get(name) else {
            self.error(Code::UnknownName, path, &node.mark, format!("there is no {kind} {}", quote(name)), help());
            return None;
        };
        if loaded.broken {
            return None;
        }
        let message = match &loaded.profile {
            None => {
                format!("the profile {} has no `isolation`, so it can only be a base for other profiles", quote(name))
            }
            Some(profile) if (profile.isolation == IsolationModel::Shared) != for_pool => {
                format!("the profile {} is for {}", quote(name), profile::subject(profile.isolation))
            }
            Some(_) => return Some(loaded),
        };
        self.error(Code::BadValue, path, &node.mark, message, help());
        None
    }

    /// A tier that shares a cluster needs a pool. Any other tier can't have one.
    pub(super) fn tenants_pool(&mut self, node: &Node, path: &str, loaded: Option<&Loaded>, anchor: &Mark) {
        // Keeps the order of the file.
        let names = |checker: &Self| -> Vec<&'a str> {
            let pools = checker.at("spec.pools").map(Node::items).unwrap_or_default();
            pools.iter().filter_map(|p| p.get("name").and_then(Node::text)).collect()
        };
        let shares =
            loaded.and_then(|l| l.profile.as_ref().map(|p| (l.name.as_str(), p.isolation != IsolationModel::Silo)));
        let here = format!("{path}.pool");
        match (node.get("pool"), shares) {
            (Some(pool), Some((tier, false))) => {
                let message = format!(
                    "a tenant of the tier {} is a silo: it shares no cluster, so it can't have a pool",
                    quote(tier)
                );
                self.error(Code::BadValue, &here, &pool.mark, message, "remove `pool`, or choose another tier");
            }
            (Some(pool), _) => {
                // A pool whose own name couldn't be read may be the one that is meant.
                let known = |text: &str| self.pools.contains(&None) || self.pools.contains(&Some(text));
                if let Some(text) = pool.text().filter(|text| !known(text)) {
                    let message = format!("there is no pool {}", quote(text));
                    let names = names(self);
                    let help =
                        if names.is_empty() { "add it under `spec.pools`".to_owned() } else { one_of(text, &names) };
                    self.error(Code::UnknownName, &here, &pool.mark, message, help);
                }
            }
            (None, Some((tier, true))) => {
                let message =
                    format!("a tenant of the tier {} shares a cluster, but the tenant names no pool", quote(tier));
                let help = match names(self).first() {
                    Some(first) => format!("add `pool: {first}`"),
                    None => "add a pool under `spec.pools`, and name it in the tenant's `pool`".to_owned(),
                };
                self.error(Code::MissingField, &here, anchor, message, help);
            }
            (None, _) => {}
        }
    }

    pub(super) fn member(
        &mut self,
        node: &'a Node,
        path: String,
        what: String,
        anchor: Mark,
        anchor_key: &str,
        loaded: Option<&'a Loaded>,
    ) -> Member<'a> {
        let waived = self.waivers(node, &path);
        let anchor_path = format!("{path}.{anchor_key}");
        let sound = loaded.and_then(|l| l.profile.as_ref().map(|p| (l, p)));
        let isolation = sound.map(|(_, tier)| tier.isolation);
        let said = Said { node: node.clone(), path, anchor, anchor_path, isolation, overrides: None, settings: None };
        let mut member = Member { node, what, said, loaded, profile: None, waived, used: BTreeSet::new() };
        let Some((loaded, tier)) = sound else { return member };
        let Some(overrides) = node.get("overrides").map(Node::pruned) else {
            member.profile = Some(tier.clone());
            member.said.settings = Some(loaded.settings.clone());
            return member;
        };
        let mut settings = Node::clone(&loaded.settings);
        let here = format!("{}.overrides", member.said.path);
        let before = self.findings.errors.len();
        let open: Vec<Vec<&str>> = loaded.overridable.iter().map(|o| o.split('.').collect()).collect();
        let allowed = self.overridable(&overrides, &here, loaded, tier.isolation, &open, &mut Vec::new());
        profile::merge(&mut settings, &allowed);
        structure::check(&profile_schema::PROFILE, &mut settings, &here, self.findings);
        member.said.overrides = Some(allowed);
        // If one override has a mistake, the others can still be checked.
        let told = self.findings.errors.len() > before;
        member.profile = profile::typed(&settings, &here, told, self.findings).map(Arc::new);
        member.said.settings = Some(Arc::new(settings));
        member
    }
}
