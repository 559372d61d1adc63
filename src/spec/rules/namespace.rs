//! Rules for namespaces: quotas, limits, exposure.

use std::collections::BTreeMap;

use super::objection::{Objection, Objections, Verdict};
use crate::spec::control::Control;
use crate::spec::error::Code;
use crate::spec::settings::{Namespace, Profile, Quantity};
use crate::spec::words::quote;

/// The keys that a namespace's quota must hold (QUOTA-1).
const QUOTA: &[&str] = &[
    "requests.cpu",
    "limits.cpu",
    "requests.memory",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "requests.storage",
    "persistentvolumeclaims",
    // Without a quota, these two could fill etcd, which all tenants share.
    "count/configmaps",
    "count/secrets",
    "services.loadbalancers",
    "services.nodeports",
];

/// Kubernetes refuses pods without limits if the quota counts limits. So the namespace needs defaults for these.
const LIMITED: &[&str] = &["cpu", "memory", "ephemeral-storage"];

pub(super) fn quota(namespace: &Namespace, found: &mut Objections) {
    let Namespace { quota, limits } = namespace;
    for key in QUOTA.iter().filter(|key| !quota.contains_key(**key)) {
        let message = format!("the quota sets no limit for `{key}`");
        let help = format!("add `{key}` to the quota");
        found.at_key(Verdict::Weakens(Control::Quota), &["namespace", "quota"], key, message, &help);
    }
    for (key, amount) in quota {
        let known = |c: char| c.is_ascii_alphanumeric() || "./-_".contains(c);
        if key.is_empty() || !key.chars().all(known) {
            let message = format!("{} is not a resource that a quota can limit", quote(key));
            let help = "write a resource such as `pods`, `limits.memory` or `count/secrets`";
            found.at_key(Verdict::Refused(Code::BadValue), &["namespace", "quota"], key, message, help);
        }
        quantity(&["namespace", "quota"], key, amount, found);
    }
    let sets = [("default", &limits.default), ("defaultRequest", &limits.default_request), ("max", &limits.max)];
    for (name, set) in sets {
        for (key, amount) in set {
            quantity(&["namespace", "limits", name], key, amount, found);
        }
    }
    for key in LIMITED {
        for (name, set) in [("default", &limits.default), ("max", &limits.max)] {
            if !set.contains_key(*key) {
                let message = format!("`limits.{name}` has no value for `{key}`");
                let help = format!("add `{key}`");
                let section = ["namespace", "limits", name];
                found.at_key(Verdict::Weakens(Control::Quota), &section, key, message, &help);
            }
        }
    }
    ordered("defaultRequest", &limits.default_request, "default", &limits.default, found);
    ordered("default", &limits.default, "max", &limits.max, found);
}

/// Kubernetes refuses a LimitRange in which a default is above the limit.
fn ordered(
    low: &str,
    lows: &BTreeMap<String, Quantity>,
    high: &str,
    highs: &BTreeMap<String, Quantity>,
    found: &mut Objections,
) {
    for (key, lesser) in lows {
        let Some(greater) = highs.get(key) else { continue };
        let (Some(a), Some(b)) = (amount(&lesser.0), amount(&greater.0)) else { continue };
        if a > b {
            let message = format!("`{low}` of {key} is {}, but `{high}` is only {}", lesser.0, greater.0);
            let help = format!("set `{low}` to at most `{high}`");
            let path = |set: &str| ["namespace", "limits", set, key].map(str::to_owned).to_vec();
            let at = vec![path(low), path(high)];
            found.0.push(Objection { verdict: Verdict::Refused(Code::BadValue), at, message, help });
        }
    }
}

fn quantity(section: &[&str], key: &str, written: &Quantity, found: &mut Objections) {
    if amount(&written.0).is_none() {
        let message = format!("{} is not a Kubernetes quantity", quote(&written.0));
        let help = "write a number, with or without a unit, such as `500m`, `40` or `2Gi`";
        found.at_key(Verdict::Refused(Code::BadValue), section, key, message, help);
    }
}

/// A quantity in thousandths, rounded down. See [`super::settings::QUANTITY`].
fn amount(text: &str) -> Option<u128> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u128 = match text.get(digits.len()..)? {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000u128.pow(2),
        "G" => 1000 * 1000u128.pow(3),
        "T" => 1000 * 1000u128.pow(4),
        "P" => 1000 * 1000u128.pow(5),
        "E" => 1000 * 1000u128.pow(6),
        "Ki" => 1000 * 1024,
        "Mi" => 1000 * 1024u128.pow(2),
        "Gi" => 1000 * 1024u128.pow(3),
        "Ti" => 1000 * 1024u128.pow(4),
        "Pi" => 1000 * 1024u128.pow(5),
        "Ei" => 1000 * 1024u128.pow(6),
        _ => return None,
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |s: &str| !s.is_empty() && s.len() <= 15 && s.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let all = whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
    Some(all.checked_mul(unit)? / scale)
}

/// `exposure` and the quota must agree about the types of services.
pub(super) fn exposure(profile: &Profile, found: &mut Objections) {
    let exposure = &profile.exposure;
    let kinds = [
        ("loadBalancers", exposure.load_balancers, "services.loadbalancers"),
        ("nodePorts", exposure.node_ports, "services.nodeports"),
    ];
    for (field, allowed, key) in kinds {
        let Some(count) = profile.namespace.quota.get(key).and_then(|q| amount(&q.0)) else { continue };
        let (message, help) = match (allowed, count > 0) {
            (true, false) => (
                format!("`exposure.{field}` is true, but the quota allows none"),
                format!("set `{key}` in the quota to more than 0"),
            ),
            (false, true) => (
                format!("the quota allows `{key}`, but `exposure.{field}` is false"),
                format!("set `{key}: \"0\"` in the quota"),
            ),
            _ => continue,
        };
        let in_quota = ["namespace", "quota", key].map(str::to_owned).to_vec();
        let in_exposure = ["exposure", field].map(str::to_owned).to_vec();
        let verdict = Verdict::Refused(Code::BadValue);
        found.0.push(Objection { verdict, at: vec![in_exposure, in_quota], message, help });
    }
}
