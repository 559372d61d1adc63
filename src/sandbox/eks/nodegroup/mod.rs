//! Managed node groups.

mod image;
mod nodes;
mod settings;
mod trouble;

use super::super::ec2::LaunchTemplate;
use super::super::ec2::types;
use super::super::quotas;
use super::super::wire::{Fault, Reply, Request, items, texts};
use super::versions;
use super::{
    Change, Cluster, During, Item, Step, Target, World, access, check_name, fault, invalid, list, merge, new_tags,
    required,
};
use image::{Image, release, template};
use nodes::{attach, instance_profile, owner};
use serde_json::{Map, Value, json};
use settings::{check_labels, check_repair, check_taints, scaling, update_settings};
use trouble::trouble;

const CREATE: f64 = 150.0;
/// Seconds after which EKS gives up on nodes that don't join.
const GIVE_UP: f64 = 1500.0;
/// Seconds that a change of settings, or one round of new nodes, takes.
const UPDATE: f64 = 120.0;
const DELETE: f64 = 300.0;

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
        // API reference: "By default, the latest available AMI version for the node group's Kubernetes version is
        // used", and "You cannot roll back a node group to an earlier Kubernetes version or AMI version".
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

fn refused(message: impl Into<String>) -> Fault {
    fault("InvalidRequestException", message)
}
