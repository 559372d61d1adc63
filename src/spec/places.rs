//! Where a spec says what only AWS can judge: what AWS has against it is told in the form of the spec's own errors.

use std::collections::BTreeMap;

use super::checks::Said;
use super::error::SpecError;
use super::model::{Owner, Spec};
use super::tree::{Node, whole_file};

/// The settings of pools and tenants, by `tenant/<id>` or `pool/<name>`. A place is looked up only when an error needs it.
#[derive(Clone, Debug, Default)]
pub struct Places {
    owners: BTreeMap<String, Said>,
    /// The tenancy's `network.endpoints`.
    endpoints: Option<Node>,
}

impl Places {
    pub(super) fn new(endpoints: Option<&Node>) -> Self {
        Self { owners: BTreeMap::new(), endpoints: endpoints.cloned() }
    }

    pub(super) fn add(&mut self, owner: String, said: Said) {
        self.owners.insert(owner, said);
    }
}

impl Spec {
    /// What AWS has against a setting of a tenant or a pool, at its place; at the tier's where that isn't known.
    pub fn objection(&self, owner: Owner<'_>, setting: &[&str], message: String, help: String) -> SpecError {
        let owner = match owner {
            Owner::Tenant(id) => format!("tenant/{id}"),
            Owner::Pool(name) => format!("pool/{name}"),
        };
        match self.places.owners.get(&owner) {
            Some(said) => {
                SpecError { message, help: Some(help), ..said.error(setting, self.places.endpoints.as_ref()) }
            }
            None => whole_file(&self.source, message, &help),
        }
    }
}
