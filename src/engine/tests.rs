//! The engine with a simulated cloud of simple resources that refer to each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::address::Address;
use super::clock::Clock;
use super::desired::{Desired, Resource};
use super::error::{Class, Error, Result};
use super::execute::{Chance, Executor, Stop};
use super::kind::*;
use super::lint::Lint;
use super::observe::{Observed, observe};
use super::packed::Packed;
use super::plan::{Action, Blocked, Loss, Plan, Policy, plan};
use super::report::{Outcome, Report};
use super::value::reference;
use super::why::WhyNot;

/// The resources of the simulated cloud, and its faults.
#[derive(Default)]
struct Cloud {
    items: BTreeMap<String, Item>,
    next: u64,
    log: Vec<String>,
    /// Creations of these addresses are done, but the answer is lost, once.
    lose: BTreeSet<String>,
    /// Creations of these addresses get no answer, and are done just before the next attempt.
    late: BTreeSet<String>,
    under_way: BTreeMap<String, Item>,
    /// Calls about these addresses fail.
    fail: BTreeSet<String>,
    /// The desired state. If a resource is replaced and its old one is deleted first, its users may refer to a missing
    /// resource for a moment, as routes do when their NAT gateway is replaced.
    wanted: BTreeSet<String>,
    /// How many calls ran at the same time at most.
    running: usize,
    most: usize,
    /// The largest number of resources of a kind in one `find` call.
    looked_for: BTreeMap<&'static str, usize>,
}

#[derive(Clone)]
struct Item {
    kind: &'static str,
    address: Address,
    generation: u32,
    state: Packed,
    status: Status,
}

struct Toy {
    name: &'static str,
    cloud: Arc<Mutex<Cloud>>,
    side_by_side: bool,
    foundation: bool,
    keeps: bool,
    one_by_one: bool,
    gate: bool,
    pods: bool,
}

const RULES: &[(&str, Rule)] = &[("fixed", Rule::Replace), ("members", Rule::Unordered), ("size", Rule::CreateOnly)];

impl Toy {
    fn found(&self, id: &str, item: &Item) -> Found {
        Found {
            address: item.address.clone(),
            generation: item.generation,
            id: id.to_owned(),
            outputs: [("id".to_owned(), id.to_owned())].into(),
            state: item.state.clone(),
            status: item.status.clone(),
            refs: vec![],
        }
    }
}

impl Kind for Toy {
    fn name(&self) -> &'static str {
        self.name
    }
    fn rules(&self) -> &'static [(&'static str, Rule)] {
        RULES
    }
    fn create_before_destroy(&self) -> bool {
        self.side_by_side
    }
    fn loses(&self, _found: &Found, _replaced: bool) -> Option<String> {
        self.foundation.then(|| "the net".to_owned())
    }
    fn keeps_data(&self) -> bool {
        self.keeps
    }
    fn lets_in(&self) -> &'static [&'static str] {
        if self.gate { &["members"] } else { &[] }
    }
    fn runs_pods(&self) -> bool {
        self.pods
    }
    fn lane(&self, state: &Packed) -> Option<String> {
        state.get("lane").and_then(Value::as_str).map(str::to_owned)
    }
    fn before_delete(&self, found: &Found) -> Option<Packed> {
        let locked = found.state.get("locked") == Some(&json!(true));
        locked.then(|| found.state.edited(|state| state["locked"] = json!(false)))
    }
    fn finds_one_by_one(&self) -> bool {
        self.one_by_one
    }
}

#[async_trait]
impl Handlers for Toy {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        let cloud = self.cloud.lock().unwrap();
        let found = cloud.items.iter().filter(|(_, i)| i.kind == self.name).map(|(id, i)| self.found(id, i)).collect();
        Ok(Observation { found, ..Observation::default() })
    }
    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let mut cloud = self.cloud.lock().unwrap();
        let most = cloud.looked_for.entry(self.name).or_default();
        *most = handles.len().max(*most);
        for item in cloud.items.values_mut() {
            if let Status::Pending(_) = item.status {
                item.status = Status::Ready;
            }
        }
        Ok(handles
            .iter()
            .map(|h| {
                cloud
                    .items
                    .iter()
                    .find(|(id, i)| {
                        **id == h.id || (h.id.is_empty() && i.address == h.address && i.generation == h.generation)
                    })
                    .map(|(id, i)| self.found(id, i))
            })
            .collect())
    }
    async fn create(&self, new: &New) -> Result<Made> {
        {
            let mut cloud = self.cloud.lock().unwrap();
            cloud.running += 1;
            cloud.most = cloud.most.max(cloud.running);
        }
        tokio::task::yield_now().await;
        let mut cloud = self.cloud.lock().unwrap();
        cloud.running -= 1;
        if cloud.fail.contains(new.address.as_str()) {
            return Err(Error::new(Class::Invalid, "refused"));
        }
        // A resource that a state names must exist.
        let mut missing = None;
        new.state.walk(&mut |text| {
            if text.starts_with("toy-") && !cloud.items.contains_key(text) {
                missing = Some(text.to_owned());
            }
        });
        if let Some(missing) = missing {
            return Err(Error::new(Class::Invalid, format!("{missing} doesn't exist")));
        }
        cloud.next += 1;
        let id = format!("toy-{:04}", cloud.next);
        cloud.log.push(format!("create {} g{}", new.address, new.generation));
        let item = Item {
            kind: self.name,
            address: new.address.clone(),
            generation: new.generation,
            state: new.state.clone(),
            status: Status::Pending("CREATING".to_owned()),
        };
        if let Some(first) = cloud.under_way.remove(new.address.as_str()) {
            cloud.items.insert(id, first);
            return Err(Error::new(Class::Invalid, "another one is in the way"));
        }
        if cloud.late.remove(new.address.as_str()) {
            cloud.under_way.insert(new.address.to_string(), item);
            return Err(Error::new(Class::Unclear, "no answer"));
        }
        cloud.items.insert(id.clone(), item);
        match cloud.lose.remove(new.address.as_str()) {
            true => Err(Error::new(Class::Unclear, "no answer")),
            false => Ok(Made { id, ..Made::default() }),
        }
    }
    async fn update(&self, from: &Found, to: &New, changes: &[Change]) -> Result<Made> {
        let mut cloud = self.cloud.lock().unwrap();
        cloud.log.push(format!(
            "update {} {}",
            to.address,
            changes.iter().map(|c| c.path.as_str()).collect::<Vec<_>>().join(",")
        ));
        let item = cloud.items.get_mut(&from.id).unwrap();
        let size = item.state.get("size").cloned();
        item.state = to.state.with([("size", size)]);
        Ok(Made { id: from.id.clone(), ready: true, ..Made::default() })
    }
    async fn delete(&self, found: &Found) -> Result<bool> {
        let mut cloud = self.cloud.lock().unwrap();
        let mut user = None;
        for (id, item) in &cloud.items {
            item.state.walk(&mut |text| {
                if text == found.id && *id != found.id {
                    user = Some(item.address.clone());
                }
            });
        }
        let dangles = cloud.wanted.contains(found.address.as_str());
        if let Some(user) = user.filter(|_| !dangles) {
            return Err(Error::new(Class::Invalid, format!("{} is used by {user}", found.id)));
        }
        if cloud.items.get(&found.id).is_some_and(|i| i.state.get("locked") == Some(&json!(true))) {
            return Err(Error::new(Class::Invalid, "it is locked"));
        }
        cloud.items.remove(&found.id);
        cloud.log.push(format!("delete {} g{}", found.address, found.generation));
        Ok(true)
    }
}

struct World {
    cloud: Arc<Mutex<Cloud>>,
    kinds: Connected,
}

/// Adds the toy kinds with `cloud` as what is in `scope`.
fn connect(kinds: &mut Connected, scope: &Arc<Scope>, cloud: &Arc<Mutex<Cloud>>) {
    let toy = |name, side_by_side, foundation, keeps| {
        let one_by_one = name == "toy.each";
        let (gate, pods) = (name == "toy.gate", name == "toy.pods");
        Toy { name, cloud: cloud.clone(), side_by_side, foundation, keeps, one_by_one, gate, pods }
    };
    for toy in [
        toy("toy.net", false, true, false),
        toy("toy.box", false, false, false),
        toy("toy.twin", true, false, false),
        toy("toy.log", false, false, true),
        toy("toy.each", false, false, false),
        toy("toy.gate", false, false, false),
        toy("toy.pods", true, false, false),
    ] {
        let toy = Arc::new(toy);
        kinds.add(scope, toy.clone(), toy);
    }
}

impl World {
    fn new() -> Self {
        let cloud = Arc::new(Mutex::new(Cloud::default()));
        let mut kinds = Connected::default();
        connect(&mut kinds, &Arc::default(), &cloud);
        Self { cloud, kinds }
    }

    async fn observed(&self, desired: &Desired) -> Observed {
        observe(&self.kinds, desired, &Round::default(), BTreeMap::new(), true).await
    }

    async fn plan(&self, desired: &Desired, policy: &Policy) -> Result<Plan> {
        plan(desired, &self.observed(desired).await, &self.kinds, policy)
    }

    async fn execute(&self, plan: &Plan) -> Report {
        let (events, _listener) = mpsc::unbounded_channel();
        let (_stopper, stop) = watch::channel(Stop::No);
        let executor = Executor {
            kinds: self.kinds.clone(),
            tenancy: "acme".to_owned(),
            clock: Clock::scaled(1e6),
            parallelism: 4,
            events,
            stop,
            guard: Arc::new(()),
            chance: Chance::default(),
        };
        executor.execute(plan).await
    }

    async fn apply(&self, desired: &Desired) -> Report {
        let plan = self.plan(desired, &Policy::default()).await.unwrap();
        self.cloud.lock().unwrap().wanted = desired.iter().map(|r| r.address.to_string()).collect();
        self.execute(&plan).await
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.cloud.lock().unwrap().log)
    }
}

fn desired(resources: &[(&str, &'static str, Value, &[&str])]) -> Desired {
    let mut desired = Desired::default();
    for (address, kind, state, after) in resources {
        desired
            .insert(Resource {
                address: Address::new(address),
                kind,
                scope: Arc::default(),
                state: state.clone().into(),
                after: after.iter().map(Address::new).collect(),
                controls: vec![],
            })
            .unwrap();
    }
    desired
}

fn to(address: &str) -> String {
    reference(&Address::new(address), "id")
}

/// A plan as text: one line for each step, with its dependencies.
fn text(plan: &Plan) -> String {
    let mut lines = Vec::new();
    for (i, step) in plan.steps.iter().enumerate() {
        let action = format!("{:?}", step.action).to_lowercase();
        let needs = step.needs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let changes = step.changes.iter().map(|c| c.path.as_str()).collect::<Vec<_>>().join(",");
        let replaces = if step.replaces { " replaces" } else { "" };
        lines.push(format!(
            "{i}: {action}{replaces} {} g{} [{changes}] after {{{needs}}}",
            step.address, step.generation
        ));
    }
    lines.extend(plan.blocked.iter().map(|b| format!("blocked {}: {:?}", b.address, b.why)));
    lines.extend(plan.kept.iter().map(|k| format!("kept {}: {:?}", k.address, k.why)));
    lines.join("\n")
}

fn estate() -> Desired {
    desired(&[
        ("tenant/a/silo/net", "toy.net", json!({"fixed": "10.0.0.0/16"}), &[]),
        ("tenant/a/silo/subnet", "toy.box", json!({"net": to("tenant/a/silo/net"), "fixed": "10.0.1.0/24"}), &[]),
        (
            "tenant/a/silo/group",
            "toy.twin",
            json!({"net": to("tenant/a/silo/net"), "fixed": "one", "members": ["x", "y"]}),
            &[],
        ),
        (
            "tenant/a/silo/nodes",
            "toy.twin",
            json!({"subnet": to("tenant/a/silo/subnet"), "group": to("tenant/a/silo/group"), "max": 3, "size": 1}),
            &["tenant/a/silo/log"],
        ),
        ("tenant/a/silo/log", "toy.log", json!({"days": 30}), &[]),
    ])
}

fn with(mut base: Desired, address: &str, field: &str, value: Value) -> Desired {
    let mut changed = Desired::default();
    for resource in base.iter() {
        let mut resource = resource.clone();
        if resource.address.as_str() == address {
            resource.state = resource.state.edited(|state| state[field] = value.clone());
        }
        changed.insert(resource).unwrap();
    }
    std::mem::swap(&mut base, &mut changed);
    base
}

fn without(base: &Desired, address: &str) -> Desired {
    let mut left = Desired::default();
    for resource in base.iter().filter(|r| r.address.as_str() != address) {
        left.insert(resource.clone()).unwrap();
    }
    left
}

#[tokio::test]
async fn creates_in_the_order_of_references_and_then_has_nothing_to_do() {
    let world = World::new();
    let plan = world.plan(&estate(), &Policy::default()).await.unwrap();
    insta::assert_snapshot!(text(&plan), @r"
    0: create tenant/a/silo/log g1 [] after {}
    1: create tenant/a/silo/net g1 [] after {}
    2: create tenant/a/silo/group g1 [] after {1}
    3: create tenant/a/silo/subnet g1 [] after {1}
    4: create tenant/a/silo/nodes g1 [] after {0,2,3}
    ");
    let report = world.execute(&plan).await;
    assert_eq!(report.failed().count(), 0);
    assert!(world.plan(&estate(), &Policy::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn updates_in_place_and_leaves_alone_what_others_own() {
    let world = World::new();
    world.apply(&estate()).await;
    world.log();
    let changed = with(with(estate(), "tenant/a/silo/nodes", "max", json!(5)), "tenant/a/silo/nodes", "size", json!(9));
    let changed = with(changed, "tenant/a/silo/group", "members", json!(["y", "x"]));
    world.apply(&changed).await;
    assert_eq!(world.log(), ["update tenant/a/silo/nodes max"]);
}

#[tokio::test]
async fn a_replacement_that_can_stand_beside_the_old_one_is_made_first() {
    let world = World::new();
    world.apply(&estate()).await;
    world.log();
    let plan =
        world.plan(&with(estate(), "tenant/a/silo/group", "fixed", json!("two")), &Policy::default()).await.unwrap();
    insta::assert_snapshot!(text(&plan), @r"
    0: create replaces tenant/a/silo/group g2 [fixed] after {}
    1: update tenant/a/silo/nodes g1 [group] after {0}
    2: delete replaces tenant/a/silo/group g1 [] after {0,1}
    ");
    assert_eq!(plan.summary().replace, 1);
    let report = world.execute(&plan).await;
    assert_eq!(report.failed().count(), 0);
    assert_eq!(
        world.log(),
        ["create tenant/a/silo/group g2", "update tenant/a/silo/nodes group", "delete tenant/a/silo/group g1"]
    );
}

#[tokio::test]
async fn a_foundation_is_replaced_only_when_allowed() {
    let world = World::new();
    world.apply(&estate()).await;
    let changed = with(estate(), "tenant/a/silo/net", "fixed", json!("10.9.0.0/16"));
    let blocked = world.plan(&changed, &Policy::default()).await.unwrap();
    insta::assert_snapshot!(text(&blocked), @r#"blocked tenant/a/silo/net: NotReplaced { fields: ["fixed"], because: Loses { address: Address("tenant/a/silo/net"), lost: "the net" } }"#);
    let allowed = Policy { allow_replace: [Address::new("tenant/a/silo/net")].into(), ..Policy::default() };
    assert_eq!(world.plan(&changed, &allowed).await.unwrap().summary().replace, 1);
}

/// A network that is created with a key, which can't be changed later.
fn keyed(key: u8, plain: u8) -> Desired {
    desired(&[
        ("tenant/a/silo/key", "toy.twin", json!({"fixed": key}), &[]),
        ("tenant/a/silo/net", "toy.net", json!({"fixed": to("tenant/a/silo/key"), "plain": plain}), &[]),
        ("tenant/a/silo/box", "toy.box", json!({"net": to("tenant/a/silo/net"), "plain": plain}), &[]),
    ])
}

#[tokio::test]
async fn a_blocked_foundation_keeps_its_dependencies_and_other_steps_continue() {
    let world = World::new();
    world.apply(&keyed(1, 1)).await;
    let plan = world.plan(&keyed(2, 2), &Policy::default()).await.unwrap();
    insta::assert_snapshot!(text(&plan), @r#"
    0: update tenant/a/silo/net g1 [plain] after {}
    1: update tenant/a/silo/box g1 [plain] after {0}
    blocked tenant/a/silo/key: NotReplaced { fields: ["fixed"], because: Used { id: "toy-0001", user: Address("tenant/a/silo/net"), because: Some(NotReplaced { fields: ["fixed"], because: Loses { address: Address("tenant/a/silo/net"), lost: "the net" } }) } }
    "#);
    world.execute(&plan).await;
    assert!(world.plan(&keyed(1, 2), &Policy::default()).await.unwrap().is_empty());
    let allowed = Policy { allow_replace: [Address::new("tenant/a/silo/net")].into(), ..Policy::default() };
    let plan = world.plan(&keyed(2, 2), &allowed).await.unwrap();
    assert!(plan.blocked.is_empty());
    assert_eq!(world.execute(&plan).await.failed().count(), 0);
}

/// A pool leaves the spec, but one of its tenants can't move.
#[tokio::test]
async fn a_pool_is_kept_while_it_has_a_tenant() {
    let pools = |names: &[&str], home: &str| {
        let mut all = Vec::new();
        let addresses: Vec<[String; 2]> =
            names.iter().map(|n| [format!("pool/{n}/net"), format!("pool/{n}/guard")]).collect();
        for [net, guard] in &addresses {
            all.push((net.as_str(), "toy.net", json!({}), &[][..]));
            all.push((guard.as_str(), "toy.box", json!({"net": to(net)}), &[][..]));
        }
        let state = json!({"fixed": to(&format!("pool/{home}/net"))});
        all.push(("tenant/t/pool/nodes", "toy.twin", state, &[][..]));
        desired(&all)
    };
    let world = World::new();
    world.apply(&pools(&["a"], "a")).await;
    let moved = pools(&["b"], "b");
    let mut observed = world.observed(&moved).await;
    let address = Address::new("pool/b/net");
    let foreign = Foreign { address: address.clone(), id: "theirs".to_owned(), message: "theirs".to_owned() };
    observed.foreign.insert(address, foreign);
    let plan = plan(&moved, &observed, &world.kinds, &Policy::default()).unwrap();
    insta::assert_snapshot!(text(&plan), @r#"
    blocked pool/b/net: Foreign { message: "theirs" }
    blocked pool/b/guard: NeedsBlocked { need: Address("pool/b/net"), pending: false }
    blocked tenant/t/pool/nodes: NeedsBlocked { need: Address("pool/b/net"), pending: false }
    blocked pool/a/net: Used { id: "toy-0001", user: Address("tenant/t/pool/nodes"), because: Some(NeedsBlocked { need: Address("pool/b/net"), pending: false }) }
    "#);
    assert!(plan.confirm.is_empty());
}

fn zones(names: &[&str], mark: u8) -> Desired {
    let subnets: Vec<String> = names.iter().map(|n| format!("tenant/a/silo/subnet-{n}")).collect();
    let all: Vec<String> = subnets.iter().map(|s| to(s)).collect();
    let mut resources: Vec<_> = subnets.iter().map(|s| (s.as_str(), "toy.box", json!({}), &[][..])).collect();
    resources.push(("tenant/a/silo/gate", "toy.gate", json!({"members": all, "mark": mark}), &[]));
    resources.push(("tenant/a/silo/pods", "toy.pods", json!({"fixed": all}), &["tenant/a/silo/gate"]));
    desired(&resources)
}

#[tokio::test]
async fn access_is_removed_after_its_users() {
    let world = World::new();
    world.apply(&zones(&["a", "b"], 1)).await;
    let plan = world.plan(&zones(&["a"], 1), &Policy::default()).await.unwrap();
    insta::assert_snapshot!(text(&plan), @r"
    0: create replaces tenant/a/silo/pods g2 [fixed] after {}
    1: delete replaces tenant/a/silo/pods g1 [] after {0}
    2: update tenant/a/silo/gate g1 [members] after {1}
    3: delete tenant/a/silo/subnet-b g1 [] after {1,2}
    ");
    // New access is added first, in a separate step.
    let plan = world.plan(&zones(&["a", "c"], 2), &Policy::default()).await.unwrap();
    insta::assert_snapshot!(text(&plan), @r"
    0: create tenant/a/silo/subnet-c g1 [] after {}
    1: update tenant/a/silo/gate g1 [mark,members] after {0}
    2: create replaces tenant/a/silo/pods g2 [fixed] after {0,1}
    3: delete replaces tenant/a/silo/pods g1 [] after {2}
    4: update tenant/a/silo/gate g1 [members] after {0,1,3}
    5: delete tenant/a/silo/subnet-b g1 [] after {1,3,4}
    ");
    assert_eq!(plan.summary().change, 1);
    let report = world.execute(&plan).await;
    assert_eq!((report.failed().count(), report.done().change), (0, 1));
    assert!(world.plan(&zones(&["a", "c"], 2), &Policy::default()).await.unwrap().is_empty());
}

fn lint<'a>(world: &'a World, desired: &'a Desired, observed: &'a Observed) -> Lint<'a> {
    Lint { desired, observed, kinds: &world.kinds }
}

/// Each rule of the lint, with a plan that violates it.
#[tokio::test]
async fn the_lint_refuses_invalid_plans() {
    let world = World::new();
    world.apply(&zones(&["a", "b"], 1)).await;
    let after = zones(&["a"], 1);
    let observed = world.observed(&after).await;
    let whole = plan(&after, &observed, &world.kinds, &Policy::default()).unwrap();
    let lint = lint(&world, &after, &observed);
    lint.check(&whole).unwrap();
    let at = |plan: &Plan, action, address: &str| {
        plan.steps.iter().position(|s| s.action == action && s.address.as_str() == address).unwrap()
    };
    let refuses = |change: &dyn Fn(&mut Plan), why: &str| {
        let mut plan = whole.clone();
        change(&mut plan);
        let error = lint.check(&plan).unwrap_err();
        assert_eq!(error.class, Class::Bug);
        assert!(error.message.contains(why), "{why}: {error}");
    };
    refuses(&|plan| plan.steps.push(plan.steps[0].clone()), "the plan has this step twice");
    refuses(&|plan| plan.steps.reverse(), "comes before a step that it depends on");
    // The subnet is used by the pods that were there.
    let subnet = "tenant/a/silo/subnet-b";
    refuses(
        &|plan| {
            let i = at(plan, Action::Delete, subnet);
            plan.steps[i].needs.clear();
        },
        "still uses it",
    );
    // The deletion of the pods is impossible.
    refuses(
        &|plan| {
            let i = at(plan, Action::Delete, "tenant/a/silo/pods");
            plan.steps[i].found = None;
            plan.steps[i].action = Action::Wait;
        },
        "tenant/a/silo/pods uses it and isn't deleted",
    );
    refuses(
        &|plan| {
            let i = at(plan, Action::Update, "tenant/a/silo/gate");
            plan.steps[i].needs.clear();
        },
        "this removes access that tenant/a/silo/pods still needs",
    );
    let fresh = World::new();
    let observed = fresh.observed(&after).await;
    let mut plan = plan(&after, &observed, &fresh.kinds, &Policy::default()).unwrap();
    let i = at(&plan, Action::Create, "tenant/a/silo/pods");
    plan.steps[i].needs.clear();
    let error = Lint { desired: &after, observed: &observed, kinds: &fresh.kinds }.check(&plan).unwrap_err();
    assert!(error.message.contains("which it depends on, isn't created or changed before"), "{error}");
}

#[tokio::test]
async fn what_left_the_spec_is_deleted_users_first() {
    let world = World::new();
    world.apply(&estate()).await;
    world.log();
    let plan = world.plan(&Desired::default(), &Policy::default()).await.unwrap();
    insta::assert_snapshot!(text(&plan), @r"
    0: delete tenant/a/silo/nodes g1 [] after {}
    1: delete tenant/a/silo/group g1 [] after {0}
    2: delete tenant/a/silo/subnet g1 [] after {0}
    3: delete tenant/a/silo/net g1 [] after {1,2}
    kept tenant/a/silo/log: AuditLogs
    ");
    let kept = plan.kept.iter().map(|k| k.address.clone()).collect();
    let lost = Loss { address: Address::new("tenant/a/silo"), lost: vec!["the net".to_owned()], kept };
    assert_eq!(plan.confirm, [lost]);
    let report = world.execute(&plan).await;
    assert_eq!(report.failed().count(), 0, "{report:?}");
    assert_eq!(world.cloud.lock().unwrap().items.len(), 1, "the log stays");
}

#[tokio::test]
async fn deletion_protection_is_removed_before_the_deletion() {
    let world = World::new();
    world.apply(&with(estate(), "tenant/a/silo/subnet", "locked", json!(true))).await;
    world.log();
    let policy = Policy { destroy: true, delete_logs: true, ..Policy::default() };
    let plan = world.plan(&estate(), &policy).await.unwrap();
    let report = world.execute(&plan).await;
    assert_eq!(report.failed().count(), 0, "{report:?}");
    assert!(world.log().contains(&"update tenant/a/silo/subnet locked".to_owned()));
    assert!(world.cloud.lock().unwrap().items.is_empty());
}

#[tokio::test]
async fn a_lost_answer_makes_no_duplicate() {
    let world = World::new();
    world.cloud.lock().unwrap().lose.insert("tenant/a/silo/net".to_owned());
    let report = world.apply(&estate()).await;
    assert_eq!(report.failed().count(), 0);
    assert_eq!(world.cloud.lock().unwrap().items.len(), 5);
}

#[tokio::test]
async fn a_creation_that_takes_effect_after_its_retry_is_found() {
    let world = World::new();
    world.cloud.lock().unwrap().late.insert("tenant/a/silo/subnet".to_owned());
    let report = world.apply(&estate()).await;
    assert_eq!(report.failed().count(), 0, "{report:?}");
    assert_eq!(world.cloud.lock().unwrap().items.len(), 5);
}

#[tokio::test]
async fn a_failure_skips_what_depends_on_it_and_nothing_else() {
    let world = World::new();
    world.cloud.lock().unwrap().fail.insert("tenant/a/silo/group".to_owned());
    let report = world.apply(&estate()).await;
    let outcome = |address: &str| {
        let line = report.lines.iter().find(|l| l.address.as_str() == address).unwrap();
        match &line.outcome {
            Outcome::Done => "done",
            Outcome::Failed { .. } => "failed",
            Outcome::Blocked { .. } => "blocked",
            Outcome::Unmet { .. } => "unmet",
            Outcome::Skipped { .. } => "skipped",
            Outcome::NotStarted => "not started",
            Outcome::Abandoned => "abandoned",
        }
    };
    assert_eq!(outcome("tenant/a/silo/group"), "failed");
    assert_eq!(outcome("tenant/a/silo/nodes"), "skipped");
    assert_eq!(outcome("tenant/a/silo/subnet"), "done");
}

#[tokio::test]
async fn duplicates_are_named_and_not_changed() {
    let world = World::new();
    world.apply(&estate()).await;
    {
        let mut cloud = world.cloud.lock().unwrap();
        let twin = cloud.items.values().find(|i| i.address.as_str() == "tenant/a/silo/subnet").unwrap().clone();
        cloud.items.insert("toy-9999".to_owned(), twin);
    }
    let plan = world.plan(&estate(), &Policy::default()).await.unwrap();
    assert!(plan.steps.is_empty());
    let why = &plan.blocked[0].why;
    assert!(matches!(why, WhyNot::Twice { ids } if ids.contains(&"toy-9999".to_owned())), "{why:?}");
}

fn is_done(report: &Report) -> bool {
    report.lines.iter().all(|line| matches!(line.outcome, Outcome::Done))
}

/// Two accounts, with one cloud each.
#[tokio::test]
async fn each_resource_is_made_read_and_deleted_in_its_own_account() {
    let mut world = World::new();
    let other = Arc::new(Scope { account: "222222222222".to_owned(), ..Scope::default() });
    // AWS's ids are unique across accounts.
    let theirs = Arc::new(Mutex::new(Cloud { next: 5000, ..Cloud::default() }));
    connect(&mut world.kinds, &other, &theirs);
    let net = |id: &str| format!("tenant/{id}/silo/net");
    let put = |desired: &mut Desired, id: &str, scope: &Arc<Scope>| {
        let (net, inside) = (net(id), format!("tenant/{id}/silo/box"));
        let held = json!({"in": reference(&Address::new(&net), "id")});
        for (address, kind, state) in [(&net, "toy.net", json!({})), (&inside, "toy.box", held)] {
            let (address, scope) = (Address::new(address), scope.clone());
            desired
                .insert(Resource { address, kind, scope, state: state.into(), after: vec![], controls: vec![] })
                .unwrap();
        }
    };
    let mut all = Desired::default();
    put(&mut all, "a", &Arc::default());
    put(&mut all, "b", &other);
    assert!(is_done(&world.apply(&all).await));
    let held = |cloud: &Mutex<Cloud>| -> BTreeSet<String> {
        cloud.lock().unwrap().items.values().map(|item| item.address.place().to_string()).collect()
    };
    assert_eq!(held(&world.cloud), ["tenant/a/silo".to_owned()].into());
    assert_eq!(held(&theirs), ["tenant/b/silo".to_owned()].into());
    assert!(world.plan(&all, &Policy::default()).await.unwrap().is_empty());

    // Nothing moves by itself.
    let mut moved = Desired::default();
    put(&mut moved, "a", &other);
    put(&mut moved, "b", &other);
    let plan = world.plan(&moved, &Policy::default()).await.unwrap();
    assert!(plan.steps.is_empty());
    assert!(plan.blocked.iter().all(|b| matches!(&b.why, WhyNot::Elsewhere { to, .. } if *to == other.to_string())));
    assert_eq!(plan.blocked.len(), 2);

    // The same tags in two accounts.
    let copy = world.cloud.lock().unwrap().items.values().find(|i| i.kind == "toy.net").cloned().unwrap();
    theirs.lock().unwrap().items.insert("toy-copy".to_owned(), copy);
    let plan = world.plan(&all, &Policy::default()).await.unwrap();
    assert!(plan.steps.is_empty());
    assert!(matches!(&plan.blocked[0].why, WhyNot::Twice { ids } if ids.contains(&"toy-copy".to_owned())));
    theirs.lock().unwrap().items.remove("toy-copy");

    let mut left = Desired::default();
    put(&mut left, "a", &Arc::default());
    let allowed = Policy { allow_destroy: [Address::new("tenant/b/silo")].into(), ..Policy::default() };
    let plan = world.plan(&left, &allowed).await.unwrap();
    assert!(is_done(&world.execute(&plan).await));
    assert_eq!(held(&world.cloud).len(), 1);
    assert!(held(&theirs).is_empty());
}

#[tokio::test]
async fn a_failed_resource_is_made_again() {
    let world = World::new();
    world.apply(&estate()).await;
    world.log();
    for item in world.cloud.lock().unwrap().items.values_mut() {
        if item.address.as_str() == "tenant/a/silo/nodes" {
            item.status = Status::Failed { why: "CREATE_FAILED: no capacity".to_owned(), repair: Repair::Replace };
        }
    }
    world.apply(&estate()).await;
    assert_eq!(world.log(), ["delete tenant/a/silo/nodes g1", "create tenant/a/silo/nodes g2"]);
}

#[tokio::test]
async fn selecting_a_tenant_touches_only_its_own() {
    let world = World::new();
    let both = desired(&[
        ("pool/p/cluster", "toy.net", json!({}), &[]),
        ("tenant/a/pool/nodes", "toy.box", json!({"cluster": to("pool/p/cluster")}), &[]),
        ("tenant/b/pool/nodes", "toy.box", json!({"cluster": to("pool/p/cluster")}), &[]),
    ]);
    let only = |deps| Policy { tenants: ["a".to_owned()].into(), with_deps: deps, ..Policy::default() };
    let missing = world.plan(&both, &only(false)).await.unwrap_err();
    assert!(missing.message.contains("pool/p"), "{missing}");
    let plan = world.plan(&both, &only(true)).await.unwrap();
    assert_eq!(
        plan.steps.iter().map(|s| s.address.as_str()).collect::<Vec<_>>(),
        ["pool/p/cluster", "tenant/a/pool/nodes"]
    );
    world.apply(&both).await;
    let gone = without(&without(&both, "tenant/a/pool/nodes"), "tenant/b/pool/nodes");
    let plan = world.plan(&gone, &only(false)).await.unwrap();
    assert_eq!(plan.steps.iter().map(|s| s.address.as_str()).collect::<Vec<_>>(), ["tenant/a/pool/nodes"]);
}

#[tokio::test]
async fn one_lane_runs_one_at_a_time() {
    let world = World::new();
    let lane = |i: usize| (format!("tenant/a/x/{i}"), json!({"lane": "one"}));
    let mut all = Desired::default();
    for (address, state) in (0..8).map(lane) {
        all.insert(Resource {
            address: Address::new(address),
            kind: "toy.box",
            scope: Arc::default(),
            state: state.into(),
            after: vec![],
            controls: vec![],
        })
        .unwrap();
    }
    world.apply(&all).await;
    assert_eq!(world.cloud.lock().unwrap().most, 1);
}

/// Waiting steps share calls. If a kind needs one call for each resource anyway, they don't, because the failure of one
/// call must not affect other steps.
#[tokio::test]
async fn waiting_steps_share_calls_if_the_api_allows_it() {
    let world = World::new();
    let mut all = Desired::default();
    for (kind, i) in ["toy.box", "toy.each"].into_iter().flat_map(|kind| (0..8).map(move |i| (kind, i))) {
        let address = Address::new(format!("tenant/a/{kind}/{i}"));
        all.insert(Resource {
            address,
            kind,
            scope: Arc::default(),
            state: json!({}).into(),
            after: vec![],
            controls: vec![],
        })
        .unwrap();
    }
    world.apply(&all).await;
    let looked_for = world.cloud.lock().unwrap().looked_for.clone();
    assert!(looked_for["toy.box"] > 1, "{looked_for:?}");
    assert_eq!(looked_for["toy.each"], 1);
}

#[tokio::test]
async fn a_stopped_run_starts_nothing_new_and_resumes() {
    let world = World::new();
    let plan = world.plan(&estate(), &Policy::default()).await.unwrap();
    let (events, mut listener) = mpsc::unbounded_channel();
    let (stopper, stop) = watch::channel(Stop::No);
    let executor = Executor {
        kinds: world.kinds.clone(),
        tenancy: "acme".to_owned(),
        clock: Clock::scaled(1e6),
        parallelism: 1,
        events,
        stop,
        guard: Arc::new(()),
        chance: Chance::default(),
    };
    let stopping = async {
        while let Some(event) = listener.recv().await {
            if matches!(event, super::event::Event::Done { .. }) {
                let _ = stopper.send(Stop::Gently);
            }
        }
    };
    let run = async {
        let report = executor.execute(&plan).await;
        drop(executor);
        report
    };
    let (report, ()) = tokio::join!(run, stopping);
    assert!(report.interrupted);
    assert!(report.left().count() > 0);
    let again = world.apply(&estate()).await;
    assert_eq!(again.failed().count(), 0);
    assert_eq!(world.cloud.lock().unwrap().items.len(), 5);
    assert!(world.plan(&estate(), &Policy::default()).await.unwrap().is_empty());
}

/// An impossible change that the spec asks for is shown as blocked, and doesn't block other steps.
#[tokio::test]
async fn a_refusal_is_shown_beside_what_can_be_done() {
    let world = World::new();
    let mut desired = estate();
    world.apply(&desired).await;
    let refusal = |pending| super::desired::Refusal {
        address: Address::new("tenant/a/silo/net"),
        kind: "toy.net",
        path: "fixed",
        is: "10.0.0.0/16".to_owned(),
        asked: "10.9.0.0/16".to_owned(),
        reason: "it keeps its block".to_owned(),
        help: "leave it".to_owned(),
        pending,
    };
    desired.refusals.push(refusal(false));
    let needs = json!({"net": to("tenant/a/silo/net"), "fixed": "10.0.2.0/24"});
    let new = Resource {
        address: Address::new("tenant/a/silo/more"),
        kind: "toy.box",
        scope: Arc::default(),
        state: needs.into(),
        after: vec![],
        controls: vec![],
    };
    desired.insert(new).unwrap();
    let plan = world.plan(&desired, &Policy::default()).await.unwrap();
    assert!(!plan.is_empty());
    assert_eq!(
        text(&plan),
        "0: create tenant/a/silo/more g1 [] after {}\nblocked tenant/a/silo/net: Refused { reason: \"it keeps its block\", help: \"leave it\", pending: false }"
    );
    assert!(!plan.blocked[0].why.is_pending() && plan.blocked[0].changes[0].after == json!("10.9.0.0/16"));
    let other = Policy { tenants: ["b".to_owned()].into(), ..Policy::default() };
    assert!(world.plan(&desired, &other).await.unwrap().is_empty(), "it isn't selected");
    // Two refusals of one resource: only the immutable field can't have drifted.
    desired.refusals.push(super::desired::Refusal { path: "plain", ..refusal(false) });
    let plan = world.plan(&desired, &Policy::default()).await.unwrap();
    let observed = world.observed(&desired).await;
    let drift = super::drift::of(plan, &desired, &observed, &world.kinds);
    let paths = |all: &[Blocked]| all.iter().map(|b| b.changes[0].path.clone()).collect::<Vec<_>>();
    assert_eq!(
        (paths(&drift.blocked), paths(&drift.drift.unwrap().fixed)),
        (vec!["plain".into()], vec!["fixed".into()])
    );
    let destroy = Policy { destroy: true, ..Policy::default() };
    assert_eq!(world.plan(&desired, &destroy).await.unwrap().blocked.len(), 0);
}

/// The old `front` can't be deleted before the new `inner` exists, which can't be made before the old one is deleted,
/// which the old `front` uses. The first run frees `inner`, and the second replaces it.
#[tokio::test]
async fn a_replacement_waits_for_the_next_run_where_steps_would_wait_for_each_other() {
    let world = World::new();
    let inner = |fixed: u8| ("tenant/a/silo/inner", "toy.box", json!({"fixed": fixed}), &[][..]);
    let to_inner = json!({"in": to("tenant/a/silo/inner")});
    let before = desired(&[
        inner(1),
        ("tenant/a/silo/middle", "toy.twin", to_inner.clone(), &[]),
        ("tenant/a/silo/front", "toy.box", json!({"in": to("tenant/a/silo/middle")}), &[]),
    ]);
    world.apply(&before).await;
    let after = desired(&[inner(2), ("tenant/a/silo/front", "toy.box", to_inner, &[])]);
    let plan = world.plan(&after, &Policy::default()).await.unwrap();
    assert_eq!(
        text(&plan),
        "0: update tenant/a/silo/front g1 [in] after {}\n1: delete tenant/a/silo/middle g1 [] after {0}\nblocked tenant/a/silo/inner: NotReplaced { fields: [\"fixed\"], because: Later { id: \"toy-0001\", user: Address(\"tenant/a/silo/middle\") } }"
    );
    assert!(plan.blocked[0].why.is_pending());
    assert!(is_done(&world.execute(&plan).await));
    let report = world.apply(&after).await;
    assert!(is_done(&report), "{report:?}");
    assert!(world.plan(&after, &Policy::default()).await.unwrap().is_empty());
}

/// Random estates: each resource may refer to earlier ones.
fn any_estate() -> impl Strategy<Value = Desired> {
    let one = (0..3usize, 0..4u8, 0..4u8, proptest::collection::vec(0..8usize, 0..3), any::<bool>());
    proptest::collection::vec(proptest::option::weighted(0.8, one), 1..8).prop_map(|items| {
        let mut desired = Desired::default();
        let name = |i: usize| Address::new(format!("tenant/t{}/x/r{i}", i % 3));
        let present: Vec<bool> = items.iter().map(Option::is_some).collect();
        for (i, item) in items.iter().enumerate() {
            let Some((kind, fixed, plain, refs, order_only)) = item else { continue };
            let targets: Vec<Address> = refs.iter().filter(|r| **r < i && present[**r]).map(|r| name(*r)).collect();
            let (uses, after) = if *order_only { (vec![], targets) } else { (targets, vec![]) };
            let uses: Vec<String> = uses.iter().map(|a| reference(a, "id")).collect();
            desired
                .insert(Resource {
                    address: name(i),
                    // The kind of an address never changes.
                    kind: ["toy.box", "toy.twin"][i % 2],
                    scope: Arc::default(),
                    state: json!({"fixed": fixed, "plain": plain, "members": uses, "model": kind}).into(),
                    after,
                    controls: vec![],
                })
                .unwrap();
        }
        desired
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_estate_converges_from_any_other(first in any_estate(), second in any_estate()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            for estate in [&first, &second] {
                let report = world.apply(estate).await;
                prop_assert_eq!(report.failed().count(), 0, "{:?}", report);
                let mut again = world.plan(estate, &Policy::default()).await.unwrap();
                // A replacement in a circle of steps needs another run for each circle.
                for _ in 0..estate.len() {
                    if again.is_empty() {
                        break;
                    }
                    prop_assert!(again.blocked.iter().all(|b| matches!(&b.why, WhyNot::NotReplaced { because, .. } if matches!(**because, WhyNot::Later { .. }))), "{}", text(&again));
                    let report = world.apply(estate).await;
                    prop_assert_eq!(report.failed().count(), 0, "{:?}", report);
                    again = world.plan(estate, &Policy::default()).await.unwrap();
                }
                prop_assert!(again.is_empty(), "{}", text(&again));
                prop_assert_eq!(world.cloud.lock().unwrap().items.len(), estate.len());
            }
            let empty = Desired::default();
            world.apply(&empty).await;
            prop_assert!(world.cloud.lock().unwrap().items.is_empty());
            Ok(())
        })?;
    }

    /// The lint has a reason for each dependency of a plan: a plan without one of its dependencies is refused.
    #[test]
    fn no_step_may_forget_what_it_waits_for(first in any_estate(), second in any_estate(), which in any::<proptest::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            world.apply(&first).await;
            let observed = world.observed(&second).await;
            let mut plan = plan(&second, &observed, &world.kinds, &Policy::default()).unwrap();
            let lint = lint(&world, &second, &observed);
            prop_assert!(lint.check(&plan).is_ok());
            let waiting: Vec<usize> = (0..plan.steps.len()).filter(|i| !plan.steps[*i].needs.is_empty()).collect();
            if !waiting.is_empty() {
                let i = waiting[which.index(waiting.len())];
                plan.steps[i].needs.clear();
                prop_assert!(lint.check(&plan).is_err(), "{}", text(&plan));
            }
            Ok(())
        })?;
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(estate in any_estate()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let one = serde_json::to_string(&world.plan(&estate, &Policy::default()).await.unwrap()).unwrap();
            let two = serde_json::to_string(&world.plan(&estate, &Policy::default()).await.unwrap()).unwrap();
            prop_assert_eq!(one, two);
            Ok(())
        })?;
    }
}

#[test]
fn actions_have_names_for_json() {
    assert_eq!(serde_json::to_value(Action::Create).unwrap(), json!("create"));
}

fn in_the_pool() -> Desired {
    desired(&[
        ("pool/p/net", "toy.net", json!({"fixed": "10.0.0.0/16"}), &[]),
        ("pool/p/class", "toy.box", json!({"fixed": "x"}), &[]),
        ("tenant/a/pool/p/nodes", "toy.box", json!({"net": to("pool/p/net"), "class": to("pool/p/class")}), &[]),
    ])
}

fn in_the_silo() -> Desired {
    desired(&[
        ("pool/p/net", "toy.net", json!({"fixed": "10.0.0.0/16"}), &[]),
        ("tenant/a/silo/net", "toy.net", json!({"fixed": "10.1.0.0/16"}), &[]),
        ("tenant/a/silo/nodes", "toy.box", json!({"net": to("tenant/a/silo/net")}), &[]),
    ])
}

#[tokio::test]
async fn a_former_placement_and_its_dependencies_are_kept_until_confirmed() {
    let world = World::new();
    world.apply(&in_the_pool()).await;
    let plan = world.plan(&in_the_silo(), &Policy::default()).await.unwrap();
    insta::assert_snapshot!(text(&plan), @r#"
    0: create tenant/a/silo/net g1 [] after {}
    1: create tenant/a/silo/nodes g1 [] after {0}
    kept tenant/a/pool/p: Moved { tenants: {"a"}, new: [Address("tenant/a/silo")], but: Unconfirmed(Address("tenant/a/pool/p")) }
    kept pool/p/class: UsedByFormer
    "#);
    let allowed = Policy { allow_destroy: [Address::new("tenant/a/pool/p")].into(), ..Policy::default() };
    let plan = world.plan(&in_the_silo(), &allowed).await.unwrap();
    insta::assert_snapshot!(text(&plan), @r"
    0: create tenant/a/silo/net g1 [] after {}
    1: create tenant/a/silo/nodes g1 [] after {0}
    2: delete tenant/a/pool/p/nodes g1 [] after {0,1}
    3: delete pool/p/class g1 [] after {0,1,2}
    ");
    let (after, observed) = (in_the_silo(), world.observed(&in_the_silo()).await);
    for (change, why) in [
        (
            &(|plan: &mut Plan| plan.steps[2].needs.clear()) as &dyn Fn(&mut Plan),
            "of the tenant's new placement isn't complete before",
        ),
        (
            &|plan: &mut Plan| {
                let step = plan.steps[1].clone();
                plan.blocked.push(Blocked {
                    address: step.address,
                    kind: step.kind.to_owned(),
                    why: WhyNot::Unread { host: "a".to_owned() },
                    controls: vec![],
                    changes: vec![],
                });
            },
            "is blocked",
        ),
    ] {
        let mut broken = plan.clone();
        change(&mut broken);
        let error = lint(&world, &after, &observed).check(&broken).unwrap_err();
        assert!(error.message.contains("tenant/a/silo/") && error.message.contains(why), "{error}");
    }
    world.cloud.lock().unwrap().fail.insert("tenant/a/silo/nodes".to_owned());
    world.log();
    let report = world.execute(&plan).await;
    assert_eq!(report.failed().count(), 1);
    assert!(!world.log().iter().any(|l| l.starts_with("delete")), "the new home failed");
}
