//! kill -9 at every call.

use ringfence::aws::lock::LEASE;

use super::*;

/// More than the number of processors, because each run waits from time to time.
const AT_ONCE: usize = 4;

/// A case: the state at the start, and the expected result.
struct Case {
    name: &'static str,
    spec: String,
    policy: Policy,
    begin: Option<Vec<u8>>,
    /// The result of an undisturbed run.
    wanted: Estate,
    /// For each change, the state that a run leaves if it dies after that change. To die before the next change leaves
    /// the same state.
    left: Vec<Vec<u8>>,
}

impl Case {
    async fn new(name: &'static str, spec: String, policy: Policy, begin: Option<Vec<u8>>) -> Arc<Self> {
        let ground = Ground::begun(&spec, begin.as_deref());
        ground.server.keep_history();
        ground.undisturbed(&policy).await;
        let left = ground.server.take_history();
        Arc::new(Self { name, spec, policy, begin, wanted: ground.estate(), left })
    }

    /// Asserts that the next run converges to the result of an undisturbed one.
    async fn goes_on(&self, ground: &Ground, from: &str) {
        ground.unlock().await;
        ground.undisturbed(&self.policy).await;
        let differences = self.wanted.differences(&ground.estate());
        assert!(differences.is_empty(), "{}, {from}: {differences:#?}", self.name);
    }

    /// The next run after one that died directly after its change `k`.
    async fn died_after(&self, k: usize) {
        let ground = Ground::begun(&self.spec, self.left.get(k).map(Vec::as_slice));
        self.goes_on(&ground, &format!("after change {} of {}", k + 1, self.left.len())).await;
    }

    /// Kills a run: its future is dropped directly before its change `k`, or directly after it.
    async fn dies(&self, k: usize, when: &str) {
        let ground = Ground::begun(&self.spec, self.begin.as_deref());
        ground.faults(&format!("faults: [{{only: changes, nth: {k}, {when}: die}}]"));
        let mut died = ground.server.died();
        tokio::select! {
            ended = ground.run(&self.policy) => panic!("{}: no change {k} in {ended:?}", self.name),
            _ = died.wait_for(|died| *died) => {}
        }
        // Requests that the dead run had sent and that the server had not read yet must not be carried out later. In
        // reality, its lease would have ended by then.
        let left = ground.server.snapshot().unwrap();
        let next = Ground::begun(&self.spec, Some(&left));
        self.goes_on(&next, &format!("killed right {when} change {k}")).await;
    }

    /// Kills a run at each change, one after the other.
    async fn dies_everywhere(self: Arc<Self>) {
        let changes = self.left.len();
        assert!(changes > 20, "{}: only {changes} changes", self.name);
        let case = &self;
        at_once(AT_ONCE, 0..changes, |k| {
            let case = case.clone();
            async move { case.died_after(k).await }
        })
        .await;
        note(&format!("kill -9 around every change: {}", self.name), changes + 1, "as undisturbed");
        // A sample of really dropped runs, because the states above are only those after its calls.
        let sample: Vec<_> = (1..changes).step_by(29).flat_map(|k| [(k, "before"), (k, "after")]).collect();
        let tried = sample.len();
        at_once(AT_ONCE, sample, |(k, when)| {
            let case = case.clone();
            async move { case.dies(k, when).await }
        })
        .await;
        note(&format!("runs dropped around a change: {}", self.name), tried, "as undisturbed");
    }
}

async fn applied(spec: &str) -> Vec<u8> {
    let ground = Ground::new(spec);
    ground.undisturbed(&apply()).await;
    ground.server.snapshot().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_three_tiers() {
    Case::new("apply, three tiers", three_tiers(), apply(), None).await.dies_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_each_tier_alone() {
    for (name, tier) in [("apply, silo", "premium"), ("apply, pool", "standard"), ("apply, Fargate", "serverless")] {
        Case::new(name, alone(tier), apply(), None).await.dies_everywhere().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn destroying_three_tiers() {
    let spec = three_tiers();
    let begin = applied(&spec).await;
    Case::new("destroy, three tiers", spec, destroy(), Some(begin)).await.dies_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_replacing_and_removing() {
    let begin = applied(&three_tiers()).await;
    let case = Case::new("change, replace and remove, three tiers", changed_tiers(), apply(), Some(begin)).await;
    case.dies_everywhere().await;
}

/// A killed run, and reads that lag by half a minute. When the lock's lease has ended, the next run can see everything
/// that the dead one made.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_reads_lag() {
    let case = Case::new("apply, silo, reads behind", alone("premium"), apply(), None).await;
    let sample: Vec<usize> = (0..case.left.len()).step_by(11).collect();
    let tried = sample.len();
    at_once(AT_ONCE, sample, |k| {
        let case = case.clone();
        async move {
            let ground = Ground::begun(&case.spec, case.left.get(k).map(Vec::as_slice));
            ground.faults("lag: {'*': 30}");
            ground.server.advance(LEASE.as_secs_f64());
            case.goes_on(&ground, &format!("after change {}", k + 1)).await;
        }
    })
    .await;
    note("kill -9 after a change, and reads 30 s behind in the next run: apply, silo", tried, "as undisturbed");
}
