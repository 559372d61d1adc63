//! Drift: the differences in a plan that someone made outside of ringfence.
//!
//! There is no record of past applies. So the surroundings of a missing resource decide whether it was deleted or
//! never created: its VPC, its cluster, its namespace, and other resources of the same silo, pool or tenancy.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::address::{Address, Owner};
use super::desired::{Desired, Resource};
use super::kind::{Change, Registry, Rule};
use super::observe::Observed;
use super::plan::{Action, Blocked, Plan, Step};
use super::why::{Note, WhyNot};

/// Drift that isn't a step of the plan.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Drift {
    /// Missing resources whose surroundings exist. Resources with controls come first.
    pub missing: Vec<Missing>,
    /// Silos, pools and placements without any resource: not created yet, or deleted completely. Each with its number
    /// of desired resources.
    pub absent: BTreeMap<Address, usize>,
    /// The number of existing resources that have left the spec.
    pub left: usize,
    /// Differences that can't be corrected, because the field can't change after creation.
    #[serde(skip)]
    pub fixed: Vec<Blocked>,
}

/// A desired resource that doesn't exist.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    pub address: Address,
    pub kind: &'static str,
    pub summary: String,
    /// IDs of the controls of the resource and of the resources in it.
    pub controls: BTreeSet<&'static str>,
    /// The number of missing resources in it.
    pub within: usize,
}

/// Removes from `plan` all steps that aren't drift.
pub fn of(mut plan: Plan, desired: &Desired, observed: &Observed, kinds: &Registry) -> Plan {
    let mut drift = Drift::default();
    let there = homes(observed, kinds);
    let (made, rest): (Vec<Step>, Vec<Step>) =
        std::mem::take(&mut plan.steps).into_iter().partition(|s| s.action == Action::Create && !s.replaces);
    let gone: BTreeMap<&Address, &Step> = made.iter().map(|s| (&s.address, s)).collect();
    let mut missing: BTreeMap<&Address, Missing> = BTreeMap::new();
    let containers = LazyCell::new(|| Containers::new(desired, kinds));
    for step in &made {
        let home = step.address.place();
        if !there.contains(&home) {
            *drift.absent.entry(home).or_default() += 1;
            continue;
        }
        // The surroundings may be missing, too.
        let mut root = step;
        let mut seen = BTreeSet::new();
        while seen.insert(&root.address)
            && let Some(holder) = holders(root, desired, kinds, &containers).iter().find_map(|a| gone.get(a).copied())
        {
            root = holder;
        }
        let one = missing.entry(&root.address).or_insert_with(|| Missing {
            address: root.address.clone(),
            kind: root.kind,
            summary: root.summary.clone(),
            controls: BTreeSet::new(),
            within: 0,
        });
        one.controls.extend(&step.controls);
        one.within += usize::from(step.address != root.address);
    }
    let absent = drift.absent.iter();
    plan.notes.extend(absent.map(|(place, n)| Note::Absent { place: place.clone(), resources: *n }));
    drift.missing = missing.into_values().collect();
    drift.missing.sort_by_key(|m| (m.controls.is_empty(), m.address.clone()));
    let left = |s: &&Step| s.action == Action::Delete && !s.replaces;
    drift.left = rest.iter().filter(left).map(|s| &s.address).collect::<BTreeSet<_>>().len();
    if drift.left > 0 {
        plan.notes.insert(Note::Left { resources: drift.left });
    }
    let deleted: BTreeSet<Address> = rest.iter().filter(left).map(|s| s.address.clone()).collect();
    plan.steps = rest
        .into_iter()
        // An update that prepares a deletion is part of that deletion.
        .filter(|s| s.replaces || (s.action == Action::Update && !deleted.contains(&s.address)))
        .map(|s| Step { needs: BTreeSet::new(), ..s })
        .collect();
    plan.confirm.clear();
    // Immutable fields are as they were created, so the spec has changed.
    let fixed = |b: &Blocked| {
        let rules = kinds.get(&b.kind).map(|kind| kind.rules()).unwrap_or_default();
        let immutable = |change: &Change| rules.contains(&(change.path.as_str(), Rule::Replace));
        matches!(b.why, WhyNot::Refused { .. }) && b.changes.iter().all(immutable)
    };
    let (fixed, blocked): (Vec<Blocked>, Vec<Blocked>) = std::mem::take(&mut plan.blocked).into_iter().partition(fixed);
    plan.blocked = blocked;
    drift.fixed = fixed;
    plan.drift = Some(drift);
    plan
}

/// The places with at least one resource that belongs to the place alone.
fn homes(observed: &Observed, kinds: &Registry) -> BTreeSet<Address> {
    let of_home = |kind: &str| kinds.get(kind).is_ok_and(|k| !k.keeps_data() && !k.belongs_to_account());
    let found = observed.kinds.iter().filter(|(_, kind)| of_home(kind)).map(|(address, _)| address);
    let mut homes: BTreeSet<Address> = found.map(Address::place).collect();
    if !homes.is_empty() {
        homes.insert(Address::new(Owner::Tenancy.to_string()));
    }
    homes
}

/// The surroundings of `step`: the VPCs and clusters that it refers to, directly or through other resources, and an
/// object's namespace.
fn holders(step: &Step, desired: &Desired, kinds: &Registry, containers: &Containers) -> BTreeSet<Address> {
    let Some(resource) = desired.get(&step.address) else { return BTreeSet::new() };
    let mut holders: BTreeSet<Address> = containers.of(resource, kinds).into_iter().cloned().collect();
    let mut seen = BTreeSet::new();
    let mut queue = vec![resource];
    while let Some(next) = queue.pop() {
        for (address, _) in next.state.references() {
            let Some(needed) = desired.get(&address).filter(|_| seen.insert(address.clone())) else { continue };
            if needed.address != step.address && kinds.get(needed.kind).is_ok_and(|k| k.is_foundation()) {
                holders.insert(address);
            }
            queue.push(needed);
        }
    }
    holders
}

/// The containers of the spec, by kind and name.
struct Containers(BTreeMap<(&'static str, String), Address>);

impl Containers {
    fn new(desired: &Desired, kinds: &Registry) -> Self {
        let named = |r: &Resource| Some(((r.kind, kinds.get(r.kind).ok()?.contains(&r.state)?), r.address.clone()));
        Self(desired.iter().filter_map(named).collect())
    }

    /// The resource that `resource` is deleted with, such as an object's namespace.
    fn of(&self, resource: &Resource, kinds: &Registry) -> Option<&Address> {
        let name = kinds.get(resource.kind).ok()?.lies_in(&resource.state)?;
        self.0.get(&(resource.kind, name))
    }
}
