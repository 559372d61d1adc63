//! A strict AWS stand-in inside the binary: what ringfence needs of AWS, on AWS's real wire protocols.
//!
//! It runs embedded (`--sandbox`) or served (`ringfence sandbox --listen …`) to any AWS client, and shares no type with
//! the rest of the crate: both sides know each other by the wire alone, so that one mistake isn't made twice.
//!
//! # Why its own
//! Existing emulators (moto 5.2.5, ministack 1.5.33, winterbaume; measured with 124 probes) mislead a provisioner that
//! trusts them, and the one that a Rust program can embed fails or half passes 98 of those probes. This one gets
//! right what they don't:
//! - client tokens: the same call again gives the same thing, another call with that token is an error;
//! - time: clusters, node groups, add-ons, NAT gateways and interface endpoints pass through their states on a clock that
//!   runs at any speed, or stands still for tests;
//! - references: subnets, groups, roles, launch templates, keys and versions must exist and fit each other;
//! - deletion protection, and the order of teardown: `DependencyViolation` and its kin wherever AWS has them;
//! - nothing that was sent is lost or invented, so a plan after an apply shows no difference;
//! - filters, page sizes and their bounds; an unknown filter or operation is AWS's own error for that, never HTML;
//! - accounts (12-digit access keys, assumed roles) and regions are worlds apart.
//!
//! What it leaves out: signatures aren't checked, IAM permissions only where that is asked for, nodes and pods don't run,
//! and only operations that ringfence uses exist, with the few more that a test needs to plant what isn't ringfence's.
//!
//! # How it is built
//! `wire` turns an HTTP request of any of the four protocols into a `Request` with JSON parameters, and a JSON reply or a
//! `Fault` into a response. One mutex guards one `State`; each service is a synchronous
//! function `call(&mut State, &Request) -> Reply` in a module of its own. Nothing runs in the background: before each
//! call the region's states are settled from simulated time. With a directory, changes are saved within moments, as one
//! file that is replaced whole: a killed run leaves the state as it was shortly before, never half of it.
//!
//! # Sources
//! Shapes, names and errors: the service models in botocore 1.44.5. Rules, limits and texts: the API references and user
//! guides of EC2, VPC, EKS, IAM, STS, KMS, CloudWatch Logs, Systems Manager and Service Quotas; texts that clients match on: the AWS
//! provider of terraform, and errors that its users report.

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

/// No AWS request of these services is larger (SSM's 8 KB parameters, EC2's 16 KB user data, CRDs of a megabyte or two).
const MAX_BODY: usize = 8 << 20;

/// How a sandbox starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// The account of every access key that is neither 12 digits nor issued by AssumeRole.
    pub account: String,
    /// Users, roles and managed policies that exist from the beginning, by ARN.
    pub principals: Vec<String>,
    /// Simulated seconds in a real one.
    pub speed: f64,
    /// Stands still at these unix seconds, moved by [`Server::advance`] only; `speed` is then without meaning.
    pub manual_clock: Option<f64>,
    /// Keeps the state in `state.json` of this directory, which is made if it is missing.
    pub state_dir: Option<PathBuf>,
    /// Quotas by code (`L-…`) or name, over those of a production account.
    pub quotas: BTreeMap<String, f64>,
    /// Gets one JSON line for each call.
    pub record: Option<PathBuf>,
    /// What goes wrong.
    pub faults: Script,
    /// Calls with keys that AssumeRole issued are held to the role's policies.
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

/// A sandbox that listens, until it is shut down or dropped.
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

    /// Stops listening, closes connections after the answers under way, and saves the state.
    ///
    /// # Errors
    /// The state can't be saved.
    pub async fn shutdown(self) -> io::Result<()> {
        drop(self.stop);
        for task in self.tasks {
            // It ends by itself; it fails only if it was aborted, which ends it too.
            let _ended = task.await;
        }
        let saved = self.core.save();
        // A connection that is still closing may keep the core alive for a moment.
        if let Some(held) = &self.core.held {
            held.unlock()?;
        }
        saved
    }

    /// Calls so far, by service and operation.
    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        self.core.lock().counts.clone()
    }

    /// All that the accounts hold now, for comparing before with after. Deleted NAT gateways stay for an hour and
    /// client tokens for a day: advance past them first.
    pub fn dump(&self) -> Value {
        let mut inner = self.core.lock();
        let now = inner.clock.now();
        inner.state.settle_all(now);
        serde_json::to_value(&inner.state.accounts).unwrap_or_default()
    }

    /// Everything as it is now, as in `state.json`.
    ///
    /// # Errors
    /// It can't be written as JSON.
    pub fn snapshot(&self) -> io::Result<Vec<u8>> {
        self.core.lock().snapshot()
    }

    /// Makes everything as it was, no earlier than it was then.
    ///
    /// # Errors
    /// It is no snapshot.
    pub fn restore(&self, snapshot: &[u8]) -> io::Result<()> {
        let inner = &mut *self.core.lock();
        let State { quotas, fates, .. } = std::mem::take(&mut inner.state);
        inner.state = State { quotas, fates, ..serde_json::from_slice(snapshot)? };
        let behind = inner.state.saved_at.unwrap_or_default() - inner.clock.now();
        inner.clock.advance(behind.max(0.0));
        Ok(())
    }

    /// From now on everything is kept as each change leaves it.
    pub fn keep_history(&self) {
        self.core.lock().history = Some(Vec::new());
    }

    /// Everything as each change left it: what there is if who calls dies there.
    pub fn take_history(&self) -> Vec<Vec<u8>> {
        self.core.lock().history.take().unwrap_or_default()
    }

    /// From now on `script` says what goes wrong: the dead are answered again, and what was stuck goes on.
    pub fn set_faults(&self, script: Script) {
        let inner = &mut *self.core.lock();
        inner.state.set_fates(Fates::new(script.resources()));
        inner.faults = Faults::new(script);
        let _nobody_watches = self.core.died.send(false);
    }

    /// How many calls the script struck, and how many it judged.
    pub fn struck(&self) -> (u64, u64) {
        self.core.lock().faults.struck()
    }

    /// The actions that assumed roles were asked to be allowed, and the refusals; empty without `enforce_iam`.
    pub fn permissions(&self) -> (BTreeSet<String>, Vec<String>) {
        let inner = self.core.lock();
        let checks = inner.checks.as_ref();
        checks.map(|checks| (checks.needed.clone(), checks.refused.clone())).unwrap_or_default()
    }

    /// Becomes true when a script says that who calls has died.
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
    /// The state directory, locked: two sandboxes would overwrite each other's state.
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
    /// Apart from the state's, so that reading changes no id of what is made next.
    request_ids: Ids,
    record: Option<File>,
    faults: Faults,
    checks: Option<Checks>,
    history: Option<Vec<Vec<u8>>>,
    /// Why the last save failed: changes are refused until one succeeds.
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
        // A directory that can't be written shows before any work is done.
        core.save()?;
        Ok(core)
    }

    /// Replaces the state file whole.
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
        // Work that was done and told as a failure.
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
            // What a change refers to may not be known yet where it is checked, or still be known where it is gone.
            // Names that are taken, and what isn't allowed, are checked at the source.
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
    // Quotas have nothing in a region, and IAM's are asked for in one where there may be nothing else.
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

/// An answer, and how it gets to who asked.
struct Answer {
    response: HttpResponse,
    delivery: Delivery,
}

enum Delivery {
    Whole,
    /// After so many real seconds.
    Late(f64),
    /// The first half of the body.
    Half,
    /// The connection closes.
    Nothing,
    /// The connection stays open.
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

/// An error that names the file.
fn at(file: &Path, what: &str, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{} {what}: {why}", file.display()))
}

/// Makes `dir`, and locks it for this process without a file of its own; the system lets go when the process ends,
/// however it ends. None where directories can't be opened or locked, as on Windows and some network file systems.
#[allow(clippy::disallowed_methods, reason = "a second at most, before anything is served")]
fn hold(dir: &Path) -> io::Result<Option<File>> {
    std::fs::create_dir_all(dir).map_err(|why| at(dir, "can't be made a directory", why))?;
    let Ok(held) = File::open(dir) else { return Ok(None) };
    let mut tries = 50;
    loop {
        match held.try_lock() {
            Ok(()) => return Ok(Some(held)),
            // What the former holder starts has it, too, until it is another program.
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

/// Saves after changes, a fifth of the time at most.
async fn keep_saved(core: Arc<Core>, mut stopped: watch::Receiver<()>) {
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            () = core.changed.notified() => {}
        }
        let started = clock::Stopwatch::start();
        if core.save().is_err() {
            // The failure is kept, and told to whoever changes something; try again, in case it goes away.
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
                // Out of file handles, or a client that left at once: the next one may fare better.
                Err(_) => {
                    clock::Stopwatch::start().pause(1.0).await;
                    continue;
                }
            },
        };
        // Without it, answers would only be slower.
        let _set = stream.set_nodelay(true);
        let core = Arc::clone(&core);
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| serve(Arc::clone(&core), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            // A connection that breaks is the client's to notice.
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
