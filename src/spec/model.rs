//! The spec's types, in two layers: the document as written ([`Document`] and what it
//! holds, from which the JSON Schema is derived), and the resolved [`Spec`] that the rest
//! of the crate reads, with tiers merged, defaults filled in and tenants sorted by id.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::control::Control;
use super::error::SpecError;
use super::places::Places;
use crate::version::KubernetesVersion;

// ---------------------------------------------------------------------------------------
// The resolved spec
// ---------------------------------------------------------------------------------------

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

/// An IAM principal of `access.admins` or `access.operators`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// The role's or user's IAM ARN. For a session (`assumed-role`) it is the role's ARN as
    /// far as the session's tells it: without the role's path, which only IAM knows.
    pub arn: String,
    /// Written as an `assumed-role` ARN: look the role up by its name before use.
    pub session: bool,
}

impl Principal {
    /// The role's or user's name, without path.
    pub fn name(&self) -> &str {
        crate::arn::name_in(&self.arn)
    }
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

/// The user and group IDs that a tenant's pods run as (POD-3): `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UidRange {
    pub first: u32,
    pub last: u32,
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

    /// The AWS partition that the region belongs to (`aws`, `aws-cn`, `aws-us-gov`, …).
    pub fn partition(&self) -> &'static str {
        super::arn::partition_of(&self.region)
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

// ---------------------------------------------------------------------------------------
// Profiles
// ---------------------------------------------------------------------------------------

/// A tier: every setting that a tenant or a cluster gets, for all isolation models. Profiles
/// are data (`profiles/*.yaml`); what is read here is the result of `extends` and `overrides`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// How tenants of this tier are kept apart; `shared` is for pool clusters themselves.
    pub isolation: IsolationModel,
    /// The tenant's own nodes. Not used where the isolation is `fargate` or `shared`.
    pub nodes: Nodes,
    /// The cluster's untainted nodes for system pods (CoreDNS, metrics-server).
    pub system_nodes: Nodes,
    /// The instance metadata service, on all nodes (NET-2).
    pub imds: Imds,
    /// The EKS cluster itself.
    pub cluster: Cluster,
    /// What differs from the spec's own `network` for this cluster's VPC.
    pub network: ProfileNetwork,
    /// EKS add-ons: pinned versions and settings.
    pub addons: Addons,
    /// What enforces network policies (NET-1).
    pub network_policy: NetworkPolicyEngine,
    /// `strict` denies a new pod's traffic until its policies are in place (NET-1).
    pub network_policy_mode: NetworkPolicyMode,
    /// Quotas and limits of the tenant's namespace (QUOTA-1).
    pub namespace: Namespace,
    /// What the tenant's pods may ask for.
    pub pods: Pods,
    /// How the tenant's services may be reached from outside (NET-3).
    pub exposure: Exposure,
    /// What checks pods and services on admission (ADM-1, ADM-2).
    pub policy_engine: PolicyEngine,
    /// The tenant's PriorityClass (QUOTA-1).
    pub priority_class: PriorityClass,
}

/// How a profile keeps tenants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationModel {
    /// A cluster and a VPC for each tenant.
    Silo,
    /// Dedicated, tainted nodes in a shared cluster.
    Pool,
    /// A VM for each pod in a shared cluster.
    Fargate,
    /// A pool cluster itself, before any tenant.
    Shared,
}

/// A node group and what its launch template says.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Nodes {
    /// The operating system (HOST-1: anything but Bottlerocket needs a waiver).
    pub ami_family: AmiFamily,
    /// The image, for the family `custom` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^ami-[0-9a-f]{8}([0-9a-f]{9})?$"), extend("examples" = ["ami-0123456789abcdef0"]))]
    pub ami_id: Option<String>,
    /// The image's release, such as `1.66.0-2d3f4b6c` (Bottlerocket) or `1.36.3-20261110` (Amazon
    /// Linux 2023). None starts new groups on the newest, and leaves existing ones on what they run
    /// until `--upgrade`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+-[0-9a-f]{8}$"), extend("examples" = ["1.66.0-2d3f4b6c"]))]
    pub release_version: Option<String>,
    /// FIPS 140 validated images (Bottlerocket only).
    pub fips: bool,
    /// The processors' architecture; must be that of all instance types.
    pub architecture: Architecture,
    /// EC2 instance types, the preferred ones first.
    #[schemars(length(min = 1, max = 20), inner(regex(pattern = r"^[a-z0-9-]+\.[a-z0-9-]+$")), extend("examples" = [["m7g.large"]]))]
    pub instance_types: Vec<String>,
    /// On-demand or spot instances.
    pub capacity_type: CapacityType,
    /// The fewest nodes.
    #[schemars(range(max = 450))]
    pub min: u32,
    /// The most nodes: what a tenant can use at most (QUOTA-1).
    #[schemars(range(min = 1, max = 450))]
    pub max: u32,
    /// Nodes at creation. After that the size belongs to the autoscaler.
    #[schemars(range(max = 450))]
    pub desired: u32,
    /// How much of the group an update may replace at once, in percent: one node at least, 100
    /// nodes at most.
    #[schemars(range(min = 1, max = 100))]
    pub max_unavailable_percentage: u32,
    /// Whether EKS replaces nodes that stay unhealthy. None says so in commercial regions alone:
    /// EKS refuses the setting in China, and isn't known to take it elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_repair: Option<bool>,
    /// The operating system's volume, where it differs from the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_volume: Option<Volume>,
    /// Images, logs and ephemeral storage (Bottlerocket's second volume).
    pub data_volume: Volume,
    /// Processes that one pod may have (QUOTA-1); none means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 4194304))]
    pub pod_pids_limit: Option<u32>,
    /// Bottlerocket's kernel lockdown. `confidentiality` isn't offered: it stops BPF, and with
    /// it the VPC CNI's network policies.
    pub kernel_lockdown: KernelLockdown,
}

/// A node's operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AmiFamily {
    Bottlerocket,
    Al2023,
    /// An image of your own, which must enforce SELinux.
    Custom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Architecture {
    #[serde(rename = "x86_64")]
    X86_64,
    #[serde(rename = "arm64")]
    Arm64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    OnDemand,
    Spot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KernelLockdown {
    None,
    Integrity,
}

/// An EBS volume; always encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    #[serde(rename = "sizeGiB")]
    #[schemars(range(min = 1, max = 65536))]
    pub size_gib: u32,
    #[serde(rename = "type")]
    pub volume_type: VolumeType,
    /// Operations per second; none means the type's baseline of 3,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3000, max = 80000))]
    pub iops: Option<u32>,
    /// MiB per second; none means the type's baseline of 125.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 125, max = 2000))]
    pub throughput: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeType {
    Gp3,
}

/// The instance metadata service (NET-2).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Imds {
    /// `required` is IMDSv2 only.
    pub tokens: ImdsTokens,
    /// Network hops that an answer may take; 1 keeps it from pods.
    #[schemars(range(min = 1, max = 64))]
    pub hop_limit: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImdsTokens {
    Required,
    Optional,
}

/// The EKS cluster.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Where it differs from the spec's own. In quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^1\.[1-9][0-9]*$"), extend("examples" = ["1.36"]))]
    pub kubernetes_version: Option<String>,
    /// Control-plane logs that go to CloudWatch.
    pub log_types: Vec<LogType>,
    /// How long they stay: one of CloudWatch Logs' periods.
    #[schemars(extend("enum" = super::catalog::LOG_RETENTION_DAYS))]
    pub log_retention_days: u32,
    /// Refuse to delete the cluster until this is lifted.
    pub deletion_protection: bool,
    /// `standard` upgrades at the end of standard support; `extended` pays for more time.
    pub upgrade_policy: UpgradePolicy,
    /// The cluster's own KMS key.
    pub kms: Kms,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogType {
    Api,
    Audit,
    Authenticator,
    ControllerManager,
    Scheduler,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradePolicy {
    Standard,
    Extended,
}

/// The cluster's KMS key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kms {
    /// Days between the key's deletion and its end.
    #[schemars(range(min = 7, max = 30))]
    pub deletion_window_days: u32,
    /// Days between rotations.
    #[schemars(range(min = 90, max = 2560))]
    pub rotation_days: u32,
}

/// What differs from the spec's `network` for the VPC of one cluster.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileNetwork {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_gateways: Option<NatGateways>,
    /// VPC endpoints, by the service's short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::endpoints")]
    pub endpoints: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs: Option<bool>,
    /// How long flow logs stay: one of CloudWatch Logs' periods.
    #[schemars(extend("enum" = super::catalog::LOG_RETENTION_DAYS))]
    pub flow_log_retention_days: u32,
}

/// NAT gateways of a VPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NatGateways {
    PerZone,
    Single,
    /// No way out: nodes reach AWS by endpoints only.
    None,
}

/// EKS add-ons.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Addons {
    pub vpc_cni: Addon,
    pub kube_proxy: Addon,
    pub coredns: Addon,
    pub eks_pod_identity_agent: Addon,
    pub metrics_server: Addon,
}

impl Addons {
    /// Every add-on with its EKS name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Addon)> {
        let Self { vpc_cni, kube_proxy, coredns, eks_pod_identity_agent, metrics_server } = self;
        [
            ("vpc-cni", vpc_cni),
            ("kube-proxy", kube_proxy),
            ("coredns", coredns),
            ("eks-pod-identity-agent", eks_pod_identity_agent),
            ("metrics-server", metrics_server),
        ]
        .into_iter()
    }
}

/// One EKS add-on.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Addon {
    /// A pinned version; none means what EKS recommends, and what exists while it is supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^v[0-9]+\.[0-9]+\.[0-9]+-eksbuild\.[0-9]+$"), extend("examples" = ["v1.23.1-eksbuild.1"]))]
    pub version: Option<String>,
    /// Settings beside those that ringfence makes itself, which win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkPolicyEngine {
    VpcCni,
    Calico,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkPolicyMode {
    Strict,
    Standard,
}

/// The tenant's namespace (QUOTA-1).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// The ResourceQuota's `hard`.
    #[schemars(extend("examples" = [{"pods": "40", "requests.cpu": "8"}]))]
    pub quota: BTreeMap<String, Quantity>,
    /// The LimitRange for containers.
    pub limits: Limits,
}

/// A LimitRange of type `Container`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Limits of containers that name none.
    pub default: BTreeMap<String, Quantity>,
    /// Requests of containers that name none.
    pub default_request: BTreeMap<String, Quantity>,
    /// The most that a container may have.
    pub max: BTreeMap<String, Quantity>,
}

/// A Kubernetes quantity (`500m`, `2Gi`, `40`), as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    /// A bare number is as good as a quoted one, as in Kubernetes.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(u64),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Number(number) => number.to_string(),
        }))
    }
}

/// What the tenant's pods may ask for.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pods {
    /// Linux capabilities that a container may add (POD-2), without `CAP_`.
    #[schemars(schema_with = "super::schema::capabilities")]
    pub allowed_capabilities: Vec<String>,
    /// Where images may come from (ADM-3): a registry, or a path in it, and what follows after
    /// `/`, `:` or `@`. `account-ecr` is the account's own ECR in the tenancy's region, the
    /// tenant's part of it and the shared one (`spec.images`); `*` is any registry, which needs a waiver.
    #[schemars(length(min = 1), extend("examples" = [["account-ecr", "registry.example.com/acme/"]]))]
    pub allowed_registries: Vec<String>,
    /// `Localhost` seccomp profiles beside RuntimeDefault (POD-6), relative to the kubelet's own directory.
    #[schemars(extend("examples" = [["profiles/audit.json"]]))]
    pub seccomp_profiles: Vec<String>,
    /// Paths of the node that may be mounted, read-only (POD-4).
    #[schemars(extend("examples" = [["/var/log/audit"]]))]
    pub host_paths: Vec<String>,
    /// Whether pods may mount their service account's token.
    pub automount_token: bool,
}

/// The entry of `pods.allowedRegistries` that stands for the tenant's and the shared part of the account's ECR.
pub const ACCOUNT_ECR: &str = "account-ecr";

/// How the tenant's services may be reached from outside of the cluster (NET-3).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exposure {
    /// Services of type LoadBalancer.
    pub load_balancers: bool,
    /// Services of type NodePort.
    pub node_ports: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyEngine {
    /// ValidatingAdmissionPolicy and Pod Security Admission.
    Native,
    Gatekeeper,
    Opa,
    /// PodSecurityPolicy, for clusters below 1.25 only.
    Psp,
}

/// The tenant's PriorityClass.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriorityClass {
    /// Higher goes first; the cluster's own pods have two billion.
    #[schemars(range(min = 0, max = 1000000000))]
    pub value: i32,
}

// ---------------------------------------------------------------------------------------
// The document as written
// ---------------------------------------------------------------------------------------

/// A tenancy: the whole estate of one product, in one account and region.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "ringfence tenancy")]
pub struct Document {
    pub api_version: ApiVersion,
    pub kind: Kind,
    pub metadata: Metadata,
    pub spec: TenancySpec,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub enum ApiVersion {
    #[serde(rename = "ringfence.dev/v1alpha1")]
    V1Alpha1,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub enum Kind {
    Tenancy,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The tenancy's name. It is in the name of everything that is made, and can't change.
    #[schemars(regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"), length(min = 1, max = 32), extend("examples" = ["acme"]))]
    pub name: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenancySpec {
    /// The AWS region. It always wins over the environment.
    #[schemars(regex(pattern = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]+$"), extend("examples" = ["us-east-1"]))]
    pub region: String,
    /// Refuse to run against any other account. In quotes.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{12}$"), extend("examples" = ["123456789012"]))]
    pub account_id: Option<String>,
    /// What clusters run that name no version of their own. In quotes.
    #[schemars(regex(pattern = r"^1\.[1-9][0-9]*$"), extend("examples" = ["1.36"]))]
    pub kubernetes_version: String,
    pub network: NetworkSpec,
    #[serde(default)]
    pub access: AccessSpec,
    #[serde(default)]
    pub iam: IamSpec,
    #[serde(default)]
    pub images: ImagesSpec,
    /// Put on every resource that can be tagged.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 40, "examples" = [{"cost-center": "saas"}]))]
    pub tags: BTreeMap<String, String>,
    #[serde(default)]
    pub ignore_tags: IgnoreTags,
    /// Shared clusters.
    #[serde(default)]
    pub pools: Vec<PoolSpec>,
    #[serde(default)]
    pub tenants: Vec<TenantSpec>,
}

/// Tags that others write to what is ringfence's, such as an organisation's tagger: they are neither compared nor removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IgnoreTags {
    /// Whole keys.
    #[serde(default)]
    #[schemars(length(max = 100), extend("examples" = [["map-migrated"]]))]
    pub keys: Vec<String>,
    /// What keys begin with.
    #[serde(default)]
    #[schemars(length(max = 100), extend("examples" = [["AutoTag_"]]))]
    pub key_prefixes: Vec<String>,
}

/// What others add to VPCs: it is neither compared nor removed, and plans name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IgnoreNetwork {
    /// Blocks of addresses beside a VPC's own.
    #[serde(default)]
    #[schemars(length(max = 100), extend("examples" = [["100.64.0.0/16"]]))]
    pub cidr_blocks: Vec<String>,
    /// Routes, by their destination: to a transit gateway, a peering connection, a VPN.
    #[serde(default)]
    #[schemars(length(max = 100), extend("examples" = [["10.0.0.0/16"]]))]
    pub routes: Vec<String>,
}

/// The network that all clusters' VPCs are cut from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// Every VPC gets a block of it and keeps it.
    #[schemars(extend("examples" = ["10.64.0.0/12"]))]
    pub supernet: String,
    /// Prefix length of a VPC's block.
    #[serde(default = "default_vpc_prefix")]
    #[schemars(range(min = 16, max = 28))]
    pub vpc_prefix: u8,
    /// Availability zones of the nodes in each VPC. A cluster keeps its own
    /// subnets in the zones that it was made in.
    #[serde(default = "default_zones")]
    #[schemars(range(min = 2, max = 6))]
    pub zones: u8,
    /// The service addresses inside of each cluster; must overlap nothing that clusters reach.
    #[serde(default = "default_service_cidr")]
    #[schemars(extend("examples" = ["172.20.0.0/16"]))]
    pub service_cidr: String,
    #[serde(default = "default_nat_gateways")]
    pub nat_gateways: NatGateways,
    /// VPC endpoints, by the service's short name.
    #[serde(default)]
    #[schemars(schema_with = "super::schema::endpoints", extend("examples" = [["s3", "ecr.api", "ecr.dkr"]]))]
    pub endpoints: Vec<String>,
    /// Log every VPC's traffic to CloudWatch.
    #[serde(default = "yes")]
    pub flow_logs: bool,
    #[serde(default)]
    pub ignore: IgnoreNetwork,
}

fn default_vpc_prefix() -> u8 {
    16
}

fn default_zones() -> u8 {
    3
}

fn default_service_cidr() -> String {
    "172.20.0.0/16".to_owned()
}

fn default_nat_gateways() -> NatGateways {
    NatGateways::PerZone
}

fn yes() -> bool {
    true
}

/// Who may reach the clusters' API servers, and from where.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessSpec {
    #[serde(default)]
    pub endpoint: EndpointAccess,
    /// Sources for the public endpoint, with `endpoint: restricted` only.
    #[serde(default)]
    #[schemars(length(max = 40), extend("examples" = [["203.0.113.0/24"]]))]
    pub allowed_cidrs: Vec<String>,
    /// Who reaches the private endpoint beside the VPC's own private subnets: blocks of addresses, ids of prefix lists
    /// (`pl-`) and of security groups (`sg-`).
    #[serde(default)]
    #[schemars(length(max = 40), extend("examples" = [["10.0.0.0/16"]]))]
    pub private_sources: Vec<String>,
    /// People: ARNs of IAM roles, users or sessions.
    #[serde(default)]
    #[schemars(extend("examples" = [["arn:aws:iam::123456789012:role/PlatformAdmin"]]))]
    pub admins: Vec<String>,
    /// The roles that ringfence runs as.
    #[serde(default)]
    #[schemars(extend("examples" = [["arn:aws:iam::123456789012:role/ringfence"]]))]
    pub operators: Vec<String>,
}

/// How clusters' API servers are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointAccess {
    /// From the VPC and what is connected to it.
    #[default]
    Private,
    /// From the VPC, and from `allowedCidrs`.
    Restricted,
}

/// What all IAM roles share.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IamSpec {
    /// The roles' path; `/ringfence/` by default.
    #[serde(default)]
    #[schemars(regex(pattern = r"^/([!-~]+/)?$"), length(max = 512), extend("examples" = ["/ringfence/"]))]
    pub path: Option<String>,
    /// The ARN of a managed policy that bounds every role.
    #[serde(default)]
    #[schemars(extend("examples" = ["arn:aws:iam::123456789012:policy/boundary"]))]
    pub permissions_boundary: Option<String>,
}

/// Where tenants' images are in the account's own ECR, for the entry `account-ecr` of `pods.allowedRegistries`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImagesSpec {
    /// What the names of tenants' repositories begin with, each tenant's followed by `/<id>/`; the tenancy's name by
    /// default.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z0-9]+([._/-][a-z0-9]+)*$"), length(max = 200), extend("examples" = ["acme"]))]
    pub tenants: Option<String>,
    /// What the names of repositories for all tenants begin with; `<tenancy>/shared` by default.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z0-9]+([._/-][a-z0-9]+)*$"), length(max = 200), extend("examples" = ["acme/shared"]))]
    pub shared: Option<String>,
}

/// A shared cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSpec {
    /// Unique among pools and tenants' ids.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"), length(min = 1, max = 40), extend("examples" = ["shared-1"]))]
    pub name: String,
    /// A profile with `isolation: shared`; `shared` by default.
    #[serde(default)]
    pub profile: Option<String>,
    /// Where it differs from the spec's own. In quotes.
    #[serde(default)]
    #[schemars(regex(pattern = r"^1\.[1-9][0-9]*$"), extend("examples" = ["1.36"]))]
    pub kubernetes_version: Option<String>,
    #[serde(default)]
    pub network: PoolNetworkSpec,
    /// Exceptions to controls.
    #[serde(default)]
    pub waivers: Vec<Waiver>,
}

/// What differs from the spec's `network` for this pool's VPC.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolNetworkSpec {
    #[serde(default)]
    pub nat_gateways: Option<NatGateways>,
    /// VPC endpoints, by the service's short name.
    #[serde(default)]
    #[schemars(schema_with = "super::schema::endpoints")]
    pub endpoints: Option<Vec<String>>,
    #[serde(default)]
    pub flow_logs: Option<bool>,
}

/// One tenant.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantSpec {
    /// Unique among tenants' ids and pools. Can't change. In quotes.
    #[schemars(regex(pattern = r"^[a-z0-9]{1,32}$"), extend("examples" = ["12345"]))]
    pub id: String,
    /// For people; may change.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]([A-Za-z0-9 _.-]*[A-Za-z0-9_.-])?$"), length(min = 1, max = 63), extend("examples" = ["globex"]))]
    pub name: String,
    /// The profile that says how the tenant is kept apart, and what it gets.
    #[schemars(extend("examples" = ["premium", "standard", "serverless"]))]
    pub tier: String,
    /// The shared cluster; for tiers whose isolation is `pool` or `fargate`.
    #[serde(default)]
    pub pool: Option<String>,
    /// Service accounts of the tenant's namespace that act in AWS.
    #[serde(default)]
    pub service_accounts: Vec<ServiceAccount>,
    /// What differs from the tier, as far as its profile leaves it open. `null` removes a value.
    #[serde(default)]
    #[schemars(schema_with = "super::schema::overrides")]
    pub overrides: serde_json::Value,
    /// Exceptions to controls.
    #[serde(default)]
    pub waivers: Vec<Waiver>,
}

/// A service account that acts in AWS with a role of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"), length(min = 1, max = 63), extend("examples" = ["uploader"]))]
    pub name: String,
    /// ARNs of the managed policies that its role gets.
    #[schemars(length(min = 1, max = 10), extend("examples" = [["arn:aws:iam::123456789012:policy/uploads"]]))]
    pub policies: Vec<String>,
}

/// An exception to one control: named, reasoned and dated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Waiver {
    /// The control's ID.
    pub control: Control,
    /// Why, for whoever reads it later.
    #[schemars(length(min = 1, max = 500), extend("examples" = ["the metrics agent reads IMDS"]))]
    pub reason: String,
    /// The last day that it holds, as `YYYY-MM-DD`.
    #[serde(with = "iso_date")]
    #[schemars(schema_with = "super::schema::date", extend("examples" = ["2027-03-31"]))]
    pub until: Date,
}

mod iso_date {
    use jiff::civil::Date;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(date)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
