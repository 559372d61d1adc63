//! The worked example of docs/architecture.md: a new resource kind, from its state to an apply that converges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ringfence::engine::address::Address;
use ringfence::engine::clock::Clock;
use ringfence::engine::desired::{Desired, Resource};
use ringfence::engine::error::{Error, Result};
use ringfence::engine::execute::{Chance, Executor, Stop};
use ringfence::engine::kind::*;
use ringfence::engine::observe::observe;
use ringfence::engine::packed::Packed;
use ringfence::engine::plan::{Plan, Policy, plan};
use ringfence::engine::value::Outputs;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, watch};

/// A service with zones by id, and the tags that each was created with.
#[derive(Default)]
struct Service(Mutex<BTreeMap<String, (Address, u32, Packed)>>);

// The example begins here.
/// The state, desired and observed, field by field.
#[derive(Serialize, Deserialize)]
struct State {
    name: String,
    ttl: u32,
}

/// The facts. Planning needs nothing else of a kind.
struct DnsZone;

impl Kind for DnsZone {
    fn name(&self) -> &'static str {
        "example.dns-zone"
    }

    // The service can't rename a zone: another name needs a new one.
    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("name", Rule::Replace)]
    }

    fn summary(&self, state: &Packed) -> String {
        state.typed().map(|State { name, ttl }| format!("{name}, {ttl} s")).unwrap_or_default()
    }
}

/// The handlers. They hold the client of one account and region.
struct Zones(Arc<Service>);

#[async_trait]
impl Handlers for Zones {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        let zones = self.0.0.lock().map_err(|_| Error::bug("the service is poisoned"))?;
        let found = zones.iter().map(|(id, (address, generation, state))| Found {
            address: address.clone(),
            generation: *generation,
            id: id.clone(),
            outputs: outputs(id),
            state: state.clone(),
            status: Status::Ready,
            refs: Vec::new(),
        });
        Ok(Observation { found: found.collect(), ..Observation::default() })
    }

    // A handle without an id is of a creation whose answer was lost: look by address.
    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let all = self.observe(&Round::default(), &[]).await?.found;
        let of =
            |handle: &Handle| all.iter().find(|f| f.address == handle.address && f.generation == handle.generation);
        Ok(handles.iter().map(|handle| of(handle).cloned()).collect())
    }

    // The call that creates writes the ownership: address and generation.
    async fn create(&self, new: &New) -> Result<Made> {
        let id = format!("zone-{}", &new.token[..8]);
        let mut zones = self.0.0.lock().map_err(|_| Error::bug("the service is poisoned"))?;
        zones.insert(id.clone(), (new.address.clone(), new.generation, new.state.clone()));
        Ok(Made { outputs: outputs(&id), id, ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let mut zones = self.0.0.lock().map_err(|_| Error::bug("the service is poisoned"))?;
        zones.insert(from.id.clone(), (to.address.clone(), to.generation, to.state.clone()));
        Ok(Made { id: from.id.clone(), outputs: outputs(&from.id), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let mut zones = self.0.0.lock().map_err(|_| Error::bug("the service is poisoned"))?;
        zones.remove(&found.id);
        Ok(true)
    }
}

fn outputs(id: &str) -> Outputs {
    Outputs::from([("id".to_owned(), id.to_owned())])
}
// The example ends here.

fn desired(name: &str, ttl: u32) -> Desired {
    let mut desired = Desired::default();
    let zone = Resource {
        address: Address::new("tenant/7/silo/dns-zone"),
        kind: DnsZone.name(),
        scope: Arc::default(),
        state: json!({"name": name, "ttl": ttl}).into(),
        after: Vec::new(),
        controls: Vec::new(),
    };
    desired.insert(zone).unwrap();
    desired
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| format!("{:?} {}", s.action, s.kind)).collect()
}

#[tokio::test]
async fn the_worked_example_converges() {
    let service = Arc::new(Service::default());
    let mut kinds = Connected::default();
    kinds.add(&Arc::default(), Arc::new(DnsZone), Arc::new(Zones(service.clone())));
    for (name, ttl, expected) in [
        ("globex.example", 60, &["Create example.dns-zone"][..]),
        ("globex.example", 60, &[]),
        ("globex.example", 300, &["Update example.dns-zone"]),
        ("initech.example", 300, &["Delete example.dns-zone", "Create example.dns-zone"]),
        ("initech.example", 300, &[]),
    ] {
        let desired = desired(name, ttl);
        let observed = observe(&kinds, &desired, &Round::default(), BTreeMap::new(), true).await;
        let plan = plan(&desired, &observed, &kinds, &Policy::default()).unwrap();
        assert_eq!(steps(&plan), expected, "{name} {ttl}");
        let (events, _listener) = mpsc::unbounded_channel();
        let (_stopper, stop) = watch::channel(Stop::No);
        let executor = Executor {
            kinds: kinds.clone(),
            tenancy: "acme".to_owned(),
            clock: Clock::scaled(1e6),
            parallelism: 4,
            events,
            stop,
            guard: Arc::new(()),
            chance: Chance::default(),
        };
        let report = executor.execute(&plan).await;
        assert_eq!(report.failed().count(), 0, "{report:?}");
        assert_eq!(service.0.lock().unwrap().len(), 1);
    }
}

/// The page shows the code that is compiled and run here.
#[test]
fn the_page_shows_this_example() {
    let between = |text: &str| -> String {
        let begin = text.find("// The example begins here.\n").expect("its beginning");
        let text = &text[begin..];
        let text = text.split_once('\n').expect("a line").1;
        text.split("// The example ends here.").next().expect("its end").trim().to_owned()
    };
    let code = between(include_str!("new_kind.rs"));
    let page = include_str!("../../docs/architecture.md");
    assert!(page.contains(&format!("```rust\n{code}\n```")), "write the example into docs/architecture.md:\n{code}");
}
