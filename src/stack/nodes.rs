//! Nodes: security groups, launch templates, managed node groups.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::access::ServiceLinked;
use super::cluster::{DAEMONS, ROLE_LABEL};
use super::network::Network;
use super::{Facts, Site, Stack, Terms};
use crate::aws::tags;
use crate::engine::address::Address;
use crate::engine::desired::{Desired, Refusal};
use crate::engine::error::{Error, Result};
use crate::engine::value::{reference, references};
use crate::kinds::aws::security_group::Permission;
use crate::kinds::aws::{launch_template, node_group, security_group};
use crate::spec::names::{self, SYSTEM_NODE_GROUP};
use crate::spec::{
    AmiFamily, Architecture, CapacityType, Control, Imds, ImdsTokens, Isolation, KubernetesVersion, NatGateways, Nodes,
    Owner, Spec, Volume,
};
use crate::version::{compare_releases, is_safe_release};

const HTTPS: u16 = 443;
const DNS: u16 = 53;
const KUBELET: u16 = 10250;
/// The port of the metrics-server add-on (EKS User Guide, "View resource usage
/// with the Kubernetes Metrics Server").
const METRICS: u16 = 10251;
/// The usual ports of webhooks.
const WEBHOOKS: [u16; 4] = [HTTPS, 4443, 8443, 9443];

/// The taint and the label of a tenant's nodes (rows NODE-1 and NODE-2).
const TENANT_KEY: &str = "tenantID";

/// A node group with the resources that it needs.
struct NodeSet<'a> {
    /// The name of the instances, for people.
    instances: String,
    role: Address,
    group: Address,
    template: Address,
    /// Name of the launch template.
    template_name: String,
    address: Address,
    /// Name of the node group.
    name: String,
    nodes: &'a Nodes,
    imds: &'a Imds,
    labels: BTreeMap<String, String>,
    taints: Vec<node_group::Taint>,
    controls: Vec<Control>,
}

impl Stack<'_> {
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

    /// Adds the nodes for the cluster's own pods.
    pub(super) fn system_nodes(&mut self, site: &Site<'_>, network: &Network) -> Result<()> {
        let group = site.at("security-group/system-nodes");
        let mut ingress = self.node_ingress(site);
        ingress.push(from_group(self.control_plane(site), METRICS, "Metrics API from the control plane"));
        ingress.extend(from_subnets(network, "tcp", DNS, "DNS from private subnets"));
        ingress.extend(from_subnets(network, "udp", DNS, "DNS from private subnets"));
        let owner = site.cluster.owner;
        let rules = Rules::and_out(ingress);
        let rules = rules.and_load_balancers(true);
        self.security_group(site, (group.clone(), "system-nodes"), owner, "System nodes", rules, &[])?;
        let profile = site.cluster.profile;
        let role = site.at("role/system-nodes");
        let shared = self.ecr(std::slice::from_ref(&self.spec.images.shared));
        self.node_role(&role, self.names.role(owner, "system-nodes"), &shared)?;
        self.node_set(
            site,
            network,
            NodeSet {
                instances: self.names.launch_template(owner, "system"),
                role,
                group,
                template: site.at("launch-template/system"),
                template_name: self.names.launch_template(owner, "system"),
                address: site.at("node-group/system"),
                name: SYSTEM_NODE_GROUP.to_owned(),
                nodes: &profile.system_nodes,
                imds: &profile.imds,
                labels: [(ROLE_LABEL.0.to_owned(), ROLE_LABEL.1.to_owned())].into(),
                taints: Vec::new(),
                controls: Vec::new(),
            },
        )
    }

    /// Adds a tenant's own nodes. In a shared cluster they are tainted, so that
    /// no pods of others start or stay there.
    pub(super) fn tenant_nodes(
        &mut self,
        site: &Site<'_>,
        network: &Network,
        tenant: &crate::spec::Tenant,
        home: &Address,
    ) -> Result<()> {
        let owner = Owner::Tenant(&tenant.id);
        let group = home.join("security-group");
        // In a silo, the VPC isolates the tenant. In a pool, the taint does.
        let apart = if site.silo() { Control::SiloSeparation } else { Control::NodeTaint };
        self.tenant_group(site, (group.clone(), "nodes"), tenant, "Nodes of one tenant", apart)?;
        let role = home.join("role/nodes");
        self.node_role(&role, self.names.home_role(tenant, "nodes"), &self.registries(tenant))?;
        let taint = |effect: &str| node_group::Taint {
            key: TENANT_KEY.to_owned(),
            value: tenant.id.clone(),
            effect: effect.to_owned(),
        };
        let shared = !site.silo();
        self.node_set(
            site,
            network,
            NodeSet {
                instances: self.names.launch_template(owner, "nodes"),
                role,
                group,
                template: home.join("launch-template"),
                template_name: self.names.home_launch_template(tenant, "nodes"),
                address: home.join("node-group"),
                name: names::node_group(&tenant.id),
                nodes: &tenant.profile.nodes,
                imds: &tenant.profile.imds,
                labels: [(TENANT_KEY.to_owned(), tenant.id.clone())].into(),
                taints: if shared { vec![taint("NO_EXECUTE"), taint("NO_SCHEDULE")] } else { Vec::new() },
                controls: if shared { vec![Control::NodeTaint, Control::NodeSelector] } else { Vec::new() },
            },
        )
    }

    /// Adds the security group of a tenant's nodes or pods. It replaces the
    /// cluster's own group, which allows all traffic among its members.
    pub(super) fn tenant_group(
        &mut self,
        site: &Site<'_>,
        group: (Address, &str),
        tenant: &crate::spec::Tenant,
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

    fn node_set(&mut self, site: &Site<'_>, network: &Network, set: NodeSet<'_>) -> Result<()> {
        let nodes = set.nodes;
        let name = set.template_name.clone();
        let instance_tags = self.instance_tags(&set.template, &set.instances);
        let mut controls = Vec::new();
        if set.imds.tokens == ImdsTokens::Required && set.imds.hop_limit == 1 {
            controls.push(Control::Imds);
        }
        if nodes.ami_family != AmiFamily::Al2023 {
            controls.push(Control::HostOs);
        }
        controls.push(Control::PodSeccomp);
        if nodes.pod_pids_limit.is_some() {
            controls.push(Control::Quota);
        }
        let state = launch_template::State {
            image: nodes.ami_id.clone().filter(|_| nodes.ami_family == AmiFamily::Custom),
            security_groups: vec![reference(&set.group, "id")],
            metadata: launch_template::Metadata {
                endpoint: "enabled".to_owned(),
                tokens: match set.imds.tokens {
                    ImdsTokens::Required => "required",
                    ImdsTokens::Optional => "optional",
                }
                .to_owned(),
                hop_limit: i32::from(set.imds.hop_limit),
                ipv6: "disabled".to_owned(),
                instance_tags: "disabled".to_owned(),
            },
            volumes: volumes(site, nodes),
            user_data: self.user_data(site, &set)?,
            instance_tags: instance_tags.clone(),
            other: BTreeMap::new(),
            tags: self.tags(&set.template, &name),
            name,
        };
        self.put(set.template.clone(), launch_template::NAME, &state, Terms::default().controls(&controls))?;

        let release = self.release(site, &set);
        let size =
            |n: u32| i32::try_from(n).map_err(|_| Error::bug(format!("{}: {n} nodes are too many", set.address)));
        let state = node_group::State {
            cluster: site.output("cluster", "name"),
            role: reference(&set.role, "arn"),
            subnets: network.node_ids(),
            ami_type: ami_type(nodes).to_owned(),
            capacity_type: match nodes.capacity_type {
                CapacityType::OnDemand => "ON_DEMAND",
                CapacityType::Spot => "SPOT",
            }
            .to_owned(),
            instance_types: nodes.instance_types.clone(),
            template: reference(&set.template, "id"),
            template_version: reference(&set.template, "version"),
            instance_tags,
            labels: set.labels,
            taints: set.taints,
            min: size(nodes.min)?,
            max: size(nodes.max)?,
            desired: size(nodes.desired)?,
            max_unavailable: format!("{}%", nodes.max_unavailable_percentage),
            version: self.node_version(site, &set.address),
            release_version: release,
            repair: nodes.node_repair.or((self.facts.partition == "aws").then_some(true)),
            tags: self.tags(&set.address, format!("{}-{}", site.name, set.name)),
            name: set.name,
        };
        let linked = self.service_linked(ServiceLinked::NodeGroup)?;
        let daemons = DAEMONS.map(|addon| site.at(&format!("addon/{addon}")));
        let mut controls = set.controls;
        controls.push(Control::Quota);
        // A node that starts before its routes, its network settings or its
        // agents exist joins broken or not at all (amazon-vpc-cni-k8s 3840).
        let terms = Terms::default().after([linked]).after(daemons).after(network.ways.clone()).controls(&controls);
        self.put(set.address, node_group::NAME, &state, terms)
    }

    /// The image's release. First the pinned one; else the running one, if it
    /// is for the cluster's version and isn't below the floor; else the newest.
    /// `None` if AWS lists none: then EKS uses its newest. A pin that is older
    /// than the running release is refused: EKS can't take a group back (EKS
    /// API, UpdateNodegroupVersion).
    fn release(&mut self, site: &Site<'_>, set: &NodeSet<'_>) -> Option<String> {
        let ami_type = ami_type(set.nodes);
        let version = site.version.to_string();
        let facts = self.facts;
        let newest = facts.releases.get(&(ami_type.to_owned(), version.clone()));
        let running = facts.images.get(&set.address).filter(|i| i.ami_type == ami_type && i.version == version);
        let running = running.map(|i| &i.release);
        // A group that somebody rolled back keeps its image, too.
        if let Some(image) = facts.images.get(&set.address).filter(|_| self.went_back(site, &set.address).is_some()) {
            return Some(image.release.clone());
        }
        // A pin below the floor needs a waiver. The checks of the spec made
        // sure of that.
        if let Some(pin) = set.nodes.release_version.as_ref().filter(|_| ami_type != "CUSTOM") {
            let Some(running) = running.filter(|running| compare_releases(pin, running) == Ordering::Less) else {
                return Some(pin.clone());
            };
            self.desired.refusals.push(Refusal {
                address: set.address.clone(),
                kind: node_group::NAME,
                path: "release_version",
                is: running.clone(),
                asked: pin.clone(),
                reason: format!(
                    "its nodes run image release {running}, and EKS takes no node group back to the older {pin}"
                ),
                help: format!("set releaseVersion to {running} or later, or leave it out"),
                pending: false,
            });
            return Some(running.clone());
        }
        let ahead = |r: &&String| newest.is_some_and(|newest| compare_releases(r, newest) == Ordering::Greater);
        let stays = |r: &&String| is_safe_release(ami_type, r) && (!facts.upgrade || ahead(r));
        running.filter(stays).or(newest).cloned()
    }

    /// The version of a node group: the control plane's, after its upgrade in
    /// this run. In a run that doesn't change the cluster, nodes must not get a
    /// newer version than the control plane. For a rollback, EKS requires that
    /// nodes go back before the control plane. So a group that somebody rolled
    /// back keeps its version.
    fn node_version(&self, site: &Site<'_>, group: &Address) -> String {
        self.went_back(site, group).map_or_else(|| site.output("cluster", "version"), |version| version.to_string())
    }

    /// The version of a group that somebody rolled back before its control
    /// plane.
    fn went_back(&self, site: &Site<'_>, group: &Address) -> Option<KubernetesVersion> {
        let version = self.facts.node_groups.get(group)?.version;
        (version >= site.cluster.kubernetes_version && version < site.version)
            .then_some(version)
            .filter(|_| site.cluster.kubernetes_version < site.version)
    }

    /// Tags of instances and volumes, for finding and billing. They have no
    /// address tag, because they aren't resources of the plan.
    fn instance_tags(&self, template: &Address, name: &str) -> BTreeMap<String, String> {
        let mut all = self.tags(template, name);
        all.remove(tags::ADDRESS);
        all
    }

    fn user_data(&self, site: &Site<'_>, set: &NodeSet<'_>) -> Result<String> {
        let mut context = json!({"nodes": set.nodes, "fipsEndpoints": self.fips_endpoints(site)});
        match set.nodes.ami_family {
            AmiFamily::Bottlerocket => self.templates.toml("user-data/bottlerocket.toml", &context, &set.template),
            AmiFamily::Al2023 => self.node_config(&context, set),
            // EKS adds nothing to the user data of a custom image. So the user
            // data must name the cluster, the labels and the taints.
            AmiFamily::Custom => {
                context["cluster"] = json!({
                    "name": site.output("cluster", "name"),
                    "endpoint": site.output("cluster", "endpoint"),
                    "certificateAuthority": site.output("cluster", "certificate_authority"),
                    "serviceCidr": site.service_cidr,
                });
                context["flags"] = json!(kubelet_flags(set));
                self.node_config(&context, set)
            }
        }
    }

    /// Whether nodes can reach AWS's FIPS endpoints. These exist only in the US
    /// and Canada, and VPC interface endpoints don't resolve their names
    /// (Bottlerocket's settings reference, `settings.aws.config`; bottlerocket,
    /// issue 4372).
    fn fips_endpoints(&self, site: &Site<'_>) -> bool {
        let there = ["us-", "ca-"].iter().any(|place| self.spec.region.starts_with(place));
        there && site.cluster.network.nat_gateways != NatGateways::None
    }

    /// A NodeConfig in the MIME envelope that Amazon Linux 2023 expects.
    fn node_config(&self, context: &serde_json::Value, set: &NodeSet<'_>) -> Result<String> {
        let documents = self.templates.yaml("user-data/node-config.yaml", context, &set.template)?;
        let mut text = String::from("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"ringfence\"\n\n");
        for document in documents {
            text.push_str(&format!("--ringfence\nContent-Type: application/node.eks.aws\n\n{document}\n"));
        }
        text.push_str("--ringfence--\n");
        Ok(text)
    }
}

/// The images of the spec's nodes, now and after this run, by AMI type and
/// Kubernetes version. Their newest releases are read.
pub fn images(spec: &Spec, facts: &Facts) -> BTreeSet<(String, String)> {
    let mut wanted = BTreeSet::new();
    for cluster in spec.clusters() {
        let version = facts.next_version(spec, &cluster).to_string();
        let tenants = spec.tenants.iter().filter(|tenant| match (cluster.owner, &tenant.isolation) {
            (Owner::Tenant(id), Isolation::Silo) => tenant.id == id,
            (Owner::Pool(name), Isolation::Pool { pool }) => name == pool,
            _ => false,
        });
        let sets = std::iter::once(&cluster.profile.system_nodes).chain(tenants.map(|tenant| &tenant.profile.nodes));
        let sets = sets.filter(|nodes| nodes.ami_family != AmiFamily::Custom);
        wanted.extend(sets.map(|nodes| (ami_type(nodes).to_owned(), version.clone())));
    }
    wanted
}

/// Notes about images that stay older than the newest release.
pub fn old_images(desired: &Desired, facts: &Facts) -> Vec<String> {
    let mut old: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut unknown: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for resource in desired.iter().filter(|r| r.kind == node_group::NAME) {
        let field = |name: &str| resource.state.get(name).unwrap_or(&Value::Null);
        let text = |name: &str| field(name).as_str().unwrap_or_default().to_owned();
        // Nodes whose version is a reference have their cluster's version.
        let cluster = references(field("version")).into_iter().find_map(|(address, _)| desired.get(&address));
        let version = match cluster {
            Some(cluster) => cluster.state.get("version").and_then(Value::as_str).unwrap_or_default().to_owned(),
            None => text("version"),
        };
        let (image, release) = ((text("ami_type"), version), text("release_version"));
        let address = resource.address.to_string();
        match facts.releases.get(&image) {
            _ if image.0 == "CUSTOM" => {}
            Some(newest) if !release.is_empty() && compare_releases(&release, newest) == Ordering::Less => {
                old.entry((release, newest.clone())).or_default().push(address);
            }
            Some(_) => {}
            None => unknown.entry(image).or_default().push(address),
        }
    }
    let old = old.into_iter().map(|((release, newest), groups)| {
        format!(
            "{}: nodes stay on image release {release}, and {newest} is out; --upgrade takes it where the spec has no `releaseVersion`",
            groups.join(", ")
        )
    });
    let unknown = unknown.into_iter().map(|((ami_type, version), groups)| {
        let absent = || format!("Systems Manager has no public parameter for {ami_type}, Kubernetes {version}");
        let why = facts.releases_unread.clone().unwrap_or_else(absent);
        format!("{}: whether their image is the newest isn't known: {why}", groups.join(", "))
    });
    old.chain(unknown).collect()
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

/// Bottlerocket has separate volumes for system and data; other images have one
/// volume (EKS User Guide, "Customize managed nodes with launch templates").
fn volumes(site: &Site<'_>, nodes: &Nodes) -> Vec<launch_template::Volume> {
    let volume = |device: &str, of: Option<&Volume>| launch_template::Volume {
        device: device.to_owned(),
        size: of.and_then(|v| i32::try_from(v.size_gib).ok()),
        kind: "gp3".to_owned(),
        iops: of.and_then(|v| v.iops).and_then(|n| i32::try_from(n).ok()),
        throughput: of.and_then(|v| v.throughput).and_then(|n| i32::try_from(n).ok()),
        encrypted: true,
        key: Some(site.output("key", "arn")),
        delete_on_termination: true,
    };
    let root = nodes.root_volume.as_ref();
    match nodes.ami_family {
        AmiFamily::Bottlerocket => vec![volume("/dev/xvda", root), volume("/dev/xvdb", Some(&nodes.data_volume))],
        AmiFamily::Al2023 | AmiFamily::Custom => vec![volume("/dev/xvda", root.or(Some(&nodes.data_volume)))],
    }
}

fn ami_type(nodes: &Nodes) -> &'static str {
    match (nodes.ami_family, nodes.architecture, nodes.fips) {
        (AmiFamily::Bottlerocket, Architecture::X86_64, false) => "BOTTLEROCKET_x86_64",
        (AmiFamily::Bottlerocket, Architecture::X86_64, true) => "BOTTLEROCKET_x86_64_FIPS",
        (AmiFamily::Bottlerocket, Architecture::Arm64, false) => "BOTTLEROCKET_ARM_64",
        (AmiFamily::Bottlerocket, Architecture::Arm64, true) => "BOTTLEROCKET_ARM_64_FIPS",
        (AmiFamily::Al2023, Architecture::X86_64, _) => "AL2023_x86_64_STANDARD",
        (AmiFamily::Al2023, Architecture::Arm64, _) => "AL2023_ARM_64_STANDARD",
        (AmiFamily::Custom, ..) => "CUSTOM",
    }
}

/// Labels and taints, as flags of the kubelet.
fn kubelet_flags(set: &NodeSet<'_>) -> Vec<String> {
    let labels: Vec<String> = set.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let taints: Vec<String> = set
        .taints
        .iter()
        .map(|t| format!("{}={}:{}", t.key, t.value, if t.effect == "NO_EXECUTE" { "NoExecute" } else { "NoSchedule" }))
        .collect();
    let flag = |name: &str, values: &[String]| (!values.is_empty()).then(|| format!("--{name}={}", values.join(",")));
    [flag("node-labels", &labels), flag("register-with-taints", &taints)].into_iter().flatten().collect()
}
