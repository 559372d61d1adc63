//! The resolved [`Spec`], which the rest of the crate reads.

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

/// A validated tenancy, returned by [`super::load`]. Profiles are merged, defaults are filled in, and lists whose order
/// has no meaning are sorted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The tenancy's name (`metadata.name`). Name, account and region identify the estate.
    pub name: String,
    pub region: String,
    /// Twelve digits. Runs against any other account are refused. `None` accepts any account.
    pub account_id: Option<String>,
    /// The version of clusters that set no version of their own.
    pub kubernetes_version: KubernetesVersion,
    pub network: Network,
    pub access: Access,
    /// `None` if the tenancy has no gateway.
    pub gateway: Option<Gateway>,
    pub iam: Iam,
    pub images: Images,
    /// Tags for every resource that can have tags, in addition to ringfence's own.
    pub tags: BTreeMap<String, String>,
    pub ignore_tags: IgnoreTags,
    /// Sorted by name.
    pub pools: Vec<Pool>,
    /// Sorted by id.
    pub tenants: Vec<Tenant>,
    /// Where the spec was read from. Not part of its meaning.
    #[serde(skip)]
    pub source: PathBuf,
    /// Warnings of the checks. Not part of the spec's meaning.
    #[serde(skip)]
    pub warnings: Vec<SpecError>,
    /// The places of settings in files. Not part of the spec's meaning.
    #[serde(skip)]
    pub places: Places,
}

/// The addresses of the whole tenancy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// The address block of the whole tenancy. Every VPC gets a block within it, which never changes.
    pub supernet: Ipv4Net,
    /// Prefix length of a VPC's block, 16–28.
    pub vpc_prefix: u8,
    /// Availability zones of each VPC, 2–6.
    pub zones: u8,
    /// The addresses of Kubernetes services inside of each cluster. Doesn't overlap `supernet`.
    pub service_cidr: Ipv4Net,
    pub ignore: IgnoreNetwork,
}

/// The network settings of one cluster's VPC. Each comes from its pool, its profile or the spec's `network`, in this
/// order.
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

/// True if AWS offers this service as a gateway endpoint: a route without an interface and without a price.
pub fn is_gateway_endpoint(service: &str) -> bool {
    matches!(service, "s3" | "dynamodb")
}

/// Access to the clusters' API servers: people, roles and networks.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    pub endpoint: EndpointAccess,
    /// Networks that may reach the public endpoint. Empty if clusters have a private endpoint only.
    pub allowed_cidrs: Vec<Ipv4Net>,
    /// Networks that may reach the private endpoint, in addition to the VPC's own private subnets: address blocks, ids
    /// of prefix lists and of security groups. Sorted.
    pub private_sources: Vec<String>,
    /// Administrators. Sorted by ARN.
    pub admins: Vec<Principal>,
    /// The roles with which ringfence runs. Sorted by ARN.
    pub operators: Vec<Principal>,
}

/// The gateway, through which tenants reach the clusters' API servers (API-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// An https URL without a slash at the end.
    pub url: String,
    /// The ARN of the IAM role of a gateway that runs outside of the clusters, with its path. `None` if no gateway runs
    /// there.
    pub role: Option<String>,
}

/// A gateway that runs inside of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPods {
    /// `REPOSITORY@sha256:DIGEST`.
    pub image: String,
    /// 2–20.
    pub replicas: u32,
    /// Whether the gateway has an internal Network Load Balancer.
    pub load_balancer: bool,
    /// The name of the ConfigMap with its configuration.
    pub config_map: String,
    /// The name of the Secret with its certificate.
    pub certificate_secret: String,
}

/// An image without its digest and tag.
pub fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    // The colon of a port comes before a slash.
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// Settings of all IAM roles that ringfence creates.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Iam {
    /// Begins and ends with `/`.
    pub path: String,
    /// The ARN of the managed policy that bounds every role. `None` if roles have no boundary.
    pub permissions_boundary: Option<String>,
}

/// Prefixes of repositories in the account's own ECR, without a slash at the end.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// The repositories of a tenant are below this prefix, in `<id>/`.
    pub tenants: String,
    /// All tenants may pull the repositories below this prefix.
    pub shared: String,
    /// ringfence's own image, `REPOSITORY@sha256:DIGEST`. `None` if no cluster needs it.
    pub ringfence: Option<String>,
}

impl Images {
    /// The prefix of one tenant's repositories.
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
    /// `None` if no gateway runs inside of this cluster.
    pub gateway: Option<GatewayPods>,
    pub profile_name: String,
    /// Members that override nothing share one profile in memory.
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
    /// For pool and Fargate tenants, the sections of a cluster (`systemNodes`, `cluster`, `network`, `addons`,
    /// `networkPolicy`, `networkPolicyMode`, `policyEngine`) have no meaning here: use [`Spec::cluster_of`]. Tenants
    /// that override nothing share one profile in memory.
    #[serde(serialize_with = "shared")]
    pub profile: Arc<Profile>,
    /// The tenant's own cluster: its version and its network. `None` for tenants that aren't silos.
    pub silo: Option<Silo>,
    /// The identities that the gateway lets into the tenant's namespace. Sorted. No identity is at two tenants.
    pub access: Vec<TenantAccess>,
    /// Sorted by name.
    pub service_accounts: Vec<ServiceAccount>,
    pub waivers: Vec<Waiver>,
    pub uid_range: UidRange,
}

impl Tenant {
    /// The tenant's namespace, `t-<id>`. No namespace is a suffix of another, because ids hold no dash. This matters
    /// because the VPC CNI joins a pod's name and namespace without a separator in the keys of its network policies'
    /// state.
    pub fn namespace(&self) -> String {
        format!("t-{}", self.id)
    }

    /// The Kubernetes group of the tenant's people, `tenant:<id>`. The gateway also uses it as the user's name.
    pub fn group(&self) -> String {
        format!("tenant:{}", self.id)
    }

    /// The pool in which the tenant runs. `None` for a silo.
    pub fn pool(&self) -> Option<&str> {
        match &self.isolation {
            Isolation::Silo => None,
            Isolation::Pool { pool } | Isolation::Fargate { pool } => Some(pool),
        }
    }
}

/// An identity of a tenant's people or programs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TenantAccess {
    /// All identities with this claim in a token of the issuer. The claim is a text, or a list of texts that holds the
    /// value. All three are compared exactly.
    Claim { issuer: String, claim: String, value: String },
    /// An IAM role, with all of its sessions, or an IAM user. The ARN has the path. Compare it with
    /// [`crate::arn::principal_key`]: the ARN of a session has no path.
    Role { arn: String },
    /// A URI among the subject alternative names of a client certificate, compared exactly.
    Certificate { uri: String },
}

fn shared<S: serde::Serializer>(profile: &Arc<Profile>, serializer: S) -> Result<S::Ok, S::Error> {
    profile.as_ref().serialize(serializer)
}

/// The settings of a silo's cluster that a pool has, too.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Silo {
    pub kubernetes_version: KubernetesVersion,
    pub network: ClusterNetwork,
}

/// How a tenant is isolated from the others.
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
    /// `None` if no gateway runs inside of the cluster. A silo has none.
    pub gateway: Option<&'a GatewayPods>,
    pub profile: &'a Profile,
    pub waivers: &'a [Waiver],
}

/// The owner of a cluster, and of the names derived from it. Tenant ids and pool names share one namespace.
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

    /// The tenants of this pool, by id.
    pub fn tenants_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Tenant> {
        self.tenants.iter().filter(move |t| t.pool() == Some(pool))
    }

    /// Every cluster of the tenancy: pools by name, then silos by id.
    pub fn clusters(&self) -> impl Iterator<Item = ClusterOf<'_>> {
        let pools = self.pools.iter().map(Pool::cluster);
        pools.chain(self.tenants.iter().filter_map(Tenant::silo_cluster))
    }

    /// The cluster in which a tenant's pods run. `None` if the pool isn't in the spec, but [`super::load`] refuses such
    /// a spec.
    pub fn cluster_of<'a>(&'a self, tenant: &'a Tenant) -> Option<ClusterOf<'a>> {
        match tenant.pool() {
            Some(pool) => self.pool(pool).map(Pool::cluster),
            None => tenant.silo_cluster(),
        }
    }

    /// The error that AWS doesn't offer a setting of a tenant or a pool. Its place is that of the setting. If the
    /// setting's place isn't known, it is the place where the tier is named.
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
            gateway: self.gateway.as_ref(),
            profile: &self.profile,
            waivers: &self.waivers,
        }
    }
}

impl Tenant {
    /// The tenant's own cluster. `None` if the tenant isn't a silo.
    pub fn silo_cluster(&self) -> Option<ClusterOf<'_>> {
        self.silo.as_ref().map(|silo| ClusterOf {
            owner: Owner::Tenant(&self.id),
            kubernetes_version: silo.kubernetes_version,
            network: &silo.network,
            gateway: None,
            profile: &self.profile,
            waivers: &self.waivers,
        })
    }
}
