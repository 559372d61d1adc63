//! Clusters: creation, updates, deletion.

use super::super::ec2::NewInterface;

use super::super::kms::Kms;
use super::super::quotas;
use super::super::wire::{Fault, Reply, Request, texts};
use super::versions::{self, CERTIFICATE};
use super::{
    Change, Cluster, During, Step, Target, World, access, addon, check_name, fargate, fault, invalid, merge, new_tags,
    nodegroup, paged, required,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const CREATE: f64 = 540.0;
const UPDATE: f64 = 180.0;
const UPGRADE: f64 = 900.0;
const DELETE: f64 = 240.0;

const LOG_TYPES: [&str; 5] = ["api", "audit", "authenticator", "controllerManager", "scheduler"];

/// Zones without EKS control planes, by zone id (Amazon EKS user guide, "Amazon EKS networking requirements").
const NO_ZONES: [&str; 3] = ["use1-az3", "usw1-az2", "cac1-az3"];

pub(super) fn create(w: &mut World<'_>, req: &Request) -> Reply {
    let name = required(req, "name")?;
    check_name("Cluster name", &name, 100)?;
    no_other_modes(&req.params)?;
    let version = req.text("version").unwrap_or_else(|| versions::DEFAULT.to_owned());
    let known = versions::find(&version).ok_or_else(|| invalid(format!("unsupported Kubernetes version {version}")))?;
    let tags = new_tags(req)?;
    if w.here.eks.clusters.contains_key(&name) {
        let message = format!("Cluster already exists with name: {name}");
        return Err(fault("ResourceInUseException", message).with("clusterName", name));
    }
    let limit = quotas::limit(w.quotas, "L-1194D53C");
    if w.here.eks.clusters.len() as f64 >= limit {
        let message = format!("Cluster limit exceeded for account: {limit} clusters per region");
        return Err(fault("ResourceLimitExceededException", message).with("clusterName", name));
    }
    let role_arn = required(req, "roleArn")?;
    check_role(w, &role_arn)?;
    let vpc = req.params.get("resourcesVpcConfig").ok_or_else(|| invalid("resourcesVpcConfig can't be empty"))?;
    let network = Network::read(w, vpc, &name)?;
    let endpoint = endpoint_access(vpc, &json!({}))?;
    let service_cidr = service_cidr(w, &req.params["kubernetesNetworkConfig"], &network.vpc)?;
    let logging = logging(&req.params["logging"], &BTreeSet::new())?;
    let encryption = encryption(&w.here.kms, req.params.get("encryptionConfig"))?;
    let mode = req.params["accessConfig"]["authenticationMode"].as_str().unwrap_or("CONFIG_MAP");
    let creator = req.params["accessConfig"]["bootstrapClusterCreatorAdminPermissions"] != false;
    if access::mode_rank(mode).is_none() {
        return Err(invalid(format!("Unsupported authentication mode {mode}")));
    }
    if mode == "CONFIG_MAP" && !creator {
        let message =
            "bootstrapClusterCreatorAdminPermissions must be true if cluster authentication mode is set to CONFIG_MAP";
        return Err(invalid(message));
    }
    let support = support_type(&req.params, "EXTENDED")?;

    let tags_of_group: Vec<(String, String)> = [
        ("Name".to_owned(), String::new()),
        ("aws:eks:cluster-name".to_owned(), name.clone()),
        (format!("kubernetes.io/cluster/{name}"), "owned".to_owned()),
    ]
    .into();
    let group_name = format!("eks-cluster-sg-{name}-{}", w.ids.hex(10).to_lowercase());
    let description = "EKS created security group applied to ENI that is attached to EKS Control Plane master nodes, as well as any managed workloads.";
    let group =
        w.here.ec2.add_group(w.ids, w.account, w.region, &network.vpc, &group_name, description, &tags_of_group);
    w.here.ec2.tag(&group, "Name", &group_name);
    w.here.ec2.allow_from_self(w.ids, w.account, &group);

    let mut body = json!({
        "name": name, "arn": w.arn(&format!("cluster/{name}")), "createdAt": w.now, "version": version,
        "roleArn": role_arn,
        "resourcesVpcConfig": {
            "subnetIds": network.subnets, "securityGroupIds": network.groups, "vpcId": network.vpc,
            "controlPlaneEgressMode": vpc["controlPlaneEgressMode"].as_str().unwrap_or("AWS_MANAGED"),
        },
        "kubernetesNetworkConfig": {
            "serviceIpv4Cidr": service_cidr, "ipFamily": "ipv4", "elasticLoadBalancing": {"enabled": false},
        },
        "logging": logging, "status": "CREATING", "certificateAuthority": {}, "platformVersion": known.platform(),
        "tags": tags, "health": {"issues": []}, "accessConfig": {"authenticationMode": mode},
        "upgradePolicy": {"supportType": support},
        "deletionProtection": req.params["deletionProtection"] == true,
        "controlPlaneScalingConfig": {
            "tier": req.params["controlPlaneScalingConfig"]["tier"].as_str().unwrap_or("standard"),
        },
    });
    merge(&mut body, &json!({"resourcesVpcConfig": endpoint}));
    if let Some(encryption) = encryption {
        body["encryptionConfig"] = encryption;
    }
    // Absent until a request sets it: tests of terraform's AWS provider expect that a cluster made without it has none.
    for member in ["zonalShiftConfig", "kubeApiServerConfig", "kubeSchedulerConfig", "kubeControllerManagerConfig"] {
        if let Some(config) = req.params.get(member) {
            body[member] = config.clone();
        }
    }
    let reply = json!({"cluster": body});
    let issuer =
        format!("https://oidc.eks.{}.{}/id/{}", w.region, super::super::state::dns_suffix(w.region), w.ids.hex(32));
    let active = json!({
        "status": "ACTIVE", "endpoint": format!("/k8s/{}/{}/{name}", w.account, w.region),
        "identity": {"oidc": {"issuer": issuer}}, "certificateAuthority": {"data": STANDARD.encode(CERTIFICATE)},
        "resourcesVpcConfig": {"clusterSecurityGroupId": group},
    });
    let fate = w.fates.of("eks:cluster", &name, During::Create);
    let mut cluster = Cluster {
        body,
        change: Some(Change::after(CREATE, w.now, Some(active), &fate)),
        self_managed: req.params["bootstrapSelfManagedAddons"] != false,
        zones: network.zones,
        security_group: group,
        ..Cluster::default()
    };
    attach(w, &cluster)?;
    if creator && mode != "CONFIG_MAP" {
        access::add_creator(w, &mut cluster, &req.caller.arn);
    }
    w.here.eks.clusters.insert(name, cluster);
    Ok(reply)
}

/// Brings a cluster up to the present time. False if the cluster is gone.
pub(super) fn settle(w: &mut World<'_>, name: &str, cluster: &mut Cluster) -> bool {
    if let Some(change) = cluster.change.take_if(|change| change.is_due(w.now)) {
        let Some(patch) = change.merge else {
            w.here.ec2.remove_interfaces(&owner(name));
            w.here.ec2.remove_group(&cluster.security_group);
            w.here.k8s.remove(name);
            return false;
        };
        merge(&mut cluster.body, &patch);
        log_group(w, cluster);
        w.here.k8s.add(name, w.ids, w.now);
    }
    let now = w.now;
    let due = |update: &super::Update| update.body["status"] == "InProgress" && !update.stuck && update.at <= now;
    let finished: Vec<(Target, Option<Value>)> = cluster
        .updates
        .iter_mut()
        .filter(|update| due(update))
        .map(|update| {
            let error = update.error.take();
            update.body["status"] = if error.is_some() { "Failed" } else { "Successful" }.into();
            let merge = error.is_none().then(|| std::mem::take(&mut update.merge));
            update.body["errors"] = error.into_iter().collect();
            (update.of.clone(), merge)
        })
        .collect();
    for (of, patch) in finished {
        let failed = patch.is_none();
        let patch = patch.unwrap_or_default();
        if let Some(body) = cluster.target(&of) {
            if !failed {
                merge(body, &patch);
            }
            let addon = matches!(of, Target::Addon(_));
            body["status"] = if failed && addon { "UPDATE_FAILED" } else { "ACTIVE" }.into();
        }
        match of {
            Target::Cluster => {
                log_group(w, cluster);
                if !patch["resourcesVpcConfig"].is_null() {
                    w.here.ec2.remove_interfaces(&owner(name));
                    // The subnets were checked when the update began. If a subnet has become full since, its interface
                    // is left out.
                    let _attached = attach(w, cluster);
                }
            }
            Target::Nodegroup(group) => nodegroup::updated(w, cluster, &group, &patch),
            Target::Addon(_) => {}
        }
    }
    nodegroup::settle(w, cluster);
    fargate::settle(w, cluster);
    addon::settle(w, cluster);
    true
}

pub(super) fn delete(w: &mut World<'_>, req: &Request) -> Reply {
    let name = required(req, "name")?;
    let now = w.now;
    let cluster = w.cluster(&name)?;
    let refuse = |code: &str, message: String| Err(fault(code, message).with("clusterName", name.as_str()));
    if cluster.status() == "DELETING" {
        return Ok(json!({"cluster": cluster.body}));
    }
    // EKS user guide, "Protect EKS clusters from accidental deletion": it protects active clusters only.
    if cluster.body["deletionProtection"] == true && cluster.running().is_ok() {
        let message =
            format!("Cluster {name} has deletion protection enabled. Disable deletion protection to delete it");
        return refuse("InvalidRequestException", message);
    }
    if !cluster.nodegroups.is_empty() {
        return refuse("ResourceInUseException", "Cluster has nodegroups attached".to_owned());
    }
    if !cluster.profiles.is_empty() {
        return refuse("ResourceInUseException", "Cluster has Fargate Profiles in ACTIVE/CREATING state".to_owned());
    }
    if let Some(update) = cluster.in_progress(&Target::Cluster) {
        let message = format!("Cannot DeleteCluster because cluster {name} currently has update {update} in progress");
        return refuse("ResourceInUseException", message);
    }
    if cluster.status() == "CREATING" {
        let message = format!("Cannot DeleteCluster because cluster {name} is in status CREATING");
        return refuse("ResourceInUseException", message);
    }
    let fate = w.fates.of("eks:cluster", &name, During::Delete);
    let cluster = w.cluster(&name)?;
    cluster.body["status"] = "DELETING".into();
    cluster.change = Some(Change::after(DELETE, now, None, &fate));
    Ok(json!({"cluster": cluster.body}))
}

#[expect(clippy::too_many_lines, reason = "every check of one AWS action, in the order in which EKS makes them")]
pub(super) fn update_config(w: &mut World<'_>, req: &Request) -> Reply {
    let name = required(req, "name")?;
    let p = &req.params;
    let vpc = &p["resourcesVpcConfig"];
    let has = |value: &Value, members: &[&str]| members.iter().any(|member| !value[*member].is_null());
    let kinds: Vec<&str> = [
        ("EndpointAccessUpdate", has(vpc, &["endpointPublicAccess", "endpointPrivateAccess", "publicAccessCidrs"])),
        ("VpcConfigUpdate", has(vpc, &["subnetIds", "securityGroupIds"])),
        ("ControlPlaneEgressUpdate", has(vpc, &["controlPlaneEgressMode"])),
        ("LoggingUpdate", has(p, &["logging"])),
        ("AccessConfigUpdate", has(p, &["accessConfig"])),
        ("UpgradePolicyUpdate", has(p, &["upgradePolicy"])),
        ("ZonalShiftConfigUpdate", has(p, &["zonalShiftConfig"])),
        ("AutoModeUpdate", has(p, &["computeConfig", "kubernetesNetworkConfig", "storageConfig"])),
        ("RemoteNetworkConfigUpdate", has(p, &["remoteNetworkConfig"])),
        ("DeletionProtectionUpdate", has(p, &["deletionProtection"])),
        ("ControlPlaneScalingConfigUpdate", has(p, &["controlPlaneScalingConfig"])),
        (
            "ControlPlaneComponentConfigUpdate",
            has(p, &["kubeApiServerConfig", "kubeSchedulerConfig", "kubeControllerManagerConfig"]),
        ),
    ]
    .into_iter()
    .filter_map(|(kind, asked)| asked.then_some(kind))
    .collect();
    let [kind] = kinds.as_slice() else {
        let message = if kinds.is_empty() {
            "Invalid type for cluster update."
        } else {
            "Only one type of update can be allowed."
        };
        return Err(invalid(message).with("clusterName", name));
    };
    no_other_modes(p)?;
    let body = w.cluster(&name)?.body.clone();
    let old = &body["resourcesVpcConfig"];
    let (patch, params) = match *kind {
        "EndpointAccessUpdate" => {
            let new = endpoint_access(vpc, old)?;
            if ["endpointPublicAccess", "endpointPrivateAccess", "publicAccessCidrs"]
                .iter()
                .all(|one| new[*one] == old[*one])
            {
                let cidrs = texts(&new, "publicAccessCidrs").join(", ");
                return Err(invalid(format!(
                    "Cluster is already at the desired configuration with endpointPrivateAccess: {} , endpointPublicAccess: {}, and Public Endpoint Restrictions: [{cidrs}]",
                    new["endpointPrivateAccess"], new["endpointPublicAccess"]
                )));
            }
            let params = json!({
                "EndpointPublicAccess": new["endpointPublicAccess"], "EndpointPrivateAccess": new["endpointPrivateAccess"],
                "PublicAccessCidrs": new["publicAccessCidrs"],
            });
            (json!({"resourcesVpcConfig": new}), params)
        }
        "VpcConfigUpdate" => {
            let mut wanted = old.clone();
            merge(&mut wanted, vpc);
            let network = Network::read(w, &wanted, &name)?;
            let cluster = w.cluster(&name)?;
            if network.vpc != cluster.vpc() {
                return Err(invalid(format!("Subnets must be in the cluster's VPC {}", cluster.vpc())));
            }
            if network.zones != cluster.zones {
                return Err(invalid(format!(
                    "Provided subnets belong to the AZs '{}'. But they should match the original AZs '{}'",
                    network.zones.join(","),
                    cluster.zones.join(",")
                )));
            }
            let new = json!({"subnetIds": network.subnets, "securityGroupIds": network.groups});
            (
                json!({"resourcesVpcConfig": new}),
                json!({"Subnets": new["subnetIds"], "SecurityGroups": new["securityGroupIds"]}),
            )
        }
        "ControlPlaneEgressUpdate" => {
            let mode = &vpc["controlPlaneEgressMode"];
            if old["controlPlaneEgressMode"] != "AWS_MANAGED" && mode == "AWS_MANAGED" {
                return Err(invalid("The control plane egress mode can't be changed back to AWS_MANAGED"));
            }
            (json!({"resourcesVpcConfig": {"controlPlaneEgressMode": mode}}), json!({"ControlPlaneEgressMode": mode}))
        }
        "LoggingUpdate" => {
            let new = logging(&p["logging"], &enabled_logs(&body))?;
            (json!({"logging": new}), json!({"ClusterLogging": p["logging"]}))
        }
        "AccessConfigUpdate" => {
            let from = body["accessConfig"]["authenticationMode"].as_str().unwrap_or_default();
            let to = p["accessConfig"]["authenticationMode"].as_str().unwrap_or_default();
            let step = access::mode_rank(to).zip(access::mode_rank(from)).map(|(to, from)| to - from);
            if step != Some(1) && step != Some(0) {
                let message = format!("Unsupported authentication mode update from {from} to {to}");
                return Err(invalid(message));
            }
            (json!({"accessConfig": {"authenticationMode": to}}), json!({"AuthenticationMode": to}))
        }
        "UpgradePolicyUpdate" => {
            let support = support_type(p, "")?;
            let version = body["version"].as_str().and_then(versions::find);
            if support == "STANDARD" && version.is_some_and(|version| version.support(w.now) != "STANDARD_SUPPORT") {
                let message = "The upgrade policy can't be STANDARD while the cluster's version is in extended support";
                return Err(fault("InvalidRequestException", message).with("clusterName", name));
            }
            (json!({"upgradePolicy": {"supportType": support}}), json!({"UpgradePolicy": p["upgradePolicy"]}))
        }
        "DeletionProtectionUpdate" => {
            let on =
                p["deletionProtection"].as_bool().ok_or_else(|| invalid("deletionProtection must be true or false"))?;
            (json!({"deletionProtection": on}), json!({"DeletionProtection": on}))
        }
        "ZonalShiftConfigUpdate" => {
            (json!({"zonalShiftConfig": p["zonalShiftConfig"]}), json!({"ZonalShiftConfig": p["zonalShiftConfig"]}))
        }
        "ControlPlaneScalingConfigUpdate" => {
            let tier = &p["controlPlaneScalingConfig"]["tier"];
            (json!({"controlPlaneScalingConfig": {"tier": tier}}), json!({"UpdatedTier": tier}))
        }
        "ControlPlaneComponentConfigUpdate" => {
            let member = |name: &str| p.get(name).cloned().unwrap_or_default();
            let mut patch = json!({});
            for name in ["kubeApiServerConfig", "kubeSchedulerConfig", "kubeControllerManagerConfig"] {
                if p.get(name).is_some() {
                    patch[name] = member(name);
                }
            }
            let params = json!({
                "KubeApiServerConfig": member("kubeApiServerConfig"), "KubeSchedulerConfig": member("kubeSchedulerConfig"),
                "KubeControllerManagerConfig": member("kubeControllerManagerConfig"),
            });
            (patch, params)
        }
        // The request turns off a feature that is off already. Requests that turn it on were refused above.
        _ => (json!({}), json!({})),
    };
    let mut after = body.clone();
    merge(&mut after, &patch);
    begin(w, &name, Step { kind, params, seconds: UPDATE, patch }, after == body)
}

pub(super) fn update_version(w: &mut World<'_>, req: &Request) -> Reply {
    let (name, to) = (required(req, "name")?, required(req, "version")?);
    let cluster = w.cluster(&name)?;
    let from = cluster.body["version"].as_str().unwrap_or_default().to_owned();
    let (old, new) = (versions::find(&from), versions::find(&to));
    let new = new.ok_or_else(|| invalid(format!("unsupported Kubernetes version {to}")))?;
    if old.is_some_and(|old| old.minor == new.minor + 1) {
        return roll_back(w, &name, &from, new);
    }
    if old.map(|old| old.minor + 1) != Some(new.minor) {
        let message = format!("Unsupported Kubernetes minor version update from {from} to {to}");
        return Err(invalid(message).with("clusterName", name));
    }
    let groups = cluster.nodegroups.iter();
    let behind: Vec<&str> =
        groups.filter(|(_, group)| group.body["version"] != from.as_str()).map(|(group, _)| group.as_str()).collect();
    if !behind.is_empty() {
        let message = format!(
            "Nodegroups {} must be updated to match cluster version {from} before updating cluster version",
            behind.join(", ")
        );
        return Err(fault("InvalidRequestException", message).with("clusterName", name));
    }
    let patch = json!({"version": to, "platformVersion": new.platform()});
    let params = json!({"Version": to, "PlatformVersion": new.platform()});
    begin(w, &name, Step { kind: "VersionUpdate", params, seconds: UPGRADE, patch }, false)
}

/// Rolls back the control plane alone, within seven days of its upgrade, if all nodes run the lower version already
/// (EKS user guide, "Roll back a cluster to a previous Kubernetes version"). The guide names no error codes.
fn roll_back(w: &mut World<'_>, name: &str, from: &str, to: &versions::Version) -> Reply {
    const WINDOW: f64 = 7.0 * 24.0 * 3600.0;
    let now = w.now;
    let cluster = w.cluster(name)?;
    let refuse = |message: String| Err(fault("InvalidRequestException", message).with("clusterName", name));
    let upgrade = |update: &&super::Update| {
        let to = |param: &Value| param["type"] == "Version" && param["value"] == from;
        update.of == Target::Cluster
            && update.body["type"] == "VersionUpdate"
            && update.body["status"] == "Successful"
            && update.body["params"].as_array().into_iter().flatten().any(to)
    };
    let Some(upgrade) = cluster.updates.iter().rfind(upgrade) else {
        return refuse(format!("Cluster {name} wasn't upgraded to {from}: it can't be rolled back"));
    };
    if now - upgrade.at > WINDOW {
        return refuse(format!("Cluster {name} was upgraded more than 7 days ago: it can't be rolled back"));
    }
    let ahead: Vec<&str> = cluster
        .nodegroups
        .iter()
        .filter(|(_, group)| group.body["version"] != to.name)
        .map(|(group, _)| group.as_str())
        .collect();
    if !ahead.is_empty() {
        return refuse(format!("Rollback readiness: Kubelet version skew: nodegroups {}", ahead.join(", ")));
    }
    let patch = json!({"version": to.name, "platformVersion": to.platform()});
    let params = json!({"Version": to.name, "PlatformVersion": to.platform()});
    begin(w, name, Step { kind: "VersionRollback", params, seconds: UPGRADE, patch }, false)
}

pub(super) fn associate_encryption(w: &mut World<'_>, req: &Request) -> Reply {
    let name = required(req, "clusterName")?;
    if !w.cluster(&name)?.body["encryptionConfig"].is_null() {
        let message = "Encryption configuration is already associated with the cluster and can't be changed";
        return Err(invalid(message).with("clusterName", name));
    }
    let config = encryption(&w.here.kms, req.params.get("encryptionConfig"))?;
    let config = config.ok_or_else(|| invalid("encryptionConfig can't be empty"))?;
    let patch = json!({"encryptionConfig": config});
    let params = json!({"EncryptionConfig": config});
    begin(w, &name, Step { kind: "AssociateEncryptionConfig", params, seconds: UPGRADE, patch }, false)
}

/// Begins an update. Refused while another one is in progress, and if nothing would change.
fn begin(w: &mut World<'_>, name: &str, step: Step<'_>, needless: bool) -> Reply {
    let (now, id, kind) = (w.now, w.ids.uuid(), step.kind);
    let cluster = w.cluster(name)?;
    if let Some(running) = cluster.in_progress(&Target::Cluster) {
        let message = format!("Cannot {kind} because cluster {name} currently has update {running} in progress");
        return Err(fault("ResourceInUseException", message).with("clusterName", name));
    }
    if cluster.status() != "ACTIVE" {
        let message = format!("Cannot {kind} because cluster {name} is in status {}", cluster.status());
        return Err(fault("ResourceInUseException", message).with("clusterName", name));
    }
    if needless {
        return Err(invalid(format!("No changes needed for the {kind} config provided")).with("clusterName", name));
    }
    let fate = w.fates.of("eks:cluster", name, During::Update);
    Ok(w.cluster(name)?.begin(now, id, Target::Cluster, step, &fate))
}

pub(super) fn versions(req: &Request) -> Reply {
    let (only, status) = (req.texts("clusterVersions"), req.text("versionStatus").or(req.text("status")));
    let status = status.map(|status| status.to_uppercase().replace('-', "_"));
    let default_only = req.text("defaultOnly").as_deref() == Some("true");
    let all = versions::VERSIONS.iter().map(|version| version.wire(req.now));
    let wanted = all.filter(|version| {
        (only.is_empty() || only.iter().any(|one| version["clusterVersion"] == one.as_str()))
            && status.as_ref().is_none_or(|status| version["versionStatus"] == status.as_str())
            && (!default_only || version["defaultVersion"] == true)
    });
    let mut wanted: Vec<_> = wanted.collect();
    // AWS lists the newest update first. The numbered key keeps that order over all pages.
    wanted.reverse();
    paged(
        req,
        "clusterVersions",
        wanted.into_iter().enumerate().map(|(n, version)| (format!("{n:03}"), version)).collect(),
    )
}

/// Subnets and zones of a cluster's interfaces.
struct Network {
    vpc: String,
    subnets: Vec<String>,
    groups: Vec<String>,
    /// Zone names, sorted.
    zones: Vec<String>,
}

impl Network {
    fn read(w: &World<'_>, config: &Value, cluster: &str) -> Result<Self, Fault> {
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
pub(super) fn check_groups(w: &World<'_>, groups: &[String], vpc: &str) -> Result<(), Fault> {
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

fn check_role(w: &World<'_>, arn: &str) -> Result<(), Fault> {
    let role = w.role(arn).ok_or_else(|| invalid(format!("roleArn, {arn}, does not exist")))?;
    if !role.trusts("eks.amazonaws.com") {
        return Err(invalid("Role could not be assumed because the trusted entity is not correct"));
    }
    if !role.has_managed("AmazonEKSClusterPolicy") {
        let policy = format!("arn:{}:iam::aws:policy/AmazonEKSClusterPolicy", super::partition(w.region));
        return Err(invalid(format!(
            "The provided role doesn't have the Amazon EKS Managed Policies associated with it. Please ensure the following policies [{policy}] are attached"
        )));
    }
    Ok(())
}

/// The endpoint access part of a VPC config. Members that the request leaves out keep their former value.
fn endpoint_access(config: &Value, before: &Value) -> Reply {
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

fn service_cidr(w: &World<'_>, config: &Value, vpc: &str) -> Result<String, Fault> {
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
fn logging(config: &Value, before: &BTreeSet<&str>) -> Reply {
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

fn enabled_logs(body: &Value) -> BTreeSet<&str> {
    let setups = body["logging"]["clusterLogging"].as_array().into_iter().flatten();
    let on = setups.filter(|setup| setup["enabled"] == true);
    on.flat_map(|setup| setup["types"].as_array().into_iter().flatten().filter_map(Value::as_str)).collect()
}

fn encryption(kms: &Kms, config: Option<&Value>) -> Result<Option<Value>, Fault> {
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

fn support_type(params: &Value, default: &str) -> Result<String, Fault> {
    let support = params["upgradePolicy"]["supportType"].as_str().unwrap_or(default);
    if ["STANDARD", "EXTENDED"].contains(&support) {
        return Ok(support.to_owned());
    }
    Err(invalid(format!("Unsupported supportType {support:?}")))
}

/// Refuses modes that the sandbox lacks. To accept and ignore them would mislead the caller.
fn no_other_modes(params: &Value) -> Result<(), Fault> {
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

fn owner(cluster: &str) -> String {
    format!("eks/{cluster}")
}

/// Makes the control plane's interfaces: one in each of at most four subnets. They carry the cluster's security group
/// and the groups of its VPC config.
fn attach(w: &mut World<'_>, cluster: &Cluster) -> Result<(), Fault> {
    let (name, vpc) = (cluster.name(), &cluster.body["resourcesVpcConfig"]);
    let mut groups = vec![cluster.security_group.clone()];
    groups.extend(texts(vpc, "securityGroupIds"));
    for subnet in texts(vpc, "subnetIds").iter().take(4) {
        let new = NewInterface {
            account: w.account,
            region: w.region,
            subnet_id: subnet,
            groups: &groups,
            description: &format!("Amazon EKS {name}"),
            kind: "interface",
            owner: &owner(name),
            ..NewInterface::default()
        };
        w.here.ec2.add_interface(w.ids, &new)?;
    }
    Ok(())
}

/// EKS makes the log group of a cluster that has logging, if it is missing: without a key and without retention.
fn log_group(w: &mut World<'_>, cluster: &Cluster) {
    if !enabled_logs(&cluster.body).is_empty() {
        w.here.logs.ensure(&format!("/aws/eks/{}/cluster", cluster.name()), w.now);
    }
}
