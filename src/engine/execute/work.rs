//! A step that is carried out, with the data of its run.

use std::sync::Arc;
use std::time::Duration;

use super::executor::Executor;
use super::shared::Shared;
use crate::engine::event::Event;
use crate::engine::kind::{Found, Handle, Handlers, Kind};
use crate::engine::plan::Step;

/// A step that is carried out.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub executor: &'a Executor,
    pub i: usize,
    pub step: &'a Step,
    pub kind: &'a Arc<dyn Kind>,
    pub handlers: &'a Arc<dyn Handlers>,
    pub shared: &'a Shared,
    /// The cluster in which the step works, if any.
    pub host: Option<&'a str>,
    /// The time limits for calls and for waiting.
    pub limit: Duration,
    /// True if this run started the operation. Then it waits for the end of it even if the user stops the run.
    pub ours: bool,
}

impl Work<'_> {
    /// The step's cluster has answered, so the other steps may call it, too.
    pub fn heard(&self) {
        self.host.into_iter().for_each(|host| self.shared.heard(host));
    }

    pub fn progress(&self, shown: &mut String, detail: String) {
        if *shown != detail {
            let address = self.step.address.clone();
            self.executor.send(Event::Progress { step: self.i, address, detail: detail.clone() });
            *shown = detail;
        }
    }

    pub fn is_slow(&self) -> bool {
        self.executor.pace(self.step).0 >= Duration::from_secs(30)
    }
}

pub(super) fn handle(found: &Found) -> Handle {
    Handle {
        address: found.address.clone(),
        generation: found.generation,
        id: found.id.clone(),
        state: found.state.clone(),
    }
}
