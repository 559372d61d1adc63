//! The contract between every AWS kind and the engine, tested on stand-ins for
//! AWS: create, find, no difference, every change, every drift, delete.
//!
//! Different people wrote the sandbox and moto from the same documentation. If
//! both agree, that is stronger evidence than one of them alone.

mod ec2;
mod eks;
mod iam;

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringfence::aws::{Aws, tags};
use ringfence::engine::address::Address;
use ringfence::engine::clock::Clock;
use ringfence::engine::diff;
use ringfence::engine::kind::{Change, Found, Handle, Handlers, Kind, New, Round, Status};
use ringfence::engine::packed::Packed;
use ringfence::k8s::Clusters;
use ringfence::kinds::{self, Clients, ResourceKind};
use ringfence::sandbox::{Options, Server};
use serde::Serialize;

use crate::support;

/// A feature that moto 5.2.5 lacks. It is tested on the sandbox only.
pub struct Lack {
    /// A kind, or a part of its contract: `aws.vpc: what`.
    pub name: &'static str,
    pub reason: &'static str,
    /// The contract that it belongs to.
    pub contract: fn(&Ground) -> Boxed<'_, ()>,
    /// A part of the failure's message if the contract runs on moto all the
    /// same.
    pub fails: &'static str,
}

pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The contracts of one file, and the stand-ins for them.
struct Contracts {
    sandbox: &'static [&'static str],
    moto: &'static [&'static str],
}

const ALL: [(&Contracts, &[Lack]); 3] =
    [(&ec2::CONTRACTS, ec2::LACKS), (&eks::CONTRACTS, eks::LACKS), (&iam::CONTRACTS, iam::LACKS)];

fn lacks() -> impl Iterator<Item = &'static Lack> {
    ALL.into_iter().flat_map(|(_, lacks)| lacks)
}

/// A kind's contract has the name of the kind.
#[test]
fn every_kind_has_its_contract() {
    for kind in kinds::facts().iter().filter(|k| !k.is_hosted()) {
        let name = kind.name().trim_start_matches("aws.").replace('-', "_");
        let on = |list: fn(&Contracts) -> &[&str]| ALL.iter().any(|(c, _)| list(c).contains(&name.as_str()));
        assert!(on(|c| c.sandbox), "{name} isn't tried on the sandbox");
        let lacking = lacks().any(|lack| lack.name == kind.name());
        assert!(on(|c| c.moto) != lacking, "{name} is either tried on moto or listed as lacking");
    }
}

#[tokio::test]
async fn moto_still_lacks_the_listed_features() {
    for lack in lacks() {
        let ground = Ground { despite: Some(lack.name), ..Ground::moto().await };
        let tried = tokio::spawn(async move { (lack.contract)(&ground).await }).await;
        let Err(failure) = tried else {
            panic!("moto has `{}` after all ({}): take it from the table", lack.name, lack.reason)
        };
        let payload = failure.into_panic();
        let message = payload.downcast_ref::<String>().map(String::as_str);
        let message = message.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default();
        assert!(message.contains(lack.fails), "`{}` fails otherwise: {message}", lack.name);
    }
}

/// Makes tests from functions `async fn name(ground: &Ground)`: one for each
/// stand-in.
macro_rules! contracts {
    (sandbox: [$($sandbox:ident),* $(,)?], moto: [$($moto:ident),* $(,)?] $(,)?) => {
        pub(super) const CONTRACTS: crate::contract::Contracts = crate::contract::Contracts {
            sandbox: &[$(stringify!($sandbox)),*],
            moto: &[$(stringify!($moto)),*],
        };

        mod on_sandbox {
            $(
                #[tokio::test]
                async fn $sandbox() {
                    super::$sandbox(&crate::contract::Ground::sandbox().await).await;
                }
            )*
        }
        mod on_moto {
            $(
                #[tokio::test]
                async fn $moto() {
                    super::$moto(&crate::contract::Ground::moto().await).await;
                }
            )*
        }
    };
}
pub(crate) use contracts;

/// The environment of a contract: a stand-in for AWS, and a tenancy of its own.
pub struct Ground {
    pub aws: Arc<Aws>,
    /// The sandbox. `None`: moto.
    sandbox: Option<Server>,
    /// A lack of moto that is tested all the same, to see that moto still lacks
    /// it.
    despite: Option<&'static str>,
}

impl Ground {
    pub async fn moto() -> Self {
        let aws = support::connect(support::moto::url(), Clock::real()).await;
        Self { aws, sandbox: None, despite: None }
    }

    /// A sandbox of its own, whose clock runs a thousand times faster.
    pub async fn sandbox() -> Self {
        const SPEED: f64 = 1000.0;
        let options = Options { speed: SPEED, record: support::record(), ..Options::default() };
        let server = Server::start(options, ([127, 0, 0, 1], 0).into()).expect("the sandbox starts");
        let aws = support::connect(&format!("http://{}", server.addr()), Clock::scaled(SPEED)).await;
        Self { aws, sandbox: Some(server), despite: None }
    }

    /// False if the stand-in is moto and lacks the feature.
    pub fn has(&self, name: &str) -> bool {
        self.sandbox.is_some() || self.despite == Some(name) || !lacks().any(|lack| lack.name == name)
    }

    /// The tags in the desired state of the resource at `address`.
    pub fn tags(&self, address: &str) -> tags::Tags {
        let mut tags = tags::ownership(&self.aws.tenancy, &self.aws.scope.region, &Address::new(address));
        tags.insert("Name".to_owned(), address.replace('/', "-"));
        tags.insert("cost-center".to_owned(), "saas".to_owned());
        tags
    }

    /// Makes a resource that a contract needs, and waits until it is ready.
    pub async fn make(&self, kind: &Subject, address: &str, state: &impl Serialize) -> Found {
        let new = new(address, state);
        let made = kind.create(&new).await.unwrap_or_else(|e| panic!("{address}: create: {e}"));
        self.ready(kind, &new, &made.id).await
    }

    /// Deletes a resource, and waits until it is gone.
    pub async fn unmake(&self, kind: &Subject, found: &Found) {
        kind.delete(found).await.unwrap_or_else(|e| panic!("{}: delete: {e}", found.address));
        self.gone(kind, found).await;
    }

    /// All resources at `address` that `observe` returns.
    pub async fn observed(&self, kind: &Subject, address: &Address) -> Vec<Found> {
        let observation = kind.observe(&Round::default(), &[]).await;
        let observation = observation.unwrap_or_else(|e| panic!("{address}: observe: {e}"));
        observation.found.into_iter().filter(|f| f.address == *address).collect()
    }

    async fn ready(&self, kind: &Subject, new: &New, id: &str) -> Found {
        let handle = handle(new, id);
        let start = self.aws.clock.wall();
        loop {
            let found = find(kind, &handle).await;
            match found.as_ref().map(|f| &f.status) {
                Some(Status::Ready) => return found.unwrap(),
                Some(Status::Failed { why, .. }) => panic!("{}: failed: {why}", new.address),
                status => self.again(start, &format!("{}: {status:?}", new.address)).await,
            }
        }
    }

    async fn gone(&self, kind: &Subject, found: &Found) {
        let handle = Handle {
            address: found.address.clone(),
            generation: found.generation,
            id: found.id.clone(),
            state: found.state.clone(),
        };
        let start = self.aws.clock.wall();
        while let Some(left) = find(kind, &handle).await {
            self.again(start, &format!("{}: {:?}", found.address, left.status)).await;
        }
    }

    /// Waits before the next reading. Panics after a time limit.
    async fn again(&self, start: Duration, what: &str) {
        let waited = self.aws.clock.wall() - start;
        assert!(waited < Duration::from_secs(60), "{what} after {waited:?}");
        self.aws.clock.sleep(Duration::from_secs(5)).await;
    }
}

/// A kind with its calls.
pub struct Subject {
    pub facts: Arc<dyn Kind>,
    handlers: Arc<dyn Handlers>,
}

impl Deref for Subject {
    type Target = dyn Handlers;

    fn deref(&self) -> &Self::Target {
        &*self.handlers
    }
}

/// `kind`, with its calls made by these clients.
pub fn on(kind: impl ResourceKind + 'static, aws: &Arc<Aws>) -> Subject {
    let clusters = Arc::new(Clusters::new(aws.clone(), BTreeMap::new()));
    let handlers = kind.handlers(&Clients { aws: aws.clone(), clusters });
    Subject { facts: Arc::new(kind), handlers }
}

/// One kind's contract.
pub struct Contract<'a> {
    ground: &'a Ground,
    kind: &'a Subject,
    address: &'a str,
    state: Packed,
    trials: Vec<(&'a str, Trial<'a>)>,
}

enum Trial<'a> {
    /// The desired state changes to this one.
    Update(Packed),
    /// Somebody makes this change by hand.
    Drift(Box<dyn FnOnce(Arc<Aws>, Found) -> Boxed<'a, ()> + Send + 'a>),
}

impl<'a> Contract<'a> {
    pub fn new(ground: &'a Ground, kind: &'a Subject, address: &'a str, state: &impl Serialize) -> Self {
        let state = Packed::of(state).unwrap();
        Self { ground, kind, address, state, trials: Vec::new() }
    }

    /// Adds a trial: the spec now wants `state`, which differs at `path`.
    pub fn update(mut self, path: &'a str, state: &impl Serialize) -> Self {
        self.trials.push((path, Trial::Update(Packed::of(state).unwrap())));
        self
    }

    /// Adds a trial: somebody makes a change by hand. It must show at `path`,
    /// and the next update must revert it.
    pub fn drift<F, Fut>(mut self, path: &'a str, by_hand: F) -> Self
    where
        F: FnOnce(Arc<Aws>, Found) -> Fut + Send + 'a,
        Fut: Future<Output = ()> + Send + 'a,
    {
        self.trials.push((path, Trial::Drift(Box::new(|aws, found| Box::pin(by_hand(aws, found))))));
        self
    }

    /// A part of the contract that moto may lack, with its name in the table.
    pub fn part(self, name: &str, trials: impl FnOnce(Self) -> Self) -> Self {
        if self.ground.has(name) { trials(self) } else { self }
    }

    #[expect(clippy::cognitive_complexity, reason = "assertions count as branches")]
    pub async fn run(self) {
        let Self { ground, kind, address, state, trials } = self;
        let name = kind.facts.name();
        let mut want = new(address, &state);
        assert!(find(kind, &handle(&want, "")).await.is_none(), "{name}: found before it was made");

        let made = kind.create(&want).await.unwrap_or_else(|e| panic!("{name}: create: {e}"));
        let found = ground.ready(kind, &want, &made.id).await;
        assert_eq!(found.id, made.id, "{name}");
        for (output, value) in kind
            .facts
            .predict(&want, &ground.aws.scope)
            .iter()
            .chain(made.ready.then_some(&made.outputs).into_iter().flatten())
        {
            assert_eq!(found.outputs.get(output), Some(value), "{name}: output `{output}`");
        }
        let by_address = find(kind, &handle(&want, "")).await;
        assert_eq!(by_address.as_ref(), Some(&found), "{name}: by address and by id");
        let mut found = same(ground, kind, &want).await;

        for (path, trial) in trials {
            if let Trial::Update(state) = trial {
                want = new(address, &state);
            } else if let Trial::Drift(by_hand) = trial {
                by_hand(ground.aws.clone(), found).await;
            }
            let before = only(ground, kind, &want.address).await;
            let changes = changes(kind, &want, &before);
            assert!(
                changes.iter().any(|c| c.path.starts_with(path)),
                "{name}: nothing shows at `{path}`: {changes:#?}"
            );
            assert!(changes.iter().all(|c| !c.replaces), "{name}: `{path}` is no update: {changes:#?}");
            let made = kind.update(&before, &want, &changes).await;
            let made = made.unwrap_or_else(|e| panic!("{name}: update of `{path}`: {e}"));
            let now = ground.ready(kind, &want, &made.id).await;
            for (output, value) in made.ready.then_some(&made.outputs).into_iter().flatten() {
                assert_eq!(now.outputs.get(output), Some(value), "{name}: output `{output}` after `{path}`");
            }
            found = same(ground, kind, &want).await;
        }

        let gone = kind.delete(&found).await.unwrap_or_else(|e| panic!("{name}: delete: {e}"));
        if gone {
            assert!(find(kind, &handle(&want, &found.id)).await.is_none(), "{name}: not gone at once");
        }
        ground.gone(kind, &found).await;
        kind.delete(&found).await.unwrap_or_else(|e| panic!("{name}: delete again: {e}"));
        assert!(ground.observed(kind, &want.address).await.is_empty(), "{name}: listed after it was deleted");
    }
}

/// The only resource at the address.
async fn only(ground: &Ground, kind: &Subject, address: &Address) -> Found {
    let mut all = ground.observed(kind, address).await;
    assert_eq!(all.len(), 1, "{}: listed once: {all:#?}", kind.facts.name());
    all.remove(0)
}

/// The only resource at the address. Asserts that it is as wanted.
async fn same(ground: &Ground, kind: &Subject, want: &New) -> Found {
    let found = only(ground, kind, &want.address).await;
    assert_eq!(found.generation, want.generation, "{}", kind.facts.name());
    let changes = changes(kind, want, &found);
    assert!(changes.is_empty(), "{}: not as wanted: {changes:#?}", kind.facts.name());
    found
}

fn changes(kind: &Subject, want: &New, found: &Found) -> Vec<Change> {
    diff::changes(&want.state, &found.state, kind.facts.rules())
}

async fn find(kind: &Subject, handle: &Handle) -> Option<Found> {
    let found = kind.find(std::slice::from_ref(handle)).await;
    let mut found = found.unwrap_or_else(|e| panic!("{}: find: {e}", handle.address));
    assert_eq!(found.len(), 1, "{}: one answer for each handle", handle.address);
    found.remove(0)
}

fn handle(new: &New, id: &str) -> Handle {
    Handle { address: new.address.clone(), generation: new.generation, id: id.to_owned(), state: new.state.clone() }
}

pub fn new(address: &str, state: &impl Serialize) -> New {
    static TOKENS: AtomicUsize = AtomicUsize::new(1);
    New {
        address: Address::new(address),
        generation: 1,
        state: Packed::of(state).unwrap(),
        token: format!("{:064x}", TOKENS.fetch_add(1, Ordering::Relaxed)),
    }
}
