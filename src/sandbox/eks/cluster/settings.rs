//! Settings of a cluster in a request, and the rules for them.

use super::super::super::kms::Kms;
use super::super::super::wire::{Fault, Reply, texts};
use super::super::{World, fault, invalid, partition};
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const LOG_TYPES: [&str; 5] = ["api", "audit", "authenticator", "controllerManager", "scheduler"];

/// Zones without EKS control planes, by zone id (Amazon EKS user guide, "Amazon EKS networking requirements").
const NO_ZONES: [&str; 3] = ["use1-az3", "usw1-az2", "cac1-az3"];

/// Subnets and zones of a cluster's interfaces.
pub(super) struct Network {
    pub vpc: String,
    pub subnets: Vec<String>,
    pub groups: Vec<String>,
    /// Zone names, sorted.
    pub zones: Vec<String>,
}

impl Network {
    pub fn read(w: &World<'_>, config: &Value, cluster: &str) -> Result<Self, Fault> {
        let mut subnets: Vec<String> = Vec::new();
        for id in texts(config, "subnetIds") {
            if !subnets.contains(&id) {
                subnets.push(id);
            }
        }
        if subnets.is_empty() {
            return Err(invalid("Subnets can't be empty"));
        }
        let (mut vpcs, mut zones) = (BTreeSet::new(), BTreeMap::new());
        for id in &subnets {
            let subnet = w.here.ec2.subnet(id);
            let subnet = subnet.ok_or_else(|| invalid(format!("The subnet ID '{id}' does not exist")))?;
            if NO_ZONES.contains(&subnet.zone_id.as_str()) {
                let message = format!(
                    "Cannot create cluster '{cluster}' because {}, the targeted availability zone, does not currently have sufficient capacity to support the cluster.",
                    subnet.zone
                );
                return Err(fault("UnsupportedAvailabilityZoneException", message));
            }
            if subnet.free < 6 {
                return Err(invalid(format!("Subnet {id} has {} free addresses: EKS needs at least 6", subnet.free)));
            }
            vpcs.insert(subnet.vpc_id);
            zones.insert(subnet.zone, ());
        }
        if vpcs.len() != 1 {
            return Err(invalid("Subnets specified must belong to the same VPC"));
        }
        if zones.len() < 2 {
            return Err(invalid("Subnets specified must be in at least two different AZs"));
        }
        let vpc = vpcs.into_iter().next().unwrap_or_default();
        let groups = texts(config, "securityGroupIds");
        if groups.len() > 4 {
            return Err(invalid(format!("{} security groups: a control plane can have 4", groups.len())));
        }
        check_groups(w, &groups, &vpc)?;
        Ok(Self { vpc, subnets, groups, zones: zones.into_keys().collect() })
    }
}

/// Checks that the groups exist and belong to the VPC.
pub fn check_groups(w: &World<'_>, groups: &[String], vpc: &str) -> Result<(), Fault> {
    for group in groups {
        match w.here.ec2.vpc_of_group(group) {
            None => return Err(invalid(format!("The security group '{group}' does not exist"))),
            Some(other) if other != vpc => {
                return Err(invalid(format!(
                    "Security group(s) [{group}] are not in the same VPC as the subnets. Please specify a security group that is associated with the VPC: {vpc}."
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

pub(super) fn check_role(w: &World<'_>, arn: &str) -> Result<(), Fault> {
    let role = w.role(arn).ok_or_else(|| invalid(format!("roleArn, {arn}, does not exist")))?;
    if !role.trusts("eks.amazonaws.com") {
        return Err(invalid("Role could not be assumed because the trusted entity is not correct"));
    }
    if !role.has_managed("AmazonEKSClusterPolicy") {
        let policy = format!("arn:{}:iam::aws:policy/AmazonEKSClusterPolicy", partition(w.region));
        return Err(invalid(format!(
            "The provided role doesn't have the Amazon EKS Managed Policies associated with it. Please ensure the following policies [{policy}] are attached"
        )));
    }
    Ok(())
}

/// The endpoint access part of a VPC config. Members that the request leaves out keep their former value.
pub(super) fn endpoint_access(config: &Value, before: &Value) -> Reply {
    let flag = |member: &str, default: bool| config[member].as_bool().or(before[member].as_bool()).unwrap_or(default);
    let (public, private) = (flag("endpointPublicAccess", true), flag("endpointPrivateAccess", false));
    if !public && !private {
        return Err(invalid("Private and public endpoint access cannot be false"));
    }
    let given = if config["publicAccessCidrs"].is_null() { before } else { config };
    let mut cidrs = texts(given, "publicAccessCidrs");
    if cidrs.is_empty() {
        cidrs.push("0.0.0.0/0".to_owned());
    }
    if cidrs.len() > 40 {
        return Err(invalid("A cluster can have 40 public access CIDRs"));
    }
    let reserved = |net: &Ipv4Net| {
        let at = net.network();
        net.prefix_len() > 0 && (at.is_private() || at.is_loopback() || at.is_link_local() || at.is_multicast())
    };
    let bad =
        cidrs.iter().find(|cidr| cidr.parse::<Ipv4Net>().map_or(true, |net| net.trunc() != net || reserved(&net)));
    if let Some(bad) = bad {
        return Err(invalid(format!("The following CIDRs are invalid in publicAccessCidrs: [{bad}]")));
    }
    if !public {
        cidrs.clear();
    }
    Ok(json!({"endpointPublicAccess": public, "endpointPrivateAccess": private, "publicAccessCidrs": cidrs}))
}

pub(super) fn service_cidr(w: &World<'_>, config: &Value, vpc: &str) -> Result<String, Fault> {
    let blocks: Vec<Ipv4Net> = w.here.ec2.vpc(vpc).and_then(|vpc| vpc.cidr).into_iter().collect();
    let overlaps =
        |net: &Ipv4Net| blocks.iter().any(|block| block.contains(&net.network()) || net.contains(&block.network()));
    let Some(text) = config["serviceIpv4Cidr"].as_str() else {
        let ten: Option<Ipv4Net> = "10.0.0.0/8".parse().ok();
        let inside = ten.is_some_and(|ten| overlaps(&ten));
        return Ok(if inside { "172.20.0.0/16" } else { "10.100.0.0/16" }.to_owned());
    };
    let net: Option<Ipv4Net> = text.parse().ok().filter(|net: &Ipv4Net| net.trunc() == *net);
    let net = net.ok_or_else(|| invalid(format!("The serviceIpv4Cidr {text} is not a valid CIDR block")))?;
    if !(12..=24).contains(&net.prefix_len()) {
        return Err(invalid(format!("The serviceIpv4Cidr {text} must have a prefix between /12 and /24")));
    }
    if !net.network().is_private() {
        let message = format!("The serviceIpv4Cidr {text} must be within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16");
        return Err(invalid(message));
    }
    if overlaps(&net) {
        return Err(invalid(format!("The serviceIpv4Cidr {text} overlaps with a CIDR block of the VPC {vpc}")));
    }
    Ok(text.to_owned())
}

/// Enabled and disabled log types after the request, in the form of DescribeCluster. Types that the request leaves out
/// stay as they were.
pub(super) fn logging(config: &Value, before: &BTreeSet<&str>) -> Reply {
    let mut on = before.clone();
    for setup in config["clusterLogging"].as_array().into_iter().flatten() {
        for kind in texts(setup, "types") {
            let Some(kind) = LOG_TYPES.iter().find(|one| **one == kind) else {
                return Err(invalid(format!("Invalid log type {kind}")));
            };
            if setup["enabled"] == true {
                on.insert(kind)
            } else {
                on.remove(kind)
            };
        }
    }
    let (on, off): (Vec<&str>, Vec<&str>) = LOG_TYPES.iter().partition(|kind| on.contains(*kind));
    let setups = [(on, true), (off, false)].into_iter().filter(|(types, _)| !types.is_empty());
    Ok(
        json!({"clusterLogging": setups.map(|(types, enabled)| json!({"types": types, "enabled": enabled})).collect::<Value>()}),
    )
}

pub(super) fn enabled_logs(body: &Value) -> BTreeSet<&str> {
    let setups = body["logging"]["clusterLogging"].as_array().into_iter().flatten();
    let on = setups.filter(|setup| setup["enabled"] == true);
    on.flat_map(|setup| setup["types"].as_array().into_iter().flatten().filter_map(Value::as_str)).collect()
}

pub(super) fn encryption(kms: &Kms, config: Option<&Value>) -> Result<Option<Value>, Fault> {
    let Some(list) = config.and_then(Value::as_array).filter(|list| !list.is_empty()) else { return Ok(None) };
    let [one] = list.as_slice() else { return Err(invalid("A cluster can have one encryption config")) };
    if texts(one, "resources") != ["secrets"] {
        return Err(invalid("The only resource that an encryption config can name is secrets"));
    }
    let arn = one["provider"]["keyArn"].as_str().unwrap_or_default();
    let state = kms.by_arn(arn).map(|key| key.enabled());
    match state {
        None => Err(invalid(format!("The keyArn in encryptionConfig provider: {arn} does not exist in this region"))),
        Some(Err(state)) => Err(invalid(format!("The keyArn in encryptionConfig provider: {arn} is {state}"))),
        Some(Ok(())) => Ok(Some(json!([{"resources": ["secrets"], "provider": {"keyArn": arn}}]))),
    }
}

pub(super) fn support_type(params: &Value, default: &str) -> Result<String, Fault> {
    let support = params["upgradePolicy"]["supportType"].as_str().unwrap_or(default);
    if ["STANDARD", "EXTENDED"].contains(&support) {
        return Ok(support.to_owned());
    }
    Err(invalid(format!("Unsupported supportType {support:?}")))
}

/// Refuses modes that the sandbox lacks. To accept and ignore them would mislead the caller.
pub(super) fn no_other_modes(params: &Value) -> Result<(), Fault> {
    let network = &params["kubernetesNetworkConfig"];
    let asked = [
        ("Auto Mode", params["computeConfig"]["enabled"] == true),
        ("Auto Mode", params["storageConfig"]["blockStorage"]["enabled"] == true),
        ("Auto Mode", network["elasticLoadBalancing"]["enabled"] == true),
        ("IPv6 clusters", network["ipFamily"].as_str().is_some_and(|family| family != "ipv4")),
        ("Outposts", !params["outpostConfig"].is_null()),
        ("hybrid nodes", !params["remoteNetworkConfig"].is_null()),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((what, _)) => Err(invalid(format!("ringfence's sandbox has no {what}"))),
        None => Ok(()),
    }
}
