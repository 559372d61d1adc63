use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, ResourceType};
use serde::{Deserialize, Serialize};

use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use super::{ec2, held, inside};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::Result;
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Round, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.internet-gateway";

/// An internet gateway with its attachment.
/// Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The VPC that the gateway is attached to. In an observed state, empty means detached.
    pub vpc: String,
    pub tags: BTreeMap<String, String>,
}

pub struct InternetGateway;

pub struct InternetGatewayHandlers {
    aws: Arc<Aws>,
}

impl InternetGatewayHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn read(&self, filters: Vec<Filter>) -> Result<Vec<Found>> {
        let gateways = self
            .aws
            .ec2
            .describe_internet_gateways()
            .set_filters(Some(filters))
            .max_results(1000)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeInternetGateways"))?;
        let mut found = Vec::new();
        for gateway in gateways {
            let tags = ec2::tags(gateway.tags());
            let (Some(id), Some((address, generation))) = (gateway.internet_gateway_id(), self.aws.owned(&tags)) else {
                continue;
            };
            let vpc = gateway.attachments().first().and_then(|a| a.vpc_id()).unwrap_or_default();
            found.push(Found {
                address,
                generation,
                id: id.to_owned(),
                outputs: ec2::outputs([("id", id)]),
                state: Packed::of(&State { vpc: vpc.to_owned(), tags: self.aws.observed(&tags) })?,
                status: Status::Ready,
                refs: vec![],
            });
        }
        Ok(found)
    }

    async fn attach(&self, id: &str, vpc: &str) -> Result<()> {
        let call = self.aws.ec2.attach_internet_gateway().internet_gateway_id(id).vpc_id(vpc).send().await;
        match call.map_err(ec2::making("ec2:AttachInternetGateway")) {
            Err(error) if error.code.as_deref() != Some("Resource.AlreadyAssociated") => Err(error),
            _ => Ok(()),
        }
    }

    async fn detach(&self, id: &str, vpc: &str) -> Result<()> {
        let call = self.aws.ec2.detach_internet_gateway().internet_gateway_id(id).vpc_id(vpc).send().await;
        match ec2::absent(call.map_err(failed("ec2:DetachInternetGateway"))) {
            // Resources with a public address block the detachment (EC2 API, DetachInternetGateway).
            Err(error) if error.code.as_deref() == Some(held::HELD) => {
                Err(held::held_by(error, &inside::public(&self.aws, vpc).await?))
            }
            result => result,
        }
    }
}

impl Kind for InternetGateway {
    fn name(&self) -> &'static str {
        NAME
    }

    fn creates_once(&self) -> bool {
        false
    }

    fn deleted_after(&self) -> &'static [&'static str] {
        &[super::nat_gateway::NAME, super::elastic_ip::NAME]
    }

    fn pace(&self, verb: Verb) -> Pace {
        ec2::held_pace(verb)
    }
}

impl ResourceKind for InternetGateway {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(InternetGatewayHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("vpc", "L-A4707A72", Per::Account(Counted::InternetGateways))]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeInternetGateways"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["ec2:CreateInternetGateway"]),
            (On::Ours, When::Made, &["ec2:AttachInternetGateway"]),
            (On::Ours, When::Gone, &["ec2:DeleteInternetGateway"]),
            (On::Ours, When::Perhaps, &["ec2:DetachInternetGateway"]),
        ]
    }
}

#[async_trait]
impl Handlers for InternetGatewayHandlers {
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
            .create_internet_gateway()
            .tag_specifications(ec2::specification(ResourceType::InternetGateway, &state.tags, new.generation))
            .customize()
            .config_override(ec2::once())
            .send()
            .await
            .map_err(failed("ec2:CreateInternetGateway"))?;
        let id = answer.internet_gateway().and_then(|g| g.internet_gateway_id()).unwrap_or_default();
        let attached = ec2::completing(&self.aws, || self.attach(id, &state.vpc)).await;
        attached.map_err(ec2::incomplete(id))?;
        Ok(Made { id: id.to_owned(), outputs: ec2::outputs([("id", id)]), ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        if old.vpc != new.vpc {
            if !old.vpc.is_empty() {
                self.detach(&from.id, &old.vpc).await?;
            }
            self.attach(&from.id, &new.vpc).await?;
        }
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        if !state.vpc.is_empty() {
            self.detach(&found.id, &state.vpc).await?;
        }
        let call = self.aws.ec2.delete_internet_gateway().internet_gateway_id(&found.id).send().await;
        ec2::absent(call.map_err(failed("ec2:DeleteInternetGateway")))?;
        Ok(true)
    }
}
