//! Checks of a spec's meaning that need no AWS. They work on the tree, not on the typed document, so that a mistake in
//! one place doesn't hide a mistake in another. The structural check ran before and removed values of the wrong shape,
//! so these checks ignore missing values.

mod access;
mod account;
mod gateway;
mod identities;
mod images;
mod names;
mod network;
mod overrides;
mod placement;
mod pools;
mod service_accounts;
mod tags;
mod versions;
mod waivers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::Date;

use super::arn::is_account;
use super::control::Control;
use super::error::{Code, SpecError};
use super::findings::Findings;
use super::places::Places;
use super::profile::{Loaded, Profiles};
use super::region::is_region;
use super::rules::{self, Objection};
use super::said::{ENDPOINTS, Said};
use super::settings::Profile;
use super::tree::{Mark, Node};
use super::words::quote;

/// A pool or a tenant, with its profile and overrides merged.
pub struct Member<'a> {
    node: &'a Node,
    /// `tenant `12345``.
    what: String,
    said: Said,
    loaded: Option<&'a Loaded>,
    /// The tier's own profile if nothing is overridden.
    pub profile: Option<Arc<Profile>>,
    /// Controls that it has a waiver for, valid or not.
    waived: BTreeSet<Control>,
    /// Controls for which a waiver is needed.
    used: BTreeSet<Control>,
}

/// Checks the whole document; the members hold the merged profiles.
pub struct Checked<'a> {
    pub pools: Vec<Member<'a>>,
    pub tenants: Vec<Member<'a>>,
}

impl Checked<'_> {
    /// The places of settings that only AWS can judge.
    pub fn places(&self, root: &Node) -> Places {
        let mut places = Places::new(tenancy(root, &ENDPOINTS));
        for (kind, key, members) in [("pool", "name", &self.pools), ("tenant", "id", &self.tenants)] {
            for member in members {
                let Some(name) = member.node.get(key).and_then(Node::text) else { continue };
                places.add(format!("{kind}/{name}"), member.said.clone());
            }
        }
        places
    }
}

/// The tenancy's own setting, which holds for all clusters.
fn tenancy<'n>(root: &'n Node, at: &[&str]) -> Option<&'n Node> {
    root.get("spec")?.at(at)
}

pub fn check<'a>(root: &'a Node, profiles: &'a Profiles, today: Date, findings: &mut Findings) -> Checked<'a> {
    let spec = root.get("spec");
    let pools = spec.and_then(|s| s.get("pools")).map(Node::items).unwrap_or_default();
    let judged = |l: &'a Loaded| l.profile.as_ref().map(|p| (l.name.as_str(), rules::check(p, p)));
    let mut checker = Checker {
        root,
        profiles,
        today,
        findings,
        pools: pools.iter().map(|p| p.get("name").and_then(Node::text)).collect(),
        tiers: Arc::new(profiles.iter().filter_map(judged).collect()),
    };
    checker.name();
    checker.region_and_account();
    checker.access();
    checker.gateway();
    checker.iam();
    checker.images();
    checker.tags();
    checker.ignored();
    let items = |key: &str| spec.and_then(|s| s.get(key)).map(Node::items).unwrap_or_default();
    let mut pools: Vec<Member> = items("pools").iter().enumerate().map(|(i, n)| checker.pool(i, n)).collect();
    let mut tenants: Vec<Member> = items("tenants").iter().enumerate().map(|(i, n)| checker.tenant(i, n)).collect();
    checker.uniqueness(items("pools"), items("tenants"));
    checker.identities(items("tenants"));
    for member in pools.iter_mut().chain(&mut tenants) {
        checker.objections(member);
    }
    checker.own_image(&pools);
    checker.own_image(&tenants);
    checker.profiles();
    checker.placement(&pools, &tenants);
    checker.clusters(&mut pools, &mut tenants);
    for member in pools.iter().chain(&tenants) {
        checker.needless_waivers(member);
    }
    Checked { pools, tenants }
}

struct Checker<'a, 'f> {
    root: &'a Node,
    profiles: &'a Profiles,
    today: Date,
    findings: &'f mut Findings,
    /// The names of the pools. `None` stands for a pool whose name couldn't be read.
    pools: BTreeSet<Option<&'a str>>,
    /// The objections to each profile itself, by its name.
    tiers: Arc<BTreeMap<&'a str, Vec<Objection>>>,
}

impl<'a> Checker<'a, '_> {
    fn at(&self, path: &str) -> Option<&'a Node> {
        let steps: Vec<&str> = path.split('.').collect();
        self.root.at(&steps)
    }

    fn text(&self, path: &str) -> Option<&'a str> {
        self.at(path).and_then(Node::text)
    }

    fn error(&mut self, code: Code, path: &str, mark: &Mark, message: String, help: impl Into<String>) {
        self.findings.error(SpecError::new(code, path, mark, message).help(help));
    }

    fn region(&self) -> Option<&'a str> {
        self.text("spec.region").filter(|r| is_region(r))
    }

    fn account(&self) -> Option<&'a str> {
        self.text("spec.accountId").filter(|a| is_account(a))
    }

    fn duplicate(&mut self, path: &str, mark: &Mark, first: &Mark, what: &str) {
        let error = SpecError::new(Code::Duplicate, path, mark, format!("{} is given twice", quote(what)));
        self.findings
            .error(error.help("keep one of the two").related(first, format!("{} is first given here", quote(what))));
    }

    fn effective<'n>(&'n self, cluster: &'n Member<'a>, at: &[&str]) -> Option<(&'n Node, String)> {
        cluster.said.effective(at, tenancy(self.root, at))
    }
}
