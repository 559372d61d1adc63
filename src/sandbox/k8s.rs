//! The API servers of the clusters: a store of Kubernetes objects with discovery and server-side apply.
//!
//! They are good enough to plan and apply manifests: names, namespaces, versions, generations, field managers and their
//! conflicts, dry runs, custom resource definitions. Everything else of a cluster is missing: no authentication, no
//! RBAC, **no admission** (no Pod Security, no policies, no quota), no schemas, no watches, no controllers, no garbage
//! collection. The deletion of a namespace deletes its objects at once.

mod answer;
mod fields;
mod kinds;
mod object;
mod pods;
mod selector;
mod store;
mod target;

use super::eks;
use super::state::{Ids, State};
use super::wire::{HttpRequest, HttpResponse};
use answer::{Failure, not_found, respond, unknown_path};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use store::Store;
use target::Target;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct K8s {
    /// API servers by cluster name.
    servers: BTreeMap<String, Store>,
}

impl K8s {
    /// Makes a new cluster's API server, with the objects that every cluster has.
    pub fn add(&mut self, cluster: &str, ids: &mut Ids, now: f64) {
        let store = self.servers.entry(cluster.to_owned()).or_default();
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            store.put(&kinds::builtin("", "namespaces"), "", object, ids, now);
            store.furnish(namespace, ids, now);
        }
        for role in ["admin", "cluster-admin", "edit", "view"] {
            let rules = if role == "cluster-admin" {
                json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])
            } else {
                json!([])
            };
            let object = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules,
            });
            store.put(&kinds::builtin("rbac.authorization.k8s.io", "clusterroles"), "", object, ids, now);
        }
        for (class, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
            let object = json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class}, "value": value,
            });
            store.put(&kinds::builtin("scheduling.k8s.io", "priorityclasses"), "", object, ids, now);
        }
    }

    pub fn remove(&mut self, cluster: &str) {
        self.servers.remove(cluster);
    }
}

/// Answers requests below `/k8s/<account>/<region>/<cluster>/`.
pub fn handle(state: &mut State, now: f64, req: HttpRequest) -> HttpResponse {
    let mut parts = req.path.trim_start_matches("/k8s/").splitn(4, '/').map(str::to_owned);
    let (account, region, cluster) = match (parts.next(), parts.next(), parts.next()) {
        (Some(account), Some(region), Some(cluster)) => (account, region, cluster),
        _ => return respond(&req, Err(not_found("the path is not a cluster's"))),
    };
    let path = parts.next().unwrap_or_default();
    eks::settle(state, &account, &region, now);
    let State { accounts, ids, .. } = state;
    let here = accounts.get_mut(&account).and_then(|account| account.regions.get_mut(&region));
    let known = here.and_then(|here| Some((here.eks.api_server(&cluster)?, here.k8s.servers.get_mut(&cluster)?)));
    let Some(((version, network_policies), store)) = known else {
        let message = format!("no cluster {cluster} of account {account} in {region} has an API server now");
        return respond(&req, Err(Failure(503, "ServiceUnavailable", message, json!({}))));
    };
    let kinds = kinds::all(version.minor, network_policies, store.definitions());
    let segments: Vec<String> = path
        .split('/')
        .filter(|one| !one.is_empty())
        .map(|one| percent_decode_str(one).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let aggregated = req.header("accept").contains("apidiscovery.k8s.io");
    let answer = match segments.as_slice() {
        ["version"] => Ok((
            200,
            json!({
                "major": "1", "minor": version.minor.to_string(), "gitVersion": version.git(), "platform": "linux/amd64",
                "emulationMajor": "1", "emulationMinor": version.minor.to_string(),
                "gitCommit": "", "gitTreeState": "clean", "buildDate": "", "goVersion": "", "compiler": "gc",
            }),
        )),
        ["healthz" | "livez" | "readyz", ..] => {
            let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
            return HttpResponse { status: 200, headers, body: b"ok".to_vec() };
        }
        ["api" | "apis"] if aggregated => {
            let body = kinds::aggregated(&kinds, segments.first() == Some(&"api"));
            let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let headers = vec![("content-type".to_owned(), kind.to_owned())];
            return HttpResponse { status: 200, headers, body: body.to_string().into_bytes() };
        }
        ["api"] => Ok((200, json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))),
        ["apis"] => Ok((200, kinds::groups(&kinds))),
        ["apis", group] => kinds::group(&kinds, group).map(|group| (200, group)).ok_or_else(unknown_path),
        ["api", "v1"] => Ok((200, kinds::resources(&kinds, "", "v1"))),
        ["apis", group, version] if kinds.iter().any(|kind| kind.group == *group && kind.version == *version) => {
            Ok((200, kinds::resources(&kinds, group, version)))
        }
        ["api", "v1", rest @ ..] => {
            Target::find(&kinds, "", "v1", rest).and_then(|at| store.serve(&at, &req, ids, now))
        }
        ["apis", group, version, rest @ ..] => {
            Target::find(&kinds, group, version, rest).and_then(|at| store.serve(&at, &req, ids, now))
        }
        _ => Err(unknown_path()),
    };
    respond(&req, answer)
}
