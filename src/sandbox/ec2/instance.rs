//! Instances with their volumes and interfaces: the nodes of node groups.

use super::{Call, Ec2, Fault, Ids, NewInterface, Reply, describe, doc, fault, get, tag};
use crate::sandbox::wire::{items, text};
use serde_json::{Value, json};

/// A node that a node group starts.
#[derive(Debug)]
pub struct NewInstance<'a> {
    pub account: &'a str,
    pub region: &'a str,
    pub subnet_id: &'a str,
    pub groups: &'a [String],
    /// Such as `m7i.large`.
    pub kind: &'a str,
    /// The owner, by which [`Ec2::stop_instances`] finds it.
    pub owner: &'a str,
    /// Data of its launch template.
    pub template: &'a Value,
    /// Tags of the instance, in addition to those of the template.
    pub tags: &'a [(String, String)],
}

const FILTERS: &[(&str, &str)] = &[
    ("instance-id", "instanceId"),
    ("instance-state-name", "instanceState.name"),
    ("instance-type", "instanceType"),
    ("subnet-id", "subnetId"),
    ("vpc-id", "vpcId"),
];

/// The tags that a template gives to resources of this type that a launch
/// makes.
fn given(template: &Value, of: &str) -> Vec<(String, String)> {
    let specifications = items(template, "tagSpecificationSet").iter();
    let specifications = specifications.filter(|one| text(one, "resourceType").as_deref() == Some(of));
    let tags = specifications.flat_map(|one| items(one, "tagSet"));
    tags.filter_map(|tag| Some((text(tag, "key")?, text(tag, "value").unwrap_or_default()))).collect()
}

impl Ec2 {
    /// # Errors
    /// The subnet or a group is unknown, or the subnet is full.
    pub fn start_instance(&mut self, ids: &mut Ids, new: &NewInstance<'_>) -> Result<(), Fault> {
        let interface = NewInterface {
            account: new.account,
            region: new.region,
            subnet_id: new.subnet_id,
            groups: new.groups,
            description: "",
            kind: "interface",
            owner: new.owner,
            tags: &given(new.template, "network-interface"),
            ..NewInterface::default()
        };
        let interface = self.add_interface(ids, &interface)?;
        let id = ids.id("i");
        let eni = self.resources.get(&interface).cloned().unwrap_or_default();
        let mut volumes = Vec::new();
        for mapping in items(new.template, "blockDeviceMappingSet") {
            let volume = ids.id("vol");
            volumes.push(json!({
                "deviceName": mapping["deviceName"],
                "ebs": {"volumeId": volume, "status": "attached", "deleteOnTermination": true},
            }));
            let mut stored = doc(json!({
                "volumeId": volume, "status": "in-use", "availabilityZone": eni.get("availabilityZone"),
                "attachmentSet": [{"instanceId": id, "volumeId": volume, "device": mapping["deviceName"], "status": "attached"}],
                "tagSet": [], "_owner": new.owner,
            }));
            for (key, value) in given(new.template, "volume") {
                tag::set(&mut stored, &key, &value);
            }
            self.resources.insert(volume, stored);
        }
        let mut stored = doc(json!({
            "instanceId": id, "instanceType": new.kind, "instanceState": {"code": 16, "name": "running"},
            "placement": {"availabilityZone": eni.get("availabilityZone")}, "subnetId": new.subnet_id,
            "vpcId": eni.get("vpcId"), "privateIpAddress": eni.get("privateIpAddress"), "blockDeviceMapping": volumes,
            "networkInterfaceSet": [{
                "networkInterfaceId": interface,
                "attachment": {"deviceIndex": 0, "status": "attached", "deleteOnTermination": true},
            }],
            "tagSet": [], "_owner": new.owner, "_account": new.account,
        }));
        for (key, value) in given(new.template, "instance").iter().chain(new.tags) {
            tag::set(&mut stored, key, value);
        }
        self.resources.insert(id, stored);
        Ok(())
    }

    /// The subnets of an owner's instances, by their ids.
    pub fn instances(&self, owner: &str) -> Vec<(String, String)> {
        self.with("i", "_owner", owner).map(|(id, one)| (id.clone(), get(one, "subnetId").to_owned())).collect()
    }

    pub fn stop_instance(&mut self, id: &str) {
        let Some(instance) = self.resources.remove(id) else { return };
        for volume in super::values(&instance, "blockDeviceMapping.ebs.volumeId") {
            self.resources.remove(&volume);
        }
        for interface in super::values(&instance, "networkInterfaceSet.networkInterfaceId") {
            self.remove_interface(&interface);
        }
    }

    pub fn stop_instances(&mut self, owner: &str) {
        for (id, _) in self.instances(owner) {
            self.stop_instance(&id);
        }
    }
}

impl Call<'_> {
    pub(super) fn describe_instances(&mut self) -> Reply {
        let asked = self.req.texts("InstanceId");
        for id in &asked {
            self.ec2.find("i", id)?;
        }
        let filters = describe::Filters::of(self.req, FILTERS)?;
        let found =
            self.ec2.of_kind("i").filter(|(id, one)| (asked.is_empty() || asked.contains(id)) && filters.pass(one));
        let found = found.map(|(id, one)| {
            let reservation = json!({
                "reservationId": id.replacen("i-", "r-", 1), "ownerId": get(one, "_account"), "groupSet": [],
                "instancesSet": [self.ec2.presented(id, one)],
            });
            (id.clone(), reservation)
        });
        let found = found.collect();
        if !asked.is_empty() && self.req.text("MaxResults").is_some() {
            let message = "The parameter instancesSet cannot be used with the parameter maxResults";
            return Err(fault("InvalidParameterCombination", message));
        }
        self.page("reservationSet", 5, 1000, found)
    }
}
