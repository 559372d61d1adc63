//! Resources that GuardDuty's Runtime Monitoring creates in a VPC if it is enabled for the account: an interface
//! endpoint and its security group. They block the deletion of subnets and VPCs, so they are deleted, as the AWS
//! provider does (hashicorp/terraform-provider-aws#46747), if they have GuardDuty's names and its tag.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::types::{Filter, VpcEndpoint};

use super::ec2::{absent, all_done, filter};
use super::inside::{interfaces, left_in};
use super::vpc_endpoint::{self, status};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::Status;
use crate::engine::pause::Patience;

/// GuardDuty User Guide, "How Runtime Monitoring works".
const TAG: &str = "tag:GuardDutyManaged";
/// The second name is for FIPS endpoints (GovCloud User Guide, "Amazon GuardDuty").
const SERVICES: [&str; 2] = [".guardduty-data", ".guardduty-data-fips"];
const GROUP: &str = "GuardDutyManagedSecurityGroup-";

/// The time limit for the deletion of an endpoint. AWS removes its interfaces late.
const LIMIT: Duration = Duration::from_secs(600);

/// Deletes GuardDuty's resources in a subnet or VPC that can't be deleted. `by` is `subnet-id` or `vpc-id`. Returns
/// true if there were any.
pub(super) async fn leave(aws: &Aws, by: &str, id: &str) -> Result<bool> {
    let named = |error: Error| Error {
        message: format!("GuardDuty's endpoint blocks the deletion of {id}: {}", error.message),
        ..error
    };
    match by {
        "subnet-id" => leave_subnet(aws, id).await.map_err(named),
        "vpc-id" => leave_vpc(aws, id).await.map_err(named),
        _ => Ok(false),
    }
}

async fn endpoints(aws: &Aws, by: Filter) -> Result<Vec<VpcEndpoint>> {
    let all = vpc_endpoint::endpoints(aws, vec![filter(TAG, ["true"]), by]).await?;
    let is = |name: &str| SERVICES.iter().any(|service| name.ends_with(service));
    Ok(all.into_iter().filter(|e| e.service_name().is_some_and(is)).collect())
}

async fn leave_subnet(aws: &Aws, subnet: &str) -> Result<bool> {
    let interfaces = interfaces(aws, "subnet-id", subnet).await?;
    let of = |text: &str| text.strip_prefix("VPC Endpoint Interface ").map(str::to_owned);
    let ids: Vec<String> = interfaces.iter().filter_map(|i| of(i.description()?)).collect();
    if ids.is_empty() {
        return Ok(false);
    }
    let mut any = false;
    // An endpoint that is deleted already still has its interfaces for a while.
    let inside = |e: &VpcEndpoint| e.subnet_ids().iter().any(|id| id == subnet);
    for endpoint in endpoints(aws, filter("vpc-endpoint-id", ids)).await?.into_iter().filter(inside) {
        let call =
            aws.ec2.modify_vpc_endpoint().set_vpc_endpoint_id(endpoint.vpc_endpoint_id).remove_subnet_ids(subnet);
        absent(call.send().await.map_err(failed("ec2:ModifyVpcEndpoint")))?;
        any = true;
    }
    Ok(any)
}

async fn leave_vpc(aws: &Aws, vpc: &str) -> Result<bool> {
    let inside = || filter("vpc-id", [vpc]);
    let mut found = endpoints(aws, inside()).await?;
    let groups = aws.ec2.describe_security_groups().filters(inside()).filters(filter(TAG, ["true"]));
    let mut groups =
        groups.send().await.map_err(failed("ec2:DescribeSecurityGroups"))?.security_groups.unwrap_or_default();
    let name = format!("{GROUP}{vpc}");
    groups.retain(|g| g.group_name() == Some(&name));
    if found.is_empty() && groups.is_empty() {
        return Ok(false);
    }
    // A VPC with resources of others keeps its monitoring.
    let ids = found.iter().filter_map(|e| e.vpc_endpoint_id()).chain(groups.iter().filter_map(|g| g.group_id()));
    let own: BTreeSet<&str> = ids.collect();
    if left_in(aws, vpc).await?.keys().any(|id| !own.contains(id.as_str())) {
        return Ok(false);
    }
    let mut pause = Patience::new(&aws.clock, LIMIT);
    while found.iter().any(|e| status(e).is_some()) {
        let there = found.iter().filter(|e| !matches!(status(e), None | Some(Status::Deleting)));
        let ids: Vec<String> = there.filter_map(|e| e.vpc_endpoint_id.clone()).collect();
        if !ids.is_empty() {
            let answer = aws.ec2.delete_vpc_endpoints().set_vpc_endpoint_ids(Some(ids)).send().await;
            let answer = answer.map_err(failed("ec2:DeleteVpcEndpoints"))?;
            absent(all_done("ec2:DeleteVpcEndpoints", answer.unsuccessful()))?;
        }
        if !pause.wait().await {
            let message = format!("it is still being deleted after {} min", LIMIT.as_secs() / 60);
            return Err(Error::new(Class::Timeout, message).operation("ec2:DeleteVpcEndpoints"));
        }
        found = endpoints(aws, inside()).await?;
    }
    for group in groups {
        let call = aws.ec2.delete_security_group().set_group_id(group.group_id).send().await;
        absent(call.map_err(failed("ec2:DeleteSecurityGroup")))?;
    }
    Ok(true)
}
