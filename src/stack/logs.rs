//! Log groups and flow logs.

use std::collections::BTreeMap;

use serde_json::json;

use super::builder::{Builder, Terms};
use super::roles::Grants;
use super::site::Site;
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::engine::value::reference;
use crate::kinds::aws::{flow_log, log_group};

impl Builder<'_> {
    /// Adds the VPC's flow log, if the tier has one.
    pub(super) fn flow_logs(&mut self, site: &Site<'_>) -> Result<()> {
        if !site.cluster.network.flow_logs {
            return Ok(());
        }
        let owner = site.cluster.owner;
        let name = self.names.flow_log_group(owner);
        let group = site.at("log-group/flow-logs");
        let retention = site.cluster.network.flow_log_retention_days;
        self.log_group(site, group.clone(), &name, retention)?;

        let role = site.at("role/flow-logs");
        // The service principal is the same in every partition (docs.amazonaws.cn, VPC User Guide, "IAM role for
        // publishing flow logs").
        let trust =
            self.document("iam/flow-logs-trust.json", &role, json!({"flowLogArn": self.arn("ec2", "vpc-flow-log/*")}))?;
        let delivery = self.document(
            "iam/flow-logs-policy.json",
            &role,
            json!({"logGroupArn": self.arn("logs", format!("log-group:{name}"))}),
        )?;
        let name = self.names.role(owner, "flow-logs");
        let grants = Grants { inline: BTreeMap::from([("delivery".to_owned(), delivery)]), ..Grants::none() };
        self.role(role.clone(), name, trust, grants)?;

        let address = site.at("flow-log");
        let state = flow_log::State {
            vpc: site.output("vpc", "id"),
            log_group: reference(&group, "name"),
            role: reference(&role, "arn"),
            traffic: "ALL".to_owned(),
            aggregation: 600,
            tags: self.tags(&address, &site.name),
        };
        self.put(address, flow_log::NAME, &state, Terms::default())
    }

    /// Adds a log group that is encrypted with the cluster's key. Audit logs are kept after their cluster is deleted.
    pub(super) fn log_group(&mut self, site: &Site<'_>, address: Address, name: &str, days: u32) -> Result<()> {
        let state = log_group::State {
            name: name.to_owned(),
            retention_days: i32::try_from(days).ok(),
            key: Some(site.output("key", "arn")),
            tags: self.tags(&address, name),
        };
        self.put(address, log_group::NAME, &state, Terms::default())
    }
}
