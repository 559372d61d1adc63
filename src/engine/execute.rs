//! The executor carries out a plan. One loop owns the state. Steps that are ready run in parallel and report back.
//! Everything that happens is an [`Event`].
//!
//! The executor never decides what is done, only when: order, lanes, retries, waiting.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::sync::watch;

use super::address::Address;
use super::clock::Clock;
use super::error::{Class, Error, Result};
use super::event::{Event, Events};
use super::kind::{Connected, Found, Handle, Handlers, Kind, Made, New, Scope, Status};
use super::pause::{FEWEST_TRIES, LONGEST, Pauses};
use super::plan::{Action, Plan, Step, is_known, next_token, refers_to, token, verb};
use super::report::{Outcome, Report};
use super::schedule::{Job, Schedule};
use super::slots::{self, Slot, Slots};
use super::value::{Outputs, resolve};

/// How the user stops a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    #[default]
    No,
    /// No new step starts. Running steps are completed.
    Gently,
    /// Running steps are abandoned.
    AtOnce,
}

/// Guards writes: decides whether the run may still write. It is asked before each write, so it answers at once and
/// without a call.
pub trait Guard: std::fmt::Debug + Send + Sync {
    /// How long a write that starts now may take.
    ///
    /// # Errors [`Class::Lost`] if no write may start.
    fn allows(&self) -> Result<Duration>;
}

/// For a run without other writers.
impl Guard for () {
    fn allows(&self) -> Result<Duration> {
        Ok(Duration::MAX)
    }
}

/// The source of the jitter between retries. The same seed gives the same jitter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chance(pub u64);

impl Chance {
    /// A number from 0 to below 1, which depends on the step and the attempt.
    fn draw(self, address: &Address, tries: u32) -> f64 {
        let mut hash = DefaultHasher::new();
        (self.0, address, tries).hash(&mut hash);
        (hash.finish() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub struct Executor {
    pub kinds: Connected,
    pub tenancy: String,
    pub clock: Clock,
    /// How many steps of one kind may make calls at the same time. Steps that only wait don't count.
    pub parallelism: usize,
    pub events: Events,
    pub stop: watch::Receiver<Stop>,
    /// If it fails, no new step starts. The caller shows its error.
    pub guard: Arc<dyn Guard>,
    pub chance: Chance,
}

/// The state of a cluster's API server. Until the server has answered one step, no other step tries it, because each
/// attempt may take long.
enum Contact {
    Tried,
    Open,
    Closed(Error),
}

/// True if the cluster's API server can't be reached or denies access.
fn is_closed(error: &Error) -> bool {
    matches!(error.class, Class::Unreachable | Class::Denied)
}

/// Data shared by the steps of a run.
struct Shared {
    /// The scope of the plan's resources.
    scope: Scope,
    pollers: Pollers,
    slots: Arc<Slots>,
    /// By cluster name.
    contacts: Mutex<BTreeMap<String, Contact>>,
}

impl Shared {
    fn contacts(&self) -> MutexGuard<'_, BTreeMap<String, Contact>> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a step may call `cluster`: no step has tried it yet, or it has answered.
    fn may_try(&self, cluster: &str) -> bool {
        !matches!(self.contacts().get(cluster), Some(Contact::Tried | Contact::Closed(_)))
    }

    /// Records that a step calls `cluster`. If no step has tried it before, this is the only one for now.
    fn tries(&self, cluster: &str) {
        self.contacts().entry(cluster.to_owned()).or_insert(Contact::Tried);
    }

    /// Records that `cluster` has answered a step.
    fn heard(&self, cluster: &str) {
        if let Some(contact @ Contact::Tried) = self.contacts().get_mut(cluster) {
            *contact = Contact::Open;
            self.slots.news.notify_one();
        }
    }

    /// Updates the state of a step's cluster after the step. Returns the error if the cluster is closed to us now.
    fn learn(&self, cluster: &str, error: Option<&Error>) -> Option<Error> {
        let mut contacts = self.contacts();
        let contact = contacts.get_mut(cluster)?;
        *contact = match (error, &contact) {
            (Some(e), Contact::Tried) if is_closed(e) => Contact::Closed(e.clone()),
            // One refusal may be about one object only.
            (Some(e), _) if e.class == Class::Unreachable => Contact::Closed(e.clone()),
            _ => Contact::Open,
        };
        match contact {
            Contact::Closed(error) => Some(error.clone()),
            _ => None,
        }
    }
}

/// The result of a step: its id and outputs.
type Ended = (usize, Duration, Result<(String, Outputs)>);

/// The bookkeeping of a run.
struct Run<'a> {
    executor: &'a Executor,
    plan: &'a Plan,
    schedule: Schedule,
    outcomes: Vec<Option<Outcome>>,
    outputs: BTreeMap<Address, Outputs>,
    /// The cluster in which each step works, if any.
    clusters: Vec<Option<String>>,
    shared: Arc<Shared>,
}

impl<'a> Run<'a> {
    fn new(executor: &'a Executor, plan: &'a Plan) -> Self {
        let jobs = plan.steps.iter().map(|step| Job {
            needs: &step.needs,
            expected: executor.pace(step).0,
            lane: executor.lane(step),
            // A kind limits the slots, and a cluster's API server may be closed.
            group: format!("{} {}", step.kind, executor.cluster(step).unwrap_or_default()),
        });
        Self {
            executor,
            plan,
            schedule: Schedule::new(jobs),
            outcomes: vec![None; plan.steps.len()],
            outputs: plan.outputs.clone(),
            clusters: plan.steps.iter().map(|step| executor.cluster(step)).collect(),
            shared: Arc::new(Shared {
                scope: plan.scope.clone(),
                pollers: Pollers::default(),
                slots: Slots::new(executor.parallelism),
                contacts: Mutex::default(),
            }),
        }
    }

    fn cluster(&self, i: usize) -> Option<&str> {
        self.clusters.get(i)?.as_deref()
    }

    /// Takes slots for the steps that may start now, and starts them.
    fn start(&mut self) -> Vec<(usize, &'a Step, Slot, Result<New>)> {
        let Self { schedule, clusters, shared, plan, .. } = self;
        let mut slots = BTreeMap::new();
        let started = schedule.start(|i| {
            let cluster = clusters.get(i).and_then(Option::as_deref);
            if cluster.is_some_and(|cluster| !shared.may_try(cluster)) {
                return false;
            }
            let Some(slot) = plan.steps.get(i).and_then(|step| shared.slots.take(step.kind)) else { return false };
            slots.insert(i, slot);
            cluster.into_iter().for_each(|cluster| shared.tries(cluster));
            true
        });
        let begun = started.into_iter().filter_map(|i| Some((i, self.plan.steps.get(i)?, slots.remove(&i)?)));
        begun.map(|(i, step, slot)| (i, step, slot, self.executor.resolved(step, &self.outputs))).collect()
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
    fn close(&mut self, cluster: &str, error: &Error) {
        let inside: Vec<usize> = (0..self.plan.steps.len())
            .filter(|i| self.cluster(*i) == Some(cluster) && self.schedule.drop(*i))
            .collect();
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
    fn take(&mut self, (i, took, result): Ended) {
        let Some(step) = self.plan.steps.get(i) else { return };
        let (address, action) = (step.address.clone(), step.action);
        let cluster = self.cluster(i).map(str::to_owned);
        let closed = cluster.as_ref().and_then(|c| self.shared.learn(c, result.as_ref().err()));
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
                    _ if cluster.is_some() && is_closed(&error) => Outcome::Blocked { error },
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
        if let (Some(cluster), Some(error)) = (cluster, closed) {
            self.close(&cluster, &error);
        }
    }
}

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
        let ends = run.outcomes.into_iter().enumerate().map(|(i, outcome)| {
            outcome.unwrap_or(if run.schedule.is_started(i) { Outcome::Abandoned } else { Outcome::NotStarted })
        });
        Report {
            lines: plan.steps.iter().zip(ends).map(|(step, outcome)| Report::line(step, outcome)).collect(),
            took,
            interrupted: stopped != Stop::No,
            differs: vec![],
            unconfirmed: vec![],
        }
    }

    /// The cluster in which a step works, if any.
    fn cluster(&self, step: &Step) -> Option<String> {
        let kind = self.kinds.get(step.kind).ok().filter(|k| k.in_cluster())?;
        let state = step.state.as_ref().or(step.found.as_ref().map(|f| &f.state))?;
        kind.host(state).map(str::to_owned)
    }

    fn lane(&self, step: &Step) -> Option<String> {
        let state = step.state.as_ref().or(step.found.as_ref().map(|f| &f.state))?;
        self.kinds.get(step.kind).ok()?.lane(state)
    }

    fn pace(&self, step: &Step) -> (Duration, Duration) {
        self.kinds.get(step.kind).map(|k| k.pace(verb(step.action))).map(|p| (p.expected, p.limit)).unwrap_or_default()
    }

    /// The desired state of a step, with the outputs of its dependencies.
    fn resolved(&self, step: &Step, outputs: &BTreeMap<Address, Outputs>) -> Result<New> {
        let state = step.state.as_ref().ok_or_else(|| Error::bug(format!("{} has no state to send", step.address)))?;
        let state = resolve(state, &|a, o| outputs.get(a)?.get(o).cloned());
        if !is_known(&state) {
            let missing = refers_to(&state).into_iter().map(|a| a.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::bug(format!("{} refers to outputs that don't exist: of {missing}", step.address)));
        }
        let token = token(&self.tenancy, &step.address, step.generation, &state);
        Ok(New { address: step.address.clone(), generation: step.generation, state, token })
    }

    async fn run(&self, i: usize, step: &Step, new: Result<New>, shared: &Shared, limit: Duration) -> Ended {
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
        let handlers = self.kinds.handlers(step.kind, &shared.scope)?;
        let cluster = self.cluster(step);
        let wait =
            Wait { executor: self, i, step, kind, handlers, shared, cluster: cluster.as_deref(), limit, ours: true };
        let before = Wait { ours: false, ..wait };
        match (step.action, &step.found) {
            (Action::Create, _) => {
                let mut new = new?;
                for _ in 0..DEAD_TRIES {
                    let made = self.create(&wait, &new).await?;
                    let id = made.id.clone();
                    match wait.ready(made, &new.state).await {
                        Err(error) if error.class == Class::NotYet && kind.creates_once() => {
                            new.token = next_token(&new.token, &id);
                        }
                        result => return result,
                    }
                }
                let made = self.create(&wait, &new).await?;
                wait.ready(made, &new.state).await
            }
            (Action::Update, Some(found)) => {
                let new = new?;
                // A step of this run may have changed the resource.
                let now = if is_known(&found.state) { None } else { wait.find(&handle(found)).await? };
                let found = now.as_ref().unwrap_or(found);
                if matches!(found.status, Status::Pending(_)) {
                    before.ready(Made { id: found.id.clone(), ..Made::default() }, &found.state).await?;
                }
                let made = self.update(&wait, found, &new).await?;
                wait.ready(made, &new.state).await
            }
            (Action::Wait, Some(found)) => {
                before.ready(Made { id: found.id.clone(), ..Made::default() }, &found.state).await
            }
            (Action::Delete, Some(found)) => {
                let deleting = found.status == Status::Deleting;
                let gone = !deleting && wait.retried(|| handlers.delete(found)).await?;
                if !gone {
                    wait.gone(found).await?;
                }
                wait.retried(|| handlers.deleted(found)).await?;
                Ok((found.id.clone(), Outputs::new()))
            }
            _ => Err(Error::bug(format!("{} has nothing to be changed", step.address))),
        }
    }

    /// Creates the resource. After an unclear answer it looks for the resource before it retries.
    async fn create(&self, wait: &Wait<'_>, new: &New) -> Result<Made> {
        let mut tries = Tries::default();
        loop {
            self.guard.allows()?;
            let error = match wait.handlers.create(new).await {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            if matches!(error.class, Class::Unclear | Class::Exists | Class::NotFound) {
                let taken = error.class == Class::Exists;
                let twice = error.class == Class::Unclear && !wait.kind.creates_once();
                if let Some(found) = wait.made(new, taken || twice).await? {
                    // The lost answer may have left an incomplete resource, which is completed.
                    return self.update(wait, &found, new).await;
                }
                if taken {
                    // The kind may know the owner.
                    return Err(match error.help {
                        Some(_) => error,
                        None => error.help("something of this name exists that isn't ours; rename or remove it, or give it our tags to adopt it"),
                    });
                }
            }
            tries.again(wait, error).await?;
        }
    }

    /// Updates `found` to `new`. After a failed call the resource is read again before a retry, because the call may
    /// have taken effect or the resource may be gone.
    async fn update(&self, wait: &Wait<'_>, found: &Found, new: &New) -> Result<Made> {
        let (mut tries, mut moves) = (Tries::default(), 0);
        let mut found = found.clone();
        loop {
            // With references resolved, there may be no difference.
            let changes = super::diff::changes(&new.state, &found.state, wait.kind.rules());
            if changes.is_empty() && found.status == Status::Ready {
                return Ok(Made { id: found.id, outputs: found.outputs, ready: true });
            }
            self.guard.allows()?;
            let error = match wait.handlers.update(&found, new, &changes).await {
                Ok(made) => return Ok(Made { outputs: merged(&found.outputs, made.outputs), ..made }),
                Err(error) => error,
            };
            let now = match error.class {
                // A failed update would fail again, and one that takes too long is still running. The next run may
                // retry.
                Class::Denied | Class::Input | Class::Usage | Class::Bug | Class::Failed | Class::Timeout => None,
                _ => wait.find(&handle(&found)).await?,
            };
            match now {
                Some(now) if now.state != found.state && moves < 20 => {
                    moves += 1;
                    found = now;
                }
                _ => tries.again(wait, error).await?,
            }
        }
    }

    /// Pauses. If the user stops the run, only `through` continues to the end.
    async fn rest(&self, pause: Duration, through: bool) -> Rest {
        slots::give_back();
        if through {
            self.clock.sleep(pause).await;
            return Rest::Over;
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            Ok(_) = stop.wait_for(|s| *s != Stop::No) => Rest::Stopped,
            () = self.clock.sleep(pause) => Rest::Over,
        }
    }

    fn send(&self, event: Event) {
        // A closed channel is no error, because the report has all results.
        let _ = self.events.send(event);
    }
}

fn handle(found: &Found) -> Handle {
    Handle {
        address: found.address.clone(),
        generation: found.generation,
        id: found.id.clone(),
        state: found.state.clone(),
    }
}

fn merged(old: &Outputs, new: Outputs) -> Outputs {
    let mut all = old.clone();
    all.extend(new);
    all
}

/// How long a read may not show a new resource (EC2 API, "Eventual consistency": usually seconds, at worst minutes).
const LAG: Duration = Duration::from_secs(60);

/// A client token returns the resource that it created, even if someone has deleted that resource since (EC2
/// Developer Guide, "Ensuring idempotency in Amazon EC2 API requests"). This is how many deleted resources are
/// skipped. The next token is derived from the deleted resource, so that a run after a crash uses the same token.
const DEAD_TRIES: usize = 5;

/// Attempts at one call.
#[derive(Default)]
struct Tries {
    count: u32,
    since: Option<Duration>,
    /// Continues even if the user stops the run.
    through: bool,
}

impl Tries {
    /// Waits before the next attempt. Returns the error if there is none.
    async fn again(&mut self, wait: &Wait<'_>, error: Error) -> Result<()> {
        if !is_closed(&error) {
            wait.heard();
        }
        let clock = &wait.executor.clock;
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
            Class::Conflict => wait.limit,
            // AWS takes one or two minutes to delete a load balancer.
            Class::Held => Duration::from_secs(120),
            Class::Throttled => Duration::from_secs(300),
            Class::Unclear => Duration::from_secs(60),
            Class::Unserved => Duration::from_secs(30),
            // The DNS name of a new cluster and our access to it take a moment to become effective. A network without
            // a route to the cluster stays closed.
            Class::Unreachable if wait.kind.in_cluster() => Duration::from_secs(15),
            Class::Denied if wait.kind.in_cluster() => Duration::from_secs(180),
            _ => return Err(error),
        };
        if now.saturating_sub(since) >= patience && self.count >= FEWEST_TRIES {
            return Err(given_up(error, now.saturating_sub(since)));
        }
        let address = wait.step.address.clone();
        // Half of the pause is random, so that steps that failed together don't retry together.
        let jitter = 0.5 + 0.5 * wait.executor.chance.draw(&address, self.count);
        let after = Duration::from_secs_f64((jitter * 1.7_f64.powi(self.count.min(12) as i32)).min(15.0));
        self.count += 1;
        if self.through || *wait.executor.stop.borrow() == Stop::No {
            wait.executor.send(Event::Retry { step: wait.i, address, error: error.clone(), after });
        }
        match wait.executor.rest(after, self.through).await {
            Rest::Over => Ok(()),
            Rest::Stopped => Err(error.help(STOPPED)),
        }
    }
}

/// The help for attempts that the user's stop prevented.
const STOPPED: &str = "the run was stopped before this was tried again: the same command goes on from what it finds";

/// How a pause ended.
enum Rest {
    Over,
    /// The user stopped the run before the pause or during it.
    Stopped,
}

/// `error` with the time that was spent on attempts.
fn given_up(mut error: Error, tried: Duration) -> Error {
    if error.class == Class::NotYetAllowed {
        error.class = Class::Denied;
    }
    let message = format!("{}, tried for {} s", error.message, tried.as_secs());
    let help = error.help.clone().unwrap_or_else(|| match error.class {
        Class::Throttled => "run the same command later: it goes on from what it finds".to_owned(),
        class if class.is_for_good() => {
            "mend what it says, then run the same command: it goes on from what it finds".to_owned()
        }
        _ => "run the same command again: it goes on from what it finds".to_owned(),
    });
    Error { message, ..error }.help(help)
}

/// Waits for one step.
#[derive(Clone, Copy)]
struct Wait<'a> {
    executor: &'a Executor,
    i: usize,
    step: &'a Step,
    kind: &'a Arc<dyn Kind>,
    handlers: &'a Arc<dyn Handlers>,
    shared: &'a Shared,
    /// The cluster in which the step works, if any.
    cluster: Option<&'a str>,
    /// The time limits for calls and for waiting.
    limit: Duration,
    /// This run started what is waited for, so it waits to the end even if the user stops the run.
    ours: bool,
}

impl Wait<'_> {
    /// The step's cluster has answered, so the other steps may call it, too.
    fn heard(&self) {
        self.cluster.into_iter().for_each(|cluster| self.shared.heard(cluster));
    }

    /// Finds the resource of a create call whose answer was lost. `patiently`: as long as reads may not show it yet.
    async fn made(&self, new: &New, patiently: bool) -> Result<Option<Found>> {
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
            let found = self.find(&handle).await?;
            if found.is_some() || !patiently || (clock.elapsed() >= until && pause.count >= FEWEST_TRIES) {
                return Ok(found);
            }
            self.progress(&mut shown, "looking for what may have been made".to_owned());
            if let Rest::Stopped = self.executor.rest(pause.next(clock.elapsed()), false).await {
                return Ok(None);
            }
        }
    }

    /// Retries a write until it succeeds or can't succeed.
    async fn retried<T, F: Future<Output = Result<T>>>(&self, call: impl Fn() -> F) -> Result<T> {
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

    /// Polls until the resource is ready. Returns its id and outputs.
    async fn ready(&self, made: Made, state: &serde_json::Value) -> Result<(String, Outputs)> {
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
                        .help("wait until it is gone, then run the same command"));
                    }
                    Status::Failed { why, .. } => {
                        return Err(Error::new(Class::Failed, format!("{} failed: {why}", found.id))
                            .help("mend the cause, then run the same command: it will be repaired or made again"));
                    }
                },
                None if self.executor.clock.elapsed() > visible_by && pause.count >= FEWEST_TRIES => {
                    let (class, how) = match seen {
                        true => (Class::NotFound, "disappeared while it was being made"),
                        false => (Class::NotYet, "never showed after it was made"),
                    };
                    return Err(Error::new(class, format!("{} {how}", made.id))
                        .help("run the same command again: it will be made anew"));
                }
                None => self.progress(&mut shown, "not visible yet".to_owned()),
            }
            self.pause(&mut pause, deadline, "ready").await?;
        }
    }

    /// Polls until the resource is deleted.
    async fn gone(&self, found: &Found) -> Result<()> {
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
                            .help("remove what holds it, then run the same command"));
                    }
                    _ => self.progress(&mut shown, "deleting".to_owned()),
                },
            }
            self.pause(&mut pause, deadline, "deleted").await?;
        }
    }

    /// Reads together with other steps that wait for this kind. A failed read says nothing about the resource, so it
    /// is retried.
    async fn find(&self, handle: &Handle) -> Result<Option<Found>> {
        let mut tries = Tries { through: self.ours, ..Tries::default() };
        loop {
            match self.shared.pollers.find(self.kind, self.handlers, handle).await {
                Ok(found) => {
                    self.heard();
                    return Ok(found);
                }
                Err(error) => tries.again(self, error).await?,
            }
        }
    }

    fn progress(&self, shown: &mut String, detail: String) {
        if *shown != detail {
            let address = self.step.address.clone();
            self.executor.send(Event::Progress { step: self.i, address, detail: detail.clone() });
            *shown = detail;
        }
    }

    fn is_slow(&self) -> bool {
        self.executor.pace(self.step).0 >= Duration::from_secs(30)
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
            return Err(Error::new(Class::Timeout, format!("it isn't {what} in time"))
                .help("it may still get there: run the same command, which goes on from what it finds"));
        }
        let left = deadline.saturating_sub(now).max(Duration::from_millis(500));
        let mut until = now + pause.next(now);
        // Steps that wait for minutes read at the same moments, so that they share calls.
        if self.is_slow() {
            until = Duration::from_secs((until.as_secs() / 2 + 1) * 2);
        }
        match self.executor.rest((until - now).min(left), self.ours).await {
            Rest::Over => Ok(()),
            Rest::Stopped => Err(Error::new(Class::Timeout, format!("it isn't {what} yet")).help(STOPPED)),
        }
    }
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

/// Collects reads of resources of one kind, so that many waiting steps share one call.
#[derive(Default)]
struct Pollers(Mutex<BTreeMap<&'static str, Queue>>);

type Answer = oneshot::Sender<Result<Option<Found>>>;

#[derive(Default)]
struct Queue {
    busy: bool,
    waiting: Vec<(Handle, Answer)>,
}

impl Pollers {
    async fn find(&self, kind: &Arc<dyn Kind>, handlers: &Arc<dyn Handlers>, handle: &Handle) -> Result<Option<Found>> {
        if kind.finds_one_by_one() {
            return Ok(handlers.find(slice::from_ref(handle)).await?.into_iter().next().flatten());
        }
        let (sender, mut answer) = oneshot::channel();
        let leads = self.with(kind.name(), |queue| {
            queue.waiting.push((handle.clone(), sender));
            !std::mem::replace(&mut queue.busy, true)
        });
        // A step that finds the queue idle reads for all steps in it. Steps that come during that read are served by
        // the next one.
        if !leads {
            return answer.await.unwrap_or_else(|_| Err(Error::bug("nobody answered")));
        }
        loop {
            // Steps that become ready at the same moment share the read.
            tokio::task::yield_now().await;
            let batch = self.with(kind.name(), |queue| {
                queue.busy = !queue.waiting.is_empty();
                std::mem::take(&mut queue.waiting)
            });
            if batch.is_empty() {
                return answer.try_recv().unwrap_or_else(|_| Err(Error::bug("nobody answered")));
            }
            let handles: Vec<Handle> = batch.iter().map(|(h, _)| h.clone()).collect();
            match handlers.find(&handles).await {
                Ok(found) => {
                    let mut found = found.into_iter();
                    for (_, answer) in batch {
                        let _ = answer.send(Ok(found.next().flatten()));
                    }
                }
                Err(error) => {
                    for (_, answer) in batch {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn with<T>(&self, kind: &'static str, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(queues.entry(kind).or_default())
    }
}
