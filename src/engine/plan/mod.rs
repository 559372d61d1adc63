//! The planner: what must be done so that observed becomes desired.
//!
//! Pure and deterministic: no I/O, no clock; the same input gives the same
//! bytes. It decides everything; the executor only carries out.

mod connect;
mod converge;
mod moves;
mod order;
mod remove;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::moves::Move;
use self::order::order;
use crate::engine::address::{Address, Owner};
use crate::engine::desired::{Desired, Resource};
use crate::engine::drift::Drift;
use crate::engine::error::{Error, Result};
use crate::engine::graph;
use crate::engine::kind::{Change, Found, Kind, Registry, Scope, Verb};
use crate::engine::lint::{Lint, Taken};
use crate::engine::observe::Observed;
use crate::engine::value::{Outputs, has_references, references};

/// What the user allows and selects.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// `--tenant`: only these tenants' resources. Empty is everything.
    pub tenants: BTreeSet<String>,
    /// `--with-deps`: and what they need.
    pub with_deps: bool,
    /// Take everything down.
    pub destroy: bool,
    /// `--allow-replace`: foundations that may be replaced.
    pub allow_replace: BTreeSet<Address>,
    /// `--allow-destroy`: places and resources that hold a tenant's work or
    /// data and may go.
    pub allow_destroy: BTreeSet<Address>,
    /// `--delete-logs`.
    pub delete_logs: bool,
    /// `--aws-only`: what lives in clusters isn't looked at, and what must
    /// come after it isn't touched.
    pub aws_only: bool,
}

/// One thing to do. A replacement is two steps with the same address.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub address: Address,
    pub kind: &'static str,
    pub action: Action,
    /// Part of a replacement: not counted by itself.
    pub replaces: bool,
    pub generation: u32,
    /// Why, where the changes don't say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A few words about the resource.
    pub summary: String,
    pub controls: Vec<&'static str>,
    pub changes: Vec<Change>,
    /// What it will be; references stand for what is known after apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Value>,
    /// What it is.
    #[serde(skip)]
    pub found: Option<Found>,
    /// Indices of the steps that must be done before.
    pub needs: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Update,
    /// It is there and right, but not ready yet: wait for it.
    Wait,
    Delete,
}

/// Something that should change and can't, or may not without being told.
#[derive(Clone, Debug, Serialize)]
pub struct Blocked {
    pub address: Address,
    pub kind: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// True: it waits for something outside (an unreachable API server) or for
    /// another run, and isn't wrong.
    pub pending: bool,
    /// The cluster that couldn't be read, if that is why: one of
    /// [`Plan::blocked_clusters`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// True: its cluster doesn't serve the API that it requires, so its
    /// controls are unmet.
    pub unmet: bool,
    /// IDs of the controls that it carries.
    pub controls: Vec<&'static str>,
    pub changes: Vec<Change>,
}

/// A cluster whose inside couldn't be read, so nothing is planned there.
#[derive(Clone, Debug, Serialize)]
pub struct BlockedCluster {
    /// The EKS cluster's name.
    pub cluster: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// How many objects are wanted in it.
    pub objects: usize,
}

/// Something that left the spec and stays.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    pub address: Address,
    pub kind: &'static str,
    pub id: String,
    pub reason: String,
}

/// Something that holds a tenant's work or data and goes: to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// A place (`tenant/12345/silo`, `pool/shared-1`) that goes as a whole, or
    /// a resource of one that stays.
    pub address: Address,
    /// What is lost with it, in words.
    pub lost: Vec<String>,
    /// What of it stays.
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

/// What will be done, in an order that respects every need.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub blocked: Vec<Blocked>,
    pub blocked_clusters: Vec<BlockedCluster>,
    pub kept: Vec<Kept>,
    pub notes: BTreeSet<String>,
    /// What would be lost, by address: to be confirmed.
    pub confirm: Vec<Loss>,
    /// Resources within the selection that are as they should be.
    pub unchanged: usize,
    /// Outputs of what exists: the executor starts from them.
    #[serde(skip)]
    pub outputs: BTreeMap<Address, Outputs>,
    /// Where all of its resources are.
    #[serde(skip)]
    pub scope: Scope,
    /// Of what differs by somebody's hand, what isn't a change: set by
    /// [`super::drift::of`] alone.
    #[serde(skip)]
    pub drift: Option<Drift>,
}

impl Step {
    /// True if this step only makes `deletion`, which needs it, possible:
    /// it changes the very resource that goes.
    pub(super) fn prepares(&self, deletion: &Step) -> bool {
        self.action == Action::Update
            && deletion.action == Action::Delete
            && self.address == deletion.address
            && self.generation == deletion.generation
    }
}

impl Plan {
    /// True if there is nothing to do and nothing in the way.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.blocked.is_empty() && self.blocked_clusters.is_empty()
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
                    // What precedes a deletion counts as part of it.
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
        let plan = draft(desired, observed, kinds, policy, &held)?;
        let before = held.len();
        for Taken { address, generation, user } in lint.taken(&plan) {
            let blocked = plan.blocked.iter().find(|b| b.address == user);
            let help = blocked.and_then(|b| b.help.clone()).unwrap_or_default();
            held.entry((address, generation)).or_insert((user, help));
        }
        if held.len() == before {
            lint.check(&plan)?;
            return Ok(plan);
        }
    }
}

/// What may be neither replaced nor deleted, by address and generation: who
/// uses it and stays, and what would help.
type Held = BTreeMap<(Address, u32), (Address, String)>;

/// One plan that leaves alone what is `held`.
fn draft(desired: &Desired, observed: &Observed, kinds: &Registry, policy: &Policy, held: &Held) -> Result<Plan> {
    let mut planner = Planner {
        desired,
        observed,
        kinds,
        policy,
        held,
        outputs: observed.outputs(),
        plan: Plan { notes: observed.notes.union(&desired.notes).cloned().collect(), ..Plan::default() },
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
    plan.notes.extend(disturbed.into_iter().map(|(how, who)| format!("{}: {how}", who.join(", "))));
    plan.notes.extend(upgraded.into_iter().map(|(cluster, apis)| {
        let apis = apis.into_iter().collect::<Vec<_>>().join(", ");
        format!("{cluster}: this step brings APIs that the cluster doesn't serve yet ({apis}); their objects are made after it")
    }));
    plan.outputs = observed.outputs();
    plan.scope = desired.scope.clone();
    order(plan)
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    kinds: &'a Registry,
    policy: &'a Policy,
    held: &'a Held,
    /// Known outputs, as they will be: of what stays, and predicted ones.
    outputs: BTreeMap<Address, Outputs>,
    plan: Plan,
    /// The indices of each address in `plan.blocked`.
    blocked: BTreeMap<Address, Vec<usize>>,
    /// The step that makes an address what it should be.
    making: BTreeMap<Address, usize>,
    /// Steps that delete, with what they delete.
    deleting: BTreeMap<usize, Found>,
    /// Updates that only take away: nobody waits for them.
    narrowing: BTreeSet<usize>,
    /// Changes that do more than change what they are for, by what that is.
    disturbed: BTreeMap<String, Vec<String>>,
    /// Places that leave the spec while tenants move out of them.
    moves: BTreeMap<Address, Move>,
    /// APIs that only come with a cluster's next version, by the cluster.
    upgraded: BTreeMap<Address, BTreeSet<String>>,
}
impl<'a> Planner<'a> {
    fn run(&mut self) -> Result<()> {
        let order = graph::order(self.desired)?;
        let mut selected = self.selection()?;
        if self.policy.aws_only {
            let inside = self.in_clusters(&order)?;
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
        self.block_clusters();
        let dying = self.dying_clusters();
        self.name_losses(&dying)?;
        self.drop_what_dies_with_its_cluster();
        self.take_away_last();
        self.connect();
        Ok(())
    }

    /// True if the address may be touched at all.
    fn selects(&self, address: &Address) -> bool {
        self.policy.tenants.is_empty()
            || matches!(address.owner(), Owner::Tenant(id) if self.policy.tenants.contains(&id))
    }

    /// Desired addresses to converge: the selected tenants' own, and with
    /// `--with-deps` what they need. Without it, a need that doesn't exist is
    /// an error that names it.
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
                Err(Error::input(format!("what the selected tenants need doesn't exist: {names}"))
                    .help("apply the whole spec first, or add --with-deps to make what they need as well"))
            }
        }
    }

    /// What lives in clusters, and what comes after it.
    fn in_clusters(&self, order: &[Address]) -> Result<BTreeSet<Address>> {
        let mut inside: BTreeSet<Address> = BTreeSet::new();
        for resource in order.iter().filter_map(|a| self.desired.get(a)) {
            let after = graph::needs(resource).iter().any(|n| inside.contains(n));
            if after || self.kinds.get(resource.kind)?.in_cluster() {
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
        state: Value,
        reason: Option<String>,
        found: Option<Found>,
        changes: Vec<Change>,
    ) {
        self.making.insert(resource.address.clone(), self.plan.steps.len());
        self.plan.steps.push(Step {
            address: resource.address.clone(),
            kind: resource.kind,
            action,
            replaces: false,
            generation,
            reason,
            summary: kind.summary(&state),
            controls: resource.controls.clone(),
            changes,
            state: Some(state),
            found,
            needs: BTreeSet::new(),
        });
    }

    fn block(&mut self, resource: &Resource, reason: String, help: &str, changes: Vec<Change>) {
        self.hold_up(blocked(resource, reason, help, changes));
    }

    fn hold_up(&mut self, blocked: Blocked) {
        self.blocked.entry(blocked.address.clone()).or_default().push(self.plan.blocked.len());
        self.plan.blocked.push(blocked);
    }

    fn blocked_at(&self, address: &Address) -> impl Iterator<Item = &Blocked> {
        self.blocked.get(address).into_iter().flatten().filter_map(|i| self.plan.blocked.get(*i))
    }

    /// True if step `i` is about what hosts objects: a cluster.
    fn is_host(&self, i: usize) -> bool {
        let step = self.plan.steps.get(i);
        step.and_then(|s| self.kinds.get(s.kind).ok()).is_some_and(|kind| kind.serves_by().is_some())
    }
}

/// What a kept home or pool is called instead of a kind.
pub const HOME: &str = "home";

/// Nothing tells which of these is ours: tags can be copied.
fn twice(all: &[Found]) -> String {
    format!("it exists more than once: {}", all.iter().map(|f| f.id.as_str()).collect::<Vec<_>>().join(", "))
}

const TWICE: &str = "see which one is in use, then delete the other by hand, or remove its ringfence.dev tags";

/// Why `what` is left as it is.
fn stays(what: &str, user: &str) -> String {
    format!("{what} is used by {user}, which stays as it is")
}

/// Sets a field of a state.
fn put(state: &mut Value, field: &str, value: Value) {
    if let Some(fields) = state.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

fn blocked(resource: &Resource, reason: String, help: &str, changes: Vec<Change>) -> Blocked {
    let blocked = blocked_at(&resource.address, resource.kind, reason, help);
    Blocked { controls: resource.controls.clone(), changes, ..blocked }
}

fn blocked_at(address: &Address, kind: &str, reason: String, help: &str) -> Blocked {
    Blocked {
        address: address.clone(),
        kind: kind.to_owned(),
        reason,
        help: (!help.is_empty()).then(|| help.to_owned()),
        pending: false,
        cluster: None,
        unmet: false,
        controls: vec![],
        changes: vec![],
    }
}

/// The token for creating `state` at `address`: the same whenever this very
/// creation is tried again, another one when anything in it changed.
pub fn token(tenancy: &str, address: &Address, generation: u32, state: &Value) -> String {
    digest(&[tenancy, address.as_str(), &generation.to_string(), &state.to_string()])
}

/// The token for trying again what `token` was for, where that gives back only
/// what is `dead`: somebody deleted it since.
pub fn next_token(token: &str, dead: &str) -> String {
    digest(&[token, dead])
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// The verb that a step's pace is asked for.
pub fn verb(action: Action) -> Verb {
    match action {
        Action::Create | Action::Wait => Verb::Create,
        Action::Update => Verb::Update,
        Action::Delete => Verb::Delete,
    }
}

/// True if `state` can be sent: nothing in it is still to be known.
pub fn is_known(state: &Value) -> bool {
    !has_references(state)
}

/// The addresses that `state` refers to.
pub fn refers_to(state: &Value) -> BTreeSet<Address> {
    references(state).into_iter().map(|(a, _)| a).collect()
}
