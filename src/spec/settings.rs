//! The types of a [`Profile`]. The JSON Schema of profiles, with the descriptions, is derived from them.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

// ---------------------------------------------------------------------------------------
// Profiles
// ---------------------------------------------------------------------------------------

/// A tier: all settings of a tenant or a cluster, for all isolation models. Profiles are files (`profiles/*.yaml`).
/// This is a profile after `extends` and `overrides` were applied.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// How tenants of this tier are isolated. `shared` is for the clusters of pools.
    pub isolation: IsolationModel,
    /// The tenant's own nodes. Not used if the isolation is `fargate` or `shared`.
    pub nodes: Nodes,
    /// The cluster's untainted nodes for system pods (CoreDNS, metrics-server).
    pub system_nodes: Nodes,
    /// The instance metadata service, on all nodes (NET-2).
    pub imds: Imds,
    /// The EKS cluster itself.
    pub cluster: Cluster,
    /// Settings of this cluster's VPC that differ from `spec.network`.
    pub network: ProfileNetwork,
    /// EKS add-ons: pinned versions and configuration.
    pub addons: Addons,
    /// The component that enforces network policies (NET-1).
    pub network_policy: NetworkPolicyEngine,
    /// `strict` denies all traffic of a new pod until its policies are applied (NET-1).
    pub network_policy_mode: NetworkPolicyMode,
    /// Quotas and limits of the tenant's namespace (QUOTA-1).
    pub namespace: Namespace,
    /// Settings that the tenant's pods may ask for.
    pub pods: Pods,
    /// Types of services that the tenant may use to be reached from outside of the cluster (NET-3).
    pub exposure: Exposure,
    /// Sessions that the tenant's people may open in running pods of the tenant (NS-1).
    pub sessions: Sessions,
    /// The component that checks pods and services on admission (ADM-1, ADM-2).
    pub policy_engine: PolicyEngine,
    /// The tenant's PriorityClass (QUOTA-1).
    pub priority_class: PriorityClass,
}

/// How a profile isolates tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationModel {
    /// A cluster and a VPC for each tenant.
    Silo,
    /// Dedicated, tainted nodes in a shared cluster.
    Pool,
    /// A VM for each pod in a shared cluster.
    Fargate,
    /// The cluster of a pool itself, without its tenants.
    Shared,
}

/// A node group and its launch template.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Nodes {
    /// The operating system. Any other than Bottlerocket needs a waiver for HOST-1.
    pub ami_family: AmiFamily,
    /// The id of the image. Only for the family `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^ami-[0-9a-f]{8}([0-9a-f]{9})?$"), extend("examples" = ["ami-0123456789abcdef0"]))]
    pub ami_id: Option<String>,
    /// The release of the image, such as `1.66.0-2d3f4b6c` (Bottlerocket) or `1.36.3-20261110` (Amazon Linux 2023).
    /// Without it, new node groups get the newest release, and existing ones keep theirs until `--upgrade`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+-[0-9a-f]{8}$"), extend("examples" = ["1.66.0-2d3f4b6c"]))]
    pub release_version: Option<String>,
    /// Use images with FIPS 140 validated cryptography. Bottlerocket only.
    pub fips: bool,
    /// The architecture of the processors. All instance types must have it.
    pub architecture: Architecture,
    /// EC2 instance types in order of preference.
    #[schemars(length(min = 1, max = 20), inner(regex(pattern = r"^[a-z0-9-]+\.[a-z0-9-]+$")), extend("examples" = [["m7g.large"]]))]
    pub instance_types: Vec<String>,
    /// On-demand or spot instances.
    pub capacity_type: CapacityType,
    /// The smallest number of nodes.
    #[schemars(range(max = 450))]
    pub min: u32,
    /// The largest number of nodes. It bounds the compute of the tenant (QUOTA-1).
    #[schemars(range(min = 1, max = 450))]
    pub max: u32,
    /// The number of nodes at creation. Later, an autoscaler may change it.
    #[schemars(range(max = 450))]
    pub desired: u32,
    /// The share of the group, in percent, that an update may replace at once: at least one node and at most 100 nodes.
    #[schemars(range(min = 1, max = 100))]
    pub max_unavailable_percentage: u32,
    /// Whether EKS replaces nodes that stay unhealthy. The default is true in commercial regions. Elsewhere the setting
    /// isn't sent: EKS refuses it in China, and it is unknown whether other partitions accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_repair: Option<bool>,
    /// The volume of the operating system. The default is that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_volume: Option<Volume>,
    /// The volume for container images, logs and ephemeral storage. On Bottlerocket it is the second volume.
    pub data_volume: Volume,
    /// The largest number of processes in one pod (QUOTA-1). Without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 4194304))]
    pub pod_pids_limit: Option<u32>,
    /// The kernel lockdown of Bottlerocket. `confidentiality` isn't supported: it blocks BPF, which the VPC CNI needs
    /// for network policies.
    pub kernel_lockdown: KernelLockdown,
}

/// A node's operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AmiFamily {
    Bottlerocket,
    Al2023,
    /// Your own image. It must enforce SELinux.
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

/// An EBS volume. It is always encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    #[serde(rename = "sizeGiB")]
    #[schemars(range(min = 1, max = 65536))]
    pub size_gib: u32,
    #[serde(rename = "type")]
    pub volume_type: VolumeType,
    /// Input and output operations per second. The default is the baseline of gp3, 3,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3000, max = 80000))]
    pub iops: Option<u32>,
    /// MiB per second. The default is the baseline of gp3, 125.
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
    /// `required` allows only IMDSv2.
    pub tokens: ImdsTokens,
    /// The number of network hops of an answer. With 1, answers don't reach pods.
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
    /// The Kubernetes version, in quotes. The default is `spec.kubernetesVersion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^1\.[1-9][0-9]*$"), extend("examples" = ["1.36"]))]
    pub kubernetes_version: Option<String>,
    /// The control plane's logs that are sent to CloudWatch.
    pub log_types: Vec<LogType>,
    /// Days for which CloudWatch keeps these logs. CloudWatch allows only these values.
    #[schemars(extend("enum" = super::catalog::LOG_RETENTION_DAYS))]
    pub log_retention_days: u32,
    /// EKS refuses to delete the cluster while this is true.
    pub deletion_protection: bool,
    /// `standard`: EKS upgrades the cluster at the end of standard support. `extended`: AWS charges for extended
    /// support.
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
    /// The waiting period, in days, before KMS deletes the key.
    #[schemars(range(min = 7, max = 30))]
    pub deletion_window_days: u32,
    /// Days between two rotations of the key.
    #[schemars(range(min = 90, max = 2560))]
    pub rotation_days: u32,
}

/// Settings of one cluster's VPC that differ from `spec.network`.
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
    /// Days for which CloudWatch keeps flow logs. CloudWatch allows only these values.
    #[schemars(extend("enum" = super::catalog::LOG_RETENTION_DAYS))]
    pub flow_log_retention_days: u32,
}

/// NAT gateways of a VPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NatGateways {
    PerZone,
    Single,
    /// No access to the internet. Nodes reach AWS only through VPC endpoints.
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
    /// The pinned version. Without it, a new add-on gets the version that EKS recommends, and an existing one keeps its
    /// version while EKS supports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^v[0-9]+\.[0-9]+\.[0-9]+-eksbuild\.[0-9]+$"), extend("examples" = ["v1.23.1-eksbuild.1"]))]
    pub version: Option<String>,
    /// Additional configuration values. Values that ringfence sets itself have precedence.
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
    /// Limits of containers that set no limits.
    pub default: BTreeMap<String, Quantity>,
    /// Requests of containers that set no requests.
    pub default_request: BTreeMap<String, Quantity>,
    /// The highest limits that a container may set.
    pub max: BTreeMap<String, Quantity>,
}

/// A Kubernetes quantity (`500m`, `2Gi`, `40`), as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    /// Numbers need no quotes, as in Kubernetes.
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

/// Settings that the tenant's pods may ask for.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pods {
    /// Linux capabilities that a container may add (POD-2), without `CAP_`.
    #[schemars(schema_with = "super::schema_parts::capabilities")]
    pub allowed_capabilities: Vec<String>,
    /// Registries from which images may be pulled (ADM-3). An entry is a registry or a path in it. It allows images
    /// whose name continues with `/`, `:` or `@`. `account-ecr` allows the tenant's and the shared repositories
    /// (`spec.images`) in the account's own ECR in the tenancy's region. `*` allows any registry and needs a waiver.
    #[schemars(length(min = 1), extend("examples" = [["account-ecr", "registry.example.com/acme/"]]))]
    pub allowed_registries: Vec<String>,
    /// Seccomp profiles of type `Localhost` that are allowed in addition to RuntimeDefault (POD-6). Paths are relative
    /// to the kubelet's seccomp directory.
    #[schemars(extend("examples" = [["profiles/audit.json"]]))]
    pub seccomp_profiles: Vec<String>,
    /// Paths of the node that pods may mount, read-only (POD-4).
    #[schemars(extend("examples" = [["/var/log/audit"]]))]
    pub host_paths: Vec<String>,
    /// Whether pods may mount the token of their service account.
    pub automount_token: bool,
}

/// The entry of `pods.allowedRegistries` for the tenant's and the shared repositories in the account's ECR.
pub const ACCOUNT_ECR: &str = "account-ecr";

/// Types of services that the tenant may use to be reached from outside of the cluster (NET-3).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exposure {
    /// Allow services of type LoadBalancer.
    pub load_balancers: bool,
    /// Allow services of type NodePort.
    pub node_ports: bool,
}

/// Sessions that the tenant's people may open in running pods of the tenant. A session stays within the tenant's own
/// namespace. It passes by the tenant's network policies, because the kubelet opens it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sessions {
    /// Allow `kubectl exec`, `attach` and `cp`.
    pub exec: bool,
    /// Allow `kubectl port-forward`.
    pub port_forward: bool,
    /// Allow `kubectl debug`: ephemeral containers. The rules for pods apply to them.
    pub ephemeral_containers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyEngine {
    /// ValidatingAdmissionPolicy, MutatingAdmissionPolicy (from Kubernetes 1.36 on) and Pod Security Admission. The
    /// other engines are in addition to them.
    Native,
    /// ringfence's own admission webhook. It needs `spec.images.ringfence`.
    Webhook,
    /// Gatekeeper, which the platform's team installs.
    Gatekeeper,
    /// Open Policy Agent with kube-mgmt, which the platform's team installs.
    Opa,
    /// PodSecurityPolicy. Kubernetes 1.25 removed it.
    Psp,
}

/// The tenant's PriorityClass.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriorityClass {
    /// Pods with a higher value are scheduled first. The cluster's own pods have two billion.
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

/// Kubernetes' format of quantities, without signs and exponents.
pub(super) const QUANTITY: &str = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";
