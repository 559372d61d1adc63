//! Rules that every plan must obey, whatever the spec says. Each plan is checked before it is shown or executed. The
//! checks share no code with the planner, so that a mistake of the planner is refused and not executed.
//!
//! The rules:
//! 1. A step comes after its dependencies, and no step is repeated.
//! 2. A resource that stays keeps everything that it uses.
//! 3. A resource is deleted after the resources that use it.
//! 4. A resource is created or changed after those that it refers to, and an object in a cluster after the resource
//!    that provides its API.
//! 5. Network access is removed after the resources that need it are gone.
//! 6. A tenant's placement is deleted after its complete successor exists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::address::{Address, Owner};
use super::desired::{Desired, Resource};
use super::diff;
use super::error::{Error, Result};
use super::graph;
use super::kind::{Change, Found, Kind, Registry, Status};
use super::observe::Observed;
use super::packed::Packed;
use super::plan::{Action, Plan, Step};
use super::value::walk;

/// The input of the check.
#[derive(Clone, Copy)]
pub struct Lint<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub kinds: &'a Registry,
}

/// A resource that a plan deletes, and a user of it that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub address: Address,
    pub generation: u32,
    pub user: Address,
}

/// Access that an update removes from nodes and pods that are deleted together with their network.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Way {
    /// The update without the removal.
    pub wide: Packed,
    /// The users of the access, with their generations.
    pub users: BTreeSet<(Address, u32)>,
}

impl<'a> Lint<'a> {
    /// The first rule that `plan` violates, as an error about a bug.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        Self::acts_in_order(plan)?;
        self.takes_nothing_in_use(plan)?;
        self.deletes_after_users(plan)?;
        self.makes_after_needs(plan)?;
        self.closes_ways_last(plan)?;
        self.keeps_homes_until_replaced(plan)
    }

    fn acts_in_order(plan: &Plan) -> Result<()> {
        let mut seen: BTreeMap<(&Address, u32, Action), usize> = BTreeMap::new();
        for (i, step) in plan.steps.iter().enumerate() {
            if step.needs.iter().any(|need| *need >= i) {
                return Err(refused(step, "the step comes before a step that it depends on"));
            }
            let before = seen.insert((&step.address, step.generation, step.action), i);
            // The removal of access may be a separate step.
            if before.is_some_and(|before| step.action != Action::Update || !comes_after(plan, i, before)) {
                return Err(refused(step, "the plan has this step twice"));
            }
        }
        let creations = plan.steps.iter().enumerate().filter(|(_, s)| s.action == Action::Create).rev();
        let makers: BTreeMap<&Address, usize> = creations.map(|(i, step)| (&step.address, i)).collect();
        for (i, step) in plan.steps.iter().enumerate().filter(|(_, s)| s.action == Action::Delete) {
            let maker = makers.get(&step.address).copied();
            if maker.is_some_and(|maker| !comes_after(plan, i, maker) && !comes_after(plan, maker, i)) {
                return Err(refused(step, "neither the creation of the successor nor this deletion comes first"));
            }
            let other = |action| seen.get(&(&step.address, step.generation, action));
            if other(Action::Create).is_some() {
                return Err(refused(step, "the same generation is created and deleted"));
            }
            if other(Action::Update).is_some_and(|update| !comes_after(plan, i, *update)) {
                return Err(refused(step, "it would be deleted before it is changed"));
            }
        }
        Ok(())
    }

    fn takes_nothing_in_use(&self, plan: &Plan) -> Result<()> {
        let Some(Taken { address, generation, user }) = self.taken(plan).into_iter().next() else { return Ok(()) };
        let same = |s: &&Step| s.action == Action::Delete && s.address == address && s.generation == generation;
        match plan.steps.iter().find(same) {
            Some(step) => Err(refused(step, &format!("{user} uses it and isn't deleted"))),
            None => Ok(()),
        }
    }

    /// Resources that `plan` deletes although a user of them stays.
    pub fn taken(&self, plan: &Plan) -> Vec<Taken> {
        let mut deleted: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        let mut goes: BTreeSet<(&Address, u32)> = BTreeSet::new();
        let mut dying: BTreeSet<&str> = BTreeSet::new();
        let mut changed: BTreeMap<(&Address, u32), &Packed> = BTreeMap::new();
        for (i, step) in plan.steps.iter().enumerate() {
            match (&step.action, &step.found, &step.state) {
                (Action::Delete, Some(found), _) => {
                    goes.insert((&step.address, step.generation));
                    for name in self.names(step.kind, found) {
                        deleted.entry(name).or_default().insert(i);
                        dying.insert(name);
                    }
                }
                (Action::Update, _, Some(state)) => {
                    changed.insert((&step.address, step.generation), state);
                }
                _ => {}
            }
        }
        if deleted.is_empty() {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for found in self.observed.found.values().flatten() {
            let Some(kind) = self.kind_at(&found.address) else { continue };
            let key = (&found.address, found.generation);
            let with_its_host = kind.is_hosted() && kind.host(&found.state).is_some_and(|c| dying.contains(c.as_str()));
            if goes.contains(&key) || found.status == Status::Deleting || with_its_host {
                continue;
            }
            let mut look = |name: &str| {
                for step in deleted.get(name).into_iter().flatten().filter_map(|i| plan.steps.get(*i)) {
                    if step.address != found.address {
                        taken.push(Taken::of(step, &found.address));
                    }
                }
            };
            diff::depends_on(changed.get(&key).unwrap_or(&&found.state), kind.rules(), &mut look);
            found.refs.iter().for_each(|name| look(name));
        }
        // Of resources that couldn't be read, only the spec shows the dependencies.
        let replaced: Vec<&Step> = plan
            .steps
            .iter()
            .filter(|s| {
                s.action == Action::Delete && s.replaces && self.kinds.get(s.kind).is_ok_and(|k| !k.is_hosted())
            })
            .collect();
        for user in if replaced.is_empty() { Vec::new() } else { self.hidden(plan) } {
            let needs = graph::needs(user);
            let used = replaced.iter().filter(|step| needs.contains(&step.address));
            taken.extend(used.map(|step| Taken::of(step, &user.address)));
        }
        taken
    }

    /// Desired resources that may exist unseen, or that exist and aren't ours.
    fn hidden(&self, plan: &Plan) -> Vec<&'a Resource> {
        let observed = self.observed;
        let unread: BTreeSet<&Address> = observed.unread.iter().flat_map(|unread| &unread.wanted).collect();
        let blocked = plan.blocked.iter().map(|b| &b.address);
        let known: BTreeSet<&Address> = plan.steps.iter().map(|s| &s.address).chain(blocked).collect();
        let is_hidden = |address: &Address| {
            let known = known.contains(address) || observed.found.contains_key(address);
            unread.contains(address) || observed.foreign.contains_key(address) || !known
        };
        self.desired.iter().filter(|resource| is_hidden(&resource.address)).collect()
    }

    fn deletes_after_users(&self, plan: &Plan) -> Result<()> {
        let mut deleters: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        let mut makers: BTreeMap<&Address, usize> = BTreeMap::new();
        for (i, step) in plan.steps.iter().enumerate() {
            match (step.action, &step.found) {
                (Action::Delete, Some(found)) => {
                    for name in self.names(step.kind, found) {
                        deleters.entry(name).or_default().insert(i);
                    }
                }
                (Action::Create, _) => drop(makers.insert(&step.address, i)),
                _ => {}
            }
        }
        for (j, user) in plan.steps.iter().enumerate() {
            let (Some(found), Ok(kind)) = (&user.found, self.kinds.get(user.kind)) else { continue };
            let mut used: BTreeSet<usize> = BTreeSet::new();
            let mut look = |name: &str| used.extend(deleters.get(name).into_iter().flatten());
            diff::depends_on(&found.state, kind.rules(), &mut look);
            found.refs.iter().for_each(|name| look(name));
            for i in used.into_iter().filter(|i| *i != j) {
                let Some(step) = plan.steps.get(i).filter(|s| s.address != user.address) else { continue };
                // The successor can be created only after the deletion, and the user is changed after that.
                let first = makers.get(&step.address).is_some_and(|maker| comes_after(plan, *maker, i));
                let waits = user.action == Action::Delete || (!first && user.action == Action::Update);
                if waits && !comes_after(plan, i, j) {
                    return Err(refused(step, &format!("{} still uses it", user.address)));
                }
            }
        }
        Ok(())
    }

    fn makes_after_needs(&self, plan: &Plan) -> Result<()> {
        let mut makers: BTreeMap<&Address, usize> = BTreeMap::new();
        for (i, step) in plan.steps.iter().enumerate() {
            let matters = !is_only_tags(step) && self.way(step).is_none();
            if matters && matches!(step.action, Action::Create | Action::Update) {
                makers.entry(&step.address).or_insert(i);
            }
        }
        let makes = |s: &Step| matches!(s.action, Action::Create | Action::Update) && s.state.is_some();
        let prepares = preparing(plan);
        for (i, step) in plan.steps.iter().enumerate().filter(|(i, s)| makes(s) && !prepares.contains(i)) {
            let Some(resource) = self.desired.get(&step.address) else { continue };
            for need in graph::needs(resource) {
                let Some(maker) = makers.get(&need).copied() else { continue };
                if !comes_after(plan, i, maker) {
                    return Err(refused(
                        step,
                        &format!("{need}, which it depends on, isn't created or changed before"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn closes_ways_last(&self, plan: &Plan) -> Result<()> {
        for (i, step) in plan.steps.iter().enumerate() {
            for (user, generation) in self.way(step).into_iter().flat_map(|way| way.users) {
                let gone = |s: &Step| s.action == Action::Delete && s.address == user && s.generation == generation;
                let gone = plan.steps.iter().position(gone);
                if !gone.is_some_and(|gone| comes_after(plan, i, gone)) {
                    return Err(refused(step, &format!("this removes access that {user} still needs")));
                }
            }
        }
        Ok(())
    }

    fn keeps_homes_until_replaced(&self, plan: &Plan) -> Result<()> {
        let lives = |place: &Address| self.desired.within(place).next().is_some();
        // Logs that were kept, and their key, aren't a placement.
        let is_home = |place: &Address| {
            let mut found = self.observed.found.keys().filter(|a| a.is_within(place)).filter_map(|a| self.kind_at(a));
            found.any(|kind| !kind.keeps_data() && !kind.unlocks_data())
        };
        // If everything is deleted, nothing has a successor.
        let goes = |s: &Step| s.action == Action::Delete && !s.replaces && self.desired.contains(&s.address);
        let going: BTreeSet<Address> = plan.steps.iter().filter(|s| goes(s)).map(|s| s.address.place()).collect();
        let mut homes: BTreeMap<Address, BTreeSet<Address>> = BTreeMap::new();
        for (i, step) in plan.steps.iter().enumerate().filter(|(_, s)| s.action == Action::Delete) {
            let place = step.address.place();
            let Owner::Tenant(_) = place.owner() else { continue };
            let next = homes.entry(place.clone()).or_insert_with(|| {
                let gone = !lives(&place) && is_home(&place);
                let own = self.desired.iter().filter(|r| gone && r.address.owner() == place.owner());
                own.map(|r| r.address.place()).filter(|home| !going.contains(home)).collect()
            });
            if next.is_empty() {
                continue;
            }
            let within = |a: &Address| next.iter().any(|home| a.is_within(home));
            // A resource that exists and works counts as part of the placement, even if a change of it is blocked.
            let works = |a: &Address| self.observed.current(a).is_some_and(|f| f.status == Status::Ready);
            if let Some(blocked) = plan.blocked.iter().find(|b| within(&b.address) && !works(&b.address)) {
                return Err(refused(step, &format!("{} of the tenant's new placement is blocked", blocked.address)));
            }
            for (j, other) in plan.steps.iter().enumerate() {
                let makes = matches!(other.action, Action::Create | Action::Update | Action::Wait);
                if makes && within(&other.address) && !comes_after(plan, i, j) {
                    return Err(refused(
                        step,
                        &format!("{} of the tenant's new placement isn't complete before", other.address),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Access that `step` removes from nodes and pods in a network part that has left the spec, such as the subnet of
    /// a zone.
    pub(super) fn way(&self, step: &Step) -> Option<Way> {
        let kind = self.kinds.get(step.kind).ok()?;
        let (Action::Update, Some(state), Some(found)) = (step.action, &step.state, &step.found) else { return None };
        if kind.lets_in().is_empty() {
            return None;
        }
        let place = step.address.place();
        let mut gone: BTreeSet<&str> = BTreeSet::new();
        for field in kind.lets_in() {
            let (Some(before), Some(after)) = (items(&found.state, field), items(state, field)) else { continue };
            if before.iter().all(|item| after.contains(item)) {
                continue;
            }
            if gone.is_empty() {
                gone = self.left(&place);
            }
        }
        let concerns = |item: &Value| {
            let mut any = false;
            walk(item, &mut |text| any |= gone.contains(text));
            any
        };
        let mut wide = state.value();
        for field in kind.lets_in().iter().filter(|_| !gone.is_empty()) {
            let (Some(before), Some(after)) = (items(&found.state, field), items(state, field)) else { continue };
            let lost = before.iter().filter(|item| !after.contains(item) && concerns(item));
            let all: Vec<Value> = after.iter().chain(lost).cloned().collect();
            if let Some(value) = wide.get_mut(*field) {
                *value = Value::Array(all);
            }
        }
        let wide = Packed::from(wide);
        if wide == *state {
            return None;
        }
        let users = self.observed.found.values().flatten().filter(|user| {
            let mut goes = false;
            user.state.walk(&mut |text| goes |= gone.contains(text));
            goes && self.kind_at(&user.address).is_some_and(|kind| kind.runs_pods())
        });
        let users: BTreeSet<_> = users.map(|user| (user.address.clone(), user.generation)).collect();
        (!users.is_empty()).then_some(Way { wide, users })
    }

    /// The ids and CIDR blocks of resources of a silo or pool that have left the spec.
    fn left(&self, place: &Address) -> BTreeSet<&'a str> {
        let observed = self.observed;
        let left = observed.found.values().flatten();
        let left = left.filter(|f| f.address.place() == *place && !self.desired.contains(&f.address));
        left.flat_map(|found| {
            let kind = self.observed.kinds.get(&found.address).copied().unwrap_or_default();
            self.names(kind, found).chain(text(found, "cidr"))
        })
        .collect()
    }

    /// The ids and names by which other resources refer to `found`.
    fn names(&self, kind: &str, found: &'a Found) -> impl Iterator<Item = &'a str> {
        let outputs = self.kinds.get(kind).map(|kind| kind.known_as()).unwrap_or_default();
        outputs.iter().filter_map(|output| found.outputs.get(*output).map(String::as_str))
    }

    fn kind_at(&self, address: &Address) -> Option<&'a dyn Kind> {
        let kind = self.observed.kinds.get(address)?;
        self.kinds.get(kind).ok().map(|kind| &**kind)
    }
}

impl Taken {
    fn of(step: &Step, user: &Address) -> Self {
        Self { address: step.address.clone(), generation: step.generation, user: user.clone() }
    }
}

/// True if `step` changes only tags.
pub(super) fn is_only_tags(step: &Step) -> bool {
    step.action == Action::Update && !step.changes.is_empty() && step.changes.iter().all(is_tag)
}

pub(super) fn is_tag(change: &Change) -> bool {
    change.path == "tags" || change.path.starts_with("tags.") || change.path.starts_with("tags[")
}

/// The steps that only prepare the deletion of the same resource.
fn preparing(plan: &Plan) -> BTreeSet<usize> {
    let deletions = plan.steps.iter().filter(|s| s.action == Action::Delete);
    let needs = deletions.flat_map(|step| step.needs.iter().map(move |need| (step, *need)));
    let prepares = |(step, need): &(&Step, usize)| plan.steps.get(*need).is_some_and(|s| s.prepares(step));
    needs.filter(prepares).map(|(_, need)| need).collect()
}

/// True if step `i` starts only after step `other` is done.
fn comes_after(plan: &Plan, i: usize, other: usize) -> bool {
    let mut seen = BTreeSet::new();
    let mut queue = vec![i];
    while let Some(step) = queue.pop().and_then(|i| plan.steps.get(i)) {
        if step.needs.contains(&other) {
            return true;
        }
        // Dependencies come before the steps that depend on them.
        queue.extend(step.needs.iter().copied().filter(|need| *need > other && seen.insert(*need)));
    }
    false
}

fn items<'v>(state: &'v Value, field: &str) -> Option<&'v Vec<Value>> {
    state.get(field).and_then(Value::as_array)
}

fn text<'v>(found: &'v Found, field: &str) -> Option<&'v str> {
    found.state.get(field).and_then(Value::as_str)
}

fn refused(step: &Step, why: &str) -> Error {
    let action = format!("{:?}", step.action).to_lowercase();
    Error::bug(format!("the plan would {action} {}, but {why}; nothing was changed", step.address))
        .help("this is a bug in ringfence, not a mistake in the spec; please report it with the spec and this message")
}
