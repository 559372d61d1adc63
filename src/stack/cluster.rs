//! The cluster itself: its key, its role, its version.

use std::collections::BTreeSet;

use serde_json::json;

use super::addresses::home;
use super::builder::{Builder, Terms};
use super::roles::{Grants, ServiceLinked};
use super::site::{Network, Site};
use crate::engine::address::Address;
use crate::engine::desired::Refusal;
use crate::engine::error::{Error, Result};
use crate::kinds::aws::{eks_cluster, kms_key};
use crate::spec::{Control, EndpointAccess, KubernetesVersion, LogType, UpgradePolicy};

impl Builder<'_> {
    pub(super) fn cluster(&mut self, site: &Site<'_>, network: &Network) -> Result<()> {
        let owner = site.cluster.owner;
        let profile = site.cluster.profile;
        self.key(site)?;
        let logs = site.at("log-group/cluster");
        let log_name = self.names.cluster_log_group(owner);
        self.log_group(site, logs.clone(), &log_name, profile.cluster.log_retention_days)?;
        self.cluster_role(site)?;
        self.control_plane_group(site, network)?;

        let address = site.at("cluster");
        let restricted = self.spec.access.endpoint == EndpointAccess::Restricted;
        let mut log_types: Vec<String> = profile.cluster.log_types.iter().map(|t| log_type(*t).to_owned()).collect();
        log_types.sort();
        let state = eks_cluster::State {
            name: site.name.clone(),
            role: site.output("role/cluster", "arn"),
            version: site.version.to_string(),
            subnets: network.cluster_ids(),
            security_groups: vec![site.output("security-group/control-plane", "id")],
            endpoint_public: restricted,
            endpoint_private: true,
            public_cidrs: if restricted {
                self.spec.access.allowed_cidrs.iter().map(ToString::to_string).collect()
            } else {
                Vec::new()
            },
            service_cidr: self.spec.network.service_cidr.to_string(),
            log_types,
            key: Some(site.output("key", "arn")),
            authentication_mode: "API".to_owned(),
            support_type: match profile.cluster.upgrade_policy {
                UpgradePolicy::Standard => "STANDARD",
                UpgradePolicy::Extended => "EXTENDED",
            }
            .to_owned(),
            deletion_protection: profile.cluster.deletion_protection,
            tags: self.tags(&address, &site.name),
        };
        let eks = self.service_linked(ServiceLinked::Eks)?;
        let mut controls = vec![Control::ApiAccess];
        if site.silo() {
            controls.insert(0, Control::SiloCluster);
        }
        // The log group comes first: otherwise EKS makes one without encryption and without retention.
        self.put(address, eks_cluster::NAME, &state, Terms::default().after([logs, eks]).controls(&controls))?;
        self.refuse_version(site);
        Ok(())
    }

    /// Adds a refusal if this run doesn't reach the version that the spec asks for.
    fn refuse_version(&mut self, site: &Site<'_>) {
        let (address, wanted) = (site.at("cluster"), site.cluster.kubernetes_version);
        let Some(running) = self.facts.kubernetes.get(&address).copied().filter(|_| site.version != wanted) else {
            return;
        };
        let mut pending = wanted > running;
        let left = self.left_behind(site, running);
        let (reason, help) = if !pending {
            self.refuse_lower(site, &address, running)
        } else if site.version == running && !left.is_empty() {
            pending = false;
            let groups = left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let reason = format!(
                "EKS upgrades a control plane only if all its node groups run its version, {running}; this one still has node groups of an earlier version that left the spec: {groups}"
            );
            let homes: BTreeSet<Address> = left.iter().map(Address::place).collect();
            let flags: Vec<String> = homes.iter().map(|home| format!("--allow-destroy {home}")).collect();
            (
                reason,
                format!(
                    "delete the resources that left the spec ({}), then run the same command again",
                    flags.join(" ")
                ),
            )
        } else if site.version > running {
            let reason = format!(
                "EKS upgrades one minor version at a time, each followed by the nodes: this run upgrades to {}, and Kubernetes {wanted} needs another run",
                site.version
            );
            (reason, "run the same command again after this run".to_owned())
        } else {
            let reason = format!(
                "EKS upgrades a control plane only if all its node groups run its version: this run upgrades them to {running}, and Kubernetes {wanted} needs another run"
            );
            (reason, "run the same command again after this run".to_owned())
        };
        let (is, asked) = (running.to_string(), wanted.to_string());
        let refusal = Refusal { address, kind: eks_cluster::NAME, path: "version", is, asked, reason, help, pending };
        self.desired.refusals.push(refusal);
    }

    /// Node groups of an earlier version that left the spec. No run upgrades them.
    fn left_behind(&self, site: &Site<'_>, running: KubernetesVersion) -> Vec<Address> {
        let tenants = self.tenants_of(site);
        let wanted = |address: &Address| {
            address.is_within(&site.prefix) || tenants.iter().any(|tenant| address.is_within(&home(tenant)))
        };
        let groups = self.facts.node_groups.iter().filter(|(_, g)| g.cluster == site.name && g.version < running);
        groups.map(|(address, _)| address).filter(|address| !wanted(address)).cloned().collect()
    }

    /// EKS rolls a control plane back by one minor version within seven days of its upgrade, if no node runs a later
    /// version. The owner must judge whether add-ons, objects and Fargate pods of the later version still work (EKS
    /// user guide, "Roll back a cluster to a previous Kubernetes version"). So ringfence leaves a rollback to the
    /// owner.
    fn refuse_lower(&self, site: &Site<'_>, address: &Address, running: KubernetesVersion) -> (String, String) {
        let (wanted, name, region) = (site.cluster.kubernetes_version, &site.name, &self.spec.region);
        let keep = format!("set kubernetesVersion to \"{running}\" or later");
        match self.facts.rollback.get(address) {
            Some(until) => (
                format!(
                    "the cluster runs Kubernetes {running}; EKS can roll it back to {wanted} until {until}, but ringfence never does this by itself"
                ),
                format!(
                    "{keep}; or roll back by hand: first each node group (`aws eks update-nodegroup-version --region {region} --cluster-name {name} --nodegroup-name GROUP --kubernetes-version {wanted}`), then everything that `aws eks list-insights --region {region} --cluster-name {name} --filter categories=ROLLBACK_READINESS` names, then `aws eks update-cluster-version --region {region} --name {name} --kubernetes-version {wanted}`, then run the same command again"
                ),
            ),
            None => (
                format!(
                    "the cluster runs Kubernetes {running}, and EKS can't roll it back to {wanted}: a rollback is possible by one minor version, within seven days of an upgrade"
                ),
                keep,
            ),
        }
    }

    fn key(&mut self, site: &Site<'_>) -> Result<()> {
        let owner = site.cluster.owner;
        let address = site.at("key");
        let autoscaling = self.service_linked(ServiceLinked::Autoscaling)?;
        // Log groups of flow logs that were turned off are kept, and still need the key.
        let groups = [self.names.cluster_log_group(owner), self.names.flow_log_group(owner)];
        let arns: Vec<String> = groups.iter().map(|g| self.arn("logs", format!("log-group:{g}"))).collect();
        let policy = self.document(
            "iam/key-policy.json",
            &address,
            json!({
                "logGroupArns": arns,
                "autoscalingRoleArn": format!(
                    "arn:{}:iam::{}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling",
                    self.facts.partition, self.facts.account
                ),
            }),
        )?;
        let kms = &site.cluster.profile.cluster.kms;
        let days = |n: u32| i32::try_from(n).map_err(|_| Error::bug(format!("{address}: {n} days are too many")));
        let alias = self.names.kms_alias(owner);
        let state = kms_key::State {
            description: format!("{}: Kubernetes data, node volumes and logs", site.name),
            policy,
            rotation: true,
            rotation_days: days(kms.rotation_days)?,
            deletion_window_days: days(kms.deletion_window_days)?,
            tags: self.tags(&address, &site.name),
            alias,
        };
        // KMS refuses a policy that names a role that doesn't exist.
        self.put(address, kms_key::NAME, &state, Terms::default().after([autoscaling]))
    }

    fn cluster_role(&mut self, site: &Site<'_>) -> Result<()> {
        let address = site.at("role/cluster");
        let trust = self.document(
            "iam/cluster-trust.json",
            &address,
            json!({"clusterArn": self.arn("eks", format!("cluster/{}", site.name))}),
        )?;
        let key = self.document("iam/cluster-policy.json", &address, json!({"keyArn": site.output("key", "arn")}))?;
        // AmazonEKSVPCResourceController is left out: it is for branch interfaces of pods on EC2 nodes and for Windows
        // (EKS User Guide, "Assign security groups to individual Pods"), and ringfence never uses these features.
        let grants = Grants {
            attached: vec![self.managed_policy("AmazonEKSClusterPolicy")],
            inline: [("key".to_owned(), key)].into(),
        };
        self.role(address, self.names.role(site.cluster.owner, "cluster"), trust, grants)
    }
}

fn log_type(log: LogType) -> &'static str {
    match log {
        LogType::Api => "api",
        LogType::Audit => "audit",
        LogType::Authenticator => "authenticator",
        LogType::ControllerManager => "controllerManager",
        LogType::Scheduler => "scheduler",
    }
}
