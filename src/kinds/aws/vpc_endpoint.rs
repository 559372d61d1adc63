use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, ResourceType, VpcEndpoint as Endpoint, VpcEndpointType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::costs::{Cost, Unit};
use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use super::{ec2, policy};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::Result;
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Repair, Round, Rule, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.vpc-endpoint";

/// A gateway or interface endpoint.
/// Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub vpc: String,
    /// The full name, such as `com.amazonaws.us-east-1.s3`.
    pub service: String,
    /// `Gateway` or `Interface`.
    #[serde(rename = "type")]
    pub kind: String,
    pub policy: Value,
    /// Gateway: the route tables. Interface: empty.
    pub route_tables: Vec<String>,
    /// Interface: one subnet for each zone. Gateway: empty.
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub private_dns: bool,
    pub tags: BTreeMap<String, String>,
}

/// True for a policy that allows everything. AWS uses such a policy by default (EC2 API, CreateVpcEndpoint), and some
/// services support no other policy.
pub fn is_open(policy: &Value) -> bool {
    let statement = policy.pointer("/Statement/0");
    let all = |field: &str| {
        statement.and_then(|s| s.get(field)).is_some_and(|value| match value {
            Value::Array(items) => items.iter().any(|item| item == "*"),
            Value::Object(fields) => fields.values().any(|value| value == "*"),
            value => value == "*",
        })
    };
    let bound = statement.is_some_and(|s| s.get("Condition").is_some());
    policy.is_null() || (!bound && all("Principal") && all("Action") && all("Resource"))
}

pub struct VpcEndpoint;

pub struct VpcEndpointHandlers {
    aws: Arc<Aws>,
}

impl VpcEndpointHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn read(&self, filters: Vec<Filter>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for endpoint in endpoints(&self.aws, filters).await? {
            let tags = ec2::tags(endpoint.tags());
            let (Some(id), Some(status), Some((address, generation))) =
                (endpoint.vpc_endpoint_id(), status(&endpoint), self.aws.owned(&tags))
            else {
                continue;
            };
            let groups = endpoint.groups().iter().filter_map(|g| g.group_id());
            found.push(Found {
                address,
                generation,
                id: id.to_owned(),
                outputs: ec2::outputs([("id", id)]),
                state: Packed::of(&State {
                    vpc: endpoint.vpc_id().unwrap_or_default().to_owned(),
                    service: endpoint.service_name().unwrap_or_default().to_owned(),
                    kind: endpoint.vpc_endpoint_type().map(ToString::to_string).unwrap_or_default(),
                    policy: endpoint.policy_document().map(policy::parse).unwrap_or_default(),
                    route_tables: endpoint.route_table_ids().to_vec(),
                    subnets: endpoint.subnet_ids().to_vec(),
                    security_groups: groups.map(str::to_owned).collect(),
                    // Gateways don't use this field, whatever AWS returns.
                    private_dns: endpoint.vpc_endpoint_type() == Some(&VpcEndpointType::Interface)
                        && endpoint.private_dns_enabled().unwrap_or(false),
                    tags: self.aws.observed(&tags),
                })?,
                status,
                refs: vec![],
            });
        }
        Ok(found)
    }
}

/// All endpoints that match `filters`.
pub(super) async fn endpoints(aws: &Aws, filters: Vec<Filter>) -> Result<Vec<Endpoint>> {
    aws.ec2
        .describe_vpc_endpoints()
        .set_filters(Some(filters))
        .max_results(1000)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(failed("ec2:DescribeVpcEndpoints"))
}

/// `None`: the endpoint is deleted, which counts as absent. AWS returns states in lower case here, and elsewhere as
/// its model defines them (hashicorp/terraform-provider-aws, `internal/service/ec2/consts.go`).
pub(super) fn status(endpoint: &Endpoint) -> Option<Status> {
    let state = endpoint.state().map(|s| s.as_str().to_lowercase()).unwrap_or_default();
    Some(match state.as_str() {
        "deleted" => return None,
        "deleting" => Status::Deleting,
        "pending" | "pendingacceptance" => Status::Pending(state),
        "failed" | "rejected" | "expired" => {
            let said = endpoint.last_error().and_then(|e| e.message()).or(endpoint.failure_reason());
            let why = said.map_or(state.clone(), |said| format!("{state}: {said}"));
            Status::Failed { why, repair: Repair::Replace }
        }
        _ => Status::Ready,
    })
}

/// The elements of `these` that aren't in `others`.
fn minus(these: &[String], others: &[String]) -> Option<Vec<String>> {
    let left: Vec<String> = these.iter().filter(|id| !others.contains(id)).cloned().collect();
    Some(left).filter(|left| !left.is_empty())
}

impl Kind for VpcEndpoint {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Nodes and pods need the network until they are drained.
    fn deleted_after(&self) -> &'static [&'static str] {
        &[super::node_group::NAME, super::fargate_profile::NAME]
    }

    fn lets_in(&self) -> &'static [&'static str] {
        &["route_tables", "subnets"]
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("vpc", Rule::Replace),
            ("service", Rule::Replace),
            ("type", Rule::Replace),
            ("policy", Rule::Mentions),
            // The policy that AWS sets if the service supports no policy.
            ("policy", Rule::ServerDefault),
            ("route_tables", Rule::Unordered),
            ("subnets", Rule::Unordered),
            ("security_groups", Rule::Unordered),
        ]
    }

    fn summary(&self, state: &Packed) -> String {
        ec2::summary(state, |s: &State| format!("{} ({})", s.service, s.kind.to_lowercase()))
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            Verb::Create => Pace::secs(90, 900),
            Verb::Update => Pace::secs(30, 900),
            // AWS lists the endpoint until its interfaces are deleted (hashicorp/terraform-provider-aws,
            // `waitVPCEndpointDeleted`).
            Verb::Delete => Pace::secs(120, 1800),
        }
    }
}

impl ResourceKind for VpcEndpoint {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(VpcEndpointHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![
            Counts {
                weight: |state| usize::from(state["type"] == "Interface"),
                ..Counts::all("vpc", "L-29B6F2EB", Per::Vpc)
            },
            Counts {
                weight: |state| usize::from(state["type"] == "Gateway"),
                ..Counts::all("vpc", "L-1B52E74A", Per::Account(Counted::GatewayEndpoints))
            },
        ]
    }

    fn addresses(&self, _state: &Packed) -> usize {
        1
    }

    fn costs(&self, state: &Packed) -> Vec<Cost> {
        // Gateway endpoints are free (AWS PrivateLink Guide, "Gateway endpoints").
        match state["subnets"].as_array() {
            Some(zones) if state["type"] == "Interface" => {
                vec![Cost::fixed(Unit::EndpointHour, zones.len()), Cost::metered(Unit::EndpointGigabyte)]
            }
            _ => Vec::new(),
        }
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeVpcEndpoints"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            // Without route53:AssociateVPCWithHostedZone, although the reference lists it: AWS's own policy
            // AmazonVPCFullAccess, which allows any endpoint, doesn't have it.
            (On::New, When::Made, &["ec2:CreateVpcEndpoint"]),
            (On::Ours, When::Made, &["ec2:CreateVpcEndpoint"]),
            (On::Ours, When::Gone, &["ec2:DeleteVpcEndpoints"]),
            (On::Ours, When::Perhaps, &["ec2:ModifyVpcEndpoint"]),
        ]
    }
}

#[async_trait]
impl Handlers for VpcEndpointHandlers {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        let found = self.read(vec![ec2::ours(&self.aws)]).await?;
        Ok(Observation { found, ..Observation::default() })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        ec2::find(&self.aws, handles, |filters| self.read(filters)).await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let some = |ids: &[String]| Some(ids.to_vec()).filter(|ids| !ids.is_empty());
        let kind = VpcEndpointType::from(state.kind.as_str());
        // A gateway endpoint has no DNS of its own.
        let private_dns = (kind == VpcEndpointType::Interface).then_some(state.private_dns);
        let answer = self
            .aws
            .ec2
            .create_vpc_endpoint()
            .vpc_id(&state.vpc)
            .service_name(&state.service)
            .vpc_endpoint_type(kind)
            .set_policy_document((!state.policy.is_null()).then(|| state.policy.to_string()))
            .set_route_table_ids(some(&state.route_tables))
            .set_subnet_ids(some(&state.subnets))
            .set_security_group_ids(some(&state.security_groups))
            .set_private_dns_enabled(private_dns)
            .client_token(&new.token)
            .tag_specifications(ec2::specification(ResourceType::VpcEndpoint, &state.tags, new.generation))
            .send()
            .await
            .map_err(ec2::making("ec2:CreateVpcEndpoint"))?;
        let id = answer.vpc_endpoint().and_then(|e| e.vpc_endpoint_id()).unwrap_or_default();
        // The endpoint is read again, because the token may have returned a deleted one.
        Ok(Made { id: id.to_owned(), outputs: ec2::outputs([("id", id)]), ready: false })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, mut new): (State, State) = (from.state.typed()?, to.state.typed()?);
        if new.policy.is_null() {
            new.policy = old.policy.clone();
        }
        let made = Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: false };
        if (State { tags: old.tags.clone(), ..new.clone() }) != old {
            self.aws
                .ec2
                .modify_vpc_endpoint()
                .vpc_endpoint_id(&from.id)
                .set_policy_document((old.policy != new.policy).then(|| new.policy.to_string()))
                .set_add_route_table_ids(minus(&new.route_tables, &old.route_tables))
                .set_remove_route_table_ids(minus(&old.route_tables, &new.route_tables))
                .set_add_subnet_ids(minus(&new.subnets, &old.subnets))
                .set_remove_subnet_ids(minus(&old.subnets, &new.subnets))
                .set_add_security_group_ids(minus(&new.security_groups, &old.security_groups))
                .set_remove_security_group_ids(minus(&old.security_groups, &new.security_groups))
                .set_private_dns_enabled((old.private_dns != new.private_dns).then_some(new.private_dns))
                .send()
                .await
                .map_err(ec2::making("ec2:ModifyVpcEndpoint"))?;
        }
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(made)
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        const CALL: &str = "ec2:DeleteVpcEndpoints";
        let call = self.aws.ec2.delete_vpc_endpoints().vpc_endpoint_ids(&found.id).send().await;
        ec2::absent(call.map_err(failed(CALL)).and_then(|answer| ec2::all_done(CALL, answer.unsuccessful())))?;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::State;

    use super::*;

    #[test]
    fn states_in_any_case() {
        let status = |state: &str| status(&Endpoint::builder().state(State::from(state)).build());
        for (state, is) in [
            ("deleted", None),
            ("Deleted", None),
            ("deleting", Some(Status::Deleting)),
            ("Deleting", Some(Status::Deleting)),
            ("PendingAcceptance", Some(Status::Pending("pendingacceptance".to_owned()))),
            ("Available", Some(Status::Ready)),
        ] {
            assert_eq!(status(state), is, "{state}");
        }
    }
}
