//! The executor: its settings, and what all parts of a run ask of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::address::Address;
use crate::engine::clock::Clock;
use crate::engine::error::Result;
use crate::engine::event::{Event, Events};
use crate::engine::kind::Connected;
use crate::engine::plan::{Step, verb};
use crate::engine::slots;

/// How the user stops a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    #[default]
    No,
    /// No new step starts. Running steps are completed.
    Gently,
    /// Running steps are abandoned.
    AtOnce,
}

/// Guards writes: decides whether the run may still write. It is asked before each write, so it answers at once and
/// without a call.
pub trait Guard: std::fmt::Debug + Send + Sync {
    /// How long a write that starts now may take.
    ///
    /// # Errors [`Class::Lost`] if no write may start.
    fn allows(&self) -> Result<Duration>;
}

/// For a run without other writers.
impl Guard for () {
    fn allows(&self) -> Result<Duration> {
        Ok(Duration::MAX)
    }
}

/// The source of the jitter between retries. The same seed gives the same jitter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chance(pub u64);

impl Chance {
    /// A number from 0 to below 1, which depends on the step and the attempt.
    pub(super) fn draw(self, address: &Address, tries: u32) -> f64 {
        let mut hash = DefaultHasher::new();
        (self.0, address, tries).hash(&mut hash);
        (hash.finish() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub struct Executor {
    pub kinds: Connected,
    pub tenancy: String,
    pub clock: Clock,
    /// How many steps of one kind in one scope may make calls at the same time. Steps that only wait don't count.
    pub parallelism: usize,
    pub events: Events,
    pub stop: watch::Receiver<Stop>,
    /// If it fails, no new step starts. The caller shows its error.
    pub guard: Arc<dyn Guard>,
    pub chance: Chance,
}

/// How a pause ended.
pub(super) enum Rest {
    Over,
    /// The user stopped the run before the pause or during it.
    Stopped,
}

impl Executor {
    /// The cluster in which a step works, if any.
    pub(super) fn host(&self, step: &Step) -> Option<String> {
        let kind = self.kinds.get(step.kind).ok().filter(|k| k.is_hosted())?;
        let state = step.state.as_ref().or(step.found.as_ref().map(|f| &f.state))?;
        kind.host(state)
    }

    pub(super) fn lane(&self, step: &Step) -> Option<String> {
        let state = step.state.as_ref().or(step.found.as_ref().map(|f| &f.state))?;
        self.kinds.get(step.kind).ok()?.lane(state)
    }

    pub(super) fn pace(&self, step: &Step) -> (Duration, Duration) {
        self.kinds.get(step.kind).map(|k| k.pace(verb(step.action))).map(|p| (p.expected, p.limit)).unwrap_or_default()
    }

    /// Pauses. If the user stops the run, only `through` continues to the end.
    pub(super) async fn rest(&self, pause: Duration, through: bool) -> Rest {
        slots::give_back();
        if through {
            self.clock.sleep(pause).await;
            return Rest::Over;
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            Ok(_) = stop.wait_for(|s| *s != Stop::No) => Rest::Stopped,
            () = self.clock.sleep(pause) => Rest::Over,
        }
    }

    pub(super) fn send(&self, event: Event) {
        // A closed channel is no error, because the report has all results.
        let _ = self.events.send(event);
    }
}
