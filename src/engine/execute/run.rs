//! The bookkeeping of a run: which steps may start, and what the end of a step means for the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::executor::Executor;
use super::shared::{Shared, is_closed};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::event::Event;
use crate::engine::kind::New;
use crate::engine::plan::{Action, Plan, Step, is_known, refers_to, token};
use crate::engine::report::{Outcome, Report};
use crate::engine::schedule::{Job, Schedule};
use crate::engine::slots::Slot;
use crate::engine::value::Outputs;

/// The result of a step: its id and outputs.
pub(super) type Ended = (usize, Duration, Result<(String, Outputs)>);

/// The bookkeeping of a run.
pub(super) struct Run<'a> {
    executor: &'a Executor,
    plan: &'a Plan,
    pub schedule: Schedule,
    outcomes: Vec<Option<Outcome>>,
    outputs: BTreeMap<Address, Outputs>,
    /// The cluster in which each step works, if any.
    hosts: Vec<Option<String>>,
    pub shared: Arc<Shared>,
}

impl<'a> Run<'a> {
    pub fn new(executor: &'a Executor, plan: &'a Plan) -> Self {
        let jobs = plan.steps.iter().map(|step| Job {
            needs: &step.needs,
            expected: executor.pace(step).0,
            lane: executor.lane(step),
            // A kind limits the slots, and a cluster's API server may be closed.
            group: format!("{} {} {}", step.scope, step.kind, executor.host(step).unwrap_or_default()),
        });
        Self {
            executor,
            plan,
            schedule: Schedule::new(jobs),
            outcomes: vec![None; plan.steps.len()],
            outputs: plan.outputs.clone(),
            hosts: plan.steps.iter().map(|step| executor.host(step)).collect(),
            shared: Shared::new(executor.parallelism),
        }
    }

    fn host(&self, i: usize) -> Option<&str> {
        self.hosts.get(i)?.as_deref()
    }

    /// Takes slots for the steps that may start now, and starts them.
    pub fn start(&mut self) -> Vec<(usize, &'a Step, Slot, Result<New>)> {
        let Self { schedule, hosts, shared, plan, .. } = self;
        let mut slots = BTreeMap::new();
        let started = schedule.start(|i| {
            let host = hosts.get(i).and_then(Option::as_deref);
            if host.is_some_and(|host| !shared.may_try(host)) {
                return false;
            }
            let Some(slot) = plan.steps.get(i).and_then(|step| shared.slots.take(&step.scope, step.kind)) else {
                return false;
            };
            slots.insert(i, slot);
            host.into_iter().for_each(|host| shared.tries(host));
            true
        });
        let begun = started.into_iter().filter_map(|i| Some((i, self.plan.steps.get(i)?, slots.remove(&i)?)));
        begun.map(|(i, step, slot)| (i, step, slot, self.resolved(step))).collect()
    }

    fn end(&mut self, i: usize, outcome: Outcome) {
        let met = matches!(outcome, Outcome::Done | Outcome::Unmet { .. });
        if let Some(known) = self.outcomes.get_mut(i) {
            *known = Some(outcome);
        }
        if met {
            return self.schedule.done(i);
        }
        for dropped in self.schedule.failed(i) {
            self.skip(dropped);
        }
    }

    /// The step can't run, because a dependency failed.
    fn skip(&mut self, i: usize) {
        let Some(step) = self.plan.steps.get(i) else { return };
        let because = step.needs.iter().find(|n| {
            let outcome = self.outcomes.get(**n).and_then(Option::as_ref);
            matches!(outcome, Some(Outcome::Failed { .. } | Outcome::Blocked { .. } | Outcome::Skipped { .. }))
        });
        let Some(because) = because.and_then(|n| self.plan.steps.get(*n)).map(|s| s.address.clone()) else { return };
        self.executor.send(Event::Skipped {
            step: i,
            address: step.address.clone(),
            action: step.action,
            because: because.clone(),
        });
        if let Some(known) = self.outcomes.get_mut(i) {
            *known = Some(Outcome::Skipped { because });
        }
    }

    /// Ends the remaining steps in a cluster that is closed to us.
    fn close(&mut self, host: &str, error: &Error) {
        let inside: Vec<usize> =
            (0..self.plan.steps.len()).filter(|i| self.host(*i) == Some(host) && self.schedule.drop(*i)).collect();
        for i in &inside {
            let Some(step) = self.plan.steps.get(*i) else { continue };
            let (address, error) = (step.address.clone(), error.clone());
            let (action, took) = (step.action, Duration::ZERO);
            self.executor.send(Event::Blocked { step: *i, address, action, error: error.clone(), took });
            if let Some(known) = self.outcomes.get_mut(*i) {
                *known = Some(Outcome::Blocked { error });
            }
        }
        for i in inside {
            for dropped in self.schedule.failed(i) {
                self.skip(dropped);
            }
        }
    }

    /// Records the end of a step.
    pub fn take(&mut self, (i, took, result): Ended) {
        let Some(step) = self.plan.steps.get(i) else { return };
        let (address, action) = (step.address.clone(), step.action);
        let host = self.host(i).map(str::to_owned);
        let closed = host.as_ref().and_then(|c| self.shared.learn(c, result.as_ref().err()));
        match result {
            Ok((id, made)) => {
                if action != Action::Delete {
                    self.outputs.insert(address.clone(), made);
                }
                self.executor.send(Event::Done { step: i, address, action, id, took });
                self.end(i, Outcome::Done);
            }
            Err(error) => {
                let event = error.clone();
                let outcome = match error.class {
                    _ if host.is_some() && is_closed(&error) => Outcome::Blocked { error },
                    Class::Unserved => Outcome::Unmet { error },
                    _ => Outcome::Failed { error },
                };
                self.executor.send(match outcome {
                    Outcome::Failed { .. } => Event::Failed { step: i, address, action, error: event, took },
                    _ => Event::Blocked { step: i, address, action, error: event, took },
                });
                self.end(i, outcome);
            }
        }
        if let (Some(host), Some(error)) = (host, closed) {
            self.close(&host, &error);
        }
    }

    /// The desired state of a step, with the outputs of its dependencies.
    fn resolved(&self, step: &Step) -> Result<New> {
        let state = step.state.as_ref().ok_or_else(|| Error::bug(format!("{} has no state to send", step.address)))?;
        let state = state.resolve(&|a, o| self.outputs.get(a)?.get(o).cloned());
        if !is_known(&state) {
            let missing = refers_to(&state).into_iter().map(|a| a.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::bug(format!("{} refers to outputs that don't exist: of {missing}", step.address)));
        }
        let token = token(&self.executor.tenancy, &step.address, step.generation, &state);
        Ok(New { address: step.address.clone(), generation: step.generation, state, token })
    }

    /// The report after the last step. Steps without an outcome weren't started or were abandoned.
    pub fn report(self, took: Duration, interrupted: bool) -> Report {
        let ends = self.outcomes.into_iter().enumerate().map(|(i, outcome)| {
            outcome.unwrap_or(if self.schedule.is_started(i) { Outcome::Abandoned } else { Outcome::NotStarted })
        });
        Report {
            lines: self.plan.steps.iter().zip(ends).map(|(step, outcome)| Report::line(step, outcome)).collect(),
            took,
            interrupted,
            differs: vec![],
            unconfirmed: vec![],
        }
    }
}
