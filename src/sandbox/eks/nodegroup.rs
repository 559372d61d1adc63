//! Managed node groups.

use super::super::ec2::types::{self, InstanceType};
use super::super::ec2::{LaunchTemplate, NewInstance};
use super::super::iam::{Role, enforce};
use super::super::quotas;
use super::super::wire::{Fault, Reply, Request, items, texts};
use super::cluster::check_groups;
use super::versions::{self, IMAGES};
use super::{
    Change, Cluster, During, Item, Step, Target, World, access, check_name, fault, invalid, list, merge, new_tags,
    partition, required,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

const CREATE: f64 = 150.0;
/// Seconds after which EKS gives up on nodes that don't join.
const GIVE_UP: f64 = 1500.0;
/// Seconds that a change of settings, or one round of new nodes, takes.
const UPDATE: f64 = 120.0;
const DELETE: f64 = 300.0;

const AMI_TYPES: &str = "AL2_x86_64 AL2_x86_64_GPU AL2_ARM_64 CUSTOM BOTTLEROCKET_ARM_64 BOTTLEROCKET_x86_64 BOTTLEROCKET_ARM_64_FIPS \
     BOTTLEROCKET_x86_64_FIPS BOTTLEROCKET_ARM_64_NVIDIA BOTTLEROCKET_x86_64_NVIDIA BOTTLEROCKET_ARM_64_NVIDIA_FIPS \
     BOTTLEROCKET_x86_64_NVIDIA_FIPS WINDOWS_CORE_2019_x86_64 WINDOWS_FULL_2019_x86_64 WINDOWS_CORE_2022_x86_64 \
     WINDOWS_FULL_2022_x86_64 WINDOWS_CORE_2025_x86_64 WINDOWS_FULL_2025_x86_64 AL2023_x86_64_STANDARD \
     AL2023_ARM_64_STANDARD AL2023_x86_64_NEURON AL2023_x86_64_NVIDIA AL2023_ARM_64_NVIDIA";

/// Launch template members that a managed node group refuses, with AWS's error texts.
const PROHIBITED: &[(&str, &str)] = &[
    (
        "iamInstanceProfile",
        "an instance profile. The noderole in your request will be used to construct an instance profile",
    ),
    ("instanceInitiatedShutdownBehavior", "an instance initiated shutdown behavior"),
    ("hibernationOptions", "hibernation options"),
    ("instanceMarketOptions", "instance market options"),
];

pub(super) fn call(w: &mut World<'_>, req: &Request) -> Reply {
    let cluster = required(req, "clusterName")?;
    match req.operation.as_str() {
        "CreateNodegroup" => create(w, req, &cluster),
        "ListNodegroups" => list(req, "nodegroups", w.cluster(&cluster)?.nodegroups.keys()),
        "DescribeNodegroup" => Ok(json!({"nodegroup": find(w.cluster(&cluster)?, req)?.body})),
        "UpdateNodegroupConfig" => update_config(w, req, &cluster),
        "UpdateNodegroupVersion" => update_version(w, req, &cluster),
        "DeleteNodegroup" => {
            let (now, name) = (w.now, required(req, "nodegroupName")?);
            let of = w.cluster(&cluster)?;
            if find(of, req)?.status() != "DELETING" {
                idle(of, &name)?;
                let fate = w.fates.of("eks:nodegroup", &name, During::Delete);
                find(w.cluster(&cluster)?, req)?.leave(Change::after(DELETE, now, None, &fate));
            }
            Ok(json!({"nodegroup": find(w.cluster(&cluster)?, req)?.body}))
        }
        _ => Err(req.unknown_operation()),
    }
}

pub(super) fn settle(w: &mut World<'_>, cluster: &mut Cluster) {
    let names: Vec<String> = cluster.nodegroups.keys().cloned().collect();
    for name in names {
        let Some(group) = cluster.nodegroups.get(&name) else { continue };
        let Some(change) = group.change.as_ref().filter(|change| change.is_due(w.now)) else { continue };
        if change.merge.is_none() {
            let Some(group) = cluster.nodegroups.remove(&name) else { continue };
            let role = group.body["nodeRole"].as_str().unwrap_or_default();
            w.here.ec2.stop_instances(&owner(cluster.name(), &name));
            w.iam.remove_instance_profile(role, &instance_profile(&group.body));
            continue;
        }
        let trouble = trouble(w, cluster, &group.body);
        let waited = w.now - group.body["createdAt"].as_f64().unwrap_or_default();
        let patch = match trouble {
            // Nodes may still join until EKS gives up.
            Some((code, ..)) if code == "NodeCreationFailure" && waited < GIVE_UP => continue,
            Some((code, message, resource)) => {
                let issue = json!({"code": code, "message": message, "resourceIds": [resource]});
                json!({"status": "CREATE_FAILED", "health": {"issues": [issue]}})
            }
            None => change.merge.clone().unwrap_or_default(),
        };
        if let Some(group) = cluster.nodegroups.get_mut(&name) {
            group.change = None;
            merge(&mut group.body, &patch);
        }
    }
}

/// Changes the nodes after an update: a version update replaces them, a scaling update adds or removes some.
pub(super) fn updated(w: &mut World<'_>, cluster: &Cluster, name: &str, patch: &Value) {
    if let Some(group) = cluster.nodegroups.get(name) {
        if !patch["releaseVersion"].is_null() || !patch["launchTemplate"].is_null() {
            w.here.ec2.stop_instances(&owner(cluster.name(), name));
        }
        attach(w, cluster, &group.body);
    }
}

fn find<'c>(cluster: &'c mut Cluster, req: &Request) -> Result<&'c mut Item, Fault> {
    let name = required(req, "nodegroupName")?;
    let missing = fault("ResourceNotFoundException", format!("No node group found for name: {name}."))
        .with("clusterName", cluster.name())
        .with("nodegroupName", name.as_str());
    cluster.nodegroups.get_mut(&name).ok_or(missing)
}

/// Refuses a change while an update is in progress.
fn idle(cluster: &Cluster, name: &str) -> Result<(), Fault> {
    match cluster.in_progress(&Target::Nodegroup(name.to_owned())) {
        Some(id) => {
            let message = format!("Nodegroup {name} currently has update {id} in progress");
            Err(fault("ResourceInUseException", message)
                .with("clusterName", cluster.name())
                .with("nodegroupName", name))
        }
        None => Ok(()),
    }
}

fn create(w: &mut World<'_>, req: &Request, cluster_name: &str) -> Reply {
    let name = required(req, "nodegroupName")?;
    check_name("Nodegroup name", &name, 63)?;
    let limit = quotas::limit(w.quotas, "L-6D54EA21");
    let cluster = w.cluster(cluster_name)?;
    cluster.active()?;
    let (vpc, version) = (cluster.vpc().to_owned(), cluster.body["version"].as_str().unwrap_or_default().to_owned());
    if cluster.nodegroups.contains_key(&name) {
        let message = format!("NodeGroup already exists with name {name} and cluster name {cluster_name}");
        return Err(fault("ResourceInUseException", message)
            .with("clusterName", cluster_name)
            .with("nodegroupName", name));
    }
    if cluster.nodegroups.len() as f64 >= limit {
        let message = format!("Nodegroup limit exceeded for cluster: {limit}");
        return Err(fault("ResourceLimitExceededException", message).with("clusterName", cluster_name));
    }
    let subnets = req.texts("subnets");
    if subnets.is_empty() {
        return Err(invalid("Subnets can't be empty"));
    }
    for id in &subnets {
        let subnet = w.here.ec2.subnet(id).ok_or_else(|| invalid(format!("The subnet ID '{id}' does not exist")))?;
        if subnet.vpc_id != vpc {
            return Err(invalid(format!("Subnet {id} is not in the VPC {vpc} of the cluster")));
        }
    }
    let role_arn = required(req, "nodeRole")?;
    let role = w.role(&role_arn).ok_or_else(|| invalid(format!("The role {role_arn} does not exist")))?;
    let suffix = if w.region.starts_with("cn-") { ".cn" } else { "" };
    if !["ec2.amazonaws.com", "ec2.amazonaws.com.cn"].iter().any(|service| role.trusts(service)) {
        return Err(invalid(format!(
            "Following required service principals [ec2.amazonaws.com{suffix}] were not found in the trust relationships of nodeRole {role_arn}"
        )));
    }
    let template = match req.params.get("launchTemplate").filter(|template| !template.is_null()) {
        Some(given) => Some(template(w, given, &vpc)?),
        None => None,
    };
    let image = Image::choose(req, template.as_ref(), &version)?;
    for zone in subnets.iter().filter_map(|id| w.here.ec2.subnet(id)).map(|subnet| subnet.zone) {
        types::unsupported(&image.launched, w.region, &zone).map_or(Ok(()), |message| Err(refused(message)))?;
    }
    let scaling = scaling(&req.params["scalingConfig"], &json!({"minSize": 1, "maxSize": 2, "desiredSize": 2}), w)?;
    let labels = req.params.get("labels").cloned().unwrap_or_else(|| json!({}));
    check_labels(&labels)?;
    let taints = req.items("taints");
    check_taints(taints)?;
    let capacity = req.text("capacityType").unwrap_or_else(|| "ON_DEMAND".to_owned());
    if !["ON_DEMAND", "SPOT", "CAPACITY_BLOCK"].contains(&capacity.as_str()) {
        return Err(invalid(format!("Unsupported capacityType {capacity}")));
    }
    check_repair(req)?;
    let update =
        update_settings(&req.params["updateConfig"], &json!({"maxUnavailable": 1, "updateStrategy": "DEFAULT"}))?;

    let id = w.ids.uuid();
    let mut body = json!({
        "nodegroupName": name, "nodegroupArn": w.arn(&format!("nodegroup/{cluster_name}/{name}/{id}")),
        "clusterName": cluster_name, "version": image.version, "releaseVersion": image.release, "createdAt": w.now,
        "modifiedAt": w.now, "status": "CREATING", "capacityType": capacity, "scalingConfig": scaling,
        "subnets": subnets, "amiType": image.ami_type, "nodeRole": role_arn, "labels": labels, "taints": taints,
        "health": {"issues": []}, "updateConfig": update,
        "nodeRepairConfig": req.params.get("nodeRepairConfig").cloned().unwrap_or_else(|| json!({"enabled": false})),
        "tags": new_tags(req)?,
    });
    if let Some(types) = image.instance_types {
        body["instanceTypes"] = types.into();
    }
    for member in ["remoteAccess", "warmPoolConfig"] {
        if let Some(value) = req.params.get(member) {
            body[member] = value.clone();
        }
    }
    match &template {
        Some(LaunchTemplate { id, name, version, .. }) => {
            body["launchTemplate"] = json!({"id": id, "name": name, "version": version.to_string()});
        }
        None => body["diskSize"] = req.params.get("diskSize").cloned().unwrap_or_else(|| json!(20)),
    }
    let reply = json!({"nodegroup": body});
    w.iam.add_instance_profile(&role_arn, &instance_profile(&body));
    // Taken out of the map, so that it can be borrowed together with the rest of the region.
    let Some(mut cluster) = w.here.eks.clusters.remove(cluster_name) else { return Ok(reply) };
    access::add_for_nodes(w, &mut cluster, &role_arn, "EC2_LINUX");
    attach(w, &cluster, &body);
    let asg = format!("eks-{name}-{id}");
    let active = json!({"status": "ACTIVE", "resources": {"autoScalingGroups": [{"name": asg}]}});
    let fate = w.fates.of("eks:nodegroup", &name, During::Create);
    let item = Item::new(body).becoming(Change::after(CREATE, w.now, Some(active), &fate));
    cluster.nodegroups.insert(name, item);
    w.here.eks.clusters.insert(cluster_name.to_owned(), cluster);
    Ok(reply)
}

fn update_config(w: &mut World<'_>, req: &Request, cluster_name: &str) -> Reply {
    let name = required(req, "nodegroupName")?;
    let of = w.cluster(cluster_name)?;
    let body = find(of, req)?.body.clone();
    let p = &req.params;
    let (mut patch, mut params) = (json!({}), json!({}));
    if let Some(labels) = p.get("labels").filter(|labels| !labels.is_null()) {
        let added = labels.get("addOrUpdateLabels").cloned().unwrap_or_else(|| json!({}));
        check_labels(&added)?;
        let mut change = added.as_object().cloned().unwrap_or_default();
        for key in texts(labels, "removeLabels") {
            if change.contains_key(&key) {
                return Err(invalid(format!("Label {key} can't be both updated and removed")));
            }
            change.insert(key, Value::Null);
        }
        patch["labels"] = Value::Object(change);
        params["LabelsToAdd"] = added;
        params["LabelsToRemove"] = labels.get("removeLabels").cloned().unwrap_or_default();
    }
    if let Some(change) = p.get("taints").filter(|change| !change.is_null()) {
        let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
        let (added, removed) = (items(change, "addOrUpdateTaints"), items(change, "removeTaints"));
        let mut taints = items(&body, "taints").to_vec();
        if let Some(missing) = removed.iter().find(|one| !taints.iter().any(|taint| same(taint, one))) {
            return Err(invalid(format!("Taint {} is not on the node group", missing["key"])));
        }
        taints.retain(|taint| !removed.iter().chain(added).any(|one| same(taint, one)));
        taints.extend(added.iter().cloned());
        check_taints(&taints)?;
        patch["taints"] = taints.into();
        params["TaintsToAdd"] = added.into();
        params["TaintsToRemove"] = removed.into();
    }
    if let Some(config) = p.get("scalingConfig").filter(|config| !config.is_null()) {
        let new = scaling(config, &body["scalingConfig"], w)?;
        for (param, member) in [("MinSize", "minSize"), ("MaxSize", "maxSize"), ("DesiredSize", "desiredSize")] {
            params[param] = new[member].clone();
        }
        patch["scalingConfig"] = new;
    }
    if let Some(config) = p.get("updateConfig").filter(|config| !config.is_null()) {
        let mut new = update_settings(config, &json!({"updateStrategy": body["updateConfig"]["updateStrategy"]}))?;
        params["MaxUnavailable"] = new["maxUnavailable"].clone();
        params["MaxUnavailablePercentage"] = new["maxUnavailablePercentage"].clone();
        for member in ["maxUnavailable", "maxUnavailablePercentage"] {
            if new[member].is_null() {
                new[member] = Value::Null;
            }
        }
        patch["updateConfig"] = new;
    }
    check_repair(req)?;
    for (member, param) in [("nodeRepairConfig", "NodeRepairConfig"), ("warmPoolConfig", "WarmPoolEnabled")] {
        if let Some(config) = p.get(member).filter(|config| !config.is_null()) {
            patch[member] = config.clone();
            params[param] = config.clone();
        }
    }
    if patch.as_object().is_none_or(Map::is_empty) {
        return Err(invalid("No changes needed for the node group: the request names none"));
    }
    begin(w, cluster_name, &name, ("ConfigUpdate", UPDATE), params, patch)
}

fn update_version(w: &mut World<'_>, req: &Request, cluster_name: &str) -> Reply {
    let name = required(req, "nodegroupName")?;
    let of = w.cluster(cluster_name)?;
    let (vpc, cluster_version) = (of.vpc().to_owned(), of.body["version"].as_str().unwrap_or_default().to_owned());
    let body = find(of, req)?.body.clone();
    let old = &body["launchTemplate"];
    let template = match req.params.get("launchTemplate").filter(|template| !template.is_null()) {
        Some(_) if old.is_null() => {
            return Err(invalid("A node group that was made without a launch template can't be given one"));
        }
        Some(given) => {
            let new = template(w, given, &vpc)?;
            if old["id"] != new.id.as_str() {
                return Err(invalid("A node group can't be moved to another launch template, only to another version"));
            }
            Some(new)
        }
        None if old.is_null() => None,
        None => Some(template(w, old, &vpc)?),
    };
    let custom = template.as_ref().is_some_and(|template| template.data["imageId"].is_string());
    let current = body["version"].as_str().unwrap_or_default();
    // API reference: "If no version is specified, then the Kubernetes version of the node group does not change."
    let version = req.text("version").unwrap_or_else(|| current.to_owned());
    // The previous minor version is accepted too: nodes go back before a rollback of the control plane (EKS user guide,
    // "Roll back a cluster to a previous Kubernetes version").
    let before =
        versions::find(&cluster_version).and_then(|v| versions::find(&format!("1.{}", v.minor.checked_sub(1)?)));
    if version != cluster_version && version != current && before.is_none_or(|before| before.name != version) {
        return Err(invalid(format!(
            "Nodegroup Kubernetes version should be equal to Cluster kubernetes version {cluster_version} or NodeGroup kubernetes version {current}"
        )));
    }
    let mut patch = json!({});
    if custom {
        if req.text("version").is_some() || req.text("releaseVersion").is_some() {
            return Err(invalid(
                "You cannot specify a kubernetes version to use when specifying an image id to use within the launch template.",
            ));
        }
    } else {
        let ami_type = body["amiType"].as_str().unwrap_or_default();
        // API reference: "By default, the latest available AMI version for the node group's Kubernetes version is used",
        // and "You cannot roll back a node group to an earlier Kubernetes version or AMI version".
        let asked = req.text("releaseVersion");
        let release = match body["releaseVersion"].as_str() {
            Some(running) if asked.as_deref() == Some(running) && version == current => running.to_owned(),
            _ => release(ami_type, &version, asked)?,
        };
        let running = body["releaseVersion"].as_str().unwrap_or_default();
        if version == current && number(&release) < number(running) {
            let message = format!("Nodegroup release version {running} can't be rolled back to {release}");
            return Err(invalid(message));
        }
        patch["releaseVersion"] = release.into();
        patch["version"] = version.into();
    }
    if let Some(template) = template {
        patch["launchTemplate"] = json!({"version": template.version.to_string()});
    }
    let params = json!({
        "Version": patch["version"], "ReleaseVersion": patch["releaseVersion"],
        "LaunchTemplateVersion": patch["launchTemplate"]["version"],
    });
    begin(w, cluster_name, &name, ("VersionUpdate", UPDATE * rounds(&body)), params, patch)
}

/// The version numbers of a release, and its date where it has one, as comparable numbers.
fn number(release: &str) -> Vec<u64> {
    let (number, build) = release.split_once('-').unwrap_or((release, ""));
    let day = build.parse().ok().filter(|_| build.len() == 8);
    number.split('.').filter_map(|part| part.parse().ok()).chain(day).collect()
}

/// The number of rounds in which a group's nodes are replaced (user guide, "Understand each phase of node updates": as
/// many at once as may be unavailable, 100 at most).
fn rounds(body: &Value) -> f64 {
    let nodes = body["scalingConfig"]["desiredSize"].as_u64().unwrap_or_default();
    let config = &body["updateConfig"];
    let percentage = config["maxUnavailablePercentage"].as_u64().map(|percent| nodes * percent / 100);
    let at_once = percentage.or(config["maxUnavailable"].as_u64()).unwrap_or(1).clamp(1, 100);
    nodes.div_ceil(at_once).max(1) as f64
}

fn begin(
    w: &mut World<'_>,
    cluster_name: &str,
    name: &str,
    (kind, seconds): (&str, f64),
    params: Value,
    mut patch: Value,
) -> Reply {
    let (now, id) = (w.now, w.ids.uuid());
    let cluster = w.cluster(cluster_name)?;
    idle(cluster, name)?;
    let status = cluster.nodegroups.get(name).map_or("", Item::status).to_owned();
    if !["ACTIVE", "DEGRADED"].contains(&status.as_str()) {
        let message = format!("Nodegroup {name} can't be updated in status {status}");
        return Err(fault("ResourceInUseException", message)
            .with("clusterName", cluster.name())
            .with("nodegroupName", name));
    }
    patch["modifiedAt"] = now.into();
    let fate = w.fates.of("eks:nodegroup", name, During::Update);
    let step = Step { kind, params, seconds, patch };
    Ok(w.cluster(cluster_name)?.begin(now, id, Target::Nodegroup(name.to_owned()), step, &fate))
}

/// What a node group runs.
struct Image {
    ami_type: String,
    version: String,
    release: String,
    instance_types: Option<Vec<String>>,
    /// Instance types of the node group, or else of its launch template.
    launched: Vec<String>,
}

impl Image {
    fn choose(req: &Request, template: Option<&LaunchTemplate>, cluster_version: &str) -> Result<Self, Fault> {
        let data = template.map_or(&Value::Null, |template| &template.data);
        let asked = req.text("amiType");
        if template.is_some() && req.params.get("diskSize").is_some() {
            return Err(refused("Disk size must be specified within the launch template."));
        }
        if template.is_some() && req.params.get("remoteAccess").is_some() {
            return Err(refused("Remote access configuration cannot be specified with a launch template."));
        }
        let mut types = req.texts("instanceTypes");
        let in_template = data["instanceType"].as_str();
        if in_template.is_some() && !types.is_empty() {
            return Err(refused("Cannot specify instance types in launch template and API request"));
        }
        let all: Vec<String> = types.iter().cloned().chain(in_template.map(str::to_owned)).collect();
        types::unknown(&all, &req.region).map_or(Ok(()), |message| Err(invalid(message)))?;
        if let Some(image) = data["imageId"].as_str() {
            if asked.as_deref().is_some_and(|asked| asked != "CUSTOM") {
                let message = "You cannot specify an AMI Type other than CUSTOM, when specifying an image id in your launch template.";
                return Err(invalid(message));
            }
            if req.text("version").is_some() {
                return Err(invalid(
                    "You cannot specify a kubernetes version to use when specifying an image id to use within the launch template.",
                ));
            }
            if req.text("releaseVersion").is_some() {
                return Err(invalid(
                    "You cannot specify a release version when specifying an image id within the launch template.",
                ));
            }
            let instance_types = (!types.is_empty()).then_some(types);
            let (version, release) = (cluster_version.to_owned(), image.to_owned());
            return Ok(Self { ami_type: "CUSTOM".to_owned(), version, release, instance_types, launched: all });
        }
        let known = || all.iter().filter_map(|name| InstanceType::named(name));
        let all_arm = !all.is_empty() && known().all(|one| one.architecture() == "arm64");
        let default = if all_arm { "AL2023_ARM_64_STANDARD" } else { "AL2023_x86_64_STANDARD" };
        let ami_type = asked.unwrap_or_else(|| default.to_owned());
        if !AMI_TYPES.split(' ').any(|known| known == ami_type) || ami_type == "CUSTOM" {
            return Err(invalid(format!("The AMI type {ami_type} is not valid for this node group")));
        }
        let wants_arm = ami_type.contains("ARM_64");
        let wrong: Vec<String> = known().filter(|one| !fits(one, &ami_type)).map(|one| one.name()).collect();
        if !wrong.is_empty() {
            let message =
                format!("[{}] is not a valid instance type for requested amiType {ami_type}", wrong.join(", "));
            return Err(invalid(message));
        }
        check_user_data(data["userData"].as_str(), &ami_type)?;
        if types.is_empty() && in_template.is_none() {
            types.push(if wants_arm { "t4g.medium" } else { "t3.medium" }.to_owned());
        }
        let version = req.text("version").unwrap_or_else(|| cluster_version.to_owned());
        if version != cluster_version {
            return Err(invalid(format!(
                "Nodegroup Kubernetes version should be equal to Cluster kubernetes version {cluster_version}"
            )));
        }
        let release = release(&ami_type, &version, req.text("releaseVersion"))?;
        let launched = if in_template.is_some() { all } else { types.clone() };
        Ok(Self { ami_type, version, release, instance_types: (!types.is_empty()).then_some(types), launched })
    }
}

/// The requested release, which must exist for this AMI type and version. Without a request, the newest release.
fn release(ami_type: &str, version: &str, asked: Option<String>) -> Result<String, Fault> {
    if ami_type.starts_with("AL2_") {
        return Err(invalid(format!("There is no image of AMI type {ami_type} for Kubernetes {version}")));
    }
    let known: Vec<String> = if ami_type.starts_with("BOTTLEROCKET_") {
        IMAGES.iter().map(|image| (*image).to_owned()).collect()
    } else {
        vec![versions::al2023(version)]
    };
    let newest = known.last().cloned().unwrap_or_default();
    let asked = asked.unwrap_or(newest);
    if known.contains(&asked) {
        return Ok(asked);
    }
    Err(invalid(format!("Requested release version {asked} is not valid for kubernetes version {version}.")))
}

/// The launch template, checked for use by a managed node group.
fn template(w: &World<'_>, given: &Value, vpc: &str) -> Result<LaunchTemplate, Fault> {
    let (id, name) = (given["id"].as_str(), given["name"].as_str());
    let which = match (id, name) {
        // DescribeNodegroup returns both id and name.
        (Some(id), _) => id,
        (None, Some(name)) => name,
        (None, None) => return Err(invalid("launchTemplate must have an id or a name")),
    };
    let version = given["version"].as_str().unwrap_or_default();
    let found = w.here.ec2.launch_template(which, version);
    let found = found.filter(|found| name.is_none_or(|name| name == found.name));
    let found = found.ok_or_else(|| {
        let version = if version.is_empty() { String::new() } else { format!(" version {version}") };
        refused(format!("You must use a valid fully-formed launch template: {which}{version} does not exist"))
    })?;
    let data = &found.data;
    for (member, words) in PROHIBITED {
        if !data[*member].is_null() {
            return Err(refused(format!("Launch template {} should not specify {words}.", found.id)));
        }
    }
    let interfaces = items(data, "networkInterfaceSet");
    if interfaces.iter().any(|interface| !interface["subnetId"].is_null()) {
        return Err(refused(format!("Launch template {} should not specify a subnet.", found.id)));
    }
    let of_interfaces: Vec<String> = interfaces.iter().flat_map(|one| texts(one, "groupSet")).collect();
    let groups = texts(data, "securityGroupIdSet");
    if !groups.is_empty() && !of_interfaces.is_empty() {
        let message = format!(
            "Launch template {} should not specify security groups both by itself and in network interfaces.",
            found.id
        );
        return Err(refused(message));
    }
    check_groups(w, &groups, vpc)?;
    check_groups(w, &of_interfaces, vpc)?;
    Ok(found)
}

/// User data that EKS merges with its own: TOML for Bottlerocket, MIME multipart for Amazon Linux.
fn check_user_data(user_data: Option<&str>, ami_type: &str) -> Result<(), Fault> {
    let Some(encoded) = user_data else { return Ok(()) };
    let bytes = STANDARD.decode(encoded.trim()).unwrap_or_default();
    let text = String::from_utf8(bytes).map_err(|_| refused("User data is not text."))?;
    if ami_type.starts_with("BOTTLEROCKET_") {
        if let Err(why) = toml::from_str::<toml::Table>(&text) {
            let message = format!(
                "Ec2LaunchTemplateInvalidConfiguration: User data was not in the TOML format: {}",
                why.message()
            );
            return Err(refused(message));
        }
        // Settings that EKS can't merge with its own (user guide, "Customize managed nodes with launch templates").
        if text.contains("\\\"")
            || text.lines().any(|line| line.trim_start().starts_with('[') && line.contains(['"', '\'']))
        {
            return Err(refused(
                "Ec2LaunchTemplateInvalidConfiguration: User data has quoted keys in a header, or escaped quotes.",
            ));
        }
    } else if ami_type.starts_with("AL2") && !text.to_ascii_lowercase().contains("content-type: multipart/mixed") {
        return Err(refused("Ec2LaunchTemplateInvalidConfiguration: User data was not in the MIME multipart format."));
    }
    Ok(())
}

/// Whether the user data tells a Bottlerocket node not to use AWS's FIPS endpoints.
fn calls_plain_endpoints(data: &Value) -> bool {
    let decoded = |text: &str| STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let settings = data["userData"].as_str().and_then(decoded).and_then(|text| text.parse::<toml::Table>().ok());
    let config = settings.as_ref().and_then(|table| table.get("settings")?.get("aws")?.get("config")?.as_str());
    let lines = config.and_then(decoded).unwrap_or_default();
    lines.lines().any(|line| line.split_whitespace().collect::<String>() == "use_fips_endpoint=false")
}

/// Whether an image runs on an instance type. EKS refuses another architecture. That EKS also refuses devices without a
/// driver is inferred: the user guide's "Choose an optimal Amazon EC2 node instance type" says that such images don't
/// support them. Bottlerocket's variants for Kubernetes load the Neuron driver (Bottlerocket's release notes).
fn fits(one: &InstanceType, ami_type: &str) -> bool {
    let architecture = if ami_type.contains("ARM_64") { "arm64" } else { "x86_64" };
    let gpu = ami_type.contains("NVIDIA") || ami_type.contains("GPU");
    let neuron = ami_type.contains("NEURON") || ami_type.starts_with("BOTTLEROCKET_");
    one.architecture() == architecture && (!one.has_gpu() || gpu) && (!one.has_neuron() || neuron)
}

fn scaling(given: &Value, before: &Value, w: &World<'_>) -> Reply {
    let size = |member: &str| given[member].as_u64().or(before[member].as_u64()).unwrap_or_default();
    if given.as_object().is_some_and(|given| given.values().any(|size| !size.is_null() && size.as_u64().is_none())) {
        return Err(invalid("Sizes in scalingConfig must be whole numbers from 0"));
    }
    let (min, max, desired) = (size("minSize"), size("maxSize"), size("desiredSize"));
    let most = quotas::limit(w.quotas, "L-BD136A63");
    if max < 1 {
        return Err(invalid("The maximum size must be at least 1"));
    }
    if min > desired {
        return Err(invalid(format!("Minimum capacity {min} can't be greater than desired size {desired}")));
    }
    if desired > max {
        return Err(invalid(format!("desired capacity {desired} can't be greater than max size {max}")));
    }
    if max as f64 > most {
        return Err(invalid(format!(
            "The maximum size {max} is above the limit of {most} nodes per managed node group"
        )));
    }
    Ok(json!({"minSize": min, "maxSize": max, "desiredSize": desired}))
}

fn update_settings(given: &Value, before: &Value) -> Reply {
    let mut config = before.clone();
    if given.is_null() {
        return Ok(config);
    }
    if !given.is_object() {
        return Err(invalid("updateConfig must be a structure"));
    }
    let (count, percentage) = (&given["maxUnavailable"], &given["maxUnavailablePercentage"]);
    if !count.is_null() && !percentage.is_null() {
        return Err(invalid("updateConfig can have maxUnavailable or maxUnavailablePercentage, not both"));
    }
    if !count.is_null() && count.as_u64().is_none_or(|count| !(1..=100).contains(&count)) {
        return Err(invalid("maxUnavailable must be between 1 and 100"));
    }
    if !percentage.is_null() {
        if percentage.as_u64().is_none_or(|percent| !(1..=100).contains(&percent)) {
            return Err(invalid("maxUnavailablePercentage must be between 1 and 100"));
        }
        merge(&mut config, &json!({"maxUnavailable": null}));
    }
    merge(&mut config, given);
    Ok(config)
}

/// Error text: cloudposse/terraform-aws-eks-node-group, issue 208.
fn check_repair(req: &Request) -> Result<(), Fault> {
    match req.params.get("nodeRepairConfig") {
        Some(config) if !config.is_null() && req.region.starts_with("cn-") => {
            Err(invalid(format!("The parameter nodeRepairConfig is not supported in region {}", req.region)))
        }
        _ => Ok(()),
    }
}

fn check_labels(labels: &Value) -> Result<(), Fault> {
    if !labels.is_object() {
        return Err(invalid("Labels must be a map"));
    }
    for (key, value) in labels.as_object().into_iter().flatten() {
        if ["kubernetes.io/", "k8s.io/", "eks.amazonaws.com/"].iter().any(|prefix| key.contains(prefix)) {
            let message = "Label cannot contain reserved prefixes [kubernetes.io/, k8s.io/, eks.amazonaws.com/]";
            return Err(invalid(message));
        }
        let name = key.rsplit('/').next().unwrap_or_default();
        let value = value.as_str().unwrap_or_default();
        if !is_label(name) || !is_label(value) {
            return Err(invalid(format!(
                "Invalid label {key}={value}: a name and a value must consist of 1 to 63 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            )));
        }
    }
    Ok(())
}

/// Whether Kubernetes accepts the text as a label's value, or as the name part of a label's key.
fn is_label(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn check_taints(taints: &[Value]) -> Result<(), Fault> {
    if taints.len() > 50 {
        return Err(invalid("A node group can have 50 taints"));
    }
    for (n, taint) in taints.iter().enumerate() {
        let (key, value) = (taint["key"].as_str().unwrap_or_default(), taint["value"].as_str().unwrap_or_default());
        if key.is_empty() || key.len() > 63 || (!value.is_empty() && !is_label(value)) {
            return Err(invalid(format!(
                "Invalid taint {key}={value}: a key has 1 to 63 characters, a value up to 63"
            )));
        }
        let effect = taint["effect"].as_str().unwrap_or_default();
        if !["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"].contains(&effect) {
            return Err(invalid(format!("Unsupported taint effect {effect:?}")));
        }
        if taints.iter().skip(n + 1).any(|other| other["key"] == taint["key"] && other["effect"] == taint["effect"]) {
            return Err(invalid(format!("Taint {key} with effect {effect} is there more than once")));
        }
    }
    Ok(())
}

/// The reason why a group's nodes don't run: issue code, message, resource. `None`: they run.
fn trouble(w: &World<'_>, cluster: &Cluster, body: &Value) -> Option<(&'static str, String, String)> {
    let name = body["nodegroupName"].as_str().unwrap_or_default().to_owned();
    let id = body["launchTemplate"]["id"].as_str().unwrap_or_default();
    let version = body["launchTemplate"]["version"].as_str().unwrap_or_default();
    let data = w.here.ec2.launch_template(id, version).map(|template| template.data).unwrap_or_default();
    if texts(body, "instanceTypes").iter().any(|kind| kind == "t3.broken") || data["instanceType"] == "t3.broken" {
        let message = "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have sufficient t3.broken capacity.";
        return Some(("AsgInstanceLaunchFailures", message.to_owned(), name));
    }
    if let Some(message) = too_many_vcpus(w, cluster, body) {
        return Some(("AsgInstanceLaunchFailures", message, name));
    }
    let partition = partition(w.region);
    let scaling = format!(
        "arn:{partition}:iam::{}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling",
        w.account
    );
    for mapping in items(&data, "blockDeviceMappingSet") {
        let key = mapping["ebs"]["kmsKeyId"].as_str().filter(|key| !key.contains("alias/aws/"));
        let Some(key) = key else { continue };
        let may = w.here.kms.named(key).is_some_and(|key| {
            key.enabled().is_ok()
                && ["kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext"]
                    .iter()
                    .all(|action| key.allows("AWS", &scaling, action))
        });
        if !may {
            let message = format!(
                "Instance became unhealthy while waiting for instance to be in InService state. Termination Reason: Client.InvalidKMSKey.InvalidState: The KMS key {key} provided is in an incorrect state"
            );
            return Some(("AsgInstanceLaunchFailures", message, name));
        }
    }
    let unjoined = |why: &str| {
        let message = format!("Instances failed to join the kubernetes cluster: {why}");
        Some(("NodeCreationFailure", message, name.clone()))
    };
    let Some(role) = w.role(body["nodeRole"].as_str().unwrap_or_default()) else {
        return unjoined("the node role does not exist");
    };
    // A FIPS image calls AWS's FIPS endpoints unless its settings forbid it (bottlerocket-core-kit, pull request 218).
    // FIPS endpoints exist only in the US and Canada (Bottlerocket's settings reference, `settings.aws.config`;
    // bottlerocket, issue 4363). VPC interface endpoints don't resolve the names of FIPS endpoints (bottlerocket,
    // issues 4372 and 4382).
    if body["amiType"].as_str().is_some_and(|ami| ami.ends_with("_FIPS")) && !calls_plain_endpoints(&data) {
        if !["us-", "ca-"].iter().any(|place| w.region.starts_with(place)) {
            return unjoined("Timed out retrieving private DNS name from EC2: the region has no FIPS endpoints");
        }
        if !texts(body, "subnets").iter().all(|subnet| w.here.ec2.has_way_out(subnet)) {
            return unjoined("Timed out retrieving private DNS name from EC2: no way to its FIPS endpoint");
        }
    }
    if cluster.bound.get(&role.arn).is_some_and(|id| *id != role.id) {
        return unjoined("the access entry of the node role was made for an earlier role of the same name");
    }
    let may = |role: &Role, action: &str, resource: &str, context: &[(&str, &str)]| {
        enforce::may(&*w.iam, role, action, resource, context)
    };
    if !may(&role, "ec2:DescribeInstances", "*", &[]) {
        return unjoined("the node role has no AmazonEKSWorkerNodePolicy");
    }
    // The images of EKS's own pods are in an AWS account whose registry admits everybody. The node's own policies must
    // allow the pull, too.
    let registry = registry(w.region);
    let image = format!("arn:{partition}:ecr:{}:{registry}:repository/eks/kube-proxy", w.region);
    let owner = [("aws:resourceaccount", registry)];
    if !may(&role, "ecr:GetAuthorizationToken", "*", &[]) || !may(&role, "ecr:BatchGetImage", &image, &owner) {
        return unjoined("the node role has no AmazonEC2ContainerRegistryPullOnly");
    }
    let addon = cluster.addons.get("vpc-cni");
    if addon.is_none() && !cluster.self_managed {
        return unjoined("the cluster has no network plugin (vpc-cni)");
    }
    let associated = cluster.associations.values();
    let mut associated =
        associated.filter(|item| item.body["namespace"] == "kube-system" && item.body["serviceAccount"] == "aws-node");
    let own = addon.and_then(|addon| addon.body["serviceAccountRoleArn"].as_str().map(str::to_owned));
    let own = own.or_else(|| associated.next().and_then(|item| item.body["roleArn"].as_str().map(str::to_owned)));
    let cni = own.map_or_else(|| Some(role.clone()), |arn| w.role(&arn));
    let vpc = format!("arn:{partition}:ec2:{}:{}:vpc/{}", w.region, w.account, cluster.vpc());
    let interface = format!("arn:{partition}:ec2:{}:{}:network-interface/eni-1", w.region, w.account);
    let addresses = |role: Role| may(&role, "ec2:AssignPrivateIpAddresses", &interface, &[("ec2:vpc", &vpc)]);
    if !cni.is_some_and(addresses) {
        return unjoined("the network plugin (aws-node) has no role with AmazonEKS_CNI_Policy, nor has the node");
    }
    None
}

/// The account whose registry holds the images of EKS's add-ons in a region (EKS user guide, "View Amazon container image
/// registries for Amazon EKS add-ons").
fn registry(region: &str) -> &'static str {
    match region {
        "af-south-1" => "877085696533",
        "ap-east-1" => "800184023465",
        "ap-east-2" => "533267051163",
        "ap-south-2" => "900889452093",
        "ap-southeast-3" => "296578399912",
        "ap-southeast-4" => "491585149902",
        "ap-southeast-5" => "151610086707",
        "ap-southeast-6" => "333609536671",
        "ap-southeast-7" => "121268973566",
        "ca-west-1" => "761377655185",
        "cn-north-1" => "918309763551",
        "cn-northwest-1" => "961992271922",
        "eu-central-2" => "900612956339",
        "eu-south-1" => "590381155156",
        "eu-south-2" => "455263428931",
        "il-central-1" => "066635153087",
        "me-central-1" => "759879836304",
        "me-south-1" => "558608220178",
        "mx-central-1" => "730335286997",
        "us-gov-east-1" => "151742754352",
        "us-gov-west-1" => "013241004608",
        _ => "602401143452",
    }
}

/// EC2's error text if the nodes of a group need more vCPUs than the account's quota (klotho #311).
fn too_many_vcpus(w: &World<'_>, cluster: &Cluster, body: &Value) -> Option<String> {
    let spot = body["capacityType"] == "SPOT";
    let limit = quotas::limit(w.quotas, if spot { "L-34B43A08" } else { "L-1216C47A" });
    let taken = |body: &Value| {
        let first = texts(body, "instanceTypes").into_iter().next();
        let standard = first.and_then(|name| InstanceType::named(&name)).filter(InstanceType::is_standard);
        standard.map_or(0, |one| one.vcpus() * body["scalingConfig"]["desiredSize"].as_u64().unwrap_or_default())
    };
    let groups = w.here.eks.clusters.values().chain([cluster]).flat_map(|cluster| cluster.nodegroups.values());
    let running = groups.filter(|group| {
        let here =
            group.body["nodegroupArn"] != body["nodegroupArn"] && group.body["capacityType"] == body["capacityType"];
        here && ["ACTIVE", "UPDATING", "DEGRADED"].contains(&group.status())
    });
    let sum = running.map(|group| taken(&group.body)).sum::<u64>() + taken(body);
    if taken(body) == 0 || sum as f64 <= limit {
        return None;
    }
    Some(match spot {
        true => "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded. Launching EC2 instance failed.".to_owned(),
        false => format!(
            "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit. Launching EC2 instance failed."
        ),
    })
}

fn owner(cluster: &str, group: &str) -> String {
    format!("eks/{cluster}/{group}")
}

fn instance_profile(body: &Value) -> String {
    let arn = body["nodegroupArn"].as_str().unwrap_or_default();
    format!("eks-{}", arn.rsplit('/').next().unwrap_or_default())
}

/// Starts the nodes: the desired number, but at most one in each subnet. They carry the launch template's security
/// groups, or else the cluster's.
fn attach(w: &mut World<'_>, cluster: &Cluster, body: &Value) {
    let name = body["nodegroupName"].as_str().unwrap_or_default();
    let id = body["launchTemplate"]["id"].as_str().unwrap_or_default();
    let version = body["launchTemplate"]["version"].as_str().unwrap_or_default();
    let data = w.here.ec2.launch_template(id, version).map(|template| template.data).unwrap_or_default();
    let interfaces = items(&data, "networkInterfaceSet").iter();
    let mut groups = texts(&data, "securityGroupIdSet");
    groups.extend(interfaces.flat_map(|one| texts(one, "groupSet")));
    if groups.is_empty() {
        groups.push(cluster.security_group.clone());
    }
    let types = texts(body, "instanceTypes");
    let kind = types.first().map(String::as_str).or(data["instanceType"].as_str()).unwrap_or_default();
    // Tags that EKS and Auto Scaling set (the policy AWSServiceRoleForAmazonEKSNodegroup checks the first two).
    let cluster_name = cluster.name();
    let tags = [
        ("eks:cluster-name".to_owned(), cluster_name.to_owned()),
        ("eks:nodegroup-name".to_owned(), name.to_owned()),
        ("aws:eks:cluster-name".to_owned(), cluster_name.to_owned()),
        (format!("kubernetes.io/cluster/{cluster_name}"), "owned".to_owned()),
    ];
    let owner = owner(cluster_name, name);
    let have = w.here.ec2.instances(&owner);
    let nodes = body["scalingConfig"]["desiredSize"].as_u64().unwrap_or_default() as usize;
    let subnets = texts(body, "subnets");
    for (id, _) in have.iter().skip(nodes) {
        w.here.ec2.stop_instance(id);
    }
    let free = subnets.iter().filter(|subnet| !have.iter().any(|(_, taken)| taken == *subnet));
    for subnet in free.take(nodes.min(subnets.len()).saturating_sub(have.len())) {
        let new = NewInstance {
            account: w.account,
            region: w.region,
            subnet_id: subnet,
            groups: &groups,
            kind,
            owner: &owner,
            template: &data,
            tags: &tags,
        };
        // A full subnet gets no node: an Auto Scaling group would start it in another subnet.
        let _node = w.here.ec2.start_instance(w.ids, &new);
    }
}

fn refused(message: impl Into<String>) -> Fault {
    fault("InvalidRequestException", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_run_on_what_they_are_made_for() {
        let fits = |name: &str, ami_type: &str| InstanceType::named(name).is_some_and(|one| fits(&one, ami_type));
        for (name, ami_type) in [
            ("m6g.large", "AL2023_ARM_64_STANDARD"),
            ("m7i.large", "BOTTLEROCKET_x86_64_FIPS"),
            ("g6.xlarge", "BOTTLEROCKET_x86_64_NVIDIA"),
            ("inf2.xlarge", "BOTTLEROCKET_x86_64"),
            ("trn1.2xlarge", "AL2023_x86_64_NEURON"),
        ] {
            assert!(fits(name, ami_type), "{name} {ami_type}");
        }
        for (name, ami_type) in [
            ("m6g.large", "AL2023_x86_64_STANDARD"),
            ("a1.large", "BOTTLEROCKET_x86_64"),
            ("m7i.large", "BOTTLEROCKET_ARM_64"),
            ("g6.xlarge", "BOTTLEROCKET_x86_64"),
            ("g5g.xlarge", "BOTTLEROCKET_ARM_64"),
            ("inf2.xlarge", "AL2023_x86_64_STANDARD"),
            ("mac2.metal", "BOTTLEROCKET_ARM_64"),
        ] {
            assert!(!fits(name, ami_type), "{name} {ami_type}");
        }
    }
}
