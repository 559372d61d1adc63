//! Add-ons: their versions and their configuration.

use serde_json::{Map, Value, json};

use super::builder::{Builder, Terms};
use super::facts::{Offer, floor};
use super::roles::Grants;
use super::site::Site;
use crate::engine::address::Address;
use crate::engine::error::{Error, Result};
use crate::engine::value::reference;
use crate::kinds::aws::eks_addon;
use crate::spec::{Addon, Control, NetworkPolicyEngine, NetworkPolicyMode};
use crate::version::{at_least, compare};

/// Add-ons that run on every node (DaemonSets). They come before nodes: the CNI needs the agent for its credentials
/// (amazon-vpc-cni-k8s 3840).
pub(super) const DAEMONS: [&str; 3] = ["eks-pod-identity-agent", "kube-proxy", "vpc-cni"];

/// The label of system nodes, for add-ons that must run there: tenants' nodes accept no DNS traffic.
pub(super) const ROLE_LABEL: (&str, &str) = ("ringfence.dev/role", "system");

impl Builder<'_> {
    /// `policies` are the network policies that the cluster's own pods need.
    pub(super) fn addons(&mut self, site: &Site<'_>, policies: &[Address]) -> Result<()> {
        let role = site.at("role/vpc-cni");
        let trust = self.pod_identity_trust(site, &role, "kube-system", "aws-node")?;
        let name = self.names.role(site.cluster.owner, "vpc-cni");
        // This replaces AmazonEKS_CNI_Policy, which allows every interface of the account: these credentials are on
        // each node.
        let ec2 = |what: &str| self.arn("ec2", what);
        let network = self.document(
            "iam/cni-policy.json",
            &role,
            json!({
                "cluster": site.name,
                "groups": ec2("security-group/*"),
                "instances": ec2("instance/*"),
                "interfaces": ec2("network-interface/*"),
                "subnets": ec2("subnet/*"),
                "vpcArn": ec2(&format!("vpc/{}", site.output("vpc", "id"))),
            }),
        )?;
        let grants = Grants::none().and("network", network);
        self.role(role.clone(), name, trust, grants)?;

        for (name, addon) in site.cluster.profile.addons.iter() {
            let address = site.at(&format!("addon/{name}"));
            let cni = name == "vpc-cni";
            let state = eks_addon::State {
                cluster: site.output("cluster", "name"),
                name: name.to_owned(),
                version: self.addon_version(site, &address, name, addon)?,
                configuration: configuration(site, name, addon),
                pod_identity: if cni {
                    [("aws-node".to_owned(), reference(&role, "arn"))].into()
                } else {
                    Default::default()
                },
                tags: self.tags(&address, format!("{}-{name}", site.name)),
            };
            let mut terms = Terms::default();
            if cni && site.cluster.profile.network_policy == NetworkPolicyEngine::VpcCni {
                terms = terms.controls(&[Control::NetworkPolicy]);
            }
            if !DAEMONS.contains(&name) {
                // Pods of Deployments wait for nodes, and in strict mode also for their network policies.
                terms = terms.after([site.at("node-group/system")]).after(policies.to_vec());
            }
            self.put(address, eks_addon::NAME, &state, terms)?;
        }
        Ok(())
    }

    /// The version of an add-on. First the pinned version; else the running one, if EKS offers it and it isn't below
    /// the floor; else the version that EKS recommends, or the newest one if that is below the floor.
    fn addon_version(&self, site: &Site<'_>, address: &Address, name: &str, addon: &Addon) -> Result<String> {
        let fits = |version: &str| at_least(version, floor(name));
        // A pin below the floor needs a waiver. The checks of the spec made sure of that.
        if let Some(pin) = &addon.version {
            return Ok(pin.clone());
        }
        let none = Offer::default();
        let offer = self.facts.offered.get(&site.version).and_then(|o| o.get(name)).unwrap_or(&none);
        let running = self.facts.addons.get(address).filter(|v| offer.versions.contains(v) && fits(v));
        if let (Some(running), false) = (running, self.facts.upgrade) {
            return Ok(running.clone());
        }
        let recommended = offer.default.as_ref().filter(|v| fits(v));
        let newest = || offer.versions.iter().filter(|v| fits(v)).max_by(|a, b| compare(a, b));
        recommended.or_else(newest).cloned().ok_or_else(|| {
            Error::input(format!(
                "EKS offers no version of the add-on {name} that is {} or later for Kubernetes {}",
                floor(name),
                site.version
            ))
            .help(format!("choose another kubernetesVersion, or pin a version in the profile's addons.{name}.version"))
        })
    }
}

/// An add-on's configuration: the profile's, overridden by ours.
fn configuration(site: &Site<'_>, name: &str, addon: &Addon) -> Value {
    let profile = site.cluster.profile;
    let ours = match name {
        // All values are strings, because the add-on's schema requires that.
        "vpc-cni" => json!({
            "enableNetworkPolicy": if profile.network_policy == NetworkPolicyEngine::VpcCni { "true" } else { "false" },
            "env": {
                "NETWORK_POLICY_ENFORCING_MODE": match profile.network_policy_mode {
                    NetworkPolicyMode::Strict => "strict",
                    NetworkPolicyMode::Standard => "standard",
                },
            },
        }),
        "coredns" | "metrics-server" => json!({"nodeSelector": {ROLE_LABEL.0: ROLE_LABEL.1}}),
        _ => json!({}),
    };
    let mut all = Value::Object(addon.configuration.clone().unwrap_or_default());
    merge(&mut all, ours);
    all
}

/// Merges `over` into `under`, object by object.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert_with(|| Value::Object(Map::new())), value);
            }
        }
        (under, over) => *under = over,
    }
}
