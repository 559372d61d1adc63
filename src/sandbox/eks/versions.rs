//! The offers of EKS: Kubernetes versions, node images, access policies.
//!
//! The tables end in November 2026. A version's support status follows the simulated date, but a version of the table
//! can still be used for new clusters, so that an estate which worked in the sandbox continues to work there.

use super::super::wire::{Reply, Request};
use super::paged;
use serde_json::{Value, json};

pub struct Version {
    pub name: &'static str,
    pub minor: u32,
    patch: &'static str,
    platform: &'static str,
    /// Unix seconds: release, end of standard support, end of extended support.
    dates: [f64; 3],
}

/// Dates: Amazon EKS user guide, "Understand the Kubernetes version lifecycle on EKS"; 1.36's from AWS by way of a
/// secondary page; 1.37's release is an estimate and its ends follow the rule of 14 and 12 months.
pub const VERSIONS: &[Version] = &[
    // 2025-01-23, 2026-03-23, 2027-03-23
    version("1.32", 32, "1.32.13", "eks.40", [1_737_590_400.0, 1_774_224_000.0, 1_805_760_000.0]),
    // 2025-05-29, 2026-07-29, 2027-07-29
    version("1.33", 33, "1.33.12", "eks.33", [1_748_476_800.0, 1_785_283_200.0, 1_816_819_200.0]),
    // 2025-10-02, 2026-12-02, 2027-12-02
    version("1.34", 34, "1.34.9", "eks.22", [1_759_363_200.0, 1_796_169_600.0, 1_827_705_600.0]),
    // 2026-01-28, 2027-03-27, 2028-03-27
    version("1.35", 35, "1.35.6", "eks.14", [1_769_558_400.0, 1_806_105_600.0, 1_837_728_000.0]),
    // 2026-06-02, 2027-08-02, 2028-08-02
    version("1.36", 36, "1.36.3", "eks.7", [1_780_358_400.0, 1_817_164_800.0, 1_848_787_200.0]),
    // 2026-10-06, 2027-12-06, 2028-12-06
    version("1.37", 37, "1.37.2", "eks.2", [1_791_244_800.0, 1_828_051_200.0, 1_859_673_600.0]),
];

/// The version of a cluster whose request names none.
pub const DEFAULT: &str = "1.36";

const fn version(
    name: &'static str,
    minor: u32,
    patch: &'static str,
    platform: &'static str,
    dates: [f64; 3],
) -> Version {
    Version { name, minor, patch, platform, dates }
}

pub fn find(name: &str) -> Option<&'static Version> {
    VERSIONS.iter().find(|version| version.name == name)
}

impl Version {
    /// `STANDARD_SUPPORT` or `EXTENDED_SUPPORT`, by the date (unix seconds).
    pub fn support(&self, now: f64) -> &'static str {
        if now < self.dates[1] { "STANDARD_SUPPORT" } else { "EXTENDED_SUPPORT" }
    }

    pub fn platform(&self) -> &'static str {
        self.platform
    }

    /// Git version of the API server, `v1.36.3-eks-…`.
    pub fn git(&self) -> String {
        format!("v{}-eks-3025e55", self.patch)
    }

    pub fn wire(&self, now: f64) -> Value {
        let support = self.support(now);
        let [released, standard, extended] = self.dates;
        json!({
            "clusterVersion": self.name, "clusterType": "eks", "defaultPlatformVersion": self.platform,
            "defaultVersion": self.name == DEFAULT, "releaseDate": released, "endOfStandardSupportDate": standard,
            "endOfExtendedSupportDate": extended, "status": support.to_lowercase().replace('_', "-"),
            "versionStatus": support, "kubernetesPatchVersion": self.patch,
        })
    }
}

/// Bottlerocket images, oldest first, each as a node group's `releaseVersion` and SSM's `image_version` name it.
pub const IMAGES: &[&str] = &["1.61.0-5ce1a8b6", "1.62.1-e1d1c9a5", "1.63.0-7bb1c0d2", "1.66.0-2d3f4b6c"];

/// When the newest image was released (unix seconds): 2026-09-22.
pub const IMAGES_DATE: f64 = 1_790_035_200.0;

/// The release of the AL2023 image for a Kubernetes version.
pub fn al2023(version: &str) -> String {
    let patch = find(version).map_or(version, |version| version.patch);
    format!("{patch}-20261110")
}

/// Access policies (`arn:aws:eks::aws:cluster-access-policy/…`) that ListAccessPolicies names.
pub const ACCESS_POLICIES: &str = "AmazonAIOpsAssistantPolicy AmazonARCRegionSwitchScalingPolicy AmazonEKSAdminPolicy AmazonEKSAdminViewPolicy \
     AmazonEKSAutoNodePolicy AmazonEKSBlockStorageClusterPolicy AmazonEKSBlockStoragePolicy \
     AmazonEKSClusterAdminPolicy AmazonEKSComputeClusterPolicy AmazonEKSComputePolicy AmazonEKSEditPolicy \
     AmazonEKSHybridPolicy AmazonEKSLoadBalancingClusterPolicy AmazonEKSLoadBalancingPolicy \
     AmazonEKSNetworkingClusterPolicy AmazonEKSNetworkingPolicy AmazonEKSPodIdentityPolicy AmazonEKSSecretAdminPolicy \
     AmazonEKSSecretReaderPolicy AmazonEKSViewPolicy AmazonEMRJobPolicy AmazonSagemakerHyperpodClusterPolicy \
     AmazonSagemakerHyperpodControllerPolicy AmazonSagemakerHyperpodSpacePolicy \
     AmazonSagemakerHyperpodSpaceTemplatePolicy";

/// The CA certificate of every cluster; EKS makes one for each. Its private key doesn't exist any more. The sandbox's
/// API servers speak plain HTTP on the loopback address, so no client verifies against it.
pub const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBqTCCAU6gAwIBAgIUEnl3L5LpbosNXsNHbLBMXhvbBgQwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjMwNjUyNTNaGA8yMTI2MTAz
MDA2NTI1M1owFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABDH7D8Jn85UuLJrJ5/8ID2z1WtkdMANSAr8BDW+/u8mjZ1u7o+2Z
rTIIXPFjcnd2Q2v/epda5A6LrH7q68FsPiGjejB4MB0GA1UdDgQWBBRKnw7duaBV
un+XF77n55lRGfZ8wjAfBgNVHSMEGDAWgBRKnw7duaBVun+XF77n55lRGfZ8wjAP
BgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwICpDAVBgNVHREEDjAMggprdWJl
cm5ldGVzMAoGCCqGSM49BAMCA0kAMEYCIQCsqey8vrzHunMvdMgaIhmPut3qFh3G
2gO5HP/YUsvB4QIhAKX2r1R4BjEJVCghWdcw9O/BLSmD0R9mL+aVAAOVuCqH
-----END CERTIFICATE-----
";

/// The Kubernetes versions that EKS offers, as `DescribeClusterVersions` shows them.
pub(super) fn describe(req: &Request) -> Reply {
    let (only, status) = (req.texts("clusterVersions"), req.text("versionStatus").or(req.text("status")));
    let status = status.map(|status| status.to_uppercase().replace('-', "_"));
    let default_only = req.text("defaultOnly").as_deref() == Some("true");
    let all = VERSIONS.iter().map(|version| version.wire(req.now));
    let wanted = all.filter(|version| {
        (only.is_empty() || only.iter().any(|one| version["clusterVersion"] == one.as_str()))
            && status.as_ref().is_none_or(|status| version["versionStatus"] == status.as_str())
            && (!default_only || version["defaultVersion"] == true)
    });
    let mut wanted: Vec<_> = wanted.collect();
    // AWS lists the newest update first. The numbered key keeps that order over all pages.
    wanted.reverse();
    paged(
        req,
        "clusterVersions",
        wanted.into_iter().enumerate().map(|(n, version)| (format!("{n:03}"), version)).collect(),
    )
}
