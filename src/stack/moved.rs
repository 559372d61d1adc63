//! The table of moves. Earlier versions wrote some addresses in another form,
//! and tags of existing resources may still have it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::facts::Facts;
use crate::engine::address::{Address, Owner};
use crate::engine::observe::Observed;
use crate::spec::names::Names;
use crate::spec::{self, Spec};

/// The parts that were directly below `tenant/<id>/pool` and
/// `tenant/<id>/fargate` in the old form, which didn't name the pool.
const PARTS: [&str; 7] = ["k8s", "launch-template", "node-group", "pod-identity", "profile", "role", "security-group"];

/// Gives a resource at `tenant/<id>/pool/node-group` the address
/// `tenant/<id>/pool/<pool>/node-group`. Its tags are then an ordinary
/// difference. The pool is that of the found resource, or else the spec's. If
/// neither is known, the address stays.
pub fn settle(spec: &Spec, observed: &mut Observed) {
    let clusters: BTreeMap<String, String> = observed
        .found
        .iter()
        .filter_map(|(address, all)| match (address.owner(), address.local()) {
            (Owner::Pool(pool), "cluster") => Some((all.first()?.outputs.get("name")?.clone(), pool)),
            _ => None,
        })
        .collect();
    let old: Vec<Address> = observed.found.keys().filter(|a| home(spec, a).is_some()).cloned().collect();
    let mut pools: BTreeMap<Address, String> = BTreeMap::new();
    for address in &old {
        let Some(home) = home(spec, address) else { continue };
        let found = observed.current(address);
        let cluster = found.and_then(|f| f.state.get("cluster")).and_then(Value::as_str);
        pools.extend(cluster.and_then(|c| clusters.get(c)).map(|pool| (home, pool.clone())));
    }
    for address in old {
        let (Some(home), Owner::Tenant(id)) = (home(spec, &address), address.owner()) else { continue };
        let wanted = || spec.tenant(&id).and_then(|t| t.pool()).map(str::to_owned);
        let Some(pool) = pools.get(&home).cloned().or_else(wanted) else { continue };
        let rest = address.as_str().strip_prefix(home.as_str()).unwrap_or_default();
        let moved = Address::new(format!("{home}/{pool}{rest}"));
        let all = observed.found.remove(&address).unwrap_or_default();
        let kind = observed.kinds.remove(&address);
        observed.kinds.extend(kind.map(|kind| (moved.clone(), kind)));
        let scope = observed.scopes.remove(&address);
        observed.scopes.extend(scope.map(|scope| (moved.clone(), scope)));
        if observed.spread.remove(&address) {
            observed.spread.insert(moved.clone());
        }
        let place = observed.found.entry(moved.clone()).or_default();
        place.extend(all.into_iter().map(|mut found| {
            found.address = moved.clone();
            found
        }));
    }
}

/// The same for the facts about node groups, which are read before the rest.
pub fn settle_facts(spec: &Spec, facts: &mut Facts) {
    let names = Names::new(spec);
    let known: BTreeSet<Address> = facts.images.keys().chain(facts.node_groups.keys()).cloned().collect();
    for address in known {
        let (Some(home), Owner::Tenant(id)) = (home(spec, &address), address.owner()) else { continue };
        let cluster = facts.node_groups.get(&address).map(|group| &group.cluster);
        let stands = spec.pools.iter().find(|p| cluster == Some(&names.cluster(spec::Owner::Pool(&p.name))));
        let wanted = || spec.tenant(&id).and_then(|t| t.pool());
        let Some(pool) = stands.map(|p| p.name.as_str()).or_else(wanted) else { continue };
        let rest = address.as_str().strip_prefix(home.as_str()).unwrap_or_default();
        let moved = Address::new(format!("{home}/{pool}{rest}"));
        let image = facts.images.remove(&address);
        facts.images.extend(image.map(|image| (moved.clone(), image)));
        let group = facts.node_groups.remove(&address);
        facts.node_groups.extend(group.map(|group| (moved, group)));
    }
}

/// `tenant/<id>/pool` or `tenant/<id>/fargate` of an address in the old form.
fn home(spec: &Spec, address: &Address) -> Option<Address> {
    let Owner::Tenant(id) = address.owner() else { return None };
    let mut parts = address.local().split('/');
    let model = parts.next().filter(|model| ["pool", "fargate"].contains(model))?;
    let part = parts.next().filter(|part| PARTS.contains(part) && spec.pool(part).is_none());
    part.map(|_| Address::new(format!("tenant/{id}/{model}")))
}
