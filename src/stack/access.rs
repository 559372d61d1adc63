//! Access of people and of the gateway to clusters.

use std::collections::BTreeSet;

use super::builder::{Builder, Terms};
use super::site::Site;
use crate::engine::error::{Error, Result};
use crate::kinds::aws::access_entry::{self, entry_address};
use crate::spec::{Control, Principal};

/// The Kubernetes group of a gateway that runs outside of the clusters. EKS refuses groups that begin with `system:`
/// (EKS API reference, CreateAccessEntry).
pub const GATEWAY_GROUP: &str = "ringfence:gateway";

impl Builder<'_> {
    /// Adds access entries for all principals that the spec names, and for no others. Changes of objects inside of the
    /// cluster come after these entries.
    pub(super) fn access_entries(&mut self, site: &Site<'_>) -> Result<()> {
        let spec = self.spec;
        let principals: BTreeSet<String> = spec
            .access
            .admins
            .iter()
            .chain(&spec.access.operators)
            .map(|p| self.principal(p))
            .collect::<Result<_>>()?;
        for principal in principals {
            // ARNs of access policies have the partition of the cluster (terraform-aws-eks, `main.tf`).
            let policy =
                format!("arn:{}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy", self.facts.partition);
            let policy = access_entry::AccessPolicy { arn: policy, namespaces: Vec::new() };
            self.access_entry(site, principal, Vec::new(), vec![policy])?;
        }
        // An access policy can't be narrowed down to impersonation, and RBAC can't take away from it (EKS User Guide,
        // "Associate access policies with access entries"). So the gateway's role has a group only.
        match spec.gateway.as_ref().and_then(|gateway| gateway.role.clone()) {
            Some(role) => self.access_entry(site, role, vec![GATEWAY_GROUP.to_owned()], Vec::new()),
            None => Ok(()),
        }
    }

    fn access_entry(
        &mut self,
        site: &Site<'_>,
        principal: String,
        groups: Vec<String>,
        policies: Vec<access_entry::AccessPolicy>,
    ) -> Result<()> {
        let address = entry_address(&site.at("cluster"), &principal);
        let (cluster, tags) = (site.output("cluster", "name"), self.tags(&address, &site.name));
        let state = access_entry::State { cluster, principal, groups, policies, tags };
        self.put(address, access_entry::NAME, &state, Terms::default().controls(&[Control::ApiAccess]))
    }

    /// The ARN for an access entry. A role's ARN needs the path, which a session's ARN doesn't have.
    fn principal(&self, principal: &Principal) -> Result<String> {
        match (principal.session, self.facts.roles.get(&principal.arn)) {
            (false, _) => Ok(principal.arn.clone()),
            (true, Some(role)) => Ok(role.clone()),
            (true, None) => Err(Error::input(format!("this account has no role with the name {}", principal.name()))
                .help("write the role's own ARN (arn:…:iam::…:role/…) in spec.access, as `aws iam get-role` shows it")),
        }
    }
}
