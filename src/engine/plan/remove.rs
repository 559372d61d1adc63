//! Deletes resources that have left the spec, except if they are needed or hold data.

use std::collections::BTreeSet;

use super::{Kept, Planner, UnreadHost, blocked_at, twice};
use crate::engine::address::{Address, Owner};
use crate::engine::error::Result;
use crate::engine::why::{Note, WhyKept};

impl Planner<'_> {
    /// Names the unread clusters that concern the selection, except clusters that are deleted.
    pub(super) fn block_hosts(&mut self) {
        let dying = self.dying_hosts();
        for unread in &self.observed.unread {
            let blocks = self.plan.blocked.iter().any(|b| b.why.unread() == Some(unread.host.as_str()));
            // The spec no longer shows where a removed tenant was.
            let gone = |id: &String| !self.desired.iter().any(|r| r.address.owner() == Owner::Tenant(id.clone()));
            let concerned = || unread.wanted.iter().any(|a| self.selects(a)) || self.policy.tenants.iter().any(gone);
            if blocks || (!dying.contains(&unread.host) && concerned()) {
                self.plan.unread_hosts.push(UnreadHost {
                    host: unread.host.clone(),
                    reason: unread.error.message.clone(),
                    help: unread.error.help.clone(),
                    objects: unread.wanted.len(),
                });
            }
        }
    }

    pub(super) fn dying_hosts(&self) -> BTreeSet<String> {
        self.deleting.iter().filter_map(|(i, found)| found.outputs.get(self.hosting(*i)?.name).cloned()).collect()
    }

    /// Plans the deletion of all resources at `address`.
    pub(super) fn remove(&mut self, address: &Address) -> Result<()> {
        let Some(kind_name) = self.observed.kinds.get(address).copied() else { return Ok(()) };
        let kind = self.kinds.get(kind_name)?.clone();
        let all = self.observed.found.get(address).cloned().unwrap_or_default();
        if kind.belongs_to_account() {
            return Ok(());
        }
        if self.observed.is_twice(address) {
            self.hold_up(blocked_at(address, kind_name, twice(&all)));
            return Ok(());
        }
        for found in &all {
            if let Some(why) = self.held(found) {
                self.hold_up(blocked_at(address, kind_name, why));
                continue;
            }
            // A remaining tenant of a silo or pool needs all of it.
            if self.stays_whole(address) {
                continue;
            }
            if kind.keeps_data() && !self.policy.delete_logs {
                self.plan.kept.push(Kept {
                    address: address.clone(),
                    kind: kind_name,
                    id: found.id.clone(),
                    why: WhyKept::AuditLogs,
                });
                continue;
            }
            self.push_delete(kind_name, found, false, None)?;
        }
        Ok(())
    }

    /// True if the cluster or VPC at `address`, which has left the spec, must be kept.
    fn stays_whole(&self, address: &Address) -> bool {
        let place = address.place();
        let foundation = |held: &Address| {
            let kind = self.observed.kinds.get(held).and_then(|kind| self.kinds.get(kind).ok());
            self.observed.current(held).zip(kind).is_some_and(|(found, kind)| kind.loses(found, true).is_some())
        };
        let gone = |held: &Address| !self.desired.contains(held) && held.place() == place;
        self.held.keys().any(|(held, _)| gone(held) && foundation(held))
    }

    /// A key that encrypts kept logs is kept, because the logs would be unreadable without it.
    pub(super) fn keep_keys_of_kept(&mut self) -> Result<()> {
        let mut used = BTreeSet::new();
        for kept in &self.plan.kept {
            for found in self.observed.found.get(&kept.address).into_iter().flatten() {
                found.state.walk(&mut |text| {
                    used.insert(text.to_owned());
                });
            }
        }
        let kind = |i: usize| self.plan.steps.get(i).and_then(|s| self.kinds.get(s.kind).ok());
        let is_key = |i: usize| kind(i).is_some_and(|kind| kind.unlocks_data());
        let kept = self.deleting.iter().filter(|(i, found)| is_key(**i) && self.is_named(**i, found, &used));
        let kept: Vec<usize> = kept.map(|(i, _)| *i).collect();
        self.keep(kept, &WhyKept::EncryptsLogs);
        Ok(())
    }

    /// Objects in a deleted cluster are deleted with it.
    pub(super) fn drop_what_dies_with_its_host(&mut self) {
        let hosts = self.dying_hosts();
        let gone: Vec<usize> = self
            .deleting
            .iter()
            .filter(|(i, found)| {
                let inside =
                    self.plan.steps.get(**i).and_then(|s| self.kinds.get(s.kind).ok()).is_some_and(|k| k.is_hosted());
                inside && self.host(**i, found).is_some_and(|c| hosts.contains(&c))
            })
            .map(|(i, _)| *i)
            .collect();
        if !gone.is_empty() {
            self.plan.notes.insert(Note::DeletedWithHost { objects: gone.len() });
        }
        for i in gone {
            self.drop_step(i);
        }
    }
}
