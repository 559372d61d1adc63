//! What Pods and their controllers would do. The sandbox's Pods are always ready.

use super::super::eks;
use super::super::state::Ids;
use super::fields;
use super::kinds;
use super::store::{Store, stamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Where ringfence's admission webhook keeps the authority of its certificates.
const AUTHORITY: (&str, &str) = ("ringfence-admission", "authority");

impl Store {
    /// Gives each Service of the namespace the addresses of its Deployment's Pods, and lets the webhook's Pods write
    /// their authority.
    pub(super) fn run_pods(&mut self, namespace: &str, ids: &mut Ids, now: f64) {
        let slices = kinds::builtin("discovery.k8s.io", "endpointslices");
        let deployments = self.all(&kinds::builtin("apps", "deployments"), namespace);
        for service in self.all(&kinds::builtin("", "services"), namespace) {
            let selector = service["spec"]["selector"].as_object().cloned().unwrap_or_default();
            let selects = |deployment: &&Value| {
                let labels = &deployment["spec"]["template"]["metadata"]["labels"];
                !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            };
            let Some(deployment) = deployments.iter().find(selects) else { continue };
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1).min(250);
            let endpoint = |i| json!({"addresses": [format!("10.0.0.{i}")], "conditions": {"ready": true}});
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {
                    "name": format!("{name}-sandbox"),
                    "labels": {"kubernetes.io/service-name": name},
                    "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Service", "name": name, "uid": service["metadata"]["uid"],
                        "controller": true,
                    }],
                },
                "endpoints": (1..=replicas).map(endpoint).collect::<Vec<_>>(),
            });
            self.put(&slices, namespace, slice, ids, now);
        }
        if namespace == AUTHORITY.0 && !deployments.is_empty() {
            let kind = kinds::builtin("", "secrets");
            let secrets = self.all(&kind, namespace).into_iter();
            for old in secrets.filter(|one| one["metadata"]["name"] == AUTHORITY.1 && one["data"].is_null()) {
                let mut new = old.clone();
                new["data"] = json!({"ca.crt": STANDARD.encode(eks::versions::CERTIFICATE)});
                let new = fields::updated(&old, new, &kind, "ringfence-admission", &stamp(now));
                self.replace(&kind, namespace, new);
            }
        }
    }
}
