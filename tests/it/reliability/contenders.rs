//! Many runs at the same time on one tenancy: one works, the others wait.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use ringfence::aws::lock::{LEASE, Store};
use ringfence::engine::error::{Class, Result};
use ringfence::engine::execute::Guard;

use super::*;

const MANY: usize = 8;

/// Slow enough that no heartbeat is missed on a busy computer.
const PACE: f64 = 20.0;

/// Asserts that all runs get the lock, one at a time, and that no run waits for
/// its own lock.
async fn take_turns(script: &str) {
    let ground = Ground::at(&alone("premium"), PACE);
    ground.faults(script);
    let inside = Arc::new(AtomicUsize::new(0));
    let mut all = Vec::new();
    for n in 0..MANY {
        let aws = ground.session().await.unwrap().aws;
        let (inside, me) = (inside.clone(), format!("`run {n}`"));
        all.push(tokio::spawn(async move {
            let store = Store::new(&aws, &BTreeMap::new(), aws.clock.clone());
            let say = |text: &str| assert!(!text.contains(&me), "waits for itself: {text}");
            let hour = Duration::from_secs(3600);
            let lock = store.take(me.trim_matches('`'), LEASE, hour, &say).await.unwrap();
            assert_eq!(inside.fetch_add(1, SeqCst), 0, "two work at once");
            // Works until the other runs can see its lock.
            while !store.list().await.unwrap().iter().any(|seen| seen.holder().contains(&me)) {
                aws.clock.sleep(Duration::from_secs(1)).await;
            }
            lock.guard().allows().unwrap();
            inside.fetch_sub(1, SeqCst);
            lock.release().await.unwrap();
        }));
    }
    for run in all {
        run.await.unwrap();
    }
    note(&format!("{MANY} runs at once: {script}"), 1, "one works at a time, all get their turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_current_reads() {
    take_turns("{}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_lagging_reads() {
    take_turns("lag: {ssm: 5}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_lagging_reads_and_lost_answers() {
    take_turns("{lag: {ssm: 5}, faults: [{call: 'ssm:PutParameter', first: true, after: drop}]}").await;
}

/// Allows no write, and counts how often it is asked.
#[derive(Debug, Default)]
struct Never(AtomicUsize);

impl Guard for Never {
    fn allows(&self) -> Result<Duration> {
        self.0.fetch_add(1, SeqCst);
        Err(Error::new(Class::Lost, "the lock is gone"))
    }
}

/// Every call of every kind that creates, changes or deletes, at AWS and in
/// clusters, is refused after the lock is lost.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_lock_nothing_is_written() {
    let mut ground = Ground::new(&three_tiers());
    ground.undisturbed(&apply()).await;
    for (spec, policy) in [(changed_tiers(), apply()), (three_tiers(), destroy())] {
        ground.spec = spec;
        let session = ground.session().await.unwrap();
        let (_, plan) = session.plan(&policy, false).await.unwrap();
        let before = ground.estate();
        let never = Arc::new(Never::default());
        session.aws.fence.set(never.clone());
        let report = carry_out(&session, &plan).await;
        let differences = before.differences(&ground.estate());
        assert!(differences.is_empty(), "{differences:#?}");
        let failed: Vec<_> = report.failed().collect();
        assert!(!failed.is_empty() && failed.iter().all(|(_, e)| e.class == Class::Lost), "{failed:#?}");
        let asked = never.0.load(SeqCst);
        assert!(asked <= 2 * failed.len(), "steps are tried again: {asked} attempts of {} steps", failed.len());
    }
    note("runs that may not write", 2, "nothing changed, at AWS or in a cluster");
}
