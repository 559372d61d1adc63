//! The Kubernetes versions, add-on versions, node images and zones that AWS offers. The code reads them from AWS
//! and has no tables of them.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::Filter;
use aws_sdk_eks::types::{UpdateParam, UpdateParamType, UpdateStatus, UpdateType};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::Result;
use crate::version::compare;

/// The maximum number of parameters in one call (Systems Manager API, GetParameters).
const PARAMETERS: usize = 10;

/// A zone in which EKS can run a control plane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Zone {
    /// Such as `us-east-1a`. The physical zone differs between accounts.
    pub name: String,
    /// Such as `use1-az1`. The physical zone is the same in all accounts.
    pub id: String,
}

/// Zones in which EKS accepts no control-plane subnets (EKS User Guide, "VPC and subnet requirements").
const UNSUPPORTED_ZONES: [&str; 3] = ["use1-az3", "usw1-az2", "cac1-az3"];

/// The zones with Fargate, by the prefix of their ids, for regions in which only some zones have it ("Supported
/// Regions for Amazon ECS on AWS Fargate"; EKS has no such list, but names the same zones for Tokyo).
const FARGATE_ZONES: [(&str, &[&str]); 3] = [
    ("apne1-", &["apne1-az1", "apne1-az2", "apne1-az4"]),
    ("cnn1-", &["cnn1-az1", "cnn1-az2"]),
    ("usw1-", &["usw1-az1", "usw1-az3"]),
];

/// True if Fargate runs in the zone with this id.
pub fn has_fargate(zone_id: &str) -> bool {
    let known = FARGATE_ZONES.iter().find(|(region, _)| zone_id.starts_with(region));
    known.is_none_or(|(_, zones)| zones.contains(&zone_id))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddonVersion {
    /// Such as `v1.22.4-eksbuild.1`.
    pub version: String,
    /// True for the version that EKS installs by default.
    pub default: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterVersion {
    /// Such as `1.36`.
    pub version: String,
    /// True for the version that EKS uses by default.
    pub default: bool,
    /// The last day in UTC of standard support, and of extended support.
    pub standard_until: Option<Date>,
    pub extended_until: Option<Date>,
}

/// The versions of the add-ons `names` for one Kubernetes version, newest first. An add-on without a version for it
/// is missing from the result.
///
/// One add-on is requested by its name. Several are filtered from the list of all add-ons, which takes fewer calls
/// than one for each.
pub async fn addon_versions(
    aws: &Aws,
    kubernetes_version: &str,
    names: &[&str],
) -> Result<BTreeMap<String, Vec<AddonVersion>>> {
    let call = aws.eks.describe_addon_versions().kubernetes_version(kubernetes_version);
    let call = match names {
        [] => return Ok(BTreeMap::new()),
        [name] => call.addon_name(*name),
        _ => call.owners("aws").owners("community"),
    };
    let mut pages = call.into_paginator().items().send();
    let mut versions = BTreeMap::new();
    while let Some(addon) = pages.next().await {
        let addon = addon.map_err(failed("eks:DescribeAddonVersions"))?;
        let name = addon.addon_name().unwrap_or_default();
        if !names.contains(&name) {
            continue;
        }
        let mut found: Vec<AddonVersion> = addon
            .addon_versions()
            .iter()
            .filter_map(|v| {
                let fits = v.compatibilities().iter().find(|c| c.cluster_version() == Some(kubernetes_version))?;
                Some(AddonVersion { version: v.addon_version()?.to_owned(), default: fits.default_version() })
            })
            .collect();
        found.sort_by(|a, b| compare(&b.version, &a.version));
        if !found.is_empty() {
            versions.insert(name.to_owned(), found);
        }
    }
    Ok(versions)
}

/// The Kubernetes versions that EKS offers, newest first.
pub async fn cluster_versions(aws: &Aws) -> Result<Vec<ClusterVersion>> {
    let mut pages = aws.eks.describe_cluster_versions().into_paginator().items().send();
    let mut versions = Vec::new();
    while let Some(version) = pages.next().await {
        let version = version.map_err(failed("eks:DescribeClusterVersions"))?;
        versions.push(ClusterVersion {
            version: version.cluster_version().unwrap_or_default().to_owned(),
            default: version.default_version(),
            standard_until: version.end_of_standard_support_date().and_then(|d| date(d.secs())),
            extended_until: version.end_of_extended_support_date().and_then(|d| date(d.secs())),
        });
    }
    versions.sort_by(|a, b| compare(&b.version, &a.version));
    Ok(versions)
}

/// The newest releases of node images, in the format of node groups, by AMI type and Kubernetes version. A type for
/// which AWS publishes no image is missing from the result.
pub async fn image_releases(
    aws: &Aws,
    wanted: &BTreeSet<(String, String)>,
) -> Result<BTreeMap<(String, String), String>> {
    let named: BTreeMap<String, &(String, String)> =
        wanted.iter().filter_map(|image| Some((release_parameter(&image.0, &image.1)?, image))).collect();
    let names: Vec<&String> = named.keys().collect();
    let mut releases = BTreeMap::new();
    for some in names.chunks(PARAMETERS) {
        let some = some.iter().map(|name| (*name).clone()).collect();
        let answer = aws.ssm.get_parameters().set_names(Some(some)).send().await;
        for parameter in answer.map_err(failed("ssm:GetParameters"))?.parameters() {
            let image = parameter.name().and_then(|name| named.get(name));
            if let (Some(image), Some(release)) = (image, parameter.value()) {
                releases.insert((*image).clone(), release.to_owned());
            }
        }
    }
    Ok(releases)
}

/// The public parameter with the newest release of an image (EKS User Guide, "Retrieve recommended Bottlerocket AMI
/// IDs" and the corresponding page for Amazon Linux; terraform-aws-modules/terraform-aws-eks,
/// `eks-managed-node-group`, for the field that a node group accepts).
fn release_parameter(ami_type: &str, kubernetes_version: &str) -> Option<String> {
    let (family, rest) = ami_type.split_once('_')?;
    let arm = rest.strip_prefix("ARM_64").map(|flavor| ("arm64", flavor));
    let (architecture, flavor) = arm.or(rest.strip_prefix("x86_64").map(|flavor| ("x86_64", flavor)))?;
    let flavor = flavor.to_lowercase().replace('_', "-");
    match family {
        "BOTTLEROCKET" => Some(format!(
            "/aws/service/bottlerocket/aws-k8s-{kubernetes_version}{flavor}/{architecture}/latest/image_version"
        )),
        "AL2023" => Some(format!(
            "/aws/service/eks/optimized-ami/{kubernetes_version}/amazon-linux-2023/{architecture}/{}/recommended/release_version",
            flavor.trim_start_matches('-')
        )),
        _ => None,
    }
}

/// The time of the update that brought cluster `name` to its current version. `None`: there was no such update.
pub async fn upgraded(aws: &Aws, name: &str, running: &str) -> Result<Option<Timestamp>> {
    let mut pages = aws.eks.list_updates().name(name).into_paginator().items().send();
    let mut last = None;
    while let Some(id) = pages.next().await {
        let id = id.map_err(failed("eks:ListUpdates"))?;
        let answer = aws.eks.describe_update().name(name).update_id(id).send().await;
        let answer = answer.map_err(failed("eks:DescribeUpdate"))?;
        let Some(update) = answer.update() else { continue };
        let to = |p: &UpdateParam| p.r#type() == Some(&UpdateParamType::Version) && p.value() == Some(running);
        let upgrade = update.r#type() == Some(&UpdateType::VersionUpdate);
        if upgrade && update.status() == Some(&UpdateStatus::Successful) && update.params().iter().any(to) {
            let when = update.created_at().and_then(|t| Timestamp::from_second(t.secs()).ok());
            last = last.max(when);
        }
    }
    Ok(last)
}

/// The region's zones that EKS can use, by name.
pub async fn zones(aws: &Aws) -> Result<Vec<Zone>> {
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let answer = aws
        .ec2
        .describe_availability_zones()
        .filters(filter("state", "available"))
        .filters(filter("zone-type", "availability-zone"))
        .send()
        .await
        .map_err(failed("ec2:DescribeAvailabilityZones"))?;
    let mut zones: Vec<Zone> = answer
        .availability_zones()
        .iter()
        .filter(|z| z.zone_type().is_none_or(|kind| kind == "availability-zone"))
        .filter_map(|z| Some(Zone { name: z.zone_name()?.to_owned(), id: z.zone_id()?.to_owned() }))
        .filter(|z| !UNSUPPORTED_ZONES.contains(&z.id.as_str()))
        .collect();
    zones.sort();
    Ok(zones)
}

fn date(seconds: i64) -> Option<Date> {
    Timestamp::from_second(seconds).ok().map(|t| t.to_zoned(TimeZone::UTC).date())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_has_its_parameter() {
        let of = |ami_type: &str| release_parameter(ami_type, "1.36").unwrap_or_default();
        let bottlerocket = |variant, architecture| {
            format!("/aws/service/bottlerocket/aws-k8s-1.36{variant}/{architecture}/latest/image_version")
        };
        assert_eq!(of("BOTTLEROCKET_x86_64"), bottlerocket("", "x86_64"));
        assert_eq!(of("BOTTLEROCKET_ARM_64_FIPS"), bottlerocket("-fips", "arm64"));
        assert_eq!(of("BOTTLEROCKET_x86_64_NVIDIA_FIPS"), bottlerocket("-nvidia-fips", "x86_64"));
        let linux = "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023";
        assert_eq!(of("AL2023_ARM_64_STANDARD"), format!("{linux}/arm64/standard/recommended/release_version"));
        assert_eq!(of("AL2023_x86_64_NVIDIA"), format!("{linux}/x86_64/nvidia/recommended/release_version"));
        assert_eq!(of("CUSTOM"), "");
    }
}
