//! The calls of one step.

use std::time::Duration;

use super::executor::Executor;
use super::retry::Tries;
use super::run::Ended;
use super::shared::Shared;
use super::wait::merged;
use super::work::{Work, handle};
use crate::engine::diff;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Found, Made, New, Status};
use crate::engine::plan::{Action, Step, is_known, next_token};
use crate::engine::value::Outputs;

/// A client token returns the resource that it created, even if someone has deleted that resource since (EC2
/// Developer Guide, "Ensuring idempotency in Amazon EC2 API requests"). This is how many deleted resources are
/// skipped. The next token is derived from the deleted resource, so that a run after a crash uses the same token.
const DEAD_TRIES: usize = 5;

impl Executor {
    pub(super) async fn run(&self, i: usize, step: &Step, new: Result<New>, shared: &Shared, limit: Duration) -> Ended {
        let begun = self.clock.elapsed();
        let result = self.carry_out(i, step, new, shared, limit).await;
        (i, self.clock.elapsed().saturating_sub(begun), result)
    }

    async fn carry_out(
        &self,
        i: usize,
        step: &Step,
        new: Result<New>,
        shared: &Shared,
        limit: Duration,
    ) -> Result<(String, Outputs)> {
        let kind = self.kinds.get(step.kind)?;
        let handlers = self.kinds.handlers(step.kind, &step.scope)?;
        let host = self.host(step);
        let work = Work { executor: self, i, step, kind, handlers, shared, host: host.as_deref(), limit, ours: true };
        let before = Work { ours: false, ..work };
        match (step.action, &step.found) {
            (Action::Create, _) => {
                let mut new = new?;
                for _ in 0..DEAD_TRIES {
                    let made = work.create(&new).await?;
                    let id = made.id.clone();
                    match work.ready(made, &new.state).await {
                        Err(error) if error.class == Class::NotYet && kind.creates_once() => {
                            new.token = next_token(&new.token, &id);
                        }
                        result => return result,
                    }
                }
                let made = work.create(&new).await?;
                work.ready(made, &new.state).await
            }
            (Action::Update, Some(found)) => {
                let new = new?;
                // A step of this run may have changed the resource.
                let now = if is_known(&found.state) { None } else { work.find(&handle(found)).await? };
                let found = now.as_ref().unwrap_or(found);
                if matches!(found.status, Status::Pending(_)) {
                    before.ready(Made { id: found.id.clone(), ..Made::default() }, &found.state).await?;
                }
                let made = work.update(found, &new).await?;
                work.ready(made, &new.state).await
            }
            (Action::Wait, Some(found)) => {
                before.ready(Made { id: found.id.clone(), ..Made::default() }, &found.state).await
            }
            (Action::Delete, Some(found)) => {
                let deleting = found.status == Status::Deleting;
                let gone = !deleting && work.retried(|| handlers.delete(found)).await?;
                if !gone {
                    work.gone(found).await?;
                }
                work.retried(|| handlers.deleted(found)).await?;
                Ok((found.id.clone(), Outputs::new()))
            }
            _ => Err(Error::bug(format!("{} has no resource to update", step.address))),
        }
    }
}

impl Work<'_> {
    /// Creates the resource. After an unclear answer it looks for the resource before it retries.
    async fn create(&self, new: &New) -> Result<Made> {
        let (mut tries, mut unclear) = (Tries::default(), false);
        loop {
            self.executor.guard.allows()?;
            let error = match self.handlers.create(new).await {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            // A request without an answer may take effect after the look for its resource. Then AWS may refuse the next
            // one because of that resource, such as a second subnet with the same CIDR block.
            let refused = unclear && matches!(error.class, Class::Invalid | Class::Quota);
            unclear |= error.class == Class::Unclear;
            if refused || matches!(error.class, Class::Unclear | Class::Exists | Class::NotFound) {
                let taken = error.class == Class::Exists;
                let twice = error.class == Class::Unclear && !self.kind.creates_once();
                if let Some(found) = self.made(new, taken || twice || refused).await? {
                    // The lost answer may have left an incomplete resource, which is completed.
                    return self.update(&found, new).await;
                }
                if taken {
                    // The kind may know the owner.
                    return Err(match error.help {
                        Some(_) => error,
                        None => error.help("a resource with this name exists, but doesn't have the tenancy's tags; rename or delete it, or add the tags to adopt it"),
                    });
                }
            }
            tries.again(self, error).await?;
        }
    }

    /// Updates `found` to `new`. After a failed call the resource is read again before a retry, because the call may
    /// have taken effect or the resource may be gone.
    async fn update(&self, found: &Found, new: &New) -> Result<Made> {
        let (mut tries, mut moves) = (Tries::default(), 0);
        let mut found = found.clone();
        loop {
            // With references resolved, there may be no difference.
            let changes = diff::changes(&new.state, &found.state, self.kind.rules());
            if changes.is_empty() && found.status == Status::Ready {
                return Ok(Made { id: found.id, outputs: found.outputs, ready: true });
            }
            self.executor.guard.allows()?;
            let error = match self.handlers.update(&found, new, &changes).await {
                Ok(made) => return Ok(Made { outputs: merged(&found.outputs, made.outputs), ..made }),
                Err(error) => error,
            };
            let now = match error.class {
                // A failed update would fail again, and one that takes too long is still running. The next run may
                // retry.
                Class::Denied | Class::Input | Class::Usage | Class::Bug | Class::Failed | Class::Timeout => None,
                _ => self.find(&handle(&found)).await?,
            };
            match now {
                Some(now) if now.state != found.state && moves < 20 => {
                    moves += 1;
                    found = now;
                }
                _ => tries.again(self, error).await?,
            }
        }
    }
}
