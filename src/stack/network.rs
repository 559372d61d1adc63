//! VPCs: CIDR blocks, subnets, gateways, routes, endpoints, flow logs.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde_json::json;

use super::access::Grants;
use super::nodes::{Rules, from_subnets};
use super::{Endpoint, Facts, Site, Stack, Subnet, Terms};
use crate::engine::address::Address;
use crate::engine::desired::Refusal;
use crate::engine::error::{Error, Result};
use crate::engine::value::reference;
use crate::kinds::aws::{
    elastic_ip, flow_log, internet_gateway, log_group, nat_gateway, route_table, subnet, vpc, vpc_endpoint,
};
use crate::spec::{Control, NatGateways, Spec, is_gateway_endpoint};

/// The smallest subnet (EC2, CreateSubnet).
const SMALLEST_SUBNET: u8 = 28;

/// A public subnet is a 64th of its VPC, if AWS allows subnets of that size.
const PUBLIC_BITS: u8 = 6;

const ANYWHERE: &str = "0.0.0.0/0";

/// The facts of a VPC that the rest of its cluster needs.
pub(super) struct Network {
    pub cidr: Ipv4Net,
    /// Private subnets, in order of zone.
    pub private: Vec<Placed>,
    /// The zones of nodes.
    nodes: BTreeSet<String>,
    /// The zones of the control plane's interfaces.
    cluster: BTreeSet<String>,
    /// Route tables and endpoints, which nodes need before they start.
    pub ways: Vec<Address>,
}

/// A subnet with its address.
pub(super) struct Placed {
    pub address: Address,
    pub cidr: Ipv4Net,
    zone: String,
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

    /// Ids of the nodes' subnets in zones for which `has` is true. If no zone qualifies, ids of all of them: AWS will
    /// refuse.
    pub fn node_ids_in(&self, has: impl Fn(&str) -> bool) -> Vec<String> {
        let some: BTreeSet<String> = self.nodes.iter().filter(|zone| has(zone)).cloned().collect();
        if some.is_empty() { self.node_ids() } else { self.ids(&some) }
    }
}

/// The CIDR block of every VPC. Existing VPCs keep theirs. New ones get the lowest free block of the supernet, in the
/// order of addresses.
pub(super) fn blocks(spec: &Spec, facts: &Facts) -> Result<BTreeMap<Address, Ipv4Net>> {
    let wanted: BTreeSet<Address> = spec.clusters().map(|c| super::vpc(c.owner)).collect();
    let mut taken: Vec<Ipv4Net> = facts.vpcs.values().copied().collect();
    let mut blocks = BTreeMap::new();
    for address in wanted {
        let block = match facts.vpcs.get(&address) {
            Some(block) => *block,
            None => lowest_free(spec.network.supernet, spec.network.vpc_prefix, &taken).ok_or_else(|| {
                Error::input(format!(
                    "the supernet {} has no free /{} block for {address}",
                    spec.network.supernet, spec.network.vpc_prefix
                ))
                .help("enlarge network.supernet to a block that holds this one; VPCs that exist keep their blocks")
            })?,
        };
        taken.push(block);
        blocks.insert(address, block);
    }
    Ok(blocks)
}

/// Notes about new VPCs that overlap other VPCs of the account.
pub(super) fn overlaps(facts: &Facts, blocks: &BTreeMap<Address, Ipv4Net>) -> BTreeSet<String> {
    let new = blocks.iter().filter(|(address, _)| !facts.vpcs.contains_key(*address));
    let mut notes = BTreeSet::new();
    for (address, block) in new {
        let overlap = |other: &&Ipv4Net| other.contains(block) || block.contains(*other);
        for (id, other) in facts.other_vpcs.iter().filter_map(|(id, all)| Some((id, all.iter().find(overlap)?))) {
            notes.insert(format!(
                "{address}: its block {block} overlaps {id} ({other}) of this account: the two can't be peered, nor reach each other through a transit gateway"
            ));
        }
    }
    notes
}

/// Refusals for VPCs whose blocks aren't in the supernet: a VPC can't get another block.
pub(super) fn refusals(spec: &Spec, facts: &Facts) -> Vec<Refusal> {
    let supernet = spec.network.supernet;
    let existing = spec.clusters().filter_map(|c| facts.vpcs.get_key_value(&super::vpc(c.owner)));
    let outside = existing.filter(|(_, block)| !supernet.contains(*block));
    let refusal = |(address, block): (&Address, &Ipv4Net)| Refusal {
        address: address.clone(),
        kind: vpc::NAME,
        path: "cidr",
        is: block.to_string(),
        asked: format!("a block of {supernet}"),
        reason: format!("a VPC keeps its block, and {block} isn't within network.supernet {supernet}"),
        help: format!(
            "set network.supernet to one that holds {block}; a VPC elsewhere takes a pool or tenant of another name"
        ),
        pending: false,
    };
    outside.map(refusal).collect()
}

/// Notes about VPCs whose size differs from that of new ones.
pub(super) fn other_sizes(spec: &Spec, facts: &Facts) -> BTreeSet<String> {
    let prefix = spec.network.vpc_prefix;
    let existing = spec.clusters().filter_map(|c| facts.vpcs.get_key_value(&super::vpc(c.owner)));
    let others = existing.filter(|(_, block)| block.prefix_len() != prefix);
    others
        .map(|(address, block)| {
            format!("{address}: it keeps its block {block}; network.vpcPrefix {prefix} is for VPCs that are made anew")
        })
        .collect()
}

/// The lowest block of this length in `within` that overlaps none of `taken`.
fn lowest_free(within: Ipv4Net, prefix: u8, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    within.subnets(prefix).ok()?.find(|block| !taken.iter().any(|t| overlaps(t, block)))
}

/// Full names of the endpoint services about which EC2 must be asked: services of interface endpoints that don't exist
/// yet, that aren't in every zone of their VPC, or whose policy allows everything.
pub fn services_to_ask(spec: &Spec, facts: &Facts) -> BTreeSet<String> {
    let mut services = BTreeSet::new();
    for cluster in spec.clusters() {
        let prefix = super::prefix(cluster.owner);
        let within = prefix.join("subnet/private-");
        let subnets = facts.subnets.iter().filter(|(address, _)| address.as_str().starts_with(within.as_str()));
        let zones: BTreeSet<&String> = subnets.map(|(_, subnet)| &subnet.zone).collect();
        let known = |there: &Endpoint| {
            let whole = zones.len() >= usize::from(spec.network.zones);
            whole && !there.open && zones.iter().all(|zone| there.zones.contains(*zone))
        };
        for service in cluster.network.endpoints.iter().filter(|service| !is_gateway_endpoint(service)) {
            let names = endpoint_services(&spec.region, service);
            if names.len() > 1 || !facts.endpoints.get(&prefix.join(format!("endpoint/{service}"))).is_some_and(known) {
                services.extend(names);
            }
        }
    }
    services
}

impl Stack<'_> {
    /// Builds one cluster's VPC.
    pub(super) fn network(&mut self, site: &Site<'_>, blocks: &BTreeMap<Address, Ipv4Net>) -> Result<Network> {
        let address = site.at("vpc");
        let cidr = *blocks.get(&address).ok_or_else(|| Error::bug(format!("{address} has no block")))?;
        let separation: &[Control] = if site.silo() { &[Control::SiloSeparation] } else { &[] };
        self.put(
            address.clone(),
            vpc::NAME,
            &vpc::State {
                cidr: cidr.to_string(),
                secondary_cidrs: Vec::new(),
                dns_support: true,
                dns_hostnames: true,
                default_group_ingress: Vec::new(),
                default_group_egress: Vec::new(),
                main_routes: Vec::new(),
                main_others: None,
                tags: self.tags(&address, &site.name),
            },
            Terms::default().controls(separation),
        )?;
        self.put(
            site.at("internet-gateway"),
            internet_gateway::NAME,
            &internet_gateway::State {
                vpc: site.output("vpc", "id"),
                tags: self.tags(&site.at("internet-gateway"), &site.name),
            },
            Terms::default(),
        )?;

        let zones = self.zones(site)?;
        let nodes: BTreeSet<String> = zones.iter().map(|(_, zone)| zone.clone()).collect();
        let cluster = self.facts.cluster_zones.get(&site.at("cluster")).unwrap_or(&nodes).clone();
        if cluster != nodes {
            let zones = |zones: &BTreeSet<String>| zones.iter().cloned().collect::<Vec<_>>().join(", ");
            self.desired.notes.insert(format!(
                "{}: its nodes go to {}, its control plane stays in {}: EKS keeps to the zones that it was made in",
                site.at("cluster"),
                zones(&nodes),
                zones(&cluster)
            ));
        }
        let all: BTreeMap<String, String> = nodes.union(&cluster).map(|zone| (suffix(zone), zone.clone())).collect();
        let all: Vec<(String, String)> = all.into_iter().collect();
        let private = self.subnets(site, cidr, &all, Side::Private)?;
        self.subnets(site, cidr, &zones, Side::Public)?;
        let gateways = self.nat_gateways(site, &zones)?;
        let ways = self.route_tables(site, &zones, &all, &gateways)?;
        let mut network = Network { cidr, private, nodes, cluster, ways };
        let endpoints = self.endpoints(site, &network)?;
        network.ways.extend(endpoints);
        if site.cluster.network.flow_logs {
            self.flow_logs(site)?;
        }
        Ok(network)
    }

    /// The zones of a VPC's nodes, as (suffix, name). First the zones in which its cluster was created, then those of
    /// its subnets, then the region's first zones.
    fn zones(&self, site: &Site<'_>) -> Result<Vec<(String, String)>> {
        let wanted = usize::from(self.spec.network.zones);
        let cluster = self.facts.cluster_zones.get(&site.at("cluster")).into_iter().flatten().map(String::as_str);
        let existing: BTreeSet<&str> = self.existing(site).map(|subnet| subnet.zone.as_str()).collect();
        let offered: BTreeSet<&str> = self.facts.zones.iter().map(|z| z.name.as_str()).collect();
        let mut zones: BTreeMap<String, String> = BTreeMap::new();
        for zone in cluster.chain(existing).chain(offered) {
            if zones.len() < wanted {
                zones.insert(suffix(zone), zone.to_owned());
            }
        }
        if zones.len() < wanted {
            return Err(Error::input(format!(
                "network.zones is {wanted}, but {} has {} zones that EKS can use",
                self.spec.region,
                zones.len()
            ))
            .help(format!("set network.zones to {} or less", zones.len())));
        }
        Ok(zones.into_iter().collect())
    }

    /// The existing subnets of a VPC.
    fn existing<'s>(&'s self, site: &Site<'_>) -> impl Iterator<Item = &'s Subnet> {
        let within = site.at("subnet/");
        let all = self.facts.subnets.iter();
        all.filter(move |(address, _)| address.as_str().starts_with(within.as_str())).map(|(_, subnet)| subnet)
    }

    fn subnets(
        &mut self,
        site: &Site<'_>,
        cidr: Ipv4Net,
        zones: &[(String, String)],
        side: Side,
    ) -> Result<Vec<Placed>> {
        let mut taken: Vec<Ipv4Net> = self.existing(site).map(|subnet| subnet.cidr).collect();
        let too_small = || {
            Error::input(format!("the VPC block {cidr} of {} has no room for {} subnets", site.prefix, side.name()))
                .help("set network.vpcPrefix or network.zones lower; VPCs that exist keep their blocks")
        };
        let mut placed = Vec::new();
        for (suffix, zone) in zones {
            let address = site.at(&format!("subnet/{}-{suffix}", side.name()));
            let subnet = match self.facts.subnets.get(&address) {
                Some(subnet) => subnet.clone(),
                None => {
                    let block = side.place(cidr, zones.len(), &taken).ok_or_else(too_small)?;
                    Subnet { cidr: block, zone: zone.clone() }
                }
            };
            taken.push(subnet.cidr);
            let mut tags = self.tags(&address, format!("{}-{}-{suffix}", site.name, side.name()));
            tags.insert(side.role_tag().to_owned(), "1".to_owned());
            self.put(
                address.clone(),
                subnet::NAME,
                &subnet::State {
                    vpc: site.output("vpc", "id"),
                    cidr: subnet.cidr.to_string(),
                    zone: subnet.zone.clone(),
                    public_ip_on_launch: false,
                    walled: None,
                    tags,
                },
                Terms::default(),
            )?;
            placed.push(Placed { address, cidr: subnet.cidr, zone: zone.clone() });
        }
        Ok(placed)
    }

    /// Adds NAT gateways with their elastic IPs. Returns them by the suffix of their zone.
    fn nat_gateways(&mut self, site: &Site<'_>, zones: &[(String, String)]) -> Result<BTreeMap<String, Address>> {
        let homes = match site.cluster.network.nat_gateways {
            NatGateways::PerZone => zones,
            NatGateways::Single => zones.get(..1).unwrap_or_default(),
            NatGateways::None => &[],
        };
        let mut serving = BTreeMap::new();
        let walled = |(suffix, _): &(String, String)| {
            self.facts.walled.get(&site.at(&format!("subnet/{}-{suffix}", Side::Public.name())))
        };
        if let Some(vpc) = homes.iter().find_map(walled) {
            self.desired.notes.insert(format!(
                "{}: VPC Block Public Access lets nothing pass through its internet gateway (block-bidirectional): nodes reach nothing outside through NAT; an exclusion lets them out: `aws ec2 create-vpc-block-public-access-exclusion --region {} --vpc-id {vpc} --internet-gateway-exclusion-mode allow-egress`",
                site.at("vpc"),
                self.spec.region
            ));
        }
        for (suffix, _) in homes {
            let ip = site.at(&format!("elastic-ip/{suffix}"));
            let gateway = site.at(&format!("nat-gateway/{suffix}"));
            let name = format!("{}-nat-{suffix}", site.name);
            self.put(
                ip.clone(),
                elastic_ip::NAME,
                &elastic_ip::State { tags: self.tags(&ip, &name) },
                Terms::default(),
            )?;
            self.put(
                gateway.clone(),
                nat_gateway::NAME,
                &nat_gateway::State {
                    subnet: site.output(&format!("subnet/public-{suffix}"), "id"),
                    allocation: reference(&ip, "id"),
                    tags: self.tags(&gateway, &name),
                },
                // A public NAT gateway needs the VPC's internet gateway (VPC User Guide, "NAT gateway basics").
                Terms::default().after([site.at("internet-gateway")]),
            )?;
            serving.insert(suffix.clone(), gateway);
        }
        if let (NatGateways::Single, Some(only)) = (site.cluster.network.nat_gateways, serving.values().next().cloned())
        {
            serving = zones.iter().map(|(suffix, _)| (suffix.clone(), only.clone())).collect();
        }
        Ok(serving)
    }

    fn route_tables(
        &mut self,
        site: &Site<'_>,
        public: &[(String, String)],
        private: &[(String, String)],
        gateways: &BTreeMap<String, Address>,
    ) -> Result<Vec<Address>> {
        let to = |target: String| vec![route_table::Route { destination: ANYWHERE.to_owned(), target }];
        let subnet = |side: Side, suffix: &str| site.output(&format!("subnet/{}-{suffix}", side.name()), "id");
        let mut tables = vec![(
            "public".to_owned(),
            to(site.output("internet-gateway", "id")),
            public.iter().map(|(suffix, _)| subnet(Side::Public, suffix)).collect::<Vec<_>>(),
        )];
        for (suffix, _) in private {
            // A zone that leaves the spec may still have nodes for a while, so its route stays.
            let gateway = gateways.get(suffix).or_else(|| gateways.values().next());
            let routes = gateway.map(|g| to(reference(g, "id"))).unwrap_or_default();
            tables.push((format!("private-{suffix}"), routes, vec![subnet(Side::Private, suffix)]));
        }
        let mut addresses = Vec::new();
        for (name, routes, subnets) in tables {
            let address = site.at(&format!("route-table/{name}"));
            let tags = self.tags(&address, format!("{}-{name}", site.name));
            let vpc = site.output("vpc", "id");
            let state = route_table::State { vpc, routes, others: None, subnets, main: false, tags };
            self.put(address.clone(), route_table::NAME, &state, Terms::default())?;
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn endpoints(&mut self, site: &Site<'_>, network: &Network) -> Result<Vec<Address>> {
        let services = &site.cluster.network.endpoints;
        if services.iter().any(|s| !is_gateway_endpoint(s)) {
            let ingress = from_subnets(network, "tcp", 443, "AWS APIs from private subnets");
            let group = (site.at("security-group/endpoints"), "endpoints");
            self.security_group(site, group, site.cluster.owner, "Interface endpoints", Rules::only(ingress), &[])?;
        }
        let mut addresses = Vec::new();
        for service in services {
            let gateway = is_gateway_endpoint(service);
            let address = site.at(&format!("endpoint/{service}"));
            let mut names = endpoint_services(&self.spec.region, service).into_iter();
            let has = |name: &String| self.facts.services.get(name).is_some_and(|offered| !offered.zones.is_empty());
            let name = names.clone().find(has).or(names.next()).unwrap_or_default();
            let offered = self.facts.services.get(&name);
            let policy = match offered.is_some_and(|service| !service.policies) {
                true => serde_json::Value::Null,
                false => {
                    let community = self.pulls_from(site, "registry.k8s.io");
                    let values = json!({"service": service, "gateway": gateway, "communityImages": community});
                    self.document("iam/endpoint-policy.json", &address, values)?
                }
            };
            let state = vpc_endpoint::State {
                vpc: site.output("vpc", "id"),
                service: name,
                kind: if gateway { "Gateway" } else { "Interface" }.to_owned(),
                policy,
                route_tables: if gateway {
                    network.ways.iter().map(|t| reference(t, "id")).collect()
                } else {
                    Vec::new()
                },
                subnets: if gateway {
                    Vec::new()
                } else {
                    network.node_ids_in(|zone| offered.is_none_or(|service| service.zones.contains(zone)))
                },
                security_groups: if gateway { Vec::new() } else { vec![site.output("security-group/endpoints", "id")] },
                private_dns: !gateway,
                tags: self.tags(&address, format!("{}-{service}", site.name)),
            };
            self.put(address.clone(), vpc_endpoint::NAME, &state, Terms::default())?;
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn flow_logs(&mut self, site: &Site<'_>) -> Result<()> {
        let owner = site.cluster.owner;
        let name = self.names.flow_log_group(owner);
        let group = site.at("log-group/flow-logs");
        let retention = site.cluster.network.flow_log_retention_days;
        self.log_group(site, group.clone(), &name, retention)?;

        let role = site.at("role/flow-logs");
        // The service principal is the same in every partition (docs.amazonaws.cn, VPC User Guide, "IAM role for
        // publishing flow logs").
        let trust =
            self.document("iam/flow-logs-trust.json", &role, json!({"flowLogArn": self.arn("ec2", "vpc-flow-log/*")}))?;
        let delivery = self.document(
            "iam/flow-logs-policy.json",
            &role,
            json!({"logGroupArn": self.arn("logs", format!("log-group:{name}"))}),
        )?;
        let name = self.names.role(owner, "flow-logs");
        let grants = Grants { inline: BTreeMap::from([("delivery".to_owned(), delivery)]), ..Grants::none() };
        self.role(role.clone(), name, trust, grants)?;

        let address = site.at("flow-log");
        let state = flow_log::State {
            vpc: site.output("vpc", "id"),
            log_group: reference(&group, "name"),
            role: reference(&role, "arn"),
            traffic: "ALL".to_owned(),
            aggregation: 600,
            tags: self.tags(&address, &site.name),
        };
        self.put(address, flow_log::NAME, &state, Terms::default())
    }

    /// Adds a log group that is encrypted with the cluster's key. Audit logs are kept after their cluster is deleted.
    pub(super) fn log_group(&mut self, site: &Site<'_>, address: Address, name: &str, days: u32) -> Result<()> {
        let state = log_group::State {
            name: name.to_owned(),
            retention_days: i32::try_from(days).ok(),
            key: Some(site.output("key", "arn")),
            tags: self.tags(&address, name),
        };
        self.put(address, log_group::NAME, &state, Terms::default())
    }
}

#[derive(Clone, Copy)]
enum Side {
    Private,
    Public,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
        }
    }

    /// The tag by which load balancer controllers find subnets (EKS User Guide, "Subnet requirements for load
    /// balancers").
    fn role_tag(self) -> &'static str {
        match self {
            Self::Private => "kubernetes.io/role/internal-elb",
            Self::Public => "kubernetes.io/role/elb",
        }
    }

    /// The CIDR block of a new subnet. Private subnets divide the VPC's first half into parts, whose number is the
    /// number of zones rounded up to a power of two. Public subnets are at the VPC's end. Blocks of later zones fit
    /// beside them.
    fn place(self, vpc: Ipv4Net, zones: usize, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
        let bits = u8::try_from(zones.next_power_of_two().trailing_zeros()).ok()?;
        let private = vpc.prefix_len().checked_add(1)?.checked_add(bits)?;
        let public = vpc.prefix_len().checked_add(PUBLIC_BITS)?.min(SMALLEST_SUBNET);
        let end = vpc.subnets(public.checked_sub(bits)?).ok()?.last()?;
        match self {
            Self::Private if private > SMALLEST_SUBNET => None,
            Self::Private => lowest_free(vpc, private, &[taken, &[end]].concat()),
            Self::Public => lowest_free(end, public, taken),
        }
    }
}

/// The letter of a zone: `a` of `us-east-1a`.
fn suffix(zone: &str) -> String {
    zone.chars().rev().take_while(char::is_ascii_alphabetic).collect::<String>().chars().rev().collect()
}

/// Services whose endpoint names have the reversed form outside of the `aws` partition, by region (EC2,
/// DescribeVpcEndpointServices).
const REVERSED: &[(&str, &str, &[&str])] = &[
    (
        "cn-",
        "cn.com.amazonaws",
        &[
            "application-autoscaling",
            "athena",
            "autoscaling",
            "backup",
            "cloudformation",
            "ebs",
            "ec2",
            "ecr.api",
            "ecr.dkr",
            "eks",
            "elasticache",
            "elasticfilesystem",
            "execute-api",
            "fsx",
            "kinesis-streams",
            "lambda",
            "monitoring",
            "rds",
            "redshift",
            "redshift-data",
            "sagemaker.api",
            "sagemaker.runtime",
            "securityhub",
            "servicecatalog",
            "sqs",
            "states",
            "sts",
            "sync-states",
            "synthetics",
            "transfer",
            "xray",
        ],
    ),
    ("eusc-", "eu.amazonaws", &["ecr.api", "ecr.dkr", "execute-api", "securityhub"]),
    (
        "us-iso-",
        "gov.ic.c2s",
        &["autoscaling", "ebs", "ec2", "ecr.api", "ecr.dkr", "elasticfilesystem", "execute-api", "sns", "sqs"],
    ),
    (
        "us-isob-",
        "gov.sgov.sc2s",
        &["autoscaling", "ebs", "ec2", "ecr.api", "ecr.dkr", "elasticfilesystem", "execute-api", "sns", "sqs"],
    ),
    ("us-isof-", "gov.ic.hci.csp", &["ebs", "ecr.api", "ecr.dkr", "execute-api"]),
    ("eu-isoe-", "uk.adc-e.cloud", &["ebs", "ecr.api", "ecr.dkr", "execute-api"]),
];

/// The possible full endpoint names of a service, the likely one first. In China new services appear that the list
/// doesn't have (`eks-auth`, `config`). Their names may have either form.
pub(super) fn endpoint_services(region: &str, service: &str) -> Vec<String> {
    const USUAL: &str = "com.amazonaws";
    let here = REVERSED.iter().find(|(prefix, ..)| region.starts_with(prefix));
    let domains = match here {
        Some((_, reversed, services)) if services.contains(&service) => vec![*reversed, USUAL],
        Some((_, reversed, _)) => vec![USUAL, *reversed],
        None => vec![USUAL],
    };
    let unsure = if region.starts_with("cn-") { domains.len() } else { 1 };
    domains.iter().take(unsure).map(|domain| format!("{domain}.{region}.{service}")).collect()
}
