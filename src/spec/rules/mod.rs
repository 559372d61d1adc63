//! Rules for complete profiles: settings that are refused, and settings that need a waiver. Pure functions of the
//! profile.
//! [`super::checks`] finds the setting's place in a file.

mod cluster;
mod namespace;
mod nodes;
mod objection;
mod pods;

use super::control::Control;
use super::profile::uses;
use super::settings::Profile;
use cluster::{cluster, imds, pinned};
use namespace::{exposure, quota};
use nodes::nodes;
use objection::Objections;
use pods::{capabilities, host_paths, registries, seccomp};

pub use objection::{Objection, Verdict};
pub use pods::BASELINE_CAPABILITIES;

/// All objections to a profile. `tier` is the profile without a tenant's overrides.
pub fn check(profile: &Profile, tier: &Profile) -> Vec<Objection> {
    let mut found = Objections(Vec::new());
    let Profile {
        isolation,
        nodes: workers,
        system_nodes,
        imds: _,
        cluster: _,
        network: _,
        addons,
        network_policy: _,
        network_policy_mode: _,
        namespace,
        pods,
        exposure: _,
        sessions: _,
        policy_engine: _,
        priority_class: _,
    } = profile;
    let uses = |section| uses(*isolation, section);
    if uses("nodes") {
        nodes("nodes", workers, &mut found);
    }
    if uses("systemNodes") {
        nodes("systemNodes", system_nodes, &mut found);
        if system_nodes.desired == 0 {
            let help = "set it to at least 1; 2 are better";
            found.refuse(&["systemNodes.desired"], "without system nodes, DNS and metrics can't run".to_owned(), help);
        }
    }
    if uses("imds") {
        imds(profile, &mut found);
    }
    if uses("addons") {
        pinned(addons, &mut found);
    }
    if uses("cluster") {
        cluster(profile, &mut found);
    }
    if uses("namespace") {
        quota(namespace, &mut found);
        exposure(profile, &mut found);
    }
    if uses("pods") {
        capabilities(pods, &tier.pods, &mut found);
        registries(pods, &mut found);
        seccomp(pods, &mut found);
        host_paths(pods, *isolation, &mut found);
        if pods.automount_token {
            let message = "every pod would get credentials for the Kubernetes API";
            found.weakens(
                Control::ApiAccess,
                &["pods.automountToken"],
                message.to_owned(),
                "set `automountToken: false`",
            );
        }
    }
    found.0
}
