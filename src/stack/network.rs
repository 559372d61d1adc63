//! VPCs: subnets, gateways and routes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::blocks::lowest_free;
use super::builder::{Builder, Terms};
use super::facts::Subnet;
use super::site::{Network, Placed, Site};
use crate::engine::address::Address;
use crate::engine::error::{Error, Result};
use crate::engine::value::reference;
use crate::kinds::aws::{elastic_ip, internet_gateway, nat_gateway, route_table, subnet, vpc};
use crate::spec::{Control, NatGateways};

/// The smallest subnet (EC2, CreateSubnet).
const SMALLEST_SUBNET: u8 = 28;

/// A public subnet is a 64th of its VPC, if AWS allows subnets of that size.
const PUBLIC_BITS: u8 = 6;

const ANYWHERE: &str = "0.0.0.0/0";

impl Builder<'_> {
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
                "{}: the nodes are in {}, but the control plane stays in {}: EKS can't move it out of the zones in which the cluster was created",
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
        Ok(Network { cidr, private, nodes, cluster, ways })
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
                .help("lower network.vpcPrefix or network.zones; existing VPCs keep their blocks")
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
                "{}: VPC Block Public Access (block-bidirectional) blocks all traffic through the internet gateway, so nodes can't reach the internet through NAT; to allow egress, create an exclusion: `aws ec2 create-vpc-block-public-access-exclusion --region {} --vpc-id {vpc} --internet-gateway-exclusion-mode allow-egress`",
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
