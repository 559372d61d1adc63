//! A strict AWS stand-in inside the binary: the operations that ringfence needs, on AWS's real wire protocols.
//!
//! It runs embedded (`--sandbox`) or as a server for any AWS client (`ringfence sandbox --listen …`). It shares no type
//! with the rest of the crate: both sides only meet on the wire, so that one mistake can't be in both and go unnoticed.
//!
//! # Why not an existing emulator
//! Existing emulators (moto 5.2.5, ministack 1.5.33, winterbaume; measured with 124 probes) mislead a provisioner that
//! trusts them. The one that a Rust program can embed fails or half passes 98 of those probes. This sandbox is correct
//! in these points, in which they are wrong:
//! - client tokens: the same call again returns the same resource; another call with that token is an error;
//! - time: clusters, node groups, add-ons, NAT gateways and interface endpoints pass through their states on a clock
//!   that runs at any speed, or stands still for tests;
//! - references: subnets, groups, roles, launch templates, keys and versions must exist and match each other;
//! - deletion protection, and the order of deletion: `DependencyViolation` and similar errors wherever AWS has them;
//! - no sent value is lost, none is invented, so a plan after an apply shows no difference;
//! - filters, page sizes and their bounds; an unknown filter or operation gets AWS's own error, never HTML;
//! - accounts (12-digit access keys, assumed roles) and regions share no state.
//!
//! Its limits: it checks no signatures, and it checks IAM permissions only with `--enforce-iam`. Nodes and pods don't
//! run. It has only the operations that ringfence uses, and a few more with which tests create resources of other
//! owners.
//!
//! # How it is built
//! `wire` turns an HTTP request of any of the four protocols into a `Request` with JSON parameters, and a JSON reply or
//! a `Fault` into a response. One mutex guards one `State`; each service is a synchronous function `call(&mut State,
//! &Request) -> Reply` in a module of its own. Nothing runs in the background: before each call, the states of the
//! region's resources are computed for the present simulated time (`settle`). With a directory, changes are saved soon
//! after, in one file that is replaced as a whole: a killed run leaves the state as it was shortly before, never half
//! of it.
//!
//! # Sources
//! Shapes, names and errors: the service models in botocore 1.44.5. Rules, limits and texts: the API references and
//! user guides of EC2, VPC, EKS, IAM, STS, KMS, CloudWatch Logs, Systems Manager and Service Quotas; error texts that
//! clients match: terraform's AWS provider, and errors that its users report.

mod answer;
mod clock;
mod core;
mod disk;
mod ec2;
mod eks;
mod fate;
mod faults;
mod iam;
mod k8s;
mod kms;
mod listen;
mod logs;
mod pages;
mod quotas;
mod ssm;
mod state;
mod sts;
mod tags;
mod wire;

use self::core::{Core, keep_saved};
use fate::Fates;
use faults::Faults;
pub use faults::Script;
use listen::accept;
pub use quotas::fresh as fresh_quotas;
use serde_json::Value;
use state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Options of a sandbox.
#[derive(Debug, Clone)]
pub struct Options {
    /// The account of every access key that is neither 12 digits nor issued by AssumeRole.
    pub account: String,
    /// Users, roles and managed policies that exist from the beginning, by ARN.
    pub principals: Vec<String>,
    /// Simulated seconds in a real one.
    pub speed: f64,
    /// The clock stands still at these unix seconds, and only [`Server::advance`] moves it. `speed` is ignored then.
    pub manual_clock: Option<f64>,
    /// Saves the state in `state.json` of this directory. A missing directory is created.
    pub state_dir: Option<PathBuf>,
    /// Quotas by code (`L-…`) or name. They override those of a production account.
    pub quotas: BTreeMap<String, f64>,
    /// The file to which each call is recorded, one JSON line for a call.
    pub record: Option<PathBuf>,
    /// The fault script.
    pub faults: Script,
    /// Calls with keys of AssumeRole need the permissions of the role's policies.
    pub enforce_iam: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            account: "123456789012".to_owned(),
            principals: Vec::new(),
            speed: 1.0,
            manual_clock: None,
            state_dir: None,
            quotas: BTreeMap::new(),
            record: None,
            faults: Script::default(),
            enforce_iam: false,
        }
    }
}

/// A running sandbox. It listens until it is shut down or dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    core: Arc<Core>,
    stop: watch::Sender<()>,
    tasks: [JoinHandle<()>; 2],
}

impl Server {
    /// Binds `addr` (port 0 picks a free one) and serves on the current tokio runtime.
    ///
    /// # Errors
    /// The address can't be bound, another sandbox has the state directory open, the saved state can't be read, or the
    /// record file can't be opened.
    pub fn start(options: Options, addr: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let addr = listener.local_addr()?;
        let core = Arc::new(Core::open(options, format!("http://{addr}"))?);
        let (stop, stopped) = watch::channel(());
        let saving = tokio::spawn(keep_saved(Arc::clone(&core), stopped.clone()));
        let tasks = [tokio::spawn(accept(listener, Arc::clone(&core), stopped)), saving];
        Ok(Self { addr, core, stop, tasks })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening, finishes the answers that are in progress, closes the connections and saves the state.
    ///
    /// # Errors
    /// The state can't be saved.
    pub async fn shutdown(self) -> io::Result<()> {
        drop(self.stop);
        for task in self.tasks {
            // The task ends by itself. An error only says that it was aborted, which also ends it.
            let _ended = task.await;
        }
        let saved = self.core.save();
        // A connection that is still closing may keep the core alive for a moment. So the directory's lock is released
        // here.
        if let Some(held) = &self.core.held {
            held.unlock()?;
        }
        saved
    }

    /// Calls so far, by service and operation.
    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        self.core.lock().counts.clone()
    }

    /// The state of all accounts, to compare before with after. Deleted NAT gateways stay for an hour, and client
    /// tokens for a day: advance the clock first.
    pub fn dump(&self) -> Value {
        let mut inner = self.core.lock();
        let now = inner.clock.now();
        inner.state.settle_all(now);
        serde_json::to_value(&inner.state.accounts).unwrap_or_default()
    }

    /// The present state, in the form of `state.json`.
    ///
    /// # Errors
    /// The state can't be written as JSON.
    pub fn snapshot(&self) -> io::Result<Vec<u8>> {
        self.core.lock().snapshot()
    }

    /// Replaces the state by a snapshot. The clock doesn't go back.
    ///
    /// # Errors
    /// The bytes aren't a snapshot.
    pub fn restore(&self, snapshot: &[u8]) -> io::Result<()> {
        let inner = &mut *self.core.lock();
        let State { quotas, fates, .. } = std::mem::take(&mut inner.state);
        inner.state = State { quotas, fates, ..serde_json::from_slice(snapshot)? };
        let behind = inner.state.saved_at.unwrap_or_default() - inner.clock.now();
        inner.clock.advance(behind.max(0.0));
        Ok(())
    }

    /// From now on, a snapshot is kept after each change.
    pub fn keep_history(&self) {
        self.core.lock().history = Some(Vec::new());
    }

    /// The snapshots after each change: the state that a client leaves if it dies at that point.
    pub fn take_history(&self) -> Vec<Vec<u8>> {
        self.core.lock().history.take().unwrap_or_default()
    }

    /// Replaces the fault script. Clients that counted as dead are answered again, and stuck resources go on.
    pub fn set_faults(&self, script: Script) {
        let inner = &mut *self.core.lock();
        inner.state.set_fates(Fates::new(script.resources()));
        inner.faults = Faults::new(script);
        let _nobody_watches = self.core.died.send(false);
    }

    /// How many calls got a fault from the script, and how many calls it looked at.
    pub fn struck(&self) -> (u64, u64) {
        self.core.lock().faults.struck()
    }

    /// The actions that were checked for assumed roles, and the refusals. Empty without `enforce_iam`.
    pub fn permissions(&self) -> (BTreeSet<String>, Vec<String>) {
        let inner = self.core.lock();
        let checks = inner.checks.as_ref();
        checks.map(|checks| (checks.needed.clone(), checks.refused.clone())).unwrap_or_default()
    }

    /// Becomes true when the script says that the client has died.
    pub fn died(&self) -> watch::Receiver<bool> {
        self.core.died.subscribe()
    }

    /// Moves simulated time forward.
    pub fn advance(&self, seconds: f64) {
        self.core.lock().clock.advance(seconds);
    }
}
