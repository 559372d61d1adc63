use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, FlowLog as Log, FlowLogsResourceType, ResourceType, TrafficType};
use serde::{Deserialize, Serialize};

use super::ec2;
use super::permission::{self, On, When};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::Result;
use crate::engine::kind::{Change, Found, Handle, Handlers, Kind, Made, New, Observation, Round, Rule, Status, Wanted};
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.flow-log";

/// A VPC's flow log to CloudWatch Logs. Only its tags can be changed. Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub vpc: String,
    /// Name of the log group.
    pub log_group: String,
    /// ARN of the role that delivers the log.
    pub role: String,
    /// `ALL`, `ACCEPT` or `REJECT`.
    pub traffic: String,
    /// Seconds: 60 or 600.
    pub aggregation: i32,
    pub tags: BTreeMap<String, String>,
}

pub struct FlowLog;

pub struct FlowLogHandlers {
    aws: Arc<Aws>,
}

impl FlowLogHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn logs(&self, filters: Vec<Filter>) -> Result<Vec<Log>> {
        self.aws
            .ec2
            .describe_flow_logs()
            .set_filter(Some(filters))
            .max_results(1000)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeFlowLogs"))
    }

    fn found(&self, log: &Log) -> Result<Option<Found>> {
        let tags = ec2::tags(log.tags());
        let (Some(id), Some((address, generation))) = (log.flow_log_id(), self.aws.owned(&tags)) else {
            return Ok(None);
        };
        Ok(Some(Found {
            address,
            generation,
            id: id.to_owned(),
            outputs: ec2::outputs([("id", id)]),
            state: Packed::of(&State {
                vpc: log.resource_id().unwrap_or_default().to_owned(),
                log_group: log.log_group_name().unwrap_or_default().to_owned(),
                role: log.deliver_logs_permission_arn().unwrap_or_default().to_owned(),
                traffic: log.traffic_type().map(ToString::to_string).unwrap_or_default(),
                aggregation: log.max_aggregation_interval().unwrap_or_default(),
                tags: self.aws.observed(&tags),
            })?,
            status: Status::Ready,
            refs: vec![],
        }))
    }
}

impl Kind for FlowLog {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("vpc", Rule::Replace),
            ("log_group", Rule::Replace),
            ("role", Rule::Replace),
            ("traffic", Rule::Replace),
            ("aggregation", Rule::Replace),
        ]
    }

    fn summary(&self, state: &Packed) -> String {
        ec2::summary(state, |s: &State| format!("{} to {}", s.traffic, s.log_group))
    }
}

impl ResourceKind for FlowLog {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(FlowLogHandlers::new(clients.aws.clone()))
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeFlowLogs"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["ec2:CreateFlowLogs"]),
            (On::Ours, When::Made, &["ec2:CreateFlowLogs"]),
            (On::Ours, When::Gone, &["ec2:DeleteFlowLogs"]),
        ]
    }

    fn passes_roles_to(&self) -> &'static [&'static str] {
        &["vpc-flow-logs.amazonaws.com"]
    }
}

#[async_trait]
impl Handlers for FlowLogHandlers {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        let mut observation = Observation::default();
        for log in self.logs(vec![ec2::ours(&self.aws)]).await? {
            let Some(found) = self.found(&log)? else { continue };
            // AWS retries the delivery, so the flow log isn't replaced.
            if let Some(error) = log.deliver_logs_error_message().filter(|e| !e.is_empty()) {
                observation.notes.push(format!("{}: AWS can't deliver flow log {}: {error}", found.address, found.id));
            }
            observation.found.push(found);
        }
        Ok(observation)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let read = async |filters| {
            let logs = self.logs(filters).await?;
            logs.iter().filter_map(|log| self.found(log).transpose()).collect()
        };
        ec2::find(&self.aws, handles, read).await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        const CALL: &str = "ec2:CreateFlowLogs";
        let state: State = new.state.typed()?;
        let answer = self
            .aws
            .ec2
            .create_flow_logs()
            .resource_type(FlowLogsResourceType::Vpc)
            .resource_ids(&state.vpc)
            .traffic_type(TrafficType::from(state.traffic.as_str()))
            .log_group_name(&state.log_group)
            .deliver_logs_permission_arn(&state.role)
            .max_aggregation_interval(state.aggregation)
            .client_token(&new.token)
            .tag_specifications(ec2::specification(ResourceType::VpcFlowLog, &state.tags, new.generation))
            .send()
            .await
            .map_err(ec2::making(CALL))?;
        ec2::all_done(CALL, answer.unsuccessful()).map_err(ec2::not_yet)?;
        let id = answer.flow_log_ids().first().cloned().unwrap_or_default();
        // The resource is read again, because the token may have returned a deleted one.
        Ok(Made { outputs: ec2::outputs([("id", &id)]), id, ready: false })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        const CALL: &str = "ec2:DeleteFlowLogs";
        let call = self.aws.ec2.delete_flow_logs().flow_log_ids(&found.id).send().await;
        ec2::absent(call.map_err(failed(CALL)).and_then(|answer| ec2::all_done(CALL, answer.unsuccessful())))?;
        Ok(true)
    }
}
