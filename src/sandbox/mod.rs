//! A strict AWS stand-in, small and in the binary: what `ringfence` needs of AWS, on AWS's real wire protocols.

mod clock;
mod ec2;
mod eks;
mod iam;
mod k8s;
mod kms;
mod logs;
mod quotas;
mod ssm;
mod state;
mod sts;
mod wire;

use clock::Clock;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use state::State;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wire::{Fault, HttpRequest, HttpResponse, Reply, Request, Service};

/// No AWS request of these services is larger (SSM's 8 KB parameters, EC2's 16 KB user data, CRDs of a megabyte or two).
const MAX_BODY: usize = 8 << 20;

/// How a sandbox starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// The account of every access key that is neither 12 digits nor issued by AssumeRole.
    pub account: String,
    /// Users and roles that exist from the beginning, by ARN.
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
        }
    }
}

/// A sandbox that listens, until it is shut down or dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    core: Arc<Core>,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Binds `addr` (port 0 picks a free one) and serves on the current tokio runtime.
    ///
    /// # Errors
    /// The address can't be bound, the saved state can't be read, or the record file can't be opened.
    pub fn start(options: Options, addr: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let addr = listener.local_addr()?;
        let core = Arc::new(Core::open(options, format!("http://{addr}"))?);
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(accept(listener, Arc::clone(&core), stopped));
        Ok(Self { addr, core, stop, task })
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
        // The task ends by itself; it fails only if it was aborted, which then also ends it.
        let _ended = self.task.await;
        self.core.lock().save()
    }

    /// Calls so far, by service and operation.
    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        self.core.lock().counts.clone()
    }

    /// All that the accounts hold now, for comparing before with after.
    pub fn dump(&self) -> Value {
        let mut inner = self.core.lock();
        let now = inner.clock.now();
        inner.state.settle_all(now);
        serde_json::to_value(&inner.state.accounts).unwrap_or_default()
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
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    clock: Clock,
    counts: BTreeMap<(String, String), u64>,
    state_file: Option<PathBuf>,
    record: Option<std::fs::File>,
}

impl Inner {
    /// Writes a new file and renames it over the old one, so that a killed run never leaves half a state.
    fn save(&mut self) -> io::Result<()> {
        let Some(file) = &self.state_file else { return Ok(()) };
        self.state.saved_at = Some(self.clock.now());
        let next = file.with_extension("json.new");
        std::fs::write(&next, serde_json::to_vec(&self.state)?)?;
        std::fs::rename(&next, file)
    }
}

impl Core {
    fn open(options: Options, base_url: String) -> io::Result<Self> {
        let state_file = options.state_dir.map(|dir| dir.join("state.json"));
        let mut state = match &state_file {
            Some(file) => load(file)?,
            None => State::default(),
        };
        state.quotas = options.quotas;
        let clock = match options.manual_clock {
            Some(from) => Clock::manual(state.saved_at.unwrap_or(from)),
            None => Clock::running(state.saved_at, options.speed),
        };
        for arn in &options.principals {
            iam::seed_principal(&mut state, arn, clock.now());
        }
        let record = match options.record {
            Some(path) => Some(std::fs::File::options().create(true).append(true).open(path)?),
            None => None,
        };
        let inner = Inner { state, clock, counts: BTreeMap::new(), state_file, record };
        Ok(Self { base_url, account: options.account, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, http: HttpRequest) -> HttpResponse {
        let inner = &mut *self.lock();
        let now = inner.clock.now();
        if http.path.starts_with("/k8s/") {
            let reads = http.method == "GET";
            let answer = k8s::handle(&mut inner.state, now, http);
            return match if reads { Ok(()) } else { inner.save() } {
                Ok(()) => answer,
                Err(why) => plain(500, &unsaved(&why).message),
            };
        }
        let request_id = inner.state.ids.uuid();
        let signed = wire::scope(&http);
        if http.path == "/" && http.method == "GET" && signed.is_err() {
            return plain(200, "ringfence sandbox: a stand-in for AWS, not AWS. Point AWS_ENDPOINT_URL here.\n");
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
            Err(fault) => return wire::encode_unattributed(&http, &request_id, &fault),
        };
        let (operation, params) = match wire::decode(service, &http) {
            Ok(decoded) => decoded,
            Err(fault) => return wire::encode(service, "", &request_id, &Err(fault)),
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
        let reply = inner.call(&request);
        wire::encode(service, &request.operation, &request.request_id, &reply)
    }
}

impl Inner {
    fn call(&mut self, request: &Request) -> Reply {
        let Request { service, operation, account, region, params, now, .. } = request;
        *self.counts.entry((service.name().to_owned(), operation.clone())).or_default() += 1;
        if let Some(record) = &mut self.record {
            let line = json!({"service": service.name(), "operation": operation, "params": params, "account": account, "region": region});
            writeln!(record, "{line}").map_err(|why| unsaved(&why))?;
        }
        self.state.settle(account, region, *now);
        let serve = match service {
            Service::Ec2 => ec2::call,
            Service::Iam => iam::call,
            Service::Sts => sts::call,
            Service::Kms => kms::call,
            Service::Logs => logs::call,
            Service::Ssm => ssm::call,
            Service::Quotas => quotas::call,
            Service::Eks => eks::call,
        };
        let reply = serve(&mut self.state, request);
        let reads = ["Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb));
        if reply.is_ok() && !reads {
            self.save().map_err(|why| unsaved(&why))?;
        }
        reply
    }
}

fn unsaved(why: &io::Error) -> Fault {
    let message = format!("ringfence's sandbox can't write its files: {why}. Free space or give a directory that can be written, and try again");
    Fault::new(500, "InternalFailure", message)
}

fn load(file: &Path) -> io::Result<State> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| {
            let message = format!("{} holds no sandbox state: {why}. Move it away to begin with an empty sandbox", file.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        }),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(why) => Err(why),
    }
}

fn plain(status: u16, text: &str) -> HttpResponse {
    let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
    HttpResponse { status, headers, body: text.as_bytes().to_vec() }
}

async fn accept(listener: TcpListener, core: Arc<Core>, mut stopped: watch::Receiver<()>) {
    loop {
        let stream = tokio::select! {
            _ = stopped.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of file handles, or a client that left at once: the next one may fare better.
                Err(_) => {
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
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

async fn serve(core: Arc<Core>, request: hyper::Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, http::Error> {
    let (parts, body) = request.into_parts();
    let answer = match Limited::new(body, MAX_BODY).collect().await {
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
        Err(why) => plain(413, &format!("The body can't be read: {why}\n")),
    };
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(Bytes::from(answer.body)))
}
