//! Settings of a node group in a request, and the rules for them.

use super::super::super::quotas;
use super::super::super::wire::{Fault, Reply, Request};
use super::super::{World, invalid, merge};
use serde_json::{Value, json};

pub(super) fn scaling(given: &Value, before: &Value, w: &World<'_>) -> Reply {
    let size = |member: &str| given[member].as_u64().or(before[member].as_u64()).unwrap_or_default();
    if given.as_object().is_some_and(|given| given.values().any(|size| !size.is_null() && size.as_u64().is_none())) {
        return Err(invalid("Sizes in scalingConfig must be whole numbers from 0"));
    }
    let (min, max, desired) = (size("minSize"), size("maxSize"), size("desiredSize"));
    let most = quotas::limit(w.quotas, "L-BD136A63");
    if max < 1 {
        return Err(invalid("The maximum size must be at least 1"));
    }
    if min > desired {
        return Err(invalid(format!("Minimum capacity {min} can't be greater than desired size {desired}")));
    }
    if desired > max {
        return Err(invalid(format!("desired capacity {desired} can't be greater than max size {max}")));
    }
    if max as f64 > most {
        return Err(invalid(format!(
            "The maximum size {max} is above the limit of {most} nodes per managed node group"
        )));
    }
    Ok(json!({"minSize": min, "maxSize": max, "desiredSize": desired}))
}

pub(super) fn update_settings(given: &Value, before: &Value) -> Reply {
    let mut config = before.clone();
    if given.is_null() {
        return Ok(config);
    }
    if !given.is_object() {
        return Err(invalid("updateConfig must be a structure"));
    }
    let (count, percentage) = (&given["maxUnavailable"], &given["maxUnavailablePercentage"]);
    if !count.is_null() && !percentage.is_null() {
        return Err(invalid("updateConfig can have maxUnavailable or maxUnavailablePercentage, not both"));
    }
    if !count.is_null() && count.as_u64().is_none_or(|count| !(1..=100).contains(&count)) {
        return Err(invalid("maxUnavailable must be between 1 and 100"));
    }
    if !percentage.is_null() {
        if percentage.as_u64().is_none_or(|percent| !(1..=100).contains(&percent)) {
            return Err(invalid("maxUnavailablePercentage must be between 1 and 100"));
        }
        merge(&mut config, &json!({"maxUnavailable": null}));
    }
    merge(&mut config, given);
    Ok(config)
}

/// Error text: cloudposse/terraform-aws-eks-node-group, issue 208.
pub(super) fn check_repair(req: &Request) -> Result<(), Fault> {
    match req.params.get("nodeRepairConfig") {
        Some(config) if !config.is_null() && req.region.starts_with("cn-") => {
            Err(invalid(format!("The parameter nodeRepairConfig is not supported in region {}", req.region)))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_labels(labels: &Value) -> Result<(), Fault> {
    if !labels.is_object() {
        return Err(invalid("Labels must be a map"));
    }
    for (key, value) in labels.as_object().into_iter().flatten() {
        if ["kubernetes.io/", "k8s.io/", "eks.amazonaws.com/"].iter().any(|prefix| key.contains(prefix)) {
            let message = "Label cannot contain reserved prefixes [kubernetes.io/, k8s.io/, eks.amazonaws.com/]";
            return Err(invalid(message));
        }
        let name = key.rsplit('/').next().unwrap_or_default();
        let value = value.as_str().unwrap_or_default();
        if !is_label(name) || !is_label(value) {
            return Err(invalid(format!(
                "Invalid label {key}={value}: a name and a value must consist of 1 to 63 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            )));
        }
    }
    Ok(())
}

/// Whether Kubernetes accepts the text as a label's value, or as the name part of a label's key.
fn is_label(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

pub(super) fn check_taints(taints: &[Value]) -> Result<(), Fault> {
    if taints.len() > 50 {
        return Err(invalid("A node group can have 50 taints"));
    }
    for (n, taint) in taints.iter().enumerate() {
        let (key, value) = (taint["key"].as_str().unwrap_or_default(), taint["value"].as_str().unwrap_or_default());
        if key.is_empty() || key.len() > 63 || (!value.is_empty() && !is_label(value)) {
            return Err(invalid(format!(
                "Invalid taint {key}={value}: a key has 1 to 63 characters, a value up to 63"
            )));
        }
        let effect = taint["effect"].as_str().unwrap_or_default();
        if !["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"].contains(&effect) {
            return Err(invalid(format!("Unsupported taint effect {effect:?}")));
        }
        if taints.iter().skip(n + 1).any(|other| other["key"] == taint["key"] && other["effect"] == taint["effect"]) {
            return Err(invalid(format!("Taint {key} with effect {effect} is there more than once")));
        }
    }
    Ok(())
}
