//! Rules for pods: capabilities, registries, seccomp, host paths.

use super::objection::{Objections, Verdict};
use crate::spec::control::Control;
use crate::spec::error::Code;
use crate::spec::settings::{ACCOUNT_ECR, IsolationModel, Pods};
use crate::spec::words::{list, quote};

/// Never, for any tenant (POD-2; the guide, "Drop unneeded capabilities").
const NEVER: &[&str] = &["ALL", "NET_ADMIN", "SYS_ADMIN"];

/// What the Pod Security Standards' baseline lets a container add.
pub const BASELINE_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Registries where anybody can publish.
const OPEN_REGISTRIES: &[&str] = &["docker.io", "index.docker.io", "gcr.io", "ghcr.io", "public.ecr.aws", "quay.io"];

/// Even read-only, these hold other pods' secrets, the node's credentials, or sockets that obey.
const NODE_PATHS: &[&str] = &[
    "/.bottlerocket",
    "/boot",
    "/dev",
    "/etc/cni",
    "/etc/kubernetes",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "/var/run",
];

pub(super) fn capabilities(pods: &Pods, tier: &Pods, found: &mut Objections) {
    for (i, capability) in pods.allowed_capabilities.iter().enumerate() {
        let at = format!("pods.allowedCapabilities.{i}");
        let name = capability.as_str();
        if NEVER.contains(&name) {
            let message = format!("no tenant ever gets `{name}`: it is as good as root on the node");
            found.add(Verdict::Refused(Code::Forbidden), &[&at], message, "leave it out; no waiver helps");
        } else if !BASELINE_CAPABILITIES.contains(&name) {
            let message = format!("`{name}` is beyond what the Pod Security Standards allow");
            let help = format!("any of {}", list(BASELINE_CAPABILITIES.iter().copied()));
            found.weakens(Control::PodCapabilities, &[&at], message, &help);
        } else if !tier.allowed_capabilities.contains(capability) {
            let message = format!("the tier doesn't have `{name}`");
            let help = format!("the tier has {}", list(tier.allowed_capabilities.iter().map(String::as_str)));
            found.weakens(Control::PodCapabilities, &[&at], message, &help);
        }
    }
}

pub(super) fn registries(pods: &Pods, found: &mut Objections) {
    for (i, registry) in pods.allowed_registries.iter().enumerate() {
        let at = format!("pods.allowedRegistries.{i}");
        if registry == ACCOUNT_ECR {
            continue;
        }
        if registry == "*" {
            let message = "images from anywhere would run".to_owned();
            found.weakens(Control::Registries, &[&at], message, "name the registries; `account-ecr` is your own");
        } else if OPEN_REGISTRIES.contains(&registry.trim_end_matches('/')) {
            let message = format!("anybody can publish in {}", quote(registry));
            let help = format!("name what you trust in it: `{}/NAME`", registry.trim_end_matches('/'));
            found.weakens(Control::Registries, &[&at], message, &help);
        } else if !is_registry(registry) {
            let message = format!("{} is no registry", quote(registry));
            let help = "a host and a path, without scheme, tag and wildcards: `registry.example.com/acme`";
            found.refuse(&[&at], message, help);
        }
    }
}

/// `HOST[:PORT][/PATH]`; the host has a dot, or nothing would tell it from a repository.
fn is_registry(text: &str) -> bool {
    let text = text.strip_suffix('/').unwrap_or(text);
    let mut parts = text.split('/');
    let host = parts.next().unwrap_or_default();
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let label = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let component = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    name.contains('.') && name.split('.').all(label) && port.parse::<u16>().is_ok() && parts.all(component)
}

pub(super) fn seccomp(pods: &Pods, found: &mut Objections) {
    for (i, path) in pods.seccomp_profiles.iter().enumerate() {
        let at = format!("pods.seccompProfiles.{i}");
        match path.to_lowercase().as_str() {
            "unconfined" => {
                let message = "a container without seccomp has all system calls".to_owned();
                let help = "leave it out; no waiver helps. A profile of your own allows what is needed";
                found.add(Verdict::Refused(Code::Forbidden), &[&at], message, help);
            }
            "runtimedefault" | "runtime/default" => {
                found.refuse(&[&at], "RuntimeDefault is always allowed".to_owned(), "leave it out");
            }
            _ if path.starts_with('/') || path.is_empty() || path.split('/').any(|p| matches!(p, "" | "." | "..")) => {
                let message = format!("{} is no path below the kubelet's seccomp directory", quote(path));
                found.refuse(&[&at], message, "such as `profiles/audit.json`");
            }
            _ => {}
        }
    }
}

pub(super) fn host_paths(pods: &Pods, isolation: IsolationModel, found: &mut Objections) {
    for (i, path) in pods.host_paths.iter().enumerate() {
        let at = format!("pods.hostPaths.{i}");
        let clean = path.strip_suffix('/').unwrap_or(path);
        let below = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        if !path.starts_with('/') || clean.split('/').skip(1).any(|p| matches!(p, "" | "." | "..")) {
            let message = format!("{} is no absolute path", quote(path));
            found.refuse(&[&at], message, "such as `/var/log/audit`, without `.` and `..`");
        } else if isolation == IsolationModel::Fargate {
            found.refuse(&[&at], "Fargate has no host paths".to_owned(), "leave it out");
        } else if clean.is_empty() || NODE_PATHS.iter().any(|node| below(clean, node) || below(node, clean)) {
            let message = format!("{} holds the node's own credentials, or other pods' secrets", quote(path));
            found.add(Verdict::Refused(Code::Forbidden), &[&at], message, "leave it out; no waiver helps");
        } else {
            let message = format!("pods could read {} of the node", quote(path));
            found.weakens(Control::PodHostPath, &[&at], message, "an emptyDir or a persistent volume");
        }
    }
}
