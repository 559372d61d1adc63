//! The types of a tenancy file. Its JSON Schema, with the descriptions, is derived from them.

use std::collections::BTreeMap;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::control::Control;
use super::settings::NatGateways;

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
    /// The tenancy's name. It is part of the name of every resource, and can't be changed later.
    #[schemars(regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"), length(min = 1, max = 32), extend("examples" = ["acme"]))]
    pub name: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenancySpec {
    /// The AWS region. The region of the environment is ignored.
    #[schemars(regex(pattern = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]+$"), extend("examples" = ["us-east-1"]))]
    pub region: String,
    /// The id of the AWS account, in quotes. Runs with credentials of any other account are refused.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{12}$"), extend("examples" = ["123456789012"]))]
    pub account_id: Option<String>,
    /// The Kubernetes version of clusters that set no version of their own. In quotes.
    #[schemars(regex(pattern = r"^1\.[1-9][0-9]*$"), extend("examples" = ["1.36"]))]
    pub kubernetes_version: String,
    pub network: NetworkSpec,
    #[serde(default)]
    pub access: AccessSpec,
    #[serde(default)]
    pub gateway: Option<GatewaySpec>,
    #[serde(default)]
    pub iam: IamSpec,
    #[serde(default)]
    pub images: ImagesSpec,
    /// Tags for every resource that can have tags.
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

/// Tags that others write to resources of the tenancy, such as an organisation's tagging tool. They are neither
/// compared nor removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IgnoreTags {
    /// Exact keys.
    #[serde(default)]
    #[schemars(length(max = 100), extend("examples" = [["map-migrated"]]))]
    pub keys: Vec<String>,
    /// Prefixes of keys.
    #[serde(default)]
    #[schemars(length(max = 100), extend("examples" = [["AutoTag_"]]))]
    pub key_prefixes: Vec<String>,
}

/// Address blocks and routes that others add to VPCs. They are neither compared nor removed, and plans name them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IgnoreNetwork {
    /// Address blocks that others associate with a VPC.
    #[serde(default)]
    #[schemars(length(max = 100), extend("examples" = [["100.64.0.0/16"]]))]
    pub cidr_blocks: Vec<String>,
    /// Destinations of routes that others add, such as routes to a transit gateway, a peering connection or a VPN.
    #[serde(default)]
    #[schemars(length(max = 100), extend("examples" = [["10.0.0.0/16"]]))]
    pub routes: Vec<String>,
}

/// The network of all clusters. Each cluster's VPC gets a part of it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// The address block of the whole tenancy. Every VPC gets a block within it, which never changes.
    #[schemars(extend("examples" = ["10.64.0.0/12"]))]
    pub supernet: String,
    /// Prefix length of a VPC's block.
    #[serde(default = "default_vpc_prefix")]
    #[schemars(range(min = 16, max = 28))]
    pub vpc_prefix: u8,
    /// The number of availability zones for the nodes of each VPC. A later change doesn't move the control plane: a
    /// cluster's own subnets stay in the zones in which the cluster was created.
    #[serde(default = "default_zones")]
    #[schemars(range(min = 2, max = 6))]
    pub zones: u8,
    /// The addresses of Kubernetes services inside of each cluster. The block must not overlap any network that
    /// clusters reach.
    #[serde(default = "default_service_cidr")]
    #[schemars(extend("examples" = ["172.20.0.0/16"]))]
    pub service_cidr: String,
    #[serde(default = "default_nat_gateways")]
    pub nat_gateways: NatGateways,
    /// VPC endpoints, by the service's short name.
    #[serde(default)]
    #[schemars(schema_with = "super::schema_parts::endpoints", extend("examples" = [["s3", "ecr.api", "ecr.dkr"]]))]
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

/// Access to the clusters' API servers: people, roles and networks.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessSpec {
    #[serde(default)]
    pub endpoint: EndpointAccess,
    /// Networks that may reach the public endpoint. Only with `endpoint: restricted`.
    #[serde(default)]
    #[schemars(length(max = 40), extend("examples" = [["203.0.113.0/24"]]))]
    pub allowed_cidrs: Vec<String>,
    /// Networks that may reach the private endpoint, in addition to the VPC's own private subnets: address blocks, ids
    /// of prefix lists (`pl-`) and ids of security groups (`sg-`).
    #[serde(default)]
    #[schemars(length(max = 40), extend("examples" = [["10.0.0.0/16"]]))]
    pub private_sources: Vec<String>,
    /// Administrators: ARNs of IAM roles, users or sessions of people.
    #[serde(default)]
    #[schemars(extend("examples" = [["arn:aws:iam::123456789012:role/PlatformAdmin"]]))]
    pub admins: Vec<String>,
    /// ARNs of the IAM roles with which ringfence runs.
    #[serde(default)]
    #[schemars(extend("examples" = [["arn:aws:iam::123456789012:role/ringfence"]]))]
    pub operators: Vec<String>,
}

/// Networks from which clusters' API servers can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointAccess {
    /// Only from the VPC and from networks connected to it.
    #[default]
    Private,
    /// From the VPC, from networks connected to it, and from `allowedCidrs`.
    Restricted,
}

/// The gateway, through which tenants reach the clusters' API servers (API-1).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySpec {
    /// The URL of the gateway, for the tenants' kubeconfigs.
    #[schemars(regex(pattern = r"^https://[^/?#@ ]+(/[^?# ]*[^/?# ])?$"), length(max = 2048), extend("examples" = ["https://gateway.acme.example"]))]
    pub url: String,
    /// The ARN of the IAM role with which a gateway outside of the clusters runs. In every cluster, this role may act as
    /// the tenants, and may do nothing else.
    #[serde(default)]
    #[schemars(extend("examples" = ["arn:aws:iam::123456789012:role/acme-gateway"]))]
    pub role: Option<String>,
}

/// Settings of all IAM roles.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IamSpec {
    /// The path of all roles. The default is `/ringfence/`.
    #[serde(default)]
    #[schemars(regex(pattern = r"^/([!-~]+/)?$"), length(max = 512), extend("examples" = ["/ringfence/"]))]
    pub path: Option<String>,
    /// The ARN of a managed policy. Every role gets it as its permissions boundary.
    #[serde(default)]
    #[schemars(extend("examples" = ["arn:aws:iam::123456789012:policy/boundary"]))]
    pub permissions_boundary: Option<String>,
}

/// The repositories of tenants' images in the account's own ECR. The entry `account-ecr` of `pods.allowedRegistries`
/// stands for them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImagesSpec {
    /// The prefix of tenants' repositories. A tenant's repositories are `<prefix>/<id>/…`. The default is the tenancy's
    /// name.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z0-9]+([._/-][a-z0-9]+)*$"), length(max = 200), extend("examples" = ["acme"]))]
    pub tenants: Option<String>,
    /// The prefix of repositories that all tenants may pull. The default is `<tenancy>/shared`.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z0-9]+([._/-][a-z0-9]+)*$"), length(max = 200), extend("examples" = ["acme/shared"]))]
    pub shared: Option<String>,
    /// The image of ringfence, by digest, for Pods that ringfence runs in clusters: the admission webhook of
    /// `policyEngine: webhook`. System nodes may pull it from any ECR repository that lets them.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}$"), extend("examples" = ["123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/platform/ringfence@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]))]
    pub ringfence: Option<String>,
}

/// A shared cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSpec {
    /// The pool's name. It must differ from all other pools' names and all tenants' ids.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"), length(min = 1, max = 40), extend("examples" = ["shared-1"]))]
    pub name: String,
    /// A profile with `isolation: shared`. The default is the profile `shared`.
    #[serde(default)]
    pub profile: Option<String>,
    /// The Kubernetes version of this pool, in quotes. The default is `spec.kubernetesVersion`.
    #[serde(default)]
    #[schemars(regex(pattern = r"^1\.[1-9][0-9]*$"), extend("examples" = ["1.36"]))]
    pub kubernetes_version: Option<String>,
    #[serde(default)]
    pub network: PoolNetworkSpec,
    /// A gateway inside of this cluster. It acts as the tenants of this cluster only.
    #[serde(default)]
    pub gateway: Option<PoolGatewaySpec>,
    /// Exceptions to isolation controls.
    #[serde(default)]
    pub waivers: Vec<Waiver>,
}

/// A gateway inside of a pool's cluster. It runs on the system nodes, in the namespace `ringfence-gateway`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolGatewaySpec {
    /// The image of ringfence, by digest. System nodes may pull it from any ECR repository that lets them.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}$"), extend("examples" = ["123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/ringfence@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]))]
    pub image: String,
    /// The number of Pods.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 2, max = 20))]
    pub replicas: u32,
    /// Whether the gateway has an internal Network Load Balancer, which the AWS Load Balancer Controller makes. Without
    /// it, the gateway has a Service of type ClusterIP.
    #[serde(default = "yes")]
    pub load_balancer: bool,
    /// The name of a ConfigMap in the namespace `ringfence-gateway`, with `gateway.yaml` and `tenancy.yaml`. The
    /// platform's team writes it. The default is `gateway`.
    #[serde(default = "default_config_map")]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"), length(min = 1, max = 63), extend("examples" = ["gateway"]))]
    pub config_map: String,
    /// The name of a Secret in the namespace `ringfence-gateway`, with the gateway's certificate: `tls.crt`, `tls.key`.
    /// The platform's team writes it. The default is `gateway-tls`.
    #[serde(default = "default_certificate_secret")]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"), length(min = 1, max = 63), extend("examples" = ["gateway-tls"]))]
    pub certificate_secret: String,
}

fn default_replicas() -> u32 {
    2
}

fn default_config_map() -> String {
    "gateway".to_owned()
}

fn default_certificate_secret() -> String {
    "gateway-tls".to_owned()
}

/// Settings of this pool's VPC that differ from `spec.network`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolNetworkSpec {
    #[serde(default)]
    pub nat_gateways: Option<NatGateways>,
    /// VPC endpoints, by the service's short name.
    #[serde(default)]
    #[schemars(schema_with = "super::schema_parts::endpoints")]
    pub endpoints: Option<Vec<String>>,
    #[serde(default)]
    pub flow_logs: Option<bool>,
}

/// One tenant.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantSpec {
    /// The tenant's id, in quotes. It must differ from all other tenants' ids and all pools' names, and can't be
    /// changed later.
    #[schemars(regex(pattern = r"^[a-z0-9]{1,32}$"), extend("examples" = ["12345"]))]
    pub id: String,
    /// A name for people to read. It may be changed.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]([A-Za-z0-9 _.-]*[A-Za-z0-9_.-])?$"), length(min = 1, max = 63), extend("examples" = ["globex"]))]
    pub name: String,
    /// The tenant's profile. It sets how the tenant is isolated, and what the tenant gets.
    #[schemars(extend("examples" = ["premium", "standard", "serverless"]))]
    pub tier: String,
    /// The pool in which the tenant runs. Required for tiers with the isolation `pool` or `fargate`.
    #[serde(default)]
    pub pool: Option<String>,
    /// The identities of the tenant's people and programs. The gateway lets them into the tenant's namespace. An
    /// identity can belong to one tenant only.
    #[serde(default)]
    pub access: Vec<TenantAccessSpec>,
    /// Service accounts of the tenant's namespace that have an IAM role.
    #[serde(default)]
    pub service_accounts: Vec<ServiceAccount>,
    /// Settings that differ from the tier. Its profile lists which ones may differ (`overridable`). `null` removes a
    /// value.
    #[serde(default)]
    #[schemars(schema_with = "super::profile_schema::overrides")]
    pub overrides: serde_json::Value,
    /// Exceptions to isolation controls.
    #[serde(default)]
    pub waivers: Vec<Waiver>,
}

/// An identity: a claim of a token (`issuer`, `claim` and `value`), or a `role`, or a `certificate`. Exactly one of the
/// three.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["issuer"]}, {"required": ["role"]}, {"required": ["certificate"]}],
    "dependentRequired" = {"issuer": ["claim", "value"], "claim": ["issuer", "value"], "value": ["issuer", "claim"]},
    "examples" = [{"issuer": "https://login.example.com", "claim": "groups", "value": "globex-developers"}]
))]
pub struct TenantAccessSpec {
    /// The issuer of OpenID Connect tokens: an https URL, exactly as in the claim `iss`.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https://[^/?#@ ]+(/[^?# ]*)?$"), length(max = 2048), extend("examples" = ["https://login.example.com"]))]
    pub issuer: Option<String>,
    /// The name of a claim of the issuer's tokens. The claim is text or a list of texts.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256), extend("examples" = ["groups"]))]
    pub claim: Option<String>,
    /// The value of the claim, or an entry of its list. It is compared exactly.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024), extend("examples" = ["globex-developers"]))]
    pub value: Option<String>,
    /// The ARN of an IAM role or user. It may be in another account. All sessions of a role count.
    #[serde(default)]
    #[schemars(extend("examples" = ["arn:aws:iam::111122223333:role/globex-deployer"]))]
    pub role: Option<String>,
    /// A URI among the subject alternative names of a client certificate. It is compared exactly.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z][a-z0-9+.-]*:[^ *]+$"), length(max = 2048), extend("examples" = ["spiffe://globex.example/ci"]))]
    pub certificate: Option<String>,
}

/// A Kubernetes service account with an IAM role of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"), length(min = 1, max = 63), extend("examples" = ["uploader"]))]
    pub name: String,
    /// ARNs of the managed policies of its role.
    #[schemars(length(min = 1, max = 10), extend("examples" = [["arn:aws:iam::123456789012:policy/uploads"]]))]
    pub policies: Vec<String>,
}

/// An exception to one isolation control, with a reason and an end date.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Waiver {
    /// The control's ID.
    pub control: Control,
    /// Why the exception is acceptable.
    #[schemars(length(min = 1, max = 500), extend("examples" = ["the metrics agent reads IMDS"]))]
    pub reason: String,
    /// The last day on which the exception is valid, as `YYYY-MM-DD`.
    #[serde(with = "iso_date")]
    #[schemars(schema_with = "super::schema_parts::date", extend("examples" = ["2027-03-31"]))]
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
