//! A strict AWS stand-in inside the binary: the operations that ringfence needs, on AWS's real wire protocols.
//!
//! It runs embedded (`--sandbox`) or as a server for any AWS client (`ringfence sandbox --listen …`). It shares no type
//! with the rest of the crate: both sides only meet on the wire, so that one mistake can't be in both and go unnoticed.
//!
//! # Why its own
//! Existing emulators (moto 5.2.5, ministack 1.5.33, winterbaume; measured with 124 probes) mislead a provisioner that
//! trusts them. The one that a Rust program can embed fails or half passes 98 of those probes. This sandbox gets right
//! what they get wrong:
//! - client tokens: the same call again returns the same resource; another call with that token is an error;
//! - time: clusters, node groups, add-ons, NAT gateways and interface endpoints pass through their states on a clock that
//!   runs at any speed, or stands still for tests;
//! - references: subnets, groups, roles, launch templates, keys and versions must exist and match each other;
//! - deletion protection, and the order of deletion: `DependencyViolation` and similar errors wherever AWS has them;
//! - no sent value is lost, none is invented, so a plan after an apply shows no difference;
//! - filters, page sizes and their bounds; an unknown filter or operation gets AWS's own error, never HTML;
//! - accounts (12-digit access keys, assumed roles) and regions share no state.
//!
//! What it leaves out: it checks no signatures, and IAM permissions only with `--enforce-iam`. Nodes and pods don't
//! run. It has only the operations that ringfence uses, and a few more by which tests make resources that aren't
//! ringfence's.
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

mod clock;
mod ec2;
mod eks;
mod fate;
mod faults;
mod iam;
mod k8s;
mod kms;
mod logs;
mod quotas;
mod ssm;
mod state;
mod sts;
mod wire;

use crate::files;
use clock::Clock;
use fate::Fates;
pub use faults::Script;
use faults::{Call, Faults, Verdict, What};
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::TokioIo;
use iam::enforce::{self, Checks};
pub use quotas::fresh as fresh_quotas;
use serde_json::{Value, json};
use state::{Ids, State};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use wire::{Fault, HttpRequest, HttpResponse, Reply, Request, Service};

/// No request to these services is larger (SSM has parameters of 8 KB, EC2 user data of 16 KB; CRDs have a megabyte or
/// two).
const MAX_BODY: usize = 8 << 20;

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
    /// The bytes are no snapshot.
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

#[derive(Debug)]
struct Core {
    base_url: String,
    account: String,
    /// `state.json` in the state directory.
    state_file: Option<PathBuf>,
    /// The locked state directory. Without the lock, two sandboxes would overwrite each other's state.
    held: Option<File>,
    changed: Notify,
    died: watch::Sender<bool>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    clock: Clock,
    counts: BTreeMap<(String, String), u64>,
    /// Separate from the ids of the state, so that a read doesn't change the id of the next resource.
    request_ids: Ids,
    record: Option<File>,
    faults: Faults,
    checks: Option<Checks>,
    history: Option<Vec<Vec<u8>>>,
    /// Why the last save failed. Changes are refused until a save succeeds.
    unsaved: Option<String>,
}

impl Core {
    fn open(options: Options, base_url: String) -> io::Result<Self> {
        let held = options.state_dir.as_deref().map(hold).transpose()?.flatten();
        let state_file = options.state_dir.map(|dir| dir.join("state.json"));
        let mut state = match &state_file {
            Some(file) => load(file)?,
            None => State::default(),
        };
        state.quotas = options.quotas;
        state.set_fates(Fates::new(options.faults.resources()));
        let clock = match options.manual_clock {
            Some(from) => Clock::manual(state.saved_at.unwrap_or(from)),
            None => Clock::running(state.saved_at, options.speed),
        };
        for arn in &options.principals {
            iam::seed_principal(&mut state, arn, clock.now());
        }
        let record = match options.record {
            Some(path) => Some(File::options().create(true).append(true).open(path)?),
            None => None,
        };
        let inner = Mutex::new(Inner {
            state,
            clock,
            counts: BTreeMap::new(),
            request_ids: Ids::default(),
            record,
            faults: Faults::new(options.faults),
            checks: options.enforce_iam.then(Checks::default),
            history: None,
            unsaved: None,
        });
        let (died, _) = watch::channel(false);
        let core = Self { base_url, account: options.account, state_file, held, changed: Notify::new(), died, inner };
        // A directory that can't be written is an error before the first call.
        core.save()?;
        Ok(core)
    }

    /// Replaces the state file as a whole.
    fn save(&self) -> io::Result<()> {
        let Some(file) = &self.state_file else { return Ok(()) };
        let bytes = self.lock().snapshot()?;
        let saved = files::write(file, &bytes, 0o666);
        let saved = saved.map_err(|why| io::Error::new(why.kind(), at(file, "can't be written", why)));
        self.lock().unsaved = saved.as_ref().err().map(io::Error::to_string);
        saved
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, http: HttpRequest) -> Answer {
        let inner = &mut *self.lock();
        let now = inner.clock.now();
        if http.path.starts_with("/k8s/") {
            return self.answer_cluster(inner, now, http);
        }
        let request_id = inner.request_ids.uuid();
        let signed = wire::scope(&http);
        if http.path == "/" && http.method == "GET" && signed.is_err() {
            return plain(200, "ringfence sandbox: a stand-in for AWS, not AWS. Point AWS_ENDPOINT_URL here.\n").into();
        }
        let signed = signed.and_then(|scope| match Service::from_signing_name(&scope.service) {
            Some(service) => Ok((scope, service)),
            None => {
                let message = format!("ringfence's sandbox has no service {:?}", scope.service);
                Err(Fault::new(400, "UnknownOperationException", message))
            }
        });
        let (scope, service) = match signed {
            Ok(signed) => signed,
            Err(fault) => return wire::encode_unattributed(&http, &request_id, &fault).into(),
        };
        let (operation, params) = match wire::decode(service, &http) {
            Ok(decoded) => decoded,
            Err(fault) => return wire::encode(service, "", &request_id, &Err(fault)).into(),
        };
        let (account, caller) = sts::caller(&inner.state, &self.account, &scope);
        let request = Request {
            service,
            operation,
            account,
            region: scope.region,
            caller,
            params,
            now,
            base_url: self.base_url.clone(),
            request_id,
        };
        let reads = ["Describe", "Get", "List", "Simulate"].iter().any(|verb| request.operation.starts_with(verb));
        let call = Call { service: service.name(), operation: &request.operation, reads, params: &request.params };
        let verdict = self.judge(inner, &call);
        let undone = verdict.as_ref().filter(|verdict| !verdict.done).map(|verdict| verdict.what.fault(service));
        let reply = match undone {
            Some(Some(fault)) => Err(fault),
            Some(None) => Ok(json!({})),
            None => match &inner.unsaved {
                Some(why) if !reads => Err(unsaved(why)),
                _ => inner.call(&request, reads),
            },
        };
        if !reads {
            self.changed(inner);
        }
        // The call is carried out, but its answer is this fault.
        let told = verdict.as_ref().filter(|verdict| verdict.done).and_then(|verdict| verdict.what.fault(service));
        let reply = told.map_or(reply, Err);
        let response = wire::encode(service, &request.operation, &request.request_id, &reply);
        Answer::new(response, verdict, inner.clock.speed(), &request.params)
    }

    fn answer_cluster(&self, inner: &mut Inner, now: f64, http: HttpRequest) -> Answer {
        let reads = http.method == "GET" || http.query.contains("dryRun=All");
        if let (false, Some(why)) = (reads, &inner.unsaved) {
            return plain(500, &unsaved(why).message).into();
        }
        let params = json!({"path": http.path, "query": http.query, "body": String::from_utf8_lossy(&http.body)});
        let call = Call { service: "k8s", operation: &http.method, reads, params: &params };
        let verdict = self.judge(inner, &call);
        let status = verdict.as_ref().and_then(|verdict| verdict.what.status()).map(|(status, body)| HttpResponse {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        });
        let undone = verdict.as_ref().is_some_and(|verdict| !verdict.done);
        let done = if undone { plain(200, "") } else { k8s::handle(&mut inner.state, now, http) };
        if !reads {
            self.changed(inner);
        }
        Answer::new(status.unwrap_or(done), verdict, inner.clock.speed(), &params)
    }

    fn changed(&self, inner: &mut Inner) {
        self.changed.notify_one();
        if inner.history.is_some()
            && let Ok(now) = inner.snapshot()
        {
            inner.history.get_or_insert_default().push(now);
        }
    }

    fn judge(&self, inner: &mut Inner, call: &Call) -> Option<Verdict> {
        let verdict = inner.faults.judge(call, inner.clock.now());
        if inner.faults.is_dead() {
            self.died.send_if_modified(|died| !std::mem::replace(died, true));
        }
        verdict
    }
}

impl Inner {
    fn snapshot(&mut self) -> io::Result<Vec<u8>> {
        self.state.saved_at = Some(self.clock.now());
        Ok(serde_json::to_vec(&self.state)?)
    }

    fn call(&mut self, request: &Request, reads: bool) -> Reply {
        let Request { service, operation, account, region, params, now, .. } = request;
        *self.counts.entry((service.name().to_owned(), operation.clone())).or_default() += 1;
        if let Some(record) = &mut self.record {
            let line = json!({"service": service.name(), "operation": operation, "params": params, "account": account, "region": region});
            writeln!(record, "{line}")
                .map_err(|why| unsaved(&format!("the record of calls can't be written: {why}")))?;
        }
        if let Some(checks) = &mut self.checks {
            enforce::check(&self.state, request, checks)?;
        }
        if let Some(mut past) = self.faults.past(service.name(), *now) {
            let known = serve_call(&mut past, request);
            if reads {
                return known;
            }
            // Eventual consistency of changes: the checks of a change may not see a new resource that it refers to, or
            // still see a deleted one. Other refusals (a name that is taken, a missing permission) always see the
            // present state.
            if let Err(fault) = known.as_ref()
                && faults::is_about_others(fault)
                && serve_call(&mut self.state.clone(), request).is_ok()
            {
                return known;
            }
        }
        if !reads {
            self.faults.remember(*now, &self.state);
        }
        serve_call(&mut self.state, request)
    }
}

/// Brings the region up to date and serves the call.
fn serve_call(state: &mut State, request: &Request) -> Reply {
    // Quotas have no state in a region. IAM's quotas are read in a region that may hold nothing else, and settling
    // would create it.
    if !matches!(request.service, Service::Quotas) {
        state.settle(&request.account, &request.region, request.now);
    }
    let serve = match request.service {
        Service::Ec2 => ec2::call,
        Service::Iam => iam::call,
        Service::Sts => sts::call,
        Service::Kms => kms::call,
        Service::Logs => logs::call,
        Service::Ssm => ssm::call,
        Service::Quotas => quotas::call,
        Service::Eks => eks::call,
    };
    serve(state, request)
}

/// An answer, and how it is delivered to the client.
struct Answer {
    response: HttpResponse,
    delivery: Delivery,
}

enum Delivery {
    Whole,
    /// The answer comes after so many real seconds.
    Late(f64),
    /// Only the first half of the body is sent.
    Half,
    /// The connection closes without an answer.
    Nothing,
    /// The connection stays open without an answer.
    Silence,
}

impl From<HttpResponse> for Answer {
    fn from(response: HttpResponse) -> Self {
        Self { response, delivery: Delivery::Whole }
    }
}

impl Answer {
    fn new(mut response: HttpResponse, verdict: Option<Verdict>, speed: f64, params: &Value) -> Self {
        let delivery = match verdict.map(|verdict| verdict.what) {
            Some(What::Drop) => Delivery::Nothing,
            Some(What::Hang | What::Die) => Delivery::Silence,
            Some(What::Cut) => Delivery::Half,
            Some(What::Delay(seconds)) => Delivery::Late(seconds / speed),
            Some(What::Html) => {
                let (status, body) = faults::page(params);
                let headers = vec![("content-type".to_owned(), "text/html".to_owned())];
                response = HttpResponse { status, headers, body };
                Delivery::Whole
            }
            _ => Delivery::Whole,
        };
        Self { response, delivery }
    }
}

fn unsaved(why: &str) -> Fault {
    let message =
        format!("ringfence's sandbox can't keep its state: {why}. Free space or give another directory, and try again");
    Fault::new(500, "InternalFailure", message)
}

/// An I/O error with the name of the file.
fn at(file: &Path, what: &str, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{} {what}: {why}", file.display()))
}

/// Makes `dir` and locks the directory itself for this process; no lock file is needed. The operating system releases
/// the lock when the process ends in any way. `None`: directories can't be opened or locked here, as on Windows and
/// some network file systems.
#[allow(clippy::disallowed_methods, reason = "a second at most, before anything is served")]
fn hold(dir: &Path) -> io::Result<Option<File>> {
    std::fs::create_dir_all(dir).map_err(|why| at(dir, "can't be made a directory", why))?;
    let Ok(held) = File::open(dir) else { return Ok(None) };
    let mut tries = 50;
    loop {
        match held.try_lock() {
            Ok(()) => return Ok(Some(held)),
            // A child process of the former holder inherits the descriptor, and with it the lock, between fork and
            // exec. So a locked directory may become free within a moment.
            Err(TryLockError::WouldBlock) if tries > 0 => tries -= 1,
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!("another process has {} open as its sandbox", dir.display()),
                ));
            }
            Err(TryLockError::Error(_)) => return Ok(None),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn load(file: &Path) -> io::Result<State> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|why| at(file, "holds no sandbox state (move it away to begin with an empty sandbox)", why)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(why) => Err(at(file, "can't be read", why)),
    }
}

fn plain(status: u16, text: &str) -> HttpResponse {
    let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
    HttpResponse { status, headers, body: text.as_bytes().to_vec() }
}

/// Saves after changes. Saving takes at most a fifth of the time.
async fn keep_saved(core: Arc<Core>, mut stopped: watch::Receiver<()>) {
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            () = core.changed.notified() => {}
        }
        let started = clock::Stopwatch::start();
        if core.save().is_err() {
            // The next call that changes something gets the error. The save is tried again, because the cause may go
            // away.
            core.changed.notify_one();
        }
        started.pause(4.0).await;
    }
}

async fn accept(listener: TcpListener, core: Arc<Core>, mut stopped: watch::Receiver<()>) {
    loop {
        let stream = tokio::select! {
            _ = stopped.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // The process has no file descriptors left, or the client closed at once. The next connection may
                // succeed.
                Err(_) => {
                    clock::Stopwatch::start().pause(1.0).await;
                    continue;
                }
            },
        };
        // A failure only makes answers slower.
        let _set = stream.set_nodelay(true);
        let core = Arc::clone(&core);
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| serve(Arc::clone(&core), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            // A broken connection is an error for the client, not for the sandbox.
            let _ended = tokio::select! {
                ended = connection.as_mut() => ended,
                _ = stopped.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
        });
    }
}

type Body = BoxBody<Bytes, io::Error>;

async fn serve(core: Arc<Core>, request: hyper::Request<Incoming>) -> io::Result<hyper::Response<Body>> {
    let (parts, body) = request.into_parts();
    let Answer { response: answer, delivery } = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => core.answer(HttpRequest {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect(),
            body: body.to_bytes().to_vec(),
        }),
        Err(why) => plain(413, &format!("The body can't be read: {why}\n")).into(),
    };
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let bytes = Bytes::from(answer.body);
    let body = match delivery {
        Delivery::Nothing => return Err(io::ErrorKind::ConnectionReset.into()),
        Delivery::Silence => std::future::pending().await,
        Delivery::Half => {
            response = response.header("content-length", bytes.len() + 1);
            let half = Frame::data(bytes.slice(..bytes.len() / 2));
            StreamBody::new(stream::iter([Ok(half), Err(io::ErrorKind::ConnectionReset.into())])).boxed()
        }
        Delivery::Late(_) | Delivery::Whole => Full::new(bytes).map_err(|never| match never {}).boxed(),
    };
    if let Delivery::Late(seconds) = delivery {
        clock::pause(seconds).await;
    }
    response.body(body).map_err(io::Error::other)
}
