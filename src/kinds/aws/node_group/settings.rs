//! The settings of a node group, in the form of EKS's requests, and the differences that an update must make.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_eks::types::{
    NodeRepairConfig, NodegroupScalingConfig, NodegroupUpdateConfig, Taint as SdkTaint, TaintEffect,
    UpdateLabelsPayload, UpdateTaintsPayload,
};

use super::facts::{CUSTOM, State, Taint};
use crate::engine::error::{Error, Result};

/// The time limit for a change of settings, and the fixed part of the limit for an update of all nodes.
pub(super) const SETTLE: Duration = Duration::from_secs(3600);

/// The time limit for replacing one batch of nodes: EKS waits 15 minutes for pods to leave a node, and new nodes must
/// start before (EKS User Guide, "Understand each phase of node updates").
const ROUND: Duration = Duration::from_secs(1800);

/// The largest batch of nodes that EKS replaces (same page).
const MOST_AT_ONCE: u32 = 100;

/// Keeps the autoscaler's desired size, within the bounds.
pub(super) fn scaling(state: &State, desired: i32) -> NodegroupScalingConfig {
    NodegroupScalingConfig::builder()
        .min_size(state.min)
        .max_size(state.max)
        .desired_size(desired.min(state.max).max(state.min))
        .build()
}

/// The fields that EKS accepts: AWS's images have releases, and a release of Amazon Linux belongs to one Kubernetes
/// version.
pub(super) fn release(state: &State) -> Option<String> {
    let fits = |release: &&String| {
        state.ami_type.starts_with("BOTTLEROCKET") || release.starts_with(&format!("{}.", state.version))
    };
    state.release_version.as_ref().filter(|_| state.ami_type != CUSTOM).filter(fits).cloned()
}

pub(super) fn repair_config(state: &State) -> Option<NodeRepairConfig> {
    state.repair.map(|enabled| NodeRepairConfig::builder().enabled(enabled).build())
}

pub(super) fn update_config(state: &State) -> Result<NodegroupUpdateConfig> {
    let text = &state.max_unavailable;
    let number = |digits: &str| {
        digits.parse::<i32>().map_err(|_| Error::bug(format!("`{text}` is neither a number of nodes nor a percentage")))
    };
    let config = NodegroupUpdateConfig::builder();
    Ok(match text.strip_suffix('%') {
        Some(percentage) => config.max_unavailable_percentage(number(percentage)?),
        None => config.max_unavailable(number(text)?),
    }
    .build())
}

/// The number of batches in which `nodes` are replaced.
fn rounds(nodes: u32, max_unavailable: &str) -> u32 {
    let number = |digits: &str| digits.parse::<u32>().unwrap_or(1);
    let at_once = match max_unavailable.strip_suffix('%') {
        Some(percentage) => nodes.saturating_mul(number(percentage)) / 100,
        None => number(max_unavailable),
    };
    nodes.div_ceil(at_once.clamp(1, MOST_AT_ONCE))
}

pub(super) fn sdk_taint(taint: &Taint) -> SdkTaint {
    SdkTaint::builder().key(&taint.key).value(&taint.value).effect(TaintEffect::from(taint.effect.as_str())).build()
}

pub(super) fn label_changes(now: &State, to: &State) -> Option<UpdateLabelsPayload> {
    let write: HashMap<String, String> =
        to.labels.iter().filter(|(k, v)| now.labels.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let remove: Vec<String> = now.labels.keys().filter(|k| !to.labels.contains_key(*k)).cloned().collect();
    (!write.is_empty() || !remove.is_empty()).then(|| {
        UpdateLabelsPayload::builder()
            .set_add_or_update_labels(Some(write).filter(|w| !w.is_empty()))
            .set_remove_labels(Some(remove).filter(|r| !r.is_empty()))
            .build()
    })
}

/// A taint is identified by key and effect. Its value can be updated.
pub(super) fn taint_changes(now: &State, to: &State) -> Option<UpdateTaintsPayload> {
    let same = |a: &Taint, b: &Taint| (&a.key, &a.effect) == (&b.key, &b.effect);
    let write: Vec<SdkTaint> = to.taints.iter().filter(|t| !now.taints.contains(t)).map(sdk_taint).collect();
    let remove: Vec<SdkTaint> =
        now.taints.iter().filter(|t| !to.taints.iter().any(|k| same(k, t))).map(sdk_taint).collect();
    (!write.is_empty() || !remove.is_empty()).then(|| {
        UpdateTaintsPayload::builder()
            .set_add_or_update_taints(Some(write).filter(|w| !w.is_empty()))
            .set_remove_taints(Some(remove).filter(|r| !r.is_empty()))
            .build()
    })
}

/// The time limit for an update that replaces all nodes of a group.
pub(super) fn time_to_roll(now: &State, to: &State) -> Duration {
    let nodes = u32::try_from(now.desired.clamp(to.min, to.max)).unwrap_or_default();
    SETTLE + ROUND * rounds(nodes, &to.max_unavailable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    fn state(desired: i32, taints: &[(&str, &str, &str)]) -> State {
        let taint = |(key, value, effect): &(&str, &str, &str)| Taint {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            effect: (*effect).to_owned(),
        };
        State {
            cluster: String::new(),
            name: String::new(),
            role: String::new(),
            subnets: Vec::new(),
            ami_type: String::new(),
            capacity_type: String::new(),
            instance_types: Vec::new(),
            template: String::new(),
            template_version: String::new(),
            instance_tags: BTreeMap::new(),
            labels: BTreeMap::new(),
            taints: taints.iter().map(taint).collect(),
            min: 2,
            max: 4,
            desired,
            max_unavailable: String::new(),
            version: String::new(),
            release_version: None,
            repair: None,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn the_autoscalers_size_is_kept_within_the_bounds() {
        let size = |desired| scaling(&state(desired, &[]), desired).desired_size().unwrap();
        assert_eq!([size(0), size(3), size(9)], [2, 3, 4]);
    }

    #[test]
    fn an_update_takes_as_many_rounds_as_its_pace_makes() {
        let rounds =
            [(2, "1"), (2, "33%"), (9, "33%"), (100, "33%"), (450, "33%"), (450, "100%"), (40, "1%"), (0, "33%")]
                .map(|(nodes, pace)| rounds(nodes, pace));
        assert_eq!(rounds, [2, 2, 5, 4, 5, 5, 40, 0]);
    }

    #[test]
    fn a_taint_with_another_value_is_updated_and_not_removed() {
        let now = state(2, &[("tenantID", "1", "NO_SCHEDULE"), ("x", "y", "NO_EXECUTE")]);
        let to = state(2, &[("tenantID", "2", "NO_SCHEDULE"), ("tenantID", "2", "NO_EXECUTE")]);
        let changes = taint_changes(&now, &to).unwrap();
        assert_eq!(changes.add_or_update_taints().len(), 2);
        let removed: Vec<_> = changes.remove_taints().iter().filter_map(|t| t.key()).collect();
        assert_eq!(removed, ["x"]);
        assert!(taint_changes(&to, &to).is_none());
    }
}
