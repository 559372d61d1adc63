//! VPCs, subnets, internet gateways, and the resources that AWS creates with a VPC: main route table, default group,
//! network ACL, DHCP options.

use super::{Call, Fault, Reply, cidr, done, edit, fault, get, invalid, list, missing, values};
use ipnet::Ipv4Net;
use serde_json::{Value, json};

const VPCS_QUOTA: &str = "L-F678F1CE";
const GATEWAYS_QUOTA: &str = "L-A4707A72";
const SUBNETS_QUOTA: &str = "L-407747CB";

/// Request parameter and wire member of each attribute.
const VPC_ATTRIBUTES: &[(&str, &str)] = &[
    ("EnableDnsSupport", "enableDnsSupport"),
    ("EnableDnsHostnames", "enableDnsHostnames"),
    ("EnableNetworkAddressUsageMetrics", "enableNetworkAddressUsageMetrics"),
];

/// Resources that prevent the deletion of a VPC: id prefix, path to the VPC's id, and the path and value that mark
/// those which AWS deletes together with the VPC.
const DEPENDENTS: &[(&str, &str, &str, &str)] = &[
    ("subnet", "vpcId", "", ""),
    ("igw", "attachmentSet.vpcId", "", ""),
    ("vpce", "vpcId", "", ""),
    ("eni", "vpcId", "", ""),
    ("sg", "vpcId", "groupName", "default"),
    ("rtb", "vpcId", "associationSet.main", "true"),
];

impl Call<'_> {
    pub(super) fn create_vpc(&mut self) -> Reply {
        let Some(block) = self.req.text("CidrBlock") else {
            return Err(fault("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' must be provided."));
        };
        let net = cidr(&block, "cidrBlock")?;
        if !(16..=28).contains(&net.prefix_len()) {
            return Err(fault("InvalidVpc.Range", format!("The CIDR '{block}' is invalid.")));
        }
        self.within(VPCS_QUOTA, self.ec2.of_kind("vpc").count(), "VpcLimitExceeded", "VPCs")?;
        let dhcp = self.dhcp_options();
        let net = net.to_string();
        let association = self.ids.id("vpc-cidr-assoc");
        let id = self.create(
            "vpc",
            "vpcId",
            json!({
                "ownerId": self.req.account, "state": "available", "cidrBlock": net, "dhcpOptionsId": dhcp,
                "instanceTenancy": self.req.text("InstanceTenancy").unwrap_or_else(|| "default".to_owned()), "isDefault": false,
                "ipv6CidrBlockAssociationSet": [],
                "cidrBlockAssociationSet": [{"associationId": association, "cidrBlock": net, "cidrBlockState": {"state": "associated"}}],
                "_attributes": {"enableDnsSupport": true, "enableDnsHostnames": false, "enableNetworkAddressUsageMetrics": false},
            }),
        )?;
        self.add_main_route_table(&id)?;
        let (account, region) = (&self.req.account, &self.req.region);
        let group = self.ec2.add_group(self.ids, account, region, &id, "default", "default VPC security group", &[]);
        self.ec2.allow_from_self(self.ids, account, &group);
        self.add_default_acl(&id);
        Ok(json!({"vpc": pending(self.shown(&id))}))
    }

    fn add_default_acl(&mut self, vpc_id: &str) {
        let entry = |egress: bool, number: u32, action: &str| {
            json!({
                "cidrBlock": "0.0.0.0/0", "egress": egress, "protocol": "-1", "ruleAction": action, "ruleNumber": number,
            })
        };
        let entries = [
            entry(true, 100, "allow"),
            entry(true, 32767, "deny"),
            entry(false, 100, "allow"),
            entry(false, 32767, "deny"),
        ];
        let id = self.ids.id("acl");
        let acl = json!({
            "networkAclId": id, "vpcId": vpc_id, "default": true, "ownerId": self.req.account, "entrySet": entries, "tagSet": [],
        });
        self.ec2.resources.insert(id, super::doc(acl));
    }

    /// The default DHCP options of a region. They are made with the first VPC and never deleted.
    fn dhcp_options(&mut self) -> String {
        if let Some((id, _)) = self.ec2.of_kind("dopt").next() {
            return id.clone();
        }
        let domain = domain(&self.req.region);
        let option = |key: &str, value: &str| json!({"key": key, "valueSet": [{"value": value}]});
        let id = self.ids.id("dopt");
        let options = json!({
            "dhcpOptionsId": id, "ownerId": self.req.account, "tagSet": [],
            "dhcpConfigurationSet": [option("domain-name", &domain), option("domain-name-servers", "AmazonProvidedDNS")],
        });
        self.ec2.resources.insert(id.clone(), super::doc(options));
        id
    }

    pub(super) fn delete_vpc(&mut self) -> Reply {
        let id = self.existing("vpc", "VpcId")?;
        let holds = DEPENDENTS.iter().any(|(prefix, path, member, excused)| {
            self.ec2.with(prefix, path, &id).any(|(_, doc)| !super::holds(doc, member, excused))
        });
        if holds {
            return Err(depends("vpc", &id));
        }
        let along: Vec<String> = ["sg", "rtb", "acl"]
            .iter()
            .flat_map(|kind| self.ec2.with(kind, "vpcId", &id))
            .map(|(id, _)| id.clone())
            .collect();
        for resource in &along {
            self.ec2.remove_group(resource);
        }
        self.ec2.resources.remove(&id);
        if self.ec2.of_kind("vpc").next().is_none() {
            self.ec2.resources.retain(|id, _| !id.starts_with("dopt-"));
        }
        done()
    }

    pub(super) fn modify_vpc_attribute(&mut self) -> Reply {
        let id = self.existing("vpc", "VpcId")?;
        let (member, value) = self.one_attribute(VPC_ATTRIBUTES)?;
        if let Some(Value::Object(attributes)) = self.ec2.find_mut("vpc", &id)?.get_mut("_attributes") {
            attributes.insert(member.to_owned(), value.into());
        }
        done()
    }

    pub(super) fn describe_vpc_attribute(&mut self) -> Reply {
        let id = self.existing("vpc", "VpcId")?;
        let wanted = self.require("Attribute")?;
        let vpc = self.ec2.find("vpc", &id)?;
        let value = vpc.get("_attributes").and_then(|attributes| attributes.get(&wanted));
        let value = value.ok_or_else(|| {
            invalid(format!("Value ({wanted}) for parameter attribute is invalid. Unknown VPC attribute"))
        })?;
        Ok(json!({"vpcId": id, wanted: {"value": value}}))
    }

    /// The single `X.Value` parameter of a Modify…Attribute call.
    fn one_attribute(&self, known: &[(&str, &'static str)]) -> Result<(&'static str, bool), Fault> {
        let mut given = known.iter().filter_map(|(param, member)| {
            let value = super::super::wire::text(self.req.params.get(param)?, "Value")?;
            Some((*member, value == "true"))
        });
        let first = given.next().ok_or_else(|| fault("InvalidParameterCombination", "No attributes specified."))?;
        match given.next() {
            Some(_) => Err(fault("InvalidParameterCombination", "Fields for multiple attribute types specified")),
            None => Ok(first),
        }
    }

    pub(super) fn create_subnet(&mut self) -> Reply {
        let vpc_id = self.existing("vpc", "VpcId")?;
        let block = self.req.text("CidrBlock").ok_or_else(|| missing("CidrBlock"))?;
        let net = cidr(&block, "cidrBlock")?;
        let vpc_blocks = values(self.ec2.find("vpc", &vpc_id)?, "cidrBlockAssociationSet.cidrBlock");
        let inside = vpc_blocks.iter().filter_map(|block| block.parse::<Ipv4Net>().ok()).any(|vpc| vpc.contains(&net));
        if !(16..=28).contains(&net.prefix_len()) || !inside {
            return Err(fault("InvalidSubnet.Range", format!("The CIDR '{block}' is invalid.")));
        }
        let siblings: Vec<Ipv4Net> = self
            .ec2
            .with("subnet", "vpcId", &vpc_id)
            .filter_map(|(_, doc)| get(doc, "cidrBlock").parse().ok())
            .collect();
        if siblings.iter().any(|other| other.contains(&net) || net.contains(other)) {
            return Err(fault("InvalidSubnet.Conflict", format!("The CIDR '{block}' conflicts with another subnet")));
        }
        self.within(SUBNETS_QUOTA, siblings.len(), "SubnetLimitExceeded", "subnets")?;
        let (zone, zone_id) = self.zone()?;
        // AWS reserves five addresses of each subnet.
        let free = (1u64 << (32 - u32::from(net.prefix_len()))) - 5;
        let id = self.create(
            "subnet",
            "subnetId",
            json!({
                "vpcId": vpc_id, "cidrBlock": net.to_string(), "availabilityZone": zone, "availabilityZoneId": zone_id,
                "state": "available", "ownerId": self.req.account, "defaultForAz": false, "mapPublicIpOnLaunch": false,
                "mapCustomerOwnedIpOnLaunch": false, "assignIpv6AddressOnCreation": false, "ipv6CidrBlockAssociationSet": [],
                "enableDns64": false, "ipv6Native": false, super::interface::FREE: free,
                "privateDnsNameOptionsOnLaunch": {
                    "hostnameType": "ip-name", "enableResourceNameDnsARecord": false, "enableResourceNameDnsAAAARecord": false,
                },
            }),
        )?;
        let arn = self.req.arn(&format!("subnet/{id}"));
        self.ec2.find_mut("subnet", &id)?.insert("subnetArn".to_owned(), arn.into());
        Ok(json!({"subnet": pending(self.shown(&id))}))
    }

    pub(super) fn delete_subnet(&mut self) -> Reply {
        let id = self.existing("subnet", "SubnetId")?;
        if self.ec2.with("eni", "subnetId", &id).next().is_some() {
            return Err(depends("subnet", &id));
        }
        for (_, table) in self.ec2.resources.iter_mut().filter(|(id, _)| id.starts_with("rtb-")) {
            edit(table, "associationSet", |all| all.retain(|one| one.get("subnetId") != Some(&id.as_str().into())));
        }
        self.ec2.resources.remove(&id);
        done()
    }

    pub(super) fn modify_subnet_attribute(&mut self) -> Reply {
        const ATTRIBUTES: &[(&str, &str)] = &[
            ("MapPublicIpOnLaunch", "mapPublicIpOnLaunch"),
            ("AssignIpv6AddressOnCreation", "assignIpv6AddressOnCreation"),
            ("EnableDns64", "enableDns64"),
        ];
        let id = self.existing("subnet", "SubnetId")?;
        let (member, value) = self.one_attribute(ATTRIBUTES)?;
        self.ec2.find_mut("subnet", &id)?.insert(member.to_owned(), value.into());
        done()
    }

    pub(super) fn create_internet_gateway(&mut self) -> Reply {
        let have = self.ec2.of_kind("igw").count();
        self.within(GATEWAYS_QUOTA, have, "InternetGatewayLimitExceeded", "internet gateways")?;
        let body = json!({"ownerId": self.req.account, "attachmentSet": []});
        let id = self.create("igw", "internetGatewayId", body)?;
        Ok(json!({"internetGateway": self.shown(&id)}))
    }

    pub(super) fn attach_internet_gateway(&mut self) -> Reply {
        let id = self.existing("igw", "InternetGatewayId")?;
        let vpc_id = self.existing("vpc", "VpcId")?;
        if let Some(other) = values(self.ec2.find("igw", &id)?, "attachmentSet.vpcId").first() {
            let message = format!("resource {id} is already attached to network {other}");
            return Err(fault("Resource.AlreadyAssociated", message));
        }
        if self.ec2.with("igw", "attachmentSet.vpcId", &vpc_id).next().is_some() {
            return Err(invalid(format!("Network {vpc_id} already has an internet gateway attached")));
        }
        edit(self.ec2.find_mut("igw", &id)?, "attachmentSet", |all| {
            all.push(json!({"vpcId": vpc_id, "state": "available"}))
        });
        done()
    }

    pub(super) fn detach_internet_gateway(&mut self) -> Reply {
        let id = self.existing("igw", "InternetGatewayId")?;
        let vpc_id = self.existing("vpc", "VpcId")?;
        if !super::holds(self.ec2.find("igw", &id)?, "attachmentSet.vpcId", &vpc_id) {
            let message = format!("resource {id} is not attached to network {vpc_id}");
            return Err(fault("Gateway.NotAttached", message));
        }
        if self.ec2.with("eni", "vpcId", &vpc_id).any(|(_, eni)| eni.contains_key("association")) {
            let message = format!(
                "Network {vpc_id} has some mapped public address(es). Please unmap those public address(es) before detaching the gateway."
            );
            return Err(fault("DependencyViolation", message));
        }
        edit(self.ec2.find_mut("igw", &id)?, "attachmentSet", Vec::clear);
        done()
    }

    pub(super) fn delete_internet_gateway(&mut self) -> Reply {
        let id = self.existing("igw", "InternetGatewayId")?;
        if !list(self.ec2.find("igw", &id)?, "attachmentSet").is_empty() {
            return Err(depends("internetGateway", &id));
        }
        self.ec2.resources.remove(&id);
        done()
    }
}

/// The domain of private host names.
pub(super) fn domain(region: &str) -> String {
    if region == "us-east-1" { "ec2.internal".to_owned() } else { format!("{region}.compute.internal") }
}

pub(super) fn depends(what: &str, id: &str) -> Fault {
    fault("DependencyViolation", format!("The {what} '{id}' has dependencies and cannot be deleted."))
}

/// A create call returns the state `pending`, although the resource is available at once.
fn pending(mut shown: Value) -> Value {
    if let Some(state) = shown.get_mut("state") {
        *state = "pending".into();
    }
    shown
}
