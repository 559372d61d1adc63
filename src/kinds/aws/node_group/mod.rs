//! Managed node groups.

mod budgets;
mod facts;
mod handlers;
mod instances;
mod read;
mod settings;
mod template;

use std::sync::Arc;

use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use crate::engine::kind::Handlers;
use crate::kinds::{Clients, ResourceKind};
use handlers::NodeGroupHandlers;

pub use facts::{NAME, NodeGroup, State, Taint};
pub use read::{Image, images};

pub(super) use read::all;

impl ResourceKind for NodeGroup {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(NodeGroupHandlers::new(clients.aws.clone(), clients.clusters.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("eks", "L-6D54EA21", Per::Cluster(|name| Counted::NodeGroups(name)))]
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
