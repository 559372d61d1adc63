//! Reads what exists, builds what should exist, and plans the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Session;
use super::session::written;
use crate::engine::address::{Address, Owner};
use crate::engine::desired::Desired;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::Round;
use crate::engine::observe::{self, Observed};
use crate::engine::pause::Patience;
use crate::engine::plan::{self, Plan, Policy};
use crate::kinds::aws::eks_cluster;
use crate::spec::{self, KubernetesVersion};
use crate::stack::{self, Facts};

/// How long AWS's reads may lag behind its writes (eventual consistency).
const LAG: Duration = Duration::from_secs(60);

/// The desired state and the observed state.
pub struct Look {
    pub facts: Facts,
    pub desired: Desired,
    pub observed: Observed,
    /// False if some cluster's objects weren't read.
    read_all: bool,
    /// The desired version of each cluster, by address.
    pub versions: BTreeMap<Address, KubernetesVersion>,
}

impl Session {
    /// Reads what exists, and builds what should exist. There are two rounds of bulk reads: the first one tells the
    /// stack which decisions were taken before.
    pub async fn look(&self, policy: &Policy, upgrade: bool) -> Result<Look> {
        let look = self.look_for(policy, upgrade, BTreeMap::new()).await?;
        self.know_clusters(&look.observed)?;
        Ok(look)
    }

    /// [`Self::look`] with these versions of clusters. A list may name a resource that the next call doesn't find,
    /// because the resource is new and AWS's reads are eventually consistent, or because it was deleted in between.
    /// So everything is read again until the answers are consistent.
    async fn look_for(
        &self,
        policy: &Policy,
        upgrade: bool,
        versions: BTreeMap<Address, KubernetesVersion>,
    ) -> Result<Look> {
        let mut patience = Patience::new(&self.aws.clock, LAG);
        loop {
            let look = self.look_once(policy, upgrade, versions.clone()).await;
            let unsettled = match &look {
                Ok(look) => look.observed.unreadable.values().any(is_unsettled),
                Err(error) => error.class == Class::NotYet,
            };
            if !unsettled || !patience.wait().await {
                return look;
            }
        }
    }

    async fn look_once(
        &self,
        policy: &Policy,
        upgrade: bool,
        versions: BTreeMap<Address, KubernetesVersion>,
    ) -> Result<Look> {
        let round = Round::default();
        let known = self.decided(&round).await?;
        let facts = self.facts(&round, &known, upgrade, versions).await?;
        let facts = Facts { replacing: policy.allow_replace.clone(), ..facts };
        let desired = stack::build(&self.spec, &facts, &self.templates)?;
        let mut observed = observe::observe(&self.kinds, &desired, &round, known, self.in_cluster).await;
        observed.notes.extend(stack::old_images(&desired, &facts));
        stack::settle(&self.spec, &mut observed);
        let read_all = self.in_cluster && observed.unread.is_empty();
        let next =
            |c: spec::ClusterOf<'_>| (stack::prefix(c.owner).join("cluster"), facts.next_version(&self.spec, &c));
        let versions = self.spec.clusters().map(next).collect();
        Ok(Look { facts, desired, observed, read_all, versions })
    }

    /// Returns an error if `--kubeconfig` names a cluster that neither the spec has nor exists.
    fn know_clusters(&self, observed: &Observed) -> Result<()> {
        let mut known: BTreeSet<String> = self.spec.clusters().map(|c| written(c.owner).to_owned()).collect();
        let found = observed.kinds.iter().filter(|(_, kind)| **kind == eks_cluster::NAME).map(|(a, _)| a);
        known.extend(found.filter_map(|a| match a.owner() {
            Owner::Tenant(id) => Some(id),
            Owner::Pool(name) => Some(name),
            Owner::Tenancy => None,
        }));
        let Some(wrong) = self.named.iter().find(|n| !known.contains(*n)) else { return Ok(()) };
        let help = match spec::nearest(wrong, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "a cluster is named by its pool's name or its silo tenant's id: {}",
                known.into_iter().collect::<Vec<_>>().join(", ")
            ),
        };
        Err(Error::input(format!("no cluster is called `{wrong}` (--kubeconfig); nothing was changed")).help(help))
    }

    pub async fn plan(&self, policy: &Policy, upgrade: bool) -> Result<(Look, Plan)> {
        let look = self.look(policy, upgrade).await?;
        look.observed.readable()?;
        for id in &policy.tenants {
            let known = self.spec.tenant(id).is_some()
                || look.observed.found.keys().any(|a| a.as_str().starts_with(&format!("tenant/{id}/")));
            if !known {
                let ids: Vec<&str> = self.spec.tenants.iter().map(|t| t.id.as_str()).collect();
                return Err(Error::input(format!("no tenant has the id `{id}`"))
                    .help(format!("the spec's tenants are {}", ids.join(", "))));
            }
        }
        look.know(policy)?;
        let plan = self.plan_of(&look, policy)?;
        Ok((look, plan))
    }

    /// The plan after a run that upgraded clusters to these versions. Addresses of the policy aren't checked, because
    /// the run may have deleted them.
    pub async fn left(
        &self,
        policy: &Policy,
        upgrade: bool,
        versions: BTreeMap<Address, KubernetesVersion>,
    ) -> Result<Plan> {
        let look = self.look_for(policy, upgrade, versions).await?;
        self.plan_of(&look, policy)
    }

    fn plan_of(&self, look: &Look, policy: &Policy) -> Result<Plan> {
        plan::plan(&look.desired, &look.observed, &self.kinds, &self.policy(policy))
    }
}

/// True if a read names a resource that a later call didn't find.
fn is_unsettled(error: &Error) -> bool {
    matches!(error.class, Class::NotYet | Class::NotFound)
}

impl Look {
    /// Returns an error if `policy` allows the loss of an address that doesn't exist.
    pub fn know(&self, policy: &Policy) -> Result<()> {
        let found = self.observed.found.keys();
        let exist: BTreeSet<Address> = found.flat_map(|a| [a.clone(), a.place()]).collect();
        // An object in a cluster that wasn't read may exist.
        let unread = |a: &Address| !self.read_all && a.as_str().contains("/k8s/") && exist.contains(&a.place());
        for (flag, given) in [("--allow-destroy", &policy.allow_destroy), ("--allow-replace", &policy.allow_replace)] {
            for address in given {
                if exist.contains(address) || unread(address) {
                    continue;
                }
                let near = spec::nearest(address.as_str(), exist.iter().map(Address::as_str));
                let places: BTreeSet<Address> = exist.iter().map(Address::place).collect();
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "resources exist under {}; `ringfence plan` and `ringfence plan --destroy` show the addresses",
                        places.iter().map(Address::as_str).collect::<Vec<_>>().join(", ")
                    ),
                };
                return Err(Error::input(format!(
                    "no resource exists at the address {address} ({flag}); nothing was changed"
                ))
                .help(help));
            }
        }
        Ok(())
    }

    /// The outputs of all resources that were found, by address.
    pub fn outputs(&self) -> BTreeMap<Address, BTreeMap<String, String>> {
        self.observed.outputs()
    }
}
