//! The desired state: every resource by its address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::address::Address;
use super::error::{Error, Result};
use super::kind::Scope;
use super::packed::Packed;

/// One resource that should exist.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resource {
    pub address: Address,
    /// The kind's name, such as `aws.vpc`.
    pub kind: &'static str,
    /// The account and region in which it should exist.
    #[serde(skip)]
    pub scope: Arc<Scope>,
    /// The state in the format of the kind's `State`. Its strings may contain references.
    pub state: Packed,
    /// Dependencies that no reference shows.
    pub after: Vec<Address>,
    /// IDs of the controls that the resource implements, such as `NET-2`.
    pub controls: Vec<&'static str>,
}

/// An impossible change of an existing resource that the spec asks for. A plan shows it as blocked, and plans the
/// other changes of the resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub address: Address,
    /// The kind's name.
    pub kind: &'static str,
    /// The affected field: its current value and the desired value.
    pub path: &'static str,
    pub is: String,
    pub asked: String,
    pub reason: String,
    pub help: String,
    /// True if a later run can make the change without a correction of the spec.
    pub pending: bool,
}

/// All resources that should exist. Iterates in the order of addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Desired {
    resources: BTreeMap<Address, Resource>,
    #[serde(skip)]
    pub refusals: Vec<Refusal>,
    /// Impossible changes that the spec asks for.
    #[serde(skip)]
    pub notes: BTreeSet<String>,
}

impl Desired {
    /// Adds a resource. Two resources with one address are a bug.
    pub fn insert(&mut self, resource: Resource) -> Result<()> {
        let address = resource.address.clone();
        match self.resources.insert(address.clone(), resource) {
            None => Ok(()),
            Some(_) => Err(Error::bug(format!("two resources have the address {address}"))),
        }
    }

    pub fn get(&self, address: &Address) -> Option<&Resource> {
        self.resources.get(address)
    }

    pub fn contains(&self, address: &Address) -> bool {
        self.resources.contains_key(address)
    }

    /// Resources whose addresses start with `prefix`, even in the middle of a part.
    pub fn beginning_with(&self, prefix: &Address) -> impl Iterator<Item = &Resource> {
        let begins = |(address, _): &(&Address, &Resource)| address.as_str().starts_with(prefix.as_str());
        self.resources.range(prefix..).take_while(begins).map(|(_, resource)| resource)
    }

    /// The resource at `place` and all below it.
    pub fn within(&self, place: &Address) -> impl Iterator<Item = &Resource> {
        let below = self.resources.range(place.join("")..);
        let below = below.map(|(_, resource)| resource).take_while(|r| r.address.is_within(place));
        self.get(place).into_iter().chain(below)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values()
    }

    pub fn len(&self) -> usize {
        self.resources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_within_a_place_is_no_neighbour_of_it() {
        let mut desired = Desired::default();
        let all = ["pool/a", "pool/a-b/vpc", "pool/a/k8s-x", "pool/a/k8s/role", "pool/a/vpc", "pool/a0/vpc"];
        for address in all {
            let (address, scope) = (Address::new(address), Arc::default());
            let resource =
                Resource { address, kind: "", scope, state: Packed::default(), after: vec![], controls: vec![] };
            desired.insert(resource).unwrap();
        }
        let names = |found: Vec<&Resource>| -> Vec<String> { found.iter().map(|r| r.address.to_string()).collect() };
        let within = names(desired.within(&Address::new("pool/a")).collect());
        assert_eq!(within, ["pool/a", "pool/a/k8s-x", "pool/a/k8s/role", "pool/a/vpc"]);
        assert!(desired.within(&Address::new("pool/b")).next().is_none());
        assert_eq!(names(desired.beginning_with(&Address::new("pool/a/k8s/")).collect()), ["pool/a/k8s/role"]);
    }
}
