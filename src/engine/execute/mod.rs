//! The executor carries out a plan. One loop owns the state. Steps that are ready run in parallel and report back.
//! Everything that happens is an [`Event`].
//!
//! The executor never decides what is done, only when: order, lanes, retries, waiting. [`run`] starts and ends steps;
//! [`step`] is one step's calls, with [`retry`] after failures and [`wait`] until the resource is ready or gone.

mod executor;
mod pollers;
mod retry;
mod run;
mod shared;
mod step;
mod wait;
mod work;

use std::future::Future;
use std::pin::Pin;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::event::Event;
use super::plan::Plan;
use super::report::Report;
use run::{Ended, Run};

pub use executor::{Chance, Executor, Guard, Stop};

impl Executor {
    /// Executes `plan`. Failures are part of the report.
    pub async fn execute(&self, plan: &Plan) -> Report {
        let begun = self.clock.elapsed();
        let mut run = Run::new(self, plan);
        self.send(Event::Begin { steps: plan.steps.len(), expected: run.schedule.clone().foretell() });
        let shared = run.shared.clone();
        let mut running: FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + Send + '_>>> = FuturesUnordered::new();
        let mut stop = self.stop.clone();
        let mut stopped = Stop::No;
        let mut barred = false;
        loop {
            let asked = *stop.borrow_and_update();
            if asked == Stop::Gently && stopped == Stop::No {
                self.send(Event::Stopping { running: running.len() });
            }
            stopped = asked;
            if stopped == Stop::AtOnce {
                break;
            }
            if stopped == Stop::No && !barred && run.schedule.any_ready() {
                barred = self.guard.allows().is_err();
                if barred {
                    self.send(Event::Stopping { running: running.len() });
                } else {
                    for (i, step, slot, new) in run.start() {
                        let (expected, limit) = self.pace(step);
                        let (address, kind, action) = (step.address.clone(), step.kind, step.action);
                        self.send(Event::Start { step: i, address, kind, action, expected });
                        running.push(Box::pin(slot.hold(self.run(i, step, new, &shared, limit))));
                    }
                }
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                Some(ended) = running.next() => run.take(ended),
                () = run.shared.slots.news.notified() => {}
                Ok(_) = stop.wait_for(|s| *s != stopped) => {}
            }
        }
        // Running steps are abandoned.
        drop(running);
        let took = self.clock.elapsed().saturating_sub(begun);
        self.send(Event::End { took });
        run.report(took, stopped != Stop::No)
    }
}
