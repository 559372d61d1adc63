//! What a complete profile may not say, or only with a waiver. Pure functions of the profile:
//! where the value stands in a file is for [`super::checks`] to find.

use std::collections::BTreeMap;

use super::control::Control;
use super::error::Code;
use super::profile::uses;
use super::settings::{
    ACCOUNT_ECR, Addons, AmiFamily, Architecture, ImdsTokens, IsolationModel, KernelLockdown, LogType, Namespace,
    NetworkPolicyEngine, NetworkPolicyMode, Nodes, Pods, PolicyEngine, Profile, Quantity, Volume,
};
use super::words::{list, nearest, quote};
use crate::version;

/// Something that a profile says and shouldn't.
#[derive(Debug)]
pub struct Objection {
    pub verdict: Verdict,
    /// The settings that it is about, the likeliest mistake first.
    pub at: Vec<Vec<String>>,
    pub message: String,
    pub help: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Weakens a control: needs a waiver.
    Weakens(Control),
    /// No waiver helps.
    Refused(Code),
    /// Allowed, but worth knowing.
    Noted,
}

/// What confines a tenant in a namespace (QUOTA-1).
const QUOTA: &[&str] = &[
    "requests.cpu",
    "limits.cpu",
    "requests.memory",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "requests.storage",
    "persistentvolumeclaims",
    // These two fill the cluster's own database.
    "count/configmaps",
    "count/secrets",
    "services.loadbalancers",
    "services.nodeports",
];

/// A quota on limits turns pods without limits away, so the namespace needs defaults for these.
const LIMITED: &[&str] = &["cpu", "memory", "ephemeral-storage"];

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
            let help = "at least 1, better 2";
            found.refuse(&["systemNodes.desired"], "DNS and metrics have no node to run on".to_owned(), help);
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
            let message = "every pod would hold credentials for the Kubernetes API";
            found.weakens(Control::ApiAccess, &["pods.automountToken"], message.to_owned(), "`automountToken: false`");
        }
    }
    found.0
}

struct Objections(Vec<Objection>);

impl Objections {
    fn add<P: AsRef<str>>(&mut self, verdict: Verdict, at: &[P], message: String, help: &str) {
        let at = at.iter().map(|path| path.as_ref().split('.').map(str::to_owned).collect()).collect();
        self.0.push(Objection { verdict, at, message, help: help.to_owned() });
    }

    fn refuse<P: AsRef<str>>(&mut self, at: &[P], message: String, help: &str) {
        self.add(Verdict::Refused(Code::BadValue), at, message, help);
    }

    fn weakens<P: AsRef<str>>(&mut self, control: Control, at: &[P], message: String, help: &str) {
        self.add(Verdict::Weakens(control), at, message, help);
    }

    /// For keys that hold dots themselves.
    fn at_key(&mut self, verdict: Verdict, section: &[&str], key: &str, message: String, help: &str) {
        let path = section.iter().chain([&key]).map(|s| (*s).to_owned()).collect();
        self.0.push(Objection { verdict, at: vec![path], message, help: help.to_owned() });
    }
}

fn nodes(section: &str, nodes: &Nodes, found: &mut Objections) {
    let Nodes {
        ami_family: _,
        ami_id: _,
        release_version: _,
        fips: _,
        architecture: _,
        instance_types: _,
        capacity_type: _,
        min,
        max,
        desired,
        max_unavailable_percentage: _,
        node_repair: _,
        root_volume,
        data_volume,
        pod_pids_limit,
        kernel_lockdown,
    } = nodes;
    let at = |field: &str| format!("{section}.{field}");
    image(section, nodes, found);
    if *kernel_lockdown == KernelLockdown::None {
        let message = "without lockdown, root on a node can change its kernel".to_owned();
        found.weakens(Control::HostOs, &[&at("kernelLockdown")], message, "`kernelLockdown: integrity`");
    }
    instances(section, nodes, found);
    if min > max {
        let message = format!("at least {min} nodes and at most {max} can't both be");
        found.refuse(&[&at("min"), &at("max")], message, "`min` up to `max`");
    } else if desired < min || desired > max {
        let message = format!("{desired} nodes to begin with is not within {min} to {max}");
        found.refuse(
            &[&at("desired"), &at("min"), &at("max")],
            message,
            &format!("`desired: {}`", (*desired).clamp(*min, *max)),
        );
    }
    for (name, volume) in root_volume.iter().map(|v| ("rootVolume", v)).chain([("dataVolume", data_volume)]) {
        volume_limits(&at(name), volume, found);
    }
    if pod_pids_limit.is_none() {
        let message = "one pod could use up the node's processes".to_owned();
        found.weakens(Control::Quota, &[&at("podPidsLimit")], message, "`podPidsLimit: 1024`");
    }
}

/// Which image nodes start from.
fn image(section: &str, nodes: &Nodes, found: &mut Objections) {
    let Nodes { ami_family, ami_id, release_version, fips, .. } = nodes;
    let at = |field: &str| format!("{section}.{field}");
    if *ami_family == AmiFamily::Al2023 {
        let message = "Amazon Linux 2023 doesn't confine containers with SELinux".to_owned();
        let help = "`amiFamily: bottlerocket`, or `custom` with an image that enforces SELinux";
        found.weakens(Control::HostOs, &[&at("amiFamily")], message, help);
    }
    match (ami_family, ami_id) {
        (AmiFamily::Custom, None) => {
            let message = "a custom image needs its id".to_owned();
            found.refuse(&[&at("amiFamily")], message, "add `amiId: ami-…`");
        }
        (AmiFamily::Custom, Some(id)) if !is_ami(id) => {
            let message = format!("{} is no image id", quote(id));
            found.refuse(&[&at("amiId")], message, "`ami-` and 8 or 17 hexadecimal digits");
        }
        (AmiFamily::Bottlerocket | AmiFamily::Al2023, Some(_)) => {
            let message = "an image id is for the family `custom` only".to_owned();
            let help = "leave out `amiId`, or set `amiFamily: custom`";
            found.refuse(&[&at("amiId"), &at("amiFamily")], message, help);
        }
        _ => {}
    }
    if let Some(release) = release_version {
        let here = at("releaseVersion");
        match (ami_family, version::is_release(release)) {
            (AmiFamily::Custom, _) => {
                let message = "an image of your own has no release of AWS's".to_owned();
                found.refuse(
                    &[&here, &at("amiFamily")],
                    message,
                    "leave out `releaseVersion`; `amiId` says which it is",
                );
            }
            (_, false) => {
                let message = format!("{} is no image release", quote(release));
                found.refuse(
                    &[&here],
                    message,
                    "such as `1.66.0-2d3f4b6c` (Bottlerocket) or `1.36.3-20261110` (Amazon Linux 2023)",
                );
            }
            (AmiFamily::Bottlerocket, true) if !version::at_least(release, version::BOTTLEROCKET_FLOOR) => {
                let message =
                    format!("an image's labels can run commands on nodes with Bottlerocket {}", quote(release));
                found.weakens(Control::HostOs, &[&here], message, "1.62.1 or later");
            }
            _ => {}
        }
    }
    if *fips && *ami_family != AmiFamily::Bottlerocket {
        let message = "EKS has FIPS images of Bottlerocket only".to_owned();
        found.refuse(&[&at("fips"), &at("amiFamily")], message, "`amiFamily: bottlerocket`, or `fips: false`");
    }
}

/// Which types of instances nodes are.
fn instances(section: &str, nodes: &Nodes, found: &mut Objections) {
    let Nodes { architecture, instance_types, .. } = nodes;
    let at = |field: &str| format!("{section}.{field}");
    for (i, instance_type) in instance_types.iter().enumerate() {
        let here = format!("{}.{i}", at("instanceTypes"));
        let Some((family, size)) = instance_type.split_once('.').filter(|(f, s)| is_word(f) && is_word(s)) else {
            let message = format!("{} is no instance type", quote(instance_type));
            found.refuse(&[&here], message, "FAMILY.SIZE, such as `m7i.large`");
            continue;
        };
        if !is_size(size) {
            let message = format!("{} is no instance type: there is no size {}", quote(instance_type), quote(size));
            let near = nearest(size, SIZES.iter().copied());
            let help = near.map_or_else(
                || "FAMILY.SIZE, such as `m7i.large`".to_owned(),
                |near| format!("did you mean `{family}.{near}`?"),
            );
            found.refuse(&[&here], message, &help);
            continue;
        }
        let its = architecture_of(family);
        if its != *architecture {
            let (its, ours) = (name_of(its), name_of(*architecture));
            let message = format!("{} has {its} processors, and the architecture is {ours}", quote(instance_type));
            let like = if *architecture == Architecture::Arm64 { "m7g" } else { "m7i" };
            let help = format!("`architecture: {its}`, or a type such as `{like}.{size}`");
            found.refuse(&[&here, &at("architecture")], message, &help);
        }
        if instance_types.iter().take(i).any(|other| other == instance_type) {
            found.refuse(&[&here], format!("{} is given twice", quote(instance_type)), "keep one of the two");
        }
    }
}

/// EBS: 500 operations per second for each GiB, 0.25 MiB/s for each operation (gp3).
fn volume_limits(at: &str, volume: &Volume, found: &mut Objections) {
    let Volume { size_gib, volume_type: _, iops, throughput } = volume;
    let iops_here = iops.unwrap_or(3000);
    let most = size_gib.saturating_mul(500).max(3000);
    if iops_here > most {
        let message = format!("a volume of {size_gib} GiB has {most} operations per second at most");
        found.refuse(&[&format!("{at}.iops"), &format!("{at}.sizeGiB")], message, &format!("`iops: {most}`"));
    }
    if let Some(throughput) = throughput.filter(|t| *t > (iops_here / 4).max(125)) {
        let message = format!("{throughput} MiB/s takes {} operations per second", throughput.saturating_mul(4));
        let help = format!("`iops: {}`", throughput.saturating_mul(4));
        found.refuse(&[&format!("{at}.throughput"), &format!("{at}.iops")], message, &help);
    }
}

/// The sizes that families have, but for larger ones: `32xlarge`, `metal-24xl`.
const SIZES: [&str; 15] = [
    "nano", "micro", "small", "medium", "large", "xlarge", "2xlarge", "3xlarge", "4xlarge", "6xlarge", "8xlarge",
    "9xlarge", "12xlarge", "16xlarge", "metal",
];

/// Which sizes a family has is for EC2 to say; their names are the same for all.
fn is_size(size: &str) -> bool {
    let number = size.strip_suffix("xlarge").or_else(|| size.strip_prefix("metal-")?.strip_suffix("xl"));
    SIZES.contains(&size) || number.is_some_and(|n| n.parse::<u16>().is_ok())
}

/// The architecture of an EC2 instance family: a `g` after the generation's number is Graviton.
fn architecture_of(family: &str) -> Architecture {
    let attributes =
        family.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches(|c: char| c.is_ascii_digit());
    // High-memory types count terabytes (`u7i-12tb`); `a1` was the first Graviton.
    let graviton = attributes.split('-').next().is_some_and(|a| a.contains('g'));
    if graviton || family == "a1" { Architecture::Arm64 } else { Architecture::X86_64 }
}

fn name_of(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Arm64 => "arm64",
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_ami(id: &str) -> bool {
    id.strip_prefix("ami-").is_some_and(|hex| {
        matches!(hex.len(), 8 | 17) && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn imds(profile: &Profile, found: &mut Objections) {
    if profile.imds.tokens == ImdsTokens::Optional {
        let message = "IMDSv1 answers any request from a pod".to_owned();
        found.weakens(Control::Imds, &["imds.tokens"], message, "`tokens: required`");
    }
    if profile.imds.hop_limit > 1 {
        let message = format!("with {} hops, pods reach the node's credentials", profile.imds.hop_limit);
        found.weakens(Control::Imds, &["imds.hopLimit"], message, "`hopLimit: 1`");
    }
}

fn pinned(addons: &Addons, found: &mut Objections) {
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

fn cluster(profile: &Profile, found: &mut Objections) {
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

fn quota(namespace: &Namespace, found: &mut Objections) {
    let Namespace { quota, limits } = namespace;
    for key in QUOTA.iter().filter(|key| !quota.contains_key(**key)) {
        let message = format!("the quota sets no bound on `{key}`");
        let help = format!("add `{key}` to the quota");
        found.at_key(Verdict::Weakens(Control::Quota), &["namespace", "quota"], key, message, &help);
    }
    for (key, amount) in quota {
        let known = |c: char| c.is_ascii_alphanumeric() || "./-_".contains(c);
        if key.is_empty() || !key.chars().all(known) {
            let message = format!("{} is nothing that a quota can count", quote(key));
            let help = "such as `pods`, `limits.memory` or `count/secrets`";
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
                let message = format!("containers have no `{key}` in `limits.{name}`");
                let help = format!("add `{key}`");
                let section = ["namespace", "limits", name];
                found.at_key(Verdict::Weakens(Control::Quota), &section, key, message, &help);
            }
        }
    }
    ordered("defaultRequest", &limits.default_request, "default", &limits.default, found);
    ordered("default", &limits.default, "max", &limits.max, found);
}

/// Kubernetes refuses a LimitRange whose defaults are above its limits.
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
            let message = format!("`{low}` of {key} is {}, and `{high}` is {}", lesser.0, greater.0);
            let help = format!("`{low}` up to `{high}`");
            let path = |set: &str| ["namespace", "limits", set, key].map(str::to_owned).to_vec();
            let at = vec![path(low), path(high)];
            found.0.push(Objection { verdict: Verdict::Refused(Code::BadValue), at, message, help });
        }
    }
}

fn quantity(section: &[&str], key: &str, written: &Quantity, found: &mut Objections) {
    if amount(&written.0).is_none() {
        let message = format!("{} is no amount", quote(&written.0));
        let help = "a number, with a unit where needed: `500m`, `40`, `2Gi`";
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

/// What a service may be and what the quota counts must agree.
fn exposure(profile: &Profile, found: &mut Objections) {
    let exposure = &profile.exposure;
    let kinds = [
        ("loadBalancers", exposure.load_balancers, "services.loadbalancers"),
        ("nodePorts", exposure.node_ports, "services.nodeports"),
    ];
    for (field, allowed, key) in kinds {
        let Some(count) = profile.namespace.quota.get(key).and_then(|q| amount(&q.0)) else { continue };
        let (message, help) = match (allowed, count > 0) {
            (true, false) => {
                (format!("`{field}` are allowed, and the quota has none"), format!("raise `{key}` in the quota"))
            }
            (false, true) => {
                (format!("the quota has `{key}`, and `{field}` aren't allowed"), format!("`{key}: \"0\"` in the quota"))
            }
            _ => continue,
        };
        let in_quota = ["namespace", "quota", key].map(str::to_owned).to_vec();
        let in_exposure = ["exposure", field].map(str::to_owned).to_vec();
        let verdict = Verdict::Refused(Code::BadValue);
        found.0.push(Objection { verdict, at: vec![in_exposure, in_quota], message, help });
    }
}

fn capabilities(pods: &Pods, tier: &Pods, found: &mut Objections) {
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

fn registries(pods: &Pods, found: &mut Objections) {
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

fn seccomp(pods: &Pods, found: &mut Objections) {
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

fn host_paths(pods: &Pods, isolation: IsolationModel, found: &mut Objections) {
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
