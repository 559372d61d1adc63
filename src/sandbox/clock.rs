//! Simulated time, the only clock of the sandbox.
#![allow(clippy::disallowed_methods, reason = "this is where the sandbox takes time from")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Simulated unix seconds. The clock either runs at a multiple of real time, or a test moves it by hand.
#[derive(Debug)]
pub struct Clock {
    base: f64,
    /// The moment at which `base` was the time, and how many simulated seconds pass in a real one. `None`: the clock
    /// stands still.
    running: Option<(Instant, f64)>,
}

impl Clock {
    /// A clock that runs `speed` times as fast as real time, from `from` (unix seconds) or from the present.
    pub fn running(from: Option<f64>, speed: f64) -> Self {
        Self { base: from.unwrap_or_else(wall), running: Some((Instant::now(), speed)) }
    }

    /// A clock that only [`Clock::advance`] moves.
    pub fn manual(from: f64) -> Self {
        Self { base: from, running: None }
    }

    /// Simulated unix seconds.
    pub fn now(&self) -> f64 {
        self.base + self.running.map_or(0.0, |(since, speed)| since.elapsed().as_secs_f64() * speed)
    }

    /// Simulated seconds in a real one. 1 if the clock stands still.
    pub fn speed(&self) -> f64 {
        self.running.map_or(1.0, |(_, speed)| speed)
    }

    /// Jumps forward by simulated seconds.
    pub fn advance(&mut self, seconds: f64) {
        self.base += seconds;
    }
}

/// Real unix seconds, for times that clients compare with their own clock.
pub fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Waits for real seconds.
pub async fn pause(seconds: f64) {
    tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()).await;
}

/// Measures real time, so that a task can rest between two rounds of work.
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Waits for `times` the duration since the start, at least 20 ms.
    pub async fn pause(self, times: f64) {
        tokio::time::sleep(self.0.elapsed().mul_f64(times).max(Duration::from_millis(20))).await;
    }
}

/// `2026-11-23T06:19:00.000Z`, as in EC2's XML. IAM and STS leave out the milliseconds, but their clients accept this
/// form.
pub fn iso8601(seconds: f64) -> String {
    jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64).map(|at| format!("{at:.3}")).unwrap_or_default()
}
