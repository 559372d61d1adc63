//! The duration of an apply for different numbers of silos: the real plan, with kinds that take the expected time of
//! the real ones, on a simulated clock. `benches/report.py --makespan` measures the same in the sandbox.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ringfence::aws::{Access, Aws};
use ringfence::engine::clock::{Clock, Hand};
use ringfence::engine::error::{Error, Result};
use ringfence::engine::event::Event;
use ringfence::engine::execute::{Chance, Executor, Stop};
use ringfence::engine::kind::*;
use ringfence::engine::packed::Packed;
use ringfence::engine::plan::{Plan, Policy};
use ringfence::engine::value::Outputs;
use ringfence::kinds;
use ringfence::run::Session;
use ringfence::sandbox::{Options, Server};
use ringfence::spec::{self, LoadOptions};
use ringfence::template::Templates;
use tokio::sync::{mpsc, watch};

use crate::support::{ACCOUNT, REGION};

/// Duration of a call.
const CALL: Duration = Duration::from_secs(1);

/// A kind like `kind` that only takes the time.
struct Timed {
    pace: Pace,
    clock: Clock,
    /// Outputs by address, for references of other resources.
    outputs: BTreeMap<String, Outputs>,
    ready: Mutex<BTreeMap<String, Duration>>,
}

#[async_trait]
impl Handlers for Timed {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        Err(Error::bug("nothing is read here"))
    }
    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let ready = self.ready.lock().unwrap();
        let found = |handle: &Handle| {
            let done = self.clock.elapsed() >= *ready.get(handle.address.as_str())?;
            Some(Found {
                address: handle.address.clone(),
                generation: handle.generation,
                id: handle.id.clone(),
                outputs: self.outputs.get(handle.address.as_str()).cloned().unwrap_or_default(),
                state: handle.state.clone(),
                status: if done { Status::Ready } else { Status::Pending("CREATING".to_owned()) },
                refs: vec![],
            })
        };
        Ok(handles.iter().map(found).collect())
    }
    async fn create(&self, new: &New) -> Result<Made> {
        self.clock.sleep(CALL).await;
        let left = self.pace.expected.saturating_sub(CALL);
        self.ready.lock().unwrap().insert(new.address.to_string(), self.clock.elapsed() + left);
        let outputs = self.outputs.get(new.address.as_str()).cloned().unwrap_or_default();
        Ok(Made { id: new.address.to_string(), outputs, ready: left.is_zero() })
    }
    async fn update(&self, _from: &Found, _to: &New, _changes: &[Change]) -> Result<Made> {
        Err(Error::bug("nothing is changed here"))
    }
    async fn delete(&self, _found: &Found) -> Result<bool> {
        Err(Error::bug("nothing is deleted here"))
    }
}

fn spec(silos: usize) -> String {
    let mut spec = format!(
        "apiVersion: ringfence.dev/v1alpha1
kind: Tenancy
metadata: {{name: crowd}}
spec:
  region: {REGION}
  kubernetesVersion: \"1.36\"
  network: {{supernet: 10.64.0.0/12, vpcPrefix: 18, zones: 3, natGateways: single, endpoints: [s3, sts, ec2], flowLogs: true}}
  access: {{endpoint: private, admins: [arn:aws:iam::{ACCOUNT}:role/PlatformAdmin]}}
  tenants:
"
    );
    for n in 0..silos {
        writeln!(spec, "    - {{id: s{n:02}, name: silo {n}, tier: premium}}").unwrap();
    }
    spec
}

/// The plan for this number of silos in an empty account, and the real kinds.
async fn planned(silos: usize) -> Plan {
    let server = Server::start(Options::default(), ([127, 0, 0, 1], 0).into()).unwrap();
    let options = LoadOptions { profiles_dir: None, today: Clock::today() };
    let spec = spec::load(Path::new("tenancy.yaml"), &spec(silos), &options).unwrap();
    let sandbox = Some((format!("http://{}", server.addr()), ACCOUNT.to_owned()));
    let access = Access { region: REGION.to_owned(), sandbox, patience: None };
    let aws = Aws::connect(&access, &spec.name, Clock::real()).await.unwrap();
    let session = Session::on(spec, aws, BTreeMap::new(), Templates::load(None).unwrap());
    let (_, plan) = session.plan(&Policy::default(), false).await.unwrap();
    assert!(plan.blocked.is_empty(), "{:?}", plan.blocked);
    plan
}

/// The longest chain of dependent steps, by their expected durations.
fn chain(kinds: &Registry, plan: &Plan) -> Duration {
    let mut ends: Vec<Duration> = Vec::new();
    for step in &plan.steps {
        let begin = step.needs.iter().map(|need| ends[*need]).max().unwrap_or_default();
        ends.push(begin + kinds.get(step.kind).unwrap().pace(Verb::Create).expected);
    }
    ends.into_iter().max().unwrap_or_default()
}

/// The duration of the run, and its forecast.
fn took(kinds: &Registry, plan: &Plan) -> (Duration, Duration) {
    let hand = Hand::default();
    let mut outputs: BTreeMap<String, Outputs> = BTreeMap::new();
    for (address, name) in plan.steps.iter().filter_map(|s| s.state.as_ref()).flat_map(Packed::references) {
        let value = format!("{address}.{name}");
        outputs.entry(address.to_string()).or_default().insert(name, value);
    }
    let mut timed = Connected::default();
    let scope = &plan.steps.first().expect("a step").scope;
    for kind in kinds.iter() {
        let (pace, clock, ready) = (kind.pace(Verb::Create), hand.clock(), Mutex::default());
        timed.add(scope, kind.clone(), Arc::new(Timed { pace, clock, outputs: outputs.clone(), ready }));
    }
    let (events, mut listener) = mpsc::unbounded_channel();
    let (_stopper, stop) = watch::channel(Stop::No);
    let executor = Executor {
        kinds: timed,
        tenancy: "crowd".to_owned(),
        clock: hand.clock(),
        parallelism: 16,
        events,
        stop,
        guard: Arc::new(()),
        chance: Chance::default(),
    };
    let report = hand.run(executor.execute(plan)).expect("it waits for ever");
    assert_eq!(report.done().add, plan.steps.len(), "{:?}", report.failed().collect::<Vec<_>>());
    match listener.try_recv() {
        Ok(Event::Begin { expected, .. }) => (report.took, expected),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_silos_take_as_long_as_one() {
    let mut alone = None;
    for silos in [1, 10, 50] {
        let (kinds, plan) = (kinds::facts(), planned(silos).await);
        let chain = chain(&kinds, &plan).as_secs_f64();
        assert_eq!(*alone.get_or_insert(chain), chain, "silos don't wait for each other");
        let (took, foretold) = took(&kinds, &plan);
        let (took, foretold) = (took.as_secs_f64(), foretold.as_secs_f64());
        assert!(took <= chain * 1.05, "{silos} silos: {took} s, where the longest chain takes {chain} s");
        assert!((foretold / took - 1.0).abs() <= 0.1, "{silos} silos: {took} s, where {foretold} s were foretold");
    }
}
