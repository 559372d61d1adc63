//! The guard of all changes, at AWS and in clusters: right before each attempt
//! is sent, the fence asks the holder of the tenancy's lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::engine::error::Result;
use crate::engine::execute::Guard;

/// A fence without a guard lets every attempt pass. Clones share the guard.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    guard: OnceLock<Arc<dyn Guard>>,
    cut: AtomicUsize,
}

impl Fence {
    /// Sets the guard. Only the first call has an effect.
    pub fn set(&self, guard: Arc<dyn Guard>) {
        let _ = self.0.guard.set(guard);
    }

    /// Lets an attempt at a change pass.
    ///
    /// # Errors
    /// [`Class::Lost`](crate::engine::error::Class::Lost) if the lock is lost.
    pub fn enter(&self) -> Result<Attempt> {
        let limit = self.0.guard.get().map_or(Ok(Duration::MAX), |guard| guard.allows())?;
        Ok(Attempt { fence: self.clone(), limit, over: false })
    }

    /// The number of attempts that were given up before they ended. AWS may
    /// still carry them out.
    pub fn cut(&self) -> usize {
        self.0.cut.load(Ordering::SeqCst)
    }
}

/// One attempt at a change, from its sending on.
#[derive(Debug)]
pub struct Attempt {
    fence: Fence,
    /// The time limit. After it, the caller gives the attempt up.
    pub limit: Duration,
    over: bool,
}

impl Attempt {
    /// The attempt has ended: an answer came, or the time limit passed.
    pub fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.over {
            self.fence.0.cut.fetch_add(1, Ordering::SeqCst);
        }
    }
}
