//! Access of people to clusters.

use std::collections::BTreeSet;

use super::builder::{Builder, Terms};
use super::site::Site;
use crate::engine::error::{Error, Result};
use crate::kinds::aws::access_entry::{self, entry_address};
use crate::spec::{Control, Principal};

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
            let address = entry_address(&site.at("cluster"), &principal);
            // ARNs of access policies have the partition of the cluster (terraform-aws-eks, `main.tf`).
            let policy =
                format!("arn:{}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy", self.facts.partition);
            let state = access_entry::State {
                cluster: site.output("cluster", "name"),
                groups: Vec::new(),
                policies: vec![access_entry::AccessPolicy { arn: policy, namespaces: Vec::new() }],
                tags: self.tags(&address, &site.name),
                principal,
            };
            self.put(address, access_entry::NAME, &state, Terms::default().controls(&[Control::ApiAccess]))?;
        }
        Ok(())
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
