//! Ownership, written into tags by the create call itself. Nothing without
//! our tags is changed or deleted.

use std::collections::BTreeMap;

use super::Aws;
use crate::engine::address::{Address, Owner};

pub type Tags = BTreeMap<String, String>;

pub const TENANCY: &str = "ringfence.dev/tenancy";
pub const REGION: &str = "ringfence.dev/region";
pub const TENANT: &str = "ringfence.dev/tenant";
pub const ADDRESS: &str = "ringfence.dev/address";
pub const GENERATION: &str = "ringfence.dev/generation";

/// The tags that every resource's desired state carries, beside the spec's
/// own. The generation is added when the resource is made.
pub fn ownership(tenancy: &str, region: &str, address: &Address) -> Tags {
    let mut tags = Tags::from([
        (TENANCY.to_owned(), tenancy.to_owned()),
        (REGION.to_owned(), region.to_owned()),
        (ADDRESS.to_owned(), address.to_string()),
    ]);
    if let Owner::Tenant(id) = address.owner() {
        tags.insert(TENANT.to_owned(), id);
    }
    tags
}

/// What is sent in a create call: the state's tags and the generation.
pub fn with_generation(tags: &Tags, generation: u32) -> Tags {
    let mut tags = tags.clone();
    tags.insert(GENERATION.to_owned(), generation.to_string());
    tags
}

/// The tags of a state as observed: without the generation and without those
/// that AWS and in-cluster controllers write for themselves.
pub fn observed(tags: &Tags) -> Tags {
    tags.iter().filter(|(key, _)| !is_theirs(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn is_theirs(key: &str) -> bool {
    key == GENERATION
        || key.starts_with("aws:")
        || key.starts_with("eks:")
        || key.starts_with("kubernetes.io/cluster/")
        || key.starts_with("elbv2.k8s.aws/")
        || key.starts_with("karpenter.sh/")
        || key.starts_with("k8s.io/cluster-autoscaler/")
}

/// What changes one set of tags into another: to write, and keys to remove.
/// Keys that belong to AWS or to controllers are left alone.
pub fn difference(from: &Tags, to: &Tags) -> (Tags, Vec<String>) {
    let write = to.iter().filter(|(k, v)| from.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let remove = from.keys().filter(|k| !to.contains_key(*k) && !is_theirs(k)).cloned().collect();
    (write, remove)
}

impl Aws {
    /// Whose a resource with these tags is: its address and generation, if
    /// this tenancy in this region made it.
    pub fn owned(&self, tags: &Tags) -> Option<(Address, u32)> {
        let is = |key: &str, value: &str| tags.get(key).is_some_and(|v| v == value);
        let ours = is(TENANCY, &self.tenancy) && is(REGION, &self.scope.region);
        let address = tags.get(ADDRESS).filter(|_| ours)?;
        let generation = tags.get(GENERATION).and_then(|g| g.parse().ok()).unwrap_or(1);
        Some((Address::new(address), generation))
    }
}
