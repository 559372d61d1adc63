//! The events of a run. Only the user interface prints them.

use std::time::Duration;

use serde::Serialize;

use super::address::Address;
use super::error::Error;
use super::plan::Action;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The run begins.
    Begin {
        steps: usize,
        /// The expected duration of the run.
        expected: Duration,
    },
    /// A step starts.
    Start { step: usize, address: Address, kind: &'static str, action: Action, expected: Duration },
    /// A started step waits. The text says for what.
    Progress { step: usize, address: Address, detail: String },
    /// A call failed and will be retried.
    Retry { step: usize, address: Address, error: Error, after: Duration },
    /// A step is done.
    Done { step: usize, address: Address, action: Action, id: String, took: Duration },
    /// A step failed permanently.
    Failed { step: usize, address: Address, action: Action, error: Error, took: Duration },
    /// A step can't be done in its cluster: the cluster can't be reached, denies access, or doesn't serve an API.
    Blocked { step: usize, address: Address, action: Action, error: Error, took: Duration },
    /// A step can't start, because a dependency failed or is blocked.
    Skipped { step: usize, address: Address, action: Action, because: Address },
    /// The user asked to stop. No new step starts.
    Stopping { running: usize },
    /// The run is over.
    End { took: Duration },
}

/// The receiver of events.
pub type Events = tokio::sync::mpsc::UnboundedSender<Event>;
