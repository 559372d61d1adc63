//! What differs by somebody else's hand, of all that a plan would change.
//!
//! Nothing is recorded of what was made, so whether something that is missing
//! was deleted or never made is decided by what it lies in: a VPC, a cluster, a
//! namespace, and the silo, pool or tenancy that it is a part of.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::address::{Address, Owner};
use super::desired::{Desired, Refusal, Resource};
use super::kind::{Registry, Rule};
use super::observe::Observed;
use super::plan::{Action, Blocked, Plan, Step};
use super::value::references;

/// What isn't as the spec says without being a change of the plan's.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Drift {
    /// What is gone though what it lies in is there. What carries controls
    /// comes first.
    pub missing: Vec<Missing>,
    /// Silos, pools and tenants' places of which nothing is there: not made
    /// yet, or deleted as a whole. Each with how many resources it wants.
    pub absent: BTreeMap<Address, usize>,
    /// How many resources left the spec and are still there.
    pub left: usize,
}

/// Something that the spec asks for and that isn't there.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    pub address: Address,
    pub kind: &'static str,
    pub summary: String,
    /// IDs of the controls that it carries, and that what was in it carries.
    pub controls: BTreeSet<&'static str>,
    /// How many resources lie in it, and are gone with it.
    pub within: usize,
}

/// Leaves in `plan` only what differs by somebody's hand.
pub fn of(mut plan: Plan, desired: &Desired, observed: &Observed, kinds: &Registry) -> Plan {
    let mut drift = Drift::default();
    let there = homes(observed, kinds);
    let (made, rest): (Vec<Step>, Vec<Step>) =
        std::mem::take(&mut plan.steps).into_iter().partition(|s| s.action == Action::Create && !s.replaces);
    let gone: BTreeMap<&Address, &Step> = made.iter().map(|s| (&s.address, s)).collect();
    let mut missing: BTreeMap<&Address, Missing> = BTreeMap::new();
    for step in &made {
        let home = step.address.place();
        if !there.contains(&home) {
            *drift.absent.entry(home).or_default() += 1;
            continue;
        }
        // What it lies in may lie in something that is gone, too.
        let mut root = step;
        let mut seen = BTreeSet::new();
        while seen.insert(&root.address)
            && let Some(holder) = holders(root, desired, kinds).iter().find_map(|a| gone.get(a).copied())
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
    plan.notes.extend(drift.absent.iter().map(|(home, n)| {
        format!("{home} isn't there, with the {n} resources that it asks for: it was never made, or was deleted as a whole; `apply` makes it")
    }));
    drift.missing = missing.into_values().collect();
    drift.missing.sort_by_key(|m| (m.controls.is_empty(), m.address.clone()));
    let left = |s: &&Step| s.action == Action::Delete && !s.replaces;
    drift.left = rest.iter().filter(left).map(|s| &s.address).collect::<BTreeSet<_>>().len();
    if drift.left > 0 {
        plan.notes.insert(format!("what left the spec is still there, {} resources: `plan` shows them", drift.left));
    }
    let deleted: BTreeSet<Address> = rest.iter().filter(left).map(|s| s.address.clone()).collect();
    plan.steps = rest
        .into_iter()
        // What precedes a deletion belongs to it.
        .filter(|s| s.replaces || (s.action == Action::Update && !deleted.contains(&s.address)))
        .map(|s| Step { needs: BTreeSet::new(), ..s })
        .collect();
    plan.confirm.clear();
    // What can't change is as it was made: only the spec is another one.
    let fixed = |b: &Blocked| {
        let of = |r: &&Refusal| r.address == b.address && r.reason == b.reason;
        let rules = |r: &Refusal| kinds.get(r.kind).is_ok_and(|kind| kind.rules().contains(&(r.path, Rule::Replace)));
        desired.refusals.iter().find(of).is_some_and(rules)
    };
    let (fixed, blocked): (Vec<Blocked>, Vec<Blocked>) = std::mem::take(&mut plan.blocked).into_iter().partition(fixed);
    plan.blocked = blocked;
    plan.notes.extend(fixed.into_iter().map(|b| format!("{}: {}", b.address, b.reason)));
    plan.drift = Some(drift);
    plan
}

/// The homes of which something is there that goes when they go.
fn homes(observed: &Observed, kinds: &Registry) -> BTreeSet<Address> {
    let of_home = |kind: &str| kinds.get(kind).is_ok_and(|k| !k.keeps_data() && !k.belongs_to_account());
    let found = observed.kinds.iter().filter(|(_, kind)| of_home(kind)).map(|(address, _)| address);
    let mut homes: BTreeSet<Address> = found.map(Address::place).collect();
    if !homes.is_empty() {
        homes.insert(Address::new(Owner::Tenancy.to_string()));
    }
    homes
}

/// What `step` lies in: the VPCs and clusters that it refers to, by way of
/// others too, and an object's namespace.
fn holders(step: &Step, desired: &Desired, kinds: &Registry) -> BTreeSet<Address> {
    let Some(resource) = desired.get(&step.address) else { return BTreeSet::new() };
    let mut holders: BTreeSet<Address> = namespace_of(resource, desired).into_iter().collect();
    let mut seen = BTreeSet::new();
    let mut queue = vec![resource];
    while let Some(next) = queue.pop() {
        for (address, _) in references(&next.state) {
            let Some(needed) = desired.get(&address).filter(|_| seen.insert(address.clone())) else { continue };
            if needed.address != step.address && kinds.get(needed.kind).is_ok_and(|k| k.is_foundation()) {
                holders.insert(address);
            }
            queue.push(needed);
        }
    }
    holders
}

/// The namespace that an object is in, if that is one of the spec's.
fn namespace_of(resource: &Resource, desired: &Desired) -> Option<Address> {
    let name = resource.state.pointer("/object/metadata/namespace")?;
    let holds = |other: &&Resource| {
        other.state.pointer("/object/kind").is_some_and(|kind| kind == "Namespace")
            && other.state.pointer("/object/metadata/name") == Some(name)
            && other.state.get("cluster") == resource.state.get("cluster")
    };
    desired.iter().find(holds).map(|r| r.address.clone())
}
