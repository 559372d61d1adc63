//! Reads what exists: all kinds in bulk and in parallel, AWS resources before objects in clusters.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;

use super::address::Address;
use super::desired::Desired;
use super::error::Error;
use super::kind::{Connected, Foreign, Found, New, Observation, Registry, Round, Scope, Status, Stuck, Unread, Wanted};
use super::value::Outputs;

/// The result of reading. An address that is missing here is absent only if its kind isn't in `unreadable` and its
/// cluster isn't in `unread`.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By address. There are several after an interrupted replacement or a double creation. The newest generation
    /// comes first. Within a generation, a resource that is being deleted comes last.
    pub found: BTreeMap<Address, Vec<Found>>,
    pub kinds: BTreeMap<Address, &'static str>,
    /// Where the resources of each address exist.
    pub scopes: BTreeMap<Address, Arc<Scope>>,
    /// Addresses with resources in several scopes.
    pub spread: BTreeSet<Address>,
    pub foreign: BTreeMap<Address, Foreign>,
    pub notes: BTreeSet<String>,
    /// Kinds that couldn't be read, and why.
    pub unreadable: BTreeMap<&'static str, Error>,
    pub unread: Vec<Unread>,
    pub unserved: BTreeMap<Address, Error>,
    pub stuck: BTreeMap<Address, Vec<Stuck>>,
}

impl Observed {
    /// # Errors A kind couldn't be read: its resources may be absent or only unseen.
    pub fn readable(&self) -> Result<(), Error> {
        match self.unreadable.first_key_value() {
            None => Ok(()),
            Some((kind, error)) => {
                let message =
                    format!("resources of the kind {kind} can't be read, so no plan is possible: {}", error.message);
                Err(Error { message, ..error.clone() })
            }
        }
    }

    /// The newest generation at `address`.
    pub fn current(&self, address: &Address) -> Option<&Found> {
        self.found.get(address).and_then(|all| all.first())
    }

    /// True if several resources have `address` and none of them is clearly the right one.
    pub fn is_twice(&self, address: &Address) -> bool {
        if self.spread.contains(address) {
            return true;
        }
        let all = self.found.get(address).into_iter().flatten().filter(|found| found.status != Status::Deleting);
        let mut generations = all.map(|found| found.generation);
        generations.next().is_some_and(|newest| generations.next() == Some(newest))
    }

    /// Adds the result of one kind in one scope.
    pub fn add(&mut self, scope: &Arc<Scope>, kind: &'static str, observation: Observation) {
        let Observation { found, foreign, notes, unread, unserved, stuck } = observation;
        for one in found {
            self.kinds.insert(one.address.clone(), kind);
            if self.scopes.entry(one.address.clone()).or_insert_with(|| scope.clone()) != scope {
                self.spread.insert(one.address.clone());
            }
            let all = self.found.entry(one.address.clone()).or_default();
            all.push(one);
            let order = |f: &Found| (Reverse(f.generation), f.status == Status::Deleting, f.id.clone());
            all.sort_by_cached_key(order);
        }
        self.foreign.extend(foreign.into_iter().map(|f| (f.address.clone(), f)));
        self.notes.extend(notes);
        self.unread.extend(unread);
        self.unserved.extend(unserved);
        for one in stuck {
            self.stuck.entry(one.address.clone()).or_default().push(one);
        }
    }

    /// The outputs of all existing resources.
    pub fn outputs(&self) -> BTreeMap<Address, Outputs> {
        self.found.iter().filter_map(|(address, all)| Some((address.clone(), all.first()?.outputs.clone()))).collect()
    }
}

/// The observations of kinds, by scope.
pub type Known = BTreeMap<(Arc<Scope>, &'static str), Observation>;

/// Reads all kinds in all scopes. `known`: what this round has read already. If `hosted` is false, objects in clusters
/// aren't read.
pub async fn observe(kinds: &Connected, desired: &Desired, round: &Round, known: Known, hosted: bool) -> Observed {
    let mut observed = Observed::default();
    let is_known = |scope: &Arc<Scope>, kind| known.contains_key(&(scope.clone(), kind));
    let missing: Vec<_> =
        kinds.all().filter(|(scope, kind, _)| !kind.is_hosted() && !is_known(scope, kind.name())).collect();
    for ((scope, name), observation) in known {
        observed.add(&scope, name, observation);
    }
    let predicted = predicted(kinds, desired);
    let reads = missing.into_iter().map(|(scope, kind, handlers)| {
        let wanted = wanted(desired, scope, kind.name(), &predicted);
        async move { (scope, kind.name(), handlers.observe(round, &wanted).await) }
    });
    for (scope, name, result) in join_all(reads).await {
        take(&mut observed, scope, name, result);
    }
    if hosted {
        let mut outputs = predicted;
        outputs.extend(observed.outputs());
        for (scope, kind, handlers) in kinds.all().filter(|(_, kind, _)| kind.is_hosted()) {
            let result = handlers.observe(round, &wanted(desired, scope, kind.name(), &outputs)).await;
            take(&mut observed, scope, kind.name(), result);
        }
    }
    observed
}

fn take(observed: &mut Observed, scope: &Arc<Scope>, kind: &'static str, result: Result<Observation, Error>) {
    match result {
        Ok(observation) => observed.add(scope, kind, observation),
        Err(error) => {
            observed.unreadable.insert(kind, error);
        }
    }
}

/// Outputs that the spec alone predicts, such as names.
fn predicted(kinds: &Registry, desired: &Desired) -> BTreeMap<Address, Outputs> {
    desired
        .iter()
        .filter_map(|r| {
            let kind = kinds.get(r.kind).ok()?;
            let new = New { address: r.address.clone(), generation: 1, state: r.state.clone(), token: String::new() };
            Some((r.address.clone(), kind.predict(&new, &r.scope)))
        })
        .collect()
}

fn wanted(desired: &Desired, scope: &Scope, kind: &str, outputs: &BTreeMap<Address, Outputs>) -> Vec<Wanted> {
    desired
        .iter()
        .filter(|r| r.kind == kind && *r.scope == *scope)
        .map(|r| Wanted {
            address: r.address.clone(),
            state: r.state.resolve(&|address, output| outputs.get(address)?.get(output).cloned()),
        })
        .collect()
}
