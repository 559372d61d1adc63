//! Clusters: creation, updates, deletion.

mod settings;
mod update;

use super::super::ec2::NewInterface;
use super::super::quotas;
use super::super::wire::{Fault, Reply, Request, texts};
use super::versions::{self, CERTIFICATE};
use super::{
    Change, Cluster, During, Target, World, access, addon, check_name, fargate, fault, invalid, merge, new_tags,
    nodegroup, required,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use settings::{
    Network, check_role, enabled_logs, encryption, endpoint_access, logging, no_other_modes, service_cidr, support_type,
};
use std::collections::BTreeSet;

pub(super) use settings::check_groups;
pub(super) use update::{associate_encryption, update_config, update_version};

const CREATE: f64 = 540.0;
const DELETE: f64 = 240.0;

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
