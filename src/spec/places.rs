//! Places of settings that only AWS can judge. If AWS doesn't offer a setting, the error has the form of a spec's own
//! errors.

use std::collections::BTreeMap;

use super::error::SpecError;
use super::said::Said;
use super::tree::Node;

/// The settings of pools and tenants, by `tenant/<id>` or `pool/<name>`. A place is looked up only when an error needs
/// it.
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

    /// An error without a message, at the place of an owner's setting. `None` if the owner isn't known.
    pub(super) fn of(&self, owner: &str, setting: &[&str]) -> Option<SpecError> {
        self.owners.get(owner).map(|said| said.error(setting, self.endpoints.as_ref()))
    }

    pub(super) fn add(&mut self, owner: String, said: Said) {
        self.owners.insert(owner, said);
    }
}
