//! One cluster with its VPC: its addresses, names and subnets. All other resources are built from them.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::addresses::prefix;
use super::facts::Facts;
use crate::engine::address::Address;
use crate::engine::value::reference;
use crate::spec::names::Names;
use crate::spec::{ClusterOf, KubernetesVersion, Owner, PolicyEngine, Spec};

/// One cluster with its VPC.
pub(super) struct Site<'a> {
    pub cluster: ClusterOf<'a>,
    pub prefix: Address,
    /// The cluster's name.
    pub name: String,
    pub version: KubernetesVersion,
    /// The service CIDR of the running cluster, which its nodes and pods must use.
    pub service_cidr: Ipv4Net,
}

impl<'a> Site<'a> {
    pub fn new(spec: &Spec, facts: &Facts, cluster: ClusterOf<'a>) -> Self {
        let address = prefix(cluster.owner).join("cluster");
        let services = facts.service_cidrs.get(&address).filter(|_| !facts.replacing.contains(&address));
        Self {
            service_cidr: services.copied().unwrap_or(spec.network.service_cidr),
            name: Names::new(spec).cluster(cluster.owner),
            version: facts.next_version(spec, &cluster),
            prefix: prefix(cluster.owner),
            cluster,
        }
    }

    pub fn at(&self, part: &str) -> Address {
        self.prefix.join(part)
    }

    /// A reference to an output of one of this cluster's resources.
    pub fn output(&self, part: &str, output: &str) -> String {
        reference(&self.at(part), output)
    }

    /// The common prefix of the addresses of this cluster's access entries.
    pub fn access_entries(&self) -> Address {
        self.at("cluster/access-entry/")
    }

    /// ringfence's image, if the cluster has the admission webhook.
    pub fn webhook_image<'s>(&self, spec: &'s Spec) -> Option<&'s str> {
        let is_on = self.cluster.profile.policy_engine == PolicyEngine::Webhook;
        spec.images.ringfence.as_deref().filter(|_| is_on)
    }

    pub fn silo(&self) -> bool {
        matches!(self.cluster.owner, Owner::Tenant(_))
    }
}

/// The facts of a VPC that the rest of its cluster needs.
pub(super) struct Network {
    pub cidr: Ipv4Net,
    /// Private subnets, in order of zone.
    pub private: Vec<Placed>,
    /// The zones of nodes.
    pub nodes: BTreeSet<String>,
    /// The zones of the control plane's interfaces.
    pub cluster: BTreeSet<String>,
    /// Route tables and endpoints, which nodes need before they start.
    pub ways: Vec<Address>,
}

/// A subnet with its address.
pub(super) struct Placed {
    pub address: Address,
    pub cidr: Ipv4Net,
    pub zone: String,
}

impl Network {
    /// Ids of the private subnets of nodes.
    pub fn node_ids(&self) -> Vec<String> {
        self.ids(&self.nodes)
    }

    /// Ids of the private subnets with the control plane's interfaces.
    pub fn cluster_ids(&self) -> Vec<String> {
        self.ids(&self.cluster)
    }

    fn ids(&self, zones: &BTreeSet<String>) -> Vec<String> {
        self.private.iter().filter(|s| zones.contains(&s.zone)).map(|s| reference(&s.address, "id")).collect()
    }

    /// Ids of the nodes' subnets in zones for which `has` is true. If no zone qualifies, ids of all of them: then AWS
    /// refuses the call with its own reason.
    pub fn node_ids_in(&self, has: impl Fn(&str) -> bool) -> Vec<String> {
        let some: BTreeSet<String> = self.nodes.iter().filter(|zone| has(zone)).cloned().collect();
        if some.is_empty() { self.node_ids() } else { self.ids(&some) }
    }
}
