//! Turns a spec into desired resources. [`build`] is pure: the same spec and facts give the same [`Desired`], in any
//! order of tenants.
//!
//! This file alone composes: it calls each part for each cluster, in order. [`blocks`] allocates CIDR blocks.
//! [`network`] builds VPCs, [`endpoints`] their endpoints, [`logs`] log groups and flow logs; [`cluster`] keys and control
//! planes; [`access`] access entries; [`addons`] add-ons; [`nodes`] node groups, with [`node_versions`]; [`fargate`] Fargate
//! profiles; [`workloads`] the roles of service accounts; [`baseline`] the objects inside of clusters; [`webhook`] what switches
//! the admission webhook on, and [`engines`] the objects of other policy engines. Several parts use
//! [`roles`], [`registries`] and [`security_groups`]. All build on [`builder`], [`facts`], [`addresses`], and on [`site`],
//! which is one cluster. [`moved`] translates addresses of older forms. Resources refer to each other by references, which
//! give the order of creation; `after` adds an order that no value shows.

mod access;
mod addons;
mod addresses;
mod baseline;
mod blocks;
mod builder;
mod cluster;
mod endpoints;
mod engines;
mod facts;
mod fargate;
mod logs;
mod moved;
mod network;
mod node_versions;
mod nodes;
pub mod permissions;
mod registries;
mod roles;
mod security_groups;
mod site;
mod webhook;
mod workloads;

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::engine::address::Address;
use crate::engine::desired::Desired;
use crate::engine::error::Result;
use crate::spec::{Isolation, Spec};
use crate::template::Templates;

pub use crate::kinds::aws::node_group::Image;
pub use crate::kinds::aws::offers::EndpointService;
pub use crate::kinds::aws::versions::Zone;
pub use access::GATEWAY_GROUP;
pub use addresses::{prefix, vpc};
pub use endpoints::services_to_ask;
pub use facts::{Endpoint, Facts, NodeGroup, Offer, Subnet};
pub use moved::{settle, settle_facts};
pub use node_versions::{images, old_images};

use addresses::home;
use builder::Builder;
use site::Site;

/// All resources that `spec` asks for.
pub fn build(spec: &Spec, facts: &Facts, templates: &Templates) -> Result<Desired> {
    build_and(spec, facts, templates, |_| {})
}

/// The mutating admission policies of a tenant's cluster and their bindings, as versions of Kubernetes that have such
/// policies get them. On other versions, only `guard` uses them. Empty if the spec has no such tenant.
pub fn mutating_policies(spec: &Spec, facts: &Facts, templates: &Templates, tenant: &str) -> Result<Vec<Value>> {
    let mut builder = Builder::new(spec, facts, templates);
    let blocks = blocks::blocks(spec, facts)?;
    for cluster in spec.clusters() {
        let site = Site::new(spec, facts, cluster);
        if builder.tenants_of(&site).iter().any(|one| one.id == tenant) {
            let network = builder.network(&site, &blocks)?;
            return builder.mutating_policies(&site, &network);
        }
    }
    Ok(Vec::new())
}

/// Builds the same resources as [`build`], cluster by cluster, and drops them. Fails where [`build`] fails.
pub fn check(spec: &Spec, facts: &Facts, templates: &Templates) -> Result<()> {
    build_and(spec, facts, templates, |desired| *desired = Desired::default()).map(drop)
}

/// Calls `then` after each cluster, with the resources that were built so far.
fn build_and(spec: &Spec, facts: &Facts, templates: &Templates, then: impl Fn(&mut Desired)) -> Result<Desired> {
    let mut builder = Builder::new(spec, facts, templates);
    let blocks = blocks::blocks(spec, facts)?;
    builder.desired.refusals = blocks::refusals(spec, facts);
    builder.desired.notes.extend(blocks::overlaps(facts, &blocks));
    builder.desired.notes.extend(blocks::other_sizes(spec, facts));
    for cluster in spec.clusters() {
        add(&mut builder, &Site::new(spec, facts, cluster), &blocks)?;
        then(&mut builder.desired);
    }
    Ok(builder.desired)
}

/// Adds one cluster, from its VPC to its tenants' objects.
fn add(builder: &mut Builder<'_>, site: &Site<'_>, blocks: &BTreeMap<Address, Ipv4Net>) -> Result<()> {
    let mut network = builder.network(site, blocks)?;
    let endpoints = builder.endpoints(site, &network)?;
    network.ways.extend(endpoints);
    builder.flow_logs(site)?;

    builder.sources.clear();
    let values = builder.cluster_values(site, &network)?;
    builder.cluster(site, &network)?;
    builder.access_entries(site)?;
    builder.oidc_provider(site)?;
    let policies = builder.cluster_objects(site, &values)?;
    builder.addons(site, &policies)?;
    builder.system_nodes(site, &network)?;
    builder.webhook(site, &network)?;

    let before = builder.before_tenants(site);
    for tenant in builder.tenants_of(site) {
        let home = home(tenant);
        match tenant.isolation {
            Isolation::Silo | Isolation::Pool { .. } => builder.tenant_nodes(site, &network, tenant, &home)?,
            Isolation::Fargate { .. } => builder.fargate(site, &network, tenant, &home)?,
        }
        builder.workload_roles(site, tenant, &home)?;
        builder.tenant_objects(site, &values, &before, tenant, &home)?;
    }
    builder.engine_objects(site, &network)
}

#[cfg(test)]
mod tests;
