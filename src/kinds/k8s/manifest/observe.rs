//! Reading all objects of all clusters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::facts::State;
use super::find::found;
use super::handlers::ManifestHandlers;
use super::object::{
    Key, defined_group, deleting, generation, id, identity, is_given, namespace_name, pointer, summary, text,
};
use super::requests::{self, METADATA, WHOLE, get, is_immutable, list};
use super::served::{at, locate, served, shape, unserved};
use crate::aws::tags::{ADDRESS, TENANCY, TENANT};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Foreign, Found, Observation, Status, Unread, Wanted};
use crate::engine::packed::Packed;
use crate::engine::value::has_references;
use crate::k8s::apis::group_of;
use crate::k8s::{Api, Apis, Cluster, Target, apply};

/// The number of concurrent requests to one cluster, and of clusters that are read concurrently.
pub(super) const PARALLEL: usize = 8;

/// A wanted object with its place in the API.
struct Item<'a> {
    address: &'a Address,
    state: &'a Packed,
    /// The state without the connection, and with only the fields of [`identity`] in its object. Complete objects are
    /// parsed one by one.
    head: State,
    /// The API group that the object defines.
    defines: Option<String>,
    /// `None` while the API that the object requires isn't served.
    api: Option<Api>,
}

impl<'a> Item<'a> {
    /// Also returns the connection to the cluster, as a state without an object.
    fn new(wanted: &'a Wanted) -> Result<(State, Self)> {
        let State { cluster, endpoint, certificate_authority, requires, object } = wanted.state.typed()?;
        let none = String::new;
        let head = State {
            cluster: cluster.clone(),
            endpoint: none(),
            certificate_authority: none(),
            requires,
            object: identity(&object),
        };
        let defines = defined_group(&object).map(str::to_owned);
        let item = Self { address: &wanted.address, state: &wanted.state, head, defines, api: None };
        let connection = State { cluster, endpoint, certificate_authority, requires: None, object: Value::Null };
        Ok((connection, item))
    }
}

type Absent<'a> = (&'a Item<'a>, &'a Api);

impl ManifestHandlers {
    /// Reads the wanted objects, and all other objects of ours, in each cluster.
    pub(super) async fn read(&self, wanted: &[Wanted]) -> Result<Observation> {
        let mut clusters: BTreeMap<String, (State, Vec<Item<'_>>)> = BTreeMap::new();
        self.unchecked().clear();
        for one in wanted {
            let (connection, item) = Item::new(one)?;
            let first = || (one.address.clone(), item.head.clone());
            let cluster = item.head.cluster.clone();
            self.unchecked().entry(cluster).or_default().entry(shape(&item.head)).or_insert_with(first);
            let place = json!([connection.cluster, connection.endpoint, connection.certificate_authority]);
            if !has_references(&place) && self.clusters.locates(connection.target()) {
                clusters.entry(place.to_string()).or_insert_with(|| (connection, Vec::new())).1.push(item);
            }
        }
        // Each first contact may take the whole time limit, so all clusters are contacted concurrently.
        let probes = clusters.into_values().map(|(connection, items)| async move {
            let answer = self.probe(connection.target()).await;
            (connection, items, answer)
        });
        let mut reads = Vec::new();
        for (connection, items, answer) in join_all(probes).await {
            let cluster = connection.cluster.clone();
            let wanted: BTreeSet<Address> = items.iter().map(|i| i.address.clone()).collect();
            reads.push(async move {
                let seen = match answer {
                    Ok((client, apis)) => {
                        // The plan names the APIs that aren't served.
                        self.unchecked().remove(&cluster);
                        self.observe_cluster(client, apis, &connection, items).await.map_err(changed_meanwhile)
                    }
                    Err(e) => Err(e),
                };
                match seen {
                    Err(error) if is_closed(&error) => {
                        let unread = vec![Unread { host: cluster, error, wanted }];
                        Ok(Observation { unread, ..Observation::default() })
                    }
                    other => other,
                }
            });
        }
        let seen: Vec<Observation> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        let mut all = Observation::default();
        for one in seen {
            all.found.extend(one.found);
            all.foreign.extend(one.foreign);
            all.notes.extend(one.notes);
            all.unread.extend(one.unread);
            all.unserved.extend(one.unserved);
        }
        Ok(all)
    }

    /// Connects, and reads which APIs the cluster serves.
    async fn probe(&self, target: Target<'_>) -> Result<(Arc<Cluster>, Arc<Apis>)> {
        let cluster = self.clusters.get(target).await?;
        let apis = cluster.apis(false).await?;
        Ok((cluster, apis))
    }

    async fn observe_cluster(
        &self,
        cluster: Arc<Cluster>,
        apis: Arc<Apis>,
        connection: &State,
        items: Vec<Item<'_>>,
    ) -> Result<Observation> {
        let mut seen = Observation::default();
        let items = items
            .into_iter()
            .map(|item| match locate(&apis, &item.head) {
                Ok(api) => Ok(Item { api: api.cloned(), ..item }),
                // This is an error, except if the cluster's next version adds the API.
                Err(e) if served(&apis, &item.head.object).is_none() => {
                    seen.unserved.push((item.address.clone(), at(item.address, e)));
                    Ok(item)
                }
                Err(e) => Err(at(item.address, e)),
            })
            .collect::<Result<Vec<_>>>()?;
        // An API that a wanted CustomResourceDefinition defines will exist.
        let makers = items.iter().filter(|i| i.api.is_some());
        let coming: BTreeSet<&str> = makers.filter_map(|i| i.defines.as_deref()).collect();
        for item in items.iter().filter(|i| i.api.is_none() && i.head.requires.is_some()) {
            if !coming.contains(group_of(item.head.requires.as_deref().unwrap_or_default())) {
                seen.unserved.push((item.address.clone(), unserved(&item.head)));
            }
        }
        let mut ours = self.list_ours(&cluster, &apis, &items, &mut seen.notes).await?;
        let namespaces = ours.iter().filter(|(k, _)| k.is_namespace());
        let namespaces: BTreeMap<String, bool> = namespaces.map(|(k, o)| (k.name.clone(), deleting(o))).collect();

        let mut present = Vec::new();
        let mut absent = Vec::new();
        for item in &items {
            let Some(api) = &item.api else { continue };
            match ours.remove(&Key::new(api, &item.head.object)) {
                Some(live) => present.push((item, api, live)),
                None => absent.push((item, api)),
            }
        }
        let compared = present.iter().map(|(item, api, live)| {
            let doomed = text(live, "/metadata/namespace").is_some_and(|n| namespaces.get(n) == Some(&true));
            self.compare(&cluster, api, item, live, doomed)
        });
        seen.found = stream::iter(compared.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await?;

        // Objects that Kubernetes creates in a namespace of ours are ours by descent.
        absent.retain(|(item, _)| !is_given(&item.head.object, |n| namespaces.contains_key(n)));
        seen.foreign = self.find_foreign(&cluster, &absent).await?;
        seen.found.extend(self.leftovers(connection, ours, &mut seen.notes));
        Ok(seen)
    }

    /// Every object in the cluster that carries the tenancy's label.
    async fn list_ours(
        &self,
        cluster: &Cluster,
        apis: &Apis,
        items: &[Item<'_>],
        notes: &mut Vec<String>,
    ) -> Result<HashMap<Key, Value>> {
        let mut seen = BTreeSet::new();
        let mut first = |api: &&Api| seen.insert((api.group.clone(), api.kind.clone()));
        let mut lists: Vec<_> =
            items.iter().filter_map(|i| i.api.as_ref()).filter(&mut first).map(|a| (a, WHOLE)).collect();
        lists.extend(apis.manageable().into_iter().filter(first).map(|a| (a, METADATA)));
        let selector = format!("{TENANCY}={}", self.aws.tenancy);
        let reads = lists.into_iter().map(|(api, accept)| {
            let selector = &selector;
            async move { (api, accept, list(cluster, api, None, Some(selector), accept).await) }
        });
        let answers: Vec<_> = stream::iter(reads.collect::<Vec<_>>()).buffered(PARALLEL).collect().await;
        let mut ours = HashMap::new();
        for (api, accept, answer) in answers {
            match answer {
                Ok(objects) => {
                    let carrying = objects.into_iter().filter(|o| self.is_ours(o));
                    ours.extend(carrying.map(|o| (Key::new(api, &o), o)));
                }
                // A broken API of another owner must not block us. But a refused list may hide objects of ours.
                Err(e)
                    if accept == METADATA && matches!(e.class, Class::Unclear | Class::NotFound | Class::Invalid) =>
                {
                    notes.push(format!(
                        "{} can't be listed in cluster {}, so leftover objects of this kind are not found: {}",
                        api.resource(),
                        cluster.name(),
                        e.message
                    ));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(ours)
    }

    /// A wanted object that exists: the desired state with the differences that an apply would change. `doomed`: its
    /// namespace is being deleted and accepts no applies.
    async fn compare(
        &self,
        cluster: &Cluster,
        api: &Api,
        item: &Item<'_>,
        live: &Value,
        doomed: bool,
    ) -> Result<Found> {
        let State { cluster: name, object, .. } = item.state.typed()?;
        let desired = self.trusting(cluster, self.sent(item.address, generation(live), &object)).await?;
        // Another wanted object has this kind in another version.
        let converted = match live.get("apiVersion") == desired.get("apiVersion") {
            true => None,
            false => get(cluster, api, &desired).await?,
        };
        let live = converted.as_ref().unwrap_or(live);
        let mut status = Status::Ready;
        let now = if doomed || deleting(live) {
            status = Status::Deleting;
            None
        } else if apply::is_settled(&desired, live) {
            None
        } else if has_references(&desired) {
            let live = apply::normalised(live);
            Some(apply::projected(&object, &live, &apply::overlaid(&live, &desired)))
        } else {
            let added = apply::without_additions(live).is_some();
            let applied = match requests::apply(cluster, api, &desired, true).await {
                Ok(applied) => applied,
                // A change that the API server refuses must still be shown.
                Err(e) if is_immutable(&e) => apply::overlaid(live, &desired),
                // The object may be invalid together with fields that others have added.
                Err(e) if e.class == Class::Invalid && added => apply::overlaid(live, &desired),
                Err(e) => return Err(at(item.address, e)),
            };
            let applied = apply::without_additions(&applied).unwrap_or(applied);
            let found = apply::projected(&object, &apply::normalised(live), &apply::normalised(&applied));
            Some(Self::distrusting(found, &desired, live))
        };
        let state = match now {
            // The found object shares the wanted state.
            None => item.state.clone(),
            Some(now) => item.state.edited(|state| state["object"] = now),
        };
        Ok(Found { status, ..found(item.address.clone(), live, &name, state) })
    }

    /// Objects without our label under the names of absent objects. One list for each kind and namespace is read,
    /// except for namespaces that don't exist.
    async fn find_foreign(&self, cluster: &Cluster, absent: &[Absent<'_>]) -> Result<Vec<Foreign>> {
        let missing: BTreeSet<&str> = absent.iter().filter_map(|(i, _)| namespace_name(&i.head.object)).collect();
        let mut places: BTreeMap<(String, Option<String>), Vec<Absent<'_>>> = BTreeMap::new();
        for (item, api) in absent {
            let key = Key::new(api, &item.head.object);
            if key.namespace.as_deref().is_some_and(|n| missing.contains(n)) {
                continue;
            }
            places.entry((api.collection(None), key.namespace)).or_default().push((item, api));
        }
        let reads = places.into_iter().map(|((_, namespace), items)| async move {
            let Some((_, api)) = items.first() else { return Ok(Vec::new()) };
            let there = match list(cluster, api, namespace.as_deref(), None, METADATA).await {
                Err(e) if e.class == Class::NotFound => return Ok(Vec::new()),
                other => other?,
            };
            let there: HashMap<Key, &Value> = there.iter().map(|o| (Key::new(api, o), o)).collect();
            let taken = items.iter().filter_map(|(item, api)| {
                // An object of ours was created after our objects were listed.
                let live = there.get(&Key::new(api, &item.head.object)).filter(|live| !self.is_ours(live))?;
                Some(self.foreign(cluster, api, item.address, live))
            });
            Ok(taken.collect())
        });
        let all: Vec<Vec<Foreign>> = stream::iter(reads.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }

    /// Our objects that nothing wants. Objects in a namespace that is deleted, too, aren't listed: if they were
    /// deleted separately, a tenant's last pods would run without their network policies.
    fn leftovers(&self, connection: &State, ours: HashMap<Key, Value>, notes: &mut Vec<String>) -> Vec<Found> {
        let mut ours: Vec<(Key, Value)> = ours.into_iter().collect();
        ours.sort_by(|(a, _), (b, _)| a.cmp(b));
        ours.retain(|(_, live)| {
            let address = text(live, &format!("/metadata/annotations/{}", pointer(ADDRESS)));
            // Controllers copy labels, and sometimes annotations.
            if address.is_none() || apply::is_controlled(live) {
                return false;
            }
            if !apply::is_applied(live) {
                notes.push(format!(
                    "{} in cluster {} has our labels, but {} wrote it, so ringfence doesn't delete it",
                    summary(live),
                    connection.cluster,
                    apply::other_managers(live).join(", ")
                ));
                return false;
            }
            true
        });
        let going: BTreeSet<String> =
            ours.iter().filter(|(k, _)| k.is_namespace()).map(|(k, _)| k.name.clone()).collect();
        ours.retain(|(key, _)| !going.iter().any(|n| key.is_in(n)));
        ours.iter()
            .filter_map(|(key, live)| {
                let mut object = apply::normalised(live);
                if key.kind == "Secret" {
                    object = identity(&object);
                }
                let as_found = State { object, ..connection.clone() };
                let address = text(live, &format!("/metadata/annotations/{}", pointer(ADDRESS)))?;
                let state = match Packed::of(&as_found) {
                    Ok(state) => state,
                    Err(error) => {
                        notes.push(format!(
                            "{} in cluster {} is neither changed nor deleted, because it can't be read: {error}",
                            summary(live),
                            connection.cluster
                        ));
                        return None;
                    }
                };
                let mut found = found(Address::new(address), live, &connection.cluster, state);
                if key.is_namespace() {
                    found.refs = policies_of(key, live, &ours).map(|o| id(&connection.cluster, o)).collect();
                } else if is_webhooks(key) {
                    // API servers must not ask a webhook that is going.
                    let rest = ours.iter().filter(|(other, _)| !is_webhooks(other) || other < key);
                    found.refs = rest.map(|(_, o)| id(&connection.cluster, o)).collect();
                }
                Some(found)
            })
            .collect()
    }
}

/// True if the only problem is that the cluster can't be reached now.
fn is_closed(error: &Error) -> bool {
    matches!(error.class, Class::Unreachable | Class::Denied | Class::Unclear | Class::Throttled)
}

/// Something was deleted between two reads: an API together with an add-on, a namespace, or an object of a
/// controller. Other clusters aren't affected.
fn changed_meanwhile(error: Error) -> Error {
    match error.class {
        Class::NotFound | Class::NotYet | Class::Conflict => Error {
            class: Class::Unclear,
            message: format!("the cluster changed while it was read: {}", error.message),
            help: Some("run the same command again".to_owned()),
            ..error
        },
        _ => error,
    }
}

fn is_webhooks(key: &Key) -> bool {
    key.group == "admissionregistration.k8s.io" && key.kind.ends_with("WebhookConfiguration")
}

/// The tenant's leftover objects outside of its namespace, such as its admission policies. They must be deleted after
/// the namespace.
fn policies_of<'a>(namespace: &'a Key, live: &'a Value, ours: &'a [(Key, Value)]) -> impl Iterator<Item = &'a Value> {
    let tenant = |o: &Value| text(o, &format!("/metadata/labels/{}", pointer(TENANT))).map(str::to_owned);
    let whose = tenant(live);
    ours.iter()
        .filter(|(k, _)| !k.is_namespace() && !is_webhooks(k))
        .filter(move |(k, o)| whose.is_some() && !k.is_in(&namespace.name) && tenant(o) == whose)
        .map(|(_, o)| o)
}
