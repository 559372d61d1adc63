//! The executor: carries out a plan. One loop owns the state; steps that are
//! ready run in parallel and report back; everything is an [`Event`].
//!
//! It makes no choices about what to do, only about when: order, lanes,
//! retries, waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::sync::watch;

use super::address::Address;
use super::clock::Clock;
use super::error::{Class, Error, Result};
use super::event::{Event, Events};
use super::kind::{Found, Handle, Kind, Made, New, Registry, Status};
use super::plan::{Action, Plan, Step, is_known, refers_to, token, verb};
use super::report::{Outcome, Report};
use super::value::{Outputs, resolve};

/// How a run is stopped: nothing new starts after [`Stop::Gently`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    #[default]
    No,
    Gently,
}

/// Whether the run may still write. Asked before each write, so it answers at
/// once, from what it knows.
pub trait Guard: Send + Sync {
    fn check(&self) -> Result<()>;
}

/// Nobody else can write.
impl Guard for () {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Where the jitter between retries comes from: the same seed gives the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chance(pub u64);

impl Chance {
    /// From 0 to below 1, another for each try of each step.
    fn draw(self, address: &Address, tries: u32) -> f64 {
        let mut hash = DefaultHasher::new();
        (self.0, address, tries).hash(&mut hash);
        (hash.finish() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub struct Executor {
    pub kinds: Registry,
    pub tenancy: String,
    pub clock: Clock,
    /// Steps at a time.
    pub parallelism: usize,
    pub events: Events,
    pub stop: watch::Receiver<Stop>,
    /// When it fails, nothing new starts. Its error is for the caller to show.
    pub guard: Arc<dyn Guard>,
    pub chance: Chance,
}

/// What is known of a cluster's API server. Until one step got through, no
/// other tries: each may wait for long.
enum Contact {
    Tried,
    Open,
    Closed(Error),
}

impl Contact {
    fn learn(&mut self, error: Option<&Error>) {
        *self = match (error, &self) {
            (Some(e), Self::Tried) if is_closed(e) => Self::Closed(e.clone()),
            // A single refusal may be about a single object.
            (Some(e), _) if e.class == Class::Unreachable => Self::Closed(e.clone()),
            _ => Self::Open,
        };
    }
}

/// True if a cluster's API server can't be reached, or doesn't let us in.
fn is_closed(error: &Error) -> bool {
    matches!(error.class, Class::Unreachable | Class::Denied)
}

/// How a step ended: its id and outputs.
type Ended = (usize, Duration, Result<(String, Outputs)>);

impl Executor {
    /// Carries out `plan`. Failures are in the report, not an `Err`.
    pub async fn execute(&self, plan: &Plan) -> Report {
        let begun = self.clock.elapsed();
        self.send(Event::Begin { steps: plan.steps.len(), expected: self.expected(plan) });
        let pollers = Pollers::default();
        let mut outputs = plan.outputs.clone();
        let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
        let mut started: BTreeSet<usize> = BTreeSet::new();
        let mut lanes: BTreeSet<String> = BTreeSet::new();
        let mut contacts: BTreeMap<String, Contact> = BTreeMap::new();
        let mut running: FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + Send + '_>>> = FuturesUnordered::new();
        let mut stop = self.stop.clone();
        let mut stopping = false;
        let mut barred = false;
        loop {
            self.close(plan, &mut outcomes, &started, &contacts);
            self.skip(plan, &mut outcomes, &started);
            if !stopping && !barred {
                for (i, step) in plan.steps.iter().enumerate() {
                    if running.len() >= self.parallelism.max(1) {
                        break;
                    }
                    let ready = !started.contains(&i)
                        && !outcomes.contains_key(&i)
                        && step
                            .needs
                            .iter()
                            .all(|n| matches!(outcomes.get(n), Some(Outcome::Done | Outcome::Unmet { .. })));
                    let lane = self.lane(step);
                    if !ready || lane.as_ref().is_some_and(|l| lanes.contains(l)) {
                        continue;
                    }
                    if let Some(cluster) = self.cluster(step) {
                        match contacts.get(&cluster) {
                            Some(Contact::Tried) => continue,
                            Some(_) => {}
                            None => drop(contacts.insert(cluster, Contact::Tried)),
                        }
                    }
                    if self.guard.check().is_err() {
                        barred = true;
                        self.send(Event::Stopping { running: running.len() });
                        break;
                    }
                    lanes.extend(lane);
                    started.insert(i);
                    running.push(Box::pin(self.run(i, step, outputs.clone(), &pollers)));
                }
            }
            if running.is_empty() {
                break;
            }
            let ended = tokio::select! {
                ended = running.next() => ended,
                changed = stop.changed(), if !stopping => {
                    stopping = changed.is_ok() && *stop.borrow() == Stop::Gently;
                    if stopping {
                        self.send(Event::Stopping { running: running.len() });
                    }
                    continue;
                }
            };
            let Some((i, took, result)) = ended else { break };
            let Some(step) = plan.steps.get(i) else { continue };
            if let Some(lane) = self.lane(step) {
                lanes.remove(&lane);
            }
            let (address, action) = (step.address.clone(), step.action);
            if let Some(contact) = self.cluster(step).and_then(|c| contacts.get_mut(&c)) {
                contact.learn(result.as_ref().err());
            }
            match result {
                Ok((id, made)) => {
                    if action != Action::Delete {
                        outputs.insert(address.clone(), made);
                    }
                    self.send(Event::Done { step: i, address, action, id, took });
                    outcomes.insert(i, Outcome::Done);
                }
                Err(error) => {
                    let event = error.clone();
                    let outcome = match error.class {
                        _ if self.cluster(step).is_some() && is_closed(&error) => Outcome::Blocked { error },
                        Class::Unserved => Outcome::Unmet { error },
                        _ => Outcome::Failed { error },
                    };
                    self.send(match outcome {
                        Outcome::Failed { .. } => Event::Failed { step: i, address, action, error: event, took },
                        _ => Event::Blocked { step: i, address, action, error: event, took },
                    });
                    outcomes.insert(i, outcome);
                }
            }
        }
        let took = self.clock.elapsed().saturating_sub(begun);
        self.send(Event::End { took });
        Report {
            lines: plan
                .steps
                .iter()
                .enumerate()
                .map(|(i, step)| Report::line(step, outcomes.remove(&i).unwrap_or(Outcome::NotStarted)))
                .collect(),
            took,
            interrupted: stopping,
            differs: vec![],
        }
    }

    /// Marks what can't run any more: dependents of failed, blocked and skipped
    /// ones.
    fn skip(&self, plan: &Plan, outcomes: &mut BTreeMap<usize, Outcome>, started: &BTreeSet<usize>) {
        loop {
            let next = plan.steps.iter().enumerate().find_map(|(i, step)| {
                if started.contains(&i) || outcomes.contains_key(&i) {
                    return None;
                }
                let failed = step.needs.iter().find(|n| {
                    let outcome = outcomes.get(n);
                    matches!(outcome, Some(Outcome::Failed { .. } | Outcome::Blocked { .. } | Outcome::Skipped { .. }))
                });
                Some((i, failed.and_then(|n| plan.steps.get(*n))?.address.clone()))
            });
            let Some((i, because)) = next else { return };
            if let Some(step) = plan.steps.get(i) {
                self.send(Event::Skipped {
                    step: i,
                    address: step.address.clone(),
                    action: step.action,
                    because: because.clone(),
                });
            }
            outcomes.insert(i, Outcome::Skipped { because });
        }
    }

    /// Ends what is still to be done in clusters that are closed to us.
    fn close(
        &self,
        plan: &Plan,
        outcomes: &mut BTreeMap<usize, Outcome>,
        started: &BTreeSet<usize>,
        contacts: &BTreeMap<String, Contact>,
    ) {
        if !contacts.values().any(|c| matches!(c, Contact::Closed(_))) {
            return;
        }
        for (i, step) in plan.steps.iter().enumerate() {
            if started.contains(&i) || outcomes.contains_key(&i) {
                continue;
            }
            let contact = self.cluster(step).and_then(|c| contacts.get(&c));
            let Some(Contact::Closed(error)) = contact else { continue };
            let (address, error) = (step.address.clone(), error.clone());
            let (action, took) = (step.action, Duration::ZERO);
            self.send(Event::Blocked { step: i, address, action, error: error.clone(), took });
            outcomes.insert(i, Outcome::Blocked { error });
        }
    }

    /// The cluster that a step works inside of.
    fn cluster(&self, step: &Step) -> Option<String> {
        self.kinds.get(step.kind).ok().filter(|k| k.in_cluster())?;
        let state = step.state.as_ref().or(step.found.as_ref().map(|f| &f.state))?;
        state.get("cluster")?.as_str().map(str::to_owned)
    }

    fn lane(&self, step: &Step) -> Option<String> {
        let state = step.state.as_ref().or(step.found.as_ref().map(|f| &f.state))?;
        self.kinds.get(step.kind).ok()?.lane(state)
    }

    /// The longest chain of expected durations.
    fn expected(&self, plan: &Plan) -> Duration {
        let mut ends: Vec<Duration> = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let begin = step.needs.iter().filter_map(|n| ends.get(*n)).max().copied().unwrap_or_default();
            ends.push(begin + self.pace(step).0);
        }
        ends.into_iter().max().unwrap_or_default()
    }

    fn pace(&self, step: &Step) -> (Duration, Duration) {
        self.kinds.get(step.kind).map(|k| k.pace(verb(step.action))).map(|p| (p.expected, p.limit)).unwrap_or_default()
    }

    async fn run(&self, i: usize, step: &Step, outputs: BTreeMap<Address, Outputs>, pollers: &Pollers) -> Ended {
        let begun = self.clock.elapsed();
        let (expected, limit) = self.pace(step);
        self.send(Event::Start {
            step: i,
            address: step.address.clone(),
            kind: step.kind,
            action: step.action,
            expected,
        });
        let result = self.carry_out(i, step, &outputs, pollers, limit).await;
        (i, self.clock.elapsed().saturating_sub(begun), result)
    }

    async fn carry_out(
        &self,
        i: usize,
        step: &Step,
        outputs: &BTreeMap<Address, Outputs>,
        pollers: &Pollers,
        limit: Duration,
    ) -> Result<(String, Outputs)> {
        let kind = self.kinds.get(step.kind)?;
        let wait = Wait { executor: self, i, step, kind, pollers, limit, ours: true };
        let before = Wait { ours: false, ..wait };
        let new = || -> Result<New> {
            let state =
                step.state.as_ref().ok_or_else(|| Error::bug(format!("{} has no state to send", step.address)))?;
            let state = resolve(state, &|a, o| outputs.get(a)?.get(o).cloned());
            if !is_known(&state) {
                let missing = refers_to(&state).into_iter().map(|a| a.to_string()).collect::<Vec<_>>().join(", ");
                return Err(Error::bug(format!("{} refers to outputs that don't exist: of {missing}", step.address)));
            }
            let token = token(&self.tenancy, &step.address, step.generation, &state);
            Ok(New { address: step.address.clone(), generation: step.generation, state, token })
        };
        match (step.action, &step.found) {
            (Action::Create, _) => {
                let new = new()?;
                let made = self.create(&wait, &new).await?;
                wait.ready(made, &new.state).await
            }
            (Action::Update, Some(found)) => {
                let new = new()?;
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
                let gone = !deleting && wait.retried(|| kind.delete(found)).await?;
                if !gone {
                    wait.gone(found).await?;
                }
                wait.retried(|| kind.deleted(found)).await?;
                Ok((found.id.clone(), Outputs::new()))
            }
            _ => Err(Error::bug(format!("{} has nothing to be changed", step.address))),
        }
    }

    /// Creates. After an unclear answer it looks for what may have been made
    /// before it tries again.
    async fn create(&self, wait: &Wait<'_>, new: &New) -> Result<Made> {
        let mut tries = Tries::default();
        loop {
            self.guard.check()?;
            let error = match wait.kind.create(new).await {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            if matches!(error.class, Class::Unclear | Class::Exists | Class::NotFound) {
                let taken = error.class == Class::Exists;
                let twice = error.class == Class::Unclear && !wait.kind.creates_once();
                if let Some(found) = wait.made(new, taken || twice).await? {
                    // What the lost answer left half-made is made whole.
                    return self.update(wait, &found, new).await;
                }
                if taken {
                    return Err(error.help("something of this name exists that isn't ours; rename or remove it, or give it our tags to adopt it"));
                }
            }
            tries.again(wait, error).await?;
        }
    }

    /// Brings `found` to `new`. What a failed call did all the same is looked
    /// at before it is tried again: what it was about may not be there any
    /// more.
    async fn update(&self, wait: &Wait<'_>, found: &Found, new: &New) -> Result<Made> {
        let (mut tries, mut moves) = (Tries::default(), 0);
        let mut found = found.clone();
        loop {
            // With references resolved, a change may turn out to be none.
            let changes = super::diff::changes(&new.state, &found.state, wait.kind.rules());
            if changes.is_empty() && found.status == Status::Ready {
                return Ok(Made { id: found.id, outputs: found.outputs, ready: true });
            }
            self.guard.check()?;
            let error = match wait.kind.update(&found, new, &changes).await {
                Ok(made) => return Ok(Made { outputs: merged(&found.outputs, made.outputs), ..made }),
                Err(error) => error,
            };
            let now = match error.class {
                // An update that failed fails again, and one that takes too long is still there: the next run may try.
                Class::Denied | Class::Input | Class::Bug | Class::Failed | Class::Timeout => None,
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

    /// Pauses; only `through` to the end if the user stops the run.
    async fn rest(&self, pause: Duration, through: bool) -> Rest {
        if through {
            self.clock.sleep(pause).await;
            return Rest::Over;
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            Ok(_) = stop.wait_for(|s| *s == Stop::Gently) => Rest::Stopped,
            () = self.clock.sleep(pause) => Rest::Over,
        }
    }

    fn send(&self, event: Event) {
        // Nobody listening is fine: the report has it all.
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

/// For how long a read may not show what was just made (EC2 API, "Eventual
/// consistency": some minutes at worst, seconds as a rule).
const LAG: Duration = Duration::from_secs(60);

/// A slow answer uses up time, not tries.
const FEWEST_TRIES: u32 = 6;

/// Attempts at one call.
#[derive(Default)]
struct Tries {
    count: u32,
    since: Option<Duration>,
    /// Goes on even when the user stops the run.
    through: bool,
}

impl Tries {
    /// Waits before the next attempt, or gives the error back if there is to
    /// be none.
    async fn again(&mut self, wait: &Wait<'_>, error: Error) -> Result<()> {
        let clock = &wait.executor.clock;
        let now = clock.elapsed();
        let since = *self.since.get_or_insert(now);
        // IAM propagates within seconds, at worst minutes; another update of
        // the same cluster may take as long as the step itself may.
        let patience = match error.class {
            Class::NotYet => Duration::from_secs(180),
            // Reads and checks may not know yet what was just made.
            Class::NotFound => LAG,
            Class::Conflict => wait.limit,
            // Load balancers take a minute or two to go.
            Class::Held => Duration::from_secs(120),
            Class::Throttled => Duration::from_secs(300),
            Class::Unclear => Duration::from_secs(60),
            Class::Unserved => Duration::from_secs(30),
            // A new cluster's name and our way into it take a moment to be
            // known everywhere; a network that isn't ours stays closed.
            Class::Unreachable if wait.kind.in_cluster() => Duration::from_secs(15),
            Class::Denied if wait.kind.in_cluster() => Duration::from_secs(180),
            _ => return Err(error),
        };
        if now.saturating_sub(since) >= patience && self.count >= FEWEST_TRIES {
            return Err(given_up(error, now.saturating_sub(since)));
        }
        let address = wait.step.address.clone();
        // Half of it by chance, so that those who failed together don't come
        // back together.
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

/// For what was still to be tried or waited for when the user stopped the run.
const STOPPED: &str = "the run was stopped before this was tried again: the same command goes on from what it finds";

/// How a pause ended.
enum Rest {
    Over,
    /// The user stopped the run, before the pause or during it.
    Stopped,
}

/// `error`, with how long it was tried.
fn given_up(error: Error, tried: Duration) -> Error {
    let message = format!("{}, tried for {} s", error.message, tried.as_secs());
    let help = error.help.clone().unwrap_or_else(|| match error.class {
        Class::Throttled => {
            "run the same command later, or with a smaller --parallelism: it goes on from what it finds".to_owned()
        }
        _ => "run the same command again: it goes on from what it finds".to_owned(),
    });
    Error { message, ..error }.help(help)
}

/// Waiting on behalf of one step.
struct Wait<'a> {
    executor: &'a Executor,
    i: usize,
    step: &'a Step,
    kind: &'a Arc<dyn Kind>,
    pollers: &'a Pollers,
    /// How long each of calling and waiting may take.
    limit: Duration,
    /// What is waited for was begun by this run: it is seen through even when
    /// the user stops the run.
    ours: bool,
}

impl Wait<'_> {
    /// What a create call made whose answer was lost. `patiently`: as long as
    /// reads may not show it yet.
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
            if let Rest::Stopped = self.executor.rest(pause.next(), false).await {
                return Ok(None);
            }
        }
    }

    /// Writes until it succeeds or there is no point.
    async fn retried<T, F: Future<Output = Result<T>>>(&self, call: impl Fn() -> F) -> Result<T> {
        let mut tries = Tries::default();
        loop {
            self.executor.guard.check()?;
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) => tries.again(self, error).await?,
            }
        }
    }

    /// Polls until it is usable; gives its id and outputs.
    async fn ready(&self, made: Made, state: &serde_json::Value) -> Result<(String, Outputs)> {
        if made.ready {
            return Ok((made.id, made.outputs));
        }
        let handle = Handle {
            address: self.step.address.clone(),
            generation: self.step.generation,
            id: made.id.clone(),
            state: state.clone(),
        };
        let mut shown = String::new();
        let mut pause = Pause::default();
        // A read may not show yet what a create has just made.
        let visible_by = self.executor.clock.elapsed() + LAG;
        let deadline = self.executor.clock.elapsed() + self.limit;
        // What takes minutes isn't there at once.
        if self.ours && self.is_slow() {
            self.pause(&mut pause, deadline, "ready").await?;
        }
        loop {
            match self.find(&handle).await? {
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
                    Status::Failed(why) => {
                        return Err(Error::new(Class::Failed, format!("{} failed: {why}", found.id))
                            .help("mend the cause, then run the same command: it will be repaired or made again"));
                    }
                },
                None if self.executor.clock.elapsed() > visible_by && pause.count >= FEWEST_TRIES => {
                    return Err(Error::new(
                        Class::NotFound,
                        format!("{} disappeared while it was being made", made.id),
                    )
                    .help("run the same command again: it will be made anew"));
                }
                None => self.progress(&mut shown, "not visible yet".to_owned()),
            }
            self.pause(&mut pause, deadline, "ready").await?;
        }
    }

    /// Polls until it is gone.
    async fn gone(&self, found: &Found) -> Result<()> {
        let handle = handle(found);
        let mut shown = String::new();
        let mut pause = Pause::default();
        let deadline = self.executor.clock.elapsed() + self.limit;
        loop {
            match self.find(&handle).await? {
                None => return Ok(()),
                Some(left) => match left.status {
                    Status::Failed(why) => {
                        return Err(Error::new(Class::Failed, format!("{} can't be deleted: {why}", left.id))
                            .help("remove what holds it, then run the same command"));
                    }
                    _ => self.progress(&mut shown, "deleting".to_owned()),
                },
            }
            self.pause(&mut pause, deadline, "deleted").await?;
        }
    }

    /// Asks together with whoever else waits for this kind. Trouble with the
    /// asking isn't the resource's: it is tried again.
    async fn find(&self, handle: &Handle) -> Result<Option<Found>> {
        let mut tries = Tries { through: self.ours, ..Tries::default() };
        loop {
            match self.pollers.find(self.kind, handle).await {
                Ok(found) => return Ok(found),
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

    async fn pause(&self, pause: &mut Pause, deadline: Duration, what: &str) -> Result<()> {
        let now = self.executor.clock.elapsed();
        // A slow answer mustn't be taken for a slow resource.
        if now >= deadline && pause.count >= FEWEST_TRIES {
            return Err(Error::new(Class::Timeout, format!("it isn't {what} in time"))
                .help("it may still get there: run the same command, which goes on from what it finds"));
        }
        let left = deadline.saturating_sub(now).max(Duration::from_millis(500));
        let mut until = now + pause.next();
        // Many that take minutes share their calls by asking at the same moments.
        if self.is_slow() {
            until = Duration::from_secs((until.as_secs() / 2 + 1) * 2);
        }
        match self.executor.rest((until - now).min(left), self.ours).await {
            Rest::Over => Ok(()),
            Rest::Stopped => Err(Error::new(Class::Timeout, format!("it isn't {what} yet")).help(STOPPED)),
        }
    }
}

/// From 0.5 s, growing by half to 15 s.
#[derive(Default)]
struct Pause {
    seconds: f64,
    count: u32,
}

impl Pause {
    fn next(&mut self) -> Duration {
        self.seconds = if self.count == 0 { 0.5 } else { (self.seconds * 1.5).min(15.0) };
        self.count += 1;
        Duration::from_secs_f64(self.seconds)
    }
}

/// Gathers questions about resources of one kind, so that many who wait cost
/// one call.
#[derive(Default)]
struct Pollers(Mutex<BTreeMap<&'static str, Queue>>);

type Answer = oneshot::Sender<Result<Option<Found>>>;

#[derive(Default)]
struct Queue {
    busy: bool,
    waiting: Vec<(Handle, Answer)>,
}

impl Pollers {
    async fn find(&self, kind: &Arc<dyn Kind>, handle: &Handle) -> Result<Option<Found>> {
        if kind.finds_one_by_one() {
            return Ok(kind.find(slice::from_ref(handle)).await?.into_iter().next().flatten());
        }
        let (sender, mut answer) = oneshot::channel();
        let leads = self.with(kind.name(), |queue| {
            queue.waiting.push((handle.clone(), sender));
            !std::mem::replace(&mut queue.busy, true)
        });
        // Whoever finds the queue idle asks for all; those that come while it
        // asks are asked for next.
        if !leads {
            return answer.await.unwrap_or_else(|_| Err(Error::bug("nobody answered")));
        }
        loop {
            // Those who become ready to ask in the same moment join in.
            tokio::task::yield_now().await;
            let batch = self.with(kind.name(), |queue| {
                queue.busy = !queue.waiting.is_empty();
                std::mem::take(&mut queue.waiting)
            });
            if batch.is_empty() {
                return answer.try_recv().unwrap_or_else(|_| Err(Error::bug("nobody answered")));
            }
            let handles: Vec<Handle> = batch.iter().map(|(h, _)| h.clone()).collect();
            match kind.find(&handles).await {
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
