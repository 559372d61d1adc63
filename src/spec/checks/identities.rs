//! The identities of tenants. An identity belongs to one tenant, or to the platform.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use crate::arn::principal_key;
use crate::spec::arn;
use crate::spec::error::{Code, SpecError};
use crate::spec::tree::{Mark, Node};
use crate::spec::url::{https_mistake, uri_mistake};
use crate::spec::words::{list, quote};

/// The fields that say what an identity is.
const KINDS: [&str; 3] = ["issuer", "role", "certificate"];

/// An identity in a form in which two spellings of one principal are equal.
type Key = [String; 4];

impl<'a> Checker<'a, '_> {
    /// Checks all tenants' identities. An identity of two tenants would be a member of both, and an administrator's
    /// role has more access without the gateway.
    pub(super) fn identities(&mut self, tenants: &'a [Node]) {
        let mut seen: BTreeMap<Key, (String, &Mark)> = self.principals_of_the_platform();
        let outside = self.at("spec.gateway.role").is_some();
        let pools = self.at("spec.pools").map(Node::items).unwrap_or_default();
        let inside: BTreeSet<&str> = pools
            .iter()
            .filter(|pool| pool.get("gateway").is_some())
            .filter_map(|pool| pool.get("name").and_then(Node::text))
            .collect();
        for (i, tenant) in tenants.iter().enumerate() {
            let reached = outside || tenant.get("pool").and_then(Node::text).is_some_and(|pool| inside.contains(pool));
            if let Some(access) = tenant.entry("access").filter(|a| !reached && !a.value.items().is_empty()) {
                let message = "no gateway reaches the tenant's cluster, so these identities get no access";
                let warning =
                    SpecError::new(Code::MissingField, format!("spec.tenants[{i}].access"), &access.key_mark, message);
                self.findings.warn(warning.help("add `spec.gateway.role`, or `gateway` to the tenant's pool"));
            }
            let what = format!("tenant {}", quote(tenant.get("id").and_then(Node::text).unwrap_or("without an id")));
            for (k, item) in tenant.get("access").map(Node::items).unwrap_or_default().iter().enumerate() {
                let here = format!("spec.tenants[{i}].access[{k}]");
                let Some((key, node)) = self.identity(item, &here) else { continue };
                match seen.get(&key) {
                    Some((other, first)) => self.taken(&here, &node.mark, (&what, other), first),
                    None => drop(seen.insert(key, (what.clone(), &node.mark))),
                }
            }
        }
    }

    /// Administrators, operators and the gateway.
    fn principals_of_the_platform(&self) -> BTreeMap<Key, (String, &'a Mark)> {
        let mut found = BTreeMap::new();
        for path in ["spec.access.admins", "spec.access.operators"] {
            for node in self.at(path).map(Node::items).unwrap_or_default() {
                if let Some(key) = node.text().and_then(principal_key) {
                    found.entry(role(key)).or_insert((path.to_owned(), &node.mark));
                }
            }
        }
        let gateway = self.at("spec.gateway.role");
        if let Some((node, key)) = gateway.and_then(|node| Some((node, principal_key(node.text()?)?))) {
            found.entry(role(key)).or_insert(("spec.gateway.role".to_owned(), &node.mark));
        }
        found
    }

    fn taken(&mut self, path: &str, mark: &Mark, (what, other): (&str, &str), first: &Mark) {
        let (message, help, label) = if what == other {
            let message = "this identity is given twice".to_owned();
            (message, "keep one of the two", "the identity is first given here".to_owned())
        } else if other.starts_with("tenant ") {
            let message = format!("{other} has this identity already, so it would be a member of two tenants");
            (message, "give each identity to one tenant only", format!("the identity of {other}"))
        } else {
            let message = format!("this principal is also in `{other}`, so it isn't confined to {what}");
            let help = "write a role that only this tenant's people can assume";
            (message, help, format!("the entry of `{other}`"))
        };
        self.findings.error(SpecError::new(Code::Duplicate, path, mark, message).help(help).related(first, label));
    }

    /// The identity of one entry, and the node to which errors point. `None` if it has a mistake.
    fn identity<'n>(&mut self, item: &'n Node, path: &str) -> Option<(Key, &'n Node)> {
        let within = |e: &SpecError| e.path.starts_with(path);
        // The structural check removes unknown fields, so the entry may look empty without being so.
        if self.findings.errors.iter().any(within) {
            return None;
        }
        let name = item.entries().first().map_or(&item.mark, |first| &first.key_mark);
        let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| item.get(kind).is_some()).collect();
        let of_claim = ["claim", "value"].into_iter().find(|field| item.get(field).is_some());
        let (kind, rest) = match (kinds.as_slice(), of_claim) {
            ([kind, rest @ ..], _) => (*kind, rest),
            ([], Some(_)) => ("issuer", [].as_slice()),
            ([], None) => {
                let message = "the entry names no identity".to_owned();
                let help = "write `issuer`, `claim` and `value`, or `role`, or `certificate`";
                self.error(Code::MissingField, path, name, message, help);
                return None;
            }
        };
        let second = rest.first().copied().or(of_claim.filter(|_| kind != "issuer"));
        if let Some(entry) = second.and_then(|second| item.entry(second)) {
            let message = format!("the entry has both {}", list([kind, entry.key.as_str()]));
            let help = "write each identity as an entry of its own";
            self.error(Code::BadValue, path, &entry.key_mark, message, help);
            return None;
        }
        match kind {
            "issuer" => self.claim(item, path, name),
            "role" => self.role(item.get("role")?, path),
            _ => self.certificate(item.get("certificate")?, path),
        }
    }

    fn claim<'n>(&mut self, item: &'n Node, path: &str, name: &Mark) -> Option<(Key, &'n Node)> {
        let missing: Vec<&str> =
            ["issuer", "claim", "value"].into_iter().filter(|field| item.get(field).is_none()).collect();
        for field in &missing {
            let message = format!("`{field}` is missing");
            let help = "a claim of a token needs `issuer`, `claim` and `value`";
            self.error(Code::MissingField, &format!("{path}.{field}"), name, message, help);
        }
        let issuer = item.get("issuer")?;
        let text = issuer.text()?;
        if let Some(mistake) = https_mistake(text) {
            let message = format!("{} is not an issuer: {mistake}", quote(text));
            let help =
                "write the issuer's https URL exactly as in the claim `iss`, such as `https://login.example.com`";
            self.error(Code::BadValue, &format!("{path}.issuer"), &issuer.mark, message, help);
            return None;
        }
        let value = item.get("value")?;
        Some((["claim", text, item.get("claim")?.text()?, value.text()?].map(str::to_owned), value))
    }

    fn role<'n>(&mut self, node: &'n Node, path: &str) -> Option<(Key, &'n Node)> {
        let here = format!("{path}.role");
        let text = node.text()?;
        match arn::principal(text, self.region()) {
            Err((message, help)) => self.error(Code::BadValue, &here, &node.mark, message, help),
            Ok(principal) if principal.session => {
                let message = "this is the ARN of one session, but all sessions of the role would count".to_owned();
                let help = format!("write the role's own ARN, with its path, such as `{}`", principal.arn);
                self.error(Code::BadValue, &here, &node.mark, message, help);
            }
            Ok(principal) => return Some((role(principal_key(&principal.arn)?), node)),
        }
        None
    }

    fn certificate<'n>(&mut self, node: &'n Node, path: &str) -> Option<(Key, &'n Node)> {
        let text = node.text()?;
        if let Some(mistake) = uri_mistake(text) {
            let message = format!("{} is not a URI: {mistake}", quote(text));
            let help =
                "write a URI of the certificate's subject alternative names, such as `spiffe://globex.example/ci`";
            self.error(Code::BadValue, &format!("{path}.certificate"), &node.mark, message, help);
            return None;
        }
        Some((["certificate", text, "", ""].map(str::to_owned), node))
    }
}

fn role(key: String) -> Key {
    ["role".to_owned(), key, String::new(), String::new()]
}
