//! Watching the holder of the lock: a holder is dead after a whole lease without a heartbeat.

use std::time::Duration;

use super::record::Seen;

/// The conclusion of a waiter about the newest generation.
#[derive(Debug, PartialEq)]
pub(super) enum Sight {
    /// The heartbeat has changed since the last reading, or another run holds
    /// the lock.
    Alive,
    /// There was no heartbeat for this long.
    Silent(Duration),
    /// There was no heartbeat for a whole lease.
    Dead,
}

/// The readings of a waiter so far.
#[derive(Default)]
pub(super) struct Vigil {
    /// The first reading with the present heartbeat, and its time.
    seen: Option<(Seen, Duration)>,
}

impl Vigil {
    /// `asked` and `answered` are the start and the end of the reading, by the
    /// waiter's own clock.
    pub fn look(&mut self, holder: &Seen, asked: Duration, answered: Duration) -> Sight {
        match &self.seen {
            Some((seen, since)) if seen == holder => match asked.saturating_sub(*since) {
                silent if silent >= holder.lease() => Sight::Dead,
                silent => Sight::Silent(silent),
            },
            before => {
                let first = before.is_none();
                self.seen = Some((holder.clone(), answered));
                if first { Sight::Silent(Duration::ZERO) } else { Sight::Alive }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;

    use super::super::record::{LEASE, Record};
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seen(generation: u64, version: i64) -> Seen {
        let record = Record { since: Timestamp::UNIX_EPOCH, id: "1".into(), ..Record::new("apply", "arn", LEASE) };
        Seen { generation, name: format!("/lock/{generation}"), version, record: Some(record) }
    }

    #[test]
    fn a_holder_is_dead_after_a_whole_lease_of_silence() {
        let mut vigil = Vigil::default();
        let holder = seen(1, 7);
        assert_eq!(vigil.look(&holder, at(0), at(10)), Sight::Silent(at(0)));
        // The silence is measured from the end of the first reading to the
        // beginning of this one.
        assert_eq!(vigil.look(&holder, at(69), at(90)), Sight::Silent(at(59)));
        assert_eq!(vigil.look(&holder, at(70), at(71)), Sight::Dead);
    }

    #[test]
    fn a_heartbeat_begins_the_lease_anew() {
        let mut vigil = Vigil::default();
        vigil.look(&seen(1, 7), at(0), at(0));
        assert_eq!(vigil.look(&seen(1, 8), at(59), at(59)), Sight::Alive);
        assert_eq!(vigil.look(&seen(1, 8), at(100), at(100)), Sight::Silent(at(41)));
        // Another holder is alive too.
        assert_eq!(vigil.look(&seen(2, 8), at(118), at(118)), Sight::Alive);
        assert_eq!(vigil.look(&seen(2, 8), at(119), at(119)), Sight::Silent(at(1)));
    }

    #[test]
    fn the_holder_s_own_lease_counts() {
        let mut holder = seen(1, 1);
        holder.record.as_mut().unwrap().lease_seconds = 2.0;
        let mut vigil = Vigil::default();
        vigil.look(&holder, at(0), at(0));
        assert_eq!(vigil.look(&holder, at(2), at(2)), Sight::Dead);
    }

    #[test]
    fn what_cannot_be_read_is_held_by_somebody() {
        let holder = Seen { generation: 3, name: "/lock/3".to_owned(), version: 1, record: None };
        assert!(!holder.released());
        assert!(holder.holder().contains("/lock/3"));
        let mut vigil = Vigil::default();
        vigil.look(&holder, at(0), at(0));
        assert_eq!(vigil.look(&holder, at(60), at(60)), Sight::Dead);
    }
}
