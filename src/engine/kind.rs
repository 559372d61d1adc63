//! The engine's interface to resource kinds: facts ([`Kind`]), which need no client, and calls ([`Handlers`]). A new
//! kind is one file under `kinds/` and one line in its registry.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
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
use super::packed::Packed;
use super::value::Outputs;

/// Where a resource exists. Handlers are looked up by scope. Only kinds interpret its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Twelve digits.
    pub account: String,
    pub region: String,
    /// `aws`, `aws-cn`, `aws-us-gov` …: the second part of every ARN.
    pub partition: String,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {}, region {}", self.account, self.region)
    }
}

/// How a field of a state behaves. A rule is given for a path: object keys joined by dots, with `*` for any key or
/// list element, such as `taints.*.key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A change needs a replacement.
    Replace,
    /// Can be added if it is missing. Any other change needs a replacement.
    AddOnly,
    /// A list without significant order.
    Unordered,
    /// Never shown. A plan shows only that it changed.
    Secret,
    /// If the desired value is null or missing, any observed value is right.
    ServerDefault,
    /// Names other resources without depending on them, as a policy document does. A named resource may be deleted
    /// first.
    Mentions,
    /// Used at creation. Later another program owns the value, such as the autoscaler.
    CreateOnly,
}

/// Whether a resource is ready to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status", content = "detail")]
pub enum Status {
    Ready,
    /// Being created or changed. The text is the service's own word for it.
    Pending(String),
    /// Failed. `why` is the service's text.
    Failed {
        why: String,
        repair: Repair,
    },
    /// Being deleted.
    Deleting,
}

/// An observed resource of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub address: Address,
    pub generation: u32,
    /// AWS's identifier, which `find` and `delete` need.
    pub id: String,
    pub outputs: Outputs,
    /// The complete state in the format of the desired state, without references.
    pub state: Packed,
    pub status: Status,
    /// Ids, ARNs or names of dependencies that aren't part of `state`. They order deletions.
    pub refs: Vec<String>,
}

/// A resource with a wanted name and without our tags. It is never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    pub address: Address,
    pub id: String,
    /// Why it isn't ours and how to adopt it.
    pub message: String,
}

/// The result of reading one kind.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    pub found: Vec<Found>,
    pub foreign: Vec<Foreign>,
    /// Notes without an effect, such as "a newer version exists".
    pub notes: Vec<String>,
    /// Clusters whose objects couldn't be read.
    pub unread: Vec<Unread>,
    /// Wanted objects whose cluster doesn't serve the API that they require.
    pub unserved: Vec<(Address, Error)>,
    /// Changes that resources of other owners prevent.
    pub stuck: Vec<Stuck>,
}

/// A field that can't be changed as long as resources of others use its value.
#[derive(Clone, Debug)]
pub struct Stuck {
    pub address: Address,
    /// A field of the state.
    pub field: String,
    /// The value that it can have for now.
    pub keep: Value,
    /// Which resources use which value.
    pub reason: String,
    pub help: String,
}

/// A host, such as a cluster, that can't be reached or denies access.
#[derive(Clone, Debug)]
pub struct Unread {
    pub host: String,
    pub error: Error,
    /// The wanted objects in the cluster, which may or may not exist.
    pub wanted: BTreeSet<Address>,
}

/// A desired resource during reading. It still has references to resources that don't exist yet.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub address: Address,
    pub state: Packed,
}

/// The creation of a resource: its state without references.
#[derive(Clone, Debug)]
pub struct New {
    pub address: Address,
    pub generation: u32,
    pub state: Packed,
    /// A token that is the same for each attempt at this creation. It is derived from tenancy, address, generation
    /// and state, and has 64 hexadecimal digits.
    pub token: String,
}

/// The result of a create or update call.
#[derive(Clone, Debug, Default)]
pub struct Made {
    pub id: String,
    /// The outputs known so far. If `ready` is false, they are read when the resource is ready.
    pub outputs: Outputs,
    /// False if [`Handlers::find`] must be polled until it returns `Ready`.
    pub ready: bool,
}

/// The resource that [`Handlers::find`] looks for.
#[derive(Clone, Debug)]
pub struct Handle {
    pub address: Address,
    pub generation: u32,
    pub id: String,
    /// The desired or last observed state without references, for the names of parents.
    pub state: Packed,
}

/// One difference between desired and observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub path: String,
    pub before: Value,
    /// May contain references, which are known after apply.
    pub after: Value,
    pub replaces: bool,
    pub secret: bool,
}

/// How a resource in a failed state is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// Delete the resource and create it again.
    Replace,
    /// Send the desired state again.
    Update,
    /// Only a person can repair it.
    Manual,
}

/// The expected and the maximum duration of a step.
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

/// The cache of one round of reading. Data that several kinds need (an account's roles, the clusters) is fetched
/// once.
#[derive(Default)]
pub struct Round {
    cells: Mutex<HashMap<String, Arc<Cell>>>,
}

type Cell = OnceCell<Arc<dyn Any + Send + Sync>>;

impl Round {
    /// The value under `key`, fetched at the first use. A failure isn't cached.
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
        value
            .clone()
            .downcast::<T>()
            .map_err(|_| Error::bug(format!("two kinds use the cache key `{key}` for different types")))
    }
}

/// The facts of a resource kind that need no call. They are enough for the planner, the checks and the user
/// interface.
pub trait Kind: Send + Sync {
    /// Such as `aws.vpc`. It is also the name in plans and schemas.
    fn name(&self) -> &'static str;

    /// The rules for fields that need more than a plain comparison.
    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[]
    }

    /// True if a replacement can exist beside the old resource for a while.
    fn create_before_destroy(&self) -> bool {
        false
    }

    /// Steps in the same lane run one after the other.
    fn lane(&self, _state: &Packed) -> Option<String> {
        None
    }

    /// True if a repeated creation makes no second resource, because the call has a client token or the name is
    /// unique. Otherwise, after an unclear answer, the resource is searched until reads would show it.
    fn creates_once(&self) -> bool {
        true
    }

    /// Outputs that can be predicted from the desired state and the scope, such as a role's ARN.
    fn predict(&self, _new: &New, _scope: &Scope) -> Outputs {
        Outputs::new()
    }

    /// `state`, the desired state of a replacement of `found`, with the values that other programs have written to
    /// `found` and that must not be lost.
    fn carry(&self, _found: &Found, state: Packed) -> Packed {
        state
    }

    /// Outputs that an update with these changes may alter, such as a launch template's `version`.
    fn moves(&self, _changes: &[Change]) -> &'static [&'static str] {
        &[]
    }

    /// Side effects of these changes of `from`, in place or by a replacement, that users must know beforehand. The
    /// sentences must also fit other resources of the kind.
    fn disturbs(&self, _from: &Found, _changes: &[Change]) -> Vec<String> {
        Vec::new()
    }

    /// A short text for the plan's line, such as `10.64.0.0/16`.
    fn summary(&self, _state: &Packed) -> String {
        String::new()
    }

    fn pace(&self, _verb: Verb) -> Pace {
        Pace::secs(2, 120)
    }

    /// True for data that must outlive the spec, such as audit logs. It is deleted only on request.
    fn keeps_data(&self) -> bool {
        false
    }

    /// True for resources that the whole account shares, such as service-linked roles. They are created if missing,
    /// and never deleted.
    fn belongs_to_account(&self) -> bool {
        false
    }

    /// What is lost with `found`, in words, if it holds a tenant's work or data. Then its deletion must be confirmed
    /// by address, and its replacement allowed by address. `replaced`: a new resource takes over the work, but not
    /// the stored data.
    fn loses(&self, _found: &Found, _replaced: bool) -> Option<String> {
        None
    }

    /// True for containers of other resources, which are deleted with them.
    fn is_foundation(&self) -> bool {
        false
    }

    /// The field by which other resources name their container of this kind, if AWS keeps the container as long as
    /// they exist. If they are found and the container isn't, the container has lost its tags.
    fn holds_by(&self) -> Option<&'static str> {
        None
    }

    /// The state that `found` must have before it can be deleted, such as without deletion protection.
    fn before_delete(&self, _found: &Found) -> Option<Packed> {
        None
    }

    /// The outputs by which other states refer to the resource. A plain name is allowed only if it is unique.
    fn known_as(&self) -> &'static [&'static str] {
        &["id", "arn"]
    }

    /// Kinds whose resources in the same cluster (or, outside of a cluster, in the same silo or pool) must be deleted
    /// before one of this kind, although no reference shows it.
    fn deleted_after(&self) -> &'static [&'static str] {
        &[]
    }

    /// The lists that allow access for other resources, such as a security group's rules. An entry is removed only
    /// after the resource that needs it is gone.
    fn lets_in(&self) -> &'static [&'static str] {
        &[]
    }

    /// True for resources without which kept data can't be read, such as an encryption key. They are kept as long as
    /// the data.
    fn unlocks_data(&self) -> bool {
        false
    }

    /// True if one of `names`, which stand in other states, refers to `found`.
    fn is_named(&self, found: &Found, names: &BTreeSet<String>) -> bool {
        self.known_as().iter().filter_map(|output| found.outputs.get(*output)).any(|name| names.contains(name))
    }

    /// For kinds that host other resources, such as a cluster.
    fn hosts(&self) -> Option<Hosting> {
        None
    }

    /// The name of the host that a resource with `state` is in.
    fn host(&self, _state: &Packed) -> Option<String> {
        None
    }

    /// The API that a resource with `state` requires of its host, in words.
    fn api(&self, _state: &Packed) -> Option<String> {
        None
    }

    /// The container that a resource with `state` is deleted with, such as an object's namespace. The container
    /// [`contains`](Kind::contains) it by the same name.
    fn lies_in(&self, _state: &Packed) -> Option<String> {
        None
    }

    /// The name of a resource with `state` as a container of others of its kind.
    fn contains(&self, _state: &Packed) -> Option<String> {
        None
    }

    /// True if a new resource may add APIs to a cluster, as an add-on does.
    fn brings_apis(&self) -> bool {
        self.hosts().is_some()
    }

    /// The tags in `state` that mark a resource as ours, each as `key=value`, for users who must restore them.
    fn ownership(&self, _state: &Packed) -> Vec<String> {
        Vec::new()
    }

    /// True for resources that run a tenant's work: nodes, or pods without nodes.
    fn runs_pods(&self) -> bool {
        false
    }

    /// True for objects in a cluster. They are read after AWS resources, when endpoints are known, and deleted with
    /// the cluster.
    fn is_hosted(&self) -> bool {
        false
    }

    /// True if [`find`](Handlers::find) needs one call for each resource anyway. Then each resource is read
    /// separately, and a failure doesn't affect others.
    fn finds_one_by_one(&self) -> bool {
        false
    }
}

/// The calls of one resource kind in one scope: bulk read, create, change, delete. Implementations own their clients.
#[async_trait]
pub trait Handlers: Send + Sync {
    /// All resources with the tenancy's tags, wanted or not, in as few calls as the API allows, and resources without
    /// these tags that have a wanted name.
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation>;

    /// The current state of these resources, in the order of `handles`. `None` means absent, or deleted for good. It
    /// is used while waiting and after unclear answers, so it must find a resource by `handle.address` if `handle.id`
    /// is empty.
    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>>;

    async fn create(&self, new: &New) -> Result<Made>;

    /// Updates `from` to `to`. `changes` has the differences.
    async fn update(&self, from: &Found, to: &New, changes: &[Change]) -> Result<Made>;

    /// Deletes. A resource that is absent already is a success. Returns true if it is gone at once, and false if
    /// [`Handlers::find`] must be polled.
    async fn delete(&self, found: &Found) -> Result<bool>;

    /// Deletes leftovers of the service for `found`, which is already deleted.
    async fn deleted(&self, _found: &Found) -> Result<()> {
        Ok(())
    }
}

/// How a kind hosts other resources.
#[derive(Clone, Copy, Debug)]
pub struct Hosting {
    /// The output by which they name their host.
    pub name: &'static str,
    /// The field whose change alters the served APIs.
    pub serves_by: &'static str,
}

/// All kinds by name. That is enough to plan.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<&'static str, Arc<dyn Kind>>);

impl Registry {
    pub fn add(&mut self, kind: Arc<dyn Kind>) {
        self.0.insert(kind.name(), kind);
    }

    pub fn get(&self, name: &str) -> Result<&Arc<dyn Kind>> {
        self.0.get(name).ok_or_else(|| Error::bug(format!("there is no resource kind `{name}`")))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.0.values()
    }
}

/// All kinds with their handlers in each scope. It can be used as its [`Registry`].
#[derive(Clone, Default)]
pub struct Connected {
    kinds: Registry,
    handlers: BTreeMap<(Arc<Scope>, &'static str), Arc<dyn Handlers>>,
}

impl Connected {
    pub fn add(&mut self, scope: &Arc<Scope>, kind: Arc<dyn Kind>, handlers: Arc<dyn Handlers>) {
        self.handlers.insert((scope.clone(), kind.name()), handlers);
        self.kinds.add(kind);
    }

    /// The handlers of the kind `name` in `scope`.
    pub fn handlers(&self, name: &'static str, scope: &Arc<Scope>) -> Result<&Arc<dyn Handlers>> {
        let handlers = self.handlers.get(&(scope.clone(), name));
        handlers.ok_or_else(|| Error::bug(format!("no handlers of the kind `{name}` exist for {scope}")))
    }

    /// Every kind in every scope, with its handlers.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<Scope>, &Arc<dyn Kind>, &Arc<dyn Handlers>)> {
        self.handlers.iter().filter_map(|((scope, name), handlers)| Some((scope, self.kinds.get(name).ok()?, handlers)))
    }
}

impl Deref for Connected {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.kinds
    }
}
