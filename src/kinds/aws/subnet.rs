use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{AttributeBooleanValue, BlockPublicAccessMode, Filter, ResourceType};
use serde::{Deserialize, Serialize};

use super::permission::{self, On, When};
use super::quotas::{Counts, Per};
use super::{ec2, held};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::Result;
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Repair, Round, Rule, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.subnet";

/// Outputs: `id`, `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub vpc: String,
    pub cidr: String,
    /// Zone name, such as `us-east-1a`.
    pub zone: String,
    pub public_ip_on_launch: bool,
    /// True if VPC Block Public Access of the account blocks all traffic between the subnet and the internet gateway.
    /// Never desired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walled: Option<bool>,
    pub tags: BTreeMap<String, String>,
}

pub struct Subnet;

pub struct SubnetHandlers {
    aws: Arc<Aws>,
}

impl SubnetHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn read(&self, filters: Vec<Filter>) -> Result<Vec<Found>> {
        let subnets = self
            .aws
            .ec2
            .describe_subnets()
            .set_filters(Some(filters))
            .max_results(1000)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeSubnets"))?;
        let mut found = Vec::new();
        for subnet in subnets {
            let tags = ec2::tags(subnet.tags());
            let (Some(id), Some((address, generation))) = (subnet.subnet_id(), self.aws.owned(&tags)) else {
                continue;
            };
            found.push(Found {
                address,
                generation,
                id: id.to_owned(),
                outputs: outputs(&subnet),
                state: Packed::of(&State {
                    vpc: subnet.vpc_id().unwrap_or_default().to_owned(),
                    cidr: subnet.cidr_block().unwrap_or_default().to_owned(),
                    zone: subnet.availability_zone().unwrap_or_default().to_owned(),
                    public_ip_on_launch: subnet.map_public_ip_on_launch().unwrap_or(false),
                    walled: is_walled(&subnet).then_some(true),
                    tags: self.aws.observed(&tags),
                })?,
                status: match subnet.state().map(|s| s.as_str()) {
                    Some("available") | None => Status::Ready,
                    Some("pending") => Status::Pending("pending".to_owned()),
                    Some(other) => Status::Failed { why: other.to_owned(), repair: Repair::Manual },
                },
                refs: vec![],
            });
        }
        Ok(found)
    }

    async fn set_public_ip(&self, id: &str, on: bool) -> Result<()> {
        self.aws
            .ec2
            .modify_subnet_attribute()
            .subnet_id(id)
            .map_public_ip_on_launch(AttributeBooleanValue::builder().value(on).build())
            .send()
            .await
            .map_err(ec2::making("ec2:ModifySubnetAttribute"))?;
        Ok(())
    }
}

/// The other mode of Block Public Access allows egress through NAT gateways (VPC User Guide, "Block public access to
/// VPCs and subnets").
fn is_walled(subnet: &aws_sdk_ec2::types::Subnet) -> bool {
    let mode = subnet.block_public_access_states().and_then(|states| states.internet_gateway_block_mode());
    mode == Some(&BlockPublicAccessMode::BlockBidirectional)
}

fn outputs(subnet: &aws_sdk_ec2::types::Subnet) -> crate::engine::value::Outputs {
    ec2::outputs([("id", subnet.subnet_id().unwrap_or_default()), ("arn", subnet.subnet_arn().unwrap_or_default())])
}

impl Kind for Subnet {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("vpc", Rule::Replace), ("cidr", Rule::Replace), ("zone", Rule::Replace), ("walled", Rule::ServerDefault)]
    }

    fn summary(&self, state: &Packed) -> String {
        ec2::summary(state, |s: &State| format!("{} {}", s.cidr, s.zone))
    }

    fn pace(&self, verb: Verb) -> Pace {
        ec2::held_pace(verb)
    }
}

impl ResourceKind for Subnet {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(SubnetHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("vpc", "L-407747CB", Per::Vpc)]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeSubnets"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["ec2:CreateSubnet"]),
            (On::Ours, When::Made, &["ec2:CreateSubnet"]),
            (On::Ours, When::Gone, &["ec2:DeleteSubnet"]),
            // The second action is for a GuardDuty endpoint that leaves the subnet.
            (On::Ours, When::Perhaps, &["ec2:ModifySubnetAttribute", "ec2:ModifyVpcEndpoint"]),
            (On::GuardDuty, When::Perhaps, &["ec2:ModifyVpcEndpoint"]),
            // Interfaces that EKS and the VPC CNI left behind don't have our tags.
            (On::Anything, When::Perhaps, &["ec2:DeleteNetworkInterface"]),
        ]
    }
}

#[async_trait]
impl Handlers for SubnetHandlers {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        let found = self.read(vec![ec2::ours(&self.aws)]).await?;
        Ok(Observation { found, ..Observation::default() })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        ec2::find(&self.aws, handles, |filters| self.read(filters)).await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let answer = self
            .aws
            .ec2
            .create_subnet()
            .vpc_id(&state.vpc)
            .cidr_block(&state.cidr)
            .availability_zone(&state.zone)
            .tag_specifications(ec2::specification(ResourceType::Subnet, &state.tags, new.generation))
            .customize()
            .config_override(ec2::once())
            .send()
            .await
            .map_err(ec2::making("ec2:CreateSubnet"))?;
        let subnet = answer.subnet().cloned().unwrap_or_else(|| aws_sdk_ec2::types::Subnet::builder().build());
        let id = subnet.subnet_id().unwrap_or_default();
        if state.public_ip_on_launch {
            let set = ec2::completing(&self.aws, || self.set_public_ip(id, true)).await;
            set.map_err(ec2::incomplete(id))?;
        }
        Ok(Made { id: id.to_owned(), outputs: outputs(&subnet), ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        if old.public_ip_on_launch != new.public_ip_on_launch {
            self.set_public_ip(&from.id, new.public_ip_on_launch).await?;
        }
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        held::delete_held(&self.aws, "subnet-id", &found.id, || async {
            self.aws.ec2.delete_subnet().subnet_id(&found.id).send().await.map_err(failed("ec2:DeleteSubnet"))
        })
        .await?;
        Ok(true)
    }
}
