//! Kubernetes objects, applied with server-side apply.
//!
//! Objects with the label `ringfence.dev/tenancy` are ours. An annotation has the address, because label values can't
//! contain slashes. Objects are read in bulk, with one list for each kind that a cluster serves, so that objects that
//! have left the templates are found. Only objects that may differ need a dry run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::aws::Aws;
use crate::aws::tags::{ADDRESS, GENERATION, TENANCY, TENANT};
use crate::engine::address::{Address, Owner};
use crate::engine::error::{Class, Error, Result, typed, untyped};
use crate::engine::kind::{
    Change, Foreign, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Round, Rule, Status, Unread, Verb,
    Wanted,
};
use crate::engine::value::{Outputs, has_references};
use crate::k8s::apis::group_of;
use crate::k8s::client::Call;
use crate::k8s::{Api, Apis, Cluster, Clusters, Target, apply};
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "k8s.manifest";

/// The number of concurrent requests to one cluster, and of clusters that are read concurrently.
const PARALLEL: usize = 8;
/// Objects in one page of a list.
const PAGE: u32 = 500;
const WHOLE: &str = "application/json";
/// The metadata fields that pruning needs: identity, labels and managers, without data.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// One Kubernetes object, applied with server-side apply under the field
/// manager `ringfence`.
/// Outputs: none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Name of the EKS cluster.
    pub cluster: String,
    /// The endpoint of its API server. Empty if a kubeconfig names it (`--kubeconfig`).
    pub endpoint: String,
    /// Base64 PEM.
    pub certificate_authority: String,
    /// An API that must exist, such as `vpcresources.k8s.aws/v1beta1`.
    pub requires: Option<String>,
    /// The complete object.
    pub object: Value,
}

impl State {
    /// [`untyped`] without a copy of the object.
    fn into_value(mut self) -> Result<Value> {
        let object = self.object.take();
        let mut state = untyped(&self)?;
        if let Some(field) = state.get_mut("object") {
            *field = object;
        }
        Ok(state)
    }

    fn target(&self) -> Target<'_> {
        Target { cluster: &self.cluster, endpoint: &self.endpoint, certificate_authority: &self.certificate_authority }
    }
}

/// Writes ownership into an object, by which [`Manifest`] finds it. This is part of rendering, so that files for
/// GitOps have it, too.
pub fn own(object: &mut Value, tenancy: &str, address: &Address) {
    let mut labels = vec![(TENANCY, tenancy.to_owned())];
    if let Owner::Tenant(id) = address.owner() {
        labels.push((TENANT, id));
    }
    for (field, pairs) in [("labels", labels), ("annotations", vec![(ADDRESS, address.to_string())])] {
        if let Some(map) = metadata_map(object, field) {
            map.extend(pairs.into_iter().map(|(k, v)| (k.to_owned(), Value::String(v))));
        }
    }
}

pub struct Manifest;

pub struct ManifestHandlers {
    aws: Arc<Aws>,
    clusters: Arc<Clusters>,
    /// The wanted objects of clusters without any write so far, by cluster name. Only the fields that identify an
    /// object are kept.
    unchecked: Mutex<BTreeMap<String, Vec<(Address, State)>>>,
    /// Namespaces that this run wrote, by cluster.
    namespaces: Mutex<BTreeSet<(String, String)>>,
}

/// The identity of an object in a cluster, independent of its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    group: String,
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl Key {
    /// `namespace` is used only if `api` is namespaced.
    fn new(api: &Api, object: &Value) -> Self {
        let namespace = text(object, "/metadata/namespace").filter(|_| api.namespaced);
        Self {
            group: api.group.clone(),
            kind: api.kind.clone(),
            namespace: namespace.map(str::to_owned),
            name: text(object, "/metadata/name").unwrap_or_default().to_owned(),
        }
    }

    /// True if deleting `namespace` deletes the object.
    fn is_in(&self, namespace: &str) -> bool {
        self.namespace.as_deref() == Some(namespace)
    }

    fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.kind == "Namespace"
    }
}

/// A wanted object with its place in the API.
struct Item<'a> {
    address: &'a Address,
    /// The state, whose object has only the fields of [`identity`]. A copy of each complete object would need much
    /// memory.
    head: State,
    object: &'a Value,
    /// The wanted object. `None` while the API that it requires isn't served.
    api: Option<Api>,
}

impl<'a> Item<'a> {
    fn new(wanted: &'a Wanted) -> Result<Self> {
        let field = |name: &str| wanted.state.get(name).unwrap_or(&Value::Null);
        let object = field("object");
        let head = typed(&json!({
            "cluster": field("cluster"),
            "endpoint": field("endpoint"),
            "certificate_authority": field("certificate_authority"),
            "requires": field("requires"),
            "object": identity(object),
        }))?;
        Ok(Self { address: &wanted.address, head, object, api: None })
    }

    fn with(&self, object: Value) -> State {
        State { object, ..self.head.clone() }
    }
}

type Absent<'a> = (&'a Item<'a>, &'a Api);

impl ManifestHandlers {
    pub fn new(aws: Arc<Aws>, clusters: Arc<Clusters>) -> Self {
        Self { aws, clusters, unchecked: Mutex::default(), namespaces: Mutex::default() }
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
        items: Vec<Item<'_>>,
    ) -> Result<Observation> {
        let Some(first) = items.first() else { return Ok(Observation::default()) };
        let (state, mut seen) = (first.head.clone(), Observation::default());
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
        let coming: BTreeSet<&str> = items.iter().filter_map(|i| defined_group(i.object)).collect();
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
            match ours.remove(&Key::new(api, item.object)) {
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
        absent.retain(|(item, _)| !is_given(item.object, |n| namespaces.contains_key(n)));
        seen.foreign = self.find_foreign(&cluster, &absent).await?;
        seen.found.extend(self.leftovers(&state, ours, &mut seen.notes));
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
        let desired = self.sent(item.address, generation(live), item.object);
        // Another wanted object has this kind in another version.
        let converted = match live.get("apiVersion") == desired.get("apiVersion") {
            true => None,
            false => get(cluster, api, &desired).await?,
        };
        let live = converted.as_ref().unwrap_or(live);
        let mut status = Status::Ready;
        let object = if doomed || deleting(live) {
            status = Status::Deleting;
            item.object.clone()
        } else if apply::is_settled(&desired, live) {
            item.object.clone()
        } else if has_references(&desired) {
            apply::projected(
                item.object,
                &apply::normalised(live),
                &apply::overlaid(&apply::normalised(live), &desired),
            )
        } else {
            let added = apply::without_additions(live).is_some();
            let applied = match self.apply(cluster, api, &desired, true).await {
                Ok(applied) => applied,
                // A change that the API server refuses must still be shown.
                Err(e) if is_immutable(&e) => apply::overlaid(live, &desired),
                // The object may be invalid together with fields that others have added.
                Err(e) if e.class == Class::Invalid && added => apply::overlaid(live, &desired),
                Err(e) => return Err(at(item.address, e)),
            };
            let applied = apply::without_additions(&applied).unwrap_or(applied);
            apply::projected(item.object, &apply::normalised(live), &apply::normalised(&applied))
        };
        Ok(Found { status, ..found(item.address.clone(), live, item.with(object))? })
    }

    /// Objects without our label under the names of absent objects. One list for each kind and namespace is read,
    /// except for namespaces that don't exist.
    async fn find_foreign(&self, cluster: &Cluster, absent: &[Absent<'_>]) -> Result<Vec<Foreign>> {
        let missing: BTreeSet<&str> = absent.iter().filter_map(|(i, _)| namespace_name(i.object)).collect();
        let mut places: BTreeMap<(String, Option<String>), Vec<Absent<'_>>> = BTreeMap::new();
        for (item, api) in absent {
            let key = Key::new(api, item.object);
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
                let live = there.get(&Key::new(api, item.object)).filter(|live| !self.is_ours(live))?;
                Some(self.foreign(cluster, api, item.address, live))
            });
            Ok(taken.collect())
        });
        let all: Vec<Vec<Foreign>> = stream::iter(reads.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }

    fn foreign(&self, cluster: &Cluster, api: &Api, address: &Address, live: &Value) -> Foreign {
        let whose = match text(live, &format!("/metadata/labels/{}", pointer(TENANCY))) {
            Some(tenancy) => format!("belongs to tenancy {tenancy}"),
            None => format!("lacks the label {TENANCY}"),
        };
        Foreign {
            address: address.clone(),
            id: id(cluster.name(), live),
            message: format!(
                "{} exists in cluster {} and {whose}; to adopt it: {}",
                summary(live),
                cluster.name(),
                self.adoption(api, address, live)
            ),
        }
    }

    /// The kubectl commands that adopt a live object.
    fn adoption(&self, api: &Api, address: &Address, live: &Value) -> String {
        let namespace = text(live, "/metadata/namespace").map(|n| format!(" -n {n}")).unwrap_or_default();
        let name = text(live, "/metadata/name").unwrap_or_default();
        let tenant = match address.owner() {
            Owner::Tenant(id) => format!(" {TENANT}={id}"),
            _ => String::new(),
        };
        let what = format!("{}/{name}{namespace}", api.resource());
        format!(
            "`kubectl label {what} {TENANCY}={}{tenant} --overwrite && kubectl annotate {what} {ADDRESS}={address} --overwrite`",
            self.aws.tenancy
        )
    }

    /// Our objects that nothing wants. Objects in a namespace that is deleted, too, aren't listed: if they were
    /// deleted separately, a tenant's last pods would run without their network policies.
    fn leftovers(&self, state: &State, ours: HashMap<Key, Value>, notes: &mut Vec<String>) -> Vec<Found> {
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
                    state.cluster,
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
                let as_found = State { requires: None, object, ..state.clone() };
                let address = text(live, &format!("/metadata/annotations/{}", pointer(ADDRESS)))?;
                let mut found = match found(Address::new(address), live, as_found) {
                    Ok(found) => found,
                    Err(error) => {
                        notes.push(format!(
                            "{} in cluster {} is neither changed nor deleted, because it can't be read: {error}",
                            summary(live),
                            state.cluster
                        ));
                        return None;
                    }
                };
                if key.is_namespace() {
                    found.refs = policies_of(key, live, &ours).map(|o| id(&state.cluster, o)).collect();
                }
                Some(found)
            })
            .collect()
    }

    fn is_ours(&self, live: &Value) -> bool {
        text(live, &format!("/metadata/labels/{}", pointer(TENANCY))) == Some(&self.aws.tenancy)
    }

    async fn is_ours_by_descent(&self, cluster: &Cluster, apis: &Apis, live: &Value) -> Result<bool> {
        let home = text(live, "/metadata/namespace").unwrap_or_default();
        let Some(api) = apis.find("v1", "Namespace").filter(|_| is_given(live, |_| true)) else { return Ok(false) };
        if self.namespaces().contains(&(cluster.name().to_owned(), home.to_owned())) {
            return Ok(true);
        }
        let namespace = get(cluster, api, &json!({"metadata": {"name": home}})).await?;
        Ok(namespace.is_some_and(|n| self.is_ours(&n)))
    }

    /// The request body: the object with its ownership.
    fn sent(&self, address: &Address, generation: u32, object: &Value) -> Value {
        let mut object = object.clone();
        own(&mut object, &self.aws.tenancy, address);
        if let Some(annotations) = metadata_map(&mut object, "annotations") {
            annotations.insert(GENERATION.to_owned(), Value::String(generation.to_string()));
        }
        object
    }

    async fn apply(&self, cluster: &Cluster, api: &Api, object: &Value, dry: bool) -> Result<Value> {
        if api.kind == "Secret" && api.group.is_empty() && object.get("stringData").is_some() {
            return Err(Error::input(format!("{} has stringData, which server-side apply can't own", summary(object)))
                .help("write the values as base64 in `data`"));
        }
        let namespace = text(object, "/metadata/namespace");
        let name = text(object, "/metadata/name").unwrap_or_default();
        let dry = if dry { "&dryRun=All" } else { "" };
        let path = api.object(namespace, name);
        let body =
            serde_json::to_vec(object).map_err(|e| Error::bug(format!("an object can't be written as JSON: {e}")))?;
        let call = Call {
            action: if dry.is_empty() { "apply" } else { "dry-run" },
            method: Method::PATCH,
            path: format!("{path}?fieldManager={}&force=true&fieldValidation=Strict{dry}", apply::MANAGER),
            accept: WHOLE,
            body: Some((apply::PATCH, body)),
        };
        cluster.call(&call).await.map_err(|e| discreet(object, e))
    }

    /// Replaces the live object with a complete object that was derived from it.
    async fn replace(&self, cluster: &Cluster, api: &Api, object: &Value) -> Result<Value> {
        let path = api.object(text(object, "/metadata/namespace"), text(object, "/metadata/name").unwrap_or_default());
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("managedFields");
        }
        let body =
            serde_json::to_vec(&object).map_err(|e| Error::bug(format!("an object can't be written as JSON: {e}")))?;
        let call = Call {
            action: "replace",
            method: Method::PUT,
            path: format!("{path}?fieldManager={}", apply::MANAGER),
            accept: WHOLE,
            body: Some((WHOLE, body)),
        };
        cluster.call(&call).await
    }

    /// Applies a wanted object without dry run.
    async fn write(&self, new: &New, first: bool) -> Result<Made> {
        let state: State = typed(&new.state)?;
        let cluster = self.clusters.get(state.target()).await?;
        self.write_to(&cluster, &state, new, first).await
    }

    /// Check before the first write to a cluster: an object whose API doesn't exist and isn't declared as required is
    /// a mistake in its template.
    async fn check(&self, cluster: &Cluster) -> Result<()> {
        let wanted = self.unchecked().get(cluster.name()).cloned().unwrap_or_default();
        for fresh in [false, true] {
            let apis = cluster.apis(fresh).await?;
            let wrong = wanted.iter().find_map(|(address, s)| Some(at(address, locate(&apis, s).err()?)));
            match wrong {
                None => break,
                Some(error) if fresh => return Err(error),
                Some(_) => {}
            }
        }
        self.unchecked().remove(cluster.name());
        Ok(())
    }

    fn unchecked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<(Address, State)>>> {
        self.unchecked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn namespaces(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_to(&self, cluster: &Cluster, state: &State, new: &New, first: bool) -> Result<Made> {
        self.check(cluster).await?;
        let mut apis = cluster.apis(false).await?;
        if !matches!(locate(&apis, state), Ok(Some(_))) {
            apis = cluster.apis(true).await?;
        }
        let api = locate(&apis, state)?.ok_or_else(|| unserved(state))?;
        if first && let Some(live) = get(cluster, api, &state.object).await? {
            if deleting(&live) {
                let what = summary(&live);
                return Err(Error::new(
                    Class::NotYet,
                    format!("{what} in cluster {} is still being deleted", cluster.name()),
                ));
            }
            if !self.is_ours(&live) && !self.is_ours_by_descent(cluster, &apis, &live).await? {
                return Err(Error::new(Class::Exists, self.foreign(cluster, api, &new.address, &live).message));
            }
        }
        let sent = self.sent(&new.address, new.generation, &state.object);
        let mut made = match self.apply(cluster, api, &sent, false).await {
            // The object may be invalid only together with fields that others have added.
            Err(e) if e.class == Class::Invalid && !first => {
                let live = get(cluster, api, &state.object).await?;
                let Some(cleared) = live.as_ref().and_then(apply::without_additions) else { return Err(e) };
                self.replace(cluster, api, &apply::overlaid(&cleared, &sent)).await?;
                self.apply(cluster, api, &sent, false).await?
            }
            other => other?,
        };
        if let Some(cleared) = apply::without_additions(&made) {
            made = self.replace(cluster, api, &cleared).await?;
        }
        if let Some(name) = namespace_name(&made) {
            self.namespaces().insert((cluster.name().to_owned(), name.to_owned()));
        }
        Ok(Made { id: id(cluster.name(), &made), outputs: Outputs::new(), ready: true })
    }

    async fn find_one(&self, handle: &Handle) -> Result<Option<Found>> {
        let state: State = typed(&handle.state)?;
        let cluster = self.clusters.get(state.target()).await?;
        let apis = cluster.apis(false).await?;
        let Some(api) = served(&apis, &state.object) else { return Ok(None) };
        let Some(live) = get(&cluster, api, &state.object).await?.filter(|o| self.is_ours(o)) else { return Ok(None) };
        let desired = self.sent(&handle.address, generation(&live), &state.object);
        // Without a dry run, because this is polled.
        let object = if deleting(&live) || apply::is_settled(&desired, &live) {
            state.object.clone()
        } else {
            let live = apply::normalised(&live);
            apply::projected(&state.object, &live, &apply::overlaid(&live, &desired))
        };
        found(handle.address.clone(), &live, State { object, ..state }).map(Some)
    }
}

impl Kind for Manifest {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host<'a>(&self, state: &'a Value) -> Option<&'a str> {
        state.get("cluster")?.as_str()
    }

    fn api(&self, state: &Value) -> Option<String> {
        Some(format!("{} {}", state.pointer("/object/apiVersion")?.as_str()?, state.pointer("/object/kind")?.as_str()?))
    }

    fn is_named(&self, found: &Found, names: &BTreeSet<String>) -> bool {
        let text = |pointer: &str| found.state.pointer(pointer).and_then(Value::as_str);
        let name = text("/object/metadata/name").filter(|_| text("/object/metadata/namespace").is_none());
        name.zip(self.host(&found.state)).is_some_and(|(name, host)| names.contains(name) && names.contains(host))
    }

    fn lies_in(&self, state: &Value, container: &Value) -> bool {
        let namespace = state.pointer("/object/metadata/namespace");
        namespace.is_some()
            && container.pointer("/object/kind").is_some_and(|kind| kind == "Namespace")
            && container.pointer("/object/metadata/name") == namespace
            && container.get("cluster") == state.get("cluster")
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            // The endpoint and its authority describe the connection, not the object.
            ("endpoint", Rule::CreateOnly),
            ("certificate_authority", Rule::CreateOnly),
            ("requires", Rule::CreateOnly),
            ("cluster", Rule::Replace),
            ("object.kind", Rule::Replace),
            ("object.metadata.name", Rule::Replace),
            ("object.metadata.namespace", Rule::Replace),
            // Immutable in RoleBindings, PriorityClasses and StorageClasses.
            ("object.roleRef", Rule::Replace),
            ("object.value", Rule::Replace),
            ("object.preemptionPolicy", Rule::Replace),
            ("object.provisioner", Rule::Replace),
            ("object.parameters", Rule::Replace),
            // Immutable in Secrets. The rules can't tell Secrets from ConfigMaps.
            ("object.data", Rule::Secret),
            ("object.stringData", Rule::Secret),
        ]
    }

    /// Deleting a namespace, a volume or a CustomResourceDefinition also deletes what others created in it.
    fn loses(&self, found: &Found, _replaced: bool) -> Option<String> {
        let cluster = text(&found.state, "/cluster").unwrap_or_default();
        let object = found.state.get("object")?;
        let name = text(object, "/metadata/name").unwrap_or_default();
        match text(object, "/kind")? {
            "Namespace" => Some(format!(
                "all workloads and objects in namespace {name} of cluster {cluster}, including Secrets, and the data of its PersistentVolumeClaims, unless their reclaim policy is Retain"
            )),
            kind @ ("PersistentVolumeClaim" | "PersistentVolume") => {
                Some(format!("the data of {kind} {name} in cluster {cluster}, unless the reclaim policy is Retain"))
            }
            "CustomResourceDefinition" => Some(format!("every object of {name} in cluster {cluster}")),
            _ => None,
        }
    }

    fn summary(&self, state: &Value) -> String {
        state.get("object").map(summary).unwrap_or_default()
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            // The API may not be served yet.
            Verb::Create => Pace::secs(1, 300),
            Verb::Update => Pace::secs(1, 120),
            // The deletion of a namespace waits for its pods.
            Verb::Delete => Pace::secs(10, 600),
        }
    }

    fn in_cluster(&self) -> bool {
        true
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for Manifest {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(ManifestHandlers::new(clients.aws.clone(), clients.clusters.clone()))
    }
}

#[async_trait]
impl Handlers for ManifestHandlers {
    async fn observe(&self, _round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let mut clusters: BTreeMap<String, Vec<Item<'_>>> = BTreeMap::new();
        self.unchecked().clear();
        for one in wanted {
            let item = Item::new(one)?;
            let State { cluster, endpoint, certificate_authority, requires, object } = &item.head;
            let known = State {
                cluster: cluster.clone(),
                endpoint: String::new(),
                certificate_authority: String::new(),
                requires: requires.clone(),
                object: object.clone(),
            };
            self.unchecked().entry(cluster.clone()).or_default().push((one.address.clone(), known));
            let place = json!([cluster, endpoint, certificate_authority]);
            if !has_references(&place) && self.clusters.locates(item.head.target()) {
                clusters.entry(place.to_string()).or_default().push(item);
            }
        }
        // Each first contact may take the whole time limit, so all clusters are contacted concurrently.
        let probes = clusters.into_values().map(|items| async move {
            let first = items.first().map(|i| i.head.clone());
            let answer = match &first {
                Some(state) => self.probe(state.target()).await,
                None => Err(Error::bug("a cluster without objects")),
            };
            (items, answer)
        });
        let mut reads = Vec::new();
        for (items, answer) in join_all(probes).await {
            let cluster = items.first().map(|i| i.head.cluster.clone()).unwrap_or_default();
            let wanted: BTreeSet<Address> = items.iter().map(|i| i.address.clone()).collect();
            reads.push(async move {
                let seen = match answer {
                    Ok((client, apis)) => {
                        // The plan names the APIs that aren't served.
                        self.unchecked().remove(&cluster);
                        self.observe_cluster(client, apis, items).await.map_err(changed_meanwhile)
                    }
                    Err(e) => Err(e),
                };
                match seen {
                    Err(error) if is_closed(&error) => {
                        let unread = vec![Unread { cluster, error, wanted }];
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

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let reads: Vec<_> = handles.iter().map(|h| self.find_one(h)).collect();
        stream::iter(reads).buffered(PARALLEL).try_collect().await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        self.write(new, true).await
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let to = New { generation: from.generation, ..to.clone() };
        self.write(&to, false).await
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = typed(&found.state)?;
        let cluster = self.clusters.get(state.target()).await?;
        let apis = cluster.apis(false).await?;
        let Some(api) = served(&apis, &state.object) else { return Ok(true) };
        let Some(live) = get(&cluster, api, &state.object).await? else { return Ok(true) };
        if !self.is_ours(&live) {
            return Err(Error::new(
                Class::Invalid,
                format!(
                    "{} in cluster {} no longer has our label, so ringfence doesn't delete it",
                    summary(&live),
                    cluster.name()
                ),
            ));
        }
        let known = |field: &str| live.pointer(&format!("/metadata/{field}")).cloned();
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            // If the object was changed in between, it might no longer be ours.
            "preconditions": {"uid": known("uid"), "resourceVersion": known("resourceVersion")},
        });
        let call = Call {
            action: "delete",
            method: Method::DELETE,
            path: api.object(text(&live, "/metadata/namespace"), text(&live, "/metadata/name").unwrap_or_default()),
            accept: WHOLE,
            body: Some((WHOLE, options.to_string().into_bytes())),
        };
        match cluster.call(&call).await {
            // If finalizers are left, the answer is the object instead of a Status.
            Ok(answer) => Ok(!deleting(&answer)),
            Err(e) if e.class == Class::NotFound => Ok(true),
            Err(e) => Err(e),
        }
    }
}

/// The API of a wanted object. `None` while the API that it requires isn't served.
///
/// # Errors [`Class::Invalid`] if the object declares no requirement and its API doesn't exist.
fn locate<'a>(apis: &'a Apis, state: &State) -> Result<Option<&'a Api>> {
    let api = served(apis, &state.object);
    match (&state.requires, api) {
        (Some(requires), _) if !apis.serves(requires) => Ok(None),
        (Some(_), None) => Ok(None),
        (None, None) => Err(Error::new(
            Class::Invalid,
            format!(
                "cluster {} doesn't serve {} {}, which {} needs",
                state.cluster,
                text(&state.object, "/apiVersion").unwrap_or("(no apiVersion)"),
                text(&state.object, "/kind").unwrap_or("(no kind)"),
                summary(&state.object)
            ),
        )
        .help("if an add-on brings this API, add `requires:` with its group and version to the template; otherwise correct apiVersion and kind")),
        (_, Some(api)) if api.namespaced && text(&state.object, "/metadata/namespace").is_none() => Err(Error::new(
            Class::Invalid,
            format!("{} has no namespace, but its kind is namespaced", summary(&state.object)),
        )
        .help("add `metadata.namespace` in its template")),
        (_, Some(api)) => Ok(Some(api)),
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

fn unserved(state: &State) -> Error {
    let (api, what) = (state.requires.as_deref().unwrap_or_default(), summary(&state.object));
    Error::new(Class::Unserved, format!("cluster {} doesn't serve {api}, which {what} needs", state.cluster)).help(
        "check that the add-on or chart that provides this API is installed and healthy, then run the same command",
    )
}

/// The group that a CustomResourceDefinition defines.
fn defined_group(object: &Value) -> Option<&str> {
    let is = text(object, "/kind")? == "CustomResourceDefinition";
    text(object, "/spec/group").filter(|_| is)
}

fn served<'a>(apis: &'a Apis, object: &Value) -> Option<&'a Api> {
    apis.find(text(object, "/apiVersion")?, text(object, "/kind")?)
}

/// All pages of a list, each object with its version and kind.
async fn list(
    cluster: &Cluster,
    api: &Api,
    namespace: Option<&str>,
    selector: Option<&str>,
    accept: &'static str,
) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut from = String::new();
    let mut restarted = false;
    loop {
        let mut path = format!("{}?limit={PAGE}", api.collection(namespace));
        for (name, value) in [("labelSelector", selector.unwrap_or_default()), ("continue", from.as_str())] {
            if !value.is_empty() {
                let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
                path.push_str(&format!("&{name}={value}"));
            }
        }
        let mut answer = match cluster.call(&Call { accept, ..Call::get("list", path) }).await {
            // The list took so long that its snapshot has expired.
            Err(e) if e.code.as_deref() == Some("Expired") && !restarted => {
                (restarted, from) = (true, String::new());
                all.clear();
                continue;
            }
            other => other?,
        };
        if let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) {
            all.extend(items.into_iter().map(|mut item| {
                if let Value::Object(map) = &mut item {
                    map.insert("apiVersion".to_owned(), Value::String(api.api_version()));
                    map.insert("kind".to_owned(), Value::String(api.kind.clone()));
                }
                item
            }));
        }
        match text(&answer, "/metadata/continue").filter(|c| !c.is_empty()) {
            Some(next) => from = next.to_owned(),
            None => return Ok(all),
        }
    }
}

async fn get(cluster: &Cluster, api: &Api, object: &Value) -> Result<Option<Value>> {
    let name = text(object, "/metadata/name").unwrap_or_default();
    match cluster.call(&Call::get("get", api.object(text(object, "/metadata/namespace"), name))).await {
        Ok(live) => Ok(Some(live)),
        Err(e) if e.class == Class::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn found(address: Address, live: &Value, state: State) -> Result<Found> {
    Ok(Found {
        address,
        generation: generation(live),
        id: id(&state.cluster, live),
        outputs: Outputs::new(),
        state: state.into_value()?,
        status: if deleting(live) { Status::Deleting } else { Status::Ready },
        refs: Vec::new(),
    })
}

/// The tenant's leftover objects outside of its namespace, such as its admission policies. They must be deleted after
/// the namespace.
fn policies_of<'a>(namespace: &'a Key, live: &'a Value, ours: &'a [(Key, Value)]) -> impl Iterator<Item = &'a Value> {
    let tenant = |o: &Value| text(o, &format!("/metadata/labels/{}", pointer(TENANT))).map(str::to_owned);
    let whose = tenant(live);
    ours.iter()
        .filter(move |(k, o)| whose.is_some() && !k.is_namespace() && !k.is_in(&namespace.name) && tenant(o) == whose)
        .map(|(_, o)| o)
}

/// `<cluster>|<apiVersion>|<Kind>|<namespace>|<name>`.
fn id(cluster: &str, object: &Value) -> String {
    let part = |pointer: &str| text(object, pointer).unwrap_or_default();
    format!(
        "{cluster}|{}|{}|{}|{}",
        part("/apiVersion"),
        part("/kind"),
        part("/metadata/namespace"),
        part("/metadata/name")
    )
}

/// `NetworkPolicy t-23456/default-deny`.
pub fn summary(object: &Value) -> String {
    let name = text(object, "/metadata/name").unwrap_or("(no name)");
    let kind = text(object, "/kind").unwrap_or("(no kind)");
    match text(object, "/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The object with only the fields that identify it.
fn identity(object: &Value) -> Value {
    let metadata: Map<String, Value> = ["name", "namespace"]
        .into_iter()
        .filter_map(|f| Some((f.to_owned(), object.pointer(&format!("/metadata/{f}"))?.clone())))
        .collect();
    json!({"apiVersion": object.get("apiVersion"), "kind": object.get("kind"), "metadata": metadata})
}

/// True for objects that Kubernetes creates in every namespace, if the namespace is one of `ours`.
fn is_given(object: &Value, ours: impl FnOnce(&str) -> bool) -> bool {
    let account = text(object, "/kind") == Some("ServiceAccount") && text(object, "/apiVersion") == Some("v1");
    let named = account && text(object, "/metadata/name") == Some("default");
    named && text(object, "/metadata/namespace").is_some_and(ours)
}

fn namespace_name(object: &Value) -> Option<&str> {
    let is = text(object, "/kind")? == "Namespace" && group_of(text(object, "/apiVersion")?).is_empty();
    text(object, "/metadata/name").filter(|_| is)
}

fn generation(live: &Value) -> u32 {
    let text = text(live, &format!("/metadata/annotations/{}", pointer(GENERATION)));
    text.and_then(|g| g.parse().ok()).unwrap_or(1)
}

fn deleting(live: &Value) -> bool {
    text(live, "/metadata/deletionTimestamp").is_some()
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str()
}

/// Escapes a key for a JSON pointer.
fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// `metadata.<field>`, created if missing. `None` if it has another type.
fn metadata_map<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let empty = || Value::Object(Map::new());
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(empty).as_object_mut()?;
    let map = metadata.entry(field).or_insert_with(empty);
    if map.is_null() {
        *map = empty();
    }
    map.as_object_mut()
}

/// The server's wording for a field that can be set only once.
fn is_immutable(error: &Error) -> bool {
    let words = ["immutable", "may not be changed", "cannot change roleRef", "Forbidden: updates to"];
    error.class == Class::Invalid && words.iter().any(|w| error.message.contains(w))
}

/// A refusal quotes the refused object, and the content of a Secret must not be shown.
fn discreet(object: &Value, error: Error) -> Error {
    if text(object, "/kind") != Some("Secret") || error.class != Class::Invalid {
        return error;
    }
    let immutable = if is_immutable(&error) { ": a field of it is immutable" } else { "" };
    Error { message: format!("the API server refuses {}{immutable}", summary(object)), ..error }
}

fn at(address: &Address, error: Error) -> Error {
    Error { message: format!("{address}: {}", error.message), ..error }
}
