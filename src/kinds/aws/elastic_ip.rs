use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Address, DomainType, Filter, ResourceType};
use serde::{Deserialize, Serialize};

use super::costs::{Cost, Unit};
use super::ec2;
use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Round, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.elastic-ip";

/// Outputs: `id` (allocation id), `ip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub tags: BTreeMap<String, String>,
}

pub struct ElasticIp;

pub struct ElasticIpHandlers {
    aws: Arc<Aws>,
}

impl ElasticIpHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn addresses(&self, filters: Vec<Filter>) -> Result<Vec<Address>> {
        let call = self.aws.ec2.describe_addresses().set_filters(Some(filters)).send().await;
        Ok(call.map_err(failed("ec2:DescribeAddresses"))?.addresses.unwrap_or_default())
    }

    async fn read(&self, filters: Vec<Filter>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for ip in self.addresses(filters).await? {
            let tags = ec2::tags(ip.tags());
            let (Some(id), Some((address, generation))) = (ip.allocation_id(), self.aws.owned(&tags)) else {
                continue;
            };
            found.push(Found {
                address,
                generation,
                id: id.to_owned(),
                outputs: ec2::outputs([("id", id), ("ip", ip.public_ip().unwrap_or_default())]),
                state: Packed::of(&State { tags: self.aws.observed(&tags) })?,
                status: Status::Ready,
                refs: vec![],
            });
        }
        Ok(found)
    }
}

impl Kind for ElasticIp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn creates_once(&self) -> bool {
        false
    }

    fn pace(&self, verb: Verb) -> Pace {
        ec2::held_pace(verb)
    }
}

impl ResourceKind for ElasticIp {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(ElasticIpHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("ec2", "L-0263D0A3", Per::Account(Counted::ElasticIps))]
    }

    fn costs(&self, _state: &Packed) -> Vec<Cost> {
        vec![Cost::fixed(Unit::PublicAddressHour, 1)]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeAddresses"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[(On::New, When::Made, &["ec2:AllocateAddress"]), (On::Ours, When::Gone, &["ec2:ReleaseAddress"])]
    }
}

#[async_trait]
impl Handlers for ElasticIpHandlers {
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
            .allocate_address()
            .domain(DomainType::Vpc)
            .tag_specifications(ec2::specification(ResourceType::ElasticIp, &state.tags, new.generation))
            .customize()
            .config_override(ec2::once())
            .send()
            .await
            .map_err(failed("ec2:AllocateAddress"))?;
        let (id, ip) = (answer.allocation_id().unwrap_or_default(), answer.public_ip().unwrap_or_default());
        Ok(Made { id: id.to_owned(), outputs: ec2::outputs([("id", id), ("ip", ip)]), ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let call = self.aws.ec2.release_address().allocation_id(&found.id).send().await;
        match ec2::absent(call.map_err(failed("ec2:ReleaseAddress"))) {
            // AWS returns this error also for an address that is still associated, which a NAT gateway releases
            // shortly after its deletion, and for an address that is released already (EC2 API, ReleaseAddress).
            Err(error) if error.code.as_deref() == Some("AuthFailure") => {
                let all = self.addresses(vec![ec2::filter("allocation-id", [&found.id])]).await?;
                let Some(address) = all.first() else { return Ok(true) };
                let Some(association) = address.association_id() else { return Err(error) };
                let message = format!("{} is still associated ({association})", found.id);
                Err(Error { class: Class::Conflict, message, help: None, ..error })
            }
            result => result.map(|()| true),
        }
    }
}
