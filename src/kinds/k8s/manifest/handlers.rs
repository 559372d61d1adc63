//! The handlers, and how they determine the owner of an object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::facts::State;
use super::object::{id, metadata_map, own, pointer, summary, text};
use super::served::Shape;
use crate::aws::Aws;
use crate::aws::tags::{ADDRESS, GENERATION, TENANCY, TENANT};
use crate::engine::address::{Address, Owner};
use crate::engine::kind::Foreign;
use crate::k8s::{Api, Cluster, Clusters};

/// The first wanted object of each shape.
type Wanted = BTreeMap<Shape, (Address, State)>;

pub struct ManifestHandlers {
    pub(super) aws: Arc<Aws>,
    pub(super) clusters: Arc<Clusters>,
    /// The wanted objects of clusters without any write so far, by cluster name: the first of each shape. Only the
    /// fields that identify an object are kept.
    unchecked: Mutex<BTreeMap<String, Wanted>>,
    /// Namespaces that this run wrote, by cluster.
    namespaces: Mutex<BTreeSet<(String, String)>>,
}

impl ManifestHandlers {
    pub fn new(aws: Arc<Aws>, clusters: Arc<Clusters>) -> Self {
        Self { aws, clusters, unchecked: Mutex::default(), namespaces: Mutex::default() }
    }

    pub(super) fn unchecked(&self) -> MutexGuard<'_, BTreeMap<String, Wanted>> {
        self.unchecked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn namespaces(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_ours(&self, live: &Value) -> bool {
        text(live, &format!("/metadata/labels/{}", pointer(TENANCY))) == Some(&self.aws.tenancy)
    }

    /// The request body: the object with its ownership.
    pub(super) fn sent(&self, address: &Address, generation: u32, object: &Value) -> Value {
        let mut object = object.clone();
        own(&mut object, &self.aws.tenancy, address);
        if let Some(annotations) = metadata_map(&mut object, "annotations") {
            annotations.insert(GENERATION.to_owned(), Value::String(generation.to_string()));
        }
        object
    }

    pub(super) fn foreign(&self, cluster: &Cluster, api: &Api, address: &Address, live: &Value) -> Foreign {
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
}
