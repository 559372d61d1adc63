//! The resolved [`Spec`] that the rest of the crate reads, with tiers merged, defaults filled in and tenants sorted by
//! id.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde::Serialize;

use super::arn::Principal;
use super::document::{EndpointAccess, IgnoreNetwork, IgnoreTags, ServiceAccount, Waiver};
use super::error::SpecError;
use super::places::Places;
use super::region::partition_of;
use super::settings::{NatGateways, Profile};
use super::tree::whole_file;
use super::uid::UidRange;
use crate::version::KubernetesVersion;

/// A validated tenancy. What [`super::load`] returns, and all that the rest of the crate
/// reads: profiles are merged, defaults are filled in, lists that are sets are sorted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The tenancy's name (`metadata.name`): with account and region, the estate's identity.
    pub name: String,
    pub region: String,
    /// Twelve digits. Where given, runs against any other account are refused.
    pub account_id: Option<String>,
    /// What clusters run that name no version of their own.
    pub kubernetes_version: KubernetesVersion,
    pub network: Network,
    pub access: Access,
    pub iam: Iam,
    pub images: Images,
    /// Put on every resource that can be tagged, beside ringfence's own.
    pub tags: BTreeMap<String, String>,
    pub ignore_tags: IgnoreTags,
    /// Sorted by name.
    pub pools: Vec<Pool>,
    /// Sorted by id.
    pub tenants: Vec<Tenant>,
    /// Where the spec was read from. Not part of its meaning.
    #[serde(skip)]
    pub source: PathBuf,
    /// What is allowed but worth knowing. Not part of the spec's meaning.
    #[serde(skip)]
    pub warnings: Vec<SpecError>,
    /// Where it says what. Not part of its meaning.
    #[serde(skip)]
    pub places: Places,
}

/// The addresses of the whole tenancy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Every VPC gets a block of it and keeps it.
    pub supernet: Ipv4Net,
    /// Prefix length of a VPC's block, 16–28.
    pub vpc_prefix: u8,
    /// Availability zones of each VPC, 2–6.
    pub zones: u8,
    /// The service addresses inside of each cluster; overlaps nothing.
    pub service_cidr: Ipv4Net,
    pub ignore: IgnoreNetwork,
}

/// The network settings of one cluster's VPC: the spec's, unless its pool or profile says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetwork {
    pub nat_gateways: NatGateways,
    /// Short service names (`ecr.api`), sorted. See [`is_gateway_endpoint`].
    pub endpoints: Vec<String>,
    pub flow_logs: bool,
    /// One of CloudWatch Logs' retention periods, in days.
    pub flow_log_retention_days: u32,
}

/// Whether AWS offers this service as a gateway endpoint (a route, no interface, no price).
pub fn is_gateway_endpoint(service: &str) -> bool {
    matches!(service, "s3" | "dynamodb")
}

/// Who may reach the clusters' API servers, and from where.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    pub endpoint: EndpointAccess,
    /// Sources for the public endpoint; empty where it is private.
    pub allowed_cidrs: Vec<Ipv4Net>,
    /// Sources for the private endpoint beside the VPC's own private subnets:
    /// blocks, prefix lists' and security groups' ids. Sorted.
    pub private_sources: Vec<String>,
    /// People. Sorted by ARN.
    pub admins: Vec<Principal>,
    /// The roles that ringfence runs as. Sorted by ARN.
    pub operators: Vec<Principal>,
}

/// What all IAM roles that ringfence makes share.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Iam {
    /// Begins and ends with `/`.
    pub path: String,
    /// The ARN of a managed policy.
    pub permissions_boundary: Option<String>,
}

/// Repositories of the account's own ECR, by what their names begin with, without a slash at the end.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Each tenant's are below, in `<id>/`.
    pub tenants: String,
    /// All tenants pull what is below.
    pub shared: String,
}

impl Images {
    /// What the names of one tenant's repositories begin with.
    pub fn of(&self, tenant: &str) -> String {
        format!("{}/{tenant}", self.tenants)
    }
}

/// A shared cluster and its VPC.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    pub name: String,
    pub kubernetes_version: KubernetesVersion,
    pub network: ClusterNetwork,
    pub profile_name: String,
    /// Shared by all that override nothing of it.
    #[serde(serialize_with = "shared")]
    pub profile: Arc<Profile>,
    pub waivers: Vec<Waiver>,
}

/// One tenant, with its tier's profile merged with its overrides.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    pub id: String,
    pub name: String,
    pub tier: String,
    pub isolation: Isolation,
    /// In the sections that belong to a cluster (`systemNodes`, `cluster`, `network`, `addons`,
    /// `networkPolicy`, `networkPolicyMode`, `policyEngine`) a pool's or Fargate tenant's profile
    /// says nothing: ask [`Spec::cluster_of`]. Shared by all that override nothing of it.
    #[serde(serialize_with = "shared")]
    pub profile: Arc<Profile>,
    /// Silo only: what the tenant's own cluster runs and is connected to.
    pub silo: Option<Silo>,
    /// Sorted by name.
    pub service_accounts: Vec<ServiceAccount>,
    pub waivers: Vec<Waiver>,
    pub uid_range: UidRange,
}

impl Tenant {
    /// The tenant's namespace, `t-<id>`. Ids hold no dash, so none is a suffix of another
    /// (facts: VPC CNI network policy keys its state on name and namespace without a separator).
    pub fn namespace(&self) -> String {
        format!("t-{}", self.id)
    }

    /// The pool cluster that the tenant lives in, if it shares one.
    pub fn pool(&self) -> Option<&str> {
        match &self.isolation {
            Isolation::Silo => None,
            Isolation::Pool { pool } | Isolation::Fargate { pool } => Some(pool),
        }
    }
}

fn shared<S: serde::Serializer>(profile: &Arc<Profile>, serializer: S) -> Result<S::Ok, S::Error> {
    profile.as_ref().serialize(serializer)
}

/// What a silo's cluster has in common with a pool's.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Silo {
    pub kubernetes_version: KubernetesVersion,
    pub network: ClusterNetwork,
}

/// How a tenant is kept apart from the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// A cluster and a VPC of its own (SILO-1).
    Silo,
    /// Dedicated, tainted nodes in a shared cluster (NODE-1).
    Pool { pool: String },
    /// A VM for each pod in a shared cluster (NODE-3).
    Fargate { pool: String },
}

/// A cluster of the tenancy: a silo's or a pool's.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOf<'a> {
    pub owner: Owner<'a>,
    pub kubernetes_version: KubernetesVersion,
    pub network: &'a ClusterNetwork,
    pub profile: &'a Profile,
    pub waivers: &'a [Waiver],
}

/// Whom a cluster, and the names derived from it, belong to. Tenant ids and pool names share
/// one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner<'a> {
    Tenant(&'a str),
    Pool(&'a str),
}

impl Spec {
    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|p| p.name == name)
    }

    /// The tenant of this id.
    pub fn tenant(&self, id: &str) -> Option<&Tenant> {
        self.tenants.iter().find(|t| t.id == id)
    }

    /// The tenants that live in this pool, by id.
    pub fn tenants_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Tenant> {
        self.tenants.iter().filter(move |t| t.pool() == Some(pool))
    }

    /// Every cluster of the tenancy: pools by name, then silos by id.
    pub fn clusters(&self) -> impl Iterator<Item = ClusterOf<'_>> {
        let pools = self.pools.iter().map(Pool::cluster);
        pools.chain(self.tenants.iter().filter_map(Tenant::silo_cluster))
    }

    /// The cluster that a tenant's pods run in. `None` only for a pool that isn't in the spec,
    /// which [`super::load`] refuses.
    pub fn cluster_of<'a>(&'a self, tenant: &'a Tenant) -> Option<ClusterOf<'a>> {
        match tenant.pool() {
            Some(pool) => self.pool(pool).map(Pool::cluster),
            None => tenant.silo_cluster(),
        }
    }

    /// What AWS has against a setting of a tenant or a pool, at its place; at the tier's where that isn't known.
    pub fn objection(&self, owner: Owner<'_>, setting: &[&str], message: String, help: String) -> SpecError {
        let owner = match owner {
            Owner::Tenant(id) => format!("tenant/{id}"),
            Owner::Pool(name) => format!("pool/{name}"),
        };
        match self.places.of(&owner, setting) {
            Some(place) => SpecError { message, help: Some(help), ..place },
            None => whole_file(&self.source, message, &help),
        }
    }

    /// The AWS partition that the region belongs to (`aws`, `aws-cn`, `aws-us-gov`, …).
    pub fn partition(&self) -> &'static str {
        partition_of(&self.region)
    }
}

impl Pool {
    /// The pool as a cluster.
    pub fn cluster(&self) -> ClusterOf<'_> {
        ClusterOf {
            owner: Owner::Pool(&self.name),
            kubernetes_version: self.kubernetes_version,
            network: &self.network,
            profile: &self.profile,
            waivers: &self.waivers,
        }
    }
}

impl Tenant {
    /// The tenant's own cluster, if it is a silo.
    pub fn silo_cluster(&self) -> Option<ClusterOf<'_>> {
        self.silo.as_ref().map(|silo| ClusterOf {
            owner: Owner::Tenant(&self.id),
            kubernetes_version: silo.kubernetes_version,
            network: &silo.network,
            profile: &self.profile,
            waivers: &self.waivers,
        })
    }
}
