//! Managed node groups.

mod budgets;
mod facts;
mod handlers;
mod instances;
mod read;
mod settings;
mod template;

use std::sync::Arc;

use serde_json::Value;

use super::costs::{Amount, Cost, Unit};
use super::permission::{self, On, When};
use super::quotas::{self, Counted, Counts, Per};
use crate::engine::kind::Handlers;
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};
use handlers::NodeGroupHandlers;

pub use facts::{NAME, NodeGroup, State, Taint};
pub use read::{Image, images};

pub(super) use read::all;

fn count(state: &Packed, field: &str) -> usize {
    state[field].as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
}

/// The least number of vCPUs that the nodes have, if they are of this capacity type.
fn least_vcpus(state: &Packed, capacity: &str) -> usize {
    if state["capacity_type"] != capacity {
        return 0;
    }
    let types = state["instance_types"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let each = types.map(quotas::vcpus).min().unwrap_or_default();
    count(state, "min").max(count(state, "desired")).saturating_mul(each)
}

impl ResourceKind for NodeGroup {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(NodeGroupHandlers::new(clients.aws.clone(), clients.clusters.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        // "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances" and "All Standard (…) Spot Instance
        // Requests".
        let vcpus = |code, weight: fn(&Packed) -> usize| Counts {
            weight,
            unit: "vCPUs",
            ..Counts::all("ec2", code, Per::Tenancy)
        };
        vec![
            Counts::all("eks", "L-6D54EA21", Per::Cluster(|name| Counted::NodeGroups(name))),
            vcpus("L-1216C47A", |state| least_vcpus(state, "ON_DEMAND")),
            vcpus("L-34B43A08", |state| least_vcpus(state, "SPOT")),
        ]
    }

    /// EKS spreads the nodes over the subnets.
    fn addresses(&self, state: &Packed) -> usize {
        count(state, "min") / state["subnets"].as_array().map_or(1, |all| all.len().max(1))
    }

    fn costs(&self, state: &Packed) -> Vec<Cost> {
        let [min, desired, max] =
            ["min", "desired", "max"].map(|field| u32::try_from(count(state, field)).unwrap_or(u32::MAX));
        let instance_type = state["instance_types"][0].as_str().unwrap_or_default().to_owned();
        let unit = Unit::InstanceHour { instance_type, spot: state["capacity_type"] == "SPOT" };
        vec![Cost { unit, amount: Amount::Nodes { min, desired, max } }]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeInstances", "eks:DescribeNodegroup", "eks:ListNodegroups"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Clusters, When::Made, &["eks:CreateNodegroup", "eks:TagResource"]),
            (On::Clusters, When::Gone, &["eks:DeleteNodegroup"]),
            (On::Clusters, When::Perhaps, &["eks:UpdateNodegroupConfig", "eks:UpdateNodegroupVersion"]),
            // EKS checks that the caller may launch the template's instances (Auto Scaling User Guide, "Launch
            // template support"), and reads the node role with the caller's permissions
            // (aws-controllers-k8s/community, issue 2164).
            (On::Anything, When::Made, &["ec2:RunInstances"]),
            (On::Roles, When::Made, &["iam:ListAttachedRolePolicies"]),
        ]
    }

    fn passes_roles_to(&self) -> &'static [&'static str] {
        &["ec2.amazonaws.com", "eks.amazonaws.com"]
    }
}
