//! The state behind the server, and the answers to calls.

use super::answer::{Answer, plain};
use super::clock::{self, Clock};
use super::disk::{at, hold, load};
use super::fate::Fates;
use super::faults::{self, Call, Faults, Verdict};
use super::iam::enforce::{self, Checks};
use super::state::{Ids, State};
use super::wire::{self, Fault, HttpRequest, HttpResponse, Reply, Request, Service};
use super::{Options, ec2, eks, iam, k8s, kms, logs, quotas, ssm, sts};
use crate::files;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

#[derive(Debug)]
pub(super) struct Core {
    base_url: String,
    account: String,
    /// `state.json` in the state directory.
    state_file: Option<PathBuf>,
    /// The locked state directory. Without the lock, two sandboxes would overwrite each other's state.
    pub held: Option<File>,
    changed: Notify,
    pub died: watch::Sender<bool>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub state: State,
    pub clock: Clock,
    pub counts: BTreeMap<(String, String), u64>,
    /// Separate from the ids of the state, so that a read doesn't change the id of the next resource.
    request_ids: Ids,
    record: Option<File>,
    pub faults: Faults,
    pub checks: Option<Checks>,
    pub history: Option<Vec<Vec<u8>>>,
    /// Why the last save failed. Changes are refused until a save succeeds.
    unsaved: Option<String>,
}

impl Core {
    pub fn open(options: Options, base_url: String) -> io::Result<Self> {
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
    pub fn save(&self) -> io::Result<()> {
        let Some(file) = &self.state_file else { return Ok(()) };
        let bytes = self.lock().snapshot()?;
        let saved = files::write(file, &bytes, 0o666);
        let saved = saved.map_err(|why| io::Error::new(why.kind(), at(file, "can't be written", why)));
        self.lock().unsaved = saved.as_ref().err().map(io::Error::to_string);
        saved
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn answer(&self, http: HttpRequest) -> Answer {
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
    pub fn snapshot(&mut self) -> io::Result<Vec<u8>> {
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

fn unsaved(why: &str) -> Fault {
    let message = format!(
        "ringfence's sandbox can't save its state: {why}. Free some space or use another directory, and try again"
    );
    Fault::new(500, "InternalFailure", message)
}

/// Saves after changes. Saving takes at most a fifth of the time.
pub(super) async fn keep_saved(core: Arc<Core>, mut stopped: watch::Receiver<()>) {
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
