//! What GuardDuty's Runtime Monitoring puts into a VPC by itself, where it is
//! turned on for the account: an interface endpoint and its security group. In
//! the way of subnets and VPCs that are taken down, they are removed, as the
//! AWS provider does (hashicorp/terraform-provider-aws#46747), if they bear
//! GuardDuty's names and its tag.

use std::time::Duration;

use aws_sdk_ec2::types::{Filter, State, VpcEndpoint};

use super::ec2::{absent, all_done, filter, interfaces};
use super::eks::Pause;
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::{Class, Error, Result};

/// GuardDuty User Guide, "How Runtime Monitoring works".
const TAG: &str = "tag:GuardDutyManaged";
const SERVICE: &str = ".guardduty-data";
const GROUP: &str = "GuardDutyManagedSecurityGroup-";

/// For the end of an endpoint, whose interfaces AWS removes late.
const LIMIT: Duration = Duration::from_secs(600);

/// Takes what is GuardDuty's out of a subnet or VPC that can't be deleted;
/// `by` is `subnet-id` or `vpc-id`. True if there was something.
pub(super) async fn leave(aws: &Aws, by: &str, id: &str) -> Result<bool> {
    let named =
        |error: Error| Error { message: format!("GuardDuty's endpoint holds {id}: {}", error.message), ..error };
    match by {
        "subnet-id" => leave_subnet(aws, id).await.map_err(named),
        "vpc-id" => leave_vpc(aws, id).await.map_err(named),
        _ => Ok(false),
    }
}

async fn endpoints(aws: &Aws, by: Filter) -> Result<Vec<VpcEndpoint>> {
    let call = aws.ec2.describe_vpc_endpoints().filters(filter(TAG, ["true"])).filters(by);
    let all: Vec<VpcEndpoint> =
        call.into_paginator().items().send().try_collect().await.map_err(failed("ec2:DescribeVpcEndpoints"))?;
    Ok(all.into_iter().filter(|e| e.service_name().is_some_and(|name| name.ends_with(SERVICE))).collect())
}

async fn leave_subnet(aws: &Aws, subnet: &str) -> Result<bool> {
    let interfaces = interfaces(aws, "subnet-id", subnet).await?;
    let of = |text: &str| text.strip_prefix("VPC Endpoint Interface ").map(str::to_owned);
    let ids: Vec<String> = interfaces.iter().filter_map(|i| of(i.description()?)).collect();
    if ids.is_empty() {
        return Ok(false);
    }
    let mut any = false;
    for endpoint in endpoints(aws, filter("vpc-endpoint-id", ids)).await? {
        let call =
            aws.ec2.modify_vpc_endpoint().set_vpc_endpoint_id(endpoint.vpc_endpoint_id).remove_subnet_ids(subnet);
        absent(call.send().await.map_err(failed("ec2:ModifyVpcEndpoint")))?;
        any = true;
    }
    Ok(any)
}

async fn leave_vpc(aws: &Aws, vpc: &str) -> Result<bool> {
    let inside = || filter("vpc-id", [vpc]);
    let mut pause = Pause::new(&aws.clock, LIMIT);
    let mut any = false;
    loop {
        let found = endpoints(aws, inside()).await?;
        let there = found.iter().filter(|e| !matches!(e.state(), Some(State::Deleting | State::Deleted)));
        let ids: Vec<String> = there.filter_map(|e| e.vpc_endpoint_id.clone()).collect();
        if !ids.is_empty() {
            let answer = aws.ec2.delete_vpc_endpoints().set_vpc_endpoint_ids(Some(ids)).send().await;
            let answer = answer.map_err(failed("ec2:DeleteVpcEndpoints"))?;
            absent(all_done("ec2:DeleteVpcEndpoints", answer.unsuccessful()))?;
        }
        if found.iter().all(|e| e.state() == Some(&State::Deleted)) {
            break;
        }
        any = true;
        if !pause.wait().await {
            let message = format!("it is still being deleted after {} min", LIMIT.as_secs() / 60);
            return Err(Error::new(Class::Timeout, message).operation("ec2:DeleteVpcEndpoints"));
        }
    }
    let groups = aws.ec2.describe_security_groups().filters(inside()).filters(filter(TAG, ["true"]));
    let groups = groups.send().await.map_err(failed("ec2:DescribeSecurityGroups"))?;
    let name = format!("{GROUP}{vpc}");
    for group in groups.security_groups().iter().filter(|g| g.group_name() == Some(&name)) {
        let call = aws.ec2.delete_security_group().set_group_id(group.group_id.clone()).send().await;
        absent(call.map_err(failed("ec2:DeleteSecurityGroup")))?;
        any = true;
    }
    Ok(any)
}
