use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, NatGatewayState, ResourceType};
use serde::{Deserialize, Serialize};

use super::costs::{Cost, Unit};
use super::ec2;
use super::permission::{self, On, When};
use super::quotas::{Counts, Per};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::Result;
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Repair, Round, Rule, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.nat-gateway";

/// Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub subnet: String,
    /// The allocation id of its Elastic IP address.
    pub allocation: String,
    pub tags: BTreeMap<String, String>,
}

pub struct NatGateway;

pub struct NatGatewayHandlers {
    aws: Arc<Aws>,
}

impl NatGatewayHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    /// AWS lists deleted gateways for an hour. They count as absent (kubernetes-sigs/cluster-api-provider-aws#791).
    async fn read(&self, mut filters: Vec<Filter>) -> Result<Vec<Found>> {
        filters.push(ec2::filter("state", ["pending", "available", "failed", "deleting"]));
        let gateways = self
            .aws
            .ec2
            .describe_nat_gateways()
            .set_filter(Some(filters))
            .max_results(1000)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeNatGateways"))?;
        let mut found = Vec::new();
        for gateway in gateways {
            let tags = ec2::tags(gateway.tags());
            let (Some(id), Some((address, generation))) = (gateway.nat_gateway_id(), self.aws.owned(&tags)) else {
                continue;
            };
            let addresses = gateway.nat_gateway_addresses();
            let primary = addresses.iter().find(|a| a.is_primary() == Some(true)).or(addresses.first());
            found.push(Found {
                address,
                generation,
                id: id.to_owned(),
                outputs: ec2::outputs([("id", id)]),
                state: Packed::of(&State {
                    subnet: gateway.subnet_id().unwrap_or_default().to_owned(),
                    allocation: primary.and_then(|a| a.allocation_id()).unwrap_or_default().to_owned(),
                    tags: self.aws.observed(&tags),
                })?,
                status: match gateway.state() {
                    Some(NatGatewayState::Pending) => Status::Pending("pending".to_owned()),
                    Some(NatGatewayState::Deleting) => Status::Deleting,
                    Some(NatGatewayState::Failed) => Status::Failed {
                        why: format!(
                            "{}: {}",
                            gateway.failure_code().unwrap_or("failed"),
                            gateway.failure_message().unwrap_or("AWS names no reason")
                        ),
                        repair: Repair::Replace,
                    },
                    _ => Status::Ready,
                },
                refs: vec![],
            });
        }
        Ok(found)
    }
}

impl Kind for NatGateway {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Nodes and pods need the network until they are drained.
    fn deleted_after(&self) -> &'static [&'static str] {
        &[super::node_group::NAME, super::fargate_profile::NAME]
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("subnet", Rule::Replace), ("allocation", Rule::Replace)]
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            Verb::Create => Pace::secs(105, 600),
            Verb::Update => Pace::secs(2, 120),
            Verb::Delete => Pace::secs(60, 1800),
        }
    }
}

impl ResourceKind for NatGateway {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(NatGatewayHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("vpc", "L-FE5A380F", Per::Zone)]
    }

    fn addresses(&self, _state: &Packed) -> usize {
        1
    }

    fn costs(&self, _state: &Packed) -> Vec<Cost> {
        vec![Cost::fixed(Unit::NatGatewayHour, 1), Cost::metered(Unit::NatGatewayGigabyte)]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeNatGateways"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["ec2:CreateNatGateway"]),
            (On::Ours, When::Made, &["ec2:CreateNatGateway"]),
            (On::Ours, When::Gone, &["ec2:DeleteNatGateway"]),
        ]
    }
}

#[async_trait]
impl Handlers for NatGatewayHandlers {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        let found = self.read(vec![ec2::ours(&self.aws)]).await?;
        Ok(Observation { found, ..Observation::default() })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        ec2::find(&self.aws, handles, |filters| self.read(filters)).await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let make = async |token: String| {
            let answer = self
                .aws
                .ec2
                .create_nat_gateway()
                .subnet_id(&state.subnet)
                .allocation_id(&state.allocation)
                .client_token(token)
                .tag_specifications(ec2::specification(ResourceType::Natgateway, &state.tags, new.generation))
                .send()
                .await
                .map_err(ec2::making("ec2:CreateNatGateway"))?;
            let gateway = answer.nat_gateway();
            let id = gateway.and_then(|g| g.nat_gateway_id()).unwrap_or_default();
            let made = Made { id: id.to_owned(), outputs: ec2::outputs([("id", id)]), ready: false };
            Ok((made, gateway.and_then(|g| g.state()) != Some(&NatGatewayState::Deleted)))
        };
        ec2::alive(&new.token, make).await
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: from.status == Status::Ready })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let call = self.aws.ec2.delete_nat_gateway().nat_gateway_id(&found.id).send().await;
        ec2::absent(call.map_err(failed("ec2:DeleteNatGateway")))?;
        Ok(false)
    }
}
