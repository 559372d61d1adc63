//! Where a spec says what only AWS can judge: what AWS has against it is told in the form of the spec's own errors.

use std::collections::BTreeMap;

use super::error::SpecError;
use super::model::{Owner, Spec};
use super::tree::whole_file;

/// Errors without their words, by `tenant/<id>` or `pool/<name>` and the setting's path in the profile.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<(String, Vec<String>), SpecError>);

impl Places {
    pub(super) fn add(&mut self, owner: String, setting: Vec<String>, place: SpecError) {
        self.0.insert((owner, setting), place);
    }
}

impl Spec {
    /// What AWS has against a setting of a tenant or a pool, at its place; at the tier's where that isn't known.
    pub fn objection(&self, owner: Owner<'_>, setting: &[&str], message: String, help: String) -> SpecError {
        let owner = match owner {
            Owner::Tenant(id) => format!("tenant/{id}"),
            Owner::Pool(name) => format!("pool/{name}"),
        };
        let steps = |n: usize| setting.iter().take(n).map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let known = (0..=setting.len()).rev().find_map(|n| self.places.0.get(&(owner.clone(), steps(n))).cloned());
        match known {
            Some(place) => SpecError { message, help: Some(help), ..place },
            None => whole_file(&self.source, message, &help),
        }
    }
}
