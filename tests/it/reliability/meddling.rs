//! Changes by others between two runs: deleted resources, duplicates, and
//! resources without their tags.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::Tag;
use ringfence::aws::tags::with_generation;
use ringfence::engine::address::Address;
use ringfence::engine::plan::{Action, Step};
use ringfence::engine::why::{WhyDone, WhyNot};

use super::*;

/// A silo with all its resources, as an apply leaves it.
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

/// The plan reduced to the deletion of `address`. With `all`, also the
/// deletions that must come before it.
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

/// Deletes the resource at `address` as a person would: alone if AWS allows
/// that, otherwise with everything that AWS wants deleted before it.
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
    /// Asserts that the next apply repairs the estate, and that the plan after
    /// it is empty.
    async fn is_made_whole(&self, ground: &Ground, address: &Address) {
        let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
        let made = plan.steps.iter().any(|s| s.address == *address && s.action == Action::Create);
        assert!(made, "{address} isn't in {:?}", steps(&plan));
        ground.undisturbed(&apply()).await;
        let (_, after) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
        assert!(after.is_empty(), "{address}: {:?}", steps(&after));
        let estate = ground.estate();
        assert_eq!(estate.addresses(), self.wanted.addresses(), "{address}");
        // A new resource has another generation, and so another name.
        if plan.summary().replace == 0 {
            let mut differences = self.wanted.differences(&estate);
            // A set in the order of insertion.
            differences.retain(|line| !line.contains("/routeTableIdSet/"));
            // Updates of add-ons that were sent again while their nodes were
            // missing.
            differences.retain(|line| !line.contains("/updates") && !line.contains("/podIdentityAssociations: []"));
            assert!(differences.is_empty(), "{address}: {differences:#?}");
        }
    }
}

/// Addresses of all resources outside of the cluster.
async fn outside(silo: &Silo) -> Vec<Address> {
    let ground = silo.ground();
    let session = ground.session().await.unwrap();
    let (_, plan) = session.plan(&destroy(), false).await.unwrap();
    let outside = |s: &&Step| s.action == Action::Delete && !session.kinds.get(s.kind).unwrap().is_hosted();
    plan.steps.iter().filter(outside).map(|s| s.address.clone()).collect()
}

/// A deleted NAT gateway stays in lists for an hour, and its client token
/// returns it. So each new one needs another token.
#[tokio::test(flavor = "multi_thread")]
async fn a_nat_gateway_deleted_twice_is_created_twice() {
    let silo = Silo::new().await;
    let nat = outside(&silo).await.into_iter().find(|a| a.as_str().contains("/nat")).unwrap();
    let ground = silo.ground();
    delete_by_hand(&ground, &nat).await;
    ground.undisturbed(&apply()).await;
    delete_by_hand(&ground, &nat).await;
    silo.is_made_whole(&ground, &nat).await;
}

/// For these operations, too, a repeated client token returns the deleted
/// resource without an error (EC2 Developer Guide, "Ensuring idempotency in
/// Amazon EC2 API requests").
#[tokio::test(flavor = "multi_thread")]
async fn a_resource_deleted_twice_is_created_twice() {
    let silo = Silo::new().await;
    let all = outside(&silo).await;
    let all: Vec<_> = ["/flow-log", "/route-table/public", "/endpoint/s3", "/endpoint/sts"]
        .iter()
        .map(|end| (silo.clone(), all.iter().find(|a| a.as_str().ends_with(end)).unwrap().clone()))
        .collect();
    at_once(2, all, async |(silo, address)| {
        let ground = silo.ground();
        delete_by_hand(&ground, &address).await;
        ground.undisturbed(&apply()).await;
        delete_by_hand(&ground, &address).await;
        silo.is_made_whole(&ground, &address).await;
    })
    .await;
}

/// If somebody schedules the deletion of a key that is needed, the deletion is
/// cancelled. Everything that is encrypted with it stays readable.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_key_deletion_is_cancelled() {
    let silo = Silo::new().await;
    let ground = silo.ground();
    let session = ground.session().await.unwrap();
    let (look, _) = session.plan(&apply(), false).await.unwrap();
    let id = look.observed.current(&Address::new("tenant/7/silo/key")).unwrap().id.clone();
    session.aws.kms.schedule_key_deletion().key_id(&id).send().await.unwrap();

    let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
    assert!(plan.blocked.is_empty(), "{:?}", plan.blocked);
    let [step] = plan.steps.as_slice() else { panic!("{:?}", steps(&plan)) };
    assert_eq!((step.address.as_str(), step.action), ("tenant/7/silo/key", Action::Update));
    let Some(WhyDone::Failed { what }) = &step.why else { panic!("{step:?}") };
    assert!(what.contains("it is scheduled for deletion on 20"), "{what}");

    // The same with each answer lost once.
    ground.faults("faults: [{only: changes, first: true, after: drop}]");
    ground.undisturbed(&apply()).await;
    ground.faults("{}");
    let (_, after) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
    assert!(after.is_empty(), "{:?}", steps(&after));
    let differences = silo.wanted.differences(&ground.estate());
    assert!(differences.is_empty(), "{differences:#?}");

    // With `destroy`, the key is deleted too.
    session.aws.kms.schedule_key_deletion().key_id(&id).send().await.unwrap();
    ground.undisturbed(&destroy()).await;
    let (_, after) = ground.session().await.unwrap().plan(&destroy(), false).await.unwrap();
    assert!(after.is_empty(), "{:?}", steps(&after));
    note("a key scheduled for deletion under a cluster", 1, "called off, and as undisturbed");
}

/// If the key's alias was deleted too, the plan names it and changes nothing:
/// only a new cluster could have another key.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_does_not_replace_its_cluster() {
    let silo = Silo::new().await;
    let key = Address::new("tenant/7/silo/key");
    let ground = silo.ground();
    delete_by_hand(&ground, &key).await;
    let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
    let blocked: Vec<_> = plan.blocked.iter().map(|b| b.address.as_str()).collect();
    assert_eq!(blocked, ["tenant/7/silo/cluster"]);
    assert!(plan.steps.iter().all(|s| s.action != Action::Delete), "{:?}", steps(&plan));
}

/// A second VPC with the tags of the first. There are silos of two tenants, and
/// one has the duplicate.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_vpc_is_named_and_blocks_no_other_tenant() {
    let two = "tier: premium}, {id: \"8\", name: eight, tier: premium}]";
    let spec = alone("premium").replace("tier: premium}]", two);
    let ground = Ground::new(&spec);
    ground.undisturbed(&apply()).await;
    let session = ground.session().await.unwrap();
    let (look, _) = session.plan(&apply(), false).await.unwrap();
    let address = Address::new("tenant/7/silo/vpc");
    let found = look.observed.current(&address).unwrap().clone();
    let ec2 = &session.aws.ec2;
    // The duplicate's id sorts first, so that a program that takes the first
    // would use the wrong VPC.
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
    let WhyNot::Twice { ids } = &blocked.why else { panic!("{blocked:?}") };
    assert!(ids.contains(&found.id) && ids.contains(&twin), "{blocked:?}");
    assert_eq!(steps(&plan), [format!("Create {theirs}")]);
    let report = carry_out(&session, &plan).await;
    assert_eq!(report.failed().count() + report.left().count(), 0, "{report:?}");

    // Nothing says which of the two is ours. Neither is deleted, everything
    // else is.
    let report = ground.session().await.unwrap();
    let (_, plan) = report.plan(&destroy(), false).await.unwrap();
    let blocked: Vec<_> = plan.blocked.iter().map(|b| (b.address.as_str(), &b.why)).collect();
    assert!(
        matches!(blocked[..], [(at, WhyNot::Twice { ids })] if at == address.as_str() && ids.contains(&twin)),
        "{blocked:?}"
    );
    let report = carry_out(&report, &plan).await;
    assert_eq!(report.failed().count() + report.left().count(), 0, "{report:?}");
    let left = vpcs(&ground).await;
    assert!(left.contains(&found.id) && left.contains(&twin) && left.len() == 2, "{left:?}");

    // After somebody has removed the tags of one, the other is deleted.
    let none = aws_sdk_ec2::types::Tag::builder().key(ringfence::aws::tags::TENANCY).build();
    ec2.delete_tags().resources(&twin).tags(none).send().await.unwrap();
    ground.undisturbed(&destroy()).await;
    assert_eq!(vpcs(&ground).await, [twin]);
    note("a VPC with the tags of another", 2, "both named, neither touched; all else made, and taken down");
}

async fn vpcs(ground: &Ground) -> Vec<String> {
    let aws = ground.session().await.unwrap().aws.clone();
    let all = aws.ec2.describe_vpcs().send().await.unwrap();
    all.vpcs().iter().map(|vpc| vpc.vpc_id().unwrap().to_owned()).collect()
}

/// Each resource in turn is deleted before the next run.
#[tokio::test(flavor = "multi_thread")]
async fn resources_deleted_by_hand_are_created_again() {
    let silo = Silo::new().await;
    let all = outside(&silo).await;
    let count = all.len() - 1;
    // The cluster can't have another key.
    let all: Vec<_> =
        all.into_iter().filter(|a| *a != Address::new("tenant/7/silo/key")).map(|a| (silo.clone(), a)).collect();
    assert!(count > 30 && all.len() == count, "{count}");
    at_once(2, all, async |(silo, address)| {
        let ground = silo.ground();
        delete_by_hand(&ground, &address).await;
        silo.is_made_whole(&ground, &address).await;
    })
    .await;
    note("a resource deleted by hand, with what AWS wants gone before it", count, "as undisturbed");
}

/// Removes our tags from the resource at `address`. Returns its place in the
/// snapshot.
fn strip(snapshot: &[u8], address: &Address) -> (Vec<u8>, String) {
    let mut state: serde_json::Value = serde_json::from_slice(snapshot).unwrap();
    let mut places = Vec::new();
    untag(&mut state["accounts"], "", address.as_str(), &mut places);
    assert_eq!(places.len(), 1, "{address}: {places:?}");
    (serde_json::to_vec(&state).unwrap(), places.remove(0))
}

fn untag(value: &mut serde_json::Value, place: &str, address: &str, places: &mut Vec<String>) {
    let ours = |key: &str| key.starts_with("ringfence.dev/");
    let Some(members) = value.as_object_mut() else { return };
    let mut has = false;
    for name in ["tags", "tagSet", "Tags"] {
        let Some(tags) = members.get_mut(name) else { continue };
        let by_name = tags.get("ringfence.dev/address").is_some_and(|a| a == address);
        let pair = |t: &serde_json::Value| t["key"] == "ringfence.dev/address" && t["value"] == address;
        let listed = tags.as_array().is_some_and(|tags| tags.iter().any(pair));
        match tags {
            serde_json::Value::Object(tags) if by_name => tags.retain(|key, _| !ours(key)),
            serde_json::Value::Array(tags) if listed => tags.retain(|tag| !tag["key"].as_str().is_some_and(ours)),
            _ => continue,
        }
        has = true;
    }
    if has {
        places.push(place.to_owned());
    }
    // Remembered answers of client tokens keep the tags.
    for (key, one) in members.iter_mut().filter(|(key, _)| *key != "tokens") {
        untag(one, &format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), address, places);
    }
}

/// Members that change when other resources refer to this one.
const OF_OTHERS: [&str; 10] = [
    "availableIpAddressCount",
    "associationSet",
    "associationId",
    "privateIpAddress",
    "networkInterfaceId",
    "networkInterfaceOwnerId",
    "instanceOwnerId",
    "association",
    "routeSet",
    "routeTableIdSet",
];

/// A resource without its tags counts as somebody else's. It isn't changed,
/// even if the run fails because of it.
#[tokio::test(flavor = "multi_thread")]
async fn resources_without_their_tags_are_not_changed() {
    let silo = Silo::new().await;
    let ground = silo.ground();
    let session = ground.session().await.unwrap();
    let (look, _) = session.plan(&apply(), false).await.unwrap();
    // One of each kind.
    let mut kinds: std::collections::BTreeMap<&str, Address> = std::collections::BTreeMap::new();
    for address in outside(&silo).await {
        kinds.entry(look.observed.kinds[&address]).or_insert(address);
    }
    let count = kinds.len();
    let all: Vec<_> = kinds.into_iter().map(|(kind, address)| (silo.clone(), kind, address)).collect();
    at_once(2, all, async |(silo, kind, address)| {
        let (begin, place) = strip(&silo.begin, &address);
        for policy in [apply(), destroy()] {
            let ground = Ground::begun(&silo.spec, Some(&begin));
            let as_it_was = |ground: &Ground| {
                let mut one = ground.server.dump().pointer(&place).cloned().unwrap_or_default();
                if let Some(members) = one.as_object_mut() {
                    // Resources in it, and resources that use it, may change.
                    members.retain(|name, _| !OF_OTHERS.contains(&name.as_str()));
                }
                one
            };
            let before = as_it_was(&ground);
            assert!(before.is_object(), "{address} {place}");
            let session = ground.session().await.unwrap();
            let (_, plan) = session.plan(&policy, false).await.unwrap();
            let report = carry_out(&session, &plan).await;
            let said =
                plan.blocked.iter().any(|b| b.address == address) || plan.steps.iter().any(|s| s.address == address);
            assert!(said || policy.destroy, "{kind} {address}: {:?} {report:?}", steps(&plan));
            let gone_with = |kind: &str| ["aws.eks-addon", "aws.pod-identity", "aws.access-entry"].contains(&kind);
            // Resources in our cluster are ours because of the cluster.
            if !gone_with(kind) {
                assert_eq!(as_it_was(&ground), before, "{kind} {address}, destroy: {}", policy.destroy);
            }
        }
    })
    .await;
    note("a resource that lost its tags, by kind: apply and destroy", 2 * count, "it is as it was");
}

/// The VPC has lost its tags, and all resources in it exist. Nothing is
/// replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_vpc_without_its_tags_causes_no_replacement() {
    let silo = Silo::new().await;
    let address = Address::new("tenant/7/silo/vpc");
    let (begin, place) = strip(&silo.begin, &address);
    let id = place.rsplit('/').next().unwrap().to_owned();
    let ground = Ground::begun(&silo.spec, Some(&begin));
    let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
    assert_eq!(steps(&plan), [] as [&str; 0]);
    let [blocked] = &plan.blocked[..] else { panic!("{:?}", plan.blocked) };
    let WhyNot::LostTags { id: lost, tags, .. } = &blocked.why else { panic!("{blocked:?}") };
    assert!(blocked.address == address && *lost == id, "{blocked:?}");
    // The tags in the message help.
    let tags = tags.iter().map(|tag| tag.split_once('=').unwrap());
    let tags = tags.map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
    let aws = ground.session().await.unwrap().aws.clone();
    aws.ec2.create_tags().resources(&id).set_tags(Some(tags)).send().await.unwrap();
    let (_, plan) = ground.session().await.unwrap().plan(&apply(), false).await.unwrap();
    assert!(plan.is_empty(), "{:?} {:?}", steps(&plan), plan.blocked);
}
