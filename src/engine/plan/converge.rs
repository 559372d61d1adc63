//! The steps that bring one resource from the observed to the desired state.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Action, Blocked, Planner, blocked_at, put, twice};
use crate::engine::address::Address;
use crate::engine::desired::Resource;
use crate::engine::error::{Class, Result};
use crate::engine::kind::{Change, Found, Kind, New, Repair, Status};
use crate::engine::packed::Packed;
use crate::engine::value::{Outputs, has_references, references};
use crate::engine::why::{Note, WhyDone, WhyNot};
use crate::engine::{diff, graph};

impl<'a> Planner<'a> {
    /// Plans one desired resource.
    pub(super) fn converge(&mut self, resource: &Resource) -> Result<()> {
        let kind = self.kinds.get(resource.kind)?.clone();
        if !self.is_readable(resource)? {
            return Ok(());
        }
        let address = &resource.address;
        let all = self.observed.found.get(address).map(Vec::as_slice).unwrap_or_default();
        if self.observed.is_twice(address) {
            self.block(resource, twice(all), vec![]);
            return Ok(());
        }
        if let Some(scope) = self.observed.scopes.get(address).filter(|scope| **scope != resource.scope) {
            self.block(resource, WhyNot::Elsewhere { at: scope.to_string(), to: resource.scope.to_string() }, vec![]);
            return Ok(());
        }
        for old in all.iter().skip(1) {
            match self.held(old) {
                Some(why) => self.block(resource, why, vec![]),
                None => self.push_delete(resource.kind, old, true, Some(WhyDone::LeftOver))?,
            }
        }
        let state = resource.state.resolve(&|a, o| self.outputs.get(a)?.get(o).cloned());
        match all.first() {
            None => {
                self.make(resource, &*kind, state);
                Ok(())
            }
            Some(found) if matches!(found.status, Status::Deleting | Status::Failed { .. }) => {
                self.recover(resource, &*kind, found, state)
            }
            Some(found) => self.change(resource, &*kind, found, state),
        }
    }

    /// False if the existence of the resource is unknown, or if its API will not be served. Then the plan names it
    /// and has no step for it.
    fn is_readable(&mut self, resource: &Resource) -> Result<bool> {
        let address = &resource.address;
        if let Some(unread) = self.observed.unread.iter().find(|u| u.wanted.contains(address)) {
            self.block(resource, WhyNot::Unread { host: unread.host.clone() }, vec![]);
            return Ok(false);
        }
        let Some(error) = self.observed.unserved.get(address) else { return Ok(true) };
        if let Some(host) = self.upgrade_ahead(resource) {
            let api = self.kinds.get(resource.kind)?.api(&resource.state);
            self.upgraded.entry(host).or_default().extend(api);
        } else if error.class == Class::Invalid {
            // No resource provides the API, so the template is wrong.
            return Err(error.clone());
        } else if self.brings_apis(resource)? {
            self.plan.notes.insert(Note::WaitsForApi { address: address.clone(), what: error.message.clone() });
        } else {
            let why = WhyNot::Unserved { error: error.clone(), controls: resource.controls.clone() };
            self.block(resource, why, vec![]);
            return Ok(false);
        }
        Ok(true)
    }

    /// Plans a resource that doesn't exist.
    fn make(&mut self, resource: &Resource, kind: &dyn Kind, state: Packed) {
        let address = &resource.address;
        if let Some(foreign) = self.observed.foreign.get(address) {
            self.block(resource, WhyNot::Foreign { message: foreign.message.clone() }, vec![]);
        } else if let Some((user, output, id)) = self.used_by(resource, kind) {
            let why = WhyNot::LostTags { id: id.clone(), user, tags: kind.ownership(&state) };
            self.block(resource, why, vec![]);
            // The resources in it match the spec.
            self.outputs.insert(address.clone(), Outputs::from([(output, id)]));
        } else if let Some(why) = self.lacks(resource) {
            self.block(resource, why, vec![]);
        } else {
            self.create(resource, kind, state, 1, false, None);
        }
    }

    /// Plans a resource that is failed or being deleted.
    fn recover(&mut self, resource: &Resource, kind: &dyn Kind, found: &Found, state: Packed) -> Result<()> {
        let Status::Failed { why, repair } = &found.status else {
            return self.replace(resource, kind, found, state, vec![], WhyDone::Leaving);
        };
        match (repair, self.held(found)) {
            (Repair::Replace, Some(because)) => {
                let because = Box::new(because);
                self.block(resource, WhyNot::BrokenAndKept { what: why.clone(), because }, vec![]);
            }
            (Repair::Replace, None) => {
                return self.replace(resource, kind, found, state, vec![], WhyDone::Failed { what: why.clone() });
            }
            (Repair::Update, _) => {
                let changes = diff::changes(&state, &found.state, kind.rules());
                self.update(resource, kind, found, state, changes, Some(WhyDone::Failed { what: why.clone() }));
            }
            (Repair::Manual, _) => {
                self.block(resource, WhyNot::Broken { id: found.id.clone(), what: why.clone() }, vec![]);
            }
        }
        Ok(())
    }

    /// Plans the differences of an existing resource.
    fn change(&mut self, resource: &Resource, kind: &dyn Kind, found: &Found, mut state: Packed) -> Result<()> {
        let address = &resource.address;
        let mut changes = diff::changes(&state, &found.state, kind.rules());
        // The difference may exist only because the resource belongs to the other one.
        let unclear = || graph::needs(resource).into_iter().find(|n| self.observed.is_twice(n));
        if let Some(cause) = (!changes.is_empty()).then(unclear).flatten() {
            self.block(resource, WhyNot::NeedsTwice { need: cause }, changes);
            return Ok(());
        }
        // A value that resources of others use stays for now. The other differences are corrected.
        let observed = self.observed;
        for stuck in observed.stuck.get(address).into_iter().flatten() {
            let (held, rest): (Vec<_>, Vec<_>) = changes.into_iter().partition(|c| c.path == stuck.field);
            changes = rest;
            if !held.is_empty() {
                let why = WhyNot::Stuck { reason: stuck.reason.clone(), help: stuck.help.clone() };
                self.block(resource, why, held);
                state = put(&state, &stuck.field, stuck.keep.clone());
                changes = diff::changes(&state, &found.state, kind.rules());
            }
        }
        if let Some(cause) = self.unmade(&state) {
            let pending = self.blocked_at(&cause).any(|b| b.why.is_pending());
            self.block(resource, WhyNot::NeedsBlocked { need: cause, pending }, changes);
            return Ok(());
        }
        if changes.iter().any(|c| c.replaces) {
            let fields: Vec<String> = changes.iter().filter(|c| c.replaces).map(|c| c.path.clone()).collect();
            let Some(why) = self.not_replaced(resource, kind, found, &changes, &fields) else {
                return self.replace(resource, kind, found, state, changes, WhyDone::Fixed { fields });
            };
            // Fields that can be changed in place are changed, because they may protect the resource.
            let (held, _): (Vec<_>, Vec<_>) = changes.into_iter().partition(|c| c.replaces);
            for change in &held {
                let field = change.path.split(['.', '[']).next().unwrap_or_default();
                state = put(&state, field, found.state.get(field).cloned().unwrap_or_default());
            }
            self.block(resource, why, held);
            changes = diff::changes(&state, &found.state, kind.rules());
        }
        if let Some(cause) = self.holds_up_switch(address).filter(|_| !changes.is_empty()) {
            let why = WhyNot::Shared { blocked: cause.address.clone(), pending: cause.why.is_pending() };
            self.block(resource, why, changes);
            return Ok(());
        }
        match (&found.status, changes.is_empty()) {
            (_, false) => self.update(resource, kind, found, state, changes, None),
            (Status::Pending(what), true) => {
                let why = Some(WhyDone::Pending { state: what.clone() });
                self.push(resource, kind, Action::Wait, found.generation, state, why, Some(found.clone()), vec![]);
            }
            _ if self.blocked.contains_key(address) => {}
            _ => self.plan.unchanged += 1,
        }
        Ok(())
    }

    /// Why a resource that needs a replacement for `changes` isn't replaced, the help, and whether this is temporary.
    /// `None` if it may be replaced.
    fn not_replaced(
        &self,
        resource: &Resource,
        kind: &dyn Kind,
        found: &Found,
        changes: &[Change],
        fields: &[String],
    ) -> Option<WhyNot> {
        let address = &resource.address;
        let not = |because: WhyNot| WhyNot::NotReplaced { fields: fields.to_vec(), because: Box::new(because) };
        if let Some(because) = self.held(found) {
            return Some(not(because));
        }
        // An object in a cluster whose replacement is allowed is lost with the cluster.
        let follows = || kind.is_hosted() && changes.iter().filter(|c| c.replaces).all(|c| has_references(&c.after));
        let allowed = self.policy.allow_replace.contains(address);
        if let Some(lost) = kind.loses(found, true).filter(|_| !allowed && !follows()) {
            return Some(not(WhyNot::Loses { address: address.clone(), lost }));
        }
        self.lacks(resource)
    }

    /// Why `resource` can't be created: a dependency is blocked and doesn't exist or isn't usable. `None` if it can.
    /// An object that its cluster will never accept blocks no other resource.
    fn lacks(&self, resource: &Resource) -> Option<WhyNot> {
        let needs = graph::needs(resource);
        let usable = |address: &Address| {
            let found = self.observed.current(address).filter(|_| !self.observed.is_twice(address));
            found.is_some_and(|found| matches!(found.status, Status::Ready | Status::Pending(_)))
        };
        // In the order in which they were blocked.
        let causes: BTreeSet<usize> =
            needs.iter().filter_map(|need| self.blocked.get(need)).flatten().copied().collect();
        let mut causes = causes.into_iter().filter_map(|i| self.plan.blocked.get(i));
        let cause = causes.find(|b| !b.why.is_unmet() && !usable(&b.address))?;
        Some(WhyNot::NeedsBlocked { need: cause.address.clone(), pending: cause.why.is_pending() })
    }

    /// The targets of references in `state` for which there is no step.
    fn unmade(&self, state: &Packed) -> Option<Address> {
        state.references().into_iter().map(|(address, _)| address).find(|address| !self.making.contains_key(address))
    }

    /// For a kind that AWS keeps while it contains resources, and that wasn't found: a resource in it, and the output
    /// by which that resource names it.
    fn used_by(&self, resource: &Resource, kind: &dyn Kind) -> Option<(Address, String, String)> {
        let field = kind.holds_by()?;
        let own = |value: &Value| references(value).into_iter().find(|(to, _)| *to == resource.address);
        let place = resource.address.place();
        // A tenant's own resource may be moving from another pool.
        self.desired.within(&place).find_map(|user| {
            let (_, output) = user.state.read(|state| own(state.get(field)?))?;
            let found = self.observed.current(&user.address)?;
            let id = found.state.read(|state| Some(state.get(field)?.as_str()?.to_owned()))?;
            // The resource has our tags for another address.
            let known = self.observed.found.values().flatten().any(|found| found.id == id);
            (!known).then(|| (user.address.clone(), output, id))
        })
    }

    /// Names the resources that a destroy doesn't delete, because their ownership is unknown.
    pub(super) fn note_what_stays(&mut self) -> Result<()> {
        let desired = self.desired;
        for resource in desired.iter() {
            let kind = self.kinds.get(resource.kind)?;
            if !self.selects(&resource.address) || self.observed.current(&resource.address).is_some() {
                continue;
            }
            if let Some((user, _, id)) = self.used_by(resource, &**kind) {
                self.plan.notes.insert(Note::LostTags { address: resource.address.clone(), id, user });
            }
        }
        Ok(())
    }

    fn replace(
        &mut self,
        resource: &Resource,
        kind: &dyn Kind,
        found: &Found,
        state: Packed,
        changes: Vec<Change>,
        why: WhyDone,
    ) -> Result<()> {
        self.disturb(kind, found, &changes);
        self.push_delete(resource.kind, found, true, Some(why.clone()))?;
        let state = kind.carry(found, state);
        self.create(resource, kind, state, found.generation + 1, true, Some(why));
        if let Some(step) = self.plan.steps.last_mut() {
            step.changes = changes;
        }
        Ok(())
    }

    fn create(
        &mut self,
        resource: &Resource,
        kind: &dyn Kind,
        state: Packed,
        generation: u32,
        replaces: bool,
        why: Option<WhyDone>,
    ) {
        let new = New { address: resource.address.clone(), generation, state: state.clone(), token: String::new() };
        // An output that isn't predicted is known after apply. The old outputs of a replaced resource must not be
        // used for the new one. If the old one is deleted first, even an equal name is another resource.
        let beside = !replaces || kind.create_before_destroy();
        let outputs = if beside { kind.predict(&new, &resource.scope) } else { Outputs::new() };
        self.outputs.insert(resource.address.clone(), outputs);
        self.push(resource, kind, Action::Create, generation, state, why, None, vec![]);
        if let Some(step) = self.plan.steps.last_mut() {
            step.replaces = replaces;
        }
    }

    pub(super) fn update(
        &mut self,
        resource: &Resource,
        kind: &dyn Kind,
        found: &Found,
        state: Packed,
        changes: Vec<Change>,
        why: Option<WhyDone>,
    ) {
        let generation = found.generation;
        self.disturb(kind, found, &changes);
        self.push(resource, kind, Action::Update, generation, state, why, Some(found.clone()), changes);
        // An update may change outputs, such as a launch template's version. The kind predicts the outputs that stay.
        let moving = kind.moves(&self.plan.steps.last().map(|s| s.changes.clone()).unwrap_or_default());
        if let Some(outputs) = self.outputs.get_mut(&resource.address) {
            outputs.retain(|name, _| !moving.contains(&name.as_str()));
            if let Some(state) = self.plan.steps.last().and_then(|s| s.state.clone()).filter(|_| !moving.is_empty()) {
                let new = New { address: resource.address.clone(), generation, state, token: String::new() };
                outputs.extend(kind.predict(&new, &resource.scope));
            }
        }
    }

    fn disturb(&mut self, kind: &dyn Kind, found: &Found, changes: &[Change]) {
        for how in kind.disturbs(found, changes) {
            self.disturbed.entry(how).or_default().push(found.address.clone());
        }
    }

    /// True if an earlier step may add APIs to the cluster of `resource`.
    fn brings_apis(&self, resource: &Resource) -> Result<bool> {
        let ahead = graph::needs(resource).into_iter().filter_map(|need| self.making.get(&need));
        for step in ahead.filter_map(|i| self.plan.steps.get(*i)) {
            if self.kinds.get(step.kind)?.brings_apis() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The cluster of `resource`, if an earlier step changes its version: the APIs of the new version are unknown.
    fn upgrade_ahead(&self, resource: &Resource) -> Option<Address> {
        let ahead = graph::needs(resource).into_iter().filter_map(|need| self.making.get(&need));
        let mut ahead = ahead.filter_map(|i| self.plan.steps.get(*i));
        let upgraded = ahead.find(|s| {
            let hosting = self.kinds.get(s.kind).ok().and_then(|kind| kind.hosts());
            hosting.is_some_and(|h| s.action == Action::Create || s.changes.iter().any(|c| c.path == h.serves_by))
        });
        upgraded.map(|s| s.address.clone())
    }

    /// Shows impossible changes that the spec asks for. Steps that depend on these addresses continue, because the
    /// resources stay unchanged.
    pub(super) fn refuse(&mut self, selected: &BTreeSet<Address>) {
        if self.policy.destroy {
            return;
        }
        for refusal in self.desired.refusals.iter().filter(|r| selected.contains(&r.address)) {
            let change = Change {
                path: refusal.path.to_owned(),
                before: refusal.is.clone().into(),
                after: refusal.asked.clone().into(),
                replaces: false,
                secret: false,
            };
            let (reason, help) = (refusal.reason.clone(), refusal.help.clone());
            let why = WhyNot::Refused { reason, help, pending: refusal.pending };
            let blocked = blocked_at(&refusal.address, refusal.kind, why);
            self.hold_up(Blocked { changes: vec![change], ..blocked });
        }
    }
}
