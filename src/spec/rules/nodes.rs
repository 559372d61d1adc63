//! Rules for nodes: images, instance types, volumes.

use super::objection::Objections;
use crate::spec::control::Control;
use crate::spec::settings::{AmiFamily, Architecture, KernelLockdown, Nodes, Volume};
use crate::spec::words::{nearest, quote};
use crate::version;

pub(super) fn nodes(section: &str, nodes: &Nodes, found: &mut Objections) {
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
        let message = "without kernel lockdown, root on a node can change its kernel".to_owned();
        found.weakens(Control::HostOs, &[&at("kernelLockdown")], message, "set `kernelLockdown: integrity`");
    }
    instances(section, nodes, found);
    if min > max {
        let message = format!("`min` is {min}, but `max` is only {max}");
        found.refuse(&[&at("min"), &at("max")], message, "set `min` to at most `max`");
    } else if desired < min || desired > max {
        let message = format!("`desired` is {desired}, which is not between `min` ({min}) and `max` ({max})");
        found.refuse(
            &[&at("desired"), &at("min"), &at("max")],
            message,
            &format!("set `desired: {}`", (*desired).clamp(*min, *max)),
        );
    }
    for (name, volume) in root_volume.iter().map(|v| ("rootVolume", v)).chain([("dataVolume", data_volume)]) {
        volume_limits(&at(name), volume, found);
    }
    if pod_pids_limit.is_none() {
        let message = "without a limit, one pod can use up all process IDs of a node".to_owned();
        found.weakens(Control::Quota, &[&at("podPidsLimit")], message, "set `podPidsLimit: 1024`");
    }
}

/// Checks the nodes' image.
fn image(section: &str, nodes: &Nodes, found: &mut Objections) {
    let Nodes { ami_family, ami_id, release_version, fips, .. } = nodes;
    let at = |field: &str| format!("{section}.{field}");
    if *ami_family == AmiFamily::Al2023 {
        let message = "Amazon Linux 2023 doesn't confine containers with SELinux".to_owned();
        let help = "set `amiFamily: bottlerocket`, or `custom` with an image that enforces SELinux";
        found.weakens(Control::HostOs, &[&at("amiFamily")], message, help);
    }
    match (ami_family, ami_id) {
        (AmiFamily::Custom, None) => {
            let message = "the family `custom` needs the id of an image".to_owned();
            found.refuse(&[&at("amiFamily")], message, "add `amiId: ami-…`");
        }
        (AmiFamily::Custom, Some(id)) if !is_ami(id) => {
            let message = format!("{} is not an image id", quote(id));
            found.refuse(&[&at("amiId")], message, "an id is `ami-`, followed by 8 or 17 hexadecimal digits");
        }
        (AmiFamily::Bottlerocket | AmiFamily::Al2023, Some(_)) => {
            let message = "`amiId` is only for the family `custom`".to_owned();
            let help = "remove `amiId`, or set `amiFamily: custom`";
            found.refuse(&[&at("amiId"), &at("amiFamily")], message, help);
        }
        _ => {}
    }
    if let Some(release) = release_version {
        let here = at("releaseVersion");
        match (ami_family, version::is_release(release)) {
            (AmiFamily::Custom, _) => {
                let message = "a custom image has no release version of AWS".to_owned();
                found.refuse(
                    &[&here, &at("amiFamily")],
                    message,
                    "remove `releaseVersion`; `amiId` already names the image",
                );
            }
            (_, false) => {
                let message = format!("{} is not a release of an image", quote(release));
                found.refuse(
                    &[&here],
                    message,
                    "write a release such as `1.66.0-2d3f4b6c` (Bottlerocket) or `1.36.3-20261110` (Amazon Linux 2023)",
                );
            }
            (AmiFamily::Bottlerocket, true) if !version::at_least(release, version::BOTTLEROCKET_FLOOR) => {
                let message = format!(
                    "in Bottlerocket {}, the labels of a container image can run commands on the node",
                    quote(release)
                );
                found.weakens(Control::HostOs, &[&here], message, "use 1.62.1 or later");
            }
            _ => {}
        }
    }
    if *fips && *ami_family != AmiFamily::Bottlerocket {
        let message = "EKS offers FIPS images only for Bottlerocket".to_owned();
        found.refuse(&[&at("fips"), &at("amiFamily")], message, "set `amiFamily: bottlerocket`, or `fips: false`");
    }
}

/// Checks the nodes' instance types.
fn instances(section: &str, nodes: &Nodes, found: &mut Objections) {
    let Nodes { architecture, instance_types, .. } = nodes;
    let at = |field: &str| format!("{section}.{field}");
    for (i, instance_type) in instance_types.iter().enumerate() {
        let here = format!("{}.{i}", at("instanceTypes"));
        let Some((family, size)) = instance_type.split_once('.').filter(|(f, s)| is_word(f) && is_word(s)) else {
            let message = format!("{} is not an instance type", quote(instance_type));
            found.refuse(&[&here], message, "write FAMILY.SIZE, such as `m7i.large`");
            continue;
        };
        if !is_size(size) {
            let message = format!("{} is not an instance type: there is no size {}", quote(instance_type), quote(size));
            let near = nearest(size, SIZES.iter().copied());
            let help = near.map_or_else(
                || "write FAMILY.SIZE, such as `m7i.large`".to_owned(),
                |near| format!("did you mean `{family}.{near}`?"),
            );
            found.refuse(&[&here], message, &help);
            continue;
        }
        let its = architecture_of(family);
        if its != *architecture {
            let (its, ours) = (name_of(its), name_of(*architecture));
            let message = format!("{} has {its} processors, but `architecture` is {ours}", quote(instance_type));
            let like = if *architecture == Architecture::Arm64 { "m7g" } else { "m7i" };
            let help = format!("set `architecture: {its}`, or choose a type such as `{like}.{size}`");
            found.refuse(&[&here, &at("architecture")], message, &help);
        }
        if instance_types.iter().take(i).any(|other| other == instance_type) {
            found.refuse(&[&here], format!("{} is given twice", quote(instance_type)), "keep one of the two");
        }
    }
}

/// The limits of EBS for gp3: at most 500 IOPS for each GiB, and at most 0.25 MiB/s for each of the IOPS.
fn volume_limits(at: &str, volume: &Volume, found: &mut Objections) {
    let Volume { size_gib, volume_type: _, iops, throughput } = volume;
    let iops_here = iops.unwrap_or(3000);
    let most = size_gib.saturating_mul(500).max(3000);
    if iops_here > most {
        let message = format!("a volume of {size_gib} GiB can have at most {most} IOPS");
        found.refuse(
            &[&format!("{at}.iops"), &format!("{at}.sizeGiB")],
            message,
            &format!("set `iops: {most}` or less"),
        );
    }
    if let Some(throughput) = throughput.filter(|t| *t > (iops_here / 4).max(125)) {
        let message = format!("a throughput of {throughput} MiB/s needs {} IOPS", throughput.saturating_mul(4));
        let help = format!("set `iops: {}`", throughput.saturating_mul(4));
        found.refuse(&[&format!("{at}.throughput"), &format!("{at}.iops")], message, &help);
    }
}

/// The usual sizes of instances, without larger ones such as `32xlarge` and `metal-24xl`.
const SIZES: [&str; 15] = [
    "nano", "micro", "small", "medium", "large", "xlarge", "2xlarge", "3xlarge", "4xlarge", "6xlarge", "8xlarge",
    "9xlarge", "12xlarge", "16xlarge", "metal",
];

/// True for the name of a size. Only EC2 knows which sizes a family has, but their names are the same for all families.
fn is_size(size: &str) -> bool {
    let number = size.strip_suffix("xlarge").or_else(|| size.strip_prefix("metal-")?.strip_suffix("xl"));
    SIZES.contains(&size) || number.is_some_and(|n| n.parse::<u16>().is_ok())
}

/// The architecture of an EC2 instance family. A `g` after the generation's number means Graviton.
fn architecture_of(family: &str) -> Architecture {
    let attributes =
        family.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches(|c: char| c.is_ascii_digit());
    // High-memory types hold a number of terabytes (`u7i-12tb`). `a1` was the first Graviton family.
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
