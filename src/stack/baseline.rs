//! Objects inside of clusters, from `templates/manifests`: a new object needs
//! no Rust.
//!
//! Files under `cluster/` are rendered once for each cluster, those under `tenant/` once for each tenant. In addition
//! to the object, a document may have `requires:` (an API that must exist) and `controls:` (IDs of the controls that it
//! carries). The order is: objects that the cluster's own pods need, namespaces, objects in namespaces, bindings.
//! Bindings are last, so that no user gets access before all protections exist.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::access::GATEWAY_GROUP;
use super::addons::DAEMONS;
use super::addresses::workload_role;
use super::builder::{Builder, Identity, Terms};
use super::site::{Network, Site};
use crate::engine::address::{Address, part};
use crate::engine::error::{Error, Result};
use crate::engine::value::{self, reference};
use crate::kinds::k8s::manifest;
use crate::spec::{
    BASELINE_CAPABILITIES, Control, Isolation, KubernetesVersion, NatGateways, Pods, Tenant, is_gateway_endpoint, names,
};

/// The version of the Pod Security Standards that namespaces enforce. From 1.35 on, `restricted` allows root in a user
/// namespace.
const POD_SECURITY: KubernetesVersion = KubernetesVersion { major: 1, minor: 34 };

/// The first version that has MutatingAdmissionPolicies.
pub(super) const MUTATION: KubernetesVersion = KubernetesVersion { major: 1, minor: 36 };

/// Capabilities that the Pod Security Standard `restricted` allows a container to add.
const RESTRICTED_CAPABILITIES: &[&str] = &["NET_BIND_SERVICE"];

/// Addresses that don't count as "the internet": private, shared and link-local ones (RFC 1918, RFC 6598, RFC 3927).
/// The link-local range contains IMDS.
const NOT_INTERNET: [&str; 5] = ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];

/// The order in which the objects of a template folder are applied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Mutating policies come before the validating policies that require their fields. Otherwise, in an upgrade that
    /// adds both, new pods would be refused in between.
    Mutation,
    Policy,
    Namespace,
    Rest,
    Binding,
}

/// One object of a template.
struct Object {
    phase: Phase,
    address: Address,
    state: manifest::State,
    controls: Vec<&'static str>,
}

impl Builder<'_> {
    /// Adds the objects of a cluster. Returns the addresses of the objects that the cluster's own pods need before they
    /// start. `values` are the cluster's values for templates.
    pub(super) fn cluster_objects(&mut self, site: &Site<'_>, values: &Value) -> Result<Vec<Address>> {
        let context = json!({"tenancy": self.tenancy(), "cluster": values});
        let objects = self.objects(site, "manifests/cluster/", &context, &site.prefix, None)?;
        let policies = objects.iter().filter(|o| o.phase <= Phase::Policy).map(|o| o.address.clone()).collect();
        let entries = self.addresses_under(&site.access_entries());
        self.put_in_phases(site, objects, &entries)?;
        Ok(policies)
    }

    /// Adds one object of the cluster that is in no template.
    pub(super) fn cluster_object(&mut self, site: &Site<'_>, object: Value, terms: Terms) -> Result<Address> {
        let Object { address, state, .. } = self.object(site, object, &site.prefix, None).map_err(Error::bug)?;
        self.put(address.clone(), manifest::NAME, &state, terms)?;
        Ok(address)
    }

    /// See [`super::mutating_policies`].
    pub(super) fn mutating_policies(&self, site: &Site<'_>, network: &Network) -> Result<Vec<Value>> {
        let mut values = self.cluster_values(site, network)?;
        values["mutation"] = true.into();
        let context = json!({"tenancy": self.tenancy(), "cluster": values});
        let mut policies = Vec::new();
        for rendered in self.templates.documents("manifests/cluster/", &context, &site.prefix)? {
            let (_, documents) = rendered?;
            let mutates = |object: &Value| object["kind"].as_str().is_some_and(|kind| kind.starts_with("Mutating"));
            policies.extend(documents.into_iter().filter(mutates));
        }
        Ok(policies)
    }

    /// The addresses that a tenant's objects come after: all objects of the cluster, and its access entries.
    pub(super) fn before_tenants(&self, site: &Site<'_>) -> Vec<Address> {
        let mut before = self.addresses_under(&site.at("k8s/"));
        before.extend(self.addresses_under(&site.access_entries()));
        before
    }

    /// Adds the objects of a tenant.
    pub(super) fn tenant_objects(
        &mut self,
        site: &Site<'_>,
        values: &Value,
        before: &[Address],
        tenant: &Tenant,
        home: &Address,
    ) -> Result<()> {
        let context = json!({
            "tenancy": self.tenancy(),
            "cluster": values,
            "tenant": self.tenant_values(tenant, home)?,
        });
        let objects = self.objects(site, "manifests/tenant/", &context, home, Some(tenant))?;
        self.put_in_phases(site, objects, before)
    }

    /// Adds the objects phase by phase. Each phase comes after the last phase with objects, and the first phase after
    /// `before`. An object that requires an API comes after the add-ons that may bring it.
    fn put_in_phases(&mut self, site: &Site<'_>, mut objects: Vec<Object>, before: &[Address]) -> Result<()> {
        let addons = site.cluster.profile.addons.iter().map(|(name, _)| name).filter(|n| DAEMONS.contains(n));
        let addons: Vec<Address> = addons.map(|name| site.at(&format!("addon/{name}"))).collect();
        objects.sort_by(|a, b| (a.phase, &a.address).cmp(&(b.phase, &b.address)));
        let mut before = before.to_vec();
        for phase in objects.chunk_by(|a, b| a.phase == b.phase) {
            for Object { address, state, controls, .. } in phase {
                let mut terms = Terms { after: before.clone(), controls: controls.clone() };
                if state.requires.is_some() {
                    terms = terms.after(addons.clone());
                }
                self.put(address.clone(), manifest::NAME, state, terms)?;
            }
            before = phase.iter().map(|o| o.address.clone()).collect();
        }
        Ok(())
    }

    fn addresses_under(&self, prefix: &Address) -> Vec<Address> {
        self.desired.beginning_with(prefix).map(|r| r.address.clone()).collect()
    }

    fn objects(
        &mut self,
        site: &Site<'_>,
        folder: &str,
        context: &Value,
        home: &Address,
        tenant: Option<&Tenant>,
    ) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let templates = self.templates;
        for rendered in templates.documents(folder, context, home)? {
            let (template, documents) = rendered?;
            for document in documents {
                let object = self.object(site, document, home, tenant).map_err(|what| {
                    Error::input(format!("template {template}, for {home}: {what}"))
                        .help("each document is one Kubernetes object with apiVersion, kind and metadata.name")
                })?;
                let source = format!("{template}, for {home}");
                let identity = identity(site, &object.state.object);
                if let Some(other) = self.sources.insert(identity, source) {
                    return Err(Error::input(format!(
                        "template {template}, for {home}: {} is made by template {other}, too",
                        manifest::summary(&object.state.object)
                    ))
                    .help("give one of the two another name, or replace the template by a file of the same name"));
                }
                objects.push(object);
            }
        }
        Ok(objects)
    }

    /// Splits a document into the object and its `requires` and `controls`, and adds the ownership labels to the
    /// object. The error says what is wrong with the document.
    fn object(
        &self,
        site: &Site<'_>,
        document: Value,
        home: &Address,
        tenant: Option<&Tenant>,
    ) -> Result<Object, String> {
        let Value::Object(mut object) = document else {
            return Err("a document isn't an object".to_owned());
        };
        let requires = match object.remove("requires") {
            None => None,
            Some(Value::String(api)) => Some(api),
            Some(_) => return Err("`requires` isn't an API such as `example.com/v1`".to_owned()),
        };
        let controls = match object.remove("controls") {
            None => Vec::new(),
            Some(Value::Array(ids)) => ids
                .iter()
                .map(|id| id.as_str().unwrap_or_default().parse::<Control>().map(Control::id))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err("`controls` isn't a list".to_owned()),
        };
        let text = |pointer: &str, from: &Value| value::at(from, pointer).and_then(Value::as_str).map(str::to_owned);
        let mut whole = Value::Object(object);
        if text("/apiVersion", &whole).is_none() {
            return Err("an object has no apiVersion".to_owned());
        }
        let kind = text("/kind", &whole).ok_or("an object has no kind")?;
        let name = text("/metadata/name", &whole).ok_or_else(|| format!("a {kind} has no metadata.name"))?;
        let namespace = text("/metadata/namespace", &whole).filter(|n| tenant.is_none_or(|t| t.namespace() != *n));
        let api = text("/apiVersion", &whole).unwrap_or_default();
        let address = home.join(object_part(&api, &kind, namespace.as_deref(), &name));
        manifest::own(&mut whole, &self.spec.name, &address);
        if let Some(labels) = whole.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.insert("app.kubernetes.io/managed-by".to_owned(), "ringfence".into());
        }
        let phase = match kind.as_str() {
            "Namespace" => Phase::Namespace,
            "RoleBinding" | "ClusterRoleBinding" => Phase::Binding,
            "MutatingAdmissionPolicy" | "MutatingAdmissionPolicyBinding" if tenant.is_none() => Phase::Mutation,
            // A policy in a namespace that another template makes comes after the namespace.
            _ if namespace.as_deref().is_some_and(|name| name != "kube-system") => Phase::Rest,
            _ if tenant.is_none() && kind.ends_with("Policy") => Phase::Policy,
            _ => Phase::Rest,
        };
        let state = manifest::State {
            cluster: site.output("cluster", "name"),
            endpoint: site.output("cluster", "endpoint"),
            certificate_authority: site.output("cluster", "certificate_authority"),
            requires,
            object: whole,
        };
        Ok(Object { phase, address, state, controls })
    }

    fn tenancy(&self) -> Value {
        json!({
            "name": self.spec.name,
            "region": self.spec.region,
            "account": self.facts.account,
            "partition": self.facts.partition,
        })
    }

    /// The cluster's values for templates.
    pub(super) fn cluster_values(&self, site: &Site<'_>, network: &Network) -> Result<Value> {
        let classes: BTreeSet<(String, i32)> =
            self.tenants_of(site).into_iter().map(|t| (t.tier.clone(), t.profile.priority_class.value)).collect();
        let classes: Vec<Value> = classes
            .into_iter()
            .map(|(tier, value)| json!({"name": priority_class(&tier, value), "tier": tier, "value": value}))
            .collect();
        Ok(json!({
            "name": site.name,
            "version": site.version,
            "podSecurityVersion": format!("v{}", POD_SECURITY.min(site.version)),
            "networkPolicy": site.cluster.profile.network_policy,
            "networkPolicyMode": site.cluster.profile.network_policy_mode,
            "vpcCidr": network.cidr,
            "privateCidrs": network.private.iter().map(|s| s.cidr).collect::<Vec<_>>(),
            "serviceCidr": site.service_cidr,
            "apiServiceIp": site.service_cidr.hosts().next(),
            "internet": site.cluster.network.nat_gateways != NatGateways::None,
            "interfaceEndpoints": site.cluster.network.endpoints.iter().any(|e| !is_gateway_endpoint(e)),
            "gatewayEndpoints": site.cluster.network.endpoints.iter().any(|e| is_gateway_endpoint(e)),
            "notInternet": self.not_internet(site, network),
            "priorityClasses": classes,
            "mutation": site.version >= MUTATION,
            "gateway": site.cluster.gateway,
            "webhook": site.webhook_image(self.spec).map(|image| json!({"image": image})),
            "gatewayGroup": self.spec.gateway.as_ref().and_then(|g| g.role.as_ref()).map(|_| GATEWAY_GROUP),
        }))
    }

    /// Ranges that policies for the internet exclude. The tenancy's own ranges are added if they aren't private.
    fn not_internet(&self, site: &Site<'_>, network: &Network) -> Vec<String> {
        let mut ranges: Vec<String> = NOT_INTERNET.map(str::to_owned).into();
        let within = |range: &str, net: &Ipv4Net| range.parse::<Ipv4Net>().is_ok_and(|r| r.contains(net));
        for own in [self.spec.network.supernet, site.service_cidr, network.cidr] {
            if !ranges.iter().any(|range| within(range, &own)) {
                ranges.push(own.to_string());
            }
        }
        ranges
    }

    fn tenant_values(&self, tenant: &Tenant, home: &Address) -> Result<Value> {
        let accounts: Vec<Value> = tenant
            .service_accounts
            .iter()
            .map(|a| json!({"name": a.name, "role": reference(&workload_role(home, &a.name), "arn")}))
            .collect();
        Ok(json!({
            "id": tenant.id,
            "name": tenant.name,
            "tier": tenant.tier,
            "isolation": match tenant.isolation {
                Isolation::Silo => "silo",
                Isolation::Pool { .. } => "pool",
                Isolation::Fargate { .. } => "fargate",
            },
            "namespace": tenant.namespace(),
            "group": tenant.group(),
            "priorityClass": priority_class(&tenant.tier, tenant.profile.priority_class.value),
            "profile": *tenant.profile,
            "podSecurity": pod_security(&tenant.profile.pods),
            "fargateProfile": names::fargate_profile(&tenant.id),
            "serviceAccounts": accounts,
            "registries": self.registries(tenant),
            "securityGroup": reference(&home.join("security-group"), "id"),
            "uidRange": tenant.uid_range,
        }))
    }
}

/// API groups of every Kubernetes cluster whose names have a dot. Their kinds need no group in an address, like those
/// of groups without a dot.
const OWN_GROUPS: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// `k8s/<kind>/<name>` or `k8s/<kind>/<namespace>/<name>`. The API group follows the kind if it isn't one of
/// Kubernetes' own.
fn object_part(api: &str, kind: &str, namespace: Option<&str>, name: &str) -> String {
    let group = api.split_once('/').map_or("", |(group, _)| group);
    let group = match group.contains('.') && !OWN_GROUPS.contains(&group) {
        true => format!(".{group}"),
        false => String::new(),
    };
    let kind = format!("{}{group}", kind.to_lowercase());
    let parts = [Some(kind.as_str()), namespace, Some(name)];
    let parts: Vec<String> = parts.into_iter().flatten().map(part).collect();
    format!("k8s/{}", parts.join("/"))
}

fn identity(site: &Site<'_>, object: &Value) -> Identity {
    let text = |pointer: &str| value::at(object, pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let api = text("/apiVersion");
    let group = api.split_once('/').map_or("", |(group, _)| group).to_owned();
    [site.name.clone(), group, text("/kind"), text("/metadata/namespace"), text("/metadata/name")]
}

/// The strictest Pod Security Standard that allows everything in the tenant's profile. The admission policies enforce
/// all rules of `restricted` themselves, except for what the profile allows.
fn pod_security(pods: &Pods) -> &'static str {
    let beyond = |allowed: &[&str]| pods.allowed_capabilities.iter().any(|c| !allowed.contains(&c.as_str()));
    if !pods.host_paths.is_empty() || beyond(BASELINE_CAPABILITIES) {
        "privileged"
    } else if beyond(RESTRICTED_CAPABILITIES) {
        "baseline"
    } else {
        "restricted"
    }
}

fn priority_class(tier: &str, value: i32) -> String {
    format!("ringfence-{tier}-{value}")
}
