//! The Kubernetes versions and image releases of nodes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::builder::Builder;
use super::facts::Facts;
use super::site::Site;
use crate::engine::address::Address;
use crate::engine::desired::{Desired, Refusal};
use crate::engine::value::references;
use crate::kinds::aws::node_group;
use crate::spec::{AmiFamily, Architecture, Isolation, KubernetesVersion, Nodes, Owner, Spec};
use crate::version::{compare_releases, is_safe_release};

impl Builder<'_> {
    /// The image's release. First the pinned one; else the running one, if it is for the cluster's version and isn't
    /// below the floor; else the newest. `None` if AWS lists none: then EKS uses its newest. A pin that is older than
    /// the running release is refused: EKS can't roll a group back (EKS API, UpdateNodegroupVersion).
    pub(super) fn release(&mut self, site: &Site<'_>, group: &Address, nodes: &Nodes) -> Option<String> {
        let ami_type = ami_type(nodes);
        let version = site.version.to_string();
        let facts = self.facts;
        let newest = facts.releases.get(&(ami_type.to_owned(), version.clone()));
        let running = facts.images.get(group).filter(|i| i.ami_type == ami_type && i.version == version);
        let running = running.map(|i| &i.release);
        // A group that somebody rolled back keeps its image, too.
        if let Some(image) = facts.images.get(group).filter(|_| self.went_back(site, group).is_some()) {
            return Some(image.release.clone());
        }
        // A pin below the floor needs a waiver. The checks of the spec made
        // sure of that.
        if let Some(pin) = nodes.release_version.as_ref().filter(|_| ami_type != "CUSTOM") {
            let Some(running) = running.filter(|running| compare_releases(pin, running) == Ordering::Less) else {
                return Some(pin.clone());
            };
            self.desired.refusals.push(Refusal {
                address: group.clone(),
                kind: node_group::NAME,
                path: "release_version",
                is: running.clone(),
                asked: pin.clone(),
                reason: format!(
                    "the nodes run image release {running}, and EKS can't roll a node group back to the older release {pin}"
                ),
                help: format!("set releaseVersion to {running} or later, or remove it"),
                pending: false,
            });
            return Some(running.clone());
        }
        let ahead = |r: &&String| newest.is_some_and(|newest| compare_releases(r, newest) == Ordering::Greater);
        let stays = |r: &&String| is_safe_release(ami_type, r) && (!facts.upgrade || ahead(r));
        running.filter(stays).or(newest).cloned()
    }

    /// The version of a node group: the control plane's, after its upgrade in
    /// this run. In a run that doesn't change the cluster, nodes must not get a
    /// newer version than the control plane. For a rollback, EKS requires that
    /// nodes go back before the control plane. So a group that somebody rolled
    /// back keeps its version.
    pub(super) fn node_version(&self, site: &Site<'_>, group: &Address) -> String {
        self.went_back(site, group).map_or_else(|| site.output("cluster", "version"), |version| version.to_string())
    }

    /// The version of a group that somebody rolled back before its control
    /// plane.
    fn went_back(&self, site: &Site<'_>, group: &Address) -> Option<KubernetesVersion> {
        let version = self.facts.node_groups.get(group)?.version;
        (version >= site.cluster.kubernetes_version && version < site.version)
            .then_some(version)
            .filter(|_| site.cluster.kubernetes_version < site.version)
    }
}

/// The images of the spec's nodes, now and after this run, by AMI type and
/// Kubernetes version. Their newest releases are read.
pub fn images(spec: &Spec, facts: &Facts) -> BTreeSet<(String, String)> {
    let mut wanted = BTreeSet::new();
    for cluster in spec.clusters() {
        let version = facts.next_version(spec, &cluster).to_string();
        let tenants = spec.tenants.iter().filter(|tenant| match (cluster.owner, &tenant.isolation) {
            (Owner::Tenant(id), Isolation::Silo) => tenant.id == id,
            (Owner::Pool(name), Isolation::Pool { pool }) => name == pool,
            _ => false,
        });
        let sets = std::iter::once(&cluster.profile.system_nodes).chain(tenants.map(|tenant| &tenant.profile.nodes));
        let sets = sets.filter(|nodes| nodes.ami_family != AmiFamily::Custom);
        wanted.extend(sets.map(|nodes| (ami_type(nodes).to_owned(), version.clone())));
    }
    wanted
}

/// Notes about images that stay older than the newest release.
pub fn old_images(desired: &Desired, facts: &Facts) -> Vec<String> {
    let mut old: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut unknown: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for resource in desired.iter().filter(|r| r.kind == node_group::NAME) {
        let field = |name: &str| resource.state.get(name).unwrap_or(&Value::Null);
        let text = |name: &str| field(name).as_str().unwrap_or_default().to_owned();
        // Nodes whose version is a reference have their cluster's version.
        let cluster = references(field("version")).into_iter().find_map(|(address, _)| desired.get(&address));
        let version = match cluster {
            Some(cluster) => cluster.state.get("version").and_then(Value::as_str).unwrap_or_default().to_owned(),
            None => text("version"),
        };
        let (image, release) = ((text("ami_type"), version), text("release_version"));
        let address = resource.address.to_string();
        match facts.releases.get(&image) {
            _ if image.0 == "CUSTOM" => {}
            Some(newest) if !release.is_empty() && compare_releases(&release, newest) == Ordering::Less => {
                old.entry((release, newest.clone())).or_default().push(address);
            }
            Some(_) => {}
            None => unknown.entry(image).or_default().push(address),
        }
    }
    let old = old.into_iter().map(|((release, newest), groups)| {
        format!(
            "{}: the nodes keep image release {release}, and the newest is {newest}; --upgrade installs it if the spec sets no `releaseVersion`",
            groups.join(", ")
        )
    });
    let unknown = unknown.into_iter().map(|((ami_type, version), groups)| {
        let absent = || format!("Systems Manager has no public parameter for {ami_type}, Kubernetes {version}");
        let why = facts.releases_unread.clone().unwrap_or_else(absent);
        format!("{}: it is unknown whether the image is the newest: {why}", groups.join(", "))
    });
    old.chain(unknown).collect()
}

pub(super) fn ami_type(nodes: &Nodes) -> &'static str {
    match (nodes.ami_family, nodes.architecture, nodes.fips) {
        (AmiFamily::Bottlerocket, Architecture::X86_64, false) => "BOTTLEROCKET_x86_64",
        (AmiFamily::Bottlerocket, Architecture::X86_64, true) => "BOTTLEROCKET_x86_64_FIPS",
        (AmiFamily::Bottlerocket, Architecture::Arm64, false) => "BOTTLEROCKET_ARM_64",
        (AmiFamily::Bottlerocket, Architecture::Arm64, true) => "BOTTLEROCKET_ARM_64_FIPS",
        (AmiFamily::Al2023, Architecture::X86_64, _) => "AL2023_x86_64_STANDARD",
        (AmiFamily::Al2023, Architecture::Arm64, _) => "AL2023_ARM_64_STANDARD",
        (AmiFamily::Custom, ..) => "CUSTOM",
    }
}
