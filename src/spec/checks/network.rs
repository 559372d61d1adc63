//! The networks of clusters, and the endpoints in them.

use std::collections::BTreeSet;

use super::{Checker, Member, tenancy};
use crate::spec::error::Code;
use crate::spec::network;
use crate::spec::said::ENDPOINTS;
use crate::spec::settings::IsolationModel;
use crate::spec::tree::Node;
use crate::spec::words::list;

impl<'a> Checker<'a, '_> {
    /// Checks the network of each cluster and its VPC, of silos and pools.
    pub(super) fn clusters(&mut self, pools: &mut [Member<'a>], tenants: &mut [Member<'a>]) {
        let is_silo = |t: &&mut Member| t.said.isolation == Some(IsolationModel::Silo);
        let mut clusters: Vec<&mut Member> = pools.iter_mut().chain(tenants.iter_mut().filter(is_silo)).collect();
        if let Some(node) = self.at("spec.network") {
            network::check(node, clusters.len(), self.findings);
        }
        for cluster in &clusters {
            self.way_out(cluster);
            self.replaced_endpoints(cluster);
            self.support(cluster);
        }
        self.open_endpoints(&mut clusters);
    }

    /// Without NAT gateways, nodes reach AWS only through VPC endpoints.
    pub(super) fn way_out(&mut self, cluster: &Member<'a>) {
        let nat = self.effective(cluster, &["network", "natGateways"]);
        let Some((nat, path)) = nat.filter(|(n, _)| n.text() == Some("none")) else { return };
        let endpoints = self.effective(cluster, &ENDPOINTS);
        let has: Vec<&str> = endpoints.iter().flat_map(|(n, _)| n.items()).filter_map(Node::text).collect();
        let missing: Vec<&str> = network::WITHOUT_NAT.iter().copied().filter(|e| !has.contains(e)).collect();
        if missing.is_empty() {
            return;
        }
        let message = format!("without NAT gateways, nodes need VPC endpoints for {}", list(missing.iter().copied()));
        let help = format!(
            "add {} to `endpoints`, or set `natGateways` to `single` or `per-zone`",
            list(missing.iter().copied())
        );
        let place = cluster.said.place_of(nat, path);
        self.findings.error(place.error(Code::Network, message).help(help));
    }

    /// Warns of endpoints in a profile that replace the tenancy's: they are not added to them.
    pub(super) fn replaced_endpoints(&mut self, cluster: &Member<'a>) {
        let said = tenancy(self.root, &ENDPOINTS);
        let (Some(said), Some((node, path))) = (said, self.effective(cluster, &ENDPOINTS)) else { return };
        let place = cluster.said.place_of(node, path);
        let all = |node: &Node| -> BTreeSet<String> {
            node.items().iter().filter_map(Node::text).map(str::to_owned).collect()
        };
        let (ours, theirs) = (all(said), all(node));
        if place.related.is_none() || ours == theirs {
            return;
        }
        let named = |all: &BTreeSet<String>| list(all.iter().map(String::as_str));
        let message = format!(
            "{} gets the VPC endpoints of its profile, {}. They replace those of `spec.network`, {}",
            cluster.what,
            named(&theirs),
            named(&ours)
        );
        let help = "set `network.endpoints` for it in the spec, or write the same list in both places";
        self.findings.warn(place.error(Code::Network, message).help(help));
    }
}
