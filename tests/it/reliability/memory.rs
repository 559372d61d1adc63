//! The objects in clusters are most of an estate. A run parses their states one by one, and keeps only the text.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use ringfence::engine::address::Address;
use ringfence::engine::clock::Clock;
use ringfence::engine::event::Event;
use ringfence::engine::packed::Packed;
use ringfence::engine::plan::{Plan, Policy};
use ringfence::kinds::k8s::manifest;
use ringfence::run::{self, Ended, Failure, Host, Manner, Request, Session, Stage};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::{Ground, Stop, apply, manner, three_tiers};

/// Keeps the states of objects in a plan, which share what is kept of them with the plan.
#[derive(Default)]
struct Watcher(Mutex<Vec<Packed>>);

impl Watcher {
    fn assert_texts(&self, when: &str) {
        let states = self.0.lock().unwrap();
        let parsed = states.iter().filter(|state| state.is_parsed()).count();
        assert!(states.len() > 50, "{when}: {} objects", states.len());
        assert_eq!(parsed, 0, "{when}: a parsed state is kept for so many objects of {}", states.len());
    }
}

#[async_trait]
impl Host for Watcher {
    fn stage(&self, _stage: &Stage) {}

    fn note(&self, _text: &str) {}

    fn plan(&self, _: &Session, plan: &Plan, _: &Policy, _: Vec<String>) -> Result<(), Failure> {
        let objects = plan.steps.iter().filter(|step| step.kind == manifest::NAME);
        *self.0.lock().unwrap() = objects.filter_map(|step| step.state.clone()).collect();
        self.assert_texts("after planning");
        Ok(())
    }

    async fn confirm(&self, _losses: &BTreeSet<Address>) -> Result<bool, Failure> {
        self.assert_texts("after preflight");
        Ok(true)
    }

    async fn follow(&self, mut events: UnboundedReceiver<Event>, _clock: &Clock) -> Result<(), Failure> {
        while events.recv().await.is_some() {}
        Ok(())
    }
}

#[tokio::test]
async fn objects_in_clusters_are_kept_as_text() {
    let ground = Ground::new(&three_tiers());
    let session = ground.session().await.unwrap();
    let (watcher, request) = (Watcher::default(), Request::default());
    let manner = Manner { approved: false, preflight: true, ..manner() };
    let (_sender, stop) = watch::channel(Stop::No);
    let ended = run::apply(&session, &request, &manner, &watcher, stop).await.unwrap();
    assert!(matches!(&ended, Ended::Ran(ran) if ran.report.failed().count() == 0), "{ended:?}");
    watcher.assert_texts("after execution");

    let (look, plan) = session.plan(&apply(), false).await.unwrap();
    assert!(plan.is_empty(), "{:?}", plan.steps);
    let wanted = look.desired.iter().filter(|r| r.kind == manifest::NAME).map(|r| r.state.clone());
    *watcher.0.lock().unwrap() = wanted.collect();
    watcher.assert_texts("desired");
    let kinds = &look.observed.kinds;
    let found = look.observed.found.iter().filter(|(address, _)| kinds.get(*address) == Some(&manifest::NAME));
    *watcher.0.lock().unwrap() = found.flat_map(|(_, all)| all).map(|found| found.state.clone()).collect();
    watcher.assert_texts("found");
}
