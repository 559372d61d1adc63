//! Nodes: launch templates and managed node groups.

use std::collections::BTreeMap;

use serde_json::json;

use super::addons::{DAEMONS, ROLE_LABEL};
use super::builder::{Builder, Terms};
use super::node_versions::ami_type;
use super::roles::{Grants, ServiceLinked};
use super::site::{Network, Site};
use crate::aws::tags;
use crate::engine::address::Address;
use crate::engine::error::{Error, Result};
use crate::engine::value::reference;
use crate::kinds::aws::{launch_template, node_group};
use crate::spec::names::{self, SYSTEM_NODE_GROUP};
use crate::spec::{
    AmiFamily, CapacityType, Control, Imds, ImdsTokens, NatGateways, Nodes, Owner, Tenant, Volume, repository,
};

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

impl Builder<'_> {
    /// Adds the nodes for the cluster's own pods.
    pub(super) fn system_nodes(&mut self, site: &Site<'_>, network: &Network) -> Result<()> {
        let group = site.at("security-group/system-nodes");
        let owner = site.cluster.owner;
        self.system_group(site, network, group.clone())?;
        let profile = site.cluster.profile;
        let role = site.at("role/system-nodes");
        let mut registries = self.ecr(std::slice::from_ref(&self.spec.images.shared));
        let gateway = site.cluster.gateway.map(|gateway| gateway.image.as_str());
        registries
            .extend(gateway.into_iter().chain(site.webhook_image(self.spec)).map(|image| repository(image).to_owned()));
        self.node_role(&role, self.names.role(owner, "system-nodes"), &registries)?;
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
        tenant: &Tenant,
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

    /// Adds the role of nodes. An attacker who steals a node's credentials has this role's permissions. `registries`
    /// are the sources of its pods' images.
    fn node_role(&mut self, address: &Address, name: String, registries: &[String]) -> Result<()> {
        // In China, EC2's principal has the partition's suffix (Amazon Web
        // Services in China, "IAM"; bottlerocket-update-operator issue 316).
        let ec2 = if self.facts.partition == "aws-cn" { "ec2.amazonaws.com.cn" } else { "ec2.amazonaws.com" };
        let trust = self.document("iam/node-trust.json", address, json!({"ec2Service": ec2}))?;
        // This replaces AmazonEC2ContainerRegistryPullOnly, which allows every repository of the account. EKS accepts a
        // custom policy in its place (EKS User Guide, "Amazon EKS node IAM role").
        let images = self.images_policy(address, registries)?;
        let grants = Grants::attached(vec![self.managed_policy("AmazonEKSWorkerNodePolicy")]).and("images", images);
        self.role(address.clone(), name, trust, grants)
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

        let release = self.release(site, &set.address, nodes);
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
