//! Security groups and their rules.

use super::builder::{Builder, Terms};
use super::site::{Network, Site};
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::kinds::aws::security_group::{self, Permission};
use crate::spec::{Control, Owner, Tenant};

const HTTPS: u16 = 443;
const DNS: u16 = 53;
const KUBELET: u16 = 10250;
/// The port of the metrics-server add-on (EKS User Guide, "View resource usage
/// with the Kubernetes Metrics Server").
const METRICS: u16 = 10251;
/// The usual ports of webhooks.
const WEBHOOKS: [u16; 4] = [HTTPS, 4443, 8443, 9443];

impl Builder<'_> {
    /// Adds the security group of the control plane's interfaces. They also
    /// have EKS's own group, which allows egress.
    pub(super) fn control_plane_group(&mut self, site: &Site<'_>, network: &Network) -> Result<()> {
        let mut ingress = from_subnets(network, "tcp", HTTPS, "Kubernetes API from private subnets");
        let sources = self.spec.access.private_sources.iter();
        ingress
            .extend(sources.map(|peer| from_group(peer.clone(), HTTPS, "Kubernetes API from access.privateSources")));
        let group = (site.at("security-group/control-plane"), "control-plane");
        self.security_group(site, group, site.cluster.owner, "Control plane", Rules::only(ingress), &[])
    }

    /// Adds the security group of the nodes for the cluster's own pods.
    pub(super) fn system_group(&mut self, site: &Site<'_>, network: &Network, group: Address) -> Result<()> {
        let mut ingress = self.node_ingress(site);
        ingress.push(from_group(self.control_plane(site), METRICS, "Metrics API from the control plane"));
        ingress.extend(from_subnets(network, "tcp", DNS, "DNS from private subnets"));
        ingress.extend(from_subnets(network, "udp", DNS, "DNS from private subnets"));
        let rules = Rules::and_out(ingress).and_load_balancers(true);
        self.security_group(site, (group, "system-nodes"), site.cluster.owner, "System nodes", rules, &[])
    }

    /// Adds the security group of a tenant's nodes or pods. It replaces the
    /// cluster's own group, which allows all traffic among its members.
    pub(super) fn tenant_group(
        &mut self,
        site: &Site<'_>,
        group: (Address, &str),
        tenant: &Tenant,
        description: &str,
        control: Control,
    ) -> Result<()> {
        let owner = Owner::Tenant(&tenant.id);
        let mut ingress = self.node_ingress(site);
        let system = site.output("security-group/system-nodes", "id");
        ingress.push(from_group(system, KUBELET, "Metrics of the kubelet from system nodes"));
        let rules = Rules::and_out(ingress).and_load_balancers(tenant.profile.exposure.load_balancers);
        self.security_group(site, group, owner, description, rules, &[control])
    }

    fn control_plane(&self, site: &Site<'_>) -> String {
        site.output("security-group/control-plane", "id")
    }

    /// Ingress of all nodes: from nodes of the same group, and from the control
    /// plane.
    fn node_ingress(&self, site: &Site<'_>) -> Vec<Permission> {
        let own = Permission {
            protocol: "-1".to_owned(),
            from: 0,
            to: 0,
            peer: "self".to_owned(),
            description: "Members of this group".to_owned(),
        };
        let kubelet = from_group(self.control_plane(site), KUBELET, "Kubelet from the control plane");
        let webhooks =
            WEBHOOKS.map(|port| from_group(self.control_plane(site), port, "Webhooks from the control plane"));
        [own, kubelet].into_iter().chain(webhooks).collect()
    }

    /// `purpose` is a part of the group's name.
    pub(super) fn security_group(
        &mut self,
        site: &Site<'_>,
        (address, purpose): (Address, &str),
        owner: Owner<'_>,
        description: &str,
        rules: Rules,
        controls: &[Control],
    ) -> Result<()> {
        let name = self.names.security_group(owner, purpose);
        let state = security_group::State {
            vpc: site.output("vpc", "id"),
            description: description.to_owned(),
            ingress: rules.ingress,
            egress: rules.egress,
            load_balancers: (!rules.load_balancers).then(Vec::new),
            controller_tags: None,
            tags: self.tags(&address, &name),
            name,
        };
        self.put(address, security_group::NAME, &state, Terms::default().controls(controls))
    }
}

/// The rules of a security group.
pub(super) struct Rules {
    ingress: Vec<Permission>,
    egress: Vec<Permission>,
    /// Whether rules of a load balancer controller stay.
    load_balancers: bool,
}

impl Rules {
    fn and_load_balancers(self, load_balancers: bool) -> Self {
        Self { load_balancers, ..self }
    }

    /// Ingress only, no egress.
    pub fn only(mut ingress: Vec<Permission>) -> Self {
        ingress.sort();
        Self { ingress, egress: Vec::new(), load_balancers: false }
    }

    /// Ingress, and egress to everywhere: the targets have rules of their own.
    fn and_out(ingress: Vec<Permission>) -> Self {
        let egress = Permission {
            protocol: "-1".to_owned(),
            from: 0,
            to: 0,
            peer: "0.0.0.0/0".to_owned(),
            description: "Anywhere that a route leads".to_owned(),
        };
        Self { egress: vec![egress], ..Self::only(ingress) }
    }
}

fn from_group(peer: String, port: u16, description: &str) -> Permission {
    let port = i32::from(port);
    Permission { protocol: "tcp".to_owned(), from: port, to: port, peer, description: description.to_owned() }
}

/// One rule for each private subnet. The number doesn't depend on the number of
/// tenants.
pub(super) fn from_subnets(network: &Network, protocol: &str, port: u16, description: &str) -> Vec<Permission> {
    let rule = |peer| Permission { protocol: protocol.to_owned(), ..from_group(peer, port, description) };
    network.private.iter().map(|s| rule(s.cidr.to_string())).collect()
}
