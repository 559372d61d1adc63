//! Ownership tags. The create call itself writes them. A resource without our
//! tags is never changed or deleted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Aws;
use crate::engine::address::{Address, Owner};

pub type Tags = BTreeMap<String, String>;

const PREFIX: &str = "ringfence.dev/";
pub const TENANCY: &str = "ringfence.dev/tenancy";
pub const REGION: &str = "ringfence.dev/region";
pub const TENANT: &str = "ringfence.dev/tenant";
pub const ADDRESS: &str = "ringfence.dev/address";
pub const GENERATION: &str = "ringfence.dev/generation";
/// An annotation of webhook configurations, `<namespace>/<Secret>`: the `ca.crt` of this Secret is the authority of the
/// webhook's certificate.
pub const AUTHORITY_FROM: &str = "ringfence.dev/authority-from";

/// The ownership tags of every resource's desired state, in addition to the
/// spec's tags. The generation is added when the resource is created.
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

/// The ownership tags of a state, each as `key=value`.
pub fn ownership_of(state: &Value) -> Vec<String> {
    let tags = state.get("tags").and_then(Value::as_object).into_iter().flatten();
    let tags = tags.filter(|(key, _)| key.starts_with(PREFIX));
    tags.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect()
}

/// The tags of a create call: the tags of the state, and the generation.
pub fn with_generation(tags: &Tags, generation: u32) -> Tags {
    let mut tags = tags.clone();
    tags.insert(GENERATION.to_owned(), generation.to_string());
    tags
}

/// Parts of our resources that the spec leaves to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Tag keys.
    pub keys: BTreeSet<String>,
    /// Prefixes of tag keys.
    pub prefixes: Vec<String>,
    /// CIDR blocks that others associate with VPCs.
    pub blocks: BTreeSet<String>,
    /// Destinations of routes that others write.
    pub routes: BTreeSet<String>,
}

/// Tag keys that AWS itself writes: `aws:` is AWS's own prefix; EKS tags what
/// it makes; tag-sync of myApplications writes and removes `awsApplication`
/// (AppRegistry Administrator Guide, "Resource tag-sync").
fn is_aws(key: &str) -> bool {
    key.starts_with("aws:") || key.starts_with("eks:") || key == "awsApplication"
}

/// Prefixes of the tag keys by which in-cluster controllers find resources.
pub const CONTROLLERS: [&str; 4] =
    ["elbv2.k8s.aws/", "k8s.io/cluster-autoscaler/", "karpenter.sh/", "kubernetes.io/cluster/"];

/// True for tag keys by which in-cluster controllers find resources.
pub fn is_controllers(key: &str) -> bool {
    CONTROLLERS.iter().any(|prefix| key.starts_with(prefix))
}

fn is_theirs(key: &str) -> bool {
    key == GENERATION || is_aws(key) || is_controllers(key)
}

/// The difference of two sets of tags: tags to write, and keys to remove. Keys
/// of AWS and of controllers aren't touched.
pub fn difference(from: &Tags, to: &Tags) -> (Tags, Vec<String>) {
    let write = to.iter().filter(|(k, v)| from.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let remove = from.keys().filter(|k| !to.contains_key(*k) && !is_theirs(k)).cloned().collect();
    (write, remove)
}

impl Aws {
    /// The tags of an observed state: without the generation, and without the
    /// tags of AWS, of in-cluster controllers, and of those whose keys the spec
    /// ignores.
    pub fn observed(&self, tags: &Tags) -> Tags {
        let Ignored { keys, prefixes, .. } = &self.ignored;
        let ignored = |key: &String| keys.contains(key) || prefixes.iter().any(|prefix| key.starts_with(prefix));
        tags.iter().filter(|(key, _)| !is_theirs(key) && !ignored(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// The address and generation of a resource with these tags. `None` if
    /// another tenancy or region owns the resource, or if it has no owner.
    pub fn owned(&self, tags: &Tags) -> Option<(Address, u32)> {
        let is = |key: &str, value: &str| tags.get(key).is_some_and(|v| v == value);
        let ours = is(TENANCY, &self.tenancy) && is(REGION, &self.scope.region);
        let address = tags.get(ADDRESS).filter(|_| ours)?;
        let generation = tags.get(GENERATION).and_then(|g| g.parse().ok()).unwrap_or(1);
        Some((Address::new(address), generation))
    }
}
