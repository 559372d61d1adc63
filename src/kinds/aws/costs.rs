//! What AWS bills for resources: the units, without prices. The sources are the pricing pages of AWS: "Amazon EKS
//! pricing", "Amazon EC2 On-Demand Pricing", "AWS Fargate Pricing", "Amazon VPC pricing" (NAT gateways and public IPv4
//! addresses), "AWS PrivateLink pricing", "AWS Key Management Service pricing", "Amazon CloudWatch Pricing" and "Amazon
//! EBS pricing".

use serde::Serialize;

/// A unit that AWS bills.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "unit")]
pub enum Unit {
    /// An hour of an EKS control plane. `extended`: it may stay on a version in extended support, which costs more.
    ClusterHour {
        extended: bool,
    },
    /// An hour of an instance.
    InstanceHour {
        instance_type: String,
        spot: bool,
    },
    /// The Fargate capacity of pods.
    FargatePod,
    NatGatewayHour,
    NatGatewayGigabyte,
    /// An hour of a public IPv4 address, in use or not.
    PublicAddressHour,
    /// An hour of an interface endpoint in one zone.
    EndpointHour,
    EndpointGigabyte,
    /// A month of a key. A rotation of the key adds to its price.
    KeyMonth,
    /// A gigabyte that CloudWatch Logs ingests, and then stores.
    LogGigabyte,
    /// A month of a GiB of an EBS volume of this type.
    VolumeMonth {
        volume_type: String,
    },
}

/// How many units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    Fixed(u32),
    /// Of a node group.
    Nodes {
        min: u32,
        desired: u32,
        max: u32,
    },
    /// For each node that the launch template starts.
    EachNode(u32),
    /// By use. A plan can't know it.
    Metered,
}

/// One thing that AWS bills for a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    #[serde(flatten)]
    pub unit: Unit,
    pub amount: Amount,
}

impl Cost {
    pub fn fixed(unit: Unit, count: usize) -> Self {
        Self { unit, amount: Amount::Fixed(u32::try_from(count).unwrap_or(u32::MAX)) }
    }

    pub fn metered(unit: Unit) -> Self {
        Self { unit, amount: Amount::Metered }
    }
}
