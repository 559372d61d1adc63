//! Retries: which failed calls are tried again, for how long, and after which pause.

use std::future::Future;
use std::time::Duration;

use super::executor::{Rest, Stop};
use super::shared::is_closed;
use super::work::Work;
use crate::engine::error::{Class, Error, Result};
use crate::engine::event::Event;
use crate::engine::kind::{Found, Handle};
use crate::engine::pause::FEWEST_TRIES;

/// How long a read may not show a new resource (EC2 API, "Eventual consistency": usually seconds, at worst minutes).
pub(super) const LAG: Duration = Duration::from_secs(60);

/// Attempts at one call.
#[derive(Default)]
pub(super) struct Tries {
    count: u32,
    since: Option<Duration>,
    /// Continues even if the user stops the run.
    through: bool,
}

impl Tries {
    /// Waits before the next attempt. Returns the error if there is none.
    pub async fn again(&mut self, work: &Work<'_>, error: Error) -> Result<()> {
        if !is_closed(&error) {
            work.heard();
        }
        let clock = &work.executor.clock;
        let now = clock.elapsed();
        let since = *self.since.get_or_insert(now);
        // IAM propagates changes within seconds, at worst minutes. Another update of the same cluster may take as
        // long as the step itself.
        let patience = match error.class {
            Class::NotYet => Duration::from_secs(180),
            // Up to five minutes (KMS Developer Guide, "ABAC for AWS KMS").
            Class::NotYetAllowed => Duration::from_secs(330),
            // Reads and checks are eventually consistent after a creation.
            Class::NotFound => LAG,
            Class::Conflict => work.limit,
            // AWS takes one or two minutes to delete a load balancer.
            Class::Held => Duration::from_secs(120),
            Class::Throttled => Duration::from_secs(300),
            Class::Unclear => Duration::from_secs(60),
            Class::Unserved => Duration::from_secs(30),
            // The DNS name of a new cluster and our access to it take a moment to become effective. A network without
            // a route to the cluster stays closed.
            Class::Unreachable if work.kind.is_hosted() => Duration::from_secs(15),
            Class::Denied if work.kind.is_hosted() => Duration::from_secs(180),
            _ => return Err(error),
        };
        if now.saturating_sub(since) >= patience && self.count >= FEWEST_TRIES {
            return Err(given_up(error, now.saturating_sub(since)));
        }
        let address = work.step.address.clone();
        // Half of the pause is random, so that steps that failed together don't retry together.
        let jitter = 0.5 + 0.5 * work.executor.chance.draw(&address, self.count);
        let after = Duration::from_secs_f64((jitter * 1.7_f64.powi(self.count.min(12) as i32)).min(15.0));
        self.count += 1;
        if self.through || *work.executor.stop.borrow() == Stop::No {
            work.executor.send(Event::Retry { step: work.i, address, error: error.clone(), after });
        }
        match work.executor.rest(after, self.through).await {
            Rest::Over => Ok(()),
            Rest::Stopped => Err(error.help(STOPPED)),
        }
    }
}

/// The help for attempts that the user's stop prevented.
pub(super) const STOPPED: &str = "the run was stopped before the next attempt; run the same command, which reads what exists and continues from there";

/// `error` with the time that was spent on attempts.
fn given_up(mut error: Error, tried: Duration) -> Error {
    if error.class == Class::NotYetAllowed {
        error.class = Class::Denied;
    }
    let message = format!("{}, tried for {} s", error.message, tried.as_secs());
    let help = error.help.clone().unwrap_or_else(|| match error.class {
        Class::Throttled => "run the same command later; it reads what exists and continues from there".to_owned(),
        class if class.is_for_good() => {
            "correct the cause that the message names, then run the same command; it reads what exists and continues from there".to_owned()
        }
        _ => "run the same command again; it reads what exists and continues from there".to_owned(),
    });
    Error { message, ..error }.help(help)
}

impl Work<'_> {
    /// Retries a write until it succeeds or can't succeed.
    pub async fn retried<T, F: Future<Output = Result<T>>>(&self, call: impl Fn() -> F) -> Result<T> {
        let mut tries = Tries::default();
        loop {
            self.executor.guard.allows()?;
            match call().await {
                Ok(value) => {
                    self.heard();
                    return Ok(value);
                }
                Err(error) => tries.again(self, error).await?,
            }
        }
    }

    /// Reads together with other steps that wait for this kind. A failed read says nothing about the resource, so it
    /// is retried.
    pub async fn find(&self, handle: &Handle) -> Result<Option<Found>> {
        let mut tries = Tries { through: self.ours, ..Tries::default() };
        loop {
            match self.shared.pollers.find(&self.step.scope, self.kind, self.handlers, handle).await {
                Ok(found) => {
                    self.heard();
                    return Ok(found);
                }
                Err(error) => tries.again(self, error).await?,
            }
        }
    }
}
