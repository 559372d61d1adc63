//! Configurations of webhooks that run in the cluster itself.
//!
//! The webhook's Pods make the authority of their certificates, and renew it. The configuration names the Secret that has
//! it. A configuration whose webhook doesn't run would block everything that it is for, so it is created only when two
//! Pods are ready.

use serde_json::Value;

use super::handlers::ManifestHandlers;
use super::object::{pointer, summary, text};
use crate::aws::tags::AUTHORITY_FROM;
use crate::engine::error::{Class, Error, Result};
use crate::k8s::Cluster;
use crate::k8s::client::Call;

/// Pods that must be ready: one may end at any time.
const READY: usize = 2;

/// The namespace and the name of the Secret.
fn secret(object: &Value) -> Option<(&str, &str)> {
    text(object, "/kind").filter(|kind| kind.ends_with("WebhookConfiguration"))?;
    text(object, &format!("/metadata/annotations/{}", pointer(AUTHORITY_FROM)))?.split_once('/')
}

fn clients(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    let webhooks = object.get_mut("webhooks").and_then(Value::as_array_mut);
    let clients = webhooks.into_iter().flatten().filter_map(|webhook| webhook.get_mut("clientConfig"));
    clients.filter(|client| client.is_object())
}

impl ManifestHandlers {
    /// The object with the authority that the Secret has now. Other objects stay as they are.
    pub(super) async fn trusting(&self, cluster: &Cluster, mut object: Value) -> Result<Value> {
        let Some((namespace, name)) = secret(&object) else { return Ok(object) };
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let found = match cluster.call(&Call::get("get", path)).await {
            Ok(found) => found,
            Err(e) if e.class == Class::NotFound => return Ok(object),
            Err(e) => return Err(e),
        };
        if let Some(bundle) = text(&found, "/data/ca.crt").filter(|bundle| !bundle.is_empty()) {
            for client in clients(&mut object) {
                client["caBundle"] = bundle.into();
            }
        }
        Ok(object)
    }

    /// `found` with each authority of the live object that isn't the Secret's. The desired object has none, so the plan
    /// shows the foreign one.
    pub(super) fn distrusting(mut found: Value, trusting: &Value, live: &Value) -> Value {
        if secret(trusting).is_none() {
            return found;
        }
        let bundles =
            |of: &Value| -> Vec<Value> { clients(&mut of.clone()).map(|client| client["caBundle"].take()).collect() };
        let (right, is) = (bundles(trusting), bundles(live));
        for ((client, right), is) in clients(&mut found).zip(right).zip(is) {
            if right != is {
                client["caBundle"] = if is.is_null() { "".into() } else { is };
            }
        }
        found
    }

    /// # Errors
    /// `Class::NotYet` while the webhook of a new configuration can't answer.
    pub(super) async fn answers(&self, cluster: &Cluster, object: &Value) -> Result<()> {
        if secret(object).is_none() {
            return Ok(());
        }
        let not_yet = |why: String| {
            let what = summary(object);
            let message = format!("{what} isn't created, because it would block tenants' requests: {why}");
            Error::new(Class::NotYet, message)
        };
        for webhook in object.get("webhooks").and_then(Value::as_array).into_iter().flatten() {
            let client = webhook.get("clientConfig").unwrap_or(&Value::Null);
            let (Some(namespace), Some(name)) = (text(client, "/service/namespace"), text(client, "/service/name"))
            else {
                continue;
            };
            if text(client, "/caBundle").is_none() {
                return Err(not_yet(format!("the webhook's Pods in {namespace} haven't made their certificate")));
            }
            let path = format!(
                "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
            );
            let slices = cluster.call(&Call::get("list", path)).await?;
            let ready = ready(&slices);
            if ready < READY {
                return Err(not_yet(format!("{ready} of {READY} Pods of the webhook are ready in {namespace}"))
                    .help(format!("look at the Pods: kubectl get pods -n {namespace}")));
            }
        }
        Ok(())
    }
}

/// Ready endpoints. An endpoint without the condition is ready (API reference, EndpointSlice).
fn ready(slices: &Value) -> usize {
    let list = |of: &Value, field: &str| of.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let endpoints = list(slices, "items").iter().flat_map(|slice| list(slice, "endpoints")).collect::<Vec<_>>();
    endpoints.iter().filter(|one| one.pointer("/conditions/ready") != Some(&Value::Bool(false))).count()
}
