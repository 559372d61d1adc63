//! What most commands begin with: the spec, the connection, and a look at
//! what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use jiff::SignedDuration;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{Global, Running, exit, stop};
use crate::aws::lock::{self, Lock, Store};
use crate::aws::tags::Ignored;
use crate::aws::{Access, Aws};
use crate::engine::address::{Address, Owner};
use crate::engine::clock::Clock;
use crate::engine::desired::Desired;
use crate::engine::error::{Class, Error, Result};
use crate::engine::execute::Stop;
use crate::engine::kind::{Observation, Registry, Round, Status};
use crate::engine::observe::{self, Observed};
use crate::engine::plan::{self, Plan, Policy};
use crate::k8s::Clusters;
use crate::kinds;
use crate::kinds::aws::{eks_addon, eks_cluster, iam_role, node_group, offers, subnet, versions, vpc, vpc_endpoint};
use crate::sandbox;
use crate::spec::{self, KubernetesVersion, LoadOptions, Spec};
use crate::stack::{self, Facts, NodeGroup, Offer, Zone};
use crate::template::Templates;
use crate::ui::{Failure, Subject, Ui};

/// Reads and checks the spec. Offline.
pub fn load(global: &Global, ui: &Ui) -> std::result::Result<Spec, Failure> {
    let options = LoadOptions { profiles_dir: global.profiles.clone(), today: Clock::today() };
    let text = spec::read(&global.file).map_err(Failure::from)?;
    let spec = spec::load(&global.file, &text, &options)?;
    ui.warnings(&spec.warnings);
    Ok(spec)
}

/// A spec, and the account that it is about.
pub struct Session {
    pub spec: Spec,
    pub aws: Arc<Aws>,
    pub kinds: Registry,
    clusters: Arc<Clusters>,
    templates: Templates,
    in_cluster: bool,
    /// The clusters of `--kubeconfig`, as they are written there.
    named: Vec<String>,
    /// What there is to know about the sandbox, if it is one.
    pub note: Option<String>,
    /// Kept alive as long as the session.
    sandbox: Option<sandbox::Server>,
}

/// What should exist, and what does.
pub struct Look {
    pub facts: Facts,
    pub desired: Desired,
    pub observed: Observed,
    /// False if the inside of some cluster wasn't read.
    read_all: bool,
    /// The version that each cluster is brought to, by address.
    pub versions: BTreeMap<Address, KubernetesVersion>,
}

/// For how long after an upgrade EKS can take a control plane back (EKS user
/// guide, "Roll back a cluster to a previous Kubernetes version").
const ROLLBACK: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Session {
    pub async fn open(global: &Global, ui: &Ui) -> std::result::Result<Self, Failure> {
        let spec = load(global, ui)?;
        let templates = Templates::load(global.templates.as_deref())?;
        let (sandbox, clock) = match &global.sandbox {
            None => (None, Clock::real()),
            Some(dir) => {
                let server = start_sandbox(&spec, dir, global)?;
                (Some(server), Clock::scaled(global.sandbox_speed))
            }
        };
        let access = Access {
            region: spec.region.clone(),
            sandbox: sandbox.as_ref().map(|s| (format!("http://{}", s.addr()), account(&spec))),
            patience: None,
        };
        let aws = Aws::connect(&access, &spec.name, clock).await?;
        right_account(&spec, &aws)?;
        let kubeconfigs = global.kubeconfig.iter().flat_map(|(cluster, file)| {
            cluster_names(&spec, cluster).into_iter().map(move |name| (name, file.clone()))
        });
        let kubeconfigs = kubeconfigs.collect();
        let named = global.kubeconfig.iter().map(|(cluster, _)| cluster.clone()).collect();
        let note = global.sandbox.as_ref().map(|dir| {
            format!(
                "Sandbox in {}: nothing here is AWS. Its time passes {} times faster; its clusters store objects and admit everything.",
                dir.display(),
                global.sandbox_speed
            )
        });
        let in_cluster = !global.aws_only;
        Ok(Self { note, sandbox, in_cluster, named, ..Self::on(spec, aws, kubeconfigs, templates) })
    }

    /// A session on `aws`. `kubeconfigs`: ways to clusters, by their names.
    pub fn on(spec: Spec, aws: Arc<Aws>, kubeconfigs: BTreeMap<String, PathBuf>, templates: Templates) -> Self {
        let aws = Arc::new(Aws { ignored: ignored(&spec), ..Aws::clone(&aws) });
        let clusters = Arc::new(Clusters::new(aws.clone(), kubeconfigs));
        let kinds = kinds::registry(&aws, &clusters);
        Self { spec, aws, kinds, clusters, templates, in_cluster: true, named: Vec::new(), note: None, sandbox: None }
    }

    /// Reads what exists and builds what should: two rounds of bulk reads, of
    /// which the first tells the stack what was decided before.
    pub async fn look(&self, policy: &Policy, upgrade: bool) -> Result<Look> {
        let look = self.look_for(policy, upgrade, BTreeMap::new()).await?;
        self.know_clusters(&look.observed)?;
        Ok(look)
    }

    /// The same, with these versions of clusters to reach.
    async fn look_for(
        &self,
        policy: &Policy,
        upgrade: bool,
        versions: BTreeMap<Address, KubernetesVersion>,
    ) -> Result<Look> {
        let round = Round::default();
        let known = self.decided(&round).await?;
        let facts = self.facts(&round, &known, upgrade, versions).await?;
        let facts = Facts { replacing: policy.allow_replace.clone(), ..facts };
        let desired = stack::build(&self.spec, &facts, &self.templates)?;
        let mut observed = observe::observe(&self.kinds, &desired, &round, known, self.in_cluster).await;
        observed.notes.extend(stack::old_images(&desired, &facts));
        stack::settle(&self.spec, &mut observed);
        let read_all = self.in_cluster && observed.unread.is_empty();
        let next =
            |c: spec::ClusterOf<'_>| (stack::prefix(c.owner).join("cluster"), facts.next_version(&self.spec, &c));
        let versions = self.spec.clusters().map(next).collect();
        Ok(Look { facts, desired, observed, read_all, versions })
    }

    /// An error if `--kubeconfig` names a cluster that neither the spec nor
    /// anything that exists is about.
    fn know_clusters(&self, observed: &Observed) -> Result<()> {
        let mut known: BTreeSet<String> = self.spec.clusters().map(|c| written(c.owner).to_owned()).collect();
        let found = observed.kinds.iter().filter(|(_, kind)| **kind == eks_cluster::NAME).map(|(a, _)| a);
        known.extend(found.filter_map(|a| match a.owner() {
            Owner::Tenant(id) => Some(id),
            Owner::Pool(name) => Some(name),
            Owner::Tenancy => None,
        }));
        let Some(wrong) = self.named.iter().find(|n| !known.contains(*n)) else { return Ok(()) };
        let help = match spec::nearest(wrong, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "clusters are called by the pool's name or the silo tenant's id: {}",
                known.into_iter().collect::<Vec<_>>().join(", ")
            ),
        };
        Err(Error::input(format!("no cluster is called `{wrong}` (--kubeconfig); nothing was changed")).help(help))
    }

    /// What a plan with this policy is about, for showing it.
    pub fn subject(&self, policy: &Policy) -> Subject {
        let policy = Policy { aws_only: !self.in_cluster, ..policy.clone() };
        Subject::new(&self.spec, &self.aws.scope.account, &spec::digest(&self.spec), &policy, self.note.as_deref())
    }

    /// Calls so far by action, to AWS and to the clusters.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let mut calls = self.aws.calls.counts();
        calls.extend(self.clusters.counts());
        calls
    }

    /// Says that reading begins: the first thing that a person sees.
    pub fn reading(&self, ui: &Ui) {
        ui.status(&format!("Reading what exists in {}/{}", self.aws.scope.account, self.aws.scope.region));
    }

    pub async fn plan(&self, policy: &Policy, upgrade: bool) -> Result<(Look, Plan)> {
        let look = self.look(policy, upgrade).await?;
        look.observed.readable()?;
        for id in &policy.tenants {
            let known = self.spec.tenant(id).is_some()
                || look.observed.found.keys().any(|a| a.as_str().starts_with(&format!("tenant/{id}/")));
            if !known {
                let ids: Vec<&str> = self.spec.tenants.iter().map(|t| t.id.as_str()).collect();
                return Err(Error::input(format!("no tenant has the id `{id}`"))
                    .help(format!("the spec's tenants are {}", ids.join(", "))));
            }
        }
        look.know(policy)?;
        let plan = self.plan_of(&look, policy)?;
        Ok((look, plan))
    }

    /// What is left of a run that is over and that brought clusters to these
    /// versions. What the policy names may be gone by now.
    pub async fn left(
        &self,
        policy: &Policy,
        upgrade: bool,
        versions: BTreeMap<Address, KubernetesVersion>,
    ) -> Result<Plan> {
        let look = self.look_for(policy, upgrade, versions).await?;
        self.plan_of(&look, policy)
    }

    fn plan_of(&self, look: &Look, policy: &Policy) -> Result<Plan> {
        let policy = Policy { aws_only: !self.in_cluster, ..policy.clone() };
        plan::plan(&look.desired, &look.observed, &self.kinds, &policy)
    }

    /// The tenancy's lock. Its lease is measured on the wall: a fast sandbox
    /// must not make a busy computer miss it.
    pub fn lock(&self) -> Store {
        Store::new(&self.aws, &self.spec.tags, Clock::real())
    }

    /// Does `work` while it holds the tenancy's lock. `last`: the tenancy ends
    /// with it, and so does the lock.
    pub async fn locked(
        &self,
        ui: &Ui,
        command: &str,
        running: &Running,
        last: bool,
        work: impl AsyncFnOnce(&Self, &Locked) -> std::result::Result<u8, Failure>,
    ) -> std::result::Result<u8, Failure> {
        let (_watcher, stop) = stop::watch();
        // Nobody else uses an embedded sandbox, so who died there is missed sooner.
        let usual = if self.sandbox.is_some() { lock::LEASE / 3 } else { lock::LEASE };
        let lease = running.lock_lease.unwrap_or(usual);
        let store = self.lock();
        let say = |text: &str| ui.status(text);
        let taken = {
            let mut stop = stop.clone();
            tokio::select! {
                taken = store.take(command, lease, running.lock_timeout, &say) => taken?,
                _ = stop.wait_for(|s| *s != Stop::No) => return Ok(exit::INTERRUPTED),
            }
        };
        self.aws.fence.set(taken.guard());
        let lock = Arc::new(taken);
        let phase = Arc::new(Mutex::new(Phase::Before));
        let mut until_begun = tokio::spawn(leave_when_stopped(lock.clone(), stop.clone(), phase.clone()));
        let locked = Locked { lock, stop, phase };
        let result = tokio::select! {
            result = work(self, &locked) => result,
            () = locked.left() => Ok(exit::INTERRUPTED),
        };
        if enter(&locked.phase, Phase::Begun) == Phase::Leaving {
            // It ends the program.
            let _ = (&mut until_begun).await;
        }
        until_begun.abort();
        self.unlock(ui, &locked, last && matches!(result, Ok(exit::DONE))).await;
        result
    }

    /// Gives the lock back, and says so where that isn't sure.
    async fn unlock(&self, ui: &Ui, locked: &Locked, last: bool) {
        let lock = &locked.lock;
        let hurried = *locked.stop.borrow() == Stop::AtOnce;
        if hurried && self.aws.fence.cut() > 0 && lock.lost().is_none() {
            return ui.note(&format!(
                "A change was being asked for and may still be made, so the lock stays: the next run waits until its lease has ended, {} s from now.",
                lock.left().as_secs()
            ));
        }
        let released = async {
            match last {
                true => lock.remove().await,
                false => lock.release().await,
            }
        };
        let released = match hurried {
            true => within(released, HURRY).await,
            false => released.await,
        };
        match released {
            Ok(()) if hurried => ui.note("The lock is released."),
            Ok(()) => {}
            Err(error) => ui.note(&format!(
                "The lock couldn't be released ({error}): the next run waits until its lease has ended, {} s from now.",
                lock.left().as_secs()
            )),
        }
    }

    /// Does `work`, and then ends the sandbox, if there is one, and keeps what it holds, however the work ended.
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
        match self.sandbox {
            None => Ok(()),
            Some(server) => server.shutdown().await.map_err(|e| super::unwritten("the sandbox's state", &e)),
        }
    }

    /// Kinds that hold earlier decisions: blocks, zones, subnets of endpoints. What stands there
    /// is ours by its tags alone, so it needn't be known yet what is
    /// wanted.
    async fn decided(&self, round: &Round) -> Result<BTreeMap<&'static str, Observation>> {
        let reads = [vpc::NAME, subnet::NAME, vpc_endpoint::NAME]
            .map(|name| async move { Ok::<_, Error>((name, self.decisions(name, round).await?)) });
        Ok(try_join_all(reads).await?.into_iter().collect())
    }

    async fn decisions(&self, name: &'static str, round: &Round) -> Result<Observation> {
        self.kinds.get(name)?.observe(round, &[]).await.map_err(|e| unreadable(name, e))
    }

    async fn facts(
        &self,
        round: &Round,
        known: &BTreeMap<&'static str, Observation>,
        upgrade: bool,
        decided: BTreeMap<Address, KubernetesVersion>,
    ) -> Result<Facts> {
        let found = |kind: &str| known.get(kind).into_iter().flat_map(|o| &o.found);
        // Read again once it is known which are wanted, from what the round
        // remembers: one under a wanted name that isn't ours must show.
        let (clusters, addons) =
            futures::try_join!(self.decisions(eks_cluster::NAME, round), self.decisions(eks_addon::NAME, round))?;
        let mut facts = Facts {
            account: self.aws.scope.account.clone(),
            partition: self.aws.scope.partition.clone(),
            upgrade,
            decided,
            ..Facts::default()
        };
        // Of two at one address it is the one that our subnets are in.
        let used: BTreeSet<&str> = found(subnet::NAME).filter_map(|one| text(&one.state, "vpc")).collect();
        let (theirs, ours): (Vec<_>, Vec<_>) = found(vpc::NAME).partition(|one| !used.contains(one.id.as_str()));
        for one in theirs.into_iter().chain(ours) {
            let cidr = text(&one.state, "cidr").and_then(|c| c.parse().ok());
            facts.vpcs.extend(cidr.map(|c| (one.address.clone(), c)));
        }
        if self.spec.clusters().any(|c| !facts.vpcs.contains_key(&stack::vpc(c.owner))) {
            let others = vpc::others(&self.aws).await?.into_iter();
            let blocks = |all: Vec<String>| all.iter().filter_map(|block| block.parse().ok()).collect();
            facts.other_vpcs = others.map(|(id, all)| (id, blocks(all))).collect();
        }
        for one in found(subnet::NAME) {
            let cidr = text(&one.state, "cidr").and_then(|c| c.parse().ok());
            if let (Some(cidr), Some(zone)) = (cidr, text(&one.state, "zone")) {
                facts.subnets.insert(one.address.clone(), stack::Subnet { cidr, zone: zone.to_owned() });
            }
            let walled = text(&one.state, "vpc").filter(|_| one.state.get("walled") == Some(&Value::Bool(true)));
            facts.walled.extend(walled.map(|vpc| (one.address.clone(), vpc.to_owned())));
        }
        let zones: BTreeMap<&str, &str> =
            found(subnet::NAME).filter_map(|one| Some((one.id.as_str(), text(&one.state, "zone")?))).collect();
        for one in found(vpc_endpoint::NAME).filter(|one| text(&one.state, "type") == Some("Interface")) {
            let subnets = one.state.get("subnets").and_then(Value::as_array).into_iter().flatten();
            let there = subnets.filter_map(|id| zones.get(id.as_str()?)).map(|zone| (*zone).to_owned()).collect();
            let open = one.state.get("policy").is_none_or(vpc_endpoint::is_open);
            facts.endpoints.insert(one.address.clone(), stack::Endpoint { zones: there, open });
        }
        for one in &addons.found {
            facts.addons.extend(text(&one.state, "version").map(|v| (one.address.clone(), v.to_owned())));
        }
        for one in &clusters.found {
            let subnets = one.state.get("subnets").and_then(Value::as_array).into_iter().flatten();
            let zones: Option<BTreeSet<String>> =
                subnets.map(|id| zones.get(id.as_str()?).map(|zone| (*zone).to_owned())).collect();
            if let (Some(zones), Status::Ready | Status::Pending(_)) = (zones, &one.status) {
                facts.cluster_zones.insert(one.address.clone(), zones);
            }
            let services = text(&one.state, "service_cidr").and_then(|c| c.parse().ok());
            facts.service_cidrs.extend(services.map(|c| (one.address.clone(), c)));
            let version = text(&one.state, "version").and_then(KubernetesVersion::parse);
            facts.kubernetes.extend(version.map(|v| (one.address.clone(), v)));
        }
        facts.images = node_group::images(&self.aws, round).await?;
        self.moves(round, &mut facts).await?;
        stack::settle_facts(&self.spec, &mut facts);
        let zones = versions::zones(&self.aws);
        let images = stack::images(&self.spec, &facts);
        // Images stay as they are where nobody can say what is newer, but for
        // who asks for the newest.
        let releases = async {
            match versions::image_releases(&self.aws, &images).await {
                Ok(releases) => Ok((releases, None)),
                Err(error) if upgrade => Err(error),
                Err(error) => Ok((BTreeMap::new(), Some(error.to_string()))),
            }
        };
        let offered = try_join_all(self.wanted_addons(&facts).into_iter().map(|(version, names)| async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let offers = versions::addon_versions(&self.aws, &version.to_string(), &names).await?;
            let offers: BTreeMap<String, Offer> = offers
                .into_iter()
                .map(|(name, all)| {
                    let default = all.iter().find(|v| v.default).map(|v| v.version.clone());
                    (name, Offer { default, versions: all.into_iter().map(|v| v.version).collect() })
                })
                .collect();
            Ok::<_, Error>((version, offers))
        }));
        let asked = stack::services_to_ask(&self.spec, &facts);
        let services = offers::services(&self.aws, &asked);
        let (zones, releases, offered, services) = futures::try_join!(zones, releases, offered, services)?;
        (facts.releases, facts.releases_unread) = releases;
        facts.services = services;
        facts.zones = zones.into_iter().map(|z| Zone { name: z.name, id: z.id }).collect();
        facts.offered = offered.into_iter().collect();
        facts.roles = self.roles(round).await?;
        Ok(facts)
    }

    /// What bears on clusters that the spec wants at another version than they
    /// run: their node groups, and how long EKS can take them back.
    async fn moves(&self, round: &Round, facts: &mut Facts) -> Result<()> {
        let running = |c: &spec::ClusterOf<'_>| facts.kubernetes.get(&stack::prefix(c.owner).join("cluster")).copied();
        let moving: Vec<_> = self.spec.clusters().filter_map(|c| Some((running(&c)?, c))).collect();
        let moving: Vec<_> = moving.into_iter().filter(|(running, c)| *running != c.kubernetes_version).collect();
        if moving.is_empty() {
            return Ok(());
        }
        let groups = self.kinds.get(node_group::NAME)?.observe(round, &[]).await;
        for one in groups.map_err(|e| unreadable(node_group::NAME, e))?.found {
            let version = text(&one.state, "version").and_then(KubernetesVersion::parse);
            if let (Some(cluster), Some(version)) = (text(&one.state, "cluster"), version) {
                facts.node_groups.insert(one.address.clone(), NodeGroup { cluster: cluster.to_owned(), version });
            }
        }
        for (running, cluster) in moving {
            let back = KubernetesVersion { minor: running.minor.saturating_sub(1), ..running };
            if cluster.kubernetes_version != back {
                continue;
            }
            let name = spec::names::Names::new(&self.spec).cluster(cluster.owner);
            let upgraded = versions::upgraded(&self.aws, &name, &running.to_string()).await?;
            let until = upgraded.and_then(|t| t.checked_add(ROLLBACK).ok()).filter(|until| *until > Clock::timestamp());
            if let Some(until) = until {
                let day = until.to_zoned(jiff::tz::TimeZone::UTC).date();
                facts.rollback.insert(stack::prefix(cluster.owner).join("cluster"), day);
            }
        }
        Ok(())
    }

    /// Add-ons to ask versions of, by the Kubernetes versions that clusters
    /// run now or next.
    fn wanted_addons(&self, facts: &Facts) -> BTreeMap<KubernetesVersion, Vec<String>> {
        let mut wanted: BTreeMap<KubernetesVersion, Vec<String>> = BTreeMap::new();
        for cluster in self.spec.clusters() {
            let next = facts.next_version(&self.spec, &cluster);
            let names = wanted.entry(next).or_default();
            names.extend(cluster.profile.addons.iter().map(|(name, _)| name.to_owned()));
            names.sort();
            names.dedup();
        }
        wanted
    }

    /// Roles that the spec writes as sessions, whose paths only IAM knows.
    async fn roles(&self, round: &Round) -> Result<BTreeMap<String, String>> {
        let access = &self.spec.access;
        let all: Vec<_> = access.admins.iter().chain(&access.operators).collect();
        let mut roles: BTreeMap<String, String> = all.iter().map(|p| (p.arn.clone(), p.arn.clone())).collect();
        if all.iter().any(|p| p.session) {
            let by_name = iam_role::arns(round, &self.aws).await?;
            for principal in all.iter().filter(|p| p.session) {
                if let Some(arn) = by_name.get(principal.name()) {
                    roles.insert(principal.arn.clone(), arn.clone());
                }
            }
        }
        Ok(roles)
    }
}

/// For how long somebody who wants to be out is kept waiting.
const HURRY: Duration = Duration::from_secs(3);

async fn within<T>(work: impl Future<Output = Result<T>>, limit: Duration) -> Result<T> {
    let late = |_| Err(Error::new(Class::Timeout, format!("no answer within {} s", limit.as_secs())));
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}

/// Who a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is changed yet: it ends the program.
    Before,
    /// The executor.
    Begun,
    /// A signal came before anything was begun.
    Leaving,
}

/// The phase from now on: `next`, unless the first was left before. Only one of
/// beginning and leaving can win.
fn enter(phase: &Mutex<Phase>, next: Phase) -> Phase {
    let mut phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
    if *phase == Phase::Before {
        *phase = next;
    }
    *phase
}

/// A run that holds the lock.
pub struct Locked {
    pub lock: Arc<Lock>,
    stop: watch::Receiver<Stop>,
    phase: Arc<Mutex<Phase>>,
}

impl Locked {
    /// From now on Ctrl-C is the executor's: gives what tells it. `None` if
    /// there was one before, and the run is over.
    pub fn begin(&self) -> Option<watch::Receiver<Stop>> {
        (enter(&self.phase, Phase::Begun) == Phase::Begun).then(|| self.stop.clone())
    }

    /// Ends when the user has asked twice and whatever runs hasn't ended by
    /// itself.
    async fn left(&self) {
        let mut stop = self.stop.clone();
        match stop.wait_for(|s| *s == Stop::AtOnce).await {
            Ok(_) => Clock::real().sleep(HURRY).await,
            Err(_) => std::future::pending().await,
        }
    }
}

/// While nothing is changed yet, not even an unanswered question holds up
/// Ctrl-C.
async fn leave_when_stopped(lock: Arc<Lock>, mut stop: watch::Receiver<Stop>, phase: Arc<Mutex<Phase>>) {
    let stopped = stop.wait_for(|s| *s != Stop::No).await.is_ok();
    if stopped && enter(&phase, Phase::Leaving) == Phase::Leaving {
        // If it fails, the lease ends by itself.
        let _ = within(lock.release(), HURRY).await;
        stop::leave();
    }
}

impl Look {
    /// An error if `policy` allows something for an address that nothing has.
    pub fn know(&self, policy: &Policy) -> Result<()> {
        let found = self.observed.found.keys();
        let exist: BTreeSet<Address> = found.flat_map(|a| [a.clone(), a.place()]).collect();
        // What is in a cluster that wasn't read may be there or not.
        let unread = |a: &Address| !self.read_all && a.as_str().contains("/k8s/") && exist.contains(&a.place());
        for (flag, given) in [("--allow-destroy", &policy.allow_destroy), ("--allow-replace", &policy.allow_replace)] {
            for address in given {
                if exist.contains(address) || unread(address) {
                    continue;
                }
                let near = spec::nearest(address.as_str(), exist.iter().map(Address::as_str));
                let places: BTreeSet<Address> = exist.iter().map(Address::place).collect();
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "what exists is in {}; `ringfence plan` and `ringfence plan --destroy` show the addresses",
                        places.iter().map(Address::as_str).collect::<Vec<_>>().join(", ")
                    ),
                };
                return Err(Error::input(format!(
                    "nothing that exists has the address {address} ({flag}); nothing was changed"
                ))
                .help(help));
            }
        }
        Ok(())
    }

    /// The names of everything that was found, by address: for `output`.
    pub fn outputs(&self) -> BTreeMap<Address, BTreeMap<String, String>> {
        self.observed.outputs()
    }
}

/// Starts the stand-in on the loopback interface, on the same port for the same
/// directory if that is free: clusters' endpoints are in saved plans.
fn start_sandbox(spec: &Spec, dir: &Path, global: &Global) -> Result<sandbox::Server> {
    let options = sandbox::Options {
        account: account(spec),
        principals: named(spec),
        speed: global.sandbox_speed,
        state_dir: Some(dir.to_owned()),
        record: global.sandbox_record.clone(),
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
            _ => "free some space, name another directory with --sandbox=DIR, or move what is there away",
        };
        Error::input(format!("the sandbox can't start in {}: {e}", dir.display())).help(help)
    })
}

/// Below those that systems give to whoever asks for any.
fn port_for(dir: &Path) -> u16 {
    // The same in every release: the standard library's hashes may change.
    let digest = Sha256::digest(dir.canonicalize().unwrap_or_else(|_| dir.to_owned()).as_os_str().as_encoded_bytes());
    let number = digest.iter().fold(0_u32, |number, byte| (number * 256 + u32::from(*byte)) % 10_000);
    20_000 + u16::try_from(number).unwrap_or_default()
}

/// What the spec leaves to others.
fn ignored(spec: &Spec) -> Ignored {
    let set = |all: &[String]| all.iter().cloned().collect();
    Ignored {
        keys: set(&spec.ignore_tags.keys),
        prefixes: spec.ignore_tags.key_prefixes.clone(),
        blocks: set(&spec.network.ignore.cidr_blocks),
        routes: set(&spec.network.ignore.routes),
    }
}

/// The principals and policies that the spec names and somebody else made.
pub fn named(spec: &Spec) -> Vec<String> {
    let people = spec.access.admins.iter().chain(&spec.access.operators).map(|p| &p.arn);
    let workloads = spec.tenants.iter().flat_map(|t| &t.service_accounts).flat_map(|s| &s.policies);
    people.chain(workloads).chain(&spec.iam.permissions_boundary).cloned().collect()
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
        .help("nothing was changed; set AWS_PROFILE to the right account, or mend spec.accountId")),
        _ if spec.partition() != aws.scope.partition => Err(Error::new(
            Class::Input,
            format!(
                "the credentials are for the partition {}, but the region {} is in {}",
                aws.scope.partition,
                spec.region,
                spec.partition()
            ),
        )
        .help("nothing was changed; set AWS_PROFILE to an account of that partition, or mend spec.region")),
        _ => Ok(()),
    }
}

/// The cluster's own name, for a pool's name or a silo tenant's id; both that
/// it may have, where it has left the spec.
fn cluster_names(spec: &Spec, called: &str) -> Vec<String> {
    let names = spec::names::Names::new(spec);
    match spec.clusters().map(|c| c.owner).find(|owner| written(*owner) == called) {
        Some(owner) => vec![names.cluster(owner)],
        None => [spec::Owner::Pool(called), spec::Owner::Tenant(called)].map(|o| names.cluster(o)).into(),
    }
}

/// What a cluster is called on the command line.
pub fn written(owner: spec::Owner<'_>) -> &str {
    match owner {
        spec::Owner::Tenant(id) => id,
        spec::Owner::Pool(name) => name,
    }
}

fn unreadable(kind: &str, mut error: Error) -> Error {
    error.message = format!("{kind} can't be read, so what exists is unknown: {}", error.message);
    error
}

fn text<'a>(state: &'a Value, field: &str) -> Option<&'a str> {
    state.get(field).and_then(Value::as_str)
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
        let options = LoadOptions { profiles_dir: None, today: Clock::today() };
        let spec = spec::load(Path::new("tenancy.yaml"), text, &options).unwrap();
        let sandbox = Some((format!("http://{address}"), account(&spec)));
        let access = Access { region: spec.region.clone(), sandbox, patience: None };
        let aws = Aws::connect(&access, &spec.name, Clock::real()).await.unwrap();
        let session = Session::on(spec, aws, BTreeMap::new(), Templates::load(None).unwrap());
        let session = Session { sandbox: Some(server), ..session };
        let failed = session.during(async |_| Err::<(), _>(Error::input("it fails").into())).await;
        assert!(matches!(failed, Err(Failure::Run(error)) if error.message == "it fails"));
        std::net::TcpListener::bind(address).unwrap();
    }

    #[test]
    fn a_run_is_begun_or_left_but_not_both() {
        for (first, second) in [(Phase::Begun, Phase::Leaving), (Phase::Leaving, Phase::Begun)] {
            let phase = Mutex::new(Phase::Before);
            assert_eq!(enter(&phase, first), first);
            assert_eq!(enter(&phase, second), first);
        }
    }
}
