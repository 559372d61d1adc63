//! The kinds of objects that a cluster serves, and their paths.

use std::collections::BTreeSet;

use futures::future::try_join;
use futures::stream::{self, StreamExt, TryStreamExt};
use kube::client::{APIGroupDiscoveryList, APIResourceDiscovery};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::client::{Call, Cluster};
use crate::engine::error::{Class, Error, Result};

/// Aggregated discovery: one request for all groups. A server without it
/// answers with the plain list of groups.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
/// Characters that must be escaped in a path segment. Colons, as in names of
/// RBAC objects, needn't be.
const PART: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// A kind in one API version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The API group. Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Api {
    /// The form of an object's `apiVersion`: `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        join(&self.group, &self.version)
    }

    /// The form that kubectl accepts: `namespaces` or `deployments.apps`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The path of the collection in `namespace`. `None`: in the whole cluster.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let mut path = root(&self.group, &self.version);
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str("/namespaces/");
            path.extend(utf8_percent_encode(namespace, &PART));
        }
        path.push('/');
        path.push_str(&self.plural);
        path
    }

    /// The path of one object.
    pub fn object(&self, namespace: Option<&str>, name: &str) -> String {
        let mut path = self.collection(namespace);
        path.push('/');
        path.extend(utf8_percent_encode(name, &PART));
        path
    }

    fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// The group of an object's `apiVersion`.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// All APIs of a cluster. Each group's preferred version comes first.
#[derive(Clone, Debug, Default)]
pub struct Apis {
    all: Vec<Api>,
    versions: BTreeSet<String>,
}

impl Apis {
    pub(super) async fn discover(cluster: &Cluster) -> Result<Self> {
        let ask = |path: &'static str| async move {
            cluster.call(&Call { accept: AGGREGATED, ..Call::get("discover", path) }).await
        };
        let (core, groups) = try_join(ask("/api"), ask("/apis")).await?;
        let mut apis = Self::default();
        let mut apart = Vec::new();
        for answer in [core, groups] {
            if answer.get("kind").and_then(Value::as_str) == Some("APIGroupDiscoveryList") {
                apis.add_aggregated(answer, cluster.name())?;
            } else {
                apart.extend(versions(&answer));
            }
        }
        let lists: Vec<_> = stream::iter(apart)
            .map(|(group, version)| async move {
                let answer = cluster.call(&Call::get("discover", root(&group, &version))).await;
                match answer {
                    Ok(list) => Ok(Some((group, version, list))),
                    // If an aggregated API server is down, only its own group
                    // is missing.
                    Err(e) if matches!(e.class, Class::Unclear | Class::NotFound) => Ok(None),
                    Err(e) => Err(e),
                }
            })
            .buffered(8)
            .try_collect()
            .await?;
        for (group, version, list) in lists.into_iter().flatten() {
            apis.add_list(&group, &version, &list);
        }
        Ok(apis)
    }

    /// The API for objects of `kind` in `api_version`, exactly.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<&Api> {
        self.all.iter().find(|a| a.kind == kind && a.api_version() == api_version)
    }

    /// True if the cluster serves the group and version
    /// (`vpcresources.k8s.aws/v1beta1`).
    pub fn serves(&self, api_version: &str) -> bool {
        self.versions.contains(api_version)
    }

    /// All kinds whose objects could be ours: kinds that can be listed, applied
    /// and deleted, each in its preferred version. Events are left out, because
    /// ringfence never makes one.
    pub fn manageable(&self) -> Vec<&Api> {
        let mut seen = BTreeSet::new();
        self.all
            .iter()
            .filter(|a| ["list", "patch", "delete"].iter().all(|v| a.can(v)) && a.plural != "events")
            .filter(|a| seen.insert((&a.group, &a.kind)))
            .collect()
    }

    fn add_aggregated(&mut self, answer: Value, cluster: &str) -> Result<()> {
        let list: APIGroupDiscoveryList = serde_json::from_value(answer).map_err(|e| {
            Error::new(Class::Unreachable, format!("the API list of cluster {cluster} can't be read: {e}"))
        })?;
        for group in list.items {
            let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
            for version in group.versions {
                let number = version.version.unwrap_or_default();
                for resource in version.resources {
                    self.all.extend(aggregated(&name, &number, resource));
                }
                self.versions.insert(join(&name, &number));
            }
        }
        Ok(())
    }

    fn add_list(&mut self, group: &str, version: &str, list: &Value) {
        for resource in list.get("resources").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| resource.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let plural = text("name");
            if plural.contains('/') {
                continue;
            }
            let verbs = resource.get("verbs").and_then(Value::as_array).into_iter().flatten();
            self.all.push(Api {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: text("kind"),
                plural,
                namespaced: resource.get("namespaced").and_then(Value::as_bool).unwrap_or(false),
                verbs: verbs.filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            });
        }
        self.versions.insert(join(group, version));
    }
}

fn aggregated(group: &str, version: &str, resource: APIResourceDiscovery) -> Option<Api> {
    Some(Api {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: resource.response_kind?.kind?,
        plural: resource.resource?,
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
        verbs: resource.verbs,
    })
}

/// The (group, version) pairs of an `APIVersions` or `APIGroupList`, a group's
/// preferred version first.
fn versions(answer: &Value) -> Vec<(String, String)> {
    let core = answer.get("versions").and_then(Value::as_array).into_iter().flatten();
    let mut all: Vec<_> = core.filter_map(|v| Some((String::new(), v.as_str()?.to_owned()))).collect();
    for group in answer.get("groups").and_then(Value::as_array).into_iter().flatten() {
        let preferred = group.pointer("/preferredVersion/groupVersion");
        let served = group.get("versions").and_then(Value::as_array).into_iter().flatten();
        for full in preferred.into_iter().chain(served.filter_map(|v| v.get("groupVersion"))) {
            let pair = full.as_str().and_then(|f| f.split_once('/')).map(|(g, v)| (g.to_owned(), v.to_owned()));
            all.extend(pair.filter(|p| !all.contains(p)));
        }
    }
    all
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn resource(plural: &str, kind: &str, scope: &str, verbs: &[&str]) -> Value {
        json!({"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": scope, "verbs": verbs})
    }

    fn apis() -> Apis {
        let all = ["get", "list", "patch", "delete"];
        let mut apis = Apis::default();
        let answer = json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"creationTimestamp": null}, "versions": [{"version": "v1", "resources": [
                resource("namespaces", "Namespace", "Cluster", &all),
                resource("events", "Event", "Namespaced", &all),
                resource("bindings", "Binding", "Namespaced", &["create"]),
            ]}]},
            {"metadata": {"name": "autoscaling"}, "versions": [
                {"version": "v2", "resources": [resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", "Namespaced", &all)]},
                {"version": "v1", "resources": [resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", "Namespaced", &all)]},
            ]},
        ]});
        apis.add_aggregated(answer, "c").unwrap();
        apis
    }

    #[test]
    fn paths() {
        let apis = apis();
        let namespace = apis.find("v1", "Namespace").unwrap();
        assert_eq!(namespace.object(Some("ignored"), "t-1"), "/api/v1/namespaces/t-1");
        let hpa = apis.find("autoscaling/v1", "HorizontalPodAutoscaler").unwrap();
        assert_eq!(hpa.collection(None), "/apis/autoscaling/v1/horizontalpodautoscalers");
        assert_eq!(
            hpa.object(Some("t-1"), "a:b/../c"),
            "/apis/autoscaling/v1/namespaces/t-1/horizontalpodautoscalers/a:b%2F..%2Fc"
        );
        assert_eq!(hpa.resource(), "horizontalpodautoscalers.autoscaling");
        assert!(apis.find("v1", "Pod").is_none());
        assert!(apis.serves("autoscaling/v1") && !apis.serves("autoscaling/v3"));
    }

    #[test]
    fn kinds_are_looked_at_once_and_in_the_preferred_version() {
        let apis = apis();
        let looked: Vec<_> = apis.manageable().into_iter().map(|a| (a.api_version(), a.plural.clone())).collect();
        assert_eq!(
            looked,
            [
                ("v1".to_owned(), "namespaces".to_owned()),
                ("autoscaling/v2".to_owned(), "horizontalpodautoscalers".to_owned())
            ]
        );
    }

    #[test]
    fn plain_lists_of_groups() {
        let groups = json!({"kind": "APIGroupList", "groups": [{"name": "apps", "preferredVersion": {"groupVersion": "apps/v1"},
            "versions": [{"groupVersion": "apps/v1beta1"}, {"groupVersion": "apps/v1"}]}]});
        let pair = |g: &str, v: &str| (g.to_owned(), v.to_owned());
        assert_eq!(versions(&groups), [pair("apps", "v1"), pair("apps", "v1beta1")]);
        assert_eq!(versions(&json!({"kind": "APIVersions", "versions": ["v1"]})), [pair("", "v1")]);
        let mut apis = Apis::default();
        let list = json!({"resources": [
            {"name": "deployments", "kind": "Deployment", "namespaced": true, "verbs": ["list"]},
            {"name": "deployments/scale", "kind": "Scale", "namespaced": true, "verbs": ["get"]}]});
        apis.add_list("apps", "v1", &list);
        assert_eq!(apis.all.len(), 1);
        assert!(apis.find("apps/v1", "Deployment").unwrap().namespaced);
    }
}
