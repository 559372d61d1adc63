//! Versions of Kubernetes, of EKS add-ons and of node images.

use std::cmp::Ordering;
use std::fmt;

/// The oldest versions of add-ons that are safe for tenants, by add-on.
/// vpc-cni: in older versions, network policies of one namespace can be bypassed from
/// another (aws-network-policy-agent, commits bc504a4 and d145d20).
pub const FLOORS: &[(&str, &str)] = &[("vpc-cni", "v1.22.4")];

/// The oldest Bottlerocket that is safe for tenants: in older releases, an image's
/// labels can run commands on the node (CVE-2026-53488).
pub const BOTTLEROCKET_FLOOR: &str = "1.62.1";

/// A Kubernetes minor version. Written `"1.36"`, in quotes: YAML reads `1.30` as the number 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    pub major: u16,
    pub minor: u16,
}

impl KubernetesVersion {
    /// Accepts only `MAJOR.MINOR`, without leading zeros.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let number = |s: &str| {
            let plain = s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'));
            plain.then(|| s.parse().ok()).flatten()
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl serde::Serialize for KubernetesVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The oldest version of an add-on that is safe for tenants.
pub fn floor(addon: &str) -> Option<&'static str> {
    FLOORS.iter().find(|(name, _)| *name == addon).map(|(_, floor)| *floor)
}

/// `vMAJOR.MINOR.PATCH-eksbuild.N`.
pub fn is_addon(text: &str) -> bool {
    let version = text.strip_prefix('v').and_then(|version| version.split_once("-eksbuild."));
    version.is_some_and(|(version, build)| is_triple(version) && build.parse::<u32>().is_ok())
}

/// `MAJOR.MINOR.PATCH-BUILD`, where the build is a commit (Bottlerocket) or a
/// day (Amazon Linux).
pub fn is_release(text: &str) -> bool {
    text.split_once('-').is_some_and(|(version, build)| {
        let hex = build.len() == 8 && build.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_triple(version) && hex
    })
}

fn is_triple(version: &str) -> bool {
    version.split('.').count() == 3 && version.split('.').all(|number| number.parse::<u32>().is_ok())
}

/// True if `version` is `floor` or later. Only the numbers count: a floor
/// without a build is met by every build of it, and a missing number is 0.
pub fn at_least(version: &str, floor: &str) -> bool {
    compare(version, floor) != Ordering::Less
}

/// The order of versions such as `v1.22.4-eksbuild.1`.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (numbers(a), numbers(b));
    let length = a.len().max(b.len());
    a.resize(length, 0);
    b.resize(length, 0);
    a.cmp(&b)
}

/// The order of an image's releases: `1.66.0-2d3f4b6c`, where a commit follows
/// (Bottlerocket), or `1.36.3-20261110`, where a day does (Amazon Linux).
pub fn compare_releases(a: &str, b: &str) -> Ordering {
    let parts = |release: &str| {
        let (number, build) = release.split_once('-').unwrap_or((release, ""));
        let day = build.parse::<u32>().ok().filter(|_| build.len() == 8);
        (numbers(number), day)
    };
    let ((a, on), (b, at)) = (parts(a), parts(b));
    a.cmp(&b).then(if on.is_some() && at.is_some() { on.cmp(&at) } else { Ordering::Equal })
}

/// True if an image's release is safe for tenants.
pub fn is_safe_release(ami_type: &str, release: &str) -> bool {
    !ami_type.starts_with("BOTTLEROCKET") || compare_releases(release, BOTTLEROCKET_FLOOR) != Ordering::Less
}

fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().unwrap_or(u64::MAX))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number_and_day_and_not_by_commit() {
        let order = |a, b| compare_releases(a, b);
        assert_eq!(order("1.66.0-2d3f4b6c", "1.61.0-5ce1a8b6"), Ordering::Greater);
        assert_eq!(order("1.100.0-2d3f4b6c", "1.66.0-5ce1a8b6"), Ordering::Greater);
        assert_eq!(order("1.66.0-2d3f4b6c", "1.66.0-9aaaaaaa"), Ordering::Equal);
        assert_eq!(order("1.36.3-20261110", "1.36.3-20261024"), Ordering::Greater);
        assert_eq!(order("1.36.2-20261110", "1.36.3-20261024"), Ordering::Less);
        assert!(is_safe_release("BOTTLEROCKET_x86_64", "1.62.1-e1d1c9a5"));
        assert!(!is_safe_release("BOTTLEROCKET_ARM_64_FIPS", "1.62.0-e1d1c9a5"));
        assert!(is_safe_release("AL2023_x86_64_STANDARD", "1.32.1-20250101"));
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(at_least("v1.22.4-eksbuild.1", "v1.22.4"));
        assert!(at_least("v1.22.4", "v1.22.4"));
        assert!(at_least("v1.100.0-eksbuild.1", "v1.22.4"));
        assert!(at_least("v2", "v1.22.4"));
        assert!(!at_least("v1.22.3-eksbuild.9", "v1.22.4"));
        assert!(!at_least("v1.9.4", "v1.22.4"));
        assert!(!at_least("", "v1.22.4"));
        assert_eq!(compare("1.36", "1.9"), Ordering::Greater);
        assert_eq!(compare("v1.2.3-eksbuild.10", "v1.2.3-eksbuild.9"), Ordering::Greater);
    }

    #[test]
    fn forms() {
        assert!(is_addon("v1.23.1-eksbuild.1"));
        for wrong in ["1.23.1-eksbuild.1", "v1.23-eksbuild.1", "v1.23.1", "v1.23.1-eksbuild.x", "v1.23.1.4-eksbuild.1"]
        {
            assert!(!is_addon(wrong), "{wrong}");
        }
        assert!(is_release("1.66.0-2d3f4b6c") && is_release("1.36.3-20261110"));
        for wrong in ["1.66.0", "1.66-2d3f4b6c", "1.66.0-2D3F4B6C", "v1.66.0-2d3f4b6c", "1.66.0-2d3f"] {
            assert!(!is_release(wrong), "{wrong}");
        }
    }
}
