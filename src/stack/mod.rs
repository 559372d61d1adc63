//! Turns a spec into desired resources. [`build`] is pure: the same spec and facts give the same [`Desired`], in any
//! order of tenants.
//!
//! [`blocks`] allocates CIDR blocks. [`network`] builds VPCs, with [`endpoints`] and [`logs`]; [`cluster`] keys and
//! control planes, with [`addons`]; [`security_groups`] and [`nodes`] node groups, with [`node_versions`]; [`tenant`] a
//! tenant's own resources; [`access`] roles and access entries; [`baseline`] the objects inside of clusters. [`site`] is
//! what all of them know of one cluster. [`moved`] translates addresses of older forms. Resources refer to each other by
//! references, which give the order of creation; `after` adds an order that no value shows.

mod access;
mod addons;
mod baseline;
mod blocks;
mod cluster;
mod endpoints;
mod logs;
mod moved;
mod network;
mod node_versions;
mod nodes;
pub mod permissions;
mod security_groups;
mod site;
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
use crate::engine::kind::Scope;
use crate::kinds::aws::policy;
use crate::spec::names::Names;
use crate::spec::{ClusterOf, Control, KubernetesVersion, Owner, Spec, Tenant};
use crate::template::Templates;

pub use crate::kinds::aws::node_group::Image;
pub use crate::kinds::aws::offers::EndpointService;
pub use crate::kinds::aws::versions::Zone;
pub use endpoints::services_to_ask;
pub use moved::{settle, settle_facts};
pub use node_versions::{images, old_images};
pub use site::{prefix, vpc};

use site::Site;

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
    /// Endpoint services by full name. Only those of [`services_to_ask`] are read.
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
    /// Where everything of `spec` is.
    fn scope(&self, spec: &Spec) -> Scope {
        Scope { account: self.account.clone(), region: spec.region.clone(), partition: self.partition.clone() }
    }

    /// The version that a cluster has after this run.
    pub fn next_version(&self, spec: &Spec, cluster: &ClusterOf<'_>) -> KubernetesVersion {
        let (address, name) = (prefix(cluster.owner).join("cluster"), Names::new(spec).cluster(cluster.owner));
        let nodes = self.node_groups.values().filter(|g| g.cluster == name).map(|g| g.version).min();
        let running = self.kubernetes.get(&address).copied();
        let next = || cluster::next_version(running, nodes, cluster.kubernetes_version);
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
                let version = format!("{}-eksbuild.1", addons::floor(name));
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

/// All resources that `spec` asks for.
pub fn build(spec: &Spec, facts: &Facts, templates: &Templates) -> Result<Desired> {
    build_and(spec, facts, templates, |_| {})
}

/// Builds the same resources as [`build`], cluster by cluster, and drops them. Fails where [`build`] fails.
pub fn check(spec: &Spec, facts: &Facts, templates: &Templates) -> Result<()> {
    build_and(spec, facts, templates, |desired| *desired = Desired::default()).map(drop)
}

/// Calls `then` after each cluster, with the resources that were built so far.
fn build_and(spec: &Spec, facts: &Facts, templates: &Templates, then: impl Fn(&mut Desired)) -> Result<Desired> {
    let mut tenants: BTreeMap<Owner<'_>, Vec<&Tenant>> = BTreeMap::new();
    for tenant in &spec.tenants {
        let owner = tenant.pool().map_or(Owner::Tenant(&tenant.id), Owner::Pool);
        tenants.entry(owner).or_default().push(tenant);
    }
    let mut stack = Stack {
        spec,
        facts,
        templates,
        names: Names::new(spec),
        tenants,
        desired: Desired::new(facts.scope(spec)),
        sources: BTreeMap::new(),
    };
    let blocks = blocks::blocks(spec, facts)?;
    stack.desired.refusals = blocks::refusals(spec, facts);
    stack.desired.notes.extend(blocks::overlaps(facts, &blocks));
    stack.desired.notes.extend(blocks::other_sizes(spec, facts));
    for cluster in spec.clusters() {
        let site = Site::new(&stack, cluster);
        let network = stack.network(&site, &blocks)?;
        stack.sources.clear();
        let values = stack.cluster_values(&site, &network)?;
        stack.cluster(&site, &network, &values)?;
        let before = stack.before_tenants(&site);
        for tenant in stack.tenants_of(&site) {
            stack.tenant(&site, &network, &values, &before, tenant)?;
        }
        then(&mut stack.desired);
    }
    Ok(stack.desired)
}

/// The desired resources so far, and the inputs from which they are built.
struct Stack<'a> {
    spec: &'a Spec,
    facts: &'a Facts,
    templates: &'a Templates,
    names: Names<'a>,
    /// The tenants of each cluster, sorted by id.
    tenants: BTreeMap<Owner<'a>, Vec<&'a Tenant>>,
    desired: Desired,
    /// The template of each object of the present cluster, to report two templates that make the same object.
    sources: BTreeMap<baseline::Identity, String>,
}

/// The order and the controls of a resource.
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

    /// The spec's tags, `Name`, and the ownership tags.
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

    /// A policy document from a template, in canonical form, for the comparison with AWS's answer.
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

    /// The suffix of the partition's host names (botocore, `partitions.json`).
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
