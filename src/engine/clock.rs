//! The only place that knows time. Everything else is handed a [`Clock`].

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Time as the run sees it: monotonic, and faster than the wall in a sandbox.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    speed: f64,
    hand: Option<Hand>,
}

impl Clock {
    /// The wall's own pace.
    #[allow(clippy::disallowed_methods)]
    pub fn real() -> Self {
        Self { start: Instant::now(), speed: 1.0, hand: None }
    }

    /// A clock on which `speed` seconds pass in one of the wall's.
    pub fn scaled(speed: f64) -> Self {
        Self { speed: speed.max(f64::MIN_POSITIVE), ..Self::real() }
    }

    /// Time since the run began, on this clock.
    pub fn elapsed(&self) -> Duration {
        match &self.hand {
            Some(hand) => hand.face().now,
            None => self.start.elapsed().mul_f64(self.speed),
        }
    }

    /// Time since the run began, on the wall.
    pub fn wall(&self) -> Duration {
        self.elapsed().div_f64(self.speed)
    }

    /// How much faster than the wall this clock is.
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

/// Moves a clock from one sleeper's end to the next, so that hours of waiting
/// take no time and a busy computer changes nothing: for tests.
#[derive(Clone, Debug, Default)]
pub struct Hand(Arc<Mutex<Face>>);

#[derive(Debug, Default)]
struct Face {
    now: Duration,
    /// By when they end, and in the order in which they began.
    sleepers: BTreeMap<(Duration, u64), Waker>,
    slept: u64,
}

/// Whether there is anything to do before time goes on.
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

    /// Runs `work`, which waits for nothing but this clock, to its end. `None`
    /// if it waits and nobody sleeps.
    pub fn run<F: Future>(&self, work: F) -> Option<F::Output> {
        // Within a runtime's task nothing could be polled for as long.
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
