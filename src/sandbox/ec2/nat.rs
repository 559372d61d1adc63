//! Elastic IP addresses and NAT gateways.

use super::super::clock::iso8601;
use super::super::fate::During;
use super::interface::NewInterface;
use super::{Call, Doc, Ec2, Fault, Reply, done, fault, get, invalid, missing};
use serde_json::{Value, json};

pub(super) const ADDRESSES_QUOTA: &str = "L-0263D0A3";
const GATEWAYS_QUOTA: &str = "L-FE5A380F";

const CREATE_SECONDS: f64 = 105.0;
const FAIL_SECONDS: f64 = 15.0;
const DELETE_SECONDS: f64 = 60.0;
/// "A deleted NAT gateway … remains visible for about an hour" (VPC user guide, "Work with NAT gateways").
const VISIBLE_SECONDS: f64 = 3600.0;

impl Call<'_> {
    pub(super) fn allocate_address(&mut self) -> Reply {
        if let Some(domain) = self.req.text("Domain").filter(|domain| domain != "vpc") {
            return Err(invalid(format!("Value ({domain}) for parameter domain is invalid.")));
        }
        self.within(ADDRESSES_QUOTA, self.ec2.of_kind("eipalloc").count(), "AddressLimitExceeded", "addresses")?;
        let address = loop {
            let digits = u32::from_str_radix(&self.ids.hex(6), 16).unwrap_or_default().to_be_bytes();
            let [_, b, c, d] = digits;
            let address = format!("54.{b}.{c}.{d}");
            if self.ec2.with("eipalloc", "publicIp", &address).next().is_none() {
                break address;
            }
        };
        let body = json!({
            "publicIp": address, "domain": "vpc", "networkBorderGroup": self.req.region, "publicIpv4Pool": "amazon",
        });
        let id = self.create("eipalloc", "allocationId", body)?;
        let mut shown = self.shown(&id);
        if let Value::Object(shown) = &mut shown {
            shown.remove("tagSet");
        }
        Ok(shown)
    }

    pub(super) fn release_address(&mut self) -> Reply {
        if self.req.text("PublicIp").is_some() && self.req.text("AllocationId").is_none() {
            return Err(invalid("You must specify an allocation id when releasing a VPC elastic IP address"));
        }
        let id = self.existing("eipalloc", "AllocationId")?;
        if self.ec2.find("eipalloc", &id)?.contains_key("associationId") {
            // The address is associated with the interface of a NAT gateway, which isn't the caller's.
            return Err(fault("AuthFailure", "You do not have permission to access the specified resource."));
        }
        self.ec2.resources.remove(&id);
        done()
    }

    pub(super) fn create_nat_gateway(&mut self) -> Reply {
        let id = self.once(Self::new_nat_gateway)?;
        Ok(json!({"natGateway": self.shown(&id), "clientToken": self.req.text("ClientToken")}))
    }

    fn new_nat_gateway(&mut self) -> Result<String, Fault> {
        let subnet_id = self.existing("subnet", "SubnetId")?;
        let subnet = self.ec2.find("subnet", &subnet_id)?.clone();
        let (vpc_id, zone) = (get(&subnet, "vpcId"), get(&subnet, "availabilityZone"));
        let kind = self.req.text("ConnectivityType").unwrap_or_else(|| "public".to_owned());
        let allocation = self.req.text("AllocationId");
        match (kind.as_str(), &allocation) {
            ("public", None) => return Err(missing("AllocationId")),
            ("private", Some(_)) => {
                let message = "The AllocationId parameter cannot be used with the private connectivity type";
                return Err(fault("InvalidParameterCombination", message));
            }
            ("public" | "private", _) => {}
            _ => return Err(invalid(format!("Value ({kind}) for parameter connectivityType is invalid."))),
        }
        let here = |(_, nat): &(&String, &Doc)| {
            let alive = !["deleted", "failed"].contains(&get(nat, "state"));
            let in_zone = |subnet: &Doc| get(subnet, "availabilityZone") == zone;
            alive && self.ec2.resources.get(get(nat, "subnetId")).is_some_and(in_zone)
        };
        let count = self.ec2.of_kind("nat").filter(here).count();
        self.within(GATEWAYS_QUOTA, count, "NatGatewayLimitExceeded", "NAT gateways in the Availability Zone")?;
        let failure = allocation.as_deref().and_then(|allocation| self.why_nat_fails(vpc_id, allocation));
        let id = self.create(
            "nat",
            "natGatewayId",
            json!({
                "createTime": iso8601(self.req.now), "state": "pending", "subnetId": subnet_id, "vpcId": vpc_id,
                "connectivityType": kind, "availabilityMode": "zonal",
                "natGatewayAddressSet": [{"allocationId": allocation, "isPrimary": true, "status": "associating"}],
            }),
        )?;
        if let Some((code, message)) = failure {
            self.ec2.due.insert(id.clone(), self.req.now + FAIL_SECONDS);
            let nat = self.ec2.find_mut("nat", &id)?;
            nat.insert("_failure".to_owned(), json!([code, message]));
            return Ok(id);
        }
        let interface = self.ec2.add_interface(
            self.ids,
            &NewInterface {
                account: &self.req.account,
                region: &self.req.region,
                subnet_id: &subnet_id,
                description: &format!("Interface for NAT Gateway {id}"),
                kind: "nat_gateway",
                owner: &id,
                ..NewInterface::default()
            },
        );
        let interface = interface.inspect_err(|_| {
            self.ec2.resources.remove(&id);
        })?;
        let private = get(self.ec2.find("eni", &interface)?, "privateIpAddress").to_owned();
        let (mut public, mut association) = (None, None);
        if let Some(allocation) = &allocation {
            let id = self.ids.id("eipassoc");
            let address = self.ec2.find_mut("eipalloc", allocation)?;
            address.insert("associationId".to_owned(), id.as_str().into());
            address.insert("networkInterfaceId".to_owned(), interface.as_str().into());
            address.insert("networkInterfaceOwnerId".to_owned(), self.req.account.as_str().into());
            address.insert("privateIpAddress".to_owned(), private.as_str().into());
            let mapped = json!({
                "allocationId": allocation, "associationId": id, "publicIp": address.get("publicIp"), "ipOwnerId": self.req.account,
            });
            public = address.get("publicIp").cloned();
            association = Some(id);
            self.ec2.find_mut("eni", &interface)?.insert("association".to_owned(), mapped);
        }
        let shown = json!({
            "allocationId": allocation, "associationId": association, "networkInterfaceId": interface, "publicIp": public,
            "privateIp": private, "isPrimary": true, "status": "succeeded",
        });
        self.ec2.find_mut("nat", &id)?.insert("natGatewayAddressSet".to_owned(), json!([shown]));
        self.becomes("ec2:natgateway", &id, During::Create, CREATE_SECONDS);
        Ok(id)
    }

    /// AWS accepts these calls, and the gateway becomes `failed` soon after (VPC user guide, "Troubleshoot NAT
    /// gateways").
    fn why_nat_fails(&self, vpc_id: &str, allocation: &str) -> Option<(&'static str, String)> {
        if self.ec2.with("igw", "attachmentSet.vpcId", vpc_id).next().is_none() {
            return Some(("Gateway.NotAttached", format!("Network {vpc_id} has no Internet gateway attached")));
        }
        match self.ec2.find("eipalloc", allocation) {
            Err(_) => Some((
                "InvalidAllocationID.NotFound",
                format!("Elastic IP address {allocation} could not be associated with this NAT gateway"),
            )),
            Ok(address) if address.contains_key("associationId") => {
                Some(("Resource.AlreadyAssociated", format!("Elastic IP address {allocation} is already associated")))
            }
            Ok(_) => None,
        }
    }

    pub(super) fn delete_nat_gateway(&mut self) -> Reply {
        let id = self.existing("nat", "NatGatewayId")?;
        let nat = self.ec2.find_mut("nat", &id)?;
        if ["pending", "available", "failed"].contains(&get(nat, "state")) {
            nat.insert("state".to_owned(), "deleting".into());
            nat.insert("deleteTime".to_owned(), iso8601(self.req.now).into());
            self.becomes("ec2:natgateway", &id, During::Delete, DELETE_SECONDS);
        }
        Ok(json!({"natGatewayId": id}))
    }
}

impl Ec2 {
    /// The next state of a gateway, reached at `at`.
    pub(super) fn mature_nat_gateway(&mut self, id: &str, at: f64) {
        let Some(nat) = self.resources.get_mut(id) else { return };
        let next = match get(nat, "state") {
            "pending" if nat.contains_key("_failure") => "failed",
            "pending" => "available",
            "deleting" => "deleted",
            _ => {
                self.resources.remove(id);
                return;
            }
        };
        nat.insert("state".to_owned(), next.into());
        if let Some(Value::Array(failure)) = nat.remove("_failure") {
            let mut failure = failure.into_iter();
            nat.insert("failureCode".to_owned(), failure.next().unwrap_or_default());
            nat.insert("failureMessage".to_owned(), failure.next().unwrap_or_default());
        }
        if next == "available" {
            return;
        }
        self.due.insert(id.to_owned(), at + VISIBLE_SECONDS);
        let interfaces = self.interfaces(id);
        for address in self.resources.values_mut() {
            if address.contains_key("allocationId")
                && interfaces.iter().any(|eni| get(address, "networkInterfaceId") == eni)
            {
                for member in ["associationId", "networkInterfaceId", "networkInterfaceOwnerId", "privateIpAddress"] {
                    address.remove(member);
                }
            }
        }
        self.remove_interfaces(id);
    }
}
