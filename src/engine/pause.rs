//! Pauses between two looks at the same thing.

use std::time::Duration;

use super::clock::Clock;
use super::slots;

/// No pause is longer.
pub const LONGEST: Duration = Duration::from_secs(15);

/// A slow answer uses up time, not tries.
pub const FEWEST_TRIES: u32 = 6;

/// The lengths of pauses. Each is longer than the one before.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    next: Duration,
    factor: f64,
}

impl Default for Pauses {
    /// From half a second, growing by half.
    fn default() -> Self {
        Self { next: Duration::from_millis(500), factor: 1.5 }
    }
}

impl Pauses {
    /// From `first`, doubling.
    pub fn doubling(first: Duration) -> Self {
        Self { next: first, factor: 2.0 }
    }

    pub fn next_length(&mut self) -> Duration {
        let now = self.next.min(LONGEST);
        self.next = now.mul_f64(self.factor);
        now
    }
}

/// Pauses until a limit.
pub struct Patience<'a> {
    clock: &'a Clock,
    until: Duration,
    pauses: Pauses,
    count: u32,
}

impl<'a> Patience<'a> {
    pub fn new(clock: &'a Clock, limit: Duration) -> Self {
        Self { clock, until: clock.elapsed() + limit, pauses: Pauses::default(), count: 0 }
    }

    pub fn with(self, pauses: Pauses) -> Self {
        Self { pauses, ..self }
    }

    /// Waits a while. False, at once, when the time is up. A step that waits gives back its slot.
    pub async fn wait(&mut self) -> bool {
        if self.clock.elapsed() >= self.until && self.count >= FEWEST_TRIES {
            return false;
        }
        self.count += 1;
        slots::give_back();
        self.clock.sleep(self.pauses.next_length()).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest() {
        let mut pauses = Pauses::default();
        let lengths: Vec<_> = std::iter::repeat_with(|| pauses.next_length().as_secs_f64()).take(11).collect();
        assert_eq!(lengths[..3], [0.5, 0.75, 1.125]);
        assert_eq!(lengths[9..], [15.0, 15.0]);
    }
}
