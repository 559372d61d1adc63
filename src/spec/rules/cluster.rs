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
        let message = "IMDSv1 answers any request from a pod".to_owned();
        found.weakens(Control::Imds, &["imds.tokens"], message, "`tokens: required`");
    }
    if profile.imds.hop_limit > 1 {
        let message = format!("with {} hops, pods reach the node's credentials", profile.imds.hop_limit);
        found.weakens(Control::Imds, &["imds.hopLimit"], message, "`hopLimit: 1`");
    }
}

pub(super) fn pinned(addons: &Addons, found: &mut Objections) {
    for (name, addon) in addons.iter() {
        let Some(version) = &addon.version else { continue };
        let at = format!("addons.{name}.version");
        if !version::is_addon(version) {
            let message = format!("{} is no add-on version", quote(version));
            found.refuse(&[&at], message, "such as `v1.23.1-eksbuild.1`");
            continue;
        }
        if name == "vpc-cni" && version::floor(name).is_some_and(|floor| !version::at_least(version, floor)) {
            let message = format!("the VPC CNI's network policies leak between namespaces in {}", quote(version));
            found.weakens(Control::NetworkPolicy, &[&at], message, "v1.22.4 or later");
        }
    }
}

pub(super) fn cluster(profile: &Profile, found: &mut Objections) {
    if profile.network_policy == NetworkPolicyEngine::VpcCni
        && profile.network_policy_mode == NetworkPolicyMode::Standard
    {
        let message = "a new pod may talk to everyone until its policies are in place".to_owned();
        found.weakens(Control::NetworkPolicy, &["networkPolicyMode"], message, "`networkPolicyMode: strict`");
    }
    if profile.policy_engine == PolicyEngine::Psp {
        let message = "Kubernetes has no PodSecurityPolicy since 1.25".to_owned();
        let verdict = Verdict::Refused(Code::UnsupportedVersion);
        found.add(verdict, &["policyEngine"], message, "`policyEngine: native`");
    }
    if matches!(profile.policy_engine, PolicyEngine::Gatekeeper | PolicyEngine::Opa) {
        let message = "this version of ringfence enforces policies with Kubernetes' own admission only";
        found.refuse(&["policyEngine"], message.to_owned(), "`policyEngine: native`");
    }
    if !profile.cluster.log_types.contains(&LogType::Audit) {
        let message = "without the audit log, nobody can tell who did what in the cluster".to_owned();
        found.add(Verdict::Noted, &["cluster.logTypes"], message, "add `audit`");
    }
}
