//! Where a spec says what only AWS can judge: what AWS has against it is told in the form of the spec's own errors.

use std::collections::BTreeMap;

use super::error::SpecError;
use super::said::Said;
use super::tree::Node;

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

    /// An error without its words, at the place of an owner's setting, if the owner is known.
    pub(super) fn of(&self, owner: &str, setting: &[&str]) -> Option<SpecError> {
        self.owners.get(owner).map(|said| said.error(setting, self.endpoints.as_ref()))
    }

    pub(super) fn add(&mut self, owner: String, said: Said) {
        self.owners.insert(owner, said);
    }
}
