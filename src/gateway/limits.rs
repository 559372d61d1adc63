//! What a tenant uses at a time. A flood of one tenant is refused before it costs the others anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Refused;
use super::config::Limits;
use crate::engine::clock::Clock;

/// How long a refusal waits before it is sent. A client that asks again at once gets fewer refusals, so they cost less.
const PAUSE: Duration = Duration::from_millis(200);
/// Refusals of one tenant that wait at a time.
const WAITING: usize = 1_000;

/// The use of all tenants.
#[derive(Debug, Default)]
pub struct Meters(Mutex<BTreeMap<String, Arc<Meter>>>);

/// The use of one tenant.
#[derive(Debug)]
pub struct Meter {
    bucket: Mutex<Bucket>,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    refusals: Semaphore,
    /// The limits that the meter was made with.
    of: [u32; 4],
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    /// On the gateway's clock.
    filled: Duration,
}

/// Held as long as a request or stream counts.
#[derive(Debug)]
pub struct Ticket {
    _permit: OwnedSemaphorePermit,
}

impl Meters {
    /// The meter of a tenant. Changed limits begin with a new meter.
    pub fn of(&self, tenant: &str, limits: &Limits, now: Duration) -> Arc<Meter> {
        let of = [limits.requests_per_second, limits.burst, limits.concurrent, limits.streams];
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match meters.get(tenant) {
            Some(meter) if meter.of == of => meter.clone(),
            _ => {
                let meter = Arc::new(Meter {
                    bucket: Mutex::new(Bucket { tokens: f64::from(limits.burst), filled: now }),
                    requests: Arc::new(Semaphore::new(limits.concurrent as usize)),
                    streams: Arc::new(Semaphore::new(limits.streams as usize)),
                    refusals: Semaphore::new(WAITING),
                    of,
                });
                meters.insert(tenant.to_owned(), meter.clone());
                meter
            }
        }
    }
}

impl Meter {
    /// Waits before a refusal is sent.
    pub async fn pause(&self, clock: &Clock) {
        if let Ok(_held) = self.refusals.try_acquire() {
            clock.sleep(PAUSE).await;
        }
    }

    /// Counts a request that begins.
    ///
    /// # Errors
    /// A limit is reached.
    pub fn enter(&self, is_stream: bool, now: Duration) -> Result<Ticket, Refused> {
        let [rate, burst, ..] = self.of;
        let (semaphore, what) = match is_stream {
            true => (&self.streams, "watches and sessions at a time"),
            false => (&self.requests, "requests at a time"),
        };
        let permit = semaphore.clone().try_acquire_owned().map_err(|_| Refused::too_many(what))?;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_sub(bucket.filled).as_secs_f64() * f64::from(rate);
        bucket.tokens = (bucket.tokens + gained).min(f64::from(burst));
        bucket.filled = bucket.filled.max(now);
        if bucket.tokens < 1.0 {
            return Err(Refused::too_many("requests a second"));
        }
        bucket.tokens -= 1.0;
        Ok(Ticket { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_tenant_has_a_rate_a_burst_and_numbers_of_its_own() {
        let limits = Limits { requests_per_second: 10, burst: 3, concurrent: 2, streams: 1, ..Limits::default() };
        let meters = Meters::default();
        let at = Duration::from_millis;
        let meter = meters.of("a", &limits, at(0));
        let first = meter.enter(false, at(0)).unwrap();
        let second = meter.enter(false, at(0)).unwrap();
        assert_eq!(meter.enter(false, at(0)).unwrap_err().rule.as_deref(), Some("requests at a time"));
        drop((first, second));
        drop(meter.enter(false, at(0)).unwrap());
        assert_eq!(meter.enter(false, at(50)).unwrap_err().rule.as_deref(), Some("requests a second"));
        drop(meters.of("a", &limits, at(100)).enter(false, at(100)).unwrap());
        assert!(meter.enter(false, at(100)).is_err());
        assert!(meters.of("b", &limits, at(100)).enter(false, at(100)).is_ok());
        let _stream = meter.enter(true, at(1000)).unwrap();
        assert!(meter.enter(true, at(1000)).is_err());
    }
}
