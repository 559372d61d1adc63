//! Other hands: what somebody deletes, doubles or strips of its tags between
//! two runs.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::Tag;
use ringfence::aws::tags::with_generation;
use ringfence::engine::address::Address;
use ringfence::engine::plan::{Action, Step};

use super::*;

/// A silo with everything in it, as it stands after an apply.
struct Silo {
    spec: String,
    begin: Vec<u8>,
    wanted: Estate,
}

impl Silo {
    async fn new() -> Arc<Self> {
        let spec = alone("premium");
        let ground = Ground::new(&spec);
        ground.undisturbed(&apply()).await;
        let begin = ground.server.snapshot().unwrap();
        Arc::new(Self { spec, begin, wanted: ground.estate() })
    }

    fn ground(&self) -> Ground {
        Ground::begun(&self.spec, Some(&self.begin))
    }
}

/// The plan cut down to deleting `address`, and with `all` what must be gone
/// before.
fn only(plan: &Plan, address: &Address, all: bool) -> Plan {
    let last = plan.steps.iter().position(|s| s.address == *address && s.action == Action::Delete).unwrap();
    let mut kept = BTreeSet::from([last]);
    if all {
        for (i, step) in plan.steps.iter().enumerate().take(last + 1).rev() {
            if kept.contains(&i) {
                kept.extend(&step.needs);
            }
        }
    }
    let place = |i: &usize| kept.iter().position(|k| k == i);
    let steps = kept.iter().map(|i| {
        let step = plan.steps[*i].clone();
        Step { needs: step.needs.iter().filter_map(place).collect(), ..step }
    });
    Plan { steps: steps.collect(), ..plan.clone() }
}

/// Deletes what stands at `address` as people would: by itself if AWS lets
/// them, otherwise with all that AWS wants gone before.
async fn delete_by_hand(ground: &Ground, address: &Address) {
    let session = ground.session().await.unwrap();
    let (_, plan) = session.plan(&destroy(), false).await.unwrap();
    let report = carry_out(&session, &only(&plan, address, false)).await;
    if report.failed().next().is_some() {
        let (_, plan) = session.plan(&destroy(), false).await.unwrap();
        let report = carry_out(&session, &only(&plan, address, true)).await;
        let failed: Vec<_> = report.failed().collect();
        assert!(failed.is_empty() && report.left().next().is_none(), "{address}: {failed:?}");
    }
}

impl Silo {
    /// The next apply makes it whole, and the one after has nothing to do.
    async fn is_made_whole(&self, ground: &Ground, address: &Address) {
        let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
        let made = plan.steps.iter().any(|s| s.address == *address && s.action == Action::Create);
        assert!(made, "{address} isn't in {:?}", steps(&plan));
        ground.undisturbed(&apply()).await;
        let (_, after) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
        assert!(after.is_empty(), "{address}: {:?}", steps(&after));
        let estate = ground.estate();
        assert_eq!(estate.addresses(), self.wanted.addresses(), "{address}");
        // Another one of something has another generation, and a name by it.
        if plan.summary().replace == 0 {
            let mut differences = self.wanted.differences(&estate);
            // A set, in the order in which it was put together.
            differences.retain(|line| !line.contains("/routeTableIdSet/"));
            assert!(differences.is_empty(), "{address}: {differences:#?}");
        }
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| format!("{:?} {}", s.action, s.address)).collect()
}

/// Addresses of everything outside of the cluster.
async fn outside(silo: &Silo) -> Vec<Address> {
    let ground = silo.ground();
    let session = ground.session().await.unwrap();
    let (_, plan) = session.plan(&destroy(), false).await.unwrap();
    let outside = |s: &&Step| s.action == Action::Delete && !session.kinds.get(s.kind).unwrap().in_cluster();
    plan.steps.iter().filter(outside).map(|s| s.address.clone()).collect()
}

/// A deleted NAT gateway stays listed for an hour, and its client token gives
/// it back: each time another token is needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_nat_gateway_deleted_twice_is_made_twice() {
    let silo = Silo::new().await;
    let nat = outside(&silo).await.into_iter().find(|a| a.as_str().contains("/nat")).unwrap();
    let ground = silo.ground();
    delete_by_hand(&ground, &nat).await;
    ground.undisturbed(&apply()).await;
    delete_by_hand(&ground, &nat).await;
    silo.is_made_whole(&ground, &nat).await;
}

/// Nothing is done about a key that is scheduled for deletion under a cluster
/// but said: only a new cluster could have another key.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_does_not_cost_its_cluster() {
    let silo = Silo::new().await;
    let key = Address::new("tenant/7/silo/key");
    let ground = silo.ground();
    delete_by_hand(&ground, &key).await;
    let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
    let blocked: Vec<_> = plan.blocked.iter().map(|b| b.address.as_str()).collect();
    assert_eq!(blocked, ["tenant/7/silo/cluster"]);
    assert!(plan.steps.iter().all(|s| s.action != Action::Delete), "{:?}", steps(&plan));
}

/// A second VPC with the tags of the first: two tenants' silos, of which one
/// has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_vpc_there_twice_is_named_and_holds_up_nobody_else() {
    let two = "tier: premium}, {id: \"8\", name: eight, tier: premium}]";
    let spec = alone("premium").replace("tier: premium}]", two);
    let ground = Ground::new(&spec);
    ground.undisturbed(&apply()).await;
    let session = ground.session().await.unwrap();
    let (look, _) = session.plan(&apply(), false).await.unwrap();
    let address = Address::new("tenant/7/silo/vpc");
    let found = look.observed.current(&address).unwrap().clone();
    let ec2 = &session.aws.ec2;
    // It comes first by its id, so that what names the other would follow it.
    let twin = loop {
        let made = ec2.create_vpc().cidr_block("10.200.0.0/16").send().await.unwrap();
        let id = made.vpc().unwrap().vpc_id().unwrap().to_owned();
        if id < found.id {
            break id;
        }
        ec2.delete_vpc().vpc_id(&id).send().await.unwrap();
    };
    let tags = serde_json::from_value(found.state["tags"].clone()).unwrap();
    let tags = with_generation(&tags, found.generation);
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
    ec2.create_tags().resources(&twin).set_tags(Some(tags)).send().await.unwrap();
    let theirs = Address::new("tenant/8/silo/log-group/flow-logs");
    let (_, all) = session.plan(&destroy(), false).await.unwrap();
    carry_out(&session, &only(&all, &theirs, false)).await;

    let session = ground.session().await.unwrap();
    let (_, plan) = session.plan(&apply(), false).await.unwrap();
    let blocked = plan.blocked.iter().find(|b| b.address == address).unwrap();
    assert!(blocked.reason.contains(&found.id) && blocked.reason.contains(&twin), "{blocked:?}");
    assert_eq!(steps(&plan), [format!("Create {theirs}")]);
    let report = carry_out(&session, &plan).await;
    assert_eq!(report.failed().count() + report.left().count(), 0, "{report:?}");

    // Both carry our tags, so both are taken down.
    ground.undisturbed(&destroy()).await;
    // KMS keeps what it has deleted longest.
    let mut left = ground.estate().addresses();
    left.retain(|address, _| !address.ends_with("/key"));
    assert!(left.is_empty(), "{left:?}");
}
