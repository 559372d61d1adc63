//! The order of desired resources.

use std::collections::{BTreeMap, BTreeSet};

use super::address::Address;
use super::desired::{Desired, Resource};
use super::error::{Error, Result};

/// The dependencies of `resource`: the targets of its references, and `after`.
pub fn needs(resource: &Resource) -> BTreeSet<Address> {
    let refs = resource.state.references().into_iter().map(|(address, _)| address);
    refs.chain(resource.after.iter().cloned()).filter(|a| *a != resource.address).collect()
}

/// All addresses, each after its dependencies, otherwise by name. A missing dependency and a cycle are bugs, and the
/// error names them.
pub fn order(desired: &Desired) -> Result<Vec<Address>> {
    let mut waiting: BTreeMap<&Address, BTreeSet<Address>> = BTreeMap::new();
    for resource in desired.iter() {
        let needs = needs(resource);
        if let Some(missing) = needs.iter().find(|n| !desired.contains(n)) {
            return Err(Error::bug(format!("{} depends on {missing}, which doesn't exist", resource.address)));
        }
        waiting.insert(&resource.address, needs);
    }
    let mut users: BTreeMap<Address, Vec<&Address>> = BTreeMap::new();
    for (address, needs) in &waiting {
        for need in needs {
            users.entry(need.clone()).or_default().push(address);
        }
    }
    let mut ready: BTreeSet<&Address> = waiting.iter().filter(|(_, n)| n.is_empty()).map(|(a, _)| *a).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(address) = ready.pop_first() {
        order.push(address.clone());
        waiting.remove(address);
        for user in users.get(address).into_iter().flatten() {
            if let Some(needs) = waiting.get_mut(*user) {
                needs.remove(address);
                if needs.is_empty() {
                    ready.insert(user);
                }
            }
        }
    }
    if waiting.is_empty() {
        return Ok(order);
    }
    let circle: Vec<String> = waiting
        .iter()
        .take(8)
        .map(|(a, n)| format!("{a} → {}", n.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ")))
        .collect();
    Err(Error::bug(format!("resources depend on each other in a circle: {}", circle.join("; "))))
}
