//! A session: the spec, and the connection to its account.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Failure, Host, Stage, unwritten};
use crate::aws::lock::Store;
use crate::aws::tags::Ignored;
use crate::aws::{Access, Aws};
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::Connected;
use crate::engine::plan::Policy;
use crate::k8s::Clusters;
use crate::kinds;
use crate::sandbox;
use crate::spec::{self, Spec};
use crate::template::Templates;

/// An AWS sandbox inside this process.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The directory of its state.
    pub dir: PathBuf,
    /// How many times faster than real time its clock runs.
    pub speed: f64,
    /// The file to which each call is appended, as a line of JSON.
    pub record: Option<PathBuf>,
}

/// How a session connects to AWS and to clusters.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub sandbox: Option<Embedded>,
    /// Kubeconfigs by a pool's name or a silo tenant's id.
    pub kubeconfigs: Vec<(String, PathBuf)>,
    /// Objects in clusters are neither read nor changed.
    pub aws_only: bool,
}

/// A spec, and the connection to its account.
pub struct Session {
    pub spec: Spec,
    pub aws: Arc<Aws>,
    pub kinds: Connected,
    clusters: Arc<Clusters>,
    pub(super) templates: Templates,
    pub(super) in_cluster: bool,
    /// The clusters of `--kubeconfig`, as the user wrote them.
    pub(super) named: Vec<String>,
    /// The server ends when the session ends.
    sandbox: Option<(Embedded, sandbox::Server)>,
}

impl Session {
    /// # Errors There are no credentials, they are for another account than the spec's, or the sandbox can't start.
    pub async fn open(spec: Spec, templates: Templates, options: &Options) -> Result<Self> {
        let sandbox = match &options.sandbox {
            None => None,
            Some(embedded) => Some((embedded.clone(), start_sandbox(&spec, embedded)?)),
        };
        match connect(&spec, sandbox.as_ref()).await {
            Ok(aws) => {
                let ways = options.kubeconfigs.iter();
                let ways = ways.flat_map(|(called, file)| {
                    cluster_names(&spec, called).into_iter().map(move |name| (name, file.clone()))
                });
                let ways = ways.collect();
                let named = options.kubeconfigs.iter().map(|(cluster, _)| cluster.clone()).collect();
                Ok(Self { sandbox, in_cluster: !options.aws_only, named, ..Self::on(spec, aws, ways, templates) })
            }
            Err(error) => {
                shut(sandbox).await?;
                Err(error)
            }
        }
    }

    /// A session on `aws`. `kubeconfigs`: kubeconfigs by the cluster's name in EKS.
    pub fn on(spec: Spec, aws: Arc<Aws>, kubeconfigs: BTreeMap<String, PathBuf>, templates: Templates) -> Self {
        let aws = Arc::new(Aws { ignored: ignored(&spec), ..Aws::clone(&aws) });
        let clusters = Arc::new(Clusters::new(aws.clone(), kubeconfigs));
        let kinds = kinds::registry(&aws, &clusters);
        Self { spec, aws, kinds, clusters, templates, in_cluster: true, named: Vec::new(), sandbox: None }
    }

    /// The sandbox that the session works on. `None` if the session works on another endpoint.
    pub fn embedded(&self) -> Option<&Embedded> {
        self.sandbox.as_ref().map(|(embedded, _)| embedded)
    }

    /// `policy`, with the session's choice to leave clusters unread.
    pub fn policy(&self, policy: &Policy) -> Policy {
        Policy { aws_only: !self.in_cluster, ..policy.clone() }
    }

    /// The number of calls to AWS and to clusters, by action.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let mut calls = self.aws.calls.counts();
        calls.extend(self.clusters.counts());
        calls
    }

    /// Tells the host that reading begins, so that a user sees a first sign of life.
    pub fn reading(&self, host: &dyn Host) {
        let scope = &self.aws.scope;
        host.stage(&Stage::Reading { account: scope.account.clone(), region: scope.region.clone() });
    }

    /// The tenancy's lock. Its lease uses real time: with a sandbox's faster clock, a busy computer would miss its
    /// heartbeat.
    pub fn lock(&self) -> Store {
        Store::new(&self.aws, &self.spec.tags, Clock::real())
    }

    /// Does `work`, then stops the sandbox, if there is one, so that it saves its state even if the work failed.
    pub async fn during<T>(
        self,
        work: impl AsyncFnOnce(&Self) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        let result = work(&self).await;
        let closed = self.close().await;
        let done = result?;
        closed?;
        Ok(done)
    }

    async fn close(self) -> Result<()> {
        shut(self.sandbox).await
    }
}

async fn shut(sandbox: Option<(Embedded, sandbox::Server)>) -> Result<()> {
    match sandbox {
        None => Ok(()),
        Some((_, server)) => server.shutdown().await.map_err(|e| unwritten("the sandbox's state", &e)),
    }
}

async fn connect(spec: &Spec, sandbox: Option<&(Embedded, sandbox::Server)>) -> Result<Arc<Aws>> {
    let access = Access {
        region: spec.region.clone(),
        sandbox: sandbox.map(|(_, server)| (format!("http://{}", server.addr()), account(spec))),
        patience: None,
    };
    let clock = sandbox.map_or_else(Clock::real, |(embedded, _)| Clock::scaled(embedded.speed));
    let aws = Aws::connect(&access, &spec.name, clock).await?;
    right_account(spec, &aws)?;
    Ok(aws)
}

/// Starts the sandbox on the loopback interface. The port depends on the directory, if it is free, because saved
/// plans hold the clusters' endpoints.
fn start_sandbox(spec: &Spec, embedded: &Embedded) -> Result<sandbox::Server> {
    let Embedded { dir, speed, record } = embedded;
    let options = sandbox::Options {
        account: account(spec),
        principals: named(spec),
        speed: *speed,
        state_dir: Some(dir.clone()),
        record: record.clone(),
        ..sandbox::Options::default()
    };
    let start = |port| sandbox::Server::start(options.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let server = match start(port_for(dir)) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => start(0),
        server => server,
    };
    server.map_err(|e| {
        let help = match e.kind() {
            ErrorKind::ResourceBusy => "wait until that process ends, or name another directory with --sandbox=DIR",
            _ => "free some space, name another directory with --sandbox=DIR, or move the files in this directory away",
        };
        Error::input(format!("the sandbox can't start in {}: {e}", dir.display())).help(help)
    })
}

/// A port below the ephemeral ports that operating systems assign.
fn port_for(dir: &Path) -> u16 {
    // The standard library's hashes may change between releases, SHA-256 doesn't.
    let digest = Sha256::digest(dir.canonicalize().unwrap_or_else(|_| dir.to_owned()).as_os_str().as_encoded_bytes());
    let number = digest.iter().fold(0_u32, |number, byte| (number * 256 + u32::from(*byte)) % 10_000);
    20_000 + u16::try_from(number).unwrap_or_default()
}

/// The tags, CIDR blocks and routes that the spec leaves to other tools.
fn ignored(spec: &Spec) -> Ignored {
    let set = |all: &[String]| all.iter().cloned().collect();
    Ignored {
        keys: set(&spec.ignore_tags.keys),
        prefixes: spec.ignore_tags.key_prefixes.clone(),
        blocks: set(&spec.network.ignore.cidr_blocks),
        routes: set(&spec.network.ignore.routes),
    }
}

/// The principals and policies that the spec names and others created.
pub fn named(spec: &Spec) -> Vec<String> {
    let people = spec.access.admins.iter().chain(&spec.access.operators).map(|p| &p.arn);
    let workloads = spec.tenants.iter().flat_map(|t| &t.service_accounts).flat_map(|s| &s.policies);
    let gateway = spec.gateway.as_ref().and_then(|gateway| gateway.role.as_ref());
    people.chain(gateway).chain(workloads).chain(&spec.iam.permissions_boundary).cloned().collect()
}

pub fn account(spec: &Spec) -> String {
    spec.account_id.clone().unwrap_or_else(|| "123456789012".to_owned())
}

fn right_account(spec: &Spec, aws: &Aws) -> Result<()> {
    match &spec.account_id {
        Some(wanted) if *wanted != aws.scope.account => Err(Error::new(
            Class::Input,
            format!("the credentials are for account {}, but the spec is for {wanted}", aws.scope.account),
        )
        .help("nothing was changed; set AWS_PROFILE to a profile of the right account, or correct spec.accountId")),
        _ if spec.partition() != aws.scope.partition => Err(Error::new(
            Class::Input,
            format!(
                "the credentials are for the partition {}, but the region {} is in {}",
                aws.scope.partition,
                spec.region,
                spec.partition()
            ),
        )
        .help("nothing was changed; set AWS_PROFILE to a profile of that partition, or correct spec.region")),
        _ => Ok(()),
    }
}

/// The names in EKS of the cluster of a pool or a silo tenant. A cluster that has left the spec may have either of
/// two names.
fn cluster_names(spec: &Spec, called: &str) -> Vec<String> {
    let names = spec::names::Names::new(spec);
    match spec.clusters().map(|c| c.owner).find(|owner| written(*owner) == called) {
        Some(owner) => vec![names.cluster(owner)],
        None => [spec::Owner::Pool(called), spec::Owner::Tenant(called)].map(|o| names.cluster(o)).into(),
    }
}

/// The cluster's name on the command line.
pub fn written(owner: spec::Owner<'_>) -> &str {
    match owner {
        spec::Owner::Tenant(id) => id,
        spec::Owner::Pool(name) => name,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sandbox_ends_in_order_though_the_work_failed() {
        let server = sandbox::Server::start(sandbox::Options::default(), ([127, 0, 0, 1], 0).into()).unwrap();
        let address = server.addr();
        let text = include_str!("../../examples/single-silo/tenancy.yaml");
        let options = spec::LoadOptions { profiles_dir: None, today: Clock::today() };
        let spec = spec::load(Path::new("tenancy.yaml"), text, &options).unwrap();
        let sandbox = Some((format!("http://{address}"), account(&spec)));
        let access = Access { region: spec.region.clone(), sandbox, patience: None };
        let aws = Aws::connect(&access, &spec.name, Clock::real()).await.unwrap();
        let session = Session::on(spec, aws, BTreeMap::new(), Templates::load(None).unwrap());
        let embedded = Embedded { dir: PathBuf::new(), speed: 1.0, record: None };
        let session = Session { sandbox: Some((embedded, server)), ..session };
        let failed = session.during(async |_| Err::<(), _>(Error::input("it fails").into())).await;
        assert!(matches!(failed, Err(Failure::Run(error)) if error.message == "it fails"));
        std::net::TcpListener::bind(address).unwrap();
    }
}
