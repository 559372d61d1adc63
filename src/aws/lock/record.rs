//! The values of the lock's parameters, and reading them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use gethostname::gethostname;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::clock::Clock;

/// The longest time between two heartbeats of a live holder.
pub const LEASE: Duration = Duration::from_secs(60);

/// The value of a generation's parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Identifies the run: no other run has the same id.
    pub(super) id: String,
    pub(super) command: String,
    pub(super) host: String,
    pub(super) process: u32,
    pub(super) caller: String,
    pub(super) since: Timestamp,
    pub(super) lease_seconds: f64,
    pub(super) heartbeat: u64,
    pub(super) released: bool,
}

impl Record {
    pub(super) fn new(command: &str, caller: &str, lease: Duration) -> Self {
        let id = RandomState::new().build_hasher().finish();
        Self {
            id: format!("{id:016x}"),
            command: command.to_owned(),
            host: host(),
            process: std::process::id(),
            caller: caller.to_owned(),
            since: Clock::timestamp(),
            lease_seconds: lease.as_secs_f64(),
            heartbeat: 0,
            released: false,
        }
    }
}

fn host() -> String {
    match gethostname().to_string_lossy().trim() {
        "" => "an unnamed host".to_owned(),
        name => name.to_owned(),
    }
}

/// One generation, as read from SSM.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub(super) generation: u64,
    pub(super) name: String,
    /// SSM's own version number of the parameter. Each write increments it.
    pub(super) version: i64,
    /// `None`: the value isn't a record of ringfence.
    pub(super) record: Option<Record>,
}

impl Seen {
    pub fn released(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.released)
    }

    pub(super) fn lease(&self) -> Duration {
        let seconds = self.record.as_ref().map(|r| r.lease_seconds);
        seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(LEASE)
    }

    pub(super) fn is(&self, record: &Record) -> bool {
        self.record.as_ref().is_some_and(|r| r.id == record.id)
    }

    /// The holder in words: its command, computer, process, caller and start.
    pub fn holder(&self) -> String {
        match &self.record {
            Some(r) => {
                format!("`{}` on {}, process {}, as {}, since {:.0}", r.command, r.host, r.process, r.caller, r.since)
            }
            None => format!("an unknown holder, whose record in {} can't be read", self.name),
        }
    }
}
