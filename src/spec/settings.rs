//! What a tier sets: the types of a [`Profile`], from which the JSON Schema of profiles is derived.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

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
    #[schemars(schema_with = "super::schema_parts::endpoints")]
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
    #[schemars(schema_with = "super::schema_parts::capabilities")]
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

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A Kubernetes quantity, such as 500m, 2Gi or 40.",
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": QUANTITY,
        })
    }
}

/// Kubernetes' own format of quantities, without signs and exponents.
pub(super) const QUANTITY: &str = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";
