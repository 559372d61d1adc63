//! The objects of other policy engines (`policyEngine: gatekeeper` and `opa`). The platform's team installs the engine.

use serde_json::Value;

use super::addresses::home;
use super::baseline::MUTATION;
use super::builder::{Builder, Terms};
use super::site::{Network, Site};
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::engines::{gatekeeper, opa};
use crate::spec::{Control, PolicyEngine};

impl Builder<'_> {
    /// Adds the engine's objects after all other objects of the cluster: they are made from those.
    pub(super) fn engine_objects(&mut self, site: &Site<'_>, network: &Network) -> Result<()> {
        let objects = match site.cluster.profile.policy_engine {
            PolicyEngine::Native | PolicyEngine::Webhook | PolicyEngine::Psp => return Ok(()),
            PolicyEngine::Opa => opa::render(&self.rendered(site))?,
            PolicyEngine::Gatekeeper => {
                let rendered = self.rendered(site);
                let mut objects = gatekeeper::render(&rendered)?;
                // The API server's own mutating policies run before Gatekeeper, and leave nothing to fill in.
                if site.version < MUTATION {
                    objects.extend(gatekeeper::mutators(&self.mutating_policies(site, network)?, &rendered)?);
                }
                objects
            }
        };
        // A Constraint comes after its ConstraintTemplate.
        let mut before: Vec<Address> = self.before_tenants(site);
        let (first, rest): (Vec<Value>, Vec<Value>) =
            objects.into_iter().partition(|o| o["kind"] == "ConstraintTemplate");
        for objects in [first, rest] {
            let terms = || Terms::default().controls(&[Control::PolicyAgent]).after(before.clone());
            let added = objects.into_iter().map(|object| self.cluster_object(site, object, terms()));
            let added = added.collect::<Result<Vec<Address>>>()?;
            before.extend(added);
        }
        Ok(())
    }

    /// All objects of the cluster and of its tenants, as they were added so far.
    pub(super) fn rendered(&self, site: &Site<'_>) -> Vec<Value> {
        let mut places = vec![site.at("k8s/")];
        places.extend(self.tenants_of(site).iter().map(|tenant| home(tenant).join("k8s/")));
        places.sort();
        places.dedup();
        let resources = places.iter().flat_map(|place| self.desired.beginning_with(place));
        let objects = resources.filter_map(|resource| resource.state.value().get_mut("object").map(Value::take));
        objects.collect()
    }
}
