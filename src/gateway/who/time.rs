//! The time of day that credentials are checked against.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::engine::clock::Clock;

/// The time of day, and a monotonic clock for waits. Tests set both.
#[derive(Clone, Debug)]
pub struct Time {
    clock: Clock,
    /// The time of day when `clock` started. `None`: the computer's.
    start: Option<Timestamp>,
}

impl Time {
    /// The computer's time of day. It is read anew each time, because a monotonic clock stands still while a computer
    /// is suspended, and an expired token would count as valid after that.
    pub fn real(clock: Clock) -> Self {
        Self { clock, start: None }
    }

    /// A time of day that is `start` when `clock` starts, and passes with `clock`.
    pub fn starting_at(start: Timestamp, clock: Clock) -> Self {
        Self { clock, start: Some(start) }
    }

    pub(super) fn now(&self) -> Timestamp {
        let Some(start) = self.start else { return Clock::timestamp() };
        let passed = SignedDuration::try_from(self.clock.elapsed()).unwrap_or(SignedDuration::MAX);
        start.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The value of `work`. `None` if `work` takes longer than `limit`.
    pub(super) async fn within<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            value = work => Some(value),
            () = self.clock.sleep(limit) => None,
        }
    }
}
