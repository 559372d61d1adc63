//! EC2: the network parts, security groups, launch templates and tags that a cluster needs.
//!
//! Every resource is a document in exactly the shape that its Describe operation puts on the wire: members have their
//! wire names, and keys that begin with `_` are never shown. It is stored under its id, and the id's prefix names its
//! kind. So describing, filtering, tagging, paging and dependency checks are written once and driven by tables.
//! Error codes and texts are those of the EC2 API reference ("Error codes for the Amazon EC2 API").
//!
//! The functions that EKS uses (all on [`Ec2`], reached as `state.region(account, region).ec2`):
//! - `subnet(id) -> Option<Subnet>`: VPC, zone, zone id, free addresses;
//! - `vpc_of_group(id) -> Option<String>`: the security group's VPC; `vpc(id) -> Option<Vpc>`: CIDR, DNS attributes;
//! - `launch_template(id_or_name, version) -> Option<LaunchTemplate>`: `version` is a number, `$Latest`, `$Default` or
//!   empty (the default); `data` is the template's data in the shape of DescribeLaunchTemplateVersions (`imageId`,
//!   `securityGroupIdSet`, `metadataOptions`, `blockDeviceMappingSet`, `userData` …); values are strings, as sent;
//! - `add_group(ids, account, region, vpc_id, name, description, tags) -> String`: a group with the all-egress rule;
//!   `allow_from_self(ids, account, group_id)`: the cluster group's ingress rule; `remove_group(id)`, without a
//!   check of dependencies;
//! - `add_interface(ids, NewInterface { … }) -> Result<String, Fault>`: an interface with an owner such as
//!   `eks/<cluster>` or `eks/<cluster>/<nodegroup>`; `remove_interfaces(owner)`: all of that owner;
//!   `interfaces(owner) -> Vec<String>`;
//! - `start_instance(ids, NewInstance { … })`: a node with its volumes and its interface; `instances(owner)`,
//!   `stop_instance(id)`, `stop_instances(owner)`;
//! - `tag(id, key, value)`: sets a tag, reserved keys too.
//!
//! `ids` is `state.ids`. Borrow both with
//! `let State { accounts, ids, .. } = state;` and reach the region through `accounts`.

mod block;
mod describe;
mod endpoint;
mod flow_log;
mod group;
mod instance;
mod interface;
mod nat;
mod place;
mod route;
mod tag;
mod template;
pub mod types;
mod vpc;

pub use instance::NewInstance;
pub use interface::NewInterface;
pub use place::zones;

use super::fate::{During, Fates};
use super::iam::Iam;
use super::state::{Ids, Region, State};
use super::wire::{Fault, Reply, Request};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A resource as the wire shows it.
type Doc = Map<String, Value>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ec2 {
    resources: BTreeMap<String, Doc>,
    /// When (simulated unix seconds) a resource passes into its next state.
    due: BTreeMap<String, f64>,
    /// The same for resources that a fault script holds in their state (`stuck`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    stuck: BTreeMap<String, f64>,
    /// The resources that calls with client tokens created, by operation and token.
    tokens: BTreeMap<String, Token>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Token {
    params: Value,
    /// Ids, separated by commas. A version of a launch template is `lt-…/2`.
    made: String,
    at: f64,
    /// The resource as the first call returned it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    shown: Value,
}

/// For these operations, a repeated token returns the resource of the first call even if that has been deleted since
/// (EC2 developer guide, "Ensuring idempotency in Amazon EC2 API requests": a retry "completes successfully without
/// performing any further actions").
const REMEMBERED: &[&str] = &["CreateFlowLogs", "CreateRouteTable", "CreateVpcEndpoint"];

/// EC2 forgets client tokens after some time. Its docs give 24 hours for launch templates.
const TOKEN_SECONDS: f64 = 86_400.0;

pub struct Vpc {
    pub cidr: Option<Ipv4Net>,
    pub dns_support: bool,
    pub dns_hostnames: bool,
}

pub struct Subnet {
    pub vpc_id: String,
    pub zone: String,
    pub zone_id: String,
    /// As `availableIpAddressCount`.
    pub free: u64,
}

pub struct LaunchTemplate {
    pub id: String,
    pub name: String,
    pub version: u64,
    pub data: Value,
}

/// Prefix of the id; type in tag specifications; code and text for an unknown id; code for a malformed id.
struct Kind {
    prefix: &'static str,
    tag_type: &'static str,
    not_found: &'static str,
    not_found_text: &'static str,
    malformed: &'static str,
}

macro_rules! kinds {
    ($($prefix:literal $tag_type:literal $not_found:literal $text:literal $malformed:literal)*) => {
        &[$(Kind { prefix: $prefix, tag_type: $tag_type, not_found: $not_found, not_found_text: $text, malformed: $malformed }),*]
    };
}

#[rustfmt::skip]
const KINDS: &[Kind] = kinds! {
    "vpc" "vpc" "InvalidVpcID.NotFound" "The vpc ID '{}' does not exist" "InvalidVpcID.Malformed"
    "subnet" "subnet" "InvalidSubnetID.NotFound" "The subnet ID '{}' does not exist" "InvalidSubnetID.Malformed"
    "igw" "internet-gateway" "InvalidInternetGatewayID.NotFound" "The internetGateway ID '{}' does not exist" "InvalidInternetGatewayId.Malformed"
    "eipalloc" "elastic-ip" "InvalidAllocationID.NotFound" "The allocation ID '{}' does not exist" "InvalidAllocationID.Malformed"
    "nat" "natgateway" "NatGatewayNotFound" "The Nat Gateway {} was not found" "NatGatewayMalformed"
    "rtb" "route-table" "InvalidRouteTableID.NotFound" "The routeTable ID '{}' does not exist" "InvalidRouteTableId.Malformed"
    "vpce" "vpc-endpoint" "InvalidVpcEndpointId.NotFound" "The Vpc Endpoint Id '{}' does not exist" "InvalidVpcEndpointId.Malformed"
    "sg" "security-group" "InvalidGroup.NotFound" "The security group '{}' does not exist" "InvalidGroupId.Malformed"
    "sgr" "security-group-rule" "InvalidSecurityGroupRuleId.NotFound" "The security group rule ID '{}' does not exist" "InvalidSecurityGroupRuleId.Malformed"
    "eni" "network-interface" "InvalidNetworkInterfaceID.NotFound" "The networkInterface ID '{}' does not exist" "InvalidNetworkInterfaceId.Malformed"
    "acl" "network-acl" "InvalidNetworkAclID.NotFound" "The networkAcl ID '{}' does not exist" "InvalidNetworkAclId.Malformed"
    "dopt" "dhcp-options" "InvalidDhcpOptionID.NotFound" "The dhcpOption ID '{}' does not exist" "InvalidDhcpOptionsId.Malformed"
    "fl" "vpc-flow-log" "InvalidFlowLogId.NotFound" "These flow log ids in the input list are not found: [TotalCount: 1] {}" "InvalidFlowLogId.Malformed"
    "i" "instance" "InvalidInstanceID.NotFound" "The instance ID '{}' does not exist" "InvalidInstanceID.Malformed"
    "vol" "volume" "InvalidVolume.NotFound" "The volume '{}' does not exist." "InvalidVolumeID.Malformed"
    "lt" "launch-template" "InvalidLaunchTemplateId.NotFound" "The specified launch template, with template ID {}, does not exist." "InvalidLaunchTemplateId.Malformed"
};

impl Kind {
    fn of(id: &str) -> Option<&'static Kind> {
        let prefix = id.split_once('-').map_or("", |(prefix, _)| prefix);
        KINDS.iter().find(|kind| kind.prefix == prefix)
    }

    fn named(prefix: &str) -> &'static Kind {
        // Every caller names a prefix of the table. The fallback to the first row is never used; it avoids a panic.
        KINDS.iter().find(|kind| kind.prefix == prefix).unwrap_or(&KINDS[0])
    }

    fn unknown(&self, id: &str) -> Fault {
        let looks_right = id
            .strip_prefix(self.prefix)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|rest| (8..=17).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if looks_right {
            fault(self.not_found, self.not_found_text.replace("{}", id))
        } else {
            fault(self.malformed, format!("Invalid id: \"{id}\" (expecting \"{}-...\")", self.prefix))
        }
    }
}

/// The context of one call: the region's EC2, and what the call needs from outside of it.
struct Call<'a> {
    ec2: &'a mut Ec2,
    ids: &'a mut Ids,
    iam: &'a Iam,
    quotas: &'a BTreeMap<String, f64>,
    fates: &'a mut Fates,
    req: &'a Request,
}

pub fn call(state: &mut State, req: &Request) -> Reply {
    if req.text("DryRun").as_deref() == Some("true") {
        return Err(Fault::new(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."));
    }
    let State { accounts, ids, quotas, fates, .. } = state;
    let account = accounts.entry(req.account.clone()).or_default();
    let Region { ec2, .. } = account.regions.entry(req.region.clone()).or_default();
    let call = &mut Call { ec2, ids, iam: &account.iam, quotas, fates, req };
    if let Some(listing) = describe::listing(&req.operation) {
        return call.describe(listing);
    }
    match req.operation.as_str() {
        "CreateVpc" => call.create_vpc(),
        "DeleteVpc" => call.delete_vpc(),
        "ModifyVpcAttribute" => call.modify_vpc_attribute(),
        "DescribeVpcAttribute" => call.describe_vpc_attribute(),
        "AssociateVpcCidrBlock" => call.associate_vpc_cidr_block(),
        "DisassociateVpcCidrBlock" => call.disassociate_vpc_cidr_block(),
        "CreateSubnet" => call.create_subnet(),
        "DeleteSubnet" => call.delete_subnet(),
        "ModifySubnetAttribute" => call.modify_subnet_attribute(),
        "CreateInternetGateway" => call.create_internet_gateway(),
        "AttachInternetGateway" => call.attach_internet_gateway(),
        "DetachInternetGateway" => call.detach_internet_gateway(),
        "DeleteInternetGateway" => call.delete_internet_gateway(),
        "AllocateAddress" => call.allocate_address(),
        "ReleaseAddress" => call.release_address(),
        "CreateNatGateway" => call.create_nat_gateway(),
        "DeleteNatGateway" => call.delete_nat_gateway(),
        "CreateRouteTable" => call.create_route_table(),
        "DeleteRouteTable" => call.delete_route_table(),
        "CreateRoute" => call.create_route(),
        "ReplaceRoute" => call.replace_route(),
        "DeleteRoute" => call.delete_route(),
        "AssociateRouteTable" => call.associate_route_table(),
        "DisassociateRouteTable" => call.disassociate_route_table(),
        "ReplaceRouteTableAssociation" => call.replace_route_table_association(),
        "CreateVpcEndpoint" => call.create_vpc_endpoint(),
        "ModifyVpcEndpoint" => call.modify_vpc_endpoint(),
        "DeleteVpcEndpoints" => call.delete_vpc_endpoints(),
        "DescribeVpcEndpointServices" => call.describe_vpc_endpoint_services(),
        "DescribePrefixLists" => call.describe_prefix_lists(),
        "CreateSecurityGroup" => call.create_security_group(),
        "DeleteSecurityGroup" => call.delete_security_group(),
        "AuthorizeSecurityGroupIngress" => call.authorize(false),
        "AuthorizeSecurityGroupEgress" => call.authorize(true),
        "RevokeSecurityGroupIngress" => call.revoke(false),
        "RevokeSecurityGroupEgress" => call.revoke(true),
        "UpdateSecurityGroupRuleDescriptionsIngress" => call.describe_rules_anew(false),
        "UpdateSecurityGroupRuleDescriptionsEgress" => call.describe_rules_anew(true),
        "CreateFlowLogs" => call.create_flow_logs(),
        "DeleteFlowLogs" => call.delete_flow_logs(),
        "CreateLaunchTemplate" => call.create_launch_template(),
        "DeleteLaunchTemplate" => call.delete_launch_template(),
        "CreateLaunchTemplateVersion" => call.create_launch_template_version(),
        "DescribeLaunchTemplateVersions" => call.describe_launch_template_versions(),
        "ModifyLaunchTemplate" => call.modify_launch_template(),
        "DeleteLaunchTemplateVersions" => call.delete_launch_template_versions(),
        "CreateNetworkInterface" => call.create_network_interface(),
        "DeleteNetworkInterface" => call.delete_network_interface(),
        "CreateTags" => call.create_tags(),
        "DeleteTags" => call.delete_tags(),
        "DescribeTags" => call.describe_tags(),
        "DescribeAvailabilityZones" => call.describe_availability_zones(),
        "DescribeRegions" => call.describe_regions(),
        "DescribeAccountAttributes" => call.describe_account_attributes(),
        "DescribeInstances" => call.describe_instances(),
        "DescribeInstanceTypeOfferings" => call.describe_instance_type_offerings(),
        "DescribeInstanceTypes" => call.describe_instance_types(),
        "GetEbsEncryptionByDefault" => Ok(json!({"ebsEncryptionByDefault": false, "sseType": "sse-ebs"})),
        _ => Err(req.unknown_operation()),
    }
}

impl Ec2 {
    /// Brings gateways and endpoints up to `now`.
    pub fn settle(&mut self, now: f64) {
        self.tokens.retain(|_, token| token.at + TOKEN_SECONDS > now);
        while let Some((id, at)) = self.due.iter().find(|(_, at)| **at <= now).map(|(id, at)| (id.clone(), *at)) {
            self.due.remove(&id);
            match id.split_once('-').map(|(prefix, _)| prefix) {
                Some("nat") => self.mature_nat_gateway(&id, at),
                Some("eni") => self.remove_interface(&id),
                _ => self.mature_vpc_endpoint(&id),
            }
        }
    }

    /// Lets stuck resources go on to their next state.
    pub fn release(&mut self) {
        self.due.append(&mut self.stuck);
    }

    pub fn vpc(&self, id: &str) -> Option<Vpc> {
        let vpc = self.resources.get(id)?;
        let attribute = |name| vpc.get("_attributes").and_then(|all| all.get(name)).and_then(Value::as_bool);
        Some(Vpc {
            cidr: get(vpc, "cidrBlock").parse().ok(),
            dns_support: attribute("enableDnsSupport") == Some(true),
            dns_hostnames: attribute("enableDnsHostnames") == Some(true),
        })
    }

    pub fn subnet(&self, id: &str) -> Option<Subnet> {
        let subnet = self.resources.get(id).filter(|_| id.starts_with("subnet-"))?;
        Some(Subnet {
            vpc_id: get(subnet, "vpcId").to_owned(),
            zone: get(subnet, "availabilityZone").to_owned(),
            zone_id: get(subnet, "availabilityZoneId").to_owned(),
            free: subnet.get(interface::FREE).and_then(Value::as_u64).unwrap_or_default(),
        })
    }

    pub fn vpc_of_group(&self, id: &str) -> Option<String> {
        let group = self.resources.get(id).filter(|_| id.starts_with("sg-"))?;
        Some(get(group, "vpcId").to_owned())
    }

    /// The resource's type as its ARN has it, and its tags.
    pub fn tagged(&self, id: &str) -> Option<(&'static str, BTreeMap<String, String>)> {
        let doc = self.resources.get(id)?;
        let tag = |tag: &Value| Some((tag["key"].as_str()?.to_owned(), tag["value"].as_str()?.to_owned()));
        Some((Kind::of(id)?.tag_type, list(doc, "tagSet").iter().filter_map(tag).collect()))
    }

    /// The VPC of a resource.
    pub fn vpc_of(&self, id: &str) -> Option<&str> {
        self.resources.get(id)?.get("vpcId")?.as_str()
    }

    /// The ids of the resources that `name` refers to: an id, a launch template's name or an association's id.
    pub fn resources_of(&self, name: &str) -> Vec<String> {
        let members =
            [("associationSet.routeTableAssociationId", "rtb"), ("cidrBlockAssociationSet.associationId", "vpc")];
        let holder = members.iter().find_map(|(path, kind)| self.with(kind, path, name).next());
        match (self.launch_template(name, ""), holder) {
            (Some(template), _) => vec![template.id],
            (None, Some((id, doc))) => {
                let this = |one: &&Value| one["routeTableAssociationId"] == name;
                let subnet = list(doc, "associationSet").iter().find(this).and_then(|one| one["subnetId"].as_str());
                std::iter::once(id.clone()).chain(subnet.map(str::to_owned)).collect()
            }
            (None, None) => vec![name.to_owned()],
        }
    }

    /// Sets a tag. Reserved keys (`aws:`) are allowed.
    pub fn tag(&mut self, id: &str, key: &str, value: &str) {
        if let Some(doc) = self.resources.get_mut(id) {
            tag::set(doc, key, value);
        }
    }

    fn of_kind<'e>(&'e self, prefix: &'e str) -> impl Iterator<Item = (&'e String, &'e Doc)> {
        let start = format!("{prefix}-");
        self.resources.range(start.clone()..).take_while(move |(id, _)| id.starts_with(&start))
    }

    /// The resources of a kind that have this value at this path.
    fn with<'e>(
        &'e self,
        prefix: &'e str,
        path: &'e str,
        value: &'e str,
    ) -> impl Iterator<Item = (&'e String, &'e Doc)> {
        self.of_kind(prefix).filter(move |(_, doc)| holds(doc, path, value))
    }

    fn find(&self, prefix: &str, id: &str) -> Result<&Doc, Fault> {
        self.resources
            .get(id)
            .filter(|_| Kind::of(id).is_some_and(|kind| kind.prefix == prefix))
            .ok_or_else(|| Kind::named(prefix).unknown(id))
    }

    fn find_mut(&mut self, prefix: &str, id: &str) -> Result<&mut Doc, Fault> {
        self.resources
            .get_mut(id)
            .filter(|_| Kind::of(id).is_some_and(|kind| kind.prefix == prefix))
            .ok_or_else(|| Kind::named(prefix).unknown(id))
    }
}

impl Call<'_> {
    fn require(&self, name: &str) -> Result<String, Fault> {
        self.req.text(name).ok_or_else(|| missing(name))
    }

    /// The id in a parameter. The resource must exist.
    fn existing(&self, prefix: &str, param: &str) -> Result<String, Fault> {
        let id = self.require(param)?;
        self.ec2.find(prefix, &id)?;
        Ok(id)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.req.text(name).map(|text| text == "true")
    }

    /// Stores a new resource with its id and its tags from `TagSpecification`.
    fn create(&mut self, prefix: &str, id_member: &str, body: Value) -> Result<String, Fault> {
        let tags = tag::specified(self.req, Kind::named(prefix).tag_type)?;
        let id = self.ids.id(prefix);
        let mut doc = doc(body);
        doc.insert(id_member.to_owned(), id.as_str().into());
        doc.insert("tagSet".to_owned(), tags.into());
        self.ec2.resources.insert(id.clone(), doc);
        Ok(id)
    }

    /// Creates a resource, or returns the one that an identical call with the same client token created.
    fn once(&mut self, create: impl FnOnce(&mut Self) -> Result<String, Fault>) -> Result<String, Fault> {
        let Some(token) = self.req.text("ClientToken") else { return create(self) };
        if token.len() > 128 || !token.is_ascii() {
            return Err(invalid(format!(
                "Value ({token}) for parameter clientToken is invalid. It must be at most 128 ASCII characters."
            )));
        }
        let key = format!("{}/{token}", self.req.operation);
        if let Some(known) = self.ec2.tokens.get(&key) {
            if known.params != self.req.params {
                let message = format!("The client token {token:?} was used before with other parameters");
                return Err(fault("IdempotentParameterMismatch", message));
            }
            let there = known.made.split(['/', ',']).next().is_some_and(|id| self.ec2.resources.contains_key(id));
            if there || REMEMBERED.contains(&self.req.operation.as_str()) {
                return Ok(known.made.clone());
            }
        }
        let made = create(self)?;
        let shown = self.shown(&made);
        let token = Token { params: self.req.params.clone(), made: made.clone(), at: self.req.now, shown };
        self.ec2.tokens.insert(key, token);
        Ok(made)
    }

    /// Schedules the next state of a resource: after `seconds`, unless a fault script says otherwise.
    fn becomes(&mut self, kind: &str, id: &str, during: During, seconds: f64) {
        let Some(doc) = self.ec2.resources.get_mut(id) else { return };
        let tag = list(doc, "tagSet").iter().find(|tag| tag["key"] == "Name").and_then(|tag| tag["value"].as_str());
        let name = tag.unwrap_or(id).to_owned();
        let fate = self.fates.of(kind, &name, during);
        if let Some(reason) = fate.reason() {
            doc.insert("_failure".to_owned(), json!(reason));
        }
        let when = if fate.stuck { &mut self.ec2.stuck } else { &mut self.ec2.due };
        when.insert(id.to_owned(), self.req.now + seconds * fate.slower);
    }

    /// Refuses a new resource where the quota is used up.
    fn within(&self, quota: &str, have: usize, code: &str, what: &str) -> Result<(), Fault> {
        if (have as f64) < super::quotas::limit(self.quotas, quota) {
            return Ok(());
        }
        Err(fault(code, format!("The maximum number of {what} has been reached.")))
    }

    /// A stored resource as Describe shows it. A deleted one that a client token remembers is shown as it was.
    fn shown(&self, id: &str) -> Value {
        let remembered = || self.ec2.tokens.values().find(|token| token.made == id).map(|token| token.shown.clone());
        match self.ec2.resources.get(id) {
            Some(doc) => Value::Object(self.ec2.presented(id, doc)),
            None => remembered().unwrap_or_default(),
        }
    }
}

fn fault(code: &str, message: impl Into<String>) -> Fault {
    Fault::new(400, code, message)
}

fn invalid(message: impl Into<String>) -> Fault {
    fault("InvalidParameterValue", message)
}

fn missing(name: &str) -> Fault {
    let mut chars = name.chars();
    let first: String = chars.next().map(|c| c.to_ascii_lowercase()).into_iter().collect();
    fault("MissingParameter", format!("The request must contain the parameter {first}{}", chars.as_str()))
}

fn done() -> Reply {
    Ok(json!({"return": true}))
}

fn doc(value: Value) -> Doc {
    match value {
        Value::Object(doc) => doc,
        _ => Doc::new(),
    }
}

/// A string member. Empty if it is missing.
fn get<'d>(doc: &'d Doc, name: &str) -> &'d str {
    doc.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'d>(doc: &'d Doc, name: &str) -> &'d [Value] {
    doc.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Changes a list member. A missing list is created first.
fn edit<R>(doc: &mut Doc, name: &str, change: impl FnOnce(&mut Vec<Value>) -> R) -> R {
    let mut list = match doc.remove(name) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let result = change(&mut list);
    doc.insert(name.to_owned(), list.into());
    result
}

/// Visits the values at a dotted path, including the items of lists on it, until `wanted` accepts one.
fn walk(doc: &Doc, path: &str, wanted: &mut impl FnMut(&Value) -> bool) -> bool {
    fn at(value: &Value, path: Option<&str>, wanted: &mut impl FnMut(&Value) -> bool) -> bool {
        match (value, path) {
            (Value::Array(list), _) => list.iter().any(|value| at(value, path, wanted)),
            (Value::Object(doc), Some(path)) => walk(doc, path, wanted),
            (_, None) => wanted(value),
            _ => false,
        }
    }
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    doc.get(name).is_some_and(|value| at(value, rest, wanted))
}

/// All values at a dotted path as text.
fn values(doc: &Doc, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(doc, path, &mut |value| {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Number(_) | Value::Bool(_) => found.push(value.to_string()),
            _ => {}
        }
        false
    });
    found
}

fn holds(doc: &Doc, path: &str, wanted: &str) -> bool {
    walk(doc, path, &mut |value| match value {
        Value::String(text) => text == wanted,
        Value::Number(number) => number.to_string() == wanted,
        Value::Bool(truth) => wanted == if *truth { "true" } else { "false" },
        _ => false,
    })
}

/// A CIDR block in its canonical form; `param` is for the error.
fn cidr(text: &str, param: &str) -> Result<Ipv4Net, Fault> {
    text.parse::<Ipv4Net>().map(|net| net.trunc()).map_err(|_| {
        invalid(format!("Value ({text}) for parameter {param} is invalid. This is not a valid CIDR block."))
    })
}
