//! The instance types and endpoint services that EC2 offers in a region and in its zones.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    ArchitectureType, GpuDeviceInfo, InstanceType, InstanceTypeInfo, LocationType, ServiceType, UsageClassType,
};

use super::ec2::{FILTER_VALUES, filter};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::Result;

/// The maximum number of names in one DescribeInstanceTypes call.
const NAMES: usize = 100;

/// The properties of an instance type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Such as `x86_64`.
    pub architectures: Vec<String>,
    /// Such as `NVIDIA L4`.
    pub gpu: Option<String>,
    /// AWS's accelerators: Inferentia and Trainium.
    pub neuron: bool,
    pub spot: bool,
}

/// The zones that offer each of `types`, by name. A type that isn't offered in the region is missing from the result.
pub async fn zones_of_types(aws: &Aws, types: &BTreeSet<String>) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let types: Vec<&String> = types.iter().collect();
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for some in types.chunks(FILTER_VALUES) {
        let call = aws.ec2.describe_instance_type_offerings().location_type(LocationType::AvailabilityZone);
        let call = call.filters(filter("instance-type", some.iter().map(|name| (*name).clone()))).max_results(1000);
        let mut pages = call.into_paginator().items().send();
        while let Some(offer) = pages.next().await {
            let offer = offer.map_err(failed("ec2:DescribeInstanceTypeOfferings"))?;
            if let (Some(name), Some(zone)) = (offer.instance_type(), offer.location()) {
                all.entry(name.as_str().to_owned()).or_default().insert(zone.to_owned());
            }
        }
    }
    Ok(all)
}

/// Every instance type of the region.
pub async fn types(aws: &Aws) -> Result<BTreeSet<String>> {
    let call = aws.ec2.describe_instance_type_offerings().location_type(LocationType::Region).max_results(1000);
    let mut pages = call.into_paginator().items().send();
    let mut all = BTreeSet::new();
    while let Some(offer) = pages.next().await {
        let offer = offer.map_err(failed("ec2:DescribeInstanceTypeOfferings"))?;
        all.extend(offer.instance_type().map(|name| name.as_str().to_owned()));
    }
    Ok(all)
}

/// The properties of each of `types`. All of them must be offered in the region.
pub async fn details(aws: &Aws, types: &[&String]) -> Result<BTreeMap<String, Details>> {
    let mut all = BTreeMap::new();
    for some in types.chunks(NAMES) {
        let names = some.iter().map(|name| InstanceType::from(name.as_str())).collect();
        let call = aws.ec2.describe_instance_types().set_instance_types(Some(names));
        let mut pages = call.into_paginator().items().send();
        while let Some(info) = pages.next().await {
            let info = info.map_err(failed("ec2:DescribeInstanceTypes"))?;
            all.extend(info.instance_type().map(|name| (name.as_str().to_owned(), detail(&info))));
        }
    }
    Ok(all)
}

/// A service for interface endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointService {
    /// The zones in which the service supports endpoints.
    pub zones: BTreeSet<String>,
    /// True if its endpoints accept a policy. For other services EC2 refuses a policy with the message that the
    /// service only supports the full-access endpoint policy (awslabs/landing-zone-accelerator-on-aws#224).
    pub policies: bool,
}

fn detail(info: &InstanceTypeInfo) -> Details {
    let architectures = info.processor_info().map(|p| p.supported_architectures()).unwrap_or_default();
    let gpu = info.gpu_info().and_then(|gpus| gpus.gpus().first());
    let named = |gpu: &GpuDeviceInfo| {
        let words = [gpu.manufacturer(), gpu.name()];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    Details {
        architectures: architectures.iter().map(ArchitectureType::as_str).map(str::to_owned).collect(),
        gpu: gpu.map(named),
        neuron: info.neuron_info().is_some() || info.inference_accelerator_info().is_some(),
        spot: info.supported_usage_classes().contains(&UsageClassType::Spot),
    }
}

/// The EC2 description of each of `services`, by its full name. A service that the region doesn't have gets no zones.
/// An empty list makes no call.
pub async fn services(aws: &Aws, services: &BTreeSet<String>) -> Result<BTreeMap<String, EndpointService>> {
    let unknown = EndpointService { zones: BTreeSet::new(), policies: true };
    let mut all: BTreeMap<String, EndpointService> =
        services.iter().map(|name| (name.clone(), unknown.clone())).collect();
    let services: Vec<&String> = services.iter().collect();
    for some in services.chunks(FILTER_VALUES) {
        let mut token = None;
        loop {
            let call = aws.ec2.describe_vpc_endpoint_services().max_results(1000).set_next_token(token.take());
            let call = call.filters(filter("service-name", some.iter().map(|name| (*name).clone())));
            let answer = call.send().await.map_err(failed("ec2:DescribeVpcEndpointServices"))?;
            for service in answer.service_details() {
                let interface =
                    service.service_type().iter().any(|t| t.service_type() == Some(&ServiceType::Interface));
                if let Some(one) = service.service_name().filter(|_| interface).and_then(|name| all.get_mut(name)) {
                    one.zones.extend(service.availability_zones().iter().cloned());
                    one.policies = service.vpc_endpoint_policy_supported() != Some(false);
                }
            }
            token = answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
    }
    Ok(all)
}
