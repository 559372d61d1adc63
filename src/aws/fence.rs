//! Who is asked before anything is changed, at AWS or in a cluster: the holder
//! of the tenancy's lock, right before each attempt is sent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::engine::error::Result;
use crate::engine::execute::Guard;

/// Open to all until a guard is set. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    guard: OnceLock<Arc<dyn Guard>>,
    cut: AtomicUsize,
}

impl Fence {
    /// From now on `guard` is asked. The first stays.
    pub fn set(&self, guard: Arc<dyn Guard>) {
        let _ = self.0.guard.set(guard);
    }

    /// Lets an attempt at a change pass.
    ///
    /// # Errors
    /// [`Class::Lost`](crate::engine::error::Class::Lost) if nothing may be
    /// changed any more.
    pub fn enter(&self) -> Result<Attempt> {
        let limit = self.0.guard.get().map_or(Ok(Duration::MAX), |guard| guard.allows())?;
        Ok(Attempt { fence: self.clone(), limit, over: false })
    }

    /// Attempts at a change that were given up before they ended: AWS may still
    /// carry them out.
    pub fn cut(&self) -> usize {
        self.0.cut.load(Ordering::SeqCst)
    }
}

/// One attempt at a change, from when it is sent.
#[derive(Debug)]
pub struct Attempt {
    fence: Fence,
    /// How long it may take: by then it has ended, one way or the other.
    pub limit: Duration,
    over: bool,
}

impl Attempt {
    /// An answer came, or none in time.
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
