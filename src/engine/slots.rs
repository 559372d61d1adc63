//! Slots limit concurrent calls. A step that makes calls holds a slot. A step that waits has released its slot, so
//! many clusters that are being created never keep another step from starting.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::kind::Scope;

/// The number of slots for each kind in each scope, because AWS limits the rate of calls by account and region.
#[derive(Debug)]
pub(super) struct Slots {
    each: usize,
    taken: Mutex<BTreeMap<Place, usize>>,
    /// Notified when a slot is released.
    pub news: Notify,
}

/// A kind in a scope.
type Place = (Arc<Scope>, &'static str);

impl Slots {
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self { each: each.max(1), taken: Mutex::default(), news: Notify::new() })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<Place, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot of `kind` in `scope`, if one is free.
    pub fn take(self: &Arc<Self>, scope: &Arc<Scope>, kind: &'static str) -> Option<Slot> {
        let place = (scope.clone(), kind);
        let mut all = self.taken();
        let taken = all.entry(place.clone()).or_default();
        if *taken >= self.each {
            return None;
        }
        *taken += 1;
        Some(Slot { slots: self.clone(), place })
    }
}

/// Released on drop.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    place: Place,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(taken) = self.slots.taken().get_mut(&self.place) {
            *taken = taken.saturating_sub(1);
        }
        self.slots.news.notify_one();
    }
}

tokio::task_local! {
    static HELD: Cell<Option<Slot>>;
}

impl Slot {
    /// Does `work` with a slot, which is held until `work` ends or releases it.
    pub async fn hold<F: Future>(self, work: F) -> F::Output {
        HELD.scope(Cell::new(Some(self)), work).await
    }
}

/// Releases the slot of the calling step. It is called before any wait that is longer than an answer. Outside of a
/// step it does nothing.
pub fn give_back() {
    let _ = HELD.try_with(Cell::take);
}
