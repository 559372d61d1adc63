//! The builder: what all parts of the stack build on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::facts::Facts;
use super::site::Site;
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::desired::{Desired, Resource};
use crate::engine::error::Result;
use crate::engine::kind::Scope;
use crate::engine::packed::Packed;
use crate::kinds::aws::policy;
use crate::spec::names::Names;
use crate::spec::{Control, Owner, Spec, Tenant};
use crate::template::Templates;

/// The desired resources so far, and the inputs from which they are built.
pub(super) struct Builder<'a> {
    pub spec: &'a Spec,
    pub facts: &'a Facts,
    pub templates: &'a Templates,
    pub names: Names<'a>,
    scope: Arc<Scope>,
    /// The tenants of each cluster, sorted by id.
    pub tenants: BTreeMap<Owner<'a>, Vec<&'a Tenant>>,
    pub desired: Desired,
    /// The template of each object of the present cluster, to report two templates that make the same object.
    pub sources: BTreeMap<Identity, String>,
}

/// Cluster, API group, kind, namespace and name. They identify an object.
pub(super) type Identity = [String; 5];

/// The order and the controls of a resource.
#[derive(Default)]
pub(super) struct Terms {
    pub after: Vec<Address>,
    pub controls: Vec<&'static str>,
}

impl Terms {
    pub fn after(mut self, addresses: impl IntoIterator<Item = Address>) -> Self {
        self.after.extend(addresses);
        self
    }

    pub fn controls(mut self, controls: &[Control]) -> Self {
        self.controls.extend(controls.iter().map(|c| c.id()));
        self
    }
}

impl<'a> Builder<'a> {
    pub fn new(spec: &'a Spec, facts: &'a Facts, templates: &'a Templates) -> Self {
        let mut tenants: BTreeMap<Owner<'_>, Vec<&Tenant>> = BTreeMap::new();
        for tenant in &spec.tenants {
            let owner = tenant.pool().map_or(Owner::Tenant(&tenant.id), Owner::Pool);
            tenants.entry(owner).or_default().push(tenant);
        }
        Self {
            spec,
            facts,
            templates,
            names: Names::new(spec),
            tenants,
            scope: Arc::new(facts.scope(spec)),
            desired: Desired::default(),
            sources: BTreeMap::new(),
        }
    }

    pub fn put(&mut self, address: Address, kind: &'static str, state: &impl Serialize, terms: Terms) -> Result<()> {
        let Terms { mut after, controls } = terms;
        after.sort();
        after.dedup();
        let state = Packed::of(state)?;
        let scope = self.scope.clone();
        self.desired.insert(Resource { address, kind, scope, state, after, controls })
    }

    /// The spec's tags, `Name`, and the ownership tags.
    pub fn tags(&self, address: &Address, name: impl Into<String>) -> Tags {
        let mut tags = self.spec.tags.clone();
        tags.insert("Name".to_owned(), name.into());
        tags.extend(tags::ownership(&self.spec.name, &self.spec.region, address));
        tags
    }

    /// The ARN of a resource in this account and region.
    pub fn arn(&self, service: &str, resource: impl AsRef<str>) -> String {
        let Facts { account, partition, .. } = self.facts;
        format!("arn:{partition}:{service}:{}:{account}:{}", self.spec.region, resource.as_ref())
    }

    /// The ARN of one of AWS's own managed policies.
    pub fn managed_policy(&self, name: &str) -> String {
        format!("arn:{}:iam::aws:policy/{name}", self.facts.partition)
    }

    /// A policy document from a template, in canonical form, for the comparison with AWS's answer.
    pub fn document(&self, template: &str, subject: &Address, values: Value) -> Result<Value> {
        let mut context = json!({
            "account": self.facts.account,
            "partition": self.facts.partition,
            "region": self.spec.region,
            "dnsSuffix": self.dns_suffix(),
        });
        if let (Value::Object(context), Value::Object(values)) = (&mut context, values) {
            context.extend(values);
        }
        Ok(policy::canonical(&self.templates.json(template, &context, subject)?))
    }

    /// The suffix of the partition's host names (botocore, `partitions.json`).
    pub fn dns_suffix(&self) -> &'static str {
        match self.facts.partition.as_str() {
            "aws-cn" => "amazonaws.com.cn",
            "aws-eusc" => "amazonaws.eu",
            "aws-iso" => "c2s.ic.gov",
            "aws-iso-b" => "sc2s.sgov.gov",
            "aws-iso-e" => "cloud.adc-e.uk",
            "aws-iso-f" => "csp.hci.ic.gov",
            _ => "amazonaws.com",
        }
    }

    /// The tenants whose pods run in a cluster.
    pub fn tenants_of(&self, site: &Site<'_>) -> Vec<&'a Tenant> {
        self.tenants.get(&site.cluster.owner).cloned().unwrap_or_default()
    }
}
