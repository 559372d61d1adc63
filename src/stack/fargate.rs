//! Fargate profiles of tenants.

use serde_json::json;

use super::builder::{Builder, Terms};
use super::roles::{Grants, ServiceLinked};
use super::site::{Network, Site};
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::engine::value::reference;
use crate::kinds::aws::{fargate_profile, versions};
use crate::spec::{Control, Tenant, names};

impl Builder<'_> {
    /// Adds a tenant's Fargate profile, with its role and its security group.
    pub(super) fn fargate(
        &mut self,
        site: &Site<'_>,
        network: &Network,
        tenant: &Tenant,
        home: &Address,
    ) -> Result<()> {
        let group = (home.join("security-group"), "pods");
        self.tenant_group(site, group, tenant, "Fargate pods of one tenant", Control::FargateProfile)?;

        let role = home.join("role/pod-execution");
        let trust = self.document(
            "iam/fargate-trust.json",
            &role,
            json!({"profileArn": self.arn("eks", format!("fargateprofile/{}/*", site.name))}),
        )?;
        // This replaces AmazonEKSFargatePodExecutionRolePolicy, which allows the same for every repository of the
        // account and nothing else (AWS Managed Policy Reference Guide).
        let grants = Grants::none().and("images", self.images_policy(&role, &self.registries(tenant))?);
        self.role(role.clone(), self.names.home_role(tenant, "pod-execution"), trust, grants)?;

        let address = home.join("profile");
        let state = fargate_profile::State {
            cluster: site.output("cluster", "name"),
            name: names::fargate_profile(&tenant.id),
            role: reference(&role, "arn"),
            subnets: network.node_ids_in(|zone| self.has_fargate(zone)),
            selectors: vec![fargate_profile::Selector { namespace: tenant.namespace(), labels: Default::default() }],
            tags: self.tags(&address, format!("{}-{}", site.name, names::fargate_profile(&tenant.id))),
        };
        let linked = self.service_linked(ServiceLinked::Fargate)?;
        let terms = Terms::default()
            .after([linked])
            .after(network.ways.clone())
            .controls(&[Control::FargateProfile, Control::Firecracker]);
        self.put(address, fargate_profile::NAME, &state, terms)
    }

    /// Whether Fargate runs in the zone of this name.
    fn has_fargate(&self, zone: &str) -> bool {
        let known = self.facts.zones.iter().find(|known| known.name == zone);
        known.is_none_or(|known| versions::has_fargate(&known.id))
    }
}
