//! Network interfaces: of gateways, endpoints and clusters, and those that callers make.

use super::{Call, Doc, Ec2, Fault, Ids, Reply, done, fault, get, invalid, list, tag, values};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

pub(super) const FREE: &str = "availableIpAddressCount";

/// An interface that a service makes in a subnet.
#[derive(Debug, Default)]
pub struct NewInterface<'a> {
    pub account: &'a str,
    pub region: &'a str,
    pub subnet_id: &'a str,
    pub groups: &'a [String],
    pub description: &'a str,
    /// `interface`, `nat_gateway`, `vpc_endpoint` …
    pub kind: &'a str,
    /// The only service that may remove it. An interface without an owner is the customer's and is `available`.
    pub owner: &'a str,
    pub tags: &'a [(String, String)],
    /// The requested address. `None`: the lowest free one.
    pub address: Option<&'a str>,
}

impl Ec2 {
    /// # Errors
    /// The subnet or a group is unknown, or the subnet is full.
    pub fn add_interface(&mut self, ids: &mut Ids, new: &NewInterface<'_>) -> Result<String, Fault> {
        let subnet = self.find("subnet", new.subnet_id)?.clone();
        let groups = self.group_refs(get(&subnet, "vpcId"), new.groups)?;
        let address = self.address(new.subnet_id, &subnet, new.address)?;
        let id = ids.id("eni");
        let digits = ids.hex(10).to_lowercase();
        let mac: Vec<&str> = (0..5).filter_map(|n| digits.get(2 * n..2 * n + 2)).collect();
        let private_name = format!("ip-{}.{}", address.replace('.', "-"), super::vpc::domain(new.region));
        let mut doc = super::doc(json!({
            "networkInterfaceId": id, "subnetId": new.subnet_id, "vpcId": subnet.get("vpcId"),
            "availabilityZone": subnet.get("availabilityZone"), "availabilityZoneId": subnet.get("availabilityZoneId"),
            "description": new.description, "ownerId": new.account, "requesterManaged": !new.owner.is_empty(),
            "status": "available", "macAddress": format!("02:{}", mac.join(":")), "sourceDestCheck": new.kind != "nat_gateway",
            "privateIpAddress": address, "privateDnsName": private_name, "groupSet": groups,
            "privateIpAddressesSet": [{"primary": true, "privateIpAddress": address, "privateDnsName": private_name}],
            "ipv6AddressesSet": [], "interfaceType": new.kind, "tagSet": [],
        }));
        if !new.owner.is_empty() {
            let attachment = json!({
                "attachmentId": ids.id("eni-attach"), "instanceOwnerId": "amazon-aws", "deviceIndex": 1,
                "status": "attached", "deleteOnTermination": false,
            });
            doc.insert("status".to_owned(), "in-use".into());
            doc.insert("attachment".to_owned(), attachment);
            doc.insert("requesterId".to_owned(), "amazon-aws".into());
            doc.insert("_owner".to_owned(), new.owner.into());
        }
        for (key, value) in new.tags {
            tag::set(&mut doc, key, value);
        }
        self.resources.insert(id.clone(), doc);
        self.count_address(new.subnet_id, -1);
        Ok(id)
    }

    pub fn interfaces(&self, owner: &str) -> Vec<String> {
        self.with("eni", "_owner", owner).map(|(id, _)| id.clone()).collect()
    }

    pub fn remove_interfaces(&mut self, owner: &str) {
        for id in self.interfaces(owner) {
            self.remove_interface(&id);
        }
    }

    pub(super) fn remove_interface(&mut self, id: &str) {
        if let Some(interface) = self.resources.remove(id) {
            self.count_address(get(&interface, "subnetId"), 1);
        }
    }

    /// Changes the number of a subnet's free addresses.
    fn count_address(&mut self, subnet_id: &str, by: i64) {
        if let Some(subnet) = self.resources.get_mut(subnet_id) {
            let free = subnet.get(FREE).and_then(Value::as_i64).unwrap_or_default();
            subnet.insert(FREE.to_owned(), (free + by).into());
        }
    }

    fn address(&self, subnet_id: &str, subnet: &Doc, wanted: Option<&str>) -> Result<String, Fault> {
        let net = super::cidr(get(subnet, "cidrBlock"), "cidrBlock")?;
        let used: BTreeSet<String> =
            self.with("eni", "subnetId", subnet_id).flat_map(|(_, eni)| values(eni, "privateIpAddress")).collect();
        if let Some(wanted) = wanted {
            return match wanted.parse::<Ipv4Addr>() {
                Ok(address) if !net.contains(&address) => {
                    Err(invalid("Address does not fall within the subnet's address range"))
                }
                Ok(_) if used.contains(wanted) => {
                    Err(fault("InvalidIPAddress.InUse", format!("Address {wanted} is in use.")))
                }
                Ok(_) => Ok(wanted.to_owned()),
                Err(_) => Err(invalid(format!("Invalid value '{wanted}' for privateIpAddress"))),
            };
        }
        // AWS reserves the first four addresses and the last address of a subnet.
        let first = u32::from(net.network()) + 4;
        (first..u32::from(net.broadcast()))
            .map(|n| Ipv4Addr::from(n).to_string())
            .find(|a| !used.contains(a))
            .ok_or_else(|| {
                let message = format!("Insufficient free addresses in subnet: {subnet_id}");
                fault("InsufficientFreeAddressesInSubnet", message)
            })
    }

    /// `groupSet` items of groups that must exist in the VPC.
    pub(super) fn group_refs(&self, vpc_id: &str, groups: &[String]) -> Result<Vec<Value>, Fault> {
        groups
            .iter()
            .map(|id| {
                let group = self.find("sg", id)?;
                if get(group, "vpcId") != vpc_id {
                    let message = "You have specified two resources that belong to different networks.";
                    return Err(fault("InvalidGroup.NotFound", message));
                }
                Ok(json!({"groupId": id, "groupName": get(group, "groupName")}))
            })
            .collect()
    }
}

impl Call<'_> {
    pub(super) fn create_network_interface(&mut self) -> Reply {
        let tags = tag::specified(self.req, "network-interface")?;
        let id = self.once(|call| {
            let req = call.req;
            let subnet_id = call.existing("subnet", "SubnetId")?;
            let vpc_id = get(call.ec2.find("subnet", &subnet_id)?, "vpcId").to_owned();
            let mut groups = req.texts("SecurityGroupId");
            if groups.is_empty() {
                groups.extend(call.ec2.default_group(&vpc_id));
            }
            let (description, kind) = (req.text("Description").unwrap_or_default(), req.text("InterfaceType"));
            let address = req.text("PrivateIpAddress");
            let id = call.ec2.add_interface(
                call.ids,
                &NewInterface {
                    account: &req.account,
                    region: &req.region,
                    subnet_id: &subnet_id,
                    groups: &groups,
                    description: &description,
                    kind: kind.as_deref().unwrap_or("interface"),
                    address: address.as_deref(),
                    ..NewInterface::default()
                },
            )?;
            if let Some(eni) = call.ec2.resources.get_mut(&id) {
                eni.insert("tagSet".to_owned(), tags.into());
            }
            Ok(id)
        })?;
        Ok(json!({"networkInterface": self.shown(&id), "clientToken": self.req.text("ClientToken")}))
    }

    pub(super) fn delete_network_interface(&mut self) -> Reply {
        let id = self.existing("eni", "NetworkInterfaceId")?;
        let eni = self.ec2.find("eni", &id)?;
        if get(eni, "status") == "in-use" {
            let message = format!("Network interface '{id}' is currently in use.");
            return Err(fault("InvalidParameterValue", message));
        }
        self.ec2.remove_interface(&id);
        done()
    }
}

/// The ids in a `groupSet`.
pub(super) fn group_ids(doc: &Doc) -> Vec<String> {
    list(doc, "groupSet").iter().filter_map(|group| group.get("groupId")?.as_str()).map(str::to_owned).collect()
}
