//! Which requests a policy or a binding is for (`MatchResources` and `LabelSelector` of the Kubernetes API reference).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::request::Request;

/// The requests of a policy, or of a binding. A binding without rules is for all requests of its policy.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    #[serde(default)]
    pub match_policy: MatchPolicy,
    #[serde(default)]
    pub namespace_selector: Selector,
    #[serde(default)]
    pub object_selector: Selector,
    #[serde(default)]
    pub resource_rules: Vec<Rule>,
    #[serde(default)]
    pub exclude_resource_rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MatchPolicy {
    Exact,
    #[default]
    Equivalent,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    pub api_groups: Vec<String>,
    pub api_versions: Vec<String>,
    pub operations: Vec<String>,
    pub resources: Vec<String>,
    #[serde(default)]
    pub resource_names: Vec<String>,
    #[serde(default)]
    pub scope: Scope,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Scope {
    #[default]
    #[serde(rename = "*")]
    All,
    Namespaced,
    Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub match_expressions: Vec<Requirement>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    #[serde(default)]
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// How a request and the rules fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    No,
    Yes,
    /// The rules are for the same resource in another version. The API server would convert the object to it.
    OtherVersion,
}

impl Resources {
    /// `binding`: whether missing rules are for all requests.
    pub fn fit(&self, request: &Request, namespace: Option<&Value>, binding: bool) -> Fit {
        if !self.fits_namespace(request, namespace) || !self.fits_object(request) {
            return Fit::No;
        }
        if self.exclude_resource_rules.iter().any(|rule| rule.fit(request) == Fit::Yes) {
            return Fit::No;
        }
        if binding && self.resource_rules.is_empty() {
            return Fit::Yes;
        }
        let fits: Vec<Fit> = self.resource_rules.iter().map(|rule| rule.fit(request)).collect();
        match self.match_policy {
            _ if fits.contains(&Fit::Yes) => Fit::Yes,
            MatchPolicy::Equivalent if fits.contains(&Fit::OtherVersion) => Fit::OtherVersion,
            _ => Fit::No,
        }
    }

    /// An object in no namespace that isn't a namespace itself always fits.
    fn fits_namespace(&self, request: &Request, namespace: Option<&Value>) -> bool {
        if request.is_namespace() {
            return [request.object.as_ref(), request.old_object.as_ref()]
                .into_iter()
                .flatten()
                .next()
                .is_some_and(|object| self.namespace_selector.fits(object));
        }
        request.namespace.is_none() || self.namespace_selector.fits(namespace.unwrap_or(&Value::Null))
    }

    fn fits_object(&self, request: &Request) -> bool {
        let objects = [&request.object, &request.old_object];
        self.object_selector.is_empty() || objects.into_iter().flatten().any(|object| self.object_selector.fits(object))
    }
}

impl Rule {
    fn fit(&self, request: &Request) -> Fit {
        let has = |list: &[String], value: &str| list.iter().any(|one| one == "*" || one == value);
        let scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => request.namespace.is_some() && !request.is_namespace(),
            Scope::Cluster => request.namespace.is_none() || request.is_namespace(),
        };
        let names = self.resource_names.is_empty() || self.resource_names.contains(&request.name);
        if !scope
            || !names
            || !has(&self.api_groups, &request.group)
            || !has(&self.operations, request.operation.name())
            || !self.resources.iter().any(|rule| is_resource(rule, request))
        {
            return Fit::No;
        }
        match has(&self.api_versions, &request.version) {
            true => Fit::Yes,
            false => Fit::OtherVersion,
        }
    }
}

/// `pods`, `pods/status`, `pods/*`, `*/scale`, `*` (no subresources) and `*/*`.
fn is_resource(rule: &str, request: &Request) -> bool {
    let (resource, subresource) = match rule.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource)),
        None => (rule, None),
    };
    let fits = resource == "*" || resource == request.resource;
    fits && match (subresource, &request.subresource) {
        (None, None) | (Some("*"), _) => true,
        (Some(rule), Some(is)) => rule == is,
        _ => false,
    }
}

impl Selector {
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// The selector, all in expressions.
    pub fn requirements(&self) -> Vec<Requirement> {
        let of_label = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        };
        self.match_labels.iter().map(of_label).chain(self.match_expressions.iter().cloned()).collect()
    }

    fn fits(&self, object: &Value) -> bool {
        let label = |key: &str| object.get("metadata")?.get("labels")?.get(key)?.as_str();
        let has = |requirement: &Requirement| {
            let value = label(&requirement.key);
            let listed = value.is_some_and(|value| requirement.values.iter().any(|one| one == value));
            match requirement.operator {
                Operator::In => listed,
                Operator::NotIn => !listed,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        };
        self.match_labels.iter().all(|(key, value)| label(key) == Some(value)) && self.match_expressions.iter().all(has)
    }
}
