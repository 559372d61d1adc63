//! From the spec to what should exist: [`build`] is pure, so the same spec and
//! facts give the same [`Desired`], whatever the order of tenants.
//!
//! [`network`] cuts addresses and builds VPCs, [`cluster`] keys, logs, control
//! planes and add-ons, [`nodes`] node groups, [`tenant`] what a tenant has for
//! itself, [`access`] roles and access entries, [`baseline`] the objects
//! inside of clusters, [`moved`] addresses of older forms. Resources name each other by references, so the order
//! of making them follows from what they need; `after` adds an order that no
//! value shows.

mod access;
mod baseline;
mod cluster;
mod moved;
mod network;
mod nodes;
pub mod permissions;
mod tenant;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use jiff::civil::Date;
use serde::Serialize;
use serde_json::{Value, json};

use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::desired::{Desired, Resource};
use crate::engine::error::{Result, untyped};
use crate::engine::value::reference;
use crate::kinds::aws::policy;
use crate::spec::names::Names;
use crate::spec::{ClusterOf, Control, KubernetesVersion, Owner, Spec};
use crate::template::Templates;

pub use crate::kinds::aws::node_group::Image;
pub use crate::kinds::aws::offers::EndpointService;
pub use crate::kinds::aws::versions::Zone;
pub use moved::{settle, settle_facts};
pub use network::services_to_ask;
pub use nodes::{images, old_images};

/// What the stack needs to know of the account: what was decided before and
/// stays, and what AWS offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Twelve digits.
    pub account: String,
    /// `aws`, `aws-cn`, `aws-us-gov` …
    pub partition: String,
    /// The region's zones that EKS can use.
    pub zones: Vec<Zone>,
    /// Blocks of the VPCs that exist, by address; those that are leaving too,
    /// so that no new VPC gets their block.
    pub vpcs: BTreeMap<Address, Ipv4Net>,
    /// Blocks of other VPCs of the account, by id, where one of ours is to be made.
    pub other_vpcs: BTreeMap<String, Vec<Ipv4Net>>,
    /// Subnets that exist, by address.
    pub subnets: BTreeMap<Address, Subnet>,
    /// Subnets between which and the internet gateway nothing passes, with the
    /// ids of their VPCs.
    pub walled: BTreeMap<Address, String>,
    /// The zones that clusters were made in, by address: EKS puts their
    /// interfaces in no others (EKS, UpdateClusterConfig).
    pub cluster_zones: BTreeMap<Address, BTreeSet<String>>,
    /// The blocks of clusters' services, by address: a cluster keeps its own.
    pub service_cidrs: BTreeMap<Address, Ipv4Net>,
    /// `--allow-replace`: what of this differs from the spec isn't kept.
    pub replacing: BTreeSet<Address>,
    /// Interface endpoints that exist, by address.
    pub endpoints: BTreeMap<Address, Endpoint>,
    /// Endpoint services by their whole names, of those that were asked for: [`services_to_ask`].
    pub services: BTreeMap<String, EndpointService>,
    /// Versions that clusters run, by address, such as `1.36`.
    pub kubernetes: BTreeMap<Address, KubernetesVersion>,
    /// Our node groups, by address.
    pub node_groups: BTreeMap<Address, NodeGroup>,
    /// Until when EKS can take clusters back to the version that the spec asks
    /// for, by address.
    pub rollback: BTreeMap<Address, Date>,
    /// The versions that clusters are to have after this run, where that was
    /// decided already.
    pub decided: BTreeMap<Address, KubernetesVersion>,
    /// Versions that add-ons run, by address.
    pub addons: BTreeMap<Address, String>,
    /// Images that node groups run, by address.
    pub images: BTreeMap<Address, Image>,
    /// The newest releases of images, by AMI type and Kubernetes version.
    pub releases: BTreeMap<(String, String), String>,
    /// Why they couldn't be read, if so.
    pub releases_unread: Option<String>,
    /// What EKS offers.
    pub offered: BTreeMap<KubernetesVersion, BTreeMap<String, Offer>>,
    /// `--upgrade`: take what EKS offers even where what runs is supported.
    pub upgrade: bool,
    /// The roles of principals that the spec writes as sessions, by
    /// [`Principal::arn`](crate::spec::Principal::arn), with their paths.
    pub roles: BTreeMap<String, String>,
}

/// Where a subnet lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub cidr: Ipv4Net,
    /// Zone name.
    pub zone: String,
}

/// An interface endpoint that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub zones: BTreeSet<String>,
    /// Whether its policy is one that a service without policies may have.
    pub open: bool,
}

/// A node group that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeGroup {
    /// The name of its cluster.
    pub cluster: String,
    pub version: KubernetesVersion,
}

/// Versions of an add-on for one Kubernetes version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// What EKS recommends.
    pub default: Option<String>,
    pub versions: Vec<String>,
}

impl Facts {
    /// The version that a cluster has after this run.
    pub fn next_version(&self, spec: &Spec, cluster: &ClusterOf<'_>) -> KubernetesVersion {
        let (address, name) = (prefix(cluster.owner).join("cluster"), Names::new(spec).cluster(cluster.owner));
        let nodes = self.node_groups.values().filter(|g| g.cluster == name).map(|g| g.version).min();
        let running = self.kubernetes.get(&address).copied();
        let next = || cluster::next_version(running, nodes, cluster.kubernetes_version);
        self.decided.get(&address).copied().unwrap_or_else(next)
    }

    /// Facts for output that is made without asking AWS: the region's first
    /// zones, the oldest add-ons that are safe, the spec's account or zeros.
    pub fn assumed(spec: &Spec) -> Self {
        let zone = |c: char| Zone { name: format!("{}{c}", spec.region), id: String::new() };
        let mut offered: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for site in spec.clusters() {
            let offers = offered.entry(site.kubernetes_version).or_default();
            for (name, _) in site.profile.addons.iter() {
                let version = format!("{}-eksbuild.1", cluster::floor(name));
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

/// Everything that `spec` asks for.
pub fn build(spec: &Spec, facts: &Facts, templates: &Templates) -> Result<Desired> {
    let mut stack = Stack {
        spec,
        facts,
        templates,
        names: Names::new(spec),
        desired: Desired::default(),
        sources: BTreeMap::new(),
    };
    let blocks = network::blocks(spec, facts)?;
    stack.desired.refusals = network::refusals(spec, facts);
    stack.desired.notes.extend(network::overlaps(facts, &blocks));
    stack.desired.notes.extend(network::other_sizes(spec, facts));
    for cluster in spec.clusters() {
        let site = Site::new(&stack, cluster);
        let network = stack.network(&site, &blocks)?;
        stack.cluster(&site, &network)?;
        for tenant in stack.tenants_of(&site) {
            stack.tenant(&site, &network, tenant)?;
        }
    }
    Ok(stack.desired)
}

/// The addresses of all VPCs, for filling [`Facts::vpcs`].
pub fn vpc(owner: Owner<'_>) -> Address {
    prefix(owner).join("vpc")
}

/// `tenant/<id>/silo` or `pool/<name>`.
pub fn prefix(owner: Owner<'_>) -> Address {
    match owner {
        Owner::Tenant(id) => Address::new(format!("tenant/{id}/silo")),
        Owner::Pool(name) => Address::new(format!("pool/{name}")),
    }
}

/// What is being built, with all that it is built from.
struct Stack<'a> {
    spec: &'a Spec,
    facts: &'a Facts,
    templates: &'a Templates,
    names: Names<'a>,
    desired: Desired,
    /// Where each object of a cluster comes from.
    sources: BTreeMap<baseline::Identity, String>,
}

/// One cluster with its VPC.
struct Site<'a> {
    cluster: ClusterOf<'a>,
    prefix: Address,
    /// The cluster's name.
    name: String,
    version: KubernetesVersion,
    /// As its nodes and pods must know it: the running cluster's.
    service_cidr: Ipv4Net,
}

impl<'a> Site<'a> {
    fn new(stack: &Stack<'a>, cluster: ClusterOf<'a>) -> Self {
        let address = prefix(cluster.owner).join("cluster");
        let services = stack.facts.service_cidrs.get(&address).filter(|_| !stack.facts.replacing.contains(&address));
        Self {
            service_cidr: services.copied().unwrap_or(stack.spec.network.service_cidr),
            name: stack.names.cluster(cluster.owner),
            version: stack.facts.next_version(stack.spec, &cluster),
            prefix: prefix(cluster.owner),
            cluster,
        }
    }

    fn at(&self, part: &str) -> Address {
        self.prefix.join(part)
    }

    /// A reference to an output of one of this cluster's resources.
    fn output(&self, part: &str, output: &str) -> String {
        reference(&self.at(part), output)
    }

    fn silo(&self) -> bool {
        matches!(self.cluster.owner, Owner::Tenant(_))
    }
}

/// What a resource has beside its state.
#[derive(Default)]
struct Terms {
    after: Vec<Address>,
    controls: Vec<&'static str>,
}

impl Terms {
    fn after(mut self, addresses: impl IntoIterator<Item = Address>) -> Self {
        self.after.extend(addresses);
        self
    }

    fn controls(mut self, controls: &[Control]) -> Self {
        self.controls.extend(controls.iter().map(|c| c.id()));
        self
    }
}

impl<'a> Stack<'a> {
    fn put(&mut self, address: Address, kind: &'static str, state: &impl Serialize, terms: Terms) -> Result<()> {
        let Terms { mut after, controls } = terms;
        after.sort();
        after.dedup();
        let state = untyped(state)?;
        self.desired.insert(Resource { address, kind, state, after, controls })
    }

    /// The spec's tags, `Name`, and whose the resource is.
    fn tags(&self, address: &Address, name: impl Into<String>) -> Tags {
        let mut tags = self.spec.tags.clone();
        tags.insert("Name".to_owned(), name.into());
        tags.extend(tags::ownership(&self.spec.name, &self.spec.region, address));
        tags
    }

    /// The ARN of a resource in this account and region.
    fn arn(&self, service: &str, resource: impl AsRef<str>) -> String {
        let Facts { account, partition, .. } = self.facts;
        format!("arn:{partition}:{service}:{}:{account}:{}", self.spec.region, resource.as_ref())
    }

    /// The ARN of one of AWS's own managed policies.
    fn managed_policy(&self, name: &str) -> String {
        format!("arn:{}:iam::aws:policy/{name}", self.facts.partition)
    }

    /// A policy document from a template, in the form in which AWS's answer is
    /// compared with it.
    fn document(&self, template: &str, subject: &Address, values: Value) -> Result<Value> {
        let mut context = json!({
            "account": self.facts.account,
            "partition": self.facts.partition,
            "region": self.spec.region,
            "dnsSuffix": self.dns_suffix(),
        });
        if let (Value::Object(context), Value::Object(values)) = (&mut context, values) {
            context.extend(values);
        }
        Ok(policy::canonical(&self.templates.json(template, &context, subject)?))
    }

    /// What the partition's host names end in (botocore, `partitions.json`).
    fn dns_suffix(&self) -> &'static str {
        match self.facts.partition.as_str() {
            "aws-cn" => "amazonaws.com.cn",
            "aws-eusc" => "amazonaws.eu",
            "aws-iso" => "c2s.ic.gov",
            "aws-iso-b" => "sc2s.sgov.gov",
            "aws-iso-e" => "cloud.adc-e.uk",
            "aws-iso-f" => "csp.hci.ic.gov",
            _ => "amazonaws.com",
        }
    }
}

#[cfg(test)]
mod tests;
