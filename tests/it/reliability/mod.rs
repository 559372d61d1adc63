//! An apply that is killed at any call, that gets no answers, or that is throttled loses nothing: the next one
//! converges.
//!
//! A run here is the product's own ([`ringfence::run::apply`]) without its command line. It is in this process, so that
//! many runs are fast: it takes the lock, reads, plans, writes, and verifies its changes. To kill it, its future is
//! dropped.

mod blocked;
mod contenders;
mod drift;
mod estate;
mod kill;
mod lag;
mod limits;
mod lost;
mod meddling;
mod memory;
mod rate;
mod script;
mod sigkill;
mod slow;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use estate::Estate;
use futures::StreamExt;
use ringfence::aws::{Access, Aws};
use ringfence::engine::clock::Clock;
use ringfence::engine::error::Error;
use ringfence::engine::execute::{Chance, Executor, Stop};
use ringfence::engine::plan::{Plan, Policy};
use ringfence::engine::report::Report;
use ringfence::run::{self, Ended, Failure, Manner, Ran, Request, Session, Silent, Verdict};
use ringfence::sandbox::{Options, Script, Server};
use ringfence::spec::{self, LoadOptions, Spec};
use ringfence::template::Templates;
use tokio::sync::{mpsc, watch};

use crate::support::{ACCOUNT, REGION};

/// The clock's speed: so fast that a cluster takes half a second, and slow enough that no time limit is exceeded on a
/// busy computer.
const SPEED: f64 = 1500.0;

/// The clock's speed if answers are lost: waiting for them takes real time, which must not exceed a time limit.
const SLOW: f64 = 400.0;

/// How long a run waits for an answer that never comes.
const PATIENCE: Duration = Duration::from_secs(2);

/// A sandbox, and a spec to apply to it.
struct Ground {
    server: Server,
    spec: String,
    speed: f64,
}

impl Ground {
    fn new(spec: &str) -> Self {
        Self::at(spec, SPEED)
    }

    fn at(spec: &str, speed: f64) -> Self {
        let arns = spec.split([' ', '\n', '[', ']', ',']).filter(|word| word.starts_with("arn:"));
        let options = Options {
            principals: arns.filter(|arn| arn.contains(":role/")).map(str::to_owned).collect(),
            speed,
            ..Options::default()
        };
        let server = Server::start(options, ([127, 0, 0, 1], 0).into()).unwrap();
        Self { server, spec: spec.to_owned(), speed }
    }

    /// A sandbox with an earlier state.
    fn begun(spec: &str, begin: Option<&[u8]>) -> Self {
        let ground = Self::new(spec);
        if let Some(begin) = begin {
            ground.server.restore(begin).unwrap();
        }
        ground
    }

    fn faults(&self, script: &str) {
        self.server.set_faults(Script::parse(script).unwrap());
    }

    fn spec(&self) -> Spec {
        static LOADED: Mutex<BTreeMap<String, Spec>> = Mutex::new(BTreeMap::new());
        let load = || {
            let options = LoadOptions { profiles_dir: None, today: Clock::today() };
            spec::load(Path::new("tenancy.yaml"), &self.spec, &options).unwrap()
        };
        LOADED.lock().unwrap().entry(self.spec.clone()).or_insert_with(load).clone()
    }

    /// The session of a new process.
    async fn session(&self) -> Result<Session, Error> {
        let url = format!("http://{}", self.server.addr());
        let access = Access {
            region: REGION.to_owned(),
            sandbox: Some((url, ACCOUNT.to_owned())),
            patience: (self.speed == SLOW).then_some(PATIENCE),
        };
        let aws = Aws::connect(&access, &self.spec().name, Clock::scaled(self.speed)).await?;
        Ok(Session::on(self.spec(), aws, BTreeMap::new(), Templates::load(None)?))
    }

    /// One run from its beginning to its end.
    async fn ran(&self, policy: &Policy) -> Result<Ran, Failure> {
        let session = self.session().await?;
        let request = Request { policy: policy.clone(), ..Request::default() };
        let (_sender, stop) = watch::channel(Stop::No);
        match run::apply(&session, &request, &manner(), &Silent, stop).await? {
            Ended::Ran(ran) => {
                assert!(ran.plan.blocked.is_empty(), "{:?}", ran.plan.blocked);
                Ok(*ran)
            }
            Ended::Stopped => panic!("nobody stopped it"),
        }
    }

    async fn run(&self, policy: &Policy) -> Result<Report, Error> {
        match self.ran(policy).await {
            Ok(ran) => Ok(ran.report),
            Err(Failure::Run(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    /// Releases the lock of a run that died, as `ringfence unlock` does, so that tests don't wait until its lease
    /// expires.
    async fn unlock(&self) {
        let store = self.session().await.unwrap().lock();
        if let Some(holder) = store.list().await.unwrap().last().filter(|seen| !seen.released()) {
            store.free(holder).await.unwrap();
        }
    }

    /// A run that must succeed.
    #[track_caller]
    fn undisturbed(&self, policy: &Policy) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let ran = self.ran(policy).await.unwrap_or_else(|e| panic!("{place}: {e:?}"));
            let report = &ran.report;
            let failed: Vec<_> = report.failed().map(|(line, e)| format!("{}: {e}", line.address)).collect();
            let left: Vec<_> = report.left().map(|line| line.address.to_string()).collect();
            let blocked: Vec<_> = report.blocked().map(|(line, e)| format!("{}: {e}", line.address)).collect();
            assert!(
                failed.is_empty() && left.is_empty() && blocked.is_empty(),
                "{place}: {failed:#?} {left:?} {blocked:?}"
            );
            // If answers fail by chance, the read after the run may fail, too. Then the run reports that.
            let rough = self.server.struck().0 > 0;
            let well = ran.verdict() == Verdict::Done || rough && ran.verdict() == Verdict::Unconfirmed;
            let Report { differs, unconfirmed, .. } = report;
            assert!(well, "{place}: {differs:?} {unconfirmed:?} {:?}", ran.lost);
        }
    }

    fn estate(&self) -> Estate {
        estate::settled(&self.server)
    }
}

fn manner() -> Manner {
    Manner {
        command: "apply",
        approved: true,
        losses_approved: true,
        parallelism: 16,
        preflight: false,
        lock_timeout: Duration::ZERO,
        lock_lease: None,
        chance: Chance(1),
    }
}

/// Carries out a part of a plan, which no command does.
pub async fn carry_out(session: &Session, plan: &Plan) -> Report {
    let (events, _unheard) = mpsc::unbounded_channel();
    let (_sender, stop) = watch::channel(Stop::No);
    let executor = Executor {
        kinds: session.kinds.clone(),
        tenancy: session.spec.name.clone(),
        clock: session.aws.clock.clone(),
        parallelism: 16,
        events,
        stop,
        guard: Arc::new(()),
        chance: Chance(1),
    };
    executor.execute(plan).await
}

/// Creates, changes and destroys the estate while `script` injects faults. Asserts that each result is the same as
/// without faults.
async fn lives_through(script: &str) {
    let (spec, other) = (three_tiers(), changed_tiers());
    let (mut calm, mut rough) = (Ground::new(&spec), Ground::new(&spec));
    for (spec, policy) in [(&spec, apply()), (&other, apply()), (&other, destroy())] {
        calm.spec.clone_from(spec);
        rough.spec.clone_from(spec);
        calm.undisturbed(&policy).await;
        rough.faults(script);
        rough.undisturbed(&policy).await;
        rough.faults("{}");
        let differences = calm.estate().differences(&rough.estate());
        assert!(differences.is_empty(), "{script}: {differences:#?}");
    }
}

/// `action address` of each step.
fn steps(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| format!("{:?} {}", s.action, s.address)).collect()
}

/// Does `work` with each of `all`, a limited number at the same time.
async fn at_once<T, F: Future<Output = ()> + Send + 'static>(
    many: usize,
    all: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> F,
) {
    let all = futures::stream::iter(all).map(|one| tokio::spawn(work(one)));
    all.buffer_unordered(many).for_each(async |ended| ended.unwrap()).await;
}

fn apply() -> Policy {
    Policy::default()
}

fn destroy() -> Policy {
    Policy { destroy: true, delete_logs: true, ..Policy::default() }
}

fn three_tiers() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/three-tiers/tenancy.yaml");
    std::fs::read_to_string(file).unwrap()
}

/// The spec with changes: another tag, which changes nearly all resources; other instance types, which replace node
/// groups; one tenant removed and another one added.
fn changed_tiers() -> String {
    let mut spec = three_tiers();
    for (from, to) in [
        ("cost-center: saas", "cost-center: platform"),
        ("tier: premium  ", "overrides: {nodes: {instanceTypes: [m7i.2xlarge]}}\n      tier: premium  "),
        ("tier: standard  ", "overrides: {nodes: {instanceTypes: [m7i.2xlarge]}}\n      tier: standard  "),
        ("id: \"34567\"", "id: \"45678\""),
    ] {
        assert_eq!(spec.matches(from).count(), 1, "{from}");
        spec = spec.replace(from, to);
    }
    spec
}

/// One tenant of a tier, with a pool if it needs one.
fn alone(tier: &str) -> String {
    let (pools, pool) = match tier {
        "premium" => ("", ""),
        _ => ("  pools: [{name: shared-1}]\n", ", pool: shared-1"),
    };
    format!(
        "apiVersion: ringfence.dev/v1alpha1
kind: Tenancy
metadata: {{name: alone}}
spec:
  region: {REGION}
  kubernetesVersion: \"1.36\"
  network: {{supernet: 10.64.0.0/12, vpcPrefix: 16, zones: 2, natGateways: single, endpoints: [s3, sts], flowLogs: true}}
  access: {{endpoint: private, admins: [arn:aws:iam::{ACCOUNT}:role/PlatformAdmin]}}
{pools}  tenants: [{{id: \"7\", name: seven, tier: {tier}{pool}}}]
"
    )
}

/// Adds a line to the file that `RINGFENCE_RELIABILITY` names, from which
/// `benches/reliability.py` makes `docs/reliability.md`.
fn note(what: &str, tried: usize, left: &str) {
    let Some(file) = std::env::var_os("RINGFENCE_RELIABILITY") else { return };
    let line = serde_json::json!({"what": what, "tried": tried, "left": left});
    let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
    writeln!(file, "{line}").unwrap();
}
