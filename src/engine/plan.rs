//! The planner: what must be done so that observed becomes desired.
//!
//! Pure and deterministic: no I/O, no clock; the same input gives the same
//! bytes. It decides everything; the executor only carries out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::address::{Address, Owner};
use super::desired::{Desired, Resource};
use super::diff;
use super::drift::Drift;
use super::error::{Class, Error, Result};
use super::graph;
use super::kind::{Change, Found, Kind, New, Registry, Repair, Rule, Scope, Status, Verb};
use super::lint::{self, Lint, Taken};
use super::observe::Observed;
use super::value::{Outputs, has_references, references, resolve, walk};

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

/// What is left behind by tenants that have another home now.
struct Move {
    tenants: BTreeSet<String>,
    /// Their new homes, and the pools that those stand in.
    to: BTreeSet<Address>,
    /// Why the old place stays, if it does.
    stays: Option<String>,
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

    /// The places that tenants of the spec move out of, of what has left it.
    fn moves(&self, gone: &[Address]) -> BTreeMap<Address, Move> {
        let lives = |place: &Address| self.desired.within(place).next().is_some();
        // Logs that were kept, and their key, are no home any more.
        let kind = |a: &&Address| self.observed.kinds.get(*a).and_then(|k| self.kinds.get(k).ok());
        let left = |a: &&Address| kind(a).is_some_and(|k| !k.keeps_data() && !k.unlocks_data());
        let places: BTreeSet<Address> = gone.iter().filter(left).map(Address::place).filter(|p| !lives(p)).collect();
        let homes: BTreeSet<Address> = self.desired.iter().map(|r| r.address.place()).collect();
        let mut moves: BTreeMap<Address, Move> = BTreeMap::new();
        for place in &places {
            let Owner::Tenant(id) = place.owner() else { continue };
            let to: BTreeSet<Address> = homes.iter().filter(|h| h.owner() == place.owner()).cloned().collect();
            if to.is_empty() {
                continue;
            }
            let to: BTreeSet<Address> = to.iter().cloned().chain(to.iter().filter_map(Address::pool)).collect();
            for left in [Some(place.clone()), place.pool().filter(|p| places.contains(p))].into_iter().flatten() {
                let one = moves.entry(left).or_insert_with(|| Move {
                    tenants: BTreeSet::new(),
                    to: BTreeSet::new(),
                    stays: None,
                });
                one.tenants.insert(id.clone());
                one.to.extend(to.clone());
            }
        }
        moves
    }

    /// True for what is in the cluster of a tenant's new home. It comes last:
    /// where both homes are in one cluster they share it, and until the rest
    /// of the new home stands, the old one needs it as it is.
    fn switches(&self, address: &Address) -> bool {
        let inside = || {
            let kind = self.desired.get(address).and_then(|r| self.kinds.get(r.kind).ok());
            kind.is_some_and(|k| k.in_cluster())
        };
        address.pool().is_some() && self.moves.values().any(|m| m.to.contains(&address.place())) && inside()
    }

    /// What of a tenant's new home is blocked, though not in the cluster.
    fn holds_up_switch(&self, address: &Address) -> Option<&Blocked> {
        if !self.switches(address) {
            return None;
        }
        let place = address.place();
        self.plan.blocked.iter().find(|b| b.address.is_within(&place) && !self.switches(&b.address))
    }

    /// An old home goes only when the new one is whole by then, and when that
    /// was asked for by its address.
    fn decide_moves(&mut self) {
        let mut moves = std::mem::take(&mut self.moves);
        // Homes before the pools that they are in: `pool/…` sorts first.
        let mut staying: BTreeSet<Address> = BTreeSet::new();
        for (place, one) in moves.iter_mut().rev() {
            let who = match one.tenants.len() {
                1 => format!("tenant {}", one.tenants.iter().cloned().collect::<String>()),
                _ => format!("tenants {}", one.tenants.iter().cloned().collect::<Vec<_>>().join(", ")),
            };
            let homes: Vec<String> =
                one.to.iter().filter(|a| matches!(a.owner(), Owner::Tenant(_))).map(ToString::to_string).collect();
            let new = homes.join(", ");
            let allowed = self.policy.allow_destroy.contains(place);
            let within = |a: &Address| one.to.iter().any(|to| a.is_within(to));
            // What a pool's cluster will never take is no part of a home.
            let never = |b: &Blocked| b.unmet && !matches!(b.address.owner(), Owner::Tenant(_));
            let blocked = self.plan.blocked.iter().find(|b| within(&b.address) && !never(b));
            let left = staying.iter().find(|home| home.pool().as_ref() == Some(place));
            one.stays = if let Some(home) = left {
                Some(format!("{home} stands in it, and stays"))
            } else if let (true, Some(blocked)) = (allowed, blocked) {
                Some(format!(
                    "{who}: the new home, {new}, can't be completed, because {} is blocked; so this one stays as it is",
                    blocked.address
                ))
            } else if allowed && self.policy.aws_only {
                Some(format!(
                    "{who}: the new home, {new}, isn't whole while --aws-only leaves the inside of its cluster alone; so this one stays as it is"
                ))
            } else if !allowed {
                Some(format!(
                    "{who} moved out of it, to {new}; it stays, with what runs and is stored in it, until its deletion is confirmed: --allow-destroy {place}"
                ))
            } else {
                None
            };
            if let Some(reason) = &one.stays {
                staying.insert(place.clone());
                let all = self.observed.found.iter().filter(|(a, _)| a.is_within(place)).flat_map(|(_, all)| all);
                let cluster = all.clone().find_map(|f| f.state.get("cluster").and_then(Value::as_str));
                let first = all.clone().next().map(|f| f.id.as_str()).unwrap_or_default();
                self.plan.kept.push(Kept {
                    address: place.clone(),
                    kind: HOME,
                    id: cluster.unwrap_or(first).to_owned(),
                    reason: reason.clone(),
                });
            }
        }
        self.moves = moves;
    }

    /// True for what is in a home or pool that stays because of a move.
    fn is_kept_home(&self, address: &Address) -> bool {
        self.moves.get(&address.place()).is_some_and(|m| m.stays.is_some())
    }

    /// Ids, names and ARNs that stand in the states of what is in `places`.
    fn named_by(&self, within: impl Fn(&Address) -> bool) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for found in self.observed.found.iter().filter(|(a, _)| within(a)).flat_map(|(_, all)| all) {
            walk(&found.state, &mut |text| {
                names.insert(text.to_owned());
            });
        }
        names
    }

    /// True if `found`, which step `i` deletes, is known by one of `names`: by
    /// an output, or as an object of a cluster that is among them too.
    fn is_named(&self, i: usize, found: &Found, names: &BTreeSet<String>) -> bool {
        let Some(kind) = self.plan.steps.get(i).and_then(|s| self.kinds.get(s.kind).ok()) else { return false };
        let text = |pointer: &str| found.state.pointer(pointer).and_then(Value::as_str);
        let object = text("/object/metadata/name").filter(|_| text("/object/metadata/namespace").is_none());
        kind.known_as().iter().filter_map(|o| found.outputs.get(*o)).any(|name| names.contains(name))
            || object.zip(text("/cluster")).is_some_and(|(o, c)| names.contains(o) && names.contains(c))
    }

    /// What a kept home names stays with it, such as its pool's identity
    /// provider and its pods' priority class.
    fn keep_what_kept_homes_use(&mut self) {
        let names = self.named_by(|a| self.is_kept_home(a));
        // A replacement has two halves: one alone isn't kept.
        let whole = |i: usize| self.plan.steps.get(i).is_some_and(|s| !s.replaces);
        let kept = self.deleting.iter().filter(|(i, found)| whole(**i) && self.is_named(**i, found, &names));
        let kept: Vec<usize> = kept.map(|(i, _)| *i).collect();
        self.keep(kept, "an old home that stays uses it");
    }

    /// Takes these deletions out of the plan, and says why what they delete stays.
    fn keep(&mut self, deletions: Vec<usize>, reason: &str) {
        for i in deletions {
            if let (Some(step), Some(found)) = (self.plan.steps.get(i), self.deleting.get(&i)) {
                self.plan.kept.push(Kept {
                    address: found.address.clone(),
                    kind: step.kind,
                    id: found.id.clone(),
                    reason: reason.to_owned(),
                });
            }
            self.drop_step(i);
        }
    }

    /// Says what is lost, of all that is deleted. What is in a cluster that
    /// goes with the same place goes without saying.
    fn name_losses(&mut self, dying: &BTreeSet<String>) -> Result<()> {
        let lives = |place: &Address| !self.policy.destroy && self.desired.within(place).next().is_some();
        let homes_of_dying: BTreeSet<Address> =
            self.deleting.iter().filter(|(i, _)| self.is_host(**i)).map(|(_, f)| f.address.place()).collect();
        let mut losses: BTreeMap<Address, Vec<String>> = BTreeMap::new();
        let mut logs: BTreeMap<Address, Vec<String>> = BTreeMap::new();
        for (i, found) in &self.deleting {
            let Some(step) = self.plan.steps.get(*i) else { continue };
            let kind = self.kinds.get(step.kind)?;
            // What failed or is being deleted already holds nothing any more.
            let replaced = step.replaces;
            if replaced && !matches!(found.status, Status::Ready | Status::Pending(_)) {
                continue;
            }
            let Some(loss) = kind.loses(found, replaced) else { continue };
            let place = found.address.place();
            let inside = kind.in_cluster()
                && (replaced || homes_of_dying.contains(&place))
                && found.state.get("cluster").and_then(Value::as_str).is_some_and(|c| dying.contains(c));
            if inside {
                continue;
            }
            let at = if replaced || lives(&place) { found.address.clone() } else { place };
            match kind.keeps_data() {
                true => logs.entry(at).or_default().push(loss),
                false => losses.entry(at).or_default().push(loss),
            }
        }
        for (address, mut lost) in losses {
            lost.extend(logs.remove(&address).unwrap_or_default());
            lost.dedup();
            let kept = self.plan.kept.iter().filter(|k| k.address.is_within(&address));
            let kept = kept.map(|k| k.address.clone()).collect();
            self.plan.confirm.push(Loss { address, lost, kept });
        }
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

    /// Plans one desired resource.
    #[expect(clippy::too_many_lines, reason = "one resource's whole decision; to be split with the planner")]
    fn converge(&mut self, resource: &Resource) -> Result<()> {
        let kind = self.kinds.get(resource.kind)?.clone();
        let address = &resource.address;
        if let Some(unread) = self.observed.unread.iter().find(|u| u.wanted.contains(address)) {
            let blocked = blocked(resource, format!("cluster {} can't be read", unread.cluster), "", vec![]);
            let cluster = Some(unread.cluster.clone());
            self.hold_up(Blocked { pending: true, cluster, ..blocked });
            return Ok(());
        }
        if let Some(error) = self.observed.unserved.get(address) {
            if let Some(cluster) = self.upgrade_ahead(resource) {
                let part = |name: &str| resource.state.pointer(name).and_then(Value::as_str).unwrap_or_default();
                let api = format!("{} {}", part("/object/apiVersion"), part("/object/kind"));
                self.upgraded.entry(cluster).or_default().insert(api);
            } else if error.class == Class::Invalid {
                // Nothing brings it: the template is wrong.
                return Err(error.clone());
            } else if !self.brings_apis(resource)? {
                let unmet = match resource.controls.as_slice() {
                    [] => String::new(),
                    [one] => format!("; control {one} is unmet"),
                    many => format!("; controls {} are unmet", many.join(", ")),
                };
                let help = error.help.as_deref().unwrap_or_default();
                let blocked = blocked(resource, format!("{}{unmet}", error.message), help, vec![]);
                self.hold_up(Blocked { unmet: true, ..blocked });
                return Ok(());
            } else {
                self.plan.notes.insert(format!("{address}: {}; it waits for the add-on", error.message));
            }
        }
        let all = self.observed.found.get(address).map(Vec::as_slice).unwrap_or_default();
        if self.observed.is_twice(address) {
            self.block(resource, twice(all), TWICE, vec![]);
            return Ok(());
        }
        for old in all.iter().skip(1) {
            match self.held(old) {
                Some((reason, help)) => self.block(resource, reason, help, vec![]),
                None => self.push_delete(resource.kind, old, true, "left from a replacement")?,
            }
        }
        let state = resolve(&resource.state, &|a, o| self.outputs.get(a)?.get(o).cloned());
        let Some(found) = all.first() else {
            if let Some(foreign) = self.observed.foreign.get(address) {
                self.block(resource, foreign.message.clone(), "", vec![]);
                return Ok(());
            }
            if let Some((user, output, id)) = self.used_by(resource, &*kind) {
                let tags = kind.ownership(&state).join(", ");
                self.block(
                    resource,
                    format!("{id}, which {user} is in, has lost the tags that make it ours"),
                    &format!("if nobody else has it now, put them back: {tags}"),
                    vec![],
                );
                // What is in it is as it should be.
                self.outputs.insert(address.clone(), Outputs::from([(output, id)]));
                return Ok(());
            }
            if let Some((reason, pending)) = self.lacks(resource) {
                self.hold_up(Blocked { pending, ..blocked(resource, reason, "", vec![]) });
                return Ok(());
            }
            self.create(resource, &*kind, state, 1, false, None);
            return Ok(());
        };
        match &found.status {
            Status::Deleting => {
                return self.replace(resource, &*kind, found, state, vec![], "it is being deleted".to_owned());
            }
            Status::Failed { why, repair } => match repair {
                Repair::Replace => {
                    if let Some((reason, help)) = self.held(found) {
                        self.block(resource, format!("it failed: {why}; {reason}"), help, vec![]);
                        return Ok(());
                    }
                    return self.replace(resource, &*kind, found, state, vec![], format!("it failed: {why}"));
                }
                Repair::Update => {
                    let changes = diff::changes(&state, &found.state, kind.rules());
                    self.update(resource, &*kind, found, state, changes, Some(format!("it failed: {why}")));
                    return Ok(());
                }
                Repair::Manual => {
                    self.block(
                        resource,
                        format!("{} failed: {why}", found.id),
                        "mend what it says by hand, then run the same command",
                        vec![],
                    );
                    return Ok(());
                }
            },
            Status::Ready | Status::Pending(_) => {}
        }
        let (mut state, mut changes) = (state.clone(), diff::changes(&state, &found.state, kind.rules()));
        // It may differ only because it belongs to the other one.
        let unclear = || graph::needs(resource).into_iter().find(|n| self.observed.is_twice(n));
        if let Some(cause) = (!changes.is_empty()).then(unclear).flatten() {
            self.block(resource, format!("it needs {cause}, which exists more than once"), "", changes);
            return Ok(());
        }
        // What others hold stays for now; the rest is put right all the same.
        let observed = self.observed;
        for stuck in observed.stuck.get(address).into_iter().flatten() {
            let (held, rest): (Vec<_>, Vec<_>) = changes.into_iter().partition(|c| c.path == stuck.field);
            changes = rest;
            if !held.is_empty() {
                self.block(resource, stuck.reason.clone(), &stuck.help, held);
                put(&mut state, &stuck.field, stuck.keep.clone());
                changes = diff::changes(&state, &found.state, kind.rules());
            }
        }
        if let Some(cause) = self.unmade(&state) {
            let pending = self.blocked_at(&cause).any(|b| b.pending);
            let reason = format!("it needs {cause}, which is blocked");
            self.hold_up(Blocked { pending, ..blocked(resource, reason, "", changes) });
            return Ok(());
        }
        if changes.iter().any(|c| c.replaces) {
            let fields = changes.iter().filter(|c| c.replaces).map(|c| c.path.as_str()).collect::<Vec<_>>().join(", ");
            // What is in a cluster that is replaced, which was allowed, goes with it.
            let follows =
                || kind.in_cluster() && changes.iter().filter(|c| c.replaces).all(|c| has_references(&c.after));
            let allowed = self.policy.allow_replace.contains(address);
            let why_not = if let Some((reason, help)) = self.held(found) {
                let reason = format!("a change of {fields} needs a new one, and {reason}");
                Some((reason, help.to_owned(), false))
            } else if let Some(loss) = kind.loses(found, true).filter(|_| !allowed && !follows()) {
                let reason = format!("a change of {fields} needs a new one, and with the old one this is lost: {loss}");
                Some((reason, format!("if that is meant, add --allow-replace {address}"), false))
            } else {
                self.lacks(resource).map(|(reason, pending)| (reason, String::new(), pending))
            };
            let Some((reason, help, pending)) = why_not else {
                return self.replace(
                    resource,
                    &*kind,
                    found,
                    state,
                    changes,
                    format!("{fields} can't be changed in place"),
                );
            };
            // What can be changed in place is: it may be what protects it.
            let (held, _): (Vec<_>, Vec<_>) = changes.into_iter().partition(|c| c.replaces);
            for change in &held {
                let field = change.path.split(['.', '[']).next().unwrap_or_default();
                put(&mut state, field, found.state.get(field).cloned().unwrap_or_default());
            }
            self.hold_up(Blocked { pending, ..blocked(resource, reason, &help, held) });
            changes = diff::changes(&state, &found.state, kind.rules());
        }
        if let Some(cause) = self.holds_up_switch(address).filter(|_| !changes.is_empty()) {
            let reason =
                format!("it is shared with the old home until the new one stands, and {} is blocked", cause.address);
            let pending = cause.pending;
            self.hold_up(Blocked { pending, ..blocked(resource, reason, "", changes) });
            return Ok(());
        }
        match (&found.status, changes.is_empty()) {
            (_, false) => self.update(resource, &*kind, found, state, changes, None),
            (Status::Pending(what), true) => {
                let reason = format!("it is {}", what.to_lowercase());
                self.push(
                    resource,
                    &*kind,
                    Action::Wait,
                    found.generation,
                    state,
                    Some(reason),
                    Some(found.clone()),
                    vec![],
                );
            }
            _ if self.blocked.contains_key(address) => {}
            _ => self.plan.unchanged += 1,
        }
        Ok(())
    }

    /// Why `found` may be neither replaced nor deleted, if it may not, and what
    /// helps.
    fn held(&self, found: &Found) -> Option<(String, &'a str)> {
        let held: &'a Held = self.held;
        let (user, help) = held.get(&(found.address.clone(), found.generation))?;
        Some((stays(&found.id, user.as_str()), help))
    }

    /// Why `resource` can't be made: something that it needs is blocked and
    /// isn't there, or isn't usable. What a cluster will never take holds up
    /// nothing else.
    fn lacks(&self, resource: &Resource) -> Option<(String, bool)> {
        let needs = graph::needs(resource);
        let usable = |address: &Address| {
            let found = self.observed.current(address).filter(|_| !self.observed.is_twice(address));
            found.is_some_and(|found| matches!(found.status, Status::Ready | Status::Pending(_)))
        };
        // In the order in which they were blocked.
        let causes: BTreeSet<usize> =
            needs.iter().filter_map(|need| self.blocked.get(need)).flatten().copied().collect();
        let mut causes = causes.into_iter().filter_map(|i| self.plan.blocked.get(i));
        let cause = causes.find(|b| !b.unmet && !usable(&b.address))?;
        Some((format!("it needs {}, which is blocked", cause.address), cause.pending))
    }

    /// What `state` refers to and no step makes.
    fn unmade(&self, state: &Value) -> Option<Address> {
        references(state).into_iter().map(|(address, _)| address).find(|address| !self.making.contains_key(address))
    }

    /// For what AWS keeps while something is in it, and isn't found: what is in
    /// it, and the output by which that names it.
    fn used_by(&self, resource: &Resource, kind: &dyn Kind) -> Option<(Address, String, String)> {
        let field = kind.holds_by()?;
        let own = |value: &Value| references(value).into_iter().find(|(to, _)| *to == resource.address);
        let place = resource.address.place();
        // A tenant's own may be on its way from another pool.
        self.desired.within(&place).find_map(|user| {
            let (_, output) = own(user.state.get(field)?)?;
            let id = self.observed.current(&user.address)?.state.get(field)?.as_str()?;
            // It carries our tags, as another's.
            let known = self.observed.found.values().flatten().any(|found| found.id == id);
            (!known).then(|| (user.address.clone(), output, id.to_owned()))
        })
    }

    /// Says what a teardown doesn't take because it isn't known to be ours.
    fn note_what_stays(&mut self) -> Result<()> {
        let desired = self.desired;
        for resource in desired.iter() {
            let kind = self.kinds.get(resource.kind)?;
            if !self.selects(&resource.address) || self.observed.current(&resource.address).is_some() {
                continue;
            }
            if let Some((user, _, id)) = self.used_by(resource, &**kind) {
                let address = &resource.address;
                self.plan.notes.insert(format!(
                    "{address}: {id}, which {user} is in, has lost the tags that make it ours, so it stays"
                ));
            }
        }
        Ok(())
    }

    fn replace(
        &mut self,
        resource: &Resource,
        kind: &dyn Kind,
        found: &Found,
        state: Value,
        changes: Vec<Change>,
        reason: String,
    ) -> Result<()> {
        self.disturb(kind, found, &changes);
        self.push_delete(resource.kind, found, true, &reason)?;
        let mut state = state;
        kind.carry(found, &mut state);
        self.create(resource, kind, state, found.generation + 1, true, Some(reason));
        if let Some(step) = self.plan.steps.last_mut() {
            step.changes = changes;
        }
        Ok(())
    }

    fn create(
        &mut self,
        resource: &Resource,
        kind: &dyn Kind,
        state: Value,
        generation: u32,
        replaces: bool,
        reason: Option<String>,
    ) {
        let new = New { address: resource.address.clone(), generation, state: state.clone(), token: String::new() };
        // What isn't predicted is known after apply: the old outputs of a
        // replaced resource must not be taken for the new one's. Where the old
        // one goes first, even the same name means another.
        let beside = !replaces || kind.create_before_destroy();
        let outputs = if beside { kind.predict(&new, &self.desired.scope) } else { Outputs::new() };
        self.outputs.insert(resource.address.clone(), outputs);
        self.push(resource, kind, Action::Create, generation, state, reason, None, vec![]);
        if let Some(step) = self.plan.steps.last_mut() {
            step.replaces = replaces;
        }
    }

    fn update(
        &mut self,
        resource: &Resource,
        kind: &dyn Kind,
        found: &Found,
        state: Value,
        changes: Vec<Change>,
        reason: Option<String>,
    ) {
        let generation = found.generation;
        self.disturb(kind, found, &changes);
        self.push(resource, kind, Action::Update, generation, state, reason, Some(found.clone()), changes);
        // An update may change outputs, such as a launch template's version:
        // the kind predicts those that stay.
        let moving = kind.moves(&self.plan.steps.last().map(|s| s.changes.clone()).unwrap_or_default());
        if let Some(outputs) = self.outputs.get_mut(&resource.address) {
            outputs.retain(|name, _| !moving.contains(&name.as_str()));
            if let Some(state) = self.plan.steps.last().and_then(|s| s.state.clone()).filter(|_| !moving.is_empty()) {
                let new = New { address: resource.address.clone(), generation, state, token: String::new() };
                outputs.extend(kind.predict(&new, &self.desired.scope));
            }
        }
    }

    fn disturb(&mut self, kind: &dyn Kind, found: &Found, changes: &[Change]) {
        for how in kind.disturbs(found, changes) {
            self.disturbed.entry(how).or_default().push(found.address.to_string());
        }
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

    /// True if a step ahead of `resource` may bring APIs to its cluster.
    fn brings_apis(&self, resource: &Resource) -> Result<bool> {
        let ahead = graph::needs(resource).into_iter().filter_map(|need| self.making.get(&need));
        for step in ahead.filter_map(|i| self.plan.steps.get(*i)) {
            if self.kinds.get(step.kind)?.brings_apis() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The cluster of `resource`, if a step ahead brings it to another version:
    /// what that serves, nobody can tell before.
    fn upgrade_ahead(&self, resource: &Resource) -> Option<Address> {
        let ahead = graph::needs(resource).into_iter().filter_map(|need| self.making.get(&need));
        let mut ahead = ahead.filter_map(|i| self.plan.steps.get(*i));
        let upgraded = ahead.find(|s| {
            let field = self.kinds.get(s.kind).ok().and_then(|kind| kind.serves_by());
            field.is_some_and(|field| s.action == Action::Create || s.changes.iter().any(|c| c.path == field))
        });
        upgraded.map(|s| s.address.clone())
    }

    /// True if step `i` is about what hosts objects: a cluster.
    fn is_host(&self, i: usize) -> bool {
        let step = self.plan.steps.get(i);
        step.and_then(|s| self.kinds.get(s.kind).ok()).is_some_and(|kind| kind.serves_by().is_some())
    }

    /// Shows what the spec asks and can't be. What needs these addresses goes
    /// on: they stay as they are.
    fn refuse(&mut self, selected: &BTreeSet<Address>) {
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
            let blocked = blocked_at(&refusal.address, refusal.kind, refusal.reason.clone(), &refusal.help);
            self.hold_up(Blocked { pending: refusal.pending, changes: vec![change], ..blocked });
        }
    }

    /// Names the clusters that couldn't be read and that the selection is
    /// about, but for those that go.
    fn block_clusters(&mut self) {
        let dying = self.dying_clusters();
        for unread in &self.observed.unread {
            let blocks = self.plan.blocked.iter().any(|b| b.cluster.as_ref() == Some(&unread.cluster));
            // Where a tenant was that is no longer in the spec, nobody knows.
            let gone = |id: &String| !self.desired.iter().any(|r| r.address.owner() == Owner::Tenant(id.clone()));
            let concerned = || unread.wanted.iter().any(|a| self.selects(a)) || self.policy.tenants.iter().any(gone);
            if blocks || (!dying.contains(&unread.cluster) && concerned()) {
                self.plan.blocked_clusters.push(BlockedCluster {
                    cluster: unread.cluster.clone(),
                    reason: unread.error.message.clone(),
                    help: unread.error.help.clone(),
                    objects: unread.wanted.len(),
                });
            }
        }
    }

    fn dying_clusters(&self) -> BTreeSet<String> {
        self.deleting
            .iter()
            .filter(|(i, _)| self.is_host(**i))
            .filter_map(|(_, found)| found.outputs.get("name").cloned())
            .collect()
    }

    /// Plans the deletion of everything at `address`.
    fn remove(&mut self, address: &Address) -> Result<()> {
        let Some(kind_name) = self.observed.kinds.get(address).copied() else { return Ok(()) };
        let kind = self.kinds.get(kind_name)?.clone();
        let all = self.observed.found.get(address).cloned().unwrap_or_default();
        if kind.belongs_to_account() {
            return Ok(());
        }
        if self.observed.is_twice(address) {
            self.hold_up(blocked_at(address, kind_name, twice(&all), TWICE));
            return Ok(());
        }
        for found in &all {
            if let Some((reason, help)) = self.held(found) {
                self.hold_up(blocked_at(address, kind_name, reason, help));
                continue;
            }
            // Whoever is left in a silo or pool needs all of it.
            if self.stays_whole(address) {
                continue;
            }
            if kind.keeps_data() && !self.policy.delete_logs {
                self.plan.kept.push(Kept {
                    address: address.clone(),
                    kind: kind_name,
                    id: found.id.clone(),
                    reason: "audit logs stay; --delete-logs deletes them".to_owned(),
                });
                continue;
            }
            self.push_delete(kind_name, found, false, "")?;
        }
        Ok(())
    }

    /// True if the cluster or VPC that left the spec with `address` must stay.
    fn stays_whole(&self, address: &Address) -> bool {
        let place = address.place();
        let foundation = |held: &Address| {
            let kind = self.observed.kinds.get(held).and_then(|kind| self.kinds.get(kind).ok());
            self.observed.current(held).zip(kind).is_some_and(|(found, kind)| kind.loses(found, true).is_some())
        };
        let gone = |held: &Address| !self.desired.contains(held) && held.place() == place;
        self.held.keys().any(|(held, _)| gone(held) && foundation(held))
    }

    fn push_delete(&mut self, kind_name: &'static str, found: &Found, replaces: bool, reason: &str) -> Result<()> {
        let kind = self.kinds.get(kind_name)?.clone();
        let mut needs = BTreeSet::new();
        let mut found = found.clone();
        if let Some(state) = kind.before_delete(&found) {
            needs.insert(self.plan.steps.len());
            let changes = diff::changes(&state, &found.state, kind.rules());
            self.plan.steps.push(Step {
                address: found.address.clone(),
                kind: kind_name,
                action: Action::Update,
                replaces,
                generation: found.generation,
                reason: Some("so that it can be deleted".to_owned()),
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
            action: Action::Delete,
            replaces,
            generation: found.generation,
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            summary: kind.summary(&found.state),
            controls: vec![],
            changes: vec![],
            state: None,
            found: Some(found),
            needs,
        });
        Ok(())
    }

    /// A key that kept logs are encrypted with must stay, or the logs would be
    /// kept unreadable.
    fn keep_keys_of_kept(&mut self) -> Result<()> {
        let mut used = BTreeSet::new();
        for kept in &self.plan.kept {
            for found in self.observed.found.get(&kept.address).into_iter().flatten() {
                walk(&found.state, &mut |text| {
                    used.insert(text.to_owned());
                });
            }
        }
        let kind = |i: usize| self.plan.steps.get(i).and_then(|s| self.kinds.get(s.kind).ok());
        let is_key = |i: usize| kind(i).is_some_and(|kind| kind.unlocks_data());
        let is_used = |found: &Found| found.outputs.get("arn").is_some_and(|arn| used.contains(arn));
        let kept = self.deleting.iter().filter(|(i, found)| is_key(**i) && is_used(found));
        let kept: Vec<usize> = kept.map(|(i, _)| *i).collect();
        self.keep(kept, "the logs that stay are encrypted with it");
        Ok(())
    }

    /// Objects in a cluster that is deleted go with it.
    fn drop_what_dies_with_its_cluster(&mut self) {
        let clusters = self.dying_clusters();
        let gone: Vec<usize> = self
            .deleting
            .iter()
            .filter(|(i, found)| {
                let inside =
                    self.plan.steps.get(**i).and_then(|s| self.kinds.get(s.kind).ok()).is_some_and(|k| k.in_cluster());
                inside && found.state.get("cluster").and_then(Value::as_str).is_some_and(|c| clusters.contains(c))
            })
            .map(|(i, _)| *i)
            .collect();
        if !gone.is_empty() {
            self.plan.notes.insert(format!("{} objects go with their clusters", gone.len()));
        }
        for i in gone {
            self.drop_step(i);
        }
    }

    /// Takes out a step on what exists; `order` leaves it out.
    fn drop_step(&mut self, index: usize) {
        self.deleting.remove(&index);
        if let Some(step) = self.plan.steps.get_mut(index) {
            step.found = None;
        }
    }

    /// Adds the needs between steps.
    #[expect(clippy::too_many_lines, reason = "each rule of the order once; to be split with the planner")]
    fn connect(&mut self) {
        let mut needs: Vec<(usize, usize)> = Vec::new();
        // Makers need what they refer to.
        for (address, i) in &self.making {
            let Some(resource) = self.desired.get(address) else { continue };
            let made = graph::needs(resource).into_iter().filter_map(|need| self.making.get(&need));
            needs.extend(made.filter(|need| self.matters(**need)).map(|need| (*i, *need)));
        }
        for i in &self.narrowing {
            let resource = self.plan.steps.get(*i).and_then(|step| self.desired.get(&step.address));
            let made = resource.map(graph::needs).into_iter().flatten().filter_map(|need| self.making.get(&need));
            needs.extend(made.filter(|need| self.matters(**need)).map(|need| (*i, *need)));
        }
        // Deleters wait for everything that depends on what they delete.
        let index = Names::new(self);
        let gone_first = self.gone_first(&index);
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
        // Kinds that must go first though no reference says so.
        let mut of_kind: BTreeMap<&str, Vec<(&usize, &Found)>> = BTreeMap::new();
        for one in &self.deleting {
            of_kind.entry(self.plan.steps.get(*one.0).map_or("", |s| s.kind)).or_default().push(one);
        }
        for (i, found) in &self.deleting {
            let Some(kind) = self.plan.steps.get(*i).and_then(|s| self.kinds.get(s.kind).ok()) else { continue };
            let before = kind.deleted_after().iter().filter_map(|kind| of_kind.get(kind)).flatten();
            for (j, other) in before {
                // What is only replaced waits for nothing that goes for good.
                let only = |i: &usize| self.plan.steps.get(*i).is_some_and(|s| s.replaces);
                let first = !only(i) || only(j);
                let together = || match (found.state.get("cluster"), other.state.get("cluster")) {
                    (Some(one), Some(two)) => one == two,
                    _ => self.within(&found.address.place(), **j, other, &index),
                };
                if first && together() {
                    needs.push((*i, **j));
                }
            }
        }
        // A new home before the inside of its cluster, which it may share with
        // the old one, and all of it before anything of the old one goes.
        for (address, i) in &self.making {
            if self.switches(address) {
                let place = address.place();
                let rest = self.making.iter().filter(|(a, _)| a.is_within(&place) && !self.switches(a));
                needs.extend(rest.map(|(_, j)| (*i, *j)));
            }
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
        // The two halves of a replacement.
        for i in self.deleting.keys() {
            let Some(deleter) = self.plan.steps.get(*i).filter(|s| s.replaces) else { continue };
            let Some(maker) = self.making.get(&deleter.address) else { continue };
            if !gone_first.contains(&deleter.address) {
                needs.push((*i, *maker));
                // Those who use the old one must have moved to the new one.
                let users = self
                    .making
                    .iter()
                    .filter(|(a, _)| self.desired.get(a).is_some_and(|r| graph::needs(r).contains(&deleter.address)));
                needs.extend(users.map(|(_, user)| (*i, *user)));
            } else {
                needs.push((*maker, *i));
            }
        }
        // Whoever has the former version of what a deleter waits for has moved on, too.
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

    /// The makers that hold the former version of what `step` changes until
    /// they are done, such as node groups of a launch template.
    fn followers(&self, step: usize) -> Vec<usize> {
        let Some(step) = self.plan.steps.get(step).filter(|s| s.action == Action::Update) else { return Vec::new() };
        let moved = self.kinds.get(step.kind).map(|kind| kind.moves(&step.changes)).unwrap_or_default();
        let follows = |user: &Address| {
            let state = self.desired.get(user).map(|r| &r.state);
            let refers = |(to, output): &(Address, String)| *to == step.address && moved.contains(&output.as_str());
            state.is_some_and(|state| references(state).iter().any(refers))
        };
        self.making.iter().filter(|(user, _)| !moved.is_empty() && follows(user)).map(|(_, j)| *j).collect()
    }

    /// False if nobody needs to wait for a step: it changes nothing but tags,
    /// and a failure there must not keep others from being put right.
    fn matters(&self, step: usize) -> bool {
        self.plan.steps.get(step).is_none_or(|s| !lint::is_only_tags(s))
    }

    /// What lets nodes reach others is taken from them only when they are gone,
    /// such as the rule for a zone that is left: what is added comes first, in
    /// a step of its own. From those who stay, nothing is taken.
    fn take_away_last(&mut self) {
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
                let user = way.users.iter().find(|user| !goes(user)).map(|(user, _)| user.to_string());
                self.block(resource, stays("what this takes away", &user.unwrap_or_default()), "", taken);
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
                step.reason = Some("what it lets in is gone by then".to_owned());
            }
        }
    }

    fn alter(&mut self, step: usize, state: &Value, changes: Vec<Change>) {
        if let Some(step) = self.plan.steps.get_mut(step) {
            (step.state, step.changes) = (Some(state.clone()), changes);
        }
    }

    fn lint(&self) -> Lint<'_> {
        Lint { desired: self.desired, observed: self.observed, kinds: self.kinds }
    }

    /// Which replaced resources must be deleted before their successor is
    /// made: those whose kind can't have both, those that failed or are being
    /// deleted, and those that use one of these: the old one couldn't be
    /// deleted while they hold it.
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

    /// True if `other`, deleted by step `j`, belongs to the silo or pool
    /// `place` or uses something of it, as a tenant's nodes do its subnets.
    fn within(&self, place: &Address, j: usize, other: &Found, index: &Names) -> bool {
        let uses = || index.named_in(other, self.rules(j)).into_iter().filter_map(|i| self.plan.steps.get(i));
        other.address.place() == *place || uses().any(|step| step.address.place() == *place)
    }

    fn rules(&self, step: usize) -> &'static [(&'static str, Rule)] {
        self.plan.steps.get(step).and_then(|s| self.kinds.get(s.kind).ok()).map(|k| k.rules()).unwrap_or_default()
    }

    fn found_steps(&self) -> Vec<(usize, Found)> {
        self.plan.steps.iter().enumerate().filter_map(|(i, s)| Some((i, s.found.clone()?))).collect()
    }
}

/// What deletions delete, by the ids, ARNs and names that others know it by.
struct Names(BTreeMap<String, BTreeSet<usize>>);

impl Names {
    fn new(planner: &Planner<'_>) -> Self {
        let mut names: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for (i, found) in &planner.deleting {
            let Some(kind) = planner.plan.steps.get(*i).and_then(|s| planner.kinds.get(s.kind).ok()) else { continue };
            for name in kind.known_as().iter().filter_map(|output| found.outputs.get(*output)) {
                names.entry(name.clone()).or_default().insert(*i);
            }
        }
        Self(names)
    }

    /// The deletions of what `found`, of a kind with these rules, depends on.
    fn named_in(&self, found: &Found, rules: &[(&str, Rule)]) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut look = |text: &str| {
            if let Some(steps) = self.0.get(text) {
                all.extend(steps);
            }
        };
        diff::depends_on(&found.state, rules, &mut look);
        found.refs.iter().for_each(|r| look(r));
        all
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

/// Puts steps into an order in which each comes after its needs, otherwise
/// creations before deletions by address; leaves out dropped ones.
fn order(plan: Plan) -> Result<Plan> {
    let keep = |s: &Step| s.action == Action::Create || s.found.is_some();
    let dropped: BTreeSet<usize> = plan.steps.iter().enumerate().filter(|(_, s)| !keep(s)).map(|(i, _)| i).collect();
    // What was only to prepare a dropped deletion goes too.
    let prepared: BTreeSet<usize> = dropped
        .iter()
        .flat_map(|i| plan.steps.get(*i).map(|s| s.needs.clone()).unwrap_or_default())
        .filter(|i| plan.steps.get(*i).is_some_and(|s| s.reason.as_deref() == Some("so that it can be deleted")))
        .collect();
    let left: BTreeSet<usize> =
        (0..plan.steps.len()).filter(|i| !dropped.contains(i) && !prepared.contains(i)).collect();
    let mut waiting: BTreeMap<usize, usize> = BTreeMap::new();
    let mut users: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, step) in left.iter().filter_map(|i| Some((*i, plan.steps.get(*i)?))) {
        let needs: Vec<usize> = step.needs.iter().copied().filter(|n| left.contains(n)).collect();
        waiting.insert(i, needs.len());
        for need in needs {
            users.entry(need).or_default().push(i);
        }
    }
    // Steps are moved from here one by one, because a copy of all takes much memory.
    let mut rest: Vec<Option<Step>> = plan.steps.into_iter().map(Some).collect();
    let rank = |rest: &[Option<Step>], i: usize| {
        let step = rest.get(i)?.as_ref()?;
        Some((step.action == Action::Delete, step.address.clone(), step.generation, i))
    };
    let ready = waiting.iter().filter(|(_, n)| **n == 0).filter_map(|(i, _)| rank(&rest, *i));
    let mut ready: BTreeSet<_> = ready.collect();
    let mut done: BTreeMap<usize, usize> = BTreeMap::new();
    let mut steps: Vec<Step> = Vec::with_capacity(left.len());
    while let Some((_, _, _, i)) = ready.pop_first() {
        let Some(mut step) = rest.get_mut(i).and_then(Option::take) else { continue };
        step.needs = step.needs.iter().filter_map(|n| done.get(n).copied()).collect();
        done.insert(i, steps.len());
        steps.push(step);
        for user in users.get(&i).into_iter().flatten() {
            if let Some(count) = waiting.get_mut(user) {
                *count -= 1;
                if *count == 0 {
                    ready.extend(rank(&rest, *user));
                }
            }
        }
    }
    if done.len() < left.len() {
        return Err(Error::new(Class::Bug, format!("steps wait for each other: {}", circle(&rest, &left))));
    }
    Ok(Plan { steps, ..plan })
}

/// One circle of needs, for the report of the bug that it is.
fn circle(rest: &[Option<Step>], left: &BTreeSet<usize>) -> String {
    let step = |i: usize| rest.get(i).and_then(Option::as_ref).filter(|_| left.contains(&i));
    let waits = |i: &usize| step(*i).is_some();
    let mut path: Vec<usize> = left.iter().copied().find(waits).into_iter().collect();
    while let Some(last) = path.last() {
        let needs = step(*last).map(|s| &s.needs);
        let Some(next) = needs.into_iter().flatten().copied().find(waits) else { break };
        if let Some(start) = path.iter().position(|i| *i == next) {
            path.drain(..start);
            path.push(next);
            break;
        }
        path.push(next);
    }
    let name = |i: &usize| step(*i).map(|s| format!("{:?} {}", s.action, s.address).to_lowercase());
    path.iter().filter_map(name).collect::<Vec<_>>().join(" → ")
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
