//! Waiting for a resource: until it is found, ready or gone.

use std::time::Duration;

use super::executor::Rest;
use super::retry::{LAG, STOPPED};
use super::work::{Work, handle};
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Found, Handle, Made, New, Status};
use crate::engine::packed::Packed;
use crate::engine::pause::{FEWEST_TRIES, LONGEST, Pauses};
use crate::engine::slots;
use crate::engine::value::Outputs;

impl Work<'_> {
    /// Finds the resource of a create call whose answer was lost. `patiently`: as long as reads may not show it yet.
    pub async fn made(&self, new: &New, patiently: bool) -> Result<Option<Found>> {
        let handle = Handle {
            address: new.address.clone(),
            generation: new.generation,
            id: String::new(),
            state: new.state.clone(),
        };
        let clock = &self.executor.clock;
        let mut shown = String::new();
        let mut pause = Pause::default();
        let until = clock.elapsed() + LAG;
        loop {
            let asked = clock.elapsed();
            let found = self.find(&handle).await?;
            if found.is_some() || !patiently || (asked >= until && pause.count >= FEWEST_TRIES) {
                return Ok(found);
            }
            self.progress(&mut shown, "looking for a resource that a lost answer may have created".to_owned());
            if let Rest::Stopped = self.executor.rest(pause.next(clock.elapsed()), false).await {
                return Ok(None);
            }
        }
    }

    /// Polls until the resource is ready. Returns its id and outputs.
    pub async fn ready(&self, made: Made, state: &Packed) -> Result<(String, Outputs)> {
        if made.ready {
            return Ok((made.id, made.outputs));
        }
        if self.ours {
            self.heard();
        }
        slots::give_back();
        let handle = Handle {
            address: self.step.address.clone(),
            generation: self.step.generation,
            id: made.id.clone(),
            state: state.clone(),
        };
        let mut shown = String::new();
        let mut pause = self.pauses();
        let mut seen = false;
        // A read may not show a new resource yet.
        let visible_by = self.executor.clock.elapsed() + LAG;
        let deadline = self.executor.clock.elapsed() + self.limit;
        // An operation that takes minutes needs no immediate read.
        if self.ours && self.is_slow() {
            self.pause(&mut pause, deadline, "ready").await?;
        }
        loop {
            let asked = self.executor.clock.elapsed();
            let now = self.find(&handle).await?;
            seen |= now.is_some();
            match now {
                Some(found) => match found.status {
                    Status::Ready => return Ok((found.id.clone(), merged(&made.outputs, found.outputs))),
                    Status::Pending(detail) => self.progress(&mut shown, detail),
                    Status::Deleting => {
                        return Err(Error::new(
                            Class::Failed,
                            format!("{} is being deleted by someone else", found.id),
                        )
                        .help("wait until it is deleted, then run the same command"));
                    }
                    Status::Failed { why, .. } => {
                        return Err(Error::new(Class::Failed, format!("{} failed: {why}", found.id)).help(
                            "correct the cause, then run the same command; it repairs the resource or creates it again",
                        ));
                    }
                },
                None if asked > visible_by && pause.count >= FEWEST_TRIES => {
                    let (class, how) = match seen {
                        true => (Class::NotFound, "disappeared during its creation"),
                        false => (Class::NotYet, "couldn't be found after its creation"),
                    };
                    return Err(Error::new(class, format!("{} {how}", made.id))
                        .help("run the same command; it creates the resource again"));
                }
                None => self.progress(&mut shown, "not visible yet".to_owned()),
            }
            self.pause(&mut pause, deadline, "ready").await?;
        }
    }

    /// Polls until the resource is deleted.
    pub async fn gone(&self, found: &Found) -> Result<()> {
        slots::give_back();
        let handle = handle(found);
        let mut shown = String::new();
        let mut pause = self.pauses();
        let deadline = self.executor.clock.elapsed() + self.limit;
        loop {
            match self.find(&handle).await? {
                None => return Ok(()),
                Some(left) => match left.status {
                    Status::Failed { why, .. } => {
                        return Err(Error::new(Class::Failed, format!("{} can't be deleted: {why}", left.id))
                            .help("remove the cause, then run the same command"));
                    }
                    _ => self.progress(&mut shown, "deleting".to_owned()),
                },
            }
            self.pause(&mut pause, deadline, "deleted").await?;
        }
    }

    fn pauses(&self) -> Pause {
        let around = self.is_slow().then(|| {
            let now = self.executor.clock.elapsed();
            (now, now + self.executor.pace(self.step).0)
        });
        Pause { around, ..Pause::default() }
    }

    async fn pause(&self, pause: &mut Pause, deadline: Duration, what: &str) -> Result<()> {
        let now = self.executor.clock.elapsed();
        // A slow answer must not count as a slow resource.
        if now >= deadline && pause.count >= FEWEST_TRIES {
            return Err(Error::new(Class::Timeout, format!("the resource wasn't {what} in time"))
                .help("the operation may still succeed; run the same command, which continues to wait"));
        }
        let left = deadline.saturating_sub(now).max(Duration::from_millis(500));
        let mut until = now + pause.next(now);
        // Steps that wait for minutes read at the same moments, so that they share calls.
        if self.is_slow() {
            until = Duration::from_secs((until.as_secs() / 2 + 1) * 2);
        }
        match self.executor.rest((until - now).min(left), self.ours).await {
            Rest::Over => Ok(()),
            Rest::Stopped => Err(Error::new(Class::Timeout, format!("the resource isn't {what} yet")).help(STOPPED)),
        }
    }
}

pub(super) fn merged(old: &Outputs, new: Outputs) -> Outputs {
    let mut all = old.clone();
    all.extend(new);
    all
}

/// Around the expected end, the pauses are short.
#[derive(Default)]
struct Pause {
    pauses: Pauses,
    count: u32,
    /// The start, and the expected end.
    around: Option<(Duration, Duration)>,
}

impl Pause {
    fn next(&mut self, now: Duration) -> Duration {
        self.count += 1;
        let Some((begun, end)) = self.around else { return self.pauses.next_length() };
        let nearest = now.abs_diff(begun).min(now.abs_diff(end));
        (nearest / 2).clamp(Duration::from_secs(2), LONGEST)
    }
}
