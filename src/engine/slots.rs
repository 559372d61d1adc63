//! Who makes calls holds a slot; who only waits has given it back. So however
//! many clusters are being made, none of them keeps another step from
//! starting.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// So many slots for each kind.
#[derive(Debug)]
pub(super) struct Slots {
    each: usize,
    taken: Mutex<BTreeMap<&'static str, usize>>,
    /// Told when a slot is given back.
    pub news: Notify,
}

impl Slots {
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self { each: each.max(1), taken: Mutex::default(), news: Notify::new() })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot of `kind`, if one is free.
    pub fn take(self: &Arc<Self>, kind: &'static str) -> Option<Slot> {
        let mut all = self.taken();
        let taken = all.entry(kind).or_default();
        if *taken >= self.each {
            return None;
        }
        *taken += 1;
        Some(Slot { slots: self.clone(), kind })
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    kind: &'static str,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(taken) = self.slots.taken().get_mut(self.kind) {
            *taken = taken.saturating_sub(1);
        }
        self.slots.news.notify_one();
    }
}

tokio::task_local! {
    static HELD: Cell<Option<Slot>>;
}

impl Slot {
    /// Does `work`, which holds it until it ends or gives it back.
    pub async fn hold<F: Future>(self, work: F) -> F::Output {
        HELD.scope(Cell::new(Some(self)), work).await
    }
}

/// Gives back the slot of the step that calls this: to be called before
/// anything that waits for longer than an answer takes. Elsewhere it does
/// nothing.
pub fn give_back() {
    let _ = HELD.try_with(Cell::take);
}
