//! EC2: the network parts, security groups, launch templates and tags that a cluster needs.
//!
//! Every resource is a document in the very shape that its Describe operation puts on the wire (members by their wire
//! names, keys that begin with `_` never shown), stored under its id; the id's prefix tells its kind. So describing,
//! filtering, tagging, paging and dependency checks are written once, over tables. Error codes and texts are those of
//! the EC2 API reference ("Error codes for the Amazon EC2 API").
//!
//! What EKS uses of this module (all on [`Ec2`], reached as `state.region(account, region).ec2`):
//! - `subnet(id) -> Option<Subnet>`: VPC, zone, zone id, CIDR, free addresses;
//! - `vpc_of_group(id) -> Option<String>`: the security group's VPC; `vpc(id) -> Option<Vpc>`: CIDR and DNS attributes;
//! - `launch_template(id_or_name, version) -> Option<LaunchTemplate>`: `version` is a number, `$Latest`, `$Default` or empty
//!   (the default); `data` is the template's data in the shape of DescribeLaunchTemplateVersions (`imageId`, `groupSet`-like
//!   members by their EC2 wire names: `securityGroupIdSet`, `metadataOptions`, `blockDeviceMappingSet`, `userData` …);
//! - `add_group(ids, account, region, vpc_id, name, description, tags) -> String`: a group with the all-egress rule;
//!   `allow_from_self(ids, account, group_id)`: the cluster group's ingress rule; `remove_group(id)`: whatever depends on it;
//! - `add_interface(ids, NewInterface { … }) -> Result<String, Fault>`: an interface with an owner such as
//!   `eks/<cluster>` or `eks/<cluster>/<nodegroup>`; `remove_interfaces(owner)`: all of that owner;
//!   `interfaces(owner) -> Vec<String>`;
//! - `tag(id, key, value)`: sets a tag, reserved keys too.
//!
//! `ids` is `state.ids`. Borrow both with
//! `let State { accounts, ids, .. } = state;` and reach the region through `accounts`.

use super::state::{Ids, State};
use super::wire::{Fault, Reply, Request};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ec2 {}

pub struct Vpc {
    pub cidr: Option<Ipv4Net>,
    pub dns_support: bool,
    pub dns_hostnames: bool,
}

pub struct Subnet {
    pub vpc_id: String,
    pub zone: String,
    pub zone_id: String,
    pub cidr: Option<Ipv4Net>,
    /// As `availableIpAddressCount`.
    pub free: usize,
}

pub struct LaunchTemplate {
    pub id: String,
    pub name: String,
    pub version: u64,
    pub data: Value,
}

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
    /// Who may remove it; an interface without an owner is a customer's own and is `available`.
    pub owner: &'a str,
    pub tags: &'a [(String, String)],
    /// A wanted address, or the lowest free one.
    pub address: Option<&'a str>,
}

/// Zone names and ids of a region.
pub fn zones(_region: &str) -> Vec<(String, String)> {
    Vec::new()
}

impl Ec2 {
    pub fn settle(&mut self, _now: f64) {}
    pub fn vpc(&self, _id: &str) -> Option<Vpc> {
        None
    }
    pub fn subnet(&self, _id: &str) -> Option<Subnet> {
        None
    }
    pub fn vpc_of_group(&self, _id: &str) -> Option<String> {
        None
    }
    pub fn launch_template(&self, _id_or_name: &str, _version: &str) -> Option<LaunchTemplate> {
        None
    }
    pub fn add_group(&mut self, _ids: &mut Ids, _account: &str, _region: &str, _vpc_id: &str, _name: &str, _description: &str, _tags: &[(String, String)]) -> String {
        String::new()
    }
    pub fn allow_from_self(&mut self, _ids: &mut Ids, _account: &str, _group_id: &str) {}
    pub fn remove_group(&mut self, _id: &str) {}
    pub fn add_interface(&mut self, _ids: &mut Ids, _new: &NewInterface<'_>) -> Result<String, Fault> {
        Ok(String::new())
    }
    pub fn interfaces(&self, _owner: &str) -> Vec<String> {
        Vec::new()
    }
    pub fn remove_interfaces(&mut self, _owner: &str) {}
    pub fn tag(&mut self, _id: &str, _key: &str, _value: &str) {}
}

pub fn call(_state: &mut State, req: &Request) -> Reply {
    Err(req.unknown_operation())
}
