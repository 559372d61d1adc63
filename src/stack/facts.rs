//! The facts that the stack needs of the account.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use jiff::civil::Date;

use super::addresses::prefix;
use crate::engine::address::Address;
use crate::engine::kind::Scope;
use crate::kinds::aws::node_group::Image;
use crate::kinds::aws::offers::EndpointService;
use crate::kinds::aws::versions::Zone;
use crate::spec::names::Names;
use crate::spec::{ClusterOf, KubernetesVersion, Spec};
use crate::version;

/// The facts that the stack needs of the account: earlier decisions that stay, and what AWS offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Twelve digits.
    pub account: String,
    /// `aws`, `aws-cn`, `aws-us-gov` …
    pub partition: String,
    /// The region's zones in which EKS can run.
    pub zones: Vec<Zone>,
    /// CIDR blocks of existing VPCs, by address. VPCs that left the spec are included, so that no new VPC gets their
    /// block.
    pub vpcs: BTreeMap<Address, Ipv4Net>,
    /// CIDR blocks of other VPCs of the account, by id. Read only if a VPC of ours must be created.
    pub other_vpcs: BTreeMap<String, Vec<Ipv4Net>>,
    /// Existing subnets, by address.
    pub subnets: BTreeMap<Address, Subnet>,
    /// Subnets without traffic to and from the internet gateway (VPC Block Public Access), with the ids of their VPCs.
    pub walled: BTreeMap<Address, String>,
    /// The zones in which clusters were created, by address. EKS puts a cluster's interfaces only into these zones
    /// (EKS, UpdateClusterConfig).
    pub cluster_zones: BTreeMap<Address, BTreeSet<String>>,
    /// The service CIDR blocks of clusters, by address. A cluster keeps its block.
    pub service_cidrs: BTreeMap<Address, Ipv4Net>,
    /// `--allow-replace`: for these addresses, facts that differ from the spec aren't kept.
    pub replacing: BTreeSet<Address>,
    /// Existing interface endpoints, by address.
    pub endpoints: BTreeMap<Address, Endpoint>,
    /// Endpoint services by full name. Only those of [`services_to_ask`](super::services_to_ask) are read.
    pub services: BTreeMap<String, EndpointService>,
    /// Versions of clusters, by address, such as `1.36`.
    pub kubernetes: BTreeMap<Address, KubernetesVersion>,
    /// Our node groups, by address.
    pub node_groups: BTreeMap<Address, NodeGroup>,
    /// The date until which EKS can roll clusters back to the version in the spec, by address.
    pub rollback: BTreeMap<Address, Date>,
    /// The versions of clusters after this run, if they were decided already.
    pub decided: BTreeMap<Address, KubernetesVersion>,
    /// Versions of installed add-ons, by address.
    pub addons: BTreeMap<Address, String>,
    /// Images of node groups, by address.
    pub images: BTreeMap<Address, Image>,
    /// The newest releases of images, by AMI type and Kubernetes version.
    pub releases: BTreeMap<(String, String), String>,
    /// Why the releases couldn't be read. `None`: they were read.
    pub releases_unread: Option<String>,
    /// Add-on versions that EKS offers, by Kubernetes version and add-on.
    pub offered: BTreeMap<KubernetesVersion, BTreeMap<String, Offer>>,
    /// `--upgrade`: install newer versions even if the running ones are supported.
    pub upgrade: bool,
    /// ARNs of roles, with their paths, for principals that the spec writes as sessions, by
    /// [`Principal::arn`](crate::spec::Principal::arn).
    pub roles: BTreeMap<String, String>,
}

/// The block and zone of a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub cidr: Ipv4Net,
    /// Zone name.
    pub zone: String,
}

/// An existing interface endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub zones: BTreeSet<String>,
    /// Whether its policy allows everything. Only that is possible for services without endpoint policies.
    pub open: bool,
}

/// An existing node group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeGroup {
    /// The name of its cluster.
    pub cluster: String,
    pub version: KubernetesVersion,
}

/// Versions of an add-on for one Kubernetes version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The version that EKS recommends.
    pub default: Option<String>,
    pub versions: Vec<String>,
}

impl Facts {
    /// The scope of all resources of `spec`.
    pub(super) fn scope(&self, spec: &Spec) -> Scope {
        Scope { account: self.account.clone(), region: spec.region.clone(), partition: self.partition.clone() }
    }

    /// The version that a cluster has after this run.
    pub fn next_version(&self, spec: &Spec, cluster: &ClusterOf<'_>) -> KubernetesVersion {
        let (address, name) = (prefix(cluster.owner).join("cluster"), Names::new(spec).cluster(cluster.owner));
        let nodes = self.node_groups.values().filter(|g| g.cluster == name).map(|g| g.version).min();
        let running = self.kubernetes.get(&address).copied();
        let next = || next_version(running, nodes, cluster.kubernetes_version);
        self.decided.get(&address).copied().unwrap_or_else(next)
    }

    /// Facts for offline output: the region's first zones, the oldest safe add-on versions, and the spec's account or
    /// zeros.
    pub fn assumed(spec: &Spec) -> Self {
        let zone = |c: char| Zone { name: format!("{}{c}", spec.region), id: String::new() };
        let mut offered: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for site in spec.clusters() {
            let offers = offered.entry(site.kubernetes_version).or_default();
            for (name, _) in site.profile.addons.iter() {
                let version = format!("{}-eksbuild.1", floor(name));
                offers.insert(name.to_owned(), Offer { default: Some(version.clone()), versions: vec![version] });
            }
        }
        let roles = spec.access.admins.iter().chain(&spec.access.operators);
        Self {
            account: spec.account_id.clone().unwrap_or_else(|| "0".repeat(12)),
            partition: spec.partition().to_owned(),
            zones: ('a'..='f').map(zone).collect(),
            offered,
            roles: roles.map(|p| (p.arn.clone(), p.arn.clone())).collect(),
            ..Self::default()
        }
    }
}

/// The version of a cluster after this run. It is never lowered. It is raised by one minor version at a time, and only
/// after all node groups have the cluster's present version (EKS, UpdateClusterVersion). `nodes` is the lowest version
/// of the node groups.
pub(super) fn next_version(
    running: Option<KubernetesVersion>,
    nodes: Option<KubernetesVersion>,
    wanted: KubernetesVersion,
) -> KubernetesVersion {
    match running {
        Some(running) if wanted > running && nodes.is_none_or(|nodes| nodes >= running) => {
            wanted.min(KubernetesVersion { minor: running.minor.saturating_add(1), ..running })
        }
        Some(running) => running,
        None => wanted,
    }
}

/// The oldest version of an add-on that is safe for tenants.
pub(super) fn floor(addon: &str) -> &'static str {
    version::floor(addon).unwrap_or("v0.0.0")
}
