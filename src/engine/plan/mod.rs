//! The planner: computes the steps from the observed to the desired state.
//!
//! It is pure and deterministic: no I/O, no clock, and the same input gives the same bytes. The planner takes all
//! decisions. The executor only carries them out.

mod connect;
mod converge;
mod moves;
mod order;
mod remove;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::moves::Move;
use self::order::{Circle, order};
use crate::engine::address::{Address, Owner};
use crate::engine::desired::{Desired, Resource};
use crate::engine::drift::Drift;
use crate::engine::error::{Error, Result};
use crate::engine::kind::{Change, Found, Hosting, Kind, Registry, Scope, Verb};
use crate::engine::lint::{Lint, Taken};
use crate::engine::observe::Observed;
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::engine::why::{Note, WhyDone, WhyKept, WhyNot};
use crate::engine::{diff, graph};

/// The user's selection and permissions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// `--tenant`: select only these tenants' resources. Empty selects everything.
    pub tenants: BTreeSet<String>,
    /// `--with-deps`: also select their dependencies.
    pub with_deps: bool,
    /// Delete everything.
    pub destroy: bool,
    /// `--allow-replace`: resources with work or data that may be replaced.
    pub allow_replace: BTreeSet<Address>,
    /// `--allow-destroy`: places and resources with a tenant's work or data that may be deleted.
    pub allow_destroy: BTreeSet<Address>,
    /// `--delete-logs`.
    pub delete_logs: bool,
    /// `--aws-only`: objects in clusters aren't read, and steps that must come after them are left out.
    pub aws_only: bool,
}

/// One step. A replacement is two steps with the same address.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub address: Address,
    pub kind: &'static str,
    /// The account and region in which it works.
    #[serde(skip)]
    pub scope: Arc<Scope>,
    pub action: Action,
    /// Part of a replacement, which is counted once.
    pub replaces: bool,
    pub generation: u32,
    /// The reason, if the changes don't show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<WhyDone>,
    /// A short text about the resource.
    pub summary: String,
    pub controls: Vec<&'static str>,
    pub changes: Vec<Change>,
    /// The state after the step. It has references for values that are known after apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Packed>,
    /// The observed resource.
    #[serde(skip)]
    pub found: Option<Found>,
    /// Indices of the steps that must be done first.
    pub needs: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Update,
    /// The resource exists and is right, but isn't ready yet. Wait for it.
    Wait,
    Delete,
}

/// A change that is needed but impossible or not allowed.
#[derive(Clone, Debug, Serialize)]
pub struct Blocked {
    pub address: Address,
    pub kind: String,
    pub why: WhyNot,
    /// IDs of the controls that the resource implements.
    pub controls: Vec<&'static str>,
    pub changes: Vec<Change>,
}

/// A cluster whose objects couldn't be read. The plan has no steps for it.
#[derive(Clone, Debug, Serialize)]
pub struct UnreadHost {
    /// The EKS cluster's name.
    pub host: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The number of wanted objects in it.
    pub objects: usize,
}

/// A resource that left the spec and is kept.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    pub address: Address,
    pub kind: &'static str,
    pub id: String,
    pub why: WhyKept,
}

/// A deletion that loses a tenant's work or data. It must be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// A place (`tenant/12345/silo`, `pool/shared-1`) that is deleted completely, or a resource of a place that
    /// stays.
    pub address: Address,
    /// What is lost, in words.
    pub lost: Vec<String>,
    /// The resources of it that are kept.
    pub kept: Vec<Address>,
}

/// How many resources a plan adds, changes, replaces and destroys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub add: usize,
    pub change: usize,
    pub replace: usize,
    pub destroy: usize,
}

/// The steps, each after its dependencies.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub blocked: Vec<Blocked>,
    pub unread_hosts: Vec<UnreadHost>,
    pub kept: Vec<Kept>,
    pub notes: BTreeSet<Note>,
    /// The losses by address, which must be confirmed.
    pub confirm: Vec<Loss>,
    /// The number of selected resources that match the spec.
    pub unchanged: usize,
    /// Outputs of existing resources, with which the executor starts.
    #[serde(skip)]
    pub outputs: BTreeMap<Address, Outputs>,
    /// Drift that isn't a step. Only [`super::drift::of`] sets it.
    #[serde(skip)]
    pub drift: Option<Drift>,
}

impl Step {
    /// True if this step only prepares `deletion`, which depends on it: it changes the resource that is deleted.
    pub(super) fn prepares(&self, deletion: &Step) -> bool {
        self.action == Action::Update
            && deletion.action == Action::Delete
            && self.address == deletion.address
            && self.generation == deletion.generation
    }
}

impl Plan {
    /// True if there are no steps and nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.blocked.is_empty() && self.unread_hosts.is_empty()
    }

    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        let mut changed = BTreeSet::new();
        let deleted: BTreeSet<&Address> =
            self.steps.iter().filter(|s| s.action == Action::Delete).map(|s| &s.address).collect();
        for step in &self.steps {
            match (step.action, step.replaces) {
                (Action::Create, true) => summary.replace += 1,
                (Action::Create, false) => summary.add += 1,
                (Action::Update | Action::Wait, _) => {
                    // An update that prepares a deletion counts as part of it.
                    if !deleted.contains(&step.address) && changed.insert(&step.address) {
                        summary.change += 1;
                    }
                }
                (Action::Delete, false) => summary.destroy += 1,
                (Action::Delete, true) => {}
            }
        }
        summary
    }
}

/// Plans `desired` against `observed`.
pub fn plan(desired: &Desired, observed: &Observed, kinds: &Registry, policy: &Policy) -> Result<Plan> {
    observed.readable()?;
    let lint = Lint { desired, observed, kinds };
    let mut held = Held::new();
    loop {
        let id = |address: &Address, generation: u32| {
            let mut found = observed.found.get(address).into_iter().flatten();
            found.find(|f| f.generation == generation).map(|f| f.id.clone()).unwrap_or_default()
        };
        let before = held.len();
        let plan = match draft(desired, observed, kinds, policy, &held)? {
            Ok(plan) => plan,
            Err(Circle(steps)) => {
                // A replacement that deletes first waits for a user of the old resource, and that user, by way of
                // others, for the new resource. Without the replacement, this run changes the users.
                let waits = steps.iter().zip(steps.iter().skip(1));
                for (step, user) in waits.filter(|(step, _)| step.action == Action::Delete && step.replaces) {
                    let why = WhyNot::Later { id: id(&step.address, step.generation), user: user.address.clone() };
                    held.entry((step.address.clone(), step.generation)).or_insert(why);
                }
                if held.len() == before {
                    let names: Vec<String> =
                        steps.iter().map(|s| format!("{:?} {}", s.action, s.address).to_lowercase()).collect();
                    let names = names.join(" → ");
                    return Err(Error::bug(format!("steps depend on each other in a circle: {names}")));
                }
                continue;
            }
        };
        for Taken { address, generation, user } in lint.taken(&plan) {
            let blocked = plan.blocked.iter().find(|b| b.address == user);
            let because = blocked.map(|b| Box::new(b.why.clone()));
            let why = WhyNot::Used { id: id(&address, generation), user, because };
            held.entry((address, generation)).or_insert(why);
        }
        if held.len() == before {
            lint.check(&plan)?;
            return Ok(plan);
        }
    }
}

/// Why resources must not be replaced or deleted, by address and generation.
type Held = BTreeMap<(Address, u32), WhyNot>;

/// One attempt at a plan, which doesn't touch the resources in `held`.
fn draft(
    desired: &Desired,
    observed: &Observed,
    kinds: &Registry,
    policy: &Policy,
    held: &Held,
) -> Result<std::result::Result<Plan, Circle>> {
    let said = observed.notes.union(&desired.notes).cloned();
    let mut planner = Planner {
        desired,
        observed,
        kinds,
        policy,
        held,
        outputs: observed.outputs(),
        plan: Plan { notes: said.map(Note::from).collect(), ..Plan::default() },
        blocked: BTreeMap::new(),
        making: BTreeMap::new(),
        deleting: BTreeMap::new(),
        narrowing: BTreeSet::new(),
        disturbed: BTreeMap::new(),
        moves: BTreeMap::new(),
        upgraded: BTreeMap::new(),
    };
    planner.run()?;
    let Planner { mut plan, disturbed, upgraded, .. } = planner;
    plan.notes.extend(disturbed.into_iter().map(|(how, who)| Note::Disturbs { how, who }));
    plan.notes.extend(upgraded.into_iter().map(|(host, apis)| Note::BringsApis { host, apis }));
    plan.outputs = observed.outputs();
    Ok(order(plan))
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    kinds: &'a Registry,
    policy: &'a Policy,
    held: &'a Held,
    /// Known outputs as they will be: those of resources that stay, and predicted ones.
    outputs: BTreeMap<Address, Outputs>,
    plan: Plan,
    /// The indices of each address in `plan.blocked`.
    blocked: BTreeMap<Address, Vec<usize>>,
    /// The step that creates or changes an address.
    making: BTreeMap<Address, usize>,
    /// Steps that delete, with what they delete.
    deleting: BTreeMap<usize, Found>,
    /// Updates that only remove access. No step waits for them.
    narrowing: BTreeSet<usize>,
    /// Side effects of changes, each with the affected addresses.
    disturbed: BTreeMap<String, Vec<Address>>,
    /// Places that leave the spec because tenants move.
    moves: BTreeMap<Address, Move>,
    /// APIs that only a cluster's next version serves, by cluster.
    upgraded: BTreeMap<Address, BTreeSet<String>>,
}
impl<'a> Planner<'a> {
    fn run(&mut self) -> Result<()> {
        let order = graph::order(self.desired)?;
        let mut selected = self.selection()?;
        if self.policy.aws_only {
            let inside = self.hosted(&order)?;
            selected.retain(|a| !inside.contains(a));
        }
        if self.policy.destroy {
            let all: Vec<Address> = self.observed.found.keys().filter(|a| self.selects(a)).cloned().collect();
            for address in &all {
                self.remove(address)?;
            }
            self.note_what_stays()?;
        } else {
            let gone: Vec<Address> =
                self.observed.found.keys().filter(|a| !self.desired.contains(a) && self.selects(a)).cloned().collect();
            self.moves = self.moves(&gone);
            let (last, first): (Vec<Address>, Vec<Address>) = order.into_iter().partition(|a| self.switches(a));
            for address in first.iter().chain(&last) {
                let Some(resource) = self.desired.get(address) else { continue };
                if selected.contains(address) {
                    self.converge(resource)?;
                } else if !self.observed.found.contains_key(address) {
                    self.outputs.remove(address);
                }
            }
            self.decide_moves();
            for address in &gone {
                if !self.is_kept_home(address) {
                    self.remove(address)?;
                }
            }
        }
        self.refuse(&selected);
        self.keep_what_kept_homes_use();
        self.keep_keys_of_kept()?;
        self.block_hosts();
        let dying = self.dying_hosts();
        self.name_losses(&dying)?;
        self.drop_what_dies_with_its_host();
        self.take_away_last();
        self.connect();
        Ok(())
    }

    /// True if the selection includes the address.
    fn selects(&self, address: &Address) -> bool {
        self.policy.tenants.is_empty()
            || matches!(address.owner(), Owner::Tenant(id) if self.policy.tenants.contains(&id))
    }

    /// The desired addresses to plan: those of the selected tenants, and with `--with-deps` their dependencies.
    /// Without it, a missing dependency is an error that names it.
    fn selection(&self) -> Result<BTreeSet<Address>> {
        let own: BTreeSet<Address> =
            self.desired.iter().map(|r| r.address.clone()).filter(|a| self.selects(a)).collect();
        if self.policy.tenants.is_empty() || self.policy.destroy {
            return Ok(own);
        }
        let mut all = own.clone();
        let mut queue: Vec<Address> = own.into_iter().collect();
        let mut missing = BTreeSet::new();
        while let Some(address) = queue.pop() {
            let Some(resource) = self.desired.get(&address) else { continue };
            for need in graph::needs(resource) {
                if self.policy.with_deps {
                    if all.insert(need.clone()) {
                        queue.push(need);
                    }
                } else if !all.contains(&need) && self.observed.current(&need).is_none() {
                    missing.insert(match need.owner() {
                        Owner::Tenancy => need.to_string(),
                        owner => owner.to_string(),
                    });
                }
            }
        }
        match missing.is_empty() {
            true => Ok(all),
            false => {
                let names = missing.into_iter().collect::<Vec<_>>().join(", ");
                Err(Error::input(format!("the selected tenants depend on resources that don't exist: {names}"))
                    .help("apply the whole spec first, or add --with-deps to also create these resources"))
            }
        }
    }

    /// Objects in clusters, and resources that come after them.
    fn hosted(&self, order: &[Address]) -> Result<BTreeSet<Address>> {
        let mut inside: BTreeSet<Address> = BTreeSet::new();
        for resource in order.iter().filter_map(|a| self.desired.get(a)) {
            let after = graph::needs(resource).iter().any(|n| inside.contains(n));
            if after || self.kinds.get(resource.kind)?.is_hosted() {
                inside.insert(resource.address.clone());
            }
        }
        Ok(inside)
    }

    #[allow(clippy::too_many_arguments)]
    fn push(
        &mut self,
        resource: &Resource,
        kind: &dyn Kind,
        action: Action,
        generation: u32,
        state: Packed,
        why: Option<WhyDone>,
        found: Option<Found>,
        changes: Vec<Change>,
    ) {
        self.making.insert(resource.address.clone(), self.plan.steps.len());
        self.plan.steps.push(Step {
            address: resource.address.clone(),
            kind: resource.kind,
            scope: resource.scope.clone(),
            action,
            replaces: false,
            generation,
            why,
            summary: kind.summary(&state),
            controls: resource.controls.clone(),
            changes,
            state: Some(state),
            found,
            needs: BTreeSet::new(),
        });
    }

    fn push_delete(
        &mut self,
        kind_name: &'static str,
        found: &Found,
        replaces: bool,
        why: Option<WhyDone>,
    ) -> Result<()> {
        let kind = self.kinds.get(kind_name)?.clone();
        let scope = self.observed.scopes.get(&found.address).cloned();
        let scope = scope.ok_or_else(|| Error::bug(format!("the scope of {} is unknown", found.address)))?;
        let mut needs = BTreeSet::new();
        let mut found = found.clone();
        if let Some(state) = kind.before_delete(&found) {
            needs.insert(self.plan.steps.len());
            let changes = diff::changes(&state, &found.state, kind.rules());
            self.plan.steps.push(Step {
                address: found.address.clone(),
                kind: kind_name,
                scope: scope.clone(),
                action: Action::Update,
                replaces,
                generation: found.generation,
                why: Some(WhyDone::BeforeDeletion),
                summary: kind.summary(&found.state),
                controls: vec![],
                changes,
                state: Some(state.clone()),
                found: Some(found.clone()),
                needs: BTreeSet::new(),
            });
            found.state = state;
        }
        self.deleting.insert(self.plan.steps.len(), found.clone());
        self.plan.steps.push(Step {
            address: found.address.clone(),
            kind: kind_name,
            scope,
            action: Action::Delete,
            replaces,
            generation: found.generation,
            why,
            summary: kind.summary(&found.state),
            controls: vec![],
            changes: vec![],
            state: None,
            found: Some(found),
            needs,
        });
        Ok(())
    }

    /// Why `found` must not be replaced or deleted, with the help. `None` if it may be.
    fn held(&self, found: &Found) -> Option<WhyNot> {
        self.held.get(&(found.address.clone(), found.generation)).cloned()
    }

    /// Drops these deletions from the plan, and says why the resources are kept.
    fn keep(&mut self, deletions: Vec<usize>, why: &WhyKept) {
        for i in deletions {
            if let (Some(step), Some(found)) = (self.plan.steps.get(i), self.deleting.get(&i)) {
                self.plan.kept.push(Kept {
                    address: found.address.clone(),
                    kind: step.kind,
                    id: found.id.clone(),
                    why: why.clone(),
                });
            }
            self.drop_step(i);
        }
    }

    /// Drops a step on an existing resource. `order` leaves it out.
    fn drop_step(&mut self, index: usize) {
        self.deleting.remove(&index);
        if let Some(step) = self.plan.steps.get_mut(index) {
            step.found = None;
        }
    }

    fn block(&mut self, resource: &Resource, why: WhyNot, changes: Vec<Change>) {
        let blocked = blocked_at(&resource.address, resource.kind, why);
        self.hold_up(Blocked { controls: resource.controls.clone(), changes, ..blocked });
    }

    fn hold_up(&mut self, blocked: Blocked) {
        self.blocked.entry(blocked.address.clone()).or_default().push(self.plan.blocked.len());
        self.plan.blocked.push(blocked);
    }

    fn blocked_at(&self, address: &Address) -> impl Iterator<Item = &Blocked> {
        self.blocked.get(address).into_iter().flatten().filter_map(|i| self.plan.blocked.get(*i))
    }

    /// True if step `i` is for a kind that hosts objects: a cluster.
    fn is_host(&self, i: usize) -> bool {
        self.hosting(i).is_some()
    }

    fn hosting(&self, i: usize) -> Option<Hosting> {
        self.kinds.get(self.plan.steps.get(i)?.kind).ok()?.hosts()
    }

    /// The host of `found`, which step `i` is about.
    fn host(&self, i: usize, found: &Found) -> Option<String> {
        self.kinds.get(self.plan.steps.get(i)?.kind).ok()?.host(&found.state)
    }
}

/// The kind of a kept placement or pool in a plan.
pub const HOME: &str = "home";

/// Tags can be copied, so they don't tell which of these is ours.
fn twice(all: &[Found]) -> WhyNot {
    WhyNot::Twice { ids: all.iter().map(|f| f.id.clone()).collect() }
}

/// `state` with another value of a field.
fn put(state: &Packed, field: &str, value: Value) -> Packed {
    state.edited(|state| {
        if let Some(fields) = state.as_object_mut() {
            fields.insert(field.to_owned(), value);
        }
    })
}

fn blocked_at(address: &Address, kind: &str, why: WhyNot) -> Blocked {
    Blocked { address: address.clone(), kind: kind.to_owned(), why, controls: vec![], changes: vec![] }
}

/// The token for creating `state` at `address`. It is the same for each attempt at this creation, and another one if
/// the state changes.
pub fn token(tenancy: &str, address: &Address, generation: u32, state: &Packed) -> String {
    digest(&[tenancy, address.as_str(), &generation.to_string(), state.text()])
}

/// The next token after `token`, for the case that `token` returns the resource `dead`, which someone has deleted
/// since.
pub fn next_token(token: &str, dead: &str) -> String {
    digest(&[token, dead])
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex::encode(hash.finalize())
}

/// The verb for which the step's pace is looked up.
pub fn verb(action: Action) -> Verb {
    match action {
        Action::Create | Action::Wait => Verb::Create,
        Action::Update => Verb::Update,
        Action::Delete => Verb::Delete,
    }
}

/// True if `state` can be sent, because it has no references.
pub fn is_known(state: &Packed) -> bool {
    !state.has_references()
}

/// The addresses to which `state` refers.
pub fn refers_to(state: &Packed) -> BTreeSet<Address> {
    state.references().into_iter().map(|(a, _)| a).collect()
}
