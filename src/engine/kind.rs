//! What the engine asks of a resource kind: facts ([`Kind`]), which need no
//! client, and calls ([`Handlers`]). A new kind is one file under `kinds/` and
//! one line in its registry.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::address::Address;
use super::error::{Error, Result};
use super::value::Outputs;

/// Where a resource lives. Handlers are looked up by it; what its parts mean is
/// the kinds' business.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Twelve digits.
    pub account: String,
    pub region: String,
    /// `aws`, `aws-cn`, `aws-us-gov` …: the second part of every ARN.
    pub partition: String,
}

/// How one field of a state behaves. A rule is given for a path: object keys
/// joined with dots, `*` for any key or list element, such as `taints.*.key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A change needs a new resource.
    Replace,
    /// Can be added where there is none; any other change needs a new
    /// resource.
    AddOnly,
    /// A list whose order means nothing.
    Unordered,
    /// Never shown; only that it changed.
    Secret,
    /// Where desired says nothing (null or missing), what exists is right.
    ServerDefault,
    /// Names other resources without depending on them, as a policy document
    /// does: what it names may be deleted before.
    Mentions,
    /// Sent at creation, then owned by someone else, such as the autoscaler.
    CreateOnly,
}

/// Whether a resource can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status", content = "detail")]
pub enum Status {
    Ready,
    /// Being made or changed; the text is the service's own word for it.
    Pending(String),
    /// Broken. `why` is in the service's words.
    Failed {
        why: String,
        repair: Repair,
    },
    /// On its way out.
    Deleting,
}

/// A resource of ours as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub address: Address,
    pub generation: u32,
    /// AWS's own identifier: what `find` and `delete` need.
    pub id: String,
    pub outputs: Outputs,
    /// In the shape of the desired state, whole, references resolved.
    pub state: Value,
    pub status: Status,
    /// Ids, ARNs or names of other resources that this one depends on and
    /// that don't stand in `state`: they order deletion.
    pub refs: Vec<String>,
}

/// Something that stands where ours should, without our tags. Never touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    pub address: Address,
    pub id: String,
    /// Why it isn't ours and how to adopt it.
    pub message: String,
}

/// What reading one kind gave.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    pub found: Vec<Found>,
    pub foreign: Vec<Foreign>,
    /// Things to know that change nothing, such as "a newer version exists".
    pub notes: Vec<String>,
    /// Clusters whose insides couldn't be read.
    pub unread: Vec<Unread>,
    /// Wanted objects whose cluster doesn't serve the API that they require.
    pub unserved: Vec<(Address, Error)>,
    /// What can't be changed because of what others have there.
    pub stuck: Vec<Stuck>,
}

/// A field that can't become what it should be, as long as others hold it.
#[derive(Clone, Debug)]
pub struct Stuck {
    pub address: Address,
    /// A field of the state.
    pub field: String,
    /// What it can be for now.
    pub keep: Value,
    /// Who holds what.
    pub reason: String,
    pub help: String,
}

/// A cluster that can't be reached, or doesn't let us in.
#[derive(Clone, Debug)]
pub struct Unread {
    pub cluster: String,
    pub error: Error,
    /// What is wanted in it: there or not, nobody knows.
    pub wanted: BTreeSet<Address>,
}

/// A resource that the spec asks for, as far as it is known while reading:
/// references to what doesn't exist yet are still in it.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub address: Address,
    pub state: Value,
}

/// What to create: the state with every reference resolved.
#[derive(Clone, Debug)]
pub struct New {
    pub address: Address,
    pub generation: u32,
    pub state: Value,
    /// A token that is the same whenever this very creation is tried again:
    /// derived from tenancy, address, generation and state; 64 hex digits.
    pub token: String,
}

/// What a create or update call left.
#[derive(Clone, Debug, Default)]
pub struct Made {
    pub id: String,
    /// Known at once; when `ready` is false they are read when it is.
    pub outputs: Outputs,
    /// False: [`Handlers::find`] is asked until it says `Ready`.
    pub ready: bool,
}

/// What [`Handlers::find`] is asked about.
#[derive(Clone, Debug)]
pub struct Handle {
    pub address: Address,
    pub generation: u32,
    pub id: String,
    /// Desired (or last observed) state, references resolved: names of parents.
    pub state: Value,
}

/// One difference between desired and observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub path: String,
    pub before: Value,
    /// May still hold references: known after apply.
    pub after: Value,
    pub replaces: bool,
    pub secret: bool,
}

/// What helps a resource that was found in a failed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// Delete it and make it again.
    Replace,
    /// Send the desired state again.
    Update,
    /// Nothing that a tool may do by itself.
    Manual,
}

/// How long a step is expected to take and may take at most.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub expected: Duration,
    pub limit: Duration,
}

impl Pace {
    pub const fn secs(expected: u64, limit: u64) -> Self {
        Self { expected: Duration::from_secs(expected), limit: Duration::from_secs(limit) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
    Delete,
}

/// Memory of one round of reading: what several kinds need (an account's
/// roles, the clusters) is fetched once.
#[derive(Default)]
pub struct Round {
    cells: Mutex<HashMap<String, Arc<Cell>>>,
}

type Cell = OnceCell<Arc<dyn Any + Send + Sync>>;

impl Round {
    /// The value under `key`, fetched by the first who asks. A failure isn't
    /// remembered.
    pub async fn once<T, F, Fut>(&self, key: impl Into<String>, fetch: F) -> Result<Arc<T>>
    where
        T: Any + Send + Sync,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        let key = key.into();
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(key.clone()).or_default().clone()
        };
        let value =
            cell.get_or_try_init(|| async { fetch().await.map(|v| Arc::new(v) as Arc<dyn Any + Send + Sync>) }).await?;
        value.clone().downcast::<T>().map_err(|_| Error::bug(format!("two kinds remember different things as `{key}`")))
    }
}

/// What is known of one resource kind without asking anybody: the planner, the
/// checks and the user interface need no more.
pub trait Kind: Send + Sync {
    /// Such as `aws.vpc`; also the name in plans and schemas.
    fn name(&self) -> &'static str;

    /// Rules for fields that aren't compared plainly.
    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[]
    }

    /// True if a replacement can stand beside the old one for a while.
    fn create_before_destroy(&self) -> bool {
        false
    }

    /// Steps with the same lane run one at a time.
    fn lane(&self, _state: &Value) -> Option<String> {
        None
    }

    /// True if creating again makes no second one: the call carries a client
    /// token, or a name that can't be taken twice. Otherwise what an unclear
    /// answer left is looked for until reads would show it.
    fn creates_once(&self) -> bool {
        true
    }

    /// Outputs that follow from the desired state and from where it will be,
    /// such as a role's ARN.
    fn predict(&self, _new: &New, _scope: &Scope) -> Outputs {
        Outputs::new()
    }

    /// Puts into `state`, the desired one of a replacement of `found`, what
    /// others have written to `found` and what must not be lost with it.
    fn carry(&self, _found: &Found, _state: &mut Value) {}

    /// Outputs that an update with these changes may alter, such as a launch
    /// template's `version`.
    fn moves(&self, _changes: &[Change]) -> &'static [&'static str] {
        &[]
    }

    /// What these changes of `from`, in place or by a replacement, do besides,
    /// if people must know before: sentences that fit others of the kind too.
    fn disturbs(&self, _from: &Found, _changes: &[Change]) -> Vec<String> {
        Vec::new()
    }

    /// A few words for the plan's line, such as `10.64.0.0/16`.
    fn summary(&self, _state: &Value) -> String {
        String::new()
    }

    fn pace(&self, _verb: Verb) -> Pace {
        Pace::secs(2, 120)
    }

    /// True for what holds data that must outlive the spec, such as audit
    /// logs: deleted only when asked for.
    fn keeps_data(&self) -> bool {
        false
    }

    /// True for what the whole account shares, such as service-linked roles:
    /// made if missing, never deleted.
    fn belongs_to_account(&self) -> bool {
        false
    }

    /// What is lost with `found`, in words, if it holds a tenant's work or
    /// data: its deletion must be confirmed, its replacement allowed, by
    /// address. `replaced`: a new one takes over what runs, but not what is
    /// stored.
    fn loses(&self, _found: &Found, _replaced: bool) -> Option<String> {
        None
    }

    /// True for what others lie in: they are gone when it is.
    fn is_foundation(&self) -> bool {
        false
    }

    /// The field by which others name this one that they lie in, if AWS keeps
    /// it for as long as they do: where they are found and it isn't, it has
    /// lost its tags.
    fn holds_by(&self) -> Option<&'static str> {
        None
    }

    /// The change that must be made before `found` can be deleted, such as
    /// lifting deletion protection: the state that it must have first.
    fn before_delete(&self, _found: &Found) -> Option<Value> {
        None
    }

    /// The outputs by which the states of others refer to this one. A plain
    /// name belongs here only if nothing else can be called the same.
    fn known_as(&self) -> &'static [&'static str] {
        &["id", "arn"]
    }

    /// Kinds whose resources in the same cluster (or, outside of one, in the
    /// same silo or pool) must be gone before one of this kind is deleted,
    /// though no reference says so.
    fn deleted_after(&self) -> &'static [&'static str] {
        &[]
    }

    /// The lists by which others reach something, such as a security group's
    /// rules. What they say of somebody who goes is taken out after that.
    fn lets_in(&self) -> &'static [&'static str] {
        &[]
    }

    /// True for what kept data can't be read without, such as an encryption
    /// key: it stays as long as the data.
    fn unlocks_data(&self) -> bool {
        false
    }

    /// For a kind that hosts objects, such as a cluster: the field whose change
    /// changes the APIs that it serves.
    fn serves_by(&self) -> Option<&'static str> {
        None
    }

    /// True if a new one may bring APIs to a cluster, as an add-on does.
    fn brings_apis(&self) -> bool {
        self.serves_by().is_some()
    }

    /// The tags in `state` that make a resource ours, each as `key=value`: for
    /// people who must put them back.
    fn ownership(&self, _state: &Value) -> Vec<String> {
        Vec::new()
    }

    /// True for what runs a tenant's work: nodes, or pods without nodes.
    fn runs_pods(&self) -> bool {
        false
    }

    /// True for what lives in a cluster: read after AWS, when endpoints are
    /// known; gone when the cluster is.
    fn in_cluster(&self) -> bool {
        false
    }

    /// True where [`find`](Handlers::find) costs a call for each all the same: then
    /// each is asked for by itself, and trouble with one isn't the others'.
    fn finds_one_by_one(&self) -> bool {
        false
    }
}

/// The calls of one resource kind in one scope: how to read it in bulk, make,
/// change and delete it. Implementations hold their own clients.
#[async_trait]
pub trait Handlers: Send + Sync {
    /// Everything of this kind that carries the tenancy's tags, in as few
    /// calls as the API allows, whether wanted or not; and what stands under a
    /// wanted name without them.
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation>;

    /// These, now, in the order asked; `None` is absent (or terminally
    /// deleted). Used while waiting and after unclear answers, so it must find
    /// by `handle.address` when `handle.id` is empty.
    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>>;

    async fn create(&self, new: &New) -> Result<Made>;

    /// Brings `from` to `to`. `changes` says what differs.
    async fn update(&self, from: &Found, to: &New, changes: &[Change]) -> Result<Made>;

    /// Deletes; absent already is success. True if it is gone at once, false
    /// if [`Handlers::find`] is to be asked until it is.
    async fn delete(&self, found: &Found) -> Result<bool>;

    /// Clears up what the service leaves behind for `found`, which is gone by
    /// now.
    async fn deleted(&self, _found: &Found) -> Result<()> {
        Ok(())
    }
}

/// All kinds by name. Planning needs no more.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<&'static str, Arc<dyn Kind>>);

impl Registry {
    pub fn add(&mut self, kind: Arc<dyn Kind>) {
        self.0.insert(kind.name(), kind);
    }

    pub fn get(&self, name: &str) -> Result<&Arc<dyn Kind>> {
        self.0.get(name).ok_or_else(|| Error::bug(format!("no resource kind is named `{name}`")))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.0.values()
    }
}

/// All kinds, with their handlers in each scope. It stands for its
/// [`Registry`] where only that is asked for.
#[derive(Clone, Default)]
pub struct Connected {
    kinds: Registry,
    handlers: BTreeMap<(Scope, &'static str), Arc<dyn Handlers>>,
}

impl Connected {
    pub fn add(&mut self, scope: &Scope, kind: Arc<dyn Kind>, handlers: Arc<dyn Handlers>) {
        self.handlers.insert((scope.clone(), kind.name()), handlers);
        self.kinds.add(kind);
    }

    /// The handlers of the kind `name` for what is in `scope`.
    pub fn handlers(&self, name: &'static str, scope: &Scope) -> Result<&Arc<dyn Handlers>> {
        self.handlers.get(&(scope.clone(), name)).ok_or_else(|| {
            Error::bug(format!("nothing handles `{name}` in account {}, {}", scope.account, scope.region))
        })
    }

    /// Every kind, with its handlers in every scope.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<dyn Kind>, &Arc<dyn Handlers>)> {
        self.handlers.iter().filter_map(|((_, name), handlers)| Some((self.kinds.get(name).ok()?, handlers)))
    }
}

impl Deref for Connected {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.kinds
    }
}
