//! A run that holds the tenancy's lock, and how it reacts to a request to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::{Host, Manner, Session, Stage};
use crate::aws::lock::{self, Lock};
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};
use crate::engine::execute::Stop;

/// How long a stopped run may take to end.
const HURRY: Duration = Duration::from_secs(3);

pub(super) struct Locked {
    pub lock: Arc<Lock>,
    stop: watch::Receiver<Stop>,
    begun: AtomicBool,
}

impl Locked {
    /// From now on the executor handles requests to stop, by the receiver that is returned. `None` if the run was
    /// asked to stop before.
    pub fn begin(&self) -> Option<watch::Receiver<Stop>> {
        let free = *self.stop.borrow() == Stop::No;
        self.begun.store(free, Ordering::Relaxed);
        free.then(|| self.stop.clone())
    }

    fn begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Completes when the run must be abandoned. Before the first write, that is at the first request, even while a
    /// question is unanswered. Later, it is at the second request, if the running steps don't end in time.
    pub async fn left(&self) {
        let mut stop = self.stop.clone();
        if wished(&mut stop).await && !self.begun() {
            return;
        }
        let again = stop.wait_for(|s| *s == Stop::AtOnce).await.is_ok();
        match again {
            true => Clock::real().sleep(HURRY).await,
            false => std::future::pending().await,
        }
    }
}

impl Session {
    /// Takes the tenancy's lock. `None` if the user stopped the run before the lock was free.
    pub(super) async fn take_lock(
        &self,
        manner: &Manner,
        host: &dyn Host,
        mut stop: watch::Receiver<Stop>,
    ) -> Result<Option<Locked>> {
        // An embedded sandbox has one user, so the lease can be shorter and a dead run's lock is free sooner.
        let usual = if self.embedded().is_some() { lock::LEASE / 3 } else { lock::LEASE };
        let lease = manner.lock_lease.unwrap_or(usual);
        let store = self.lock();
        let say = |text: &str| host.stage(&Stage::Waiting(text.to_owned()));
        let taken = tokio::select! {
            taken = store.take(manner.command, lease, manner.lock_timeout, &say) => taken?,
            true = wished(&mut stop) => return Ok(None),
        };
        self.aws.fence.set(taken.guard());
        Ok(Some(Locked { lock: Arc::new(taken), stop, begun: AtomicBool::new(false) }))
    }

    /// Releases the lock, and tells the host if that fails. `last`: the run deleted the tenancy, so the lock is
    /// deleted, too.
    pub(super) async fn give_back(&self, host: &dyn Host, locked: &Locked, last: bool) {
        let lock = &locked.lock;
        let wish = *locked.stop.borrow();
        // A run that was stopped before its first write has only the lock to release, so it hurries.
        let hurried = wish == Stop::AtOnce || (wish != Stop::No && !locked.begun());
        if locked.begun() && hurried && self.aws.fence.cut() > 0 && lock.lost().is_none() {
            return host.note(&format!(
                "A request to AWS was in progress and may still take effect, so the lock is kept. The next run waits until the lock's lease expires, {} s from now.",
                lock.left().as_secs()
            ));
        }
        let released = async {
            match last {
                true => lock.remove().await,
                false => lock.release().await,
            }
        };
        let released = match hurried {
            true => within(released, HURRY).await,
            false => released.await,
        };
        match released {
            Ok(()) if wish == Stop::AtOnce => host.note("The lock is released."),
            Ok(()) => {}
            Err(error) => host.note(&format!(
                "The lock could not be released ({error}). The next run waits until the lock's lease expires, {} s from now.",
                lock.left().as_secs()
            )),
        }
    }
}

/// Waits for a request to stop. Returns false if there can be no more requests.
async fn wished(stop: &mut watch::Receiver<Stop>) -> bool {
    stop.wait_for(|s| *s != Stop::No).await.is_ok()
}

async fn within<T>(work: impl Future<Output = Result<T>>, limit: Duration) -> Result<T> {
    let late = |_| Err(Error::new(Class::Timeout, format!("no answer within {} s", limit.as_secs())));
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}
