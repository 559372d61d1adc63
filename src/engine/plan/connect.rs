//! The dependencies between steps.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Planner, Step};
use crate::engine::address::Address;
use crate::engine::kind::{Change, Found, Rule, Status};
use crate::engine::lint::Lint;
use crate::engine::packed::Packed;
use crate::engine::why::{WhyDone, WhyNot};
use crate::engine::{diff, graph, lint};

impl Planner<'_> {
    /// Adds the dependencies between steps.
    pub(super) fn connect(&mut self) {
        let index = Names::new(self);
        let gone_first = self.gone_first(&index);
        let mut needs = self.makers_need();
        needs.extend(self.deleters_wait(&index, &gone_first));
        needs.extend(self.kinds_go_first(&index));
        needs.extend(self.homes_stand_first());
        needs.extend(self.halves(&gone_first));
        // A resource that uses the former version of a deleted one's dependency must have been updated, too.
        let mut followers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut at = 0;
        while let Some((i, j)) = needs.get(at).copied() {
            at += 1;
            if self.deleting.contains_key(&i) {
                let users = followers.entry(j).or_insert_with(|| self.followers(j));
                needs.extend(users.iter().map(|user| (i, *user)));
            }
        }
        for (i, need) in needs {
            if let Some(step) = self.plan.steps.get_mut(i)
                && i != need
            {
                step.needs.insert(need);
            }
        }
    }

    /// A creation or change depends on the targets of its references.
    fn makers_need(&self) -> Vec<(usize, usize)> {
        let makers = self.making.iter().map(|(address, i)| (Some(address), *i));
        let narrowing = self.narrowing.iter().map(|i| (self.plan.steps.get(*i).map(|step| &step.address), *i));
        let mut needs = Vec::new();
        for (address, i) in makers.chain(narrowing) {
            let Some(resource) = address.and_then(|address| self.desired.get(address)) else { continue };
            let made = graph::needs(resource).into_iter().filter_map(|need| self.making.get(&need));
            needs.extend(made.filter(|need| self.matters(**need)).map(|need| (i, *need)));
        }
        needs
    }

    /// A deletion waits for all steps on resources that depend on it.
    fn deleters_wait(&self, index: &Names, gone_first: &BTreeSet<Address>) -> Vec<(usize, usize)> {
        let mut needs = Vec::new();
        let makers: BTreeSet<usize> = self.making.values().copied().collect();
        for (j, found) in self.found_steps() {
            for i in index.named_in(&found, self.rules(j)) {
                if i == j {
                    continue;
                }
                let (Some(deleter), Some(dependent)) = (self.plan.steps.get(i), self.plan.steps.get(j)) else {
                    continue;
                };
                let stays_until = !deleter.replaces || !gone_first.contains(&deleter.address);
                match dependent.action {
                    Action::Delete => needs.push((i, j)),
                    _ if (makers.contains(&j) || self.narrowing.contains(&j))
                        && stays_until
                        && deleter.address != dependent.address =>
                    {
                        needs.push((i, j))
                    }
                    _ => {}
                }
            }
        }
        needs
    }

    /// Kinds that must be deleted first although no reference shows it.
    fn kinds_go_first(&self, index: &Names) -> Vec<(usize, usize)> {
        let mut needs = Vec::new();
        let mut of_kind: BTreeMap<&str, Vec<(&usize, &Found)>> = BTreeMap::new();
        for one in &self.deleting {
            of_kind.entry(self.plan.steps.get(*one.0).map_or("", |s| s.kind)).or_default().push(one);
        }
        for (i, found) in &self.deleting {
            let Some(kind) = self.plan.steps.get(*i).and_then(|s| self.kinds.get(s.kind).ok()) else { continue };
            let before = kind.deleted_after().iter().filter_map(|kind| of_kind.get(kind)).flatten();
            for (j, other) in before {
                // A replaced resource doesn't wait for the permanent deletion of another one.
                let only = |i: &usize| self.plan.steps.get(*i).is_some_and(|s| s.replaces);
                let first = !only(i) || only(j);
                let host = |i: usize, found: &Found| self.host(i, found);
                let together = || match (host(*i, found), host(**j, other)) {
                    (Some(one), Some(two)) => one == two,
                    _ => self.within(&found.address.place(), **j, other, index),
                };
                if first && together() {
                    needs.push((*i, **j));
                }
            }
        }
        needs
    }

    /// All steps of a new placement come before the objects of its cluster, which may be the former placement's
    /// cluster, too, and before any deletion of the former placement.
    fn homes_stand_first(&self) -> Vec<(usize, usize)> {
        let mut needs = Vec::new();
        for (address, i) in self.making.iter().filter(|(address, _)| self.switches(address)) {
            let place = address.place();
            let rest = self.making.iter().filter(|(a, _)| a.is_within(&place) && !self.switches(a));
            needs.extend(rest.map(|(_, j)| (*i, *j)));
        }
        for (place, one) in &self.moves {
            let names = self.named_by(|a| a.is_within(place) || self.switches(a));
            let new: Vec<usize> =
                self.making.iter().filter(|(a, _)| one.to.iter().any(|to| a.is_within(to))).map(|(_, j)| *j).collect();
            for (i, found) in &self.deleting {
                let replaced = self.making.contains_key(&found.address);
                if !replaced && (found.address.is_within(place) || self.is_named(*i, found, &names)) {
                    needs.extend(new.iter().map(|j| (*i, *j)));
                }
            }
        }
        needs
    }

    /// The two steps of a replacement.
    fn halves(&self, gone_first: &BTreeSet<Address>) -> Vec<(usize, usize)> {
        let mut needs = Vec::new();
        for i in self.deleting.keys() {
            let Some(deleter) = self.plan.steps.get(*i).filter(|s| s.replaces) else { continue };
            let Some(maker) = self.making.get(&deleter.address) else { continue };
            if gone_first.contains(&deleter.address) {
                needs.push((*maker, *i));
                continue;
            }
            needs.push((*i, *maker));
            // The users of the old resource must use the new one first.
            let uses = |a: &Address| self.desired.get(a).is_some_and(|r| graph::needs(r).contains(&deleter.address));
            needs.extend(self.making.iter().filter(|(a, _)| uses(a)).map(|(_, user)| (*i, *user)));
        }
        needs
    }

    /// The steps that use the former version of what `step` changes until they are done, such as node groups of a
    /// launch template.
    fn followers(&self, step: usize) -> Vec<usize> {
        let Some(step) = self.plan.steps.get(step).filter(|s| s.action == Action::Update) else { return Vec::new() };
        let moved = self.kinds.get(step.kind).map(|kind| kind.moves(&step.changes)).unwrap_or_default();
        let follows = |user: &Address| {
            let state = self.desired.get(user).map(|r| &r.state);
            let refers = |(to, output): &(Address, String)| *to == step.address && moved.contains(&output.as_str());
            state.is_some_and(|state| state.references().iter().any(refers))
        };
        self.making.iter().filter(|(user, _)| !moved.is_empty() && follows(user)).map(|(_, j)| *j).collect()
    }

    /// False if no step must wait for this one, because it changes only tags: a failure must not block corrections of
    /// other resources.
    fn matters(&self, step: usize) -> bool {
        self.plan.steps.get(step).is_none_or(|s| !lint::is_only_tags(s))
    }

    /// Access is removed from nodes only after they are gone, such as the rule for a zone that is no longer used.
    /// Additions come first, in a separate step. From resources that stay, no access is removed.
    pub(super) fn take_away_last(&mut self) {
        for (address, i) in self.making.clone() {
            let Some(step) = self.plan.steps.get(i).cloned() else { continue };
            let (Some(way), Some(resource), Ok(kind)) =
                (self.lint().way(&step), self.desired.get(&address), self.kinds.get(step.kind).cloned())
            else {
                continue;
            };
            let (Some(found), Some(state)) = (&step.found, &step.state) else { continue };
            let rules = kind.rules();
            let (added, taken) =
                (diff::changes(&way.wide, &found.state, rules), diff::changes(state, &way.wide, rules));
            let leaving = |(j, gone): (&usize, &Found)| {
                way.users.contains(&(gone.address.clone(), gone.generation)).then_some(*j)
            };
            let leaving: BTreeSet<usize> = self.deleting.iter().filter_map(leaving).collect();
            if leaving.len() < way.users.len() {
                let goes = |(user, generation): &&(Address, u32)| {
                    self.deleting.values().any(|f| (&f.address, f.generation) == (user, *generation))
                };
                let user = way.users.iter().find(|user| !goes(user)).map(|(user, _)| user.clone());
                self.block(resource, WhyNot::LetsIn { user }, taken);
                match added.is_empty() {
                    true => {
                        self.making.remove(&address);
                        self.drop_step(i);
                    }
                    false => self.alter(i, &way.wide, added),
                }
                continue;
            }
            let last = match added.iter().all(lint::is_tag) {
                true => {
                    self.making.remove(&address);
                    i
                }
                false => {
                    self.alter(i, &way.wide, added);
                    let found = Some(Found { state: way.wide, ..found.clone() });
                    let (changes, needs) = (taken, BTreeSet::from([i]));
                    self.plan.steps.push(Step { found, changes, needs, ..step });
                    self.plan.steps.len() - 1
                }
            };
            self.narrowing.insert(last);
            if let Some(step) = self.plan.steps.get_mut(last) {
                step.needs.extend(leaving);
                step.why = Some(WhyDone::UsersGone);
            }
        }
    }

    fn alter(&mut self, step: usize, state: &Packed, changes: Vec<Change>) {
        if let Some(step) = self.plan.steps.get_mut(step) {
            (step.state, step.changes) = (Some(state.clone()), changes);
        }
    }

    fn lint(&self) -> Lint<'_> {
        Lint { desired: self.desired, observed: self.observed, kinds: self.kinds }
    }

    /// Replaced resources that must be deleted before their successor is created: those whose kind can't have both,
    /// those that failed or are being deleted, and users of such a resource, because their use would block the
    /// deletion.
    fn gone_first(&self, index: &Names) -> BTreeSet<Address> {
        let replaced: Vec<(usize, &Step, &Found)> = self
            .deleting
            .iter()
            .filter_map(|(i, found)| Some((*i, self.plan.steps.get(*i)?, found)))
            .filter(|(_, step, _)| step.replaces && self.making.contains_key(&step.address))
            .collect();
        let mut gone: BTreeSet<Address> = BTreeSet::new();
        loop {
            let more = replaced.iter().find(|(i, step, found)| {
                let usable = matches!(found.status, Status::Ready | Status::Pending(_));
                let both = usable && self.kinds.get(step.kind).is_ok_and(|k| k.create_before_destroy());
                let holds = || {
                    index
                        .named_in(found, self.rules(*i))
                        .iter()
                        .filter_map(|i| self.plan.steps.get(*i))
                        .any(|s| gone.contains(&s.address) && s.address != step.address)
                };
                let needs = || {
                    self.desired.get(&step.address).is_some_and(|r| graph::needs(r).iter().any(|n| gone.contains(n)))
                };
                !gone.contains(&step.address) && (!both || holds() || needs())
            });
            match more {
                Some((_, step, _)) => gone.insert(step.address.clone()),
                None => return gone,
            };
        }
    }

    /// True if `other`, which step `j` deletes, belongs to the silo or pool `place`, or uses resources of it, as a
    /// tenant's nodes use its subnets.
    fn within(&self, place: &Address, j: usize, other: &Found, index: &Names) -> bool {
        let uses = || index.named_in(other, self.rules(j)).into_iter().filter_map(|i| self.plan.steps.get(i));
        other.address.place() == *place || uses().any(|step| step.address.place() == *place)
    }

    pub(super) fn rules(&self, step: usize) -> &'static [(&'static str, Rule)] {
        self.plan.steps.get(step).and_then(|s| self.kinds.get(s.kind).ok()).map(|k| k.rules()).unwrap_or_default()
    }

    fn found_steps(&self) -> Vec<(usize, Found)> {
        self.plan.steps.iter().enumerate().filter_map(|(i, s)| Some((i, s.found.clone()?))).collect()
    }
}

/// The deleted resources, by the ids, ARNs and names by which others refer to them.
struct Names {
    names: BTreeMap<String, BTreeSet<usize>>,
    /// Of kinds without outputs, such as objects in clusters.
    ids: BTreeMap<String, usize>,
}

impl Names {
    fn new(planner: &Planner<'_>) -> Self {
        let mut names: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        let mut ids = BTreeMap::new();
        for (i, found) in &planner.deleting {
            ids.insert(found.id.clone(), *i);
            let Some(kind) = planner.plan.steps.get(*i).and_then(|s| planner.kinds.get(s.kind).ok()) else { continue };
            for name in kind.known_as().iter().filter_map(|output| found.outputs.get(*output)) {
                names.entry(name.clone()).or_default().insert(*i);
            }
        }
        Self { names, ids }
    }

    /// The deletions of the resources on which `found` depends. `found` is of a kind with these rules.
    fn named_in(&self, found: &Found, rules: &[(&str, Rule)]) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut look = |text: &str| {
            if let Some(steps) = self.names.get(text) {
                all.extend(steps);
            }
        };
        diff::depends_on(&found.state, rules, &mut look);
        found.refs.iter().for_each(|r| look(r));
        all.extend(found.refs.iter().filter_map(|r| self.ids.get(r)));
        all
    }
}
