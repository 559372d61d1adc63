use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Failure, Session};
use crate::engine::address::Address;
use crate::engine::clock::Clock;
use crate::engine::event::Event;
use crate::engine::plan::{Plan, Policy};

/// The current stage of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The run reads what exists.
    Reading { account: String, region: String },
    /// The run waits for another run. The text names that run.
    Waiting(String),
    /// The run plans again, because the confirmation took long.
    ReadingAgain,
    /// The run verifies what it wrote.
    Verifying,
}

/// Receives the progress of a run and takes its decisions: a command line, a controller, a test.
#[async_trait]
pub trait Host: Send + Sync {
    /// The run enters this stage.
    fn stage(&self, stage: &Stage);

    /// A note for the user.
    fn note(&self, text: &str);

    /// A note for a user who asked for details.
    fn detail(&self, _text: &str) {}

    /// The plan that is about to be executed, and what preflight found about it.
    ///
    /// # Errors The plan can't be shown. The run ends before its first write.
    fn plan(&self, session: &Session, plan: &Plan, policy: &Policy, notes: Vec<String>) -> Result<(), Failure>;

    /// Returns whether to continue. `losses` hold a tenant's work or data: each address must be confirmed.
    ///
    /// # Errors Nobody can be asked.
    async fn confirm(&self, losses: &BTreeSet<Address>) -> Result<bool, Failure>;

    /// Receives events until the channel closes after the last write.
    ///
    /// # Errors The events can't be shown. The run continues, and its [result](super::Ran) has the failure.
    async fn follow(&self, events: UnboundedReceiver<Event>, clock: &Clock) -> Result<(), Failure>;
}

/// Shows nothing, and confirms everything.
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
