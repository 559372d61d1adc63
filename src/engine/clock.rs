//! The only module that reads the time. All other code gets a [`Clock`].

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// The time of a run. It is monotonic, and in a sandbox faster than real time.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    speed: f64,
    hand: Option<Hand>,
}

impl Clock {
    /// A clock in real time.
    #[allow(clippy::disallowed_methods)]
    pub fn real() -> Self {
        Self { start: Instant::now(), speed: 1.0, hand: None }
    }

    /// A clock that runs `speed` times faster than real time.
    pub fn scaled(speed: f64) -> Self {
        Self { speed: speed.max(f64::MIN_POSITIVE), ..Self::real() }
    }

    /// The time since the start of the run, on this clock.
    pub fn elapsed(&self) -> Duration {
        match &self.hand {
            Some(hand) => hand.face().now,
            None => self.start.elapsed().mul_f64(self.speed),
        }
    }

    /// The time since the start of the run, in real time.
    pub fn wall(&self) -> Duration {
        self.elapsed().div_f64(self.speed)
    }

    /// How many times faster than real time this clock runs.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Waits until `duration` has passed on this clock.
    #[allow(clippy::disallowed_methods)]
    pub async fn sleep(&self, duration: Duration) {
        match &self.hand {
            Some(hand) => hand.sleep(duration).await,
            None => tokio::time::sleep(duration.div_f64(self.speed)).await,
        }
    }

    /// The current moment, for a value that another computer checks against its own clock.
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

/// A clock for tests. It advances from the end of one sleep to the end of the next, so that hours of waiting take no
/// time and the computer's load changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Hand(Arc<Mutex<Face>>);

#[derive(Debug, Default)]
struct Face {
    now: Duration,
    /// The sleepers by the end of their sleep, and then by the order of their start.
    sleepers: BTreeMap<(Duration, u64), Waker>,
    slept: u64,
}

/// True if a task can run before the time advances.
struct Due(AtomicBool);

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Hand {
    pub fn clock(&self) -> Clock {
        Clock { hand: Some(self.clone()), ..Clock::real() }
    }

    fn face(&self) -> MutexGuard<'_, Face> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sleep(&self, duration: Duration) {
        let (until, turn) = {
            let mut face = self.face();
            face.slept += 1;
            (face.now + duration, face.slept)
        };
        poll_fn(|context| {
            let mut face = self.face();
            if face.now >= until {
                face.sleepers.remove(&(until, turn));
                return Poll::Ready(());
            }
            face.sleepers.insert((until, turn), context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Runs `work`, which waits only for this clock, to its end. `None` if it waits without a sleeper.
    pub fn run<F: Future>(&self, work: F) -> Option<F::Output> {
        // A task of a runtime must not poll for that long.
        let mut work = pin!(tokio::task::unconstrained(work));
        let due = Arc::new(Due(AtomicBool::new(true)));
        let waker = Waker::from(due.clone());
        loop {
            while due.0.swap(false, Ordering::SeqCst) {
                if let Poll::Ready(value) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some(value);
                }
            }
            let mut face = self.face();
            let ((until, _), sleeper) = face.sleepers.pop_first()?;
            face.now = face.now.max(until);
            drop(face);
            sleeper.wake();
        }
    }
}
