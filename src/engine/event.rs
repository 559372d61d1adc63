//! What happens during a run. The user interface renders these; nothing else
//! prints.

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
        /// How long it takes if each step takes as long as is expected of it.
        expected: Duration,
    },
    /// A step starts.
    Start { step: usize, address: Address, kind: &'static str, action: Action, expected: Duration },
    /// A started step waits for something, in words.
    Progress { step: usize, address: Address, detail: String },
    /// A call failed and will be tried again.
    Retry { step: usize, address: Address, error: Error, after: Duration },
    /// A step is done.
    Done { step: usize, address: Address, action: Action, id: String, took: Duration },
    /// A step failed for good.
    Failed { step: usize, address: Address, action: Action, error: Error, took: Duration },
    /// A step can't be done in its cluster: that can't be reached, doesn't let
    /// us in, or doesn't serve an API.
    Blocked { step: usize, address: Address, action: Action, error: Error, took: Duration },
    /// A step can't start, because something that it needs failed or is
    /// blocked.
    Skipped { step: usize, address: Address, action: Action, because: Address },
    /// The user asked to stop: nothing new starts.
    Stopping { running: usize },
    /// The run is over.
    End { took: Duration },
}

/// Where events go.
pub type Events = tokio::sync::mpsc::UnboundedSender<Event>;
