//! Pauses between two reads of the same resource.

use std::time::Duration;

use super::clock::Clock;
use super::slots;

/// The longest pause.
pub const LONGEST: Duration = Duration::from_secs(15);

/// The limit counts time, not attempts, so a slow answer uses it up, too.
pub const FEWEST_TRIES: u32 = 6;

/// The lengths of pauses. Each is longer than its predecessor.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    next: Duration,
    factor: f64,
}

impl Default for Pauses {
    /// Starts at half a second and grows by half.
    fn default() -> Self {
        Self { next: Duration::from_millis(500), factor: 1.5 }
    }
}

impl Pauses {
    /// Starts at `first` and doubles.
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
    /// When the last attempt began. An answer that comes late says nothing about the present.
    tried: Duration,
    pauses: Pauses,
    count: u32,
}

impl<'a> Patience<'a> {
    pub fn new(clock: &'a Clock, limit: Duration) -> Self {
        let now = clock.elapsed();
        Self { clock, until: now + limit, tried: now, pauses: Pauses::default(), count: 0 }
    }

    pub fn with(self, pauses: Pauses) -> Self {
        Self { pauses, ..self }
    }

    /// Waits for the next pause. Returns false at once if the last attempt began after the limit. A waiting step
    /// releases its slot.
    pub async fn wait(&mut self) -> bool {
        if self.tried >= self.until && self.count >= FEWEST_TRIES {
            return false;
        }
        self.count += 1;
        slots::give_back();
        self.clock.sleep(self.pauses.next_length()).await;
        self.tried = self.clock.elapsed();
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
