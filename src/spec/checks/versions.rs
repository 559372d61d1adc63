//! Kubernetes versions: whether EKS offers them, and until when.

use jiff::ToSpan;

use super::{Checker, Member};
use crate::spec::catalog::{KUBERNETES, Release};
use crate::spec::error::Code;
use crate::spec::tree::Node;
use crate::spec::words::{list, quote};
use crate::version::KubernetesVersion;

/// A version whose support ends within these days counts as ended, because an upgrade of a cluster takes time.
const LAST_DAYS: i64 = 7;
/// The end of standard support within these days is a warning.
const SOON_DAYS: i64 = 30;

impl<'a> Checker<'a, '_> {
    /// Syntax and support of a Kubernetes version.
    pub(super) fn version(&mut self, node: &Node, path: &str) {
        let Some(text) = node.text() else { return };
        let Some(version) = KubernetesVersion::parse(text) else {
            let message = format!("{} is not a Kubernetes version", quote(text));
            self.error(Code::BadValue, path, &node.mark, message, "write the minor version, in quotes: \"1.36\"");
            return;
        };
        let last = self.today.saturating_add(LAST_DAYS.days());
        let alive = |r: &&Release| r.extended_until.is_none_or(|end| end > last);
        let supported: Vec<String> = KUBERNETES.iter().filter(alive).map(|r| format!("1.{}", r.minor)).collect();
        let help = format!("choose one of {}", list(supported.iter().map(String::as_str)));
        let message = match release(version) {
            None if version.major == 1 && KUBERNETES.first().is_some_and(|first| version.minor < first.minor) => {
                format!("EKS no longer offers Kubernetes {version}")
            }
            None => format!("this version of ringfence doesn't know Kubernetes {version} on EKS"),
            Some(Release { extended_until: Some(end), .. }) if *end < self.today => {
                format!("EKS ended its support of Kubernetes {version} on {end}")
            }
            Some(Release { extended_until: Some(end), .. }) if *end <= last => {
                format!("EKS ends its support of Kubernetes {version} on {end}, in less than {} days", LAST_DAYS + 1)
            }
            Some(_) => return,
        };
        self.error(Code::UnsupportedVersion, path, &node.mark, message, help);
    }

    /// Warns of the end of standard support, for clusters without extended support.
    pub(super) fn support(&mut self, cluster: &Member<'a>) {
        let settings = cluster.said.settings.as_ref();
        if settings.and_then(|s| s.at(&["cluster", "upgradePolicy"])).and_then(Node::text) != Some("standard") {
            return;
        }
        let Some((node, path)) = self.effective(cluster, &["kubernetesVersion"]) else { return };
        let Some(version) = node.text().and_then(KubernetesVersion::parse) else { return };
        let Some(end) = release(version).and_then(|r| r.standard_until) else { return };
        if end > self.today.saturating_add(SOON_DAYS.days()) {
            return;
        }
        let verb = if end < self.today { "ended" } else { "ends" };
        let message = format!(
            "standard support of Kubernetes {version} {verb} on {end}: after that, EKS upgrades the cluster by itself"
        );
        let place = cluster.said.place_of(node, path);
        let help = "choose a later version, or a profile with `cluster.upgradePolicy: extended`";
        self.findings.warn(place.error(Code::UnsupportedVersion, message).help(help));
    }
}

fn release(version: KubernetesVersion) -> Option<&'static Release> {
    KUBERNETES.iter().find(|r| version.major == 1 && r.minor == version.minor)
}
