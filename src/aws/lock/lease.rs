//! The lease, as its holder measures it.

use std::time::Duration;

use jiff::Timestamp;

use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};

/// A moment by both clocks. The monotonic clock stops while the computer
/// sleeps, and the wall clock may be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    run: Duration,
    wall: Timestamp,
}

impl Moment {
    pub fn now(clock: &Clock) -> Self {
        Self { run: clock.elapsed(), wall: Clock::timestamp() }
    }

    /// The longer of the two durations.
    pub fn since(self, earlier: Self) -> Duration {
        let wall = Duration::try_from(self.wall.duration_since(earlier.wall)).unwrap_or_default();
        self.run.saturating_sub(earlier.run).max(wall)
    }
}

/// The lease, as its holder measures it.
#[derive(Debug)]
pub(super) struct Lease {
    pub length: Duration,
    /// The time at which the last successful heartbeat was sent.
    renewed: Moment,
    /// The error of the last heartbeat. `None`: it succeeded.
    pub trouble: Option<Error>,
    /// The reason why the run may not write any more. It is never reset.
    pub lost: Option<Error>,
    /// True after this run has released the lock.
    pub over: bool,
}

impl Lease {
    pub fn new(length: Duration, renewed: Moment) -> Self {
        Self { length, renewed, trouble: None, lost: None, over: false }
    }

    pub fn left(&self, now: Moment) -> Duration {
        self.length.saturating_sub(now.since(self.renewed))
    }

    /// True if less than a quarter of the lease is left. A write might not end
    /// in that time.
    pub fn stale(&self, now: Moment) -> bool {
        self.left(now) < self.length.div_f64(4.0)
    }

    pub fn renew(&mut self, begun: Moment) {
        self.renewed = begun;
        self.trouble = None;
    }

    pub fn lose(&mut self, why: Error) {
        self.lost.get_or_insert(why);
    }

    /// The time limit of a write that begins now.
    pub fn allows(&mut self, now: Moment) -> Result<Duration> {
        if self.over {
            return Err(Error::new(Class::Lost, "the lock was released; nothing is written any more"));
        }
        if self.lost.is_none() && self.stale(now) {
            let age = now.since(self.renewed).as_secs();
            let why = self.trouble.take().map(|e| format!(" ({e})")).unwrap_or_default();
            self.lose(
                Error::new(
                    Class::Lost,
                    format!("the lock couldn't be renewed for {age} s{why}, so another run may have taken it"),
                )
                .help("no new step was started; run the same command again, which reads what exists and continues from there"),
            );
        }
        match &self.lost {
            Some(why) => Err(why.clone()),
            None => Ok(self.left(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::record::LEASE;
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn moment(run: u64, wall: i64) -> Moment {
        Moment { run: at(run), wall: Timestamp::from_second(wall).unwrap() }
    }

    #[test]
    fn the_holder_stops_before_a_waiter_may_take_over() {
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        assert_eq!(lease.allows(moment(100, 1000)).unwrap(), at(60));
        assert_eq!(lease.allows(moment(145, 1045)).unwrap(), at(15));
        lease.renew(moment(140, 1040));
        assert!(lease.allows(moment(185, 1085)).is_ok());
        lease.trouble = Some(Error::new(Class::Denied, "the credentials have expired"));
        let why = lease.allows(moment(186, 1086)).unwrap_err();
        assert!(why.message.contains("the credentials have expired"), "{why}");
        assert_eq!(why.class, Class::Lost);
        // A heartbeat after the end of the lease changes nothing.
        lease.renew(moment(187, 1087));
        assert!(lease.allows(moment(188, 1088)).is_err());
    }

    #[test]
    fn who_has_released_it_writes_nothing() {
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        lease.over = true;
        assert_eq!(lease.allows(moment(101, 1001)).unwrap_err().class, Class::Lost);
    }

    #[test]
    fn a_computer_that_slept_does_not_go_on() {
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        assert!(lease.allows(moment(101, 1046)).is_err());
        // Setting the wall clock back doesn't make the lease longer.
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        assert!(lease.allows(moment(146, 500)).is_err());
    }
}
