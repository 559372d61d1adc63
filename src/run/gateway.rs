//! What `ringfence gateway` reads: its configuration, the spec, and its own credentials.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::Failure;
use super::check::registries;
use super::session::written;
use crate::aws::{self, Access, Scope};
use crate::engine::clock::Clock;
use crate::engine::error::{Error, Result};
use crate::engine::value;
use crate::gateway::config::{ClusterConfig, Config, TracesConfig};
use crate::gateway::estate::{Estate, Tenant};
use crate::gateway::who::{self, Authenticators, Time};
use crate::gateway::{Login, Reload, State};
use crate::guard::{Guard, Rights, User};
use crate::k8s;
use crate::kinds::k8s::manifest;
use crate::spec::{self, Isolation, LoadOptions, Spec, TenantAccess};
use crate::stack::{self, Facts};
use crate::telemetry::{Destination, Traces};
use crate::template::Templates;

/// A token for an EKS cluster is replaced this long before it expires.
const MARGIN: Duration = Duration::from_mins(3);

/// Where a gateway's files are.
#[derive(Clone, Debug)]
pub struct Sources {
    pub config: PathBuf,
    pub spec: PathBuf,
    pub profiles: Option<PathBuf>,
    pub templates: Option<PathBuf>,
}

/// The gateway's traces, if its configuration or a variable of the environment says where they go. `failed` hears when
/// they can't be delivered.
///
/// # Errors
/// The destination can't be used.
pub fn traces(
    config: &Config,
    variable: impl Fn(&str) -> Option<String>,
    failed: impl Fn(&Error) + Send + Sync + 'static,
) -> Result<Traces> {
    let TracesConfig { endpoint, certificate_authority, ratio } = &config.traces;
    let Some(destination) = Destination::named(endpoint.as_deref(), *ratio, variable)? else {
        return Ok(Traces::default());
    };
    let tls = who::trusting(certificate_authority.as_deref())?;
    Traces::start("ringfence-gateway", &destination, tls, Handle::current(), failed)
}

/// A gateway's files and credentials, which change while it runs.
pub struct Source {
    sources: Sources,
    clock: Clock,
    last: Mutex<Last>,
}

/// What was read the last time.
#[derive(Default)]
struct Last {
    /// Digests of the configuration, and of all files.
    config: String,
    files: String,
    /// Kept as long as the configuration is, with the keys of issuers.
    who: Option<Arc<Authenticators>>,
    logins: BTreeMap<String, Login>,
    /// When tokens for EKS clusters must be replaced, on the gateway's clock.
    due: BTreeMap<String, Duration>,
    /// The last configuration that could be used. The gateway logs in with it, also while a file is wrong.
    good: Option<Good>,
}

#[derive(Clone)]
struct Good {
    config: Config,
    region: String,
    partition: String,
}

impl Good {
    fn new(config: &Config, spec: &Spec) -> Self {
        Self { config: config.clone(), region: spec.region.clone(), partition: spec.partition().to_owned() }
    }
}

impl Source {
    pub fn new(sources: Sources, clock: Clock) -> Arc<Self> {
        Arc::new(Self { sources, clock, last: Mutex::default() })
    }

    /// Reads all files for the first time, and logs in to the clusters.
    pub async fn first(&self) -> Result<(Config, State), Failure> {
        let (config, spec) = self.read()?;
        let state = self.state(&config, &spec)?;
        let good = Good::new(&config, &spec);
        self.log_in(&good).await?;
        self.last().good = Some(good);
        let who = self.last().who.clone();
        if let Some(who) = who {
            who.warm().await;
        }
        self.last().files = self.digest(&config);
        Ok((config, state))
    }

    /// Gives the gateway what changed. Files are read on a thread of its own, because a large spec takes a second, in
    /// which requests must not wait.
    pub fn reload(self: Arc<Self>) -> Reload {
        Box::new(move || {
            let (source, runtime) = (self.clone(), Handle::current());
            let reading = tokio::task::spawn_blocking(move || runtime.block_on(source.changed()));
            async move {
                let ended = reading.await.map_err(|e| Error::bug(format!("the files can't be read: {e}")))?;
                ended.map_err(plain)
            }
            .boxed()
        })
    }

    async fn changed(&self) -> Result<Option<State>, Failure> {
        let good = self.last().good.clone();
        let logged_in = match good {
            Some(good) => self.log_in(&good).await,
            None => Ok(()),
        };
        let digest = self.digest(&Config::load(&self.sources.config)?);
        if digest == self.last().files {
            return Ok(logged_in.map(|()| None)?);
        }
        let (config, spec) = self.read()?;
        let state = self.state(&config, &spec)?;
        let good = Good::new(&config, &spec);
        self.log_in(&good).await?;
        let mut last = self.last();
        (last.files, last.good) = (digest, Some(good));
        Ok(Some(state))
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<(Config, Spec), Failure> {
        let Sources { config, spec, profiles, .. } = &self.sources;
        let config = Config::load(config)?;
        let options = LoadOptions { profiles_dir: profiles.clone(), today: Clock::today() };
        let text = spec::read(spec).map_err(Failure::from)?;
        Ok((config, spec::load(spec, &text, &options)?))
    }

    fn state(&self, config: &Config, spec: &Spec) -> Result<State, Failure> {
        let templates = Templates::load(self.sources.templates.as_deref())?;
        let known: Vec<&str> = spec.clusters().map(|cluster| written(cluster.owner)).collect();
        if let Some(name) = config.clusters.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(Error::input(format!("`clusters` has `{name}`, which is no cluster of the spec"))
                .help(format!("the spec's clusters are {}", known.join(", ")))
                .into());
        }
        let mut estate = estate(spec, &templates)?;
        // A gateway may serve some of the clusters only, such as the one that it runs in.
        estate.tenants.retain(|_, tenant| config.clusters.contains_key(&tenant.cluster));
        if estate.tenants.is_empty() {
            return Err(Error::input(
                "no tenant with `access` is in one of the configured clusters, so the gateway would refuse everybody",
            )
            .help("name the tenants' identities in `tenants[].access`, and their clusters in `clusters`")
            .into());
        }
        if let Some(aws) = &config.aws {
            let names = spec::names::Names::new(spec);
            if spec.clusters().any(|cluster| names.cluster(cluster.owner) == aws.name) {
                return Err(Error::input(format!("`aws.name` is `{}`, which is the name of a cluster", aws.name))
                    .help("choose another name: tokens for the cluster would also be tokens for the gateway")
                    .into());
            }
        }
        let text = std::fs::read(&self.sources.config).unwrap_or_default();
        let text = hex::encode(Sha256::digest(&text));
        let mut last = self.last();
        let who = match &last.who {
            Some(who) if last.config == text => who.clone(),
            _ => Arc::new(Authenticators::new(config.who(), Time::real(self.clock.clone()))?),
        };
        let logins = config.clusters.keys().map(|name| {
            let known = last.logins.get(name).cloned();
            (name.clone(), known.unwrap_or_default())
        });
        last.logins = logins.collect();
        let state = State::new(config, estate, who.clone(), &last.logins)?;
        (last.config, last.who) = (text, Some(who));
        Ok(state)
    }

    /// Reads the tokens with which the gateway logs in, or makes them before the last ones expire.
    async fn log_in(&self, good: &Good) -> Result<()> {
        let logins = self.last().logins.clone();
        for (name, cluster) in &good.config.clusters {
            let Some(login) = logins.get(name) else { continue };
            let now = self.clock.elapsed();
            if cluster.eks.is_some() && self.last().due.get(name).is_some_and(|due| now < *due) {
                continue;
            }
            let named = |e: Error| Error { message: format!("cluster {name}: {}", e.message), ..e };
            let (token, good_for) = self.token(cluster, good).await.map_err(named)?;
            login.set(&token).map_err(named)?;
            self.last().due.insert(name.clone(), now + good_for);
        }
        Ok(())
    }

    /// A token, and how long it is used.
    async fn token(&self, cluster: &ClusterConfig, good: &Good) -> Result<(String, Duration)> {
        if let Some(file) = &cluster.token_file {
            let token = std::fs::read_to_string(file)
                .map_err(|e| Error::input(format!("the token {} can't be read: {e}", file.display())))?;
            return Ok((token, Duration::ZERO));
        }
        let name = cluster.eks.as_deref().unwrap_or_default();
        let config = aws::load(&Access { region: good.region.clone(), ..Access::default() }, &self.clock).await?;
        let scope = Scope { account: String::new(), region: good.region.clone(), partition: good.partition.clone() };
        let token = k8s::token(&config, &scope, name).await?;
        let left = Duration::try_from(token.expires.duration_since(Clock::timestamp())).unwrap_or_default();
        Ok((token.token, left.saturating_sub(MARGIN)))
    }

    /// The digest of all files that decide about the gateway's answers.
    fn digest(&self, config: &Config) -> String {
        let Sources { config: file, spec, profiles, templates } = &self.sources;
        let mut files = vec![file.clone(), spec.clone()];
        files.extend(config.files().into_iter().cloned());
        for directory in [profiles, templates].into_iter().flatten() {
            below(directory, &mut files);
        }
        let mut digest = Sha256::new();
        for file in files {
            digest.update(file.as_os_str().as_encoded_bytes());
            digest.update(std::fs::read(&file).unwrap_or_default());
        }
        // Waivers end at midnight.
        digest.update(Clock::today().to_string());
        hex::encode(digest.finalize())
    }
}

/// A failure in one piece.
fn plain(failure: Failure) -> Error {
    match failure {
        Failure::Run(error) => error,
        other => Error::input(other.to_string()),
    }
}

fn below(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    for path in found {
        match path.is_dir() {
            true => below(&path, files),
            false => files.push(path),
        }
    }
}

/// The tenants that have `access`, with their policies and rights. Works offline.
///
/// # Errors
/// The spec doesn't say which account's registries tenants may use.
pub fn estate(spec: &Spec, templates: &Templates) -> Result<Estate> {
    let facts = Facts::assumed(spec);
    let desired = stack::build(spec, &facts, templates)?;
    let mut clusters: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut namespaces: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for resource in desired.iter().filter(|resource| resource.kind == manifest::NAME) {
        let state = resource.state.value();
        let object = value::shown(&state["object"]);
        let name = match object["kind"].as_str() {
            Some("Namespace") => object["metadata"]["name"].as_str(),
            _ => object["metadata"]["namespace"].as_str(),
        };
        match name {
            Some(name) => namespaces.entry(name.to_owned()).or_default().push(object),
            None => clusters.entry(state["cluster"].to_string()).or_default().push(object),
        }
    }
    let homes: BTreeMap<String, String> = desired
        .iter()
        .filter(|resource| resource.kind == manifest::NAME)
        .filter_map(|resource| {
            let state = resource.state.value();
            let is_namespace = state.pointer("/object/kind")? == "Namespace";
            let name = state.pointer("/object/metadata/name")?.as_str()?.to_owned();
            is_namespace.then(|| (name, state["cluster"].to_string()))
        })
        .collect();
    let mut guards: BTreeMap<String, Arc<Guard>> = BTreeMap::new();
    let mut estate = Estate::default();
    for tenant in spec.tenants.iter().filter(|tenant| !tenant.access.is_empty()) {
        let namespace = tenant.namespace();
        let missing = || Error::bug(format!("the namespace {namespace} isn't among the tenant's objects"));
        let home = homes.get(&namespace).ok_or_else(missing)?;
        let objects = namespaces.get(&namespace).ok_or_else(missing)?;
        let namespace_object = objects.iter().find(|object| object["kind"] == "Namespace").ok_or_else(missing)?;
        if spec.account_id.is_none() && registries(namespace_object).contains(".dkr.ecr.") {
            return Err(Error::input("the spec doesn't name its account, so the tenants' registries aren't known")
                .help("set spec.accountId"));
        }
        let guard = match guards.get(home) {
            Some(guard) => guard.clone(),
            None => {
                let policies = clusters.get(home).map(Vec::as_slice).unwrap_or_default();
                let guard = Arc::new(guard(spec, &facts, templates, &tenant.id, policies)?);
                guards.insert(home.clone(), guard.clone());
                guard
            }
        };
        let group = tenant.group();
        let user = User { username: group.clone(), groups: vec![group, "system:authenticated".to_owned()] };
        let owner = spec.cluster_of(tenant).ok_or_else(missing)?.owner;
        estate.tenants.insert(
            tenant.id.clone(),
            Arc::new(Tenant {
                id: tenant.id.clone(),
                cluster: written(owner).to_owned(),
                rights: Rights::of(objects, &namespace, &user),
                namespace_object: namespace_object.clone(),
                namespace,
                user,
                guard,
                access: tenant.access.iter().map(access).collect(),
                fargate: matches!(tenant.isolation, Isolation::Fargate { .. }),
            }),
        );
    }
    Ok(estate)
}

/// The guard of a cluster with these objects. It decorates, whatever the cluster's version is.
fn guard(spec: &Spec, facts: &Facts, templates: &Templates, tenant: &str, objects: &[Value]) -> Result<Guard> {
    if objects.iter().any(|object| object["kind"] == "MutatingAdmissionPolicy") {
        return Guard::new(objects);
    }
    let mutating = stack::mutating_policies(spec, facts, templates, tenant)?;
    Guard::decorating(objects.iter().chain(&mutating))
}

fn access(access: &TenantAccess) -> who::Access {
    match access.clone() {
        TenantAccess::Claim { issuer, claim, value } => who::Access::Claim { issuer, claim, value },
        TenantAccess::Role { arn } => who::Access::Role { arn },
        TenantAccess::Certificate { uri } => who::Access::Certificate { uri },
    }
}
