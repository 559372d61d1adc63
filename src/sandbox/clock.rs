//! Simulated time, the only clock of the sandbox.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Simulated unix seconds: either real time multiplied by a speed, or moved by hand in tests.
#[derive(Debug)]
pub struct Clock {
    base: f64,
    /// When `base` was true, and how many simulated seconds pass in a real one; `None` stands still.
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

    /// Jumps forward by simulated seconds.
    pub fn advance(&mut self, seconds: f64) {
        self.base += seconds;
    }
}

fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `2026-11-23T06:19:00.000Z`, the form of EC2's XML; IAM and STS leave out the milliseconds, which clients accept too.
pub fn iso8601(seconds: f64) -> String {
    jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default()
}
