//! Instance types: names, properties, and the regions and zones that offer them.
//!
//! Families and sizes are from the EC2 instance types guide: those that a cluster may use, and some on which no EKS
//! image runs. Regions and zones without a type are known from public bug reports.

use super::describe::Filters;
use super::{Call, Doc, Reply, doc, fault, invalid, zones};
use serde_json::{Value, json};

/// The common properties of the types of a family.
struct Family {
    name: &'static str,
    sizes: &'static str,
    architecture: &'static str,
    device: Device,
}

/// Devices that need a driver which plain images lack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    None,
    Gpu(&'static str, &'static str),
    Neuron(&'static str),
}

const BURSTABLE: &str = "nano micro small medium large xlarge 2xlarge";
const FIFTH: &str = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge metal";
const FIFTH_COMPUTE: &str = "large xlarge 2xlarge 4xlarge 9xlarge 12xlarge 18xlarge 24xlarge metal";
const SIXTH: &str = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge metal";
const SIXTH_AMD: &str = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge 48xlarge metal";
const SEVENTH: &str = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge metal-24xl metal-48xl";
const SEVENTH_AMD: &str =
    "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge 48xlarge metal-48xl";
const EIGHTH: &str =
    "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge 48xlarge 96xlarge metal-48xl metal-96xl";
const FLEX: &str = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge";
const GRAVITON: &str = "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal";
const GRAVITON_4: &str =
    "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge metal-24xl metal-48xl";
const GPU: &str = "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge";

const fn plain(name: &'static str, sizes: &'static str, architecture: &'static str) -> Family {
    Family { name, sizes, architecture, device: Device::None }
}

const fn with(name: &'static str, sizes: &'static str, architecture: &'static str, device: Device) -> Family {
    Family { name, sizes, architecture, device }
}

const X86: &str = "x86_64";
const ARM: &str = "arm64";

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    plain("t2", BURSTABLE, X86), plain("t3", "nano micro small medium large xlarge 2xlarge broken", X86), plain("t3a", BURSTABLE, X86),
    plain("t4g", BURSTABLE, ARM), plain("a1", "medium large xlarge 2xlarge 4xlarge metal", ARM),
    plain("m4", "large xlarge 2xlarge 4xlarge 10xlarge 16xlarge", X86), plain("m5", FIFTH, X86), plain("m5a", FIFTH, X86), plain("m5d", FIFTH, X86),
    plain("m6a", SIXTH_AMD, X86), plain("m6g", GRAVITON, ARM), plain("m6gd", GRAVITON, ARM), plain("m6i", SIXTH, X86), plain("m6id", SIXTH, X86),
    plain("m7a", SEVENTH_AMD, X86), plain("m7g", GRAVITON, ARM), plain("m7gd", GRAVITON, ARM), plain("m7i", SEVENTH, X86),
    plain("m7i-flex", FLEX, X86), plain("m8a", SEVENTH_AMD, X86), plain("m8g", GRAVITON_4, ARM), plain("m8i", EIGHTH, X86), plain("m8i-flex", FLEX, X86),
    plain("c4", "large xlarge 2xlarge 4xlarge 8xlarge", X86), plain("c5", FIFTH_COMPUTE, X86), plain("c5a", "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge", X86),
    plain("c5d", FIFTH_COMPUTE, X86), plain("c6a", SIXTH_AMD, X86), plain("c6g", GRAVITON, ARM), plain("c6gn", "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge", ARM),
    plain("c6i", SIXTH, X86), plain("c6id", SIXTH, X86), plain("c7a", SEVENTH_AMD, X86), plain("c7g", GRAVITON, ARM), plain("c7gd", GRAVITON, ARM),
    plain("c7gn", GRAVITON, ARM), plain("c7i", SEVENTH, X86), plain("c7i-flex", FLEX, X86), plain("c8g", GRAVITON_4, ARM), plain("c8i", EIGHTH, X86),
    plain("r5", FIFTH, X86), plain("r5a", FIFTH, X86), plain("r5d", FIFTH, X86), plain("r6a", SIXTH_AMD, X86), plain("r6g", GRAVITON, ARM), plain("r6gd", GRAVITON, ARM),
    plain("r6i", SIXTH, X86), plain("r6id", SIXTH, X86), plain("r7a", SEVENTH_AMD, X86), plain("r7g", GRAVITON, ARM), plain("r7gd", GRAVITON, ARM),
    plain("r7i", SEVENTH, X86), plain("r8g", GRAVITON_4, ARM), plain("r8i", EIGHTH, X86), plain("x2iedn", "xlarge 2xlarge 4xlarge 8xlarge 16xlarge 24xlarge 32xlarge metal", X86),
    plain("i3", "large xlarge 2xlarge 4xlarge 8xlarge 16xlarge metal", X86), plain("i4i", SIXTH, X86), plain("i7ie", "large xlarge 2xlarge 3xlarge 6xlarge 12xlarge 18xlarge 24xlarge 48xlarge", X86),
    with("g4dn", "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal", X86, Device::Gpu("NVIDIA", "T4")),
    with("g4ad", "xlarge 2xlarge 4xlarge 8xlarge 16xlarge", X86, Device::Gpu("AMD", "Radeon Pro V520")), with("g5", GPU, X86, Device::Gpu("NVIDIA", "A10G")),
    with("g5g", "xlarge 2xlarge 4xlarge 8xlarge 16xlarge metal", ARM, Device::Gpu("NVIDIA", "T4g")), with("g6", GPU, X86, Device::Gpu("NVIDIA", "L4")),
    with("g6e", GPU, X86, Device::Gpu("NVIDIA", "L40S")), with("p3", "2xlarge 8xlarge 16xlarge", X86, Device::Gpu("NVIDIA", "V100")),
    with("p4d", "24xlarge", X86, Device::Gpu("NVIDIA", "A100")), with("p5", "4xlarge 48xlarge", X86, Device::Gpu("NVIDIA", "H100")),
    with("inf1", "xlarge 2xlarge 6xlarge 24xlarge", X86, Device::Neuron("Inferentia")), with("inf2", "xlarge 8xlarge 24xlarge 48xlarge", X86, Device::Neuron("Inferentia2")),
    with("trn1", "2xlarge 32xlarge", X86, Device::Neuron("Trainium")), plain("mac1", "metal", "x86_64_mac"), plain("mac2", "metal", "arm64_mac"),
];

/// Families that a region or a zone (by its id) lacks: terraform-aws-eks #1279 (m4 in Paris) and #3648 (m8i in Paris),
/// ec2-spot-workshops #154 (m4 in the fourth zone of Oregon), eksctl #6461 (g4dn there),
/// simphera-reference-architecture-aws #85 (p3 in a zone of Frankfurt), eksctl #636 (m5 in a zone of Sydney).
const LACKING: &[(&str, &str)] = &[
    ("m4", "eu-west-3"),
    ("m8i", "eu-west-3"),
    ("m8i-flex", "eu-west-3"),
    ("m4", "usw2-az4"),
    ("g4dn", "usw2-az4"),
    ("p3", "euc1-az1"),
    ("m5", "apse2-az2"),
];

/// A known instance type.
pub struct InstanceType {
    family: &'static Family,
    size: &'static str,
}

impl InstanceType {
    pub fn named(name: &str) -> Option<Self> {
        let (family, size) = name.split_once('.')?;
        let family = FAMILIES.iter().find(|known| known.name == family)?;
        let size = family.sizes.split(' ').find(|known| *known == size)?;
        Some(Self { family, size })
    }

    fn all() -> impl Iterator<Item = Self> {
        FAMILIES.iter().flat_map(|family| family.sizes.split(' ').map(move |size| Self { family, size }))
    }

    pub fn name(&self) -> String {
        format!("{}.{}", self.family.name, self.size)
    }

    pub fn architecture(&self) -> &'static str {
        self.family.architecture
    }

    pub fn has_gpu(&self) -> bool {
        matches!(self.family.device, Device::Gpu(..))
    }

    pub fn has_neuron(&self) -> bool {
        matches!(self.family.device, Device::Neuron(_))
    }

    /// Whether the zone of this name offers the type.
    pub fn in_zone(&self, region: &str, zone: &str) -> bool {
        let lacks = |place: &str| LACKING.contains(&(self.family.name, place));
        !lacks(region) && zones(region).iter().any(|(name, id)| name == zone && !lacks(id))
    }

    pub fn in_region(&self, region: &str) -> bool {
        !LACKING.contains(&(self.family.name, region))
    }

    pub fn vcpus(&self) -> u64 {
        let count = |size: &str| {
            let number = size.strip_suffix("xlarge").or_else(|| size.strip_prefix("metal-")?.strip_suffix("xl"));
            Some(number?.parse::<u64>().ok()? * 4)
        };
        match self.size {
            "nano" | "micro" | "small" | "large" | "broken" => 2,
            "medium" if self.family.name.starts_with('t') => 2,
            "medium" => 1,
            "xlarge" => 4,
            // A `metal` size has as many vCPUs as the largest virtual size of the family.
            "metal" => self.family.sizes.split(' ').filter_map(count).max().unwrap_or(4),
            size => count(size).unwrap_or(4),
        }
    }

    /// Whether the type counts for the quota "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances".
    pub fn is_standard(&self) -> bool {
        self.family.device == Device::None
            && self.family.name.starts_with(['a', 'c', 'd', 'h', 'i', 'm', 'r', 't', 'z'])
            && !self.family.architecture.ends_with("_mac")
    }

    fn info(&self) -> Doc {
        let mac = self.family.architecture.ends_with("_mac");
        let vcpus = self.vcpus();
        let metal = self.size.starts_with("metal");
        let mut info = doc(json!({
            "instanceType": self.name(), "currentGeneration": !["t2", "m4", "c4", "a1", "p3"].contains(&self.family.name), "freeTierEligible": false,
            "supportedUsageClasses": if mac { json!(["on-demand"]) } else { json!(["on-demand", "spot"]) },
            "supportedRootDeviceTypes": ["ebs"], "supportedVirtualizationTypes": ["hvm"], "bareMetal": metal,
            "hypervisor": (!metal).then_some("nitro"), "burstablePerformanceSupported": self.family.name.starts_with('t'),
            "processorInfo": {"supportedArchitectures": [self.family.architecture]}, "vCpuInfo": {"defaultVCpus": vcpus},
            "memoryInfo": {"sizeInMiB": vcpus * 4096}, "dedicatedHostsSupported": true,
        }));
        match self.family.device {
            Device::None => {}
            Device::Gpu(manufacturer, name) => {
                info.insert(
                    "gpuInfo".to_owned(),
                    json!({"gpus": [{"name": name, "manufacturer": manufacturer, "count": 1}]}),
                );
            }
            Device::Neuron(name) => {
                info.insert("neuronInfo".to_owned(), json!({"neuronDevices": [{"name": name, "count": 1}]}));
            }
        }
        info
    }
}

impl Call<'_> {
    pub(super) fn describe_instance_type_offerings(&mut self) -> Reply {
        let filters = Filters::of(self.req, &[("instance-type", "instanceType"), ("location", "location")])?;
        let by = self.req.text("LocationType").unwrap_or_else(|| "region".to_owned());
        let region = &self.req.region;
        // Locations by their names in the answer, each with its zone where it is one.
        let locations: Vec<(String, Option<String>)> = match by.as_str() {
            "region" => vec![(region.clone(), None)],
            "availability-zone" => zones(region).into_iter().map(|(name, _)| (name.clone(), Some(name))).collect(),
            "availability-zone-id" => zones(region).into_iter().map(|(name, id)| (id, Some(name))).collect(),
            other => return Err(invalid(format!("Value ({other}) for parameter locationType is invalid."))),
        };
        let mut found = Vec::new();
        for one in InstanceType::all() {
            for (location, zone) in &locations {
                let offered = zone.as_ref().map_or(one.in_region(region), |zone| one.in_zone(region, zone));
                let offer = doc(json!({"instanceType": one.name(), "locationType": by, "location": location}));
                if offered && filters.pass(&offer) {
                    found.push((format!("{}/{location}", one.name()), Value::Object(offer)));
                }
            }
        }
        self.page("instanceTypeOfferingSet", 5, 1000, found)
    }

    pub(super) fn describe_instance_types(&mut self) -> Reply {
        const FILTERS: &[(&str, &str)] = &[
            ("instance-type", "instanceType"),
            ("bare-metal", "bareMetal"),
            ("current-generation", "currentGeneration"),
            ("burstable-performance-supported", "burstablePerformanceSupported"),
            ("processor-info.supported-architecture", "processorInfo.supportedArchitectures"),
            ("supported-usage-class", "supportedUsageClasses"),
            ("vcpu-info.default-vcpus", "vCpuInfo.defaultVCpus"),
        ];
        let filters = Filters::of(self.req, FILTERS)?;
        let names = self.req.texts("InstanceType");
        if names.len() > 100 {
            return Err(invalid("The maximum number of instance types specified on a single call is 100"));
        }
        if !names.is_empty() && self.req.text("MaxResults").is_some() {
            let message = "The parameter MaxResults cannot be used with the parameter InstanceTypes";
            return Err(fault("InvalidParameterCombination", message));
        }
        unknown(&names, &self.req.region).map_or(Ok(()), |message| Err(fault("InvalidInstanceType", message)))?;
        let found = InstanceType::all()
            .filter(|one| one.in_region(&self.req.region) && (names.is_empty() || names.contains(&one.name())))
            .map(|one| (one.name(), one.info()))
            .filter(|(_, info)| filters.pass(info))
            .map(|(name, info)| (name, Value::Object(info)));
        self.page("instanceTypeSet", 5, 100, found.collect())
    }
}

/// EC2's error text for types that a region doesn't have. EKS passes it on. Sources: scylla-cluster-tests #12419 for
/// DescribeInstanceTypes, terraform-aws-eks #1279 for CreateNodegroup.
pub fn unknown<S: AsRef<str>>(names: &[S], region: &str) -> Option<String> {
    let lacks = |name: &&S| InstanceType::named(name.as_ref()).is_none_or(|known| !known.in_region(region));
    let lacking: Vec<&str> = names.iter().filter(lacks).map(AsRef::as_ref).collect();
    (!lacking.is_empty())
        .then(|| format!("The following supplied instance types do not exist: [{}]", lacking.join(", ")))
}

/// EC2's error text if `zone` offers none of `names` (eksctl #6461).
pub fn unsupported<S: AsRef<str>>(names: &[S], region: &str, zone: &str) -> Option<String> {
    let known = || names.iter().filter_map(|name| InstanceType::named(name.as_ref()));
    if known().any(|one| one.in_zone(region, zone)) {
        return None;
    }
    let one = known().next()?;
    let others: Vec<String> =
        zones(region).into_iter().map(|(name, _)| name).filter(|zone| one.in_zone(region, zone)).collect();
    Some(format!(
        "Your requested instance type ({}) is not supported in your requested Availability Zone ({zone}). Please retry your request by not specifying an Availability Zone or choosing {}.",
        one.name(),
        others.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::InstanceType;

    #[test]
    fn a_type_is_of_a_family_and_one_of_its_sizes() {
        let vcpus = |name: &str| InstanceType::named(name).map(|one| one.vcpus());
        let known = [
            ("t3.micro", 2),
            ("t3.medium", 2),
            ("m7g.medium", 1),
            ("m7i.large", 2),
            ("m7i.metal-24xl", 96),
            ("m5.metal", 96),
            ("c7i-flex.2xlarge", 8),
            ("r8i.96xlarge", 384),
            ("t3.broken", 2),
            ("mac2.metal", 4),
        ];
        for (name, count) in known {
            assert_eq!(vcpus(name), Some(count), "{name}");
        }
        for name in ["banana", "m6i", "m.large", "6i.large", "m6i.huge", "m77i.large", "m7i.tiny", "m7i.xlrge"] {
            assert_eq!(vcpus(name), None, "{name}");
        }
    }

    #[test]
    fn not_every_place_offers_every_type() {
        let m4 = InstanceType::named("m4.large").unwrap_or(InstanceType { family: &super::FAMILIES[0], size: "" });
        assert!(
            m4.in_region("us-west-2")
                && m4.in_zone("us-west-2", "us-west-2a")
                && !m4.in_zone("us-west-2", "us-west-2d")
        );
        assert!(!m4.in_region("eu-west-3") && !m4.in_zone("eu-west-3", "eu-west-3a"));
    }
}
