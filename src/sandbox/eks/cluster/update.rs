//! Updates of clusters.

use super::super::super::wire::{Reply, Request, texts};
use super::super::versions;
use super::super::{During, Step, Target, Update, World, access, fault, invalid, merge, required};
use super::settings::{Network, enabled_logs, encryption, endpoint_access, logging, no_other_modes, support_type};
use serde_json::{Value, json};

const UPDATE: f64 = 180.0;
const UPGRADE: f64 = 900.0;

#[expect(clippy::too_many_lines, reason = "every check of one AWS action, in the order in which EKS makes them")]
pub fn update_config(w: &mut World<'_>, req: &Request) -> Reply {
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

pub fn update_version(w: &mut World<'_>, req: &Request) -> Reply {
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
    let upgrade = |update: &&Update| {
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

pub fn associate_encryption(w: &mut World<'_>, req: &Request) -> Reply {
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
