//! The names of resources in AWS: deterministic, unique, and within AWS's limits.
//!
//! A name has three parts: the tenancy's name, the owner (`t-<id>` or `p-<pool>`) and a purpose. If this is too long,
//! the part before the purpose is cut, and a hash of the whole name follows it. A name is computed, so it is known
//! before the resource exists. Names are never parsed, because resources are found by their tags.

use sha2::{Digest, Sha256};

use super::resolved::{Isolation, Owner, Spec, Tenant};

/// The longest IAM role name (IAM and STS quotas).
pub const MAX_ROLE: usize = 64;
/// Characters that a replacement adds to its name, such as `-g12`.
const GENERATION: usize = 4;
/// Characters at the begin of a role's name that are never cut.
const MAX_ROLE_PREFIX: usize = 24;
/// The longest EKS cluster name (CreateCluster).
pub const MAX_CLUSTER: usize = 100;
/// The longest name of an EKS managed node group.
pub const MAX_NODE_GROUP: usize = 63;
/// The longest name of an EKS Fargate profile.
pub const MAX_FARGATE_PROFILE: usize = 100;
/// The longest name of an EC2 launch template.
pub const MAX_LAUNCH_TEMPLATE: usize = 128;
/// The longest name of an EC2 security group.
pub const MAX_SECURITY_GROUP: usize = 255;
/// The longest name of a KMS alias, with `alias/`.
pub const MAX_KMS_ALIAS: usize = 256;
/// The longest name of a CloudWatch Logs log group.
pub const MAX_LOG_GROUP: usize = 512;

/// The node group of a cluster's system pods.
pub const SYSTEM_NODE_GROUP: &str = "system";

const HASH_DIGITS: usize = 10;

/// The names of one tenancy in one region.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    tenancy: &'a str,
    region: &'a str,
}

impl<'a> Names<'a> {
    pub fn new(spec: &'a Spec) -> Self {
        Self { tenancy: &spec.name, region: &spec.region }
    }

    /// `<tenancy>-t-<id>` or `<tenancy>-p-<pool>`. Also the Name tag of the cluster's VPC.
    pub fn cluster(&self, owner: Owner<'_>) -> String {
        fit(&format!("{}-{}", self.tenancy, key(owner)), "", MAX_CLUSTER)
    }

    /// An IAM role. IAM is global, so the name carries the region.
    pub fn role(&self, owner: Owner<'_>, purpose: &str) -> String {
        let stem = format!("{}-{}-{}", self.tenancy, self.region, key(owner));
        fit(&stem, &format!("-{purpose}"), MAX_ROLE - GENERATION)
    }

    /// The common prefix of all role names. It is short enough that no name is cut within it.
    pub fn role_prefix(&self) -> String {
        format!("{}-{}-", self.tenancy, self.region).chars().take(MAX_ROLE_PREFIX).collect()
    }

    /// An IAM role of a tenant's placement, such as `acme-us-east-1-t-23456-pool-shared-1-nodes`. The name holds
    /// isolation and pool, because a tenant that moves has two placements for a while.
    pub fn home_role(&self, tenant: &Tenant, purpose: &str) -> String {
        let stem = format!("{}-{}-{}", self.tenancy, self.region, home(tenant));
        fit(&stem, &format!("-{purpose}"), MAX_ROLE - GENERATION)
    }

    /// The role of a tenant's service account.
    pub fn workload_role(&self, tenant: &Tenant, service_account: &str) -> String {
        let stem = format!("{}-{}-{}-sa-{service_account}", self.tenancy, self.region, home(tenant));
        fit(&stem, "", MAX_ROLE - GENERATION)
    }

    /// A security group, such as `acme-t-12345-nodes`.
    pub fn security_group(&self, owner: Owner<'_>, purpose: &str) -> String {
        fit(&self.cluster(owner), &format!("-{purpose}"), MAX_SECURITY_GROUP)
    }

    /// The launch template of a cluster's own nodes. Also the Name tag of an owner's instances.
    pub fn launch_template(&self, owner: Owner<'_>, purpose: &str) -> String {
        fit(&self.cluster(owner), &format!("-{purpose}"), MAX_LAUNCH_TEMPLATE)
    }

    /// The launch template of a tenant's placement. Its name must be unique in the account and region.
    pub fn home_launch_template(&self, tenant: &Tenant, purpose: &str) -> String {
        fit(&format!("{}-{}", self.tenancy, home(tenant)), &format!("-{purpose}"), MAX_LAUNCH_TEMPLATE)
    }

    /// The alias of a cluster's KMS key.
    pub fn kms_alias(&self, owner: Owner<'_>) -> String {
        fit(&format!("alias/ringfence/{}", self.cluster(owner)), "", MAX_KMS_ALIAS)
    }

    /// The log group of a cluster's control-plane logs. EKS sets this name.
    pub fn cluster_log_group(&self, owner: Owner<'_>) -> String {
        format!("/aws/eks/{}/cluster", self.cluster(owner))
    }

    /// The log group of a VPC's flow logs.
    pub fn flow_log_group(&self, owner: Owner<'_>) -> String {
        format!("/ringfence/{}/flow-logs", self.cluster(owner))
    }
}

/// The node group of a tenant, in its own cluster or in its pool's.
pub fn node_group(tenant: &str) -> String {
    fit(&format!("t-{tenant}"), "", MAX_NODE_GROUP)
}

/// The Fargate profile of a tenant.
pub fn fargate_profile(tenant: &str) -> String {
    fit(&format!("t-{tenant}"), "", MAX_FARGATE_PROFILE)
}

/// `t-<id>-silo`, `t-<id>-pool-<pool>` or `t-<id>-fargate-<pool>`.
fn home(tenant: &Tenant) -> String {
    let owner = key(Owner::Tenant(&tenant.id));
    match &tenant.isolation {
        Isolation::Silo => format!("{owner}-silo"),
        Isolation::Pool { pool } => format!("{owner}-pool-{pool}"),
        Isolation::Fargate { pool } => format!("{owner}-fargate-{pool}"),
    }
}

fn key(owner: Owner<'_>) -> String {
    match owner {
        Owner::Tenant(id) => format!("t-{id}"),
        Owner::Pool(name) => format!("p-{name}"),
    }
}

/// `stem` and `suffix`. The stem is cut if both together have more than `max` characters.
fn fit(stem: &str, suffix: &str, max: usize) -> String {
    let whole = format!("{stem}{suffix}");
    if whole.chars().count() <= max {
        return whole;
    }
    let hash: String = hex::encode(Sha256::digest(&whole)).chars().take(HASH_DIGITS).collect();
    let room = max.saturating_sub(HASH_DIGITS + 1 + suffix.chars().count());
    let cut: String = stem.chars().take(room).collect();
    format!("{}-{hash}{suffix}", cut.trim_end_matches('-'))
}
