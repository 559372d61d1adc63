//! Facts for the stack: what exists, and what AWS offers. The stack needs them to compute the desired state.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use jiff::SignedDuration;
use serde_json::Value;

use super::Session;
use crate::engine::address::Address;
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Observation, Round, Status};
use crate::engine::observe::Known;
use crate::kinds::aws::{eks_addon, eks_cluster, iam_role, node_group, offers, subnet, versions, vpc, vpc_endpoint};
use crate::spec::{self, KubernetesVersion};
use crate::stack::{self, Facts, NodeGroup, Offer, Zone};

/// How long after an upgrade EKS can roll back a control plane (EKS User Guide, "Roll back a cluster to a previous
/// Kubernetes version").
const ROLLBACK: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Session {
    /// Reads the kinds that hold earlier decisions: CIDR blocks, zones, and subnets of endpoints. They can be read
    /// before the desired state is known, because their tags alone say that they are ours.
    pub(super) async fn decided(&self, round: &Round) -> Result<Known> {
        let reads = [vpc::NAME, subnet::NAME, vpc_endpoint::NAME].map(|name| async move {
            Ok::<_, Error>(((self.aws.scope.clone(), name), self.decisions(name, round).await?))
        });
        Ok(try_join_all(reads).await?.into_iter().collect())
    }

    async fn decisions(&self, name: &'static str, round: &Round) -> Result<Observation> {
        self.kinds.handlers(name, &self.aws.scope)?.observe(round, &[]).await.map_err(|e| unreadable(name, e))
    }

    pub(super) async fn facts(
        &self,
        round: &Round,
        known: &Known,
        upgrade: bool,
        decided: BTreeMap<Address, KubernetesVersion>,
    ) -> Result<Facts> {
        let found = |kind| known.get(&(self.aws.scope.clone(), kind)).into_iter().flat_map(|o| &o.found);
        // These kinds are read again once the desired names are known, because a resource with a desired name that
        // isn't ours must be found. The round caches the calls.
        let (clusters, addons) =
            futures::try_join!(self.decisions(eks_cluster::NAME, round), self.decisions(eks_addon::NAME, round))?;
        let mut facts = Facts {
            account: self.aws.scope.account.clone(),
            partition: self.aws.scope.partition.clone(),
            upgrade,
            decided,
            ..Facts::default()
        };
        // If two VPCs have the same address, the VPC with our subnets takes precedence.
        let used: BTreeSet<&str> = found(subnet::NAME).filter_map(|one| text(&one.state, "vpc")).collect();
        let (theirs, ours): (Vec<_>, Vec<_>) = found(vpc::NAME).partition(|one| !used.contains(one.id.as_str()));
        for one in theirs.into_iter().chain(ours) {
            let cidr = text(&one.state, "cidr").and_then(|c| c.parse().ok());
            facts.vpcs.extend(cidr.map(|c| (one.address.clone(), c)));
        }
        if self.spec.clusters().any(|c| !facts.vpcs.contains_key(&stack::vpc(c.owner))) {
            let others = vpc::others(&self.aws).await?.into_iter();
            let blocks = |all: Vec<String>| all.iter().filter_map(|block| block.parse().ok()).collect();
            facts.other_vpcs = others.map(|(id, all)| (id, blocks(all))).collect();
        }
        for one in found(subnet::NAME) {
            let cidr = text(&one.state, "cidr").and_then(|c| c.parse().ok());
            if let (Some(cidr), Some(zone)) = (cidr, text(&one.state, "zone")) {
                facts.subnets.insert(one.address.clone(), stack::Subnet { cidr, zone: zone.to_owned() });
            }
            let walled = text(&one.state, "vpc").filter(|_| one.state.get("walled") == Some(&Value::Bool(true)));
            facts.walled.extend(walled.map(|vpc| (one.address.clone(), vpc.to_owned())));
        }
        let zones: BTreeMap<&str, &str> =
            found(subnet::NAME).filter_map(|one| Some((one.id.as_str(), text(&one.state, "zone")?))).collect();
        for one in found(vpc_endpoint::NAME).filter(|one| text(&one.state, "type") == Some("Interface")) {
            let subnets = one.state.get("subnets").and_then(Value::as_array).into_iter().flatten();
            let there = subnets.filter_map(|id| zones.get(id.as_str()?)).map(|zone| (*zone).to_owned()).collect();
            let open = one.state.get("policy").is_none_or(vpc_endpoint::is_open);
            facts.endpoints.insert(one.address.clone(), stack::Endpoint { zones: there, open });
        }
        for one in &addons.found {
            facts.addons.extend(text(&one.state, "version").map(|v| (one.address.clone(), v.to_owned())));
        }
        for one in &clusters.found {
            let subnets = one.state.get("subnets").and_then(Value::as_array).into_iter().flatten();
            let zones: Option<BTreeSet<String>> =
                subnets.map(|id| zones.get(id.as_str()?).map(|zone| (*zone).to_owned())).collect();
            if let (Some(zones), Status::Ready | Status::Pending(_)) = (zones, &one.status) {
                facts.cluster_zones.insert(one.address.clone(), zones);
            }
            let services = text(&one.state, "service_cidr").and_then(|c| c.parse().ok());
            facts.service_cidrs.extend(services.map(|c| (one.address.clone(), c)));
            let version = text(&one.state, "version").and_then(KubernetesVersion::parse);
            facts.kubernetes.extend(version.map(|v| (one.address.clone(), v)));
        }
        facts.images = node_group::images(&self.aws, round).await?;
        self.moves(round, &mut facts).await?;
        stack::settle_facts(&self.spec, &mut facts);
        let zones = versions::zones(&self.aws);
        let images = stack::images(&self.spec, &facts);
        // If the newest images can't be read, nodes keep their images. With --upgrade the failed read is an error.
        let releases = async {
            match versions::image_releases(&self.aws, &images).await {
                Ok(releases) => Ok((releases, None)),
                Err(error) if upgrade => Err(error),
                Err(error) => Ok((BTreeMap::new(), Some(error.to_string()))),
            }
        };
        let offered = try_join_all(self.wanted_addons(&facts).into_iter().map(|(version, names)| async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let offers = versions::addon_versions(&self.aws, &version.to_string(), &names).await?;
            let offers: BTreeMap<String, Offer> = offers
                .into_iter()
                .map(|(name, all)| {
                    let default = all.iter().find(|v| v.default).map(|v| v.version.clone());
                    (name, Offer { default, versions: all.into_iter().map(|v| v.version).collect() })
                })
                .collect();
            Ok::<_, Error>((version, offers))
        }));
        let asked = stack::services_to_ask(&self.spec, &facts);
        let services = offers::services(&self.aws, &asked);
        let (zones, releases, offered, services) = futures::try_join!(zones, releases, offered, services)?;
        (facts.releases, facts.releases_unread) = releases;
        facts.services = services;
        facts.zones = zones.into_iter().map(|z| Zone { name: z.name, id: z.id }).collect();
        facts.offered = offered.into_iter().collect();
        facts.roles = self.roles(round).await?;
        Ok(facts)
    }

    /// For clusters whose version differs from the spec: their node groups, and until when EKS can roll them back.
    async fn moves(&self, round: &Round, facts: &mut Facts) -> Result<()> {
        let running = |c: &spec::ClusterOf<'_>| facts.kubernetes.get(&stack::prefix(c.owner).join("cluster")).copied();
        let moving: Vec<_> = self.spec.clusters().filter_map(|c| Some((running(&c)?, c))).collect();
        let moving: Vec<_> = moving.into_iter().filter(|(running, c)| *running != c.kubernetes_version).collect();
        if moving.is_empty() {
            return Ok(());
        }
        let groups = self.kinds.handlers(node_group::NAME, &self.aws.scope)?.observe(round, &[]).await;
        for one in groups.map_err(|e| unreadable(node_group::NAME, e))?.found {
            let version = text(&one.state, "version").and_then(KubernetesVersion::parse);
            if let (Some(cluster), Some(version)) = (text(&one.state, "cluster"), version) {
                facts.node_groups.insert(one.address.clone(), NodeGroup { cluster: cluster.to_owned(), version });
            }
        }
        for (running, cluster) in moving {
            let back = KubernetesVersion { minor: running.minor.saturating_sub(1), ..running };
            if cluster.kubernetes_version != back {
                continue;
            }
            let name = spec::names::Names::new(&self.spec).cluster(cluster.owner);
            let upgraded = versions::upgraded(&self.aws, &name, &running.to_string()).await?;
            let until = upgraded.and_then(|t| t.checked_add(ROLLBACK).ok()).filter(|until| *until > Clock::timestamp());
            if let Some(until) = until {
                let day = until.to_zoned(jiff::tz::TimeZone::UTC).date();
                facts.rollback.insert(stack::prefix(cluster.owner).join("cluster"), day);
            }
        }
        Ok(())
    }

    /// The add-ons whose versions are needed, by the Kubernetes version that a cluster runs now or next.
    fn wanted_addons(&self, facts: &Facts) -> BTreeMap<KubernetesVersion, Vec<String>> {
        let mut wanted: BTreeMap<KubernetesVersion, Vec<String>> = BTreeMap::new();
        for cluster in self.spec.clusters() {
            let next = facts.next_version(&self.spec, &cluster);
            let names = wanted.entry(next).or_default();
            names.extend(cluster.profile.addons.iter().map(|(name, _)| name.to_owned()));
            names.sort();
            names.dedup();
        }
        wanted
    }

    /// The paths of roles that the spec names by a session's ARN. Such an ARN has no path, so IAM is asked for it.
    async fn roles(&self, round: &Round) -> Result<BTreeMap<String, String>> {
        let access = &self.spec.access;
        let all: Vec<_> = access.admins.iter().chain(&access.operators).collect();
        let mut roles: BTreeMap<String, String> = all.iter().map(|p| (p.arn.clone(), p.arn.clone())).collect();
        if all.iter().any(|p| p.session) {
            let by_name = iam_role::arns(round, &self.aws).await?;
            for principal in all.iter().filter(|p| p.session) {
                if let Some(arn) = by_name.get(principal.name()) {
                    roles.insert(principal.arn.clone(), arn.clone());
                }
            }
        }
        Ok(roles)
    }
}

fn unreadable(kind: &str, mut error: Error) -> Error {
    if error.class == Class::NotFound {
        error.class = Class::NotYet;
    }
    error.message = format!("resources of the kind {kind} can't be read, so no plan is possible: {}", error.message);
    error
}

fn text<'a>(state: &'a Value, field: &str) -> Option<&'a str> {
    state.get(field).and_then(Value::as_str)
}
