//! Secondary CIDR blocks of a VPC.

use super::{Call, Doc, Ec2, Fault, Reply, cidr, edit, fault, get, invalid, list, values};
use ipnet::Ipv4Net;
use serde_json::{Value, json};

const BLOCKS_QUOTA: &str = "L-83CA0A9D";
/// "IPv6 CIDR blocks per VPC" (VPC User Guide, "Amazon VPC quotas").
const IPV6_BLOCKS: usize = 5;

/// Private ranges. A VPC in one of them can't take a block of another (VPC User Guide, "IPv4 CIDR block association
/// restrictions"). A VPC outside of all of them can't take any of them.
const PRIVATE: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.19.0.0/16"];

impl Call<'_> {
    pub(super) fn associate_vpc_cidr_block(&mut self) -> Reply {
        let vpc_id = self.existing("vpc", "VpcId")?;
        match (self.req.text("CidrBlock"), self.flag("AmazonProvidedIpv6CidrBlock")) {
            (Some(block), None | Some(false)) => self.associate_ipv4(&vpc_id, &block),
            (None, Some(true)) => self.associate_ipv6(&vpc_id),
            (None, _) => {
                Err(fault("MissingParameter", "Either 'cidrBlock' or 'amazonProvidedIpv6CidrBlock' must be provided."))
            }
            _ => Err(fault("InvalidParameterCombination", "Only one block can be associated at a time")),
        }
    }

    fn associate_ipv4(&mut self, vpc_id: &str, block: &str) -> Reply {
        let net = cidr(block, "cidrBlock")?;
        let vpc = self.ec2.find("vpc", vpc_id)?;
        let have: Vec<Ipv4Net> = nets(values(vpc, "cidrBlockAssociationSet.cidrBlock"));
        let primary: Option<Ipv4Net> = get(vpc, "cidrBlock").parse().ok();
        let range = |text: String| Err(fault("InvalidVpc.Range", text));
        if !(16..=28).contains(&net.prefix_len()) {
            return range(format!("The CIDR '{block}' is invalid."));
        }
        let home = |net: &Ipv4Net| PRIVATE.iter().find(|p| p.parse().is_ok_and(|p: Ipv4Net| p.contains(net)));
        if home(&net).is_some_and(|range| primary.as_ref().and_then(home) != Some(range)) {
            return range(format!(
                "The CIDR '{block}' is restricted. Use a CIDR from the same private address range as the current VPC CIDR, or use a publicly-routable CIDR."
            ));
        }
        if have.iter().any(|other| other.contains(&net) || net.contains(other)) {
            return range(format!("The CIDR '{block}' overlaps with a CIDR of {vpc_id}."));
        }
        let routes = self.ec2.with("rtb", "vpcId", vpc_id);
        let to: Vec<Ipv4Net> = routes.flat_map(|(_, t)| nets(values(t, "routeSet.destinationCidrBlock"))).collect();
        if let Some(to) = to.iter().find(|to| net.contains(*to)) {
            return Err(invalid(format!("The CIDR '{block}' is the same as or larger than the route to {to}")));
        }
        if have.len() as f64 >= super::super::quotas::limit(self.quotas, BLOCKS_QUOTA) {
            return Err(too_many(vpc_id, have.len()));
        }
        let item = json!({
            "associationId": self.ids.id("vpc-cidr-assoc"), "cidrBlock": net.to_string(),
            "cidrBlockState": {"state": "associated"},
        });
        self.ec2.add_local_route(vpc_id, "destinationCidrBlock", &net.to_string());
        self.add_block(vpc_id, FOUR, item)
    }

    /// An IPv6 block of Amazon's pool. Its number is derived from the id of the association.
    fn associate_ipv6(&mut self, vpc_id: &str) -> Reply {
        let have = list(self.ec2.find("vpc", vpc_id)?, SIX.set).len();
        if have >= IPV6_BLOCKS {
            return Err(too_many(vpc_id, have));
        }
        let id = self.ids.id("vpc-cidr-assoc");
        let number = u32::from_str_radix(id.get(id.len() - 6..).unwrap_or_default(), 16).unwrap_or_default();
        let block = format!("2600:1f18:{:x}:{:x}00::/56", number >> 8, (number & 0xff).max(1));
        let item = json!({
            "associationId": id, "ipv6CidrBlock": block, "ipv6CidrBlockState": {"state": "associated"},
            "networkBorderGroup": self.req.region, "ipv6Pool": "Amazon",
        });
        self.ec2.add_local_route(vpc_id, "destinationIpv6CidrBlock", &block);
        self.add_block(vpc_id, SIX, item)
    }

    fn add_block(&mut self, vpc_id: &str, family: Family, item: Value) -> Reply {
        edit(self.ec2.find_mut("vpc", vpc_id)?, family.set, |all| all.push(item.clone()));
        Ok(family.reply(vpc_id, item, "associating"))
    }

    pub(super) fn disassociate_vpc_cidr_block(&mut self) -> Reply {
        let id = self.require("AssociationId")?;
        let found = [FOUR, SIX].into_iter().find_map(|family| {
            let has = |item: &&Value| item.get("associationId") == Some(&id.as_str().into());
            let (vpc_id, item) = self
                .ec2
                .of_kind("vpc")
                .find_map(|(vpc_id, vpc)| Some((vpc_id, list(vpc, family.set).iter().find(has)?)))?;
            Some((family, vpc_id.clone(), item.clone()))
        });
        let Some((family, vpc_id, item)) = found else {
            let message = format!("The vpc CIDR block association ID '{id}' does not exist");
            return Err(fault("InvalidVpcCidrBlockAssociationIdError.NotFound", message));
        };
        let block = item.get(family.block).and_then(Value::as_str).unwrap_or_default().to_owned();
        if block == get(self.ec2.find("vpc", &vpc_id)?, "cidrBlock") {
            let message = format!(
                "The vpc CIDR block with association ID {id} may not be disassociated. It is the primary IPv4 CIDR block of the VPC"
            );
            return Err(fault("OperationNotPermitted", message));
        }
        if block.parse::<Ipv4Net>().is_ok_and(|net| self.ec2.has_subnet_in(&vpc_id, &net)) {
            let message = format!("The vpc {vpc_id} currently has a subnet within CIDR block {block}");
            return Err(fault("InvalidCidrBlock.InUse", message));
        }
        edit(self.ec2.find_mut("vpc", &vpc_id)?, family.set, |all| all.retain(|one| *one != item));
        self.ec2.remove_local_route(&vpc_id, &block);
        Ok(family.reply(&vpc_id, item, "disassociating"))
    }
}

impl Ec2 {
    fn has_subnet_in(&self, vpc_id: &str, net: &Ipv4Net) -> bool {
        let subnets = self.with("subnet", "vpcId", vpc_id);
        subnets.flat_map(|(_, subnet)| nets(values(subnet, "cidrBlock"))).any(|subnet| net.contains(&subnet))
    }

    fn tables(&mut self, vpc_id: &str) -> impl Iterator<Item = &mut Doc> {
        self.resources
            .iter_mut()
            .filter(move |(id, doc)| id.starts_with("rtb-") && get(doc, "vpcId") == vpc_id)
            .map(|(_, doc)| doc)
    }

    fn add_local_route(&mut self, vpc_id: &str, member: &str, block: &str) {
        for table in self.tables(vpc_id) {
            edit(table, "routeSet", |routes| routes.push(super::route::local(member, block)));
        }
    }

    fn remove_local_route(&mut self, vpc_id: &str, block: &str) {
        for table in self.tables(vpc_id) {
            edit(table, "routeSet", |routes| {
                routes.retain(|route| {
                    let to = route.get("destinationCidrBlock").or(route.get("destinationIpv6CidrBlock"));
                    route.get("gatewayId") != Some(&"local".into()) || to != Some(&block.into())
                });
            });
        }
    }
}

/// The members that tell IPv4 from IPv6 blocks.
#[derive(Clone, Copy)]
struct Family {
    set: &'static str,
    one: &'static str,
    block: &'static str,
    state: &'static str,
}

const FOUR: Family =
    Family { set: "cidrBlockAssociationSet", one: "cidrBlockAssociation", block: "cidrBlock", state: "cidrBlockState" };

const SIX: Family = Family {
    set: "ipv6CidrBlockAssociationSet",
    one: "ipv6CidrBlockAssociation",
    block: "ipv6CidrBlock",
    state: "ipv6CidrBlockState",
};

impl Family {
    /// The association, as the call that makes or removes it returns it.
    fn reply(self, vpc_id: &str, mut item: Value, state: &str) -> Value {
        if let Value::Object(item) = &mut item {
            item.insert(self.state.to_owned(), json!({"state": state}));
        }
        json!({"vpcId": vpc_id, self.one: item})
    }
}

fn nets(texts: Vec<String>) -> Vec<Ipv4Net> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn too_many(vpc_id: &str, limit: usize) -> Fault {
    fault("CidrLimitExceeded", format!("This network {vpc_id} has met its maximum number of allowed CIDRs: {limit}"))
}
