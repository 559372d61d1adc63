//! Moves of tenants: the new placement is complete before the former one is deleted, and the plan names what is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::{Blocked, HOME, Kept, Loss, Planner};
use crate::engine::address::{Address, Owner};
use crate::engine::error::Result;
use crate::engine::kind::{Found, Status};
use crate::engine::why::{Unmoved, WhyKept};

/// The former placement or pool of tenants that have another placement now.
pub(super) struct Move {
    pub(super) tenants: BTreeSet<String>,
    /// The new placements, and their pools.
    pub(super) to: BTreeSet<Address>,
    /// Why the former place is kept, if it is.
    stays: Option<WhyKept>,
}

impl Planner<'_> {
    /// The places, among those that have left the spec, that tenants move out of.
    pub(super) fn moves(&self, gone: &[Address]) -> BTreeMap<Address, Move> {
        let lives = |place: &Address| self.desired.within(place).next().is_some();
        // Logs that were kept, and their key, are no longer a placement.
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

    /// True for objects in the cluster of a tenant's new placement. They come last: if both placements are in one
    /// cluster, they share the objects, and the former placement needs them unchanged until the rest of the new one
    /// is complete.
    pub(super) fn switches(&self, address: &Address) -> bool {
        let inside = || {
            let kind = self.desired.get(address).and_then(|r| self.kinds.get(r.kind).ok());
            kind.is_some_and(|k| k.is_hosted())
        };
        address.pool().is_some() && self.moves.values().any(|m| m.to.contains(&address.place())) && inside()
    }

    /// The first blocked resource of a tenant's new placement outside of the cluster.
    pub(super) fn holds_up_switch(&self, address: &Address) -> Option<&Blocked> {
        if !self.switches(address) {
            return None;
        }
        let place = address.place();
        self.plan.blocked.iter().find(|b| b.address.is_within(&place) && !self.switches(&b.address))
    }

    /// A former placement is deleted only if the new one is complete by then, and if its address was given.
    pub(super) fn decide_moves(&mut self) {
        let mut moves = std::mem::take(&mut self.moves);
        // Placements come before their pools, although `pool/…` sorts first.
        let mut staying: BTreeSet<Address> = BTreeSet::new();
        for (place, one) in moves.iter_mut().rev() {
            let new = || one.to.iter().filter(|a| matches!(a.owner(), Owner::Tenant(_))).cloned().collect();
            let moved = |but| WhyKept::Moved { tenants: one.tenants.clone(), new: new(), but };
            let allowed = self.policy.allow_destroy.contains(place);
            let within = |a: &Address| one.to.iter().any(|to| a.is_within(to));
            // An object that a pool's cluster will never accept isn't part of a placement.
            let never = |b: &Blocked| b.why.is_unmet() && !matches!(b.address.owner(), Owner::Tenant(_));
            let blocked = self.plan.blocked.iter().find(|b| within(&b.address) && !never(b));
            let left = staying.iter().find(|home| home.pool().as_ref() == Some(place));
            one.stays = if let Some(home) = left {
                Some(WhyKept::HoldsFormer { place: home.clone() })
            } else if let (true, Some(blocked)) = (allowed, blocked) {
                Some(moved(Unmoved::Blocked(blocked.address.clone())))
            } else if allowed && self.policy.aws_only {
                Some(moved(Unmoved::AwsOnly))
            } else if !allowed {
                Some(moved(Unmoved::Unconfirmed(place.clone())))
            } else {
                None
            };
            if let Some(why) = &one.stays {
                staying.insert(place.clone());
                let all = self.observed.found.iter().filter(|(a, _)| a.is_within(place)).flat_map(|(_, all)| all);
                let host = |f: &'_ Found| {
                    let kind = self.observed.kinds.get(&f.address).and_then(|kind| self.kinds.get(kind).ok());
                    kind.and_then(|kind| kind.host(&f.state))
                };
                let host = all.clone().find_map(host);
                let first = || all.clone().next().map(|f| f.id.clone()).unwrap_or_default();
                self.plan.kept.push(Kept {
                    address: place.clone(),
                    kind: HOME,
                    id: host.unwrap_or_else(first),
                    why: why.clone(),
                });
            }
        }
        self.moves = moves;
    }

    /// True for resources of a placement or pool that is kept because of a move.
    pub(super) fn is_kept_home(&self, address: &Address) -> bool {
        self.moves.get(&address.place()).is_some_and(|m| m.stays.is_some())
    }

    /// Ids, names and ARNs in the states of the resources in `places`.
    pub(super) fn named_by(&self, within: impl Fn(&Address) -> bool) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for found in self.observed.found.iter().filter(|(a, _)| within(a)).flat_map(|(_, all)| all) {
            found.state.walk(&mut |text| {
                names.insert(text.to_owned());
            });
        }
        names
    }

    /// True if one of `names` refers to `found`, which step `i` deletes: by an output, or because it is an object in
    /// one of these clusters.
    pub(super) fn is_named(&self, i: usize, found: &Found, names: &BTreeSet<String>) -> bool {
        let kind = self.plan.steps.get(i).and_then(|s| self.kinds.get(s.kind).ok());
        kind.is_some_and(|kind| kind.is_named(found, names))
    }

    /// Resources that a kept placement refers to are kept, too, such as its pool's identity provider and the priority
    /// class of its pods.
    pub(super) fn keep_what_kept_homes_use(&mut self) {
        let names = self.named_by(|a| self.is_kept_home(a));
        // A replacement has two steps, and keeping only one makes no sense.
        let whole = |i: usize| self.plan.steps.get(i).is_some_and(|s| !s.replaces);
        let kept = self.deleting.iter().filter(|(i, found)| whole(**i) && self.is_named(**i, found, &names));
        let kept: Vec<usize> = kept.map(|(i, _)| *i).collect();
        self.keep(kept, &WhyKept::UsedByFormer);
    }

    /// Names what is lost by the deletions. The loss of a place includes the objects in its cluster.
    pub(super) fn name_losses(&mut self, dying: &BTreeSet<String>) -> Result<()> {
        let lives = |place: &Address| !self.policy.destroy && self.desired.within(place).next().is_some();
        let homes_of_dying: BTreeSet<Address> =
            self.deleting.iter().filter(|(i, _)| self.is_host(**i)).map(|(_, f)| f.address.place()).collect();
        let mut losses: BTreeMap<Address, Vec<String>> = BTreeMap::new();
        let mut logs: BTreeMap<Address, Vec<String>> = BTreeMap::new();
        for (i, found) in &self.deleting {
            let Some(step) = self.plan.steps.get(*i) else { continue };
            let kind = self.kinds.get(step.kind)?;
            // A failed resource, or one that is being deleted, holds no more work or data.
            let replaced = step.replaces;
            if replaced && !matches!(found.status, Status::Ready | Status::Pending(_)) {
                continue;
            }
            let Some(loss) = kind.loses(found, replaced) else { continue };
            let place = found.address.place();
            let inside = kind.is_hosted()
                && (replaced || homes_of_dying.contains(&place))
                && kind.host(&found.state).is_some_and(|c| dying.contains(&c));
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
}
