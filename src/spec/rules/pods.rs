//! Rules for pods: capabilities, registries, seccomp, host paths.

use super::objection::{Objections, Verdict};
use crate::spec::control::Control;
use crate::spec::error::Code;
use crate::spec::settings::{ACCOUNT_ECR, IsolationModel, Pods};
use crate::spec::words::{list, quote};

/// Capabilities that no tenant may have (POD-2).
const NEVER: &[&str] = &["ALL", "NET_ADMIN", "SYS_ADMIN"];

/// Capabilities that a container may add under the baseline of the Pod Security Standards.
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

/// Registries in which anybody can publish images.
const OPEN_REGISTRIES: &[&str] = &["docker.io", "index.docker.io", "gcr.io", "ghcr.io", "public.ecr.aws", "quay.io"];

/// Paths of a node with other pods' secrets, the node's credentials, or control sockets. Reading is enough for an
/// attack, and a socket accepts commands even on a read-only mount.
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
            let message = format!("no tenant may have `{name}`: with it, a container controls the node");
            found.add(Verdict::Refused(Code::Forbidden), &[&at], message, "remove it; no waiver can allow it");
        } else if !BASELINE_CAPABILITIES.contains(&name) {
            let message = format!("the Pod Security Standards don't allow `{name}`");
            let help = format!("choose from {}", list(BASELINE_CAPABILITIES.iter().copied()));
            found.weakens(Control::PodCapabilities, &[&at], message, &help);
        } else if !tier.allowed_capabilities.contains(capability) {
            let message = format!("the tier doesn't allow `{name}`");
            let help = format!("the tier allows {}", list(tier.allowed_capabilities.iter().map(String::as_str)));
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
            let message = "images from any registry could run".to_owned();
            found.weakens(
                Control::Registries,
                &[&at],
                message,
                "name the registries; `account-ecr` is the account's own ECR",
            );
        } else if OPEN_REGISTRIES.contains(&registry.trim_end_matches('/')) {
            let message = format!("anybody can publish in {}", quote(registry));
            let help =
                format!("name the part of the registry that you trust: `{}/NAME`", registry.trim_end_matches('/'));
            found.weakens(Control::Registries, &[&at], message, &help);
        } else if !is_registry(registry) {
            let message = format!("{} is not a registry", quote(registry));
            let help = "write a host and a path, without scheme, tag and wildcards: `registry.example.com/acme`";
            found.refuse(&[&at], message, help);
        }
    }
}

/// `HOST[:PORT][/PATH]`. The host must have a dot, which distinguishes it from a repository's name.
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
                let message = "without seccomp, a container can use all system calls".to_owned();
                let help = "remove it; no waiver can allow it. If a workload needs more system calls, write a seccomp profile for it";
                found.add(Verdict::Refused(Code::Forbidden), &[&at], message, help);
            }
            "runtimedefault" | "runtime/default" => {
                found.refuse(&[&at], "RuntimeDefault is always allowed".to_owned(), "remove it");
            }
            _ if path.starts_with('/') || path.is_empty() || path.split('/').any(|p| matches!(p, "" | "." | "..")) => {
                let message = format!("{} is not a path below the kubelet's seccomp directory", quote(path));
                found.refuse(&[&at], message, "write a path such as `profiles/audit.json`");
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
            let message = format!("{} is not an absolute path", quote(path));
            found.refuse(&[&at], message, "write a path such as `/var/log/audit`, without `.` and `..`");
        } else if isolation == IsolationModel::Fargate {
            found.refuse(&[&at], "Fargate has no host paths".to_owned(), "remove it");
        } else if clean.is_empty() || NODE_PATHS.iter().any(|node| below(clean, node) || below(node, clean)) {
            let message = format!("{} gives access to the node's credentials or to other pods' secrets", quote(path));
            found.add(Verdict::Refused(Code::Forbidden), &[&at], message, "remove it; no waiver can allow it");
        } else {
            let message = format!("pods could read {} of the node", quote(path));
            found.weakens(Control::PodHostPath, &[&at], message, "use an emptyDir or a persistent volume");
        }
    }
}
