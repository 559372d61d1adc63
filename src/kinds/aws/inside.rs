//! Reads the resources inside of a VPC, a subnet or a security group.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::NetworkInterface;

use super::ec2::filter;
use super::route_table;
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::Result;

/// Names, by id, of the resources in a VPC in which no resource of ours is left.
pub(super) async fn left_in(aws: &Aws, vpc: &str) -> Result<BTreeMap<String, String>> {
    let inside = || vec![filter("vpc-id", [vpc])];
    let subnets = aws.ec2.describe_subnets().set_filters(Some(inside())).into_paginator().items().send();
    let groups = aws.ec2.describe_security_groups().set_filters(Some(inside())).into_paginator().items().send();
    let endpoints = aws.ec2.describe_vpc_endpoints().set_filters(Some(inside())).into_paginator().items().send();
    let gateways = aws.ec2.describe_internet_gateways().filters(filter("attachment.vpc-id", [vpc]));
    let gateways = gateways.into_paginator().items().send();
    let mut left = BTreeMap::new();
    let mut add = |id: Option<String>, what: &str, name: &str| {
        left.extend(id.map(|id| (id.clone(), format!("{what} {id}{name}"))));
    };
    for one in subnets.try_collect().await.map_err(failed("ec2:DescribeSubnets"))? {
        add(one.subnet_id, "subnet", "");
    }
    for one in groups.try_collect().await.map_err(failed("ec2:DescribeSecurityGroups"))? {
        if let Some(name) = one.group_name.filter(|name| name != "default") {
            add(one.group_id, "security group", &format!(" ({name})"));
        }
    }
    for one in endpoints.try_collect().await.map_err(failed("ec2:DescribeVpcEndpoints"))? {
        add(one.vpc_endpoint_id, "VPC endpoint", "");
    }
    for one in gateways.try_collect().await.map_err(failed("ec2:DescribeInternetGateways"))? {
        add(one.internet_gateway_id, "internet gateway", "");
    }
    let tables = route_table::tables(aws, inside()).await?;
    route_table::left(&tables).into_iter().for_each(|id| add(Some(id), "route table", ""));
    Ok(left)
}

/// The network interfaces in a VPC that have a public address.
pub(super) async fn public(aws: &Aws, vpc: &str) -> Result<Vec<NetworkInterface>> {
    let all = interfaces(aws, "vpc-id", vpc).await?;
    Ok(all.into_iter().filter(|i| i.association().is_some_and(|a| a.public_ip().is_some())).collect())
}

pub(super) async fn interfaces(aws: &Aws, by: &str, id: &str) -> Result<Vec<NetworkInterface>> {
    aws.ec2
        .describe_network_interfaces()
        .filters(filter(by, [id]))
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(failed("ec2:DescribeNetworkInterfaces"))
}
