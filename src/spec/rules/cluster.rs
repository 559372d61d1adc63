//! Rules for clusters: metadata of instances, add-ons, the control plane, network policies.

use super::objection::{Objections, Verdict};
use crate::spec::control::Control;
use crate::spec::error::Code;
use crate::spec::settings::{
    Addons, ImdsTokens, LogType, NetworkPolicyEngine, NetworkPolicyMode, PolicyEngine, Profile,
};
use crate::spec::words::quote;
use crate::version;

pub(super) fn imds(profile: &Profile, found: &mut Objections) {
    if profile.imds.tokens == ImdsTokens::Optional {
        let message = "IMDSv1 needs no token: a pod that can be tricked into a request can read the node's credentials"
            .to_owned();
        found.weakens(Control::Imds, &["imds.tokens"], message, "set `tokens: required`");
    }
    if profile.imds.hop_limit > 1 {
        let message = format!("with a hop limit of {}, pods can read the node's credentials", profile.imds.hop_limit);
        found.weakens(Control::Imds, &["imds.hopLimit"], message, "set `hopLimit: 1`");
    }
}

pub(super) fn pinned(addons: &Addons, found: &mut Objections) {
    for (name, addon) in addons.iter() {
        let Some(version) = &addon.version else { continue };
        let at = format!("addons.{name}.version");
        if !version::is_addon(version) {
            let message = format!("{} is not the version of an add-on", quote(version));
            found.refuse(&[&at], message, "write a version such as `v1.23.1-eksbuild.1`");
            continue;
        }
        if name == "vpc-cni" && version::floor(name).is_some_and(|floor| !version::at_least(version, floor)) {
            let message = format!(
                "in version {} of the VPC CNI, network policies of one namespace can affect pods of another",
                quote(version)
            );
            found.weakens(Control::NetworkPolicy, &[&at], message, "use v1.22.4 or later");
        }
    }
}

pub(super) fn cluster(profile: &Profile, found: &mut Objections) {
    if profile.network_policy == NetworkPolicyEngine::VpcCni
        && profile.network_policy_mode == NetworkPolicyMode::Standard
    {
        let message = "a new pod has no network restrictions until its policies are applied".to_owned();
        found.weakens(Control::NetworkPolicy, &["networkPolicyMode"], message, "set `networkPolicyMode: strict`");
    }
    if profile.policy_engine == PolicyEngine::Psp {
        let message = "Kubernetes 1.25 removed PodSecurityPolicy".to_owned();
        let verdict = Verdict::Refused(Code::UnsupportedVersion);
        let help = "set `policyEngine: native`, which refuses the same; for clusters below 1.25, which EKS no longer offers, `render --policy-engine psp` writes PodSecurityPolicies";
        found.add(verdict, &["policyEngine"], message, help);
    }
    if !profile.cluster.log_types.contains(&LogType::Audit) {
        let message = "without the audit log, actions in the cluster can't be traced to a user".to_owned();
        found.add(Verdict::Noted, &["cluster.logTypes"], message, "add `audit` to `logTypes`");
    }
}
