//! What a spec means, as far as it can be judged without AWS. Works on the tree rather than on
//! the typed document, so that a mistake in one place hides none in another; what has the
//! wrong shape was taken out before, and is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::Ipv4Net;
use jiff::ToSpan;
use jiff::civil::Date;

use super::arn;
use super::catalog::{KUBERNETES, Release};
use super::control::Control;
use super::error::{Code, SpecError};
use super::findings::{Findings, join, list, one_of, quote};
use super::model::{IsolationModel, Profile};
use super::network;
use super::places::Places;
use super::profile::{self, Loaded, Profiles};
use super::rules::{self, Objection, Verdict};
use super::schema;
use super::structure;
use super::tree::{Entry, Mark, Node, Value};
use super::uid::uid_range;
use crate::version::KubernetesVersion;

/// Keys of tags that ringfence writes, beside those of the spec.
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
/// What the keys begin with that ringfence leaves to in-cluster controllers.
const CONTROLLERS: &[&str] = &["elbv2.k8s.aws/", "k8s.io/cluster-autoscaler/", "karpenter.sh/"];
/// How long a waiver may hold at most.
const WAIVER_YEARS: i16 = 1;
/// A version that ends within so many days is as good as ended: a cluster takes time to upgrade.
const LAST_DAYS: i64 = 7;
/// When the end of standard support is worth a warning.
const SOON_DAYS: i64 = 30;
/// Default quotas of EKS (Service Quotas); all can be raised.
const NODE_GROUPS: usize = 30;
const FARGATE_PROFILES: usize = 10;
const CLUSTERS: usize = 100;

/// A pool or a tenant, with its profile and overrides merged.
pub struct Member<'a> {
    node: &'a Node,
    /// `tenant `12345``.
    what: String,
    said: Said,
    loaded: Option<&'a Loaded>,
    /// The tier's own where nothing is overridden.
    pub profile: Option<Arc<Profile>>,
    /// Controls that it has a waiver for, good or bad.
    waived: BTreeSet<Control>,
    /// Those that something needs.
    used: BTreeSet<Control>,
}

/// The settings of one pool or tenant, with their places in the spec and in its profile.
#[derive(Clone, Debug)]
pub struct Said {
    node: Node,
    path: String,
    /// Where its profile is named, or the name that stands for it.
    anchor: Mark,
    anchor_path: String,
    isolation: Option<IsolationModel>,
    /// What the tier leaves open of its overrides.
    overrides: Option<Node>,
    /// The tier's own where nothing is overridden.
    settings: Option<Arc<Node>>,
}

/// Checks the whole document; the members hold the merged profiles.
pub struct Checked<'a> {
    pub pools: Vec<Member<'a>>,
    pub tenants: Vec<Member<'a>>,
}

impl Checked<'_> {
    /// Where the document says what only AWS can judge.
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

/// The endpoints of a VPC, in a pool and in a profile alike.
const ENDPOINTS: [&str; 2] = ["network", "endpoints"];

/// What the tenancy says for all clusters.
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
    checker.iam();
    checker.images();
    checker.tags();
    checker.ignored();
    let items = |key: &str| spec.and_then(|s| s.get(key)).map(Node::items).unwrap_or_default();
    let mut pools: Vec<Member> = items("pools").iter().enumerate().map(|(i, n)| checker.pool(i, n)).collect();
    let mut tenants: Vec<Member> = items("tenants").iter().enumerate().map(|(i, n)| checker.tenant(i, n)).collect();
    checker.uniqueness(items("pools"), items("tenants"));
    for member in pools.iter_mut().chain(&mut tenants) {
        checker.objections(member);
    }
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
    /// The names of the pools, as far as they can be read.
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
        self.text("spec.region").filter(|r| arn::is_region(r))
    }

    fn account(&self) -> Option<&'a str> {
        self.text("spec.accountId").filter(|a| arn::is_account(a))
    }

    // -----------------------------------------------------------------------------------
    // The tenancy
    // -----------------------------------------------------------------------------------

    fn name(&mut self) {
        let path = "metadata.name";
        let Some((node, name)) = self.at(path).and_then(Node::with_text) else { return };
        if name.is_empty() {
            return;
        }
        let mark = &node.mark;
        if !is_dns_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            let help = "small letters, digits and dashes, from a letter to a letter or digit: `acme-prod`";
            self.error(Code::BadValue, path, mark, format!("{} can't be a tenancy's name", quote(name)), help);
        } else if name == "sg" || name.starts_with("sg-") {
            let help = "EC2 refuses security groups whose names begin with `sg-`; choose another name";
            self.error(Code::BadValue, path, mark, format!("{} can't be a tenancy's name", quote(name)), help);
        } else if ["-t", "-p"].iter().any(|s| name.ends_with(s) || name.contains(&format!("{s}-"))) {
            let help = "`-t-` and `-p-` separate the tenancy's name from a tenant's or pool's; choose another name";
            self.error(Code::BadValue, path, mark, format!("{} can't be a tenancy's name", quote(name)), help);
        }
    }

    fn region_and_account(&mut self) {
        if let Some((node, region)) = self.at("spec.region").and_then(Node::with_text) {
            let help = one_of(region, arn::REGIONS);
            let message = match (arn::is_region(region), arn::REGIONS.contains(&region)) {
                (_, true) => None,
                (true, false) => Some(format!("{} is no region that this version of ringfence knows", quote(region))),
                (false, false) => Some(format!("{} is no region", quote(region))),
            };
            if let Some(message) = message {
                self.error(Code::BadValue, "spec.region", &node.mark, message, help);
            }
        }
        let account = self.at("spec.accountId").and_then(Node::with_text);
        if let Some((node, account)) = account.filter(|(_, account)| !arn::is_account(account)) {
            let message = format!("{} is no account", quote(account));
            self.error(Code::BadValue, "spec.accountId", &node.mark, message, "12 digits, in quotes");
        }
        if let Some(node) = self.at("spec.kubernetesVersion") {
            self.version(node, "spec.kubernetesVersion");
        }
    }

    fn access(&mut self) {
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
                let message = "without `allowedCidrs`, EKS opens the API servers to everyone".to_owned();
                let help = "add `allowedCidrs`, or `endpoint: private`";
                self.error(Code::MissingField, "spec.access.endpoint", &endpoint.mark, message, help);
            }
            (_, Some(cidrs)) if !restricted => {
                let message = "a private endpoint has no allowed sources".to_owned();
                let help = "`endpoint: restricted`, or `allowedCidrs: []`";
                let mark = cidrs.items().first().map_or(&cidrs.mark, |c| &c.mark);
                self.error(Code::BadValue, "spec.access.allowedCidrs", mark, message, help);
            }
            _ => {}
        }
    }

    /// Who reaches the private endpoint: rules of the control planes' group.
    fn private_sources(&mut self) {
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
                    let message = format!("{} is no id of a prefix list or a security group", quote(text));
                    let help = "`pl-` or `sg-`, and 8 or 17 hexadecimal digits";
                    self.error(Code::BadValue, &here, &node.mark, message, help);
                }
                continue;
            }
            let Some(cidr) = network::cidr(node, &here, self.findings) else { continue };
            if cidr.prefix_len() < network::OPEN_PREFIX {
                let message = format!("{cidr} lets everyone who is connected reach the API servers");
                self.error(Code::BadValue, &here, &node.mark, message, "name the networks that need it");
            } else if supernet.is_some_and(|s| s.contains(&cidr) || cidr.contains(&s)) {
                let message = format!(
                    "{cidr} overlaps the tenancy's own supernet: where VPCs are connected, tenants reach each other's API servers"
                );
                let warning = SpecError::new(Code::Network, &*here, &node.mark, message);
                self.findings.warn(warning.help("name the networks that need it"));
            }
        }
    }

    fn iam(&mut self) {
        if let Some((node, path)) = self.at("spec.iam.path").and_then(Node::with_text) {
            let graphic = path.bytes().all(|b| b.is_ascii_graphic());
            if !graphic || !path.starts_with('/') || !path.ends_with('/') || path.contains("//") {
                let message = format!("{} is no IAM path", quote(path));
                let help = "it begins and ends with a slash: `/ringfence/`";
                self.error(Code::BadValue, "spec.iam.path", &node.mark, message, help);
            }
        }
        if let Some((node, text)) = self.at("spec.iam.permissionsBoundary").and_then(Node::with_text)
            && let Err((message, help)) = arn::policy(text, self.region(), self.account())
        {
            self.error(Code::BadValue, "spec.iam.permissionsBoundary", &node.mark, message, help);
        }
    }

    /// Amazon ECR API reference, CreateRepository, `repositoryName`. No tenant's repositories may be everybody's.
    fn images(&mut self) {
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

    /// The limits of tags are those of most services; IAM compares keys without case.
    fn tags(&mut self) {
        let mut seen: BTreeMap<String, &Mark> = BTreeMap::new();
        for Entry { key, key_mark, value } in self.at("spec.tags").map(Node::entries).unwrap_or_default() {
            let path = join("spec.tags", key);
            let lower = key.to_lowercase();
            let allowed = |c: char| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c);
            let reserved = ["aws:", "ringfence.dev/", "kubernetes.io/", "eks:"].iter().find(|p| lower.starts_with(*p));
            let controllers = CONTROLLERS.iter().find(|p| lower.starts_with(*p));
            let message = if let Some(prefix) = reserved {
                Some((format!("keys that begin with `{prefix}` are reserved"), "choose another key"))
            } else if let Some(prefix) = controllers {
                Some((
                    format!("keys that begin with `{prefix}` are left to the controllers that find resources by them"),
                    "leave it out; tag by hand what the controller is to find: ringfence lets it be",
                ))
            } else if key == "awsApplication" {
                Some(("`awsApplication` is AWS's own, for myApplications".to_owned(), "choose another key"))
            } else if lower == "name" {
                Some(("`Name` is what ringfence names resources by".to_owned(), "choose another key"))
            } else if key.is_empty() || key.chars().count() > 128 {
                Some((format!("a key of {} characters", key.chars().count()), "1 to 128 characters"))
            } else if !key.chars().all(allowed) {
                Some((format!("{} can't be a tag's key", quote(key)), "letters, digits, spaces and `_.:/=+-@`"))
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
                let message = format!("a value of {} characters", text.chars().count());
                self.error(Code::BadValue, &path, &value.mark, message, "256 characters at most");
            } else if !text.chars().all(allowed) {
                let message = format!("{} can't be a tag's value", quote(text));
                self.error(Code::BadValue, &path, &value.mark, message, "letters, digits, spaces and `_.:/=+-@`");
            }
        }
    }

    /// What is left to others: nothing that ringfence writes itself.
    fn ignored(&mut self) {
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
                    let message = format!("a key of {} characters", text.chars().count());
                    self.error(Code::BadValue, &here, &node.mark, message, "1 to 128 characters");
                } else if let Some(own) = own.iter().find(covers) {
                    let message = format!("{} would hide `{own}`, which ringfence writes itself", quote(text));
                    self.error(
                        Code::BadValue,
                        &here,
                        &node.mark,
                        message,
                        "leave it out, or name the key of others in full",
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
                    let message = "the default route is ringfence's own".to_owned();
                    self.error(
                        Code::BadValue,
                        &here,
                        &node.mark,
                        message,
                        "name the networks that others' routes lead to",
                    );
                } else if list == "cidrBlocks" && supernet.is_some_and(|s| s.contains(&cidr) || cidr.contains(&s)) {
                    let message = format!("{cidr} overlaps the supernet, whose blocks are ringfence's to give");
                    self.error(Code::Network, &here, &node.mark, message, "a block outside of `network.supernet`");
                }
            }
        }
    }

    /// Syntax and support of a Kubernetes version.
    fn version(&mut self, node: &Node, path: &str) {
        let Some(text) = node.text() else { return };
        let Some(version) = KubernetesVersion::parse(text) else {
            let message = format!("{} is no Kubernetes version", quote(text));
            self.error(Code::BadValue, path, &node.mark, message, "a minor version, in quotes: \"1.36\"");
            return;
        };
        let last = self.today.saturating_add(LAST_DAYS.days());
        let alive = |r: &&Release| r.extended_until.is_none_or(|end| end > last);
        let supported: Vec<String> = KUBERNETES.iter().filter(alive).map(|r| format!("1.{}", r.minor)).collect();
        let help = format!("one of {}", list(supported.iter().map(String::as_str)));
        let message = match release(version) {
            None if version.major == 1 && KUBERNETES.first().is_some_and(|first| version.minor < first.minor) => {
                format!("EKS doesn't run Kubernetes {version} any more")
            }
            None => format!("EKS has no Kubernetes {version} that this version of ringfence knows"),
            Some(Release { extended_until: Some(end), .. }) if *end < self.today => {
                format!("EKS ended Kubernetes {version} on {end}")
            }
            Some(Release { extended_until: Some(end), .. }) if *end <= last => {
                format!("EKS ends Kubernetes {version} on {end}, in less than {} days", LAST_DAYS + 1)
            }
            Some(_) => return,
        };
        self.error(Code::UnsupportedVersion, path, &node.mark, message, help);
    }

    // -----------------------------------------------------------------------------------
    // Pools and tenants
    // -----------------------------------------------------------------------------------

    fn pool(&mut self, index: usize, node: &'a Node) -> Member<'a> {
        let path = format!("spec.pools[{index}]");
        let name = node.get("name");
        if let Some((at, text)) = name.and_then(Node::with_text).filter(|(_, t)| !t.is_empty()) {
            let generation =
                text.rsplit_once("-g").is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            let help = match (is_dns_label(text), generation) {
                (false, _) => "small letters, digits and dashes inside: `shared-1`",
                (true, true) => "`-g` and a number mark a replacement; choose another name",
                (true, false) => "",
            };
            if !help.is_empty() {
                let message = format!("{} can't be a pool's name", quote(text));
                self.error(Code::BadValue, &format!("{path}.name"), &at.mark, message, help);
            }
        }
        if let Some(version) = node.get("kubernetesVersion") {
            self.version(version, &format!("{path}.kubernetesVersion"));
        }
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

    fn tenant(&mut self, index: usize, node: &'a Node) -> Member<'a> {
        let path = format!("spec.tenants[{index}]");
        let id = node.get("id");
        if let Some((at, text)) = id.and_then(Node::with_text).filter(|(_, text)| !is_id(text)) {
            let plain: String = text.to_lowercase().chars().filter(char::is_ascii_alphanumeric).take(32).collect();
            let such = if plain.is_empty() { "a1b2c3" } else { &plain };
            let message = format!("{} can't be a tenant's id", quote(text));
            let help = format!("1 to 32 small letters and digits, such as `{such}`");
            self.error(Code::BadValue, &format!("{path}.id"), &at.mark, message, help);
        }
        if let Some((at, text)) = node.get("name").and_then(Node::with_text) {
            let allowed = |c: char| c.is_ascii_alphanumeric() || " _.-".contains(c);
            if !text.is_empty() && (!text.chars().all(allowed) || text.trim() != text) {
                let message = format!("{} can't be a tenant's name", quote(text));
                let help = "letters, digits and `_.-`, with spaces inside";
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

    /// The profile of this name, if it can be a tenant's tier or a pool's profile.
    fn loaded(&mut self, name: &str, node: &Node, path: &str, for_pool: bool) -> Option<&'a Loaded> {
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
            None => format!("the profile {} names no isolation, so nothing can be of it", quote(name)),
            Some(profile) if (profile.isolation == IsolationModel::Shared) != for_pool => {
                format!("the profile {} is for {}", quote(name), profile::subject(profile.isolation))
            }
            Some(_) => return Some(loaded),
        };
        self.error(Code::BadValue, path, &node.mark, message, help());
        None
    }

    /// Tiers that share a cluster need a pool; others can't have one.
    fn tenants_pool(&mut self, node: &Node, path: &str, loaded: Option<&Loaded>, anchor: &Mark) {
        // In the order of the file.
        let names = |checker: &Self| -> Vec<&'a str> {
            let pools = checker.at("spec.pools").map(Node::items).unwrap_or_default();
            pools.iter().filter_map(|p| p.get("name").and_then(Node::text)).collect()
        };
        let shares =
            loaded.and_then(|l| l.profile.as_ref().map(|p| (l.name.as_str(), p.isolation != IsolationModel::Silo)));
        let here = format!("{path}.pool");
        match (node.get("pool"), shares) {
            (Some(pool), Some((tier, false))) => {
                let message = format!("the tier {} is a silo, which shares no cluster", quote(tier));
                self.error(Code::BadValue, &here, &pool.mark, message, "leave out `pool`, or choose another tier");
            }
            (Some(pool), _) => {
                // Where a pool's own name couldn't be read, it may be the one that is meant.
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
                let message = format!("the tier {} shares a cluster, and no pool is named", quote(tier));
                let help = match names(self).first() {
                    Some(first) => format!("add `pool: {first}`"),
                    None => "add a pool under `spec.pools`, and name it here".to_owned(),
                };
                self.error(Code::MissingField, &here, anchor, message, help);
            }
            (None, _) => {}
        }
    }

    fn service_accounts(&mut self, node: &Node, path: &str) {
        let mut seen: BTreeMap<&str, &Mark> = BTreeMap::new();
        for (i, account) in node.get("serviceAccounts").map(Node::items).unwrap_or_default().iter().enumerate() {
            let here = format!("{path}.serviceAccounts[{i}]");
            if let Some((at, name)) = account.get("name").and_then(Node::with_text) {
                let help = match name {
                    "default" => "`default` is every pod's; give the one that acts in AWS a name of its own",
                    _ if name.is_empty() || is_dns_label(name) => "",
                    _ => "small letters, digits and dashes inside: `uploader`",
                };
                if !help.is_empty() {
                    let message = format!("{} can't be such a service account's name", quote(name));
                    self.error(Code::BadValue, &format!("{here}.name"), &at.mark, message, help);
                }
                match seen.get(name) {
                    Some(first) => self.duplicate(&format!("{here}.name"), &at.mark, first, name),
                    None => {
                        seen.insert(name, &at.mark);
                    }
                }
            }
            let mut policies: BTreeMap<&str, &Mark> = BTreeMap::new();
            for (k, policy) in account.get("policies").map(Node::items).unwrap_or_default().iter().enumerate() {
                let here = format!("{here}.policies[{k}]");
                let Some(text) = policy.text() else { continue };
                if let Err((message, help)) = arn::policy(text, self.region(), self.account()) {
                    self.error(Code::BadValue, &here, &policy.mark, message, help);
                } else if let Some(name) = text.split_once("::aws:policy/").map(|(_, n)| n).filter(|n| is_unbounded(n))
                {
                    let message = format!("{} reaches every tenant's resources", quote(name));
                    let help = "a policy of your own that names this tenant's resources; no waiver helps";
                    self.error(Code::Forbidden, &here, &policy.mark, message, help);
                }
                if let Some(first) = policies.insert(text, &policy.mark) {
                    self.duplicate(&here, &policy.mark, first, text);
                }
            }
        }
    }

    fn member(
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
        structure::check(&schema::PROFILE, &mut settings, &here, self.findings);
        member.said.overrides = Some(allowed);
        // With a mistake in the overrides, the rest of them can still be judged.
        let told = self.findings.errors.len() > before;
        member.profile = profile::typed(&settings, &here, told, self.findings).map(Arc::new);
        member.said.settings = Some(Arc::new(settings));
        member
    }

    /// The part of a tenant's overrides that its tier leaves open; the rest is an error.
    fn overridable(
        &mut self,
        node: &Node,
        path: &str,
        loaded: &Loaded,
        isolation: IsolationModel,
        open: &[Vec<&str>],
        at: &mut Vec<String>,
    ) -> Node {
        let mut allowed = Vec::new();
        for entry in node.entries() {
            at.push(entry.key.clone());
            let here = join(path, &entry.key);
            let within = |o: &Vec<&str>| o.len() <= at.len() && o.iter().zip(at.iter()).all(|(a, b)| a == b);
            let above = |o: &Vec<&str>| o.len() > at.len() && o.iter().zip(at.iter()).all(|(a, b)| a == b);
            if at.len() == 1 && !profile::uses(isolation, &entry.key) {
                let message = format!("`{}` says nothing about {}", entry.key, profile::subject(isolation));
                let help = format!("leave it out; it belongs {}", profile::home(&entry.key, isolation));
                self.error(Code::NotOverridable, &here, &entry.key_mark, message, help);
            } else if open.iter().any(within) {
                allowed.push(entry.clone());
            } else if open.iter().any(above) && matches!(entry.value.value, Value::Map(_)) {
                let value = self.overridable(&entry.value, &here, loaded, isolation, open, at);
                allowed.push(Entry { value, ..entry.clone() });
            } else {
                let message = format!("the tier {} doesn't leave `{}` open", quote(&loaded.name), at.join("."));
                let help = match loaded.overridable.as_slice() {
                    [] => "it leaves nothing open".to_owned(),
                    some => format!("it leaves open {}", list(some.iter().map(String::as_str))),
                };
                self.error(Code::NotOverridable, &here, &entry.key_mark, message, help);
            }
            at.pop();
        }
        Node { value: Value::Map(allowed), mark: node.mark.clone() }
    }

    // -----------------------------------------------------------------------------------
    // Controls and waivers
    // -----------------------------------------------------------------------------------

    /// Checks a pool's or tenant's waivers, and returns what they are for.
    fn waivers(&mut self, node: &Node, path: &str) -> BTreeSet<Control> {
        let mut seen: BTreeMap<Control, &Mark> = BTreeMap::new();
        for (i, waiver) in node.get("waivers").map(Node::items).unwrap_or_default().iter().enumerate() {
            let here = format!("{path}.waivers[{i}]");
            let reason = waiver.get("reason").and_then(Node::with_text);
            if let Some((reason, _)) = reason.filter(|(_, text)| text.trim().is_empty() && !text.is_empty()) {
                let (message, help) = ("the reason is empty".to_owned(), "say why, for whoever reads it later");
                self.error(Code::Waiver, &format!("{here}.reason"), &reason.mark, message, help);
            }
            if let Some((until, text)) = waiver.get("until").and_then(Node::with_text) {
                self.until(until, text, &format!("{here}.until"));
            }
            let Some(control) = waiver.get("control") else { continue };
            let Some(id) = control.text().and_then(|t| t.parse::<Control>().ok()) else { continue };
            match seen.get(&id) {
                Some(first) => self.duplicate(&format!("{here}.control"), &control.mark, first, id.id()),
                None => {
                    seen.insert(id, &control.mark);
                }
            }
        }
        seen.into_keys().collect()
    }

    fn until(&mut self, node: &Node, text: &str, path: &str) {
        let latest = self.today.saturating_add(WAIVER_YEARS.years());
        let is_iso = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let Some(until) = text.parse::<Date>().ok().filter(|_| is_iso) else {
            let message = format!("{} is no date", quote(text));
            self.error(Code::BadValue, path, &node.mark, message, format!("YYYY-MM-DD, until {latest} at the latest"));
            return;
        };
        let (message, help) = if until < self.today {
            let help = format!("fix what it excuses, or renew it, until {latest} at the latest");
            (format!("this waiver expired on {until}; today is {}", self.today), help)
        } else if until > latest {
            ("a waiver holds for a year at most".to_owned(), format!("until {latest} at the latest"))
        } else {
            return;
        };
        self.error(Code::Waiver, path, &node.mark, message, help);
    }

    /// What the rules say about a member's profile.
    fn objections(&mut self, member: &mut Member<'a>) {
        let settings = member.said.settings.as_ref();
        if let Some(node) = settings.and_then(|s| s.at(&["cluster", "kubernetesVersion"])) {
            let path = format!("{}.overrides.cluster.kubernetesVersion", member.said.path);
            if node.mark.is_in(self.root.mark.source()) {
                self.version(node, &path);
            }
        }
        let (Some(profile), Some(loaded)) = (&member.profile, member.loaded) else { return };
        let Some(tier) = &loaded.profile else { return };
        let tiers = self.tiers.clone();
        let of_tier = tiers.get(loaded.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let own = (!Arc::ptr_eq(profile, tier)).then(|| rules::check(profile, tier));
        for objection in own.as_deref().unwrap_or(of_tier) {
            let place = member.said.place(&objection.at);
            let (message, help) = (objection.message.clone(), objection.help.clone());
            let (code, help) = match objection.verdict {
                Verdict::Weakens(control) => {
                    member.used.insert(control);
                    if member.waived.contains(&control) {
                        continue;
                    }
                    let until = self.today.saturating_add(6.months());
                    let waiver = format!("{{control: {control}, reason: …, until: {until}}}");
                    let help = format!("{help}; or, under `{}.waivers`, `- {waiver}`", member.said.path);
                    (Code::WeakenedControl, help)
                }
                // What is wrong in the tier itself is told once, at its own place, by `profiles`.
                Verdict::Refused(_) if of_tier.iter().any(|o| o.message == message) => continue,
                Verdict::Refused(code) => (code, help),
                Verdict::Noted => {
                    let warning = place.error(Code::BadValue, message).help(help);
                    self.findings.warn(warning);
                    continue;
                }
            };
            let message = match objection.verdict {
                Verdict::Weakens(control) => format!("{message} ({control}, {})", control.title()),
                _ => message,
            };
            self.findings.error(place.error(code, message).help(help));
        }
    }

    /// What no waiver helps against is wrong in the profile itself.
    fn profiles(&mut self) {
        let tiers = self.tiers.clone();
        for loaded in self.profiles.iter() {
            for objection in tiers.get(loaded.name.as_str()).into_iter().flatten() {
                let Verdict::Refused(code) = objection.verdict else { continue };
                let Some(at) = objection.at.first() else { continue };
                let mark = &loaded.settings.nearest(at).mark;
                self.error(code, &at.join("."), mark, objection.message.clone(), objection.help.clone());
            }
            if let Some(version) = loaded.settings.at(&["cluster", "kubernetesVersion"]) {
                self.version(version, "cluster.kubernetesVersion");
            }
        }
    }

    fn needless_waivers(&mut self, member: &Member<'a>) {
        if member.profile.is_none() {
            return;
        }
        for (i, waiver) in member.node.get("waivers").map(Node::items).unwrap_or_default().iter().enumerate() {
            let Some(control) = waiver.get("control") else { continue };
            let Some(id) = control.text().and_then(|t| t.parse::<Control>().ok()) else { continue };
            if !member.used.contains(&id) {
                let path = format!("{}.waivers[{i}]", member.said.path);
                let message = format!("{} weakens nothing of {id}, so the waiver isn't needed", member.what);
                let warning = SpecError::new(Code::Waiver, path, &control.mark, message);
                self.findings.warn(warning.help("remove it, so that it can't excuse anything later"));
            }
        }
    }

    // -----------------------------------------------------------------------------------
    // The estate as a whole
    // -----------------------------------------------------------------------------------

    fn duplicate(&mut self, path: &str, mark: &Mark, first: &Mark, what: &str) {
        let error = SpecError::new(Code::Duplicate, path, mark, format!("{} is given twice", quote(what)));
        self.findings
            .error(error.help("each can be there once").related(first, format!("{} is first given here", quote(what))));
    }

    /// Pool names and tenant ids share one namespace; tenants' names are for people to tell them apart.
    fn uniqueness(&mut self, pools: &[Node], tenants: &[Node]) {
        let pools = pools.iter().enumerate().map(|(i, n)| (format!("spec.pools[{i}].name"), n.get("name")));
        let ids = tenants.iter().enumerate().map(|(i, n)| (format!("spec.tenants[{i}].id"), n.get("id")));
        let names = tenants.iter().enumerate().map(|(i, n)| (format!("spec.tenants[{i}].name"), n.get("name")));
        self.unique(pools.chain(ids), "tenants' ids and pools' names must all differ");
        self.unique(names, "tenants' names must differ, so that people can tell them apart");
    }

    fn unique<'n>(&mut self, nodes: impl Iterator<Item = (String, Option<&'n Node>)>, help: &str) {
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

    /// Tenants that share a cluster: their IDs, and how many it holds.
    fn placement(&mut self, pools: &[Member], tenants: &[Member]) {
        let mut ranges: BTreeMap<(&str, u32), (&str, &Mark)> = BTreeMap::new();
        for (i, tenant) in tenants.iter().enumerate() {
            let text = |key: &str| tenant.node.get(key).and_then(Node::with_text);
            let (Some((node, id)), Some((_, pool))) = (text("id"), text("pool")) else { continue };
            let range = uid_range(id);
            match ranges.get(&(pool, range.first)) {
                Some((other, first)) if *other != id => {
                    let message = format!(
                        "{} has the same user IDs as {} ({}–{})",
                        quote(id),
                        quote(other),
                        range.first,
                        range.last
                    );
                    let path = format!("spec.tenants[{i}].id");
                    let error = SpecError::new(Code::Duplicate, path, &node.mark, message);
                    let help = "they come from the ids: give the newer tenant another id, or another pool";
                    self.findings.error(error.help(help).related(first, "the other tenant"));
                }
                Some(_) => {}
                None => {
                    ranges.insert((pool, range.first), (id, &node.mark));
                }
            }
        }
        if let Some(region) = self.region().filter(|region| !arn::has_fargate(region)) {
            for (i, tenant) in tenants.iter().enumerate() {
                let tier = tenant.node.get("tier").filter(|_| tenant.said.isolation == Some(IsolationModel::Fargate));
                let Some(tier) = tier else { continue };
                let message = format!("EKS has no Fargate in {region}");
                let help = "a tier whose isolation is `pool` or `silo`, such as `standard` or `premium`";
                self.error(Code::Forbidden, &format!("spec.tenants[{i}].tier"), &tier.mark, message, help);
            }
        }
        // On nodes and on Fargate, by the pool's name.
        let mut living: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for tenant in tenants {
            let Some(pool) = tenant.node.get("pool").and_then(Node::text) else { continue };
            let (on_nodes, on_fargate) = living.entry(pool).or_default();
            *on_nodes += usize::from(tenant.said.isolation == Some(IsolationModel::Pool));
            *on_fargate += usize::from(tenant.said.isolation == Some(IsolationModel::Fargate));
        }
        for (i, pool) in pools.iter().enumerate() {
            let Some((node, name)) = pool.node.get("name").and_then(Node::with_text) else { continue };
            let (on_nodes, on_fargate) = living.get(name).copied().unwrap_or_default();
            let counts = [
                ("managed node groups", on_nodes + 1, NODE_GROUPS),
                ("Fargate profiles", on_fargate, FARGATE_PROFILES),
            ];
            for (what, count, quota) in counts.into_iter().filter(|(_, count, quota)| count > quota) {
                self.over_quota(
                    &format!("spec.pools[{i}]"),
                    &node.mark,
                    &format!("{what} in one cluster"),
                    count,
                    quota,
                );
            }
        }
        let silos = tenants.iter().filter(|t| t.said.isolation == Some(IsolationModel::Silo)).count();
        if let Some(region) = self.at("spec.region").filter(|_| pools.len() + silos > CLUSTERS) {
            self.over_quota("spec", &region.mark, "EKS clusters in one region", pools.len() + silos, CLUSTERS);
        }
    }

    fn over_quota(&mut self, path: &str, mark: &Mark, what: &str, count: usize, quota: usize) {
        let message = format!("this takes {count} {what}, and the default quota is {quota}");
        let help = format!("have the quota `{what}` raised in Service Quotas before you apply");
        self.findings.warn(SpecError::new(Code::Quota, path, mark, message).help(help));
    }

    /// What each silo's and pool's cluster and VPC need.
    fn clusters(&mut self, pools: &mut [Member<'a>], tenants: &mut [Member<'a>]) {
        let is_silo = |t: &&mut Member| t.said.isolation == Some(IsolationModel::Silo);
        let mut clusters: Vec<&mut Member> = pools.iter_mut().chain(tenants.iter_mut().filter(is_silo)).collect();
        if let Some(node) = self.at("spec.network") {
            network::check(node, clusters.len(), self.findings);
        }
        for cluster in &clusters {
            self.way_out(cluster);
            self.replaced_endpoints(cluster);
            self.support(cluster);
        }
        self.open_endpoints(&mut clusters);
    }

    fn effective<'n>(&'n self, cluster: &'n Member<'a>, at: &[&str]) -> Option<(&'n Node, String)> {
        cluster.said.effective(at, tenancy(self.root, at))
    }

    /// Without NAT gateways, nodes reach AWS by endpoints only.
    fn way_out(&mut self, cluster: &Member<'a>) {
        let nat = self.effective(cluster, &["network", "natGateways"]);
        let Some((nat, path)) = nat.filter(|(n, _)| n.text() == Some("none")) else { return };
        let endpoints = self.effective(cluster, &ENDPOINTS);
        let has: Vec<&str> = endpoints.iter().flat_map(|(n, _)| n.items()).filter_map(Node::text).collect();
        let missing: Vec<&str> = network::WITHOUT_NAT.iter().copied().filter(|e| !has.contains(e)).collect();
        if missing.is_empty() {
            return;
        }
        let message = format!("without NAT gateways, nodes can't reach {}", list(missing.iter().copied()));
        let help = format!("add {} to `endpoints`, or have NAT gateways", list(missing.iter().copied()));
        let place = cluster.said.place_of(nat, path);
        self.findings.error(place.error(Code::Network, message).help(help));
    }

    /// A profile's endpoints stand instead of the tenancy's, not beside them.
    fn replaced_endpoints(&mut self, cluster: &Member<'a>) {
        let said = tenancy(self.root, &ENDPOINTS);
        let (Some(said), Some((node, path))) = (said, self.effective(cluster, &ENDPOINTS)) else { return };
        let place = cluster.said.place_of(node, path);
        let all = |node: &Node| -> BTreeSet<String> {
            node.items().iter().filter_map(Node::text).map(str::to_owned).collect()
        };
        let (ours, theirs) = (all(said), all(node));
        if place.related.is_none() || ours == theirs {
            return;
        }
        let named = |all: &BTreeSet<String>| list(all.iter().map(String::as_str));
        let message = format!(
            "{} gets the endpoints of its profile, {}, instead of those of `spec.network`, {}",
            cluster.what,
            named(&theirs),
            named(&ours)
        );
        let help = "give it `network.endpoints` of its own, or the same in both places";
        self.findings.warn(place.error(Code::Network, message).help(help));
    }

    /// Versions whose standard support ends, where the cluster doesn't pay for more.
    fn support(&mut self, cluster: &Member<'a>) {
        let settings = cluster.said.settings.as_ref();
        if settings.and_then(|s| s.at(&["cluster", "upgradePolicy"])).and_then(Node::text) != Some("standard") {
            return;
        }
        let Some((node, path)) = self.effective(cluster, &["kubernetesVersion"]) else { return };
        let Some(version) = node.text().and_then(KubernetesVersion::parse) else { return };
        let Some(end) = release(version).and_then(|r| r.standard_until) else { return };
        if end > self.today.saturating_add(SOON_DAYS.days()) {
            return;
        }
        let verb = if end < self.today { "ended" } else { "ends" };
        let message = format!(
            "standard support of Kubernetes {version} {verb} on {end}: EKS then upgrades the cluster by itself"
        );
        let place = cluster.said.place_of(node, path);
        let help = "choose a later version, or a profile with `cluster.upgradePolicy: extended`";
        self.findings.warn(place.error(Code::UnsupportedVersion, message).help(help));
    }

    /// API servers that everyone can reach (API-1).
    fn open_endpoints(&mut self, clusters: &mut [&mut Member<'a>]) {
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
            let message = format!("{cidr} opens API servers to everyone ({control}, {})", control.title());
            let help = format!("name the sources; or give a waiver for {control} to {}", unexcused.join(", "));
            self.error(Code::WeakenedControl, &format!("spec.access.allowedCidrs[{i}]"), &node.mark, message, help);
        }
    }
}

/// Where something about a member's profile is to be shown.
struct Place {
    mark: Mark,
    path: String,
    /// The line of the profile, where that is what says it.
    related: Option<Mark>,
}

impl Place {
    fn error(&self, code: Code, message: String) -> SpecError {
        let error = SpecError::new(code, self.path.clone(), &self.mark, message);
        match &self.related {
            Some(related) => error.related(related, "the profile says so here"),
            None => error,
        }
    }
}

impl Said {
    /// An error without its words, at the place of the setting or of the nearest above it that is known. `endpoints` are the
    /// tenancy's.
    pub fn error(&self, setting: &[&str], endpoints: Option<&Node>) -> SpecError {
        let mut places: BTreeMap<Vec<String>, Place> = BTreeMap::new();
        self.places(endpoints, &mut |setting, place| drop(places.insert(setting, place)));
        let steps = |n: usize| setting.iter().take(n).map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let known = (1..=setting.len()).rev().find_map(|n| places.remove(&steps(n)));
        known.unwrap_or_else(|| self.whole()).error(Code::NotOffered, String::new())
    }

    fn whole(&self) -> Place {
        Place { mark: self.anchor.clone(), path: self.anchor_path.clone(), related: None }
    }

    /// Tells each setting that only AWS can judge, by its path in the profile with a list's value as the last step, and
    /// its place.
    fn places(&self, endpoints: Option<&Node>, tell: &mut impl FnMut(Vec<String>, Place)) {
        let path = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let Some((settings, isolation)) = self.settings.as_ref().zip(self.isolation) else { return };
        for section in ["nodes", "systemNodes"].into_iter().filter(|section| profile::uses(isolation, section)) {
            let types = settings.at(&[section, "instanceTypes"]).map(Node::items).unwrap_or_default();
            for (i, name) in types.iter().enumerate().filter_map(|(i, node)| Some((i, node.text()?))) {
                let at = path(&[section, "instanceTypes", &i.to_string()]);
                tell(path(&[section, "instanceTypes", name]), self.place(&[at]));
            }
        }
        for addon in settings.get("addons").map(Node::entries).unwrap_or_default() {
            let at = path(&["addons", &addon.key, "version"]);
            tell(at.clone(), self.place(&[at]));
        }
        if let Some((endpoints, at)) = self.effective(&ENDPOINTS, endpoints) {
            for (i, node) in endpoints.items().iter().enumerate() {
                let Some(service) = node.text() else { continue };
                tell(path(&["network", "endpoints", service]), self.place_of(node, format!("{at}[{i}]")));
            }
        }
    }

    /// The first of the settings that the spec itself gives, or else the tier that gives them.
    fn place(&self, at: &[Vec<String>]) -> Place {
        let path = |steps: &[String]| {
            steps.iter().fold(format!("{}.overrides", self.path), |path, step| match step.parse::<usize>() {
                Ok(index) => format!("{path}[{index}]"),
                Err(_) => join(&path, step),
            })
        };
        for steps in at {
            if let Some(node) = self.overrides.as_ref().and_then(|o| o.at(steps)) {
                return Place { mark: node.mark.clone(), path: path(steps), related: None };
            }
        }
        let node = at.first().zip(self.settings.as_ref()).map(|(steps, settings)| settings.nearest(steps));
        match node {
            Some(node) if node.mark.is_in(self.node.mark.source()) => {
                Place { mark: node.mark.clone(), path: path(at.first().map_or(&[], Vec::as_slice)), related: None }
            }
            node => Place {
                mark: self.anchor.clone(),
                path: self.anchor_path.clone(),
                related: node.map(|n| n.mark.clone()),
            },
        }
    }

    /// What holds for a cluster, and its path: the pool's own word, its profile's (with a silo's
    /// overrides), or the tenancy's.
    fn effective<'n>(&'n self, at: &[&str], tenancy: Option<&'n Node>) -> Option<(&'n Node, String)> {
        let path = at.join(".");
        let in_profile: Vec<&str> =
            if at.len() == 1 { ["cluster"].iter().chain(at).copied().collect() } else { at.to_vec() };
        let own = self.node.at(at).map(|n| (n, format!("{}.{path}", self.path)));
        let profile = || {
            let node = self.settings.as_ref()?.at(&in_profile)?;
            Some((node, format!("{}.overrides.{}", self.path, in_profile.join("."))))
        };
        own.or_else(profile).or_else(|| Some((tenancy?, format!("spec.{path}"))))
    }

    /// The place of a value that may be in the spec or in the member's profile.
    fn place_of(&self, node: &Node, path: String) -> Place {
        if node.mark.is_in(self.node.mark.source()) {
            return Place { mark: node.mark.clone(), path, related: None };
        }
        Place { mark: self.anchor.clone(), path: self.anchor_path.clone(), related: Some(node.mark.clone()) }
    }
}

fn release(version: KubernetesVersion) -> Option<&'static Release> {
    KUBERNETES.iter().find(|r| version.major == 1 && r.minor == version.minor)
}

/// 1–32 of `a-z0-9`: fits labels, tags and names, and no id is part of another's namespace.
fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// RFC 1123, without the length, which the schema bounds.
/// Words of small letters and digits, with one of `._-/` between two.
fn is_repository(text: &str) -> bool {
    let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= 200 && text.split(['.', '_', '-', '/']).all(word)
}

fn is_dns_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// `pl-` or `sg-` and hexadecimal digits.
fn is_ec2_id(text: &str) -> bool {
    let digits = text.split_once('-').map_or("", |(_, digits)| digits);
    matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// AWS's own policies that are as good as the whole account.
fn is_unbounded(policy: &str) -> bool {
    matches!(policy, "AdministratorAccess" | "IAMFullAccess" | "PowerUserAccess")
}
