//! The AWS roles of tenants' service accounts.

use serde_json::json;

use super::addresses::workload_role;
use super::builder::{Builder, Terms};
use super::roles::Grants;
use super::site::Site;
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::engine::value::reference;
use crate::kinds::aws::{oidc_provider, pod_identity};
use crate::spec::{Isolation, Tenant};

/// The audience of tokens that pods exchange for credentials. It is the same in all partitions, including China (eksctl
/// issue 1910).
const AUDIENCE: &str = "sts.amazonaws.com";

impl Builder<'_> {
    /// Adds the cluster's OIDC identity provider, if it has pods that can't use Pod Identity.
    pub(super) fn oidc_provider(&mut self, site: &Site<'_>) -> Result<()> {
        if !self.needs_oidc(site) {
            return Ok(());
        }
        let address = site.at("oidc-provider");
        let state = oidc_provider::State {
            url: site.output("cluster", "issuer"),
            clients: vec![AUDIENCE.to_owned()],
            tags: self.tags(&address, &site.name),
        };
        self.put(address, oidc_provider::NAME, &state, Terms::default())
    }

    /// Whether the cluster needs its identity provider: for Fargate pods with an AWS role.
    fn needs_oidc(&self, site: &Site<'_>) -> bool {
        let irsa = |t: &&Tenant| matches!(t.isolation, Isolation::Fargate { .. }) && !t.service_accounts.is_empty();
        self.tenants_of(site).iter().any(irsa)
    }

    /// Adds the roles of a tenant's service accounts. They use Pod Identity, or on Fargate, where its agent can't run,
    /// the cluster's identity provider.
    pub(super) fn workload_roles(&mut self, site: &Site<'_>, tenant: &Tenant, home: &Address) -> Result<()> {
        let namespace = tenant.namespace();
        for account in &tenant.service_accounts {
            let role = workload_role(home, &account.name);
            let fargate = matches!(tenant.isolation, Isolation::Fargate { .. });
            let trust = if fargate {
                let values = json!({
                    "providerArn": site.output("oidc-provider", "arn"),
                    "issuer": site.output("oidc-provider", "issuer"),
                    "namespace": namespace,
                    "serviceAccount": account.name,
                });
                self.document("iam/irsa-trust.json", &role, values)?
            } else {
                self.pod_identity_trust(site, &role, &namespace, &account.name)?
            };
            let name = self.names.workload_role(tenant, &account.name);
            self.role(role.clone(), name, trust, Grants::attached(account.policies.clone()))?;
            if !fargate {
                let address = home.join(format!("pod-identity/{}", account.name));
                let state = pod_identity::State {
                    cluster: site.output("cluster", "name"),
                    namespace: namespace.clone(),
                    service_account: account.name.clone(),
                    role: reference(&role, "arn"),
                    tags: self.tags(&address, &account.name),
                };
                self.put(address, pod_identity::NAME, &state, Terms::default())?;
            }
        }
        Ok(())
    }
}
