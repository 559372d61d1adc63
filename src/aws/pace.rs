//! A token bucket for each API action, so that AWS doesn't have to throttle. If
//! AWS throttles all the same, the bucket gets slower.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::wire::Api;
use crate::engine::clock::Clock;

/// The lowest rate, in calls a second, even after much throttling: a signed
/// request must not wait until it expires.
const SLOWEST: f64 = 0.5;

/// The part of AWS's published rate that is used. Calls arrive less evenly
/// than they are sent, and other programs use the same account.
const SHARE: f64 = 0.9;

/// Size and refill rate of an API's bucket: calls at once, and calls a second.
///
/// EC2: "Request throttling for the Amazon EC2 API", by category. KMS:
/// "Request quotas". CloudWatch Logs and Systems Manager: their "endpoints and
/// quotas". EKS and IAM publish no
/// rates. Their values are rates that users report as accepted.
fn limits(service: &str, reads: bool) -> (f64, f64) {
    match (service, reads) {
        ("ec2", true) => (100.0, 20.0),
        ("ec2", false) => (50.0, 5.0),
        ("eks", true) => (100.0, 20.0),
        ("eks", false) => (20.0, 5.0),
        ("iam", true) => (50.0, 20.0),
        ("iam", false) => (20.0, 10.0),
        ("kms", false) => (5.0, 5.0),
        ("logs", true) => (10.0, 10.0),
        ("logs", false) => (5.0, 5.0),
        ("ssm", true) => (40.0, 40.0),
        ("ssm", false) => (3.0, 3.0),
        ("servicequotas", _) => (10.0, 10.0),
        _ => (100.0, 100.0),
    }
}

/// One API's tokens.
#[derive(Debug)]
struct Bucket {
    burst: f64,
    rate: f64,
    /// The part of `rate` that AWS grants, as learned from throttling.
    granted: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    fn new((burst, rate): (f64, f64), now: Duration) -> Self {
        Self { burst, rate, granted: 1.0, tokens: burst, filled: now }
    }

    fn fill(&mut self, now: Duration) -> f64 {
        let rate = (self.rate * self.granted).max(SLOWEST);
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(self.burst);
        self.filled = now;
        rate
    }

    /// Takes a token, and returns how long to wait for it.
    fn take(&mut self, now: Duration) -> Duration {
        let rate = self.fill(now);
        self.tokens -= 1.0;
        Duration::try_from_secs_f64(-self.tokens / rate).unwrap_or_default()
    }

    /// Halves the rate after a throttled call, and raises it again after each
    /// successful one.
    fn learn(&mut self, throttled: bool, now: Duration) {
        self.fill(now);
        if throttled {
            self.granted = (self.granted / 2.0).max(SLOWEST / self.rate);
            self.tokens = self.tokens.min(0.0);
        } else {
            self.granted = (self.granted + 0.05).min(1.0);
        }
    }
}

/// The buckets of one account and region.
#[derive(Clone, Debug)]
pub struct Pace {
    clock: Clock,
    buckets: Arc<Mutex<BTreeMap<String, Bucket>>>,
}

impl Pace {
    pub fn new(clock: Clock) -> Self {
        Self { clock, buckets: Arc::default() }
    }

    fn with<T>(&self, api: &Api, change: impl FnOnce(&mut Bucket, Duration) -> T) -> T {
        let now = self.clock.elapsed();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(format!("{}:{}", api.service, api.action)).or_insert_with(|| {
            let (burst, rate) = limits(&api.service, api.reads());
            Bucket::new((burst * SHARE, rate * SHARE), now)
        });
        change(bucket, now)
    }

    /// Waits for a token.
    pub async fn wait(&self, api: &Api) {
        let pause = self.with(api, Bucket::take);
        if !pause.is_zero() {
            self.clock.sleep(pause).await;
        }
    }

    /// Adapts the bucket to an answer, which was throttled or not.
    pub fn learn(&self, api: &Api, throttled: bool) {
        self.with(api, |bucket, now| bucket.learn(throttled, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_burst_passes_and_the_rest_keeps_the_rate() {
        let mut bucket = Bucket::new((50.0, 5.0), at(0.0));
        let waits: Vec<f64> = (0..60).map(|_| bucket.take(at(0.0)).as_secs_f64()).collect();
        assert!(waits[..50].iter().all(|w| *w == 0.0), "{waits:?}");
        assert_eq!(waits[50..55], [0.2, 0.4, 0.6, 0.8, 1.0]);
        // Each waiting call has already used its token.
        assert_eq!(bucket.take(at(2.2)).as_secs_f64(), 0.0);
        assert_eq!(bucket.take(at(2.2)).as_secs_f64(), 0.2);
    }

    #[test]
    fn throttling_halves_the_rate_and_success_restores_it() {
        let mut bucket = Bucket::new((50.0, 8.0), at(0.0));
        bucket.learn(true, at(0.0));
        assert_eq!(bucket.take(at(0.0)), at(0.25));
        bucket.learn(true, at(0.25));
        assert_eq!(bucket.take(at(0.25)), at(0.5));
        for _ in 0..20 {
            bucket.learn(true, at(0.25));
        }
        assert_eq!(bucket.fill(at(0.25)), SLOWEST);
        for _ in 0..20 {
            bucket.learn(false, at(0.25));
        }
        assert_eq!(bucket.fill(at(0.25)), 8.0);
    }
}
