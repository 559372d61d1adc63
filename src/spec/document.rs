//! A tenancy file as it is written, from which its JSON Schema is derived.

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
    #[schemars(schema_with = "super::schema_parts::endpoints")]
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
    #[schemars(schema_with = "super::profile_schema::overrides")]
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
