use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Failure, Session};
use crate::engine::address::Address;
use crate::engine::clock::Clock;
use crate::engine::event::Event;
use crate::engine::plan::{Plan, Policy};

/// What a run is doing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It reads what exists.
    Reading { account: String, region: String },
    /// It waits for another run, which the text names.
    Waiting(String),
    /// It plans once more, because the answer took a while.
    ReadingAgain,
    /// It reads again what it wrote.
    Verifying,
}

/// Who is told about a run and decides about it: a command line, a controller, a test.
#[async_trait]
pub trait Host: Send + Sync {
    /// What is being done from now on.
    fn stage(&self, stage: &Stage);

    /// One more thing to know.
    fn note(&self, text: &str);

    /// The same, for those who want to know everything.
    fn detail(&self, _text: &str) {}

    /// The plan that is about to be carried out, and what preflight found out about it.
    ///
    /// # Errors
    /// It can't be shown: the run ends before its first write.
    fn plan(&self, session: &Session, plan: &Plan, policy: &Policy, notes: Vec<String>) -> Result<(), Failure>;

    /// Whether to go on. `losses` hold a tenant's work or data: each must be confirmed by its address.
    ///
    /// # Errors
    /// Nobody can be asked.
    async fn confirm(&self, losses: &BTreeSet<Address>) -> Result<bool, Failure>;

    /// Takes events until the channel closes, which is the end of the writes.
    ///
    /// # Errors
    /// They can't be shown. The run goes on, and the failure is part of how it [ended](super::Ran).
    async fn follow(&self, events: UnboundedReceiver<Event>, clock: &Clock) -> Result<(), Failure>;
}

/// Nobody is told, and everything is confirmed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

#[async_trait]
impl Host for Silent {
    fn stage(&self, _stage: &Stage) {}

    fn note(&self, _text: &str) {}

    fn plan(&self, _session: &Session, _plan: &Plan, _policy: &Policy, _notes: Vec<String>) -> Result<(), Failure> {
        Ok(())
    }

    async fn confirm(&self, _losses: &BTreeSet<Address>) -> Result<bool, Failure> {
        Ok(true)
    }

    async fn follow(&self, mut events: UnboundedReceiver<Event>, _clock: &Clock) -> Result<(), Failure> {
        while events.recv().await.is_some() {}
        Ok(())
    }
}
