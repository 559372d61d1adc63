//! Tests of when steps start. They use a test clock, so hours take no time and the computer's load changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::address::Address;
use super::clock::{Clock, Hand};
use super::error::{Class, Error, Result};
use super::event::Event;
use super::execute::{Chance, Executor, Guard, Stop};
use super::kind::*;
use super::packed::Packed;
use super::plan::{Action, Plan, Step};
use super::report::{Outcome, Report};
use super::value::Outputs;

/// The duration of a call.
const CALL: Duration = Duration::from_secs(1);

/// The end of the error message of calls for a state with this cluster.
struct Timed {
    name: &'static str,
    seconds: u64,
    in_cluster: bool,
    clock: Clock,
    ready: Mutex<BTreeMap<String, Duration>>,
    /// The error that calls about a state with this cluster end with.
    closed: Option<(&'static str, Class)>,
}

impl Kind for Timed {
    fn name(&self) -> &'static str {
        self.name
    }
    fn pace(&self, _verb: Verb) -> Pace {
        Pace::secs(self.seconds, 4 * self.seconds + 120)
    }
    fn is_hosted(&self) -> bool {
        self.in_cluster
    }
    fn host(&self, state: &Packed) -> Option<String> {
        Some(state.get("cluster")?.as_str()?.to_owned())
    }
    fn finds_one_by_one(&self) -> bool {
        true
    }
}

#[async_trait]
impl Handlers for Timed {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        Ok(Observation::default())
    }
    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let ready = self.ready.lock().unwrap();
        Ok(handles
            .iter()
            .map(|h| {
                let done = self.clock.elapsed() >= *ready.get(h.address.as_str())?;
                Some(Found {
                    address: h.address.clone(),
                    generation: h.generation,
                    id: h.id.clone(),
                    outputs: Outputs::new(),
                    state: h.state.clone(),
                    status: if done { Status::Ready } else { Status::Pending("CREATING".to_owned()) },
                    refs: vec![],
                })
            })
            .collect())
    }
    async fn create(&self, new: &New) -> Result<Made> {
        self.clock.sleep(CALL).await;
        let cluster = new.state.get("cluster").and_then(Value::as_str);
        if let Some((_, class)) = self.closed.filter(|(closed, _)| Some(*closed) == cluster) {
            return Err(Error::new(class, "no way in"));
        }
        let until = self.clock.elapsed() + Duration::from_secs(self.seconds).saturating_sub(CALL);
        self.ready.lock().unwrap().insert(new.address.to_string(), until);
        Ok(Made { id: "id".to_owned(), ready: self.seconds <= 1, ..Made::default() })
    }
    async fn update(&self, _from: &Found, _to: &New, _changes: &[Change]) -> Result<Made> {
        Err(Error::bug("nothing is changed here"))
    }
    async fn delete(&self, _found: &Found) -> Result<bool> {
        Err(Error::bug("nothing is deleted here"))
    }
}

fn step(address: String, kind: &'static str, state: Value, needs: &[usize]) -> Step {
    Step {
        address: Address::new(address),
        kind,
        scope: Arc::default(),
        action: Action::Create,
        replaces: false,
        generation: 1,
        why: None,
        summary: String::new(),
        controls: vec![],
        changes: vec![],
        state: Some(state.into()),
        found: None,
        needs: needs.iter().copied().collect(),
    }
}

/// The events with their times.
struct Told {
    report: Report,
    expected: Duration,
    starts: Vec<(String, Duration)>,
}

impl Told {
    fn start(&self, address: &str) -> u64 {
        self.starts.iter().find(|(a, _)| a == address).unwrap_or_else(|| panic!("{address} never starts")).1.as_secs()
    }

    fn outcome(&self, address: &str) -> &Outcome {
        &self.report.lines.iter().find(|l| l.address.as_str() == address).unwrap().outcome
    }
}

struct World {
    hand: Hand,
    parallelism: usize,
    closed: Option<(&'static str, Class)>,
    guard: Arc<dyn Guard>,
    /// When and how the user stops the run.
    stops: Vec<(u64, Stop)>,
}

impl World {
    fn new() -> Self {
        Self { hand: Hand::default(), parallelism: 16, closed: None, guard: Arc::new(()), stops: vec![] }
    }

    fn execute(&self, steps: Vec<Step>) -> Told {
        let clock = self.hand.clock();
        let mut kinds = Connected::default();
        for (name, seconds, in_cluster) in [
            ("quick", 1, false),
            ("net", 2, false),
            ("gateway", 105, false),
            ("cluster", 600, false),
            ("nodes", 180, false),
            ("addon", 60, false),
            ("object", 1, true),
            ("slow-object", 200, true),
        ] {
            let (ready, closed) = (Mutex::default(), self.closed);
            let timed = Arc::new(Timed { name, seconds, in_cluster, clock: clock.clone(), ready, closed });
            kinds.add(&Arc::default(), timed.clone(), timed);
        }
        let (events, mut listener) = mpsc::unbounded_channel();
        let first = self.stops.first().filter(|(at, _)| *at == 0).map(|(_, stop)| *stop);
        let (stopper, stop) = watch::channel(Stop::No);
        let executor = Executor {
            kinds,
            tenancy: "acme".to_owned(),
            clock: clock.clone(),
            parallelism: self.parallelism,
            events,
            stop,
            guard: self.guard.clone(),
            chance: Chance::default(),
        };
        // The stop was requested before the run starts.
        if let Some(stop) = first {
            stopper.send(stop).unwrap();
        }
        let plan = Plan { steps, ..Plan::default() };
        let run = async {
            let report = executor.execute(&plan).await;
            drop(executor);
            report
        };
        let listening = async {
            let (mut starts, mut expected) = (vec![], Duration::ZERO);
            while let Some(event) = listener.recv().await {
                match event {
                    Event::Begin { expected: all, .. } => expected = all,
                    Event::Start { address, .. } => starts.push((address.to_string(), clock.elapsed())),
                    _ => {}
                }
            }
            (starts, expected)
        };
        let stopping = async {
            for (at, stop) in &self.stops {
                clock.sleep(Duration::from_secs(*at).saturating_sub(clock.elapsed())).await;
                let _ = stopper.send(*stop);
            }
        };
        let (report, (starts, expected), ()) =
            self.hand.run(async { tokio::join!(run, listening, stopping) }).expect("it waits for ever");
        Told { report, expected, starts }
    }
}

/// A silo with the resources below its cluster, the cluster, and those above it, and independent resources beside it.
fn silo(n: usize, steps: &mut Vec<Step>) {
    let mut add = |name: &str, kind, needs: &[usize]| {
        let address = format!("tenant/{n:03}/silo/{name}");
        let state = match kind {
            "object" | "slow-object" => json!({"cluster": format!("c{n}")}),
            _ => json!({}),
        };
        steps.push(step(address, kind, state, needs));
        steps.len() - 1
    };
    // By name, the resources that aren't urgent come first.
    for i in 0..12 {
        add(&format!("a-role-{i}"), "quick", &[]);
    }
    let vpc = add("net", "net", &[]);
    let gateways: Vec<usize> = (0..3).map(|i| add(&format!("gateway-{i}"), "gateway", &[vpc])).collect();
    let subnets: Vec<usize> = (0..6).map(|i| add(&format!("subnet-{i}"), "net", &[vpc])).collect();
    let cluster = add("z-cluster", "cluster", &subnets);
    let namespace = add("object-0", "object", &[cluster]);
    for i in 1..30 {
        add(&format!("object-{i}"), "object", &[namespace]);
    }
    add("object-a-slow", "slow-object", &[cluster]);
    let nodes = add("z-nodes", "nodes", &[&[cluster], gateways.as_slice()].concat());
    add("z-addon", "addon", &[nodes]);
}

#[test]
fn any_number_of_silos_takes_as_long_as_one() {
    for silos in [1, 10, 20, 50] {
        let mut steps = Vec::new();
        (0..silos).for_each(|n| silo(n, &mut steps));
        let told = World::new().execute(steps);
        assert!(told.report.lines.iter().all(|l| matches!(l.outcome, Outcome::Done)), "{:?}", told.report);
        // The longest path: net, subnet, cluster, nodes, add-on.
        let chain = 2.0 + 2.0 + 600.0 + 180.0 + 60.0;
        let took = told.report.took.as_secs_f64();
        assert!(took <= chain * 1.05, "{silos} silos: {took} s, the longest chain is {chain} s");
        let foretold = told.expected.as_secs_f64();
        assert!((foretold / took - 1.0).abs() < 0.1, "{silos} silos: {took} s, foretold were {foretold} s");
    }
}

#[test]
fn what_only_waits_keeps_nobody_from_starting() {
    let mut steps: Vec<Step> =
        (0..40).map(|n| step(format!("pool/a/cluster-{n}"), "cluster", json!({}), &[])).collect();
    steps.push(step("pool/b/quick".to_owned(), "quick", json!({}), &[]));
    let told = World { parallelism: 2, ..World::new() }.execute(steps);
    assert_eq!(told.start("pool/b/quick"), 0);
    assert!(told.report.took.as_secs() < 640, "{:?}", told.report.took);
    // Only two calls are made at the same time.
    let starts: Vec<u64> = (0..40).map(|n| told.start(&format!("pool/a/cluster-{n}"))).collect();
    let most = starts.iter().map(|at| starts.iter().filter(|other| *other == at).count()).max();
    assert_eq!(most, Some(2), "{starts:?}");
}

#[test]
fn a_cluster_that_answers_is_open_to_all() {
    let object = |name: &str, kind| step(format!("pool/a/{name}"), kind, json!({"cluster": "c"}), &[]);
    let steps = vec![object("slow", "slow-object"), object("one", "object"), object("two", "object")];
    let told = World::new().execute(steps);
    assert_eq!(told.start("pool/a/slow"), 0);
    // They wait for the first answer of the server, not for the end of the first step.
    assert_eq!((told.start("pool/a/one"), told.start("pool/a/two")), (1, 1));
}

#[test]
fn a_closed_cluster_is_tried_by_one_step() {
    let object = |name: &str, cluster: &str| step(format!("pool/a/{name}"), "object", json!({"cluster": cluster}), &[]);
    let mut steps = vec![object("one", "shut"), object("two", "shut"), object("three", "open")];
    steps.push(step("pool/a/four".to_owned(), "quick", json!({}), &[1]));
    let world = World { closed: Some(("shut", Class::Unreachable)), ..World::new() };
    let told = world.execute(steps);
    assert!(matches!(told.outcome("pool/a/one"), Outcome::Blocked { .. }));
    assert!(matches!(told.outcome("pool/a/two"), Outcome::Blocked { .. }));
    assert!(matches!(told.outcome("pool/a/four"), Outcome::Skipped { because } if because.as_str() == "pool/a/two"));
    assert!(matches!(told.outcome("pool/a/three"), Outcome::Done));
    let started: BTreeSet<&str> = told.starts.iter().map(|(a, _)| a.as_str()).collect();
    // The step with a dependent.
    assert_eq!(started, ["pool/a/two", "pool/a/three"].into());
}

#[test]
fn what_was_stopped_before_it_began_starts_nothing() {
    for stop in [Stop::Gently, Stop::AtOnce] {
        let steps = vec![step("pool/a/quick".to_owned(), "quick", json!({}), &[])];
        let told = World { stops: vec![(0, stop)], ..World::new() }.execute(steps);
        assert!(told.report.interrupted);
        assert!(matches!(told.outcome("pool/a/quick"), Outcome::NotStarted), "{:?}", told.report);
    }
}

#[test]
fn who_stops_twice_leaves_what_is_under_way() {
    let steps = vec![
        step("pool/a/cluster".to_owned(), "cluster", json!({}), &[]),
        step("pool/a/nodes".to_owned(), "nodes", json!({}), &[0]),
        step("pool/a/quick".to_owned(), "quick", json!({}), &[]),
    ];
    let told = World { stops: vec![(100, Stop::Gently), (130, Stop::AtOnce)], ..World::new() }.execute(steps);
    assert_eq!(told.report.took.as_secs(), 130);
    assert!(told.report.interrupted);
    assert!(matches!(told.outcome("pool/a/cluster"), Outcome::Abandoned));
    assert!(matches!(told.outcome("pool/a/nodes"), Outcome::NotStarted));
    assert!(matches!(told.outcome("pool/a/quick"), Outcome::Done));
}

#[derive(Debug)]
struct Until(Clock, Duration);

impl Guard for Until {
    fn allows(&self) -> Result<Duration> {
        match self.1.checked_sub(self.0.elapsed()).filter(|left| !left.is_zero()) {
            Some(left) => Ok(left),
            None => Err(Error::new(Class::Lost, "the lock is gone")),
        }
    }
}

#[test]
fn who_may_not_write_starts_nothing_and_sees_what_it_began() {
    let steps = vec![
        step("pool/a/cluster".to_owned(), "cluster", json!({}), &[]),
        step("pool/a/nodes".to_owned(), "nodes", json!({}), &[0]),
    ];
    let mut world = World::new();
    world.guard = Arc::new(Until(world.hand.clock(), Duration::from_secs(60)));
    let told = world.execute(steps);
    assert!(matches!(told.outcome("pool/a/cluster"), Outcome::Done));
    assert!(matches!(told.outcome("pool/a/nodes"), Outcome::NotStarted));
}
