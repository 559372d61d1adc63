//! What switches the admission webhook on (`policyEngine: webhook`). Its Pods are in `cluster/webhook.yaml`.

use serde_json::Value;

use super::baseline::MUTATION;
use super::builder::{Builder, Terms};
use super::site::{Network, Site};
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::engines::webhook;
use crate::spec::Control;

impl Builder<'_> {
    /// Adds the webhook's policies and configurations. The configurations come last in the cluster: only when the
    /// webhook's Pods run may API servers ask it.
    pub(super) fn webhook(&mut self, site: &Site<'_>, network: &Network) -> Result<()> {
        if site.webhook_image(self.spec).is_none() {
            return Ok(());
        }
        let is_policy = |object: &Value| object["kind"].as_str().is_some_and(|kind| kind.contains("AdmissionPolicy"));
        let mut policies: Vec<Value> = self.rendered(site).into_iter().filter(is_policy).collect();
        let mutates = site.version >= MUTATION;
        if !mutates {
            policies.extend(self.mutating_policies(site, network)?);
        }
        let [map, mutating, validating] = webhook::objects(&policies, mutates)?;
        let mut before: Vec<Address> = self.before_tenants(site);
        before.push(site.at("node-group/system"));
        let terms = |after: &[Address]| {
            let terms = Terms::default().controls(&[Control::TenantLabel, Control::PodSecurity]);
            terms.after(after.to_vec())
        };
        before.push(self.cluster_object(site, map, terms(&[]))?);
        // Before a mutating webhook fills in what the validating one demands, nobody's objects would be admitted.
        before.push(self.cluster_object(site, mutating, terms(&before))?);
        self.cluster_object(site, validating, terms(&before))?;
        Ok(())
    }
}
