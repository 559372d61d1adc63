//! The image of a node group's nodes, and the launch template that may choose it.

use super::super::super::ec2::LaunchTemplate;
use super::super::super::ec2::types::{self, InstanceType};
use super::super::super::wire::{Fault, Request, items, texts};
use super::super::cluster::check_groups;
use super::super::versions::{self, IMAGES};
use super::super::{World, invalid};
use super::refused;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

const AMI_TYPES: &str = "AL2_x86_64 AL2_x86_64_GPU AL2_ARM_64 CUSTOM BOTTLEROCKET_ARM_64 BOTTLEROCKET_x86_64 BOTTLEROCKET_ARM_64_FIPS \
     BOTTLEROCKET_x86_64_FIPS BOTTLEROCKET_ARM_64_NVIDIA BOTTLEROCKET_x86_64_NVIDIA BOTTLEROCKET_ARM_64_NVIDIA_FIPS \
     BOTTLEROCKET_x86_64_NVIDIA_FIPS WINDOWS_CORE_2019_x86_64 WINDOWS_FULL_2019_x86_64 WINDOWS_CORE_2022_x86_64 \
     WINDOWS_FULL_2022_x86_64 WINDOWS_CORE_2025_x86_64 WINDOWS_FULL_2025_x86_64 AL2023_x86_64_STANDARD \
     AL2023_ARM_64_STANDARD AL2023_x86_64_NEURON AL2023_x86_64_NVIDIA AL2023_ARM_64_NVIDIA";

/// Launch template members that a managed node group refuses, with AWS's error texts.
const PROHIBITED: &[(&str, &str)] = &[
    (
        "iamInstanceProfile",
        "an instance profile. The noderole in your request will be used to construct an instance profile",
    ),
    ("instanceInitiatedShutdownBehavior", "an instance initiated shutdown behavior"),
    ("hibernationOptions", "hibernation options"),
    ("instanceMarketOptions", "instance market options"),
];

/// The image and the instance types of a node group.
pub(super) struct Image {
    pub ami_type: String,
    pub version: String,
    pub release: String,
    pub instance_types: Option<Vec<String>>,
    /// Instance types of the node group, or else of its launch template.
    pub launched: Vec<String>,
}

impl Image {
    pub fn choose(req: &Request, template: Option<&LaunchTemplate>, cluster_version: &str) -> Result<Self, Fault> {
        let data = template.map_or(&Value::Null, |template| &template.data);
        let asked = req.text("amiType");
        if template.is_some() && req.params.get("diskSize").is_some() {
            return Err(refused("Disk size must be specified within the launch template."));
        }
        if template.is_some() && req.params.get("remoteAccess").is_some() {
            return Err(refused("Remote access configuration cannot be specified with a launch template."));
        }
        let mut types = req.texts("instanceTypes");
        let in_template = data["instanceType"].as_str();
        if in_template.is_some() && !types.is_empty() {
            return Err(refused("Cannot specify instance types in launch template and API request"));
        }
        let all: Vec<String> = types.iter().cloned().chain(in_template.map(str::to_owned)).collect();
        types::unknown(&all, &req.region).map_or(Ok(()), |message| Err(invalid(message)))?;
        if let Some(image) = data["imageId"].as_str() {
            if asked.as_deref().is_some_and(|asked| asked != "CUSTOM") {
                let message = "You cannot specify an AMI Type other than CUSTOM, when specifying an image id in your launch template.";
                return Err(invalid(message));
            }
            if req.text("version").is_some() {
                return Err(invalid(
                    "You cannot specify a kubernetes version to use when specifying an image id to use within the launch template.",
                ));
            }
            if req.text("releaseVersion").is_some() {
                return Err(invalid(
                    "You cannot specify a release version when specifying an image id within the launch template.",
                ));
            }
            let instance_types = (!types.is_empty()).then_some(types);
            let (version, release) = (cluster_version.to_owned(), image.to_owned());
            return Ok(Self { ami_type: "CUSTOM".to_owned(), version, release, instance_types, launched: all });
        }
        let known = || all.iter().filter_map(|name| InstanceType::named(name));
        let all_arm = !all.is_empty() && known().all(|one| one.architecture() == "arm64");
        let default = if all_arm { "AL2023_ARM_64_STANDARD" } else { "AL2023_x86_64_STANDARD" };
        let ami_type = asked.unwrap_or_else(|| default.to_owned());
        if !AMI_TYPES.split(' ').any(|known| known == ami_type) || ami_type == "CUSTOM" {
            return Err(invalid(format!("The AMI type {ami_type} is not valid for this node group")));
        }
        let wants_arm = ami_type.contains("ARM_64");
        let wrong: Vec<String> = known().filter(|one| !fits(one, &ami_type)).map(|one| one.name()).collect();
        if !wrong.is_empty() {
            let message =
                format!("[{}] is not a valid instance type for requested amiType {ami_type}", wrong.join(", "));
            return Err(invalid(message));
        }
        check_user_data(data["userData"].as_str(), &ami_type)?;
        if types.is_empty() && in_template.is_none() {
            types.push(if wants_arm { "t4g.medium" } else { "t3.medium" }.to_owned());
        }
        let version = req.text("version").unwrap_or_else(|| cluster_version.to_owned());
        if version != cluster_version {
            return Err(invalid(format!(
                "Nodegroup Kubernetes version should be equal to Cluster kubernetes version {cluster_version}"
            )));
        }
        let release = release(&ami_type, &version, req.text("releaseVersion"))?;
        let launched = if in_template.is_some() { all } else { types.clone() };
        Ok(Self { ami_type, version, release, instance_types: (!types.is_empty()).then_some(types), launched })
    }
}

/// The requested release, which must exist for this AMI type and version. Without a request, the newest release.
pub(super) fn release(ami_type: &str, version: &str, asked: Option<String>) -> Result<String, Fault> {
    if ami_type.starts_with("AL2_") {
        return Err(invalid(format!("There is no image of AMI type {ami_type} for Kubernetes {version}")));
    }
    let known: Vec<String> = if ami_type.starts_with("BOTTLEROCKET_") {
        IMAGES.iter().map(|image| (*image).to_owned()).collect()
    } else {
        vec![versions::al2023(version)]
    };
    let newest = known.last().cloned().unwrap_or_default();
    let asked = asked.unwrap_or(newest);
    if known.contains(&asked) {
        return Ok(asked);
    }
    Err(invalid(format!("Requested release version {asked} is not valid for kubernetes version {version}.")))
}

/// The launch template, checked for use by a managed node group.
pub(super) fn template(w: &World<'_>, given: &Value, vpc: &str) -> Result<LaunchTemplate, Fault> {
    let (id, name) = (given["id"].as_str(), given["name"].as_str());
    let which = match (id, name) {
        // DescribeNodegroup returns both id and name.
        (Some(id), _) => id,
        (None, Some(name)) => name,
        (None, None) => return Err(invalid("launchTemplate must have an id or a name")),
    };
    let version = given["version"].as_str().unwrap_or_default();
    let found = w.here.ec2.launch_template(which, version);
    let found = found.filter(|found| name.is_none_or(|name| name == found.name));
    let found = found.ok_or_else(|| {
        let version = if version.is_empty() { String::new() } else { format!(" version {version}") };
        refused(format!("You must use a valid fully-formed launch template: {which}{version} does not exist"))
    })?;
    let data = &found.data;
    for (member, words) in PROHIBITED {
        if !data[*member].is_null() {
            return Err(refused(format!("Launch template {} should not specify {words}.", found.id)));
        }
    }
    let interfaces = items(data, "networkInterfaceSet");
    if interfaces.iter().any(|interface| !interface["subnetId"].is_null()) {
        return Err(refused(format!("Launch template {} should not specify a subnet.", found.id)));
    }
    let of_interfaces: Vec<String> = interfaces.iter().flat_map(|one| texts(one, "groupSet")).collect();
    let groups = texts(data, "securityGroupIdSet");
    if !groups.is_empty() && !of_interfaces.is_empty() {
        let message = format!(
            "Launch template {} should not specify security groups both by itself and in network interfaces.",
            found.id
        );
        return Err(refused(message));
    }
    check_groups(w, &groups, vpc)?;
    check_groups(w, &of_interfaces, vpc)?;
    Ok(found)
}

/// User data that EKS merges with its own: TOML for Bottlerocket, MIME multipart for Amazon Linux.
fn check_user_data(user_data: Option<&str>, ami_type: &str) -> Result<(), Fault> {
    let Some(encoded) = user_data else { return Ok(()) };
    let bytes = STANDARD.decode(encoded.trim()).unwrap_or_default();
    let text = String::from_utf8(bytes).map_err(|_| refused("User data is not text."))?;
    if ami_type.starts_with("BOTTLEROCKET_") {
        if let Err(why) = toml::from_str::<toml::Table>(&text) {
            let message = format!(
                "Ec2LaunchTemplateInvalidConfiguration: User data was not in the TOML format: {}",
                why.message()
            );
            return Err(refused(message));
        }
        // Settings that EKS can't merge with its own (user guide, "Customize managed nodes with launch templates").
        if text.contains("\\\"")
            || text.lines().any(|line| line.trim_start().starts_with('[') && line.contains(['"', '\'']))
        {
            return Err(refused(
                "Ec2LaunchTemplateInvalidConfiguration: User data has quoted keys in a header, or escaped quotes.",
            ));
        }
    } else if ami_type.starts_with("AL2") && !text.to_ascii_lowercase().contains("content-type: multipart/mixed") {
        return Err(refused("Ec2LaunchTemplateInvalidConfiguration: User data was not in the MIME multipart format."));
    }
    Ok(())
}

/// Whether an image runs on an instance type. EKS refuses another architecture. That EKS also refuses devices without a
/// driver is inferred: the user guide's "Choose an optimal Amazon EC2 node instance type" says that such images don't
/// support them. Bottlerocket's variants for Kubernetes load the Neuron driver (Bottlerocket's release notes).
fn fits(one: &InstanceType, ami_type: &str) -> bool {
    let architecture = if ami_type.contains("ARM_64") { "arm64" } else { "x86_64" };
    let gpu = ami_type.contains("NVIDIA") || ami_type.contains("GPU");
    let neuron = ami_type.contains("NEURON") || ami_type.starts_with("BOTTLEROCKET_");
    one.architecture() == architecture && (!one.has_gpu() || gpu) && (!one.has_neuron() || neuron)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_run_on_what_they_are_made_for() {
        let fits = |name: &str, ami_type: &str| InstanceType::named(name).is_some_and(|one| fits(&one, ami_type));
        for (name, ami_type) in [
            ("m6g.large", "AL2023_ARM_64_STANDARD"),
            ("m7i.large", "BOTTLEROCKET_x86_64_FIPS"),
            ("g6.xlarge", "BOTTLEROCKET_x86_64_NVIDIA"),
            ("inf2.xlarge", "BOTTLEROCKET_x86_64"),
            ("trn1.2xlarge", "AL2023_x86_64_NEURON"),
        ] {
            assert!(fits(name, ami_type), "{name} {ami_type}");
        }
        for (name, ami_type) in [
            ("m6g.large", "AL2023_x86_64_STANDARD"),
            ("a1.large", "BOTTLEROCKET_x86_64"),
            ("m7i.large", "BOTTLEROCKET_ARM_64"),
            ("g6.xlarge", "BOTTLEROCKET_x86_64"),
            ("g5g.xlarge", "BOTTLEROCKET_ARM_64"),
            ("inf2.xlarge", "AL2023_x86_64_STANDARD"),
            ("mac2.metal", "BOTTLEROCKET_ARM_64"),
        ] {
            assert!(!fits(name, ami_type), "{name} {ami_type}");
        }
    }
}
