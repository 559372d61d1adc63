//! The account's quotas and its usage.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::NatGateway;
use aws_sdk_servicequotas::config::{Builder, Region};

use super::ec2::{FILTER_VALUES, filter};
use crate::aws::Aws;
use crate::aws::error::{failed, is_not_found};
use crate::engine::error::Result;
use crate::engine::packed::Packed;

/// The applied value of a quota.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// The quota's name in Service Quotas.
    pub name: String,
    pub value: f64,
}

/// The usage that a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted<'a> {
    Vpcs,
    InternetGateways,
    ElasticIps,
    SecurityGroups,
    GatewayEndpoints,
    Clusters,
    /// The usage in the cluster with this name.
    NodeGroups(&'a str),
    FargateProfiles(&'a str),
    Roles,
    OidcProviders,
}

/// The scope of a quota.
#[derive(Clone, Copy, Debug)]
pub enum Per {
    /// The account, in one region or in all regions.
    Account(Counted<'static>),
    Zone,
    /// The cluster that the state names.
    Cluster(fn(&str) -> Counted<'_>),
    /// The VPC that the state names. All resources in it are ours.
    Vpc,
    /// Each resource of the kind.
    Resource,
    /// The account, of which only the usage of this tenancy is known: reading the rest may take many calls.
    Tenancy,
}

/// A rule for counting resources of a kind against a quota.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub service: &'static str,
    /// The service code and the quota code in Service Quotas.
    pub code: &'static str,
    pub per: Per,
    /// The amount that a resource with this state counts. 0: the resource doesn't count.
    pub weight: fn(&Packed) -> usize,
    /// The counted unit. Empty: resources are counted.
    pub unit: &'static str,
    /// The usage that each scope has from the start.
    pub own: usize,
}

impl Counts {
    /// Each resource of the kind counts as one.
    pub fn all(service: &'static str, code: &'static str, per: Per) -> Self {
        Self { service, code, per, weight: |_| 1, unit: "", own: 0 }
    }
}

/// The region in which a service's quotas are stored and raised.
pub fn region<'a>(aws: &'a Aws, service: &str) -> &'a str {
    match (service, aws.scope.partition.as_str()) {
        // IAM's quotas are in the region of IAM.
        ("iam", "aws") => "us-east-1",
        ("iam", "aws-cn") => "cn-north-1",
        ("iam", "aws-us-gov") => "us-gov-west-1",
        _ => &aws.scope.region,
    }
}

/// The quotas of `service` (`vpc`, `eks` …) by code, `L-…`. Quotas of `codes` that were never changed may be listed
/// with AWS's defaults only (Service Quotas API reference, ListServiceQuotas).
pub async fn quotas(aws: &Aws, service: &str, codes: &BTreeSet<&str>) -> Result<BTreeMap<String, Quota>> {
    let region = Region::new(region(aws, service).to_owned());
    let client = aws_sdk_servicequotas::Client::from_conf(
        Builder::from(&aws.config).interceptor(aws.calls.clone()).region(region).build(),
    );
    let mut all = BTreeMap::new();
    macro_rules! add {
        ($call:expr, $operation:literal) => {
            let mut pages = $call.service_code(service).max_results(100).into_paginator().items().send();
            while let Some(quota) = pages.next().await {
                let quota = quota.map_err(failed($operation))?;
                if let (Some(code), Some(name), Some(value)) = (quota.quota_code(), quota.quota_name(), quota.value()) {
                    all.entry(code.to_owned()).or_insert_with(|| Quota { name: name.to_owned(), value });
                }
            }
        };
    }
    add!(client.list_service_quotas(), "servicequotas:ListServiceQuotas");
    if codes.iter().any(|code| !all.contains_key(*code)) {
        add!(client.list_aws_default_service_quotas(), "servicequotas:ListAWSDefaultServiceQuotas");
    }
    Ok(all)
}

/// The current usage, including resources of others.
#[expect(clippy::cognitive_complexity, reason = "a macro writes the same loop over pages for each call")]
pub async fn used(aws: &Aws, what: Counted<'_>) -> Result<usize> {
    macro_rules! pages {
        ($call:expr, $operation:literal) => {{
            let mut pages = $call.into_paginator().items().send();
            let mut count = 0;
            while let Some(one) = pages.next().await {
                match one.map_err(failed($operation)) {
                    Ok(_) => count += 1,
                    Err(error) if is_not_found(&error) => break,
                    Err(error) => return Err(error),
                }
            }
            count
        }};
    }
    Ok(match what {
        Counted::Vpcs => pages!(aws.ec2.describe_vpcs().max_results(1000), "ec2:DescribeVpcs"),
        Counted::InternetGateways => {
            pages!(aws.ec2.describe_internet_gateways().max_results(1000), "ec2:DescribeInternetGateways")
        }
        Counted::ElasticIps => {
            aws.ec2.describe_addresses().send().await.map_err(failed("ec2:DescribeAddresses"))?.addresses().len()
        }
        Counted::SecurityGroups => {
            pages!(aws.ec2.describe_security_groups().max_results(1000), "ec2:DescribeSecurityGroups")
        }
        Counted::GatewayEndpoints => pages!(
            aws.ec2.describe_vpc_endpoints().filters(filter("vpc-endpoint-type", ["Gateway"])).max_results(1000),
            "ec2:DescribeVpcEndpoints"
        ),
        Counted::Clusters => pages!(aws.eks.list_clusters(), "eks:ListClusters"),
        Counted::NodeGroups(cluster) => {
            pages!(aws.eks.list_nodegroups().cluster_name(cluster), "eks:ListNodegroups")
        }
        Counted::FargateProfiles(cluster) => {
            pages!(aws.eks.list_fargate_profiles().cluster_name(cluster), "eks:ListFargateProfiles")
        }
        Counted::Roles => pages!(aws.iam.list_roles().max_items(1000), "iam:ListRoles"),
        Counted::OidcProviders => {
            let call = aws.iam.list_open_id_connect_providers().send().await;
            call.map_err(failed("iam:ListOpenIDConnectProviders"))?.open_id_connect_provider_list().len()
        }
    })
}

/// Instance families that start like standard ones and have their own quotas.
const NOT_STANDARD: [&str; 5] = ["dl", "hpc", "inf", "mac", "trn"];

/// The minimum number of vCPUs that an instance of this type uses of the quota for standard instances (EC2 User
/// Guide, "Amazon EC2 instance type quotas"). 0 for other types, and if the type's name doesn't show it.
pub fn vcpus(instance_type: &str) -> usize {
    let (family, size) = instance_type.split_once('.').unwrap_or_default();
    let standard = family.starts_with(['a', 'c', 'd', 'h', 'i', 'm', 'r', 't', 'z']);
    if !standard || NOT_STANDARD.iter().any(|other| family.starts_with(other)) {
        return 0;
    }
    match size {
        "nano" | "micro" | "small" | "medium" => 1,
        "large" => 2,
        "xlarge" => 4,
        _ => size.strip_suffix("xlarge").and_then(|n| n.parse().ok()).map_or(0, |n: usize| n.saturating_mul(4)),
    }
}

/// The number of NAT gateways, by zone name.
pub async fn nat_gateways(aws: &Aws) -> Result<BTreeMap<String, usize>> {
    let gateways: Vec<NatGateway> = aws
        .ec2
        .describe_nat_gateways()
        .filter(filter("state", ["pending", "available"]))
        .max_results(1000)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(failed("ec2:DescribeNatGateways"))?;
    let subnets: Vec<&str> = gateways.iter().filter_map(NatGateway::subnet_id).collect();
    let zones: BTreeMap<String, String> =
        self::subnets(aws, &subnets).await?.into_iter().map(|(id, subnet)| (id, subnet.zone)).collect();
    let mut all = BTreeMap::new();
    for zone in subnets.into_iter().filter_map(|subnet| zones.get(subnet)) {
        *all.entry(zone.clone()).or_default() += 1;
    }
    Ok(all)
}

#[derive(Clone, Debug)]
pub struct Subnet {
    /// The name of the subnet's zone.
    pub zone: String,
    /// The number of free addresses.
    pub free: i32,
}

/// The existing subnets of `ids`.
pub async fn subnets(aws: &Aws, ids: &[&str]) -> Result<BTreeMap<String, Subnet>> {
    let mut all = BTreeMap::new();
    for some in ids.chunks(FILTER_VALUES) {
        let call = aws.ec2.describe_subnets().filters(filter("subnet-id", some.iter().copied()));
        let mut pages = call.into_paginator().items().send();
        while let Some(subnet) = pages.next().await {
            let subnet = subnet.map_err(failed("ec2:DescribeSubnets"))?;
            if let (Some(id), Some(zone)) = (subnet.subnet_id(), subnet.availability_zone()) {
                let free = subnet.available_ip_address_count().unwrap_or(i32::MAX);
                all.insert(id.to_owned(), Subnet { zone: zone.to_owned(), free });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::vcpus;

    #[test]
    fn vcpus_follow_from_the_size() {
        let all =
            [("t3.micro", 1), ("m7i.large", 2), ("m7g.xlarge", 4), ("c7i-flex.2xlarge", 8), ("r8i.96xlarge", 384)];
        for (instance_type, count) in all {
            assert_eq!(vcpus(instance_type), count, "{instance_type}");
        }
        for other in ["m7i.metal-24xl", "g6.xlarge", "inf2.xlarge", "trn1.2xlarge", "hpc7a.12xlarge", "m7i", ""] {
            assert_eq!(vcpus(other), 0, "{other}");
        }
    }
}
