//! Tenants that share a cluster, and the quotas of EKS.

use std::collections::BTreeMap;

use super::{Checker, Member};
use crate::spec::error::{Code, SpecError};
use crate::spec::region::has_fargate;
use crate::spec::settings::IsolationModel;
use crate::spec::tree::{Mark, Node};
use crate::spec::uid::uid_range;
use crate::spec::words::quote;

/// Default quotas of EKS (Service Quotas). AWS raises each of them on request.
const NODE_GROUPS: usize = 30;
const FARGATE_PROFILES: usize = 10;
const CLUSTERS: usize = 100;

impl Checker<'_, '_> {
    /// Checks tenants that share a cluster: their user IDs must differ, and quotas bound their number.
    pub(super) fn placement(&mut self, pools: &[Member], tenants: &[Member]) {
        let mut ranges: BTreeMap<(&str, u32), (&str, &Mark)> = BTreeMap::new();
        for (i, tenant) in tenants.iter().enumerate() {
            let text = |key: &str| tenant.node.get(key).and_then(Node::with_text);
            let (Some((node, id)), Some((_, pool))) = (text("id"), text("pool")) else { continue };
            let range = uid_range(id);
            match ranges.get(&(pool, range.first)) {
                Some((other, first)) if *other != id => {
                    let message = format!(
                        "tenant {} gets the same user IDs as tenant {} ({}–{})",
                        quote(id),
                        quote(other),
                        range.first,
                        range.last
                    );
                    let path = format!("spec.tenants[{i}].id");
                    let error = SpecError::new(Code::Duplicate, path, &node.mark, message);
                    let help = "user IDs are derived from tenant ids: give the newer tenant another id, or put it into another pool";
                    self.findings.error(error.help(help).related(first, "the other tenant"));
                }
                Some(_) => {}
                None => {
                    ranges.insert((pool, range.first), (id, &node.mark));
                }
            }
        }
        if let Some(region) = self.region().filter(|region| !has_fargate(region)) {
            for (i, tenant) in tenants.iter().enumerate() {
                let tier = tenant.node.get("tier").filter(|_| tenant.said.isolation == Some(IsolationModel::Fargate));
                let Some(tier) = tier else { continue };
                let message = format!("EKS offers no Fargate in {region}");
                let help = "choose a tier with the isolation `pool` or `silo`, such as `standard` or `premium`";
                self.error(Code::Forbidden, &format!("spec.tenants[{i}].tier"), &tier.mark, message, help);
            }
        }
        // Tenants on nodes and on Fargate, by the pool's name.
        let mut living: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for tenant in tenants {
            let Some(pool) = tenant.node.get("pool").and_then(Node::text) else { continue };
            let (on_nodes, on_fargate) = living.entry(pool).or_default();
            *on_nodes += usize::from(tenant.said.isolation == Some(IsolationModel::Pool));
            *on_fargate += usize::from(tenant.said.isolation == Some(IsolationModel::Fargate));
        }
        for (i, pool) in pools.iter().enumerate() {
            let Some((node, name)) = pool.node.get("name").and_then(Node::with_text) else { continue };
            let (on_nodes, on_fargate) = living.get(name).copied().unwrap_or_default();
            let counts = [
                ("managed node groups", on_nodes + 1, NODE_GROUPS),
                ("Fargate profiles", on_fargate, FARGATE_PROFILES),
            ];
            for (what, count, quota) in counts.into_iter().filter(|(_, count, quota)| count > quota) {
                self.over_quota(
                    &format!("spec.pools[{i}]"),
                    &node.mark,
                    &format!("{what} in one cluster"),
                    count,
                    quota,
                );
            }
        }
        let silos = tenants.iter().filter(|t| t.said.isolation == Some(IsolationModel::Silo)).count();
        if let Some(region) = self.at("spec.region").filter(|_| pools.len() + silos > CLUSTERS) {
            self.over_quota("spec", &region.mark, "EKS clusters in one region", pools.len() + silos, CLUSTERS);
        }
    }

    pub(super) fn over_quota(&mut self, path: &str, mark: &Mark, what: &str, count: usize, quota: usize) {
        let message = format!("the spec needs {count} {what}, but the default quota is {quota}");
        let help = format!("before you apply, ask Service Quotas to raise the quota `{what}`");
        self.findings.warn(SpecError::new(Code::Quota, path, mark, message).help(help));
    }
}
