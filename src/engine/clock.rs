//! The only place that knows time. Everything else is handed a [`Clock`].

use std::time::{Duration, Instant};

/// Time as the run sees it: monotonic, and faster than the wall in a sandbox.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    speed: f64,
}

impl Clock {
    /// The wall's own pace.
    #[allow(clippy::disallowed_methods)]
    pub fn real() -> Self {
        Self { start: Instant::now(), speed: 1.0 }
    }

    /// A clock on which `speed` seconds pass in one of the wall's.
    pub fn scaled(speed: f64) -> Self {
        Self { speed: speed.max(f64::MIN_POSITIVE), ..Self::real() }
    }

    /// Time since the run began, on this clock.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed().mul_f64(self.speed)
    }

    /// Time since the run began, on the wall.
    pub fn wall(&self) -> Duration {
        self.start.elapsed()
    }

    /// How much faster than the wall this clock is.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Waits until `duration` has passed on this clock.
    #[allow(clippy::disallowed_methods)]
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration.div_f64(self.speed)).await;
    }

    /// This moment, for what another computer checks by its own clock.
    #[allow(clippy::disallowed_methods)]
    pub fn timestamp() -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    /// Today in UTC.
    #[allow(clippy::disallowed_methods)]
    pub fn today() -> jiff::civil::Date {
        jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
    }
}
