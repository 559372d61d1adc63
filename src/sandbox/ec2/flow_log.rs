//! Flow logs.

use super::super::clock::iso8601;
use super::{Call, Fault, Reply, fault, get, invalid, missing};
use serde_json::{Value, json};

/// Resource type and id prefix.
const TYPES: &[(&str, &str)] = &[("VPC", "vpc"), ("Subnet", "subnet"), ("NetworkInterface", "eni")];
const FORMAT: &str = "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} ${start} ${end} ${action} ${log-status}";

impl Call<'_> {
    pub(super) fn create_flow_logs(&mut self) -> Reply {
        let mut unsuccessful = Vec::new();
        let made = self.once(|call| call.new_flow_logs(&mut unsuccessful))?;
        let ids: Vec<&str> = made.split(',').filter(|id| !id.is_empty()).collect();
        Ok(json!({"flowLogIdSet": ids, "unsuccessful": unsuccessful, "clientToken": self.req.text("ClientToken")}))
    }

    fn new_flow_logs(&mut self, unsuccessful: &mut Vec<Value>) -> Result<String, Fault> {
        let req = self.req;
        let resources = req.texts("ResourceId");
        let of = self.require("ResourceType")?;
        let (_, prefix) = TYPES
            .iter()
            .find(|(name, _)| *name == of)
            .ok_or_else(|| invalid(format!("Value ({of}) for parameter resourceType is invalid.")))?;
        if resources.is_empty() {
            return Err(missing("ResourceId"));
        }
        let traffic = self.require("TrafficType")?;
        if !["ACCEPT", "REJECT", "ALL"].contains(&traffic.as_str()) {
            return Err(invalid(format!("Value ({traffic}) for parameter trafficType is invalid.")));
        }
        let interval = req.text("MaxAggregationInterval").unwrap_or_else(|| "600".to_owned());
        let seconds = match interval.as_str() {
            "60" => 60,
            "600" => 600,
            _ => {
                return Err(invalid("Invalid Flow Log Max Aggregation Interval. Valid values are 60 and 600 seconds."));
            }
        };
        let kind = req.text("LogDestinationType").unwrap_or_else(|| "cloud-watch-logs".to_owned());
        let to_logs = kind == "cloud-watch-logs";
        let role = req.text("DeliverLogsPermissionArn");
        let (mut group, mut destination) = (req.text("LogGroupName"), req.text("LogDestination"));
        if to_logs {
            let message = "DeliverLogsPermissionArn can't be empty if LogDestinationType is cloud-watch-logs.";
            self.delivering(role.as_deref().ok_or_else(|| fault("InvalidParameter", message))?)?;
            if group.is_none() && destination.is_none() {
                let message = "LogGroupName can't be empty if LogDestinationType is cloud-watch-logs.";
                return Err(fault("InvalidParameter", message));
            }
            let name = destination.as_deref().and_then(|arn| arn.split(":log-group:").nth(1));
            group = group.or(name.map(|name| name.trim_end_matches(":*").to_owned()));
            destination = destination.or(group
                .as_ref()
                .map(|group| format!("arn:{}:logs:{}:{}:log-group:{group}", req.partition(), req.region, req.account)));
        } else if destination.is_none() {
            return Err(fault(
                "InvalidParameter",
                format!("LogDestination can't be empty if LogDestinationType is {kind}."),
            ));
        }
        let mut made = Vec::new();
        for id in &resources {
            if let Err(Fault { code, message, .. }) = self.ec2.find(prefix, id) {
                unsuccessful.push(json!({"resourceId": id, "error": {"code": code, "message": message}}));
                continue;
            }
            let twin = self.ec2.with("fl", "resourceId", id).any(|(_, other)| {
                get(other, "logDestination") == destination.as_deref().unwrap_or_default()
                    && get(other, "trafficType") == traffic
            });
            if twin {
                let message = "Error. There is an existing Flow Log with the same configuration and log destination.";
                return Err(fault("FlowLogAlreadyExists", message));
            }
            made.push(self.create(
                "fl",
                "flowLogId",
                json!({
                    "resourceId": id, "trafficType": traffic, "creationTime": iso8601(req.now), "flowLogStatus": "ACTIVE",
                    "deliverLogsStatus": "SUCCESS", "deliverLogsPermissionArn": role, "logDestinationType": kind,
                    "logDestination": destination, "logGroupName": group, "maxAggregationInterval": seconds,
                    "logFormat": req.text("LogFormat").unwrap_or_else(|| FORMAT.to_owned()),
                }),
            )?);
        }
        Ok(made.join(","))
    }

    /// The role must exist and trust the flow log service.
    fn delivering(&self, arn: &str) -> Result<(), Fault> {
        match self.iam.role_by_arn(arn) {
            Some(role) if role.trusts("vpc-flow-logs.amazonaws.com") => Ok(()),
            _ => Err(fault("InvalidParameter", format!("Unable to assume given IAM role: '{arn}'"))),
        }
    }

    pub(super) fn delete_flow_logs(&mut self) -> Reply {
        let ids = self.req.texts("FlowLogId");
        for id in &ids {
            self.ec2.find("fl", id)?;
        }
        for id in &ids {
            self.ec2.resources.remove(id);
        }
        Ok(json!({"unsuccessful": []}))
    }
}
