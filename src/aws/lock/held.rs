//! A lock that this run holds, and its heartbeat.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::lease::{Lease, Moment};
use super::record::{Record, Seen};
use super::store::Store;
use crate::engine::error::{Class, Error, Result};
use crate::engine::execute::Guard;

/// A lock that this run holds until it releases it.
pub struct Lock {
    held: Arc<Held>,
    beating: Mutex<Option<(watch::Sender<()>, JoinHandle<()>)>>,
}

#[derive(Debug)]
struct Held {
    store: Store,
    generation: u64,
    record: Record,
    lease: Mutex<Lease>,
}

impl Lock {
    pub(super) fn new(store: Store, generation: u64, record: Record, lease: Lease) -> Self {
        let held = Arc::new(Held { store, generation, record, lease: Mutex::new(lease) });
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(held.clone().beat(stopped));
        Self { held, beating: Mutex::new(Some((stop, task))) }
    }

    /// The guard for the fence and the executor.
    pub fn guard(&self) -> Arc<dyn Guard> {
        self.held.clone()
    }

    /// The reason why the run may not write any more. `None`: the run may write.
    pub fn lost(&self) -> Option<Error> {
        self.held.lease().lost.clone()
    }

    /// Stops the heartbeat. A heartbeat that is in progress is finished first.
    async fn still(&self) {
        let beating = self.beating.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, task)) = beating {
            drop(stop);
            // The task ends by itself and has no result.
            let _ = task.await;
        }
    }

    /// The time for which the lock would stay if the run ended now without
    /// releasing it.
    pub fn left(&self) -> Duration {
        self.held.lease().left(Moment::now(&self.held.store.clock))
    }

    /// Marks the lock as released. This run writes nothing any more, even if
    /// the marking fails.
    pub async fn release(&self) -> Result<()> {
        self.held.lease().over = true;
        self.still().await;
        let Held { store, generation, record, .. } = &*self.held;
        let released = store.overwrite(*generation, &Record { released: true, ..record.clone() }).await;
        // A lost lock needs no release.
        if self.lost().is_some() { Ok(()) } else { released }
    }

    /// Releases the lock and deletes its parameters.
    pub async fn remove(&self) -> Result<()> {
        self.release().await?;
        let Held { store, generation, .. } = &*self.held;
        let all = store.list().await?;
        let ours: Vec<Seen> = all.into_iter().filter(|s| s.generation <= *generation).collect();
        store.delete(&ours).await
    }
}

impl Held {
    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn beat(self: Arc<Self>, mut stopped: watch::Receiver<()>) {
        let clock = &self.store.clock;
        let length = self.lease().length;
        let mut record = self.record.clone();
        let mut pause = length.div_f64(4.0);
        loop {
            tokio::select! {
                () = clock.sleep(pause) => {}
                _ = stopped.changed() => return,
            }
            record.heartbeat += 1;
            let begun = Moment::now(clock);
            let late = self.lease().stale(begun);
            let beaten = self.store.overwrite(self.generation, &record).await;
            // A heartbeat that succeeds after the end of the lease doesn't
            // renew it: another run may have taken over before.
            let refused = beaten
                .as_ref()
                .is_err_and(|e| !matches!(e.class, Class::Throttled | Class::Unclear | Class::Unreachable));
            let successor = match late || refused {
                true => self.store.successor(self.generation, &record).await,
                false => Ok(None),
            };
            let mut lease = self.lease();
            match (beaten, successor) {
                (_, Ok(Some(why))) => return lease.lose(why),
                (Ok(()), Ok(None)) => {
                    lease.renew(begun);
                    pause = length.div_f64(4.0);
                }
                (Err(error), _) | (_, Err(error)) => {
                    lease.trouble = Some(error);
                    pause = length.div_f64(12.0);
                }
            }
        }
    }
}

impl Guard for Held {
    fn allows(&self) -> Result<Duration> {
        let now = Moment::now(&self.store.clock);
        // A sandbox's clock runs faster than real time. Time limits of calls are
        // in real time.
        Ok(self.lease().allows(now)?.div_f64(self.store.clock.speed()))
    }
}
