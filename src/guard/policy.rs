//! Admission policies and their bindings, as Kubernetes defines them (the pages "Validating Admission Policy" and
//! "Mutating Admission Policy" of its documentation, and `admissionregistration.k8s.io/v1` of its API reference).
//!
//! Fields that aren't known here are an error, so that no policy is weaker here than in the cluster.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::cel::{Expr, Names, Variables, compile, fields};
use super::matching::Resources;
use crate::engine::error::{Error, Result};

/// A policy with its bindings.
#[derive(Debug)]
pub struct Policy {
    pub name: String,
    /// False for `failurePolicy: Ignore`: an expression without a value refuses nothing.
    pub fails: bool,
    pub resources: Resources,
    pub conditions: Vec<Condition>,
    /// The names of its variables, and their slots.
    pub names: Names,
    pub does: Does,
    pub bindings: Vec<Binding>,
}

#[derive(Debug)]
pub enum Does {
    Validate(Vec<Validation>),
    /// `again`: the policy runs again if a later one changed the object.
    Mutate {
        patches: Vec<Expr>,
        again: bool,
    },
}

#[derive(Debug)]
pub struct Condition {
    pub name: String,
    pub expression: Expr,
}

#[derive(Debug)]
pub struct Validation {
    pub text: String,
    pub expression: Expr,
    pub message: Option<String>,
    pub message_expression: Option<Expr>,
    /// The fields of the object that decide.
    pub fields: Vec<String>,
}

#[derive(Debug)]
pub struct Binding {
    pub name: String,
    pub resources: Resources,
    /// Bindings that only warn or audit refuse nothing.
    pub denies: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicySpec {
    failure_policy: Option<FailurePolicy>,
    match_constraints: Resources,
    #[serde(default)]
    match_conditions: Vec<Named>,
    #[serde(default)]
    variables: Vec<Named>,
    #[serde(default)]
    validations: Vec<ValidationSpec>,
    #[serde(default)]
    mutations: Vec<MutationSpec>,
    #[serde(default)]
    reinvocation_policy: ReinvocationPolicy,
    /// They refuse nothing.
    #[serde(default, rename = "auditAnnotations")]
    _audit_annotations: Vec<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum FailurePolicy {
    Fail,
    Ignore,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum ReinvocationPolicy {
    #[default]
    Never,
    IfNeeded,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ValidationSpec {
    expression: String,
    message: Option<String>,
    message_expression: Option<String>,
    #[serde(rename = "reason")]
    _reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MutationSpec {
    #[serde(rename = "patchType")]
    _patch_type: JsonPatchOnly,
    json_patch: Patch,
}

/// `ApplyConfiguration` isn't known here.
#[derive(Deserialize)]
enum JsonPatchOnly {
    #[serde(rename = "JSONPatch")]
    JsonPatch,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BindingSpec {
    policy_name: String,
    #[serde(default)]
    validation_actions: Vec<Action>,
    #[serde(default)]
    match_resources: Resources,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum Action {
    Deny,
    Warn,
    Audit,
}

const GROUP: &str = "admissionregistration.k8s.io/";

/// The policies among a cluster's objects, in the order of their names. Policies without a binding do nothing.
pub fn load<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Result<(Vec<Policy>, Variables)> {
    let mut variables = Variables::default();
    let mut policies = BTreeMap::new();
    let mut bindings = Vec::new();
    for object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if !text("/apiVersion").starts_with(GROUP) {
            continue;
        }
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let wrong = |what: String| {
            Error::input(format!("{kind} {name} can't be evaluated: {what}"))
                .help("correct the policy, or leave it to the API server and remove it from the templates")
        };
        let spec = object.get("spec").cloned().unwrap_or_default();
        let mutates = kind.starts_with("Mutating");
        match kind {
            "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
                let policy = policy(name, spec, mutates, &mut variables).map_err(wrong)?;
                policies.insert((mutates, name.to_owned()), policy);
            }
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
                let spec: BindingSpec = serde_json::from_value(spec).map_err(|e| wrong(e.to_string()))?;
                bindings.push((mutates, name.to_owned(), spec));
            }
            _ => {}
        }
    }
    for (mutates, name, spec) in bindings {
        let Some(policy) = policies.get_mut(&(mutates, spec.policy_name.clone())) else {
            return Err(Error::input(format!(
                "the binding {name} is for the policy {}, which doesn't exist",
                spec.policy_name
            ))
            .help("correct spec.policyName of the binding"));
        };
        let denies = spec.validation_actions.contains(&Action::Deny);
        policy.bindings.push(Binding { name, resources: spec.match_resources, denies });
    }
    Ok((policies.into_values().collect(), variables))
}

fn policy(name: &str, spec: Value, mutates: bool, variables: &mut Variables) -> std::result::Result<Policy, String> {
    let spec: PolicySpec = serde_json::from_value(spec).map_err(|e| e.to_string())?;
    let mut names = Names::new();
    let in_part =
        |part: String, text: &str, names: &Names| compile(text, names).map_err(|why| format!("{part}: {why}"));
    let mut conditions = Vec::new();
    for condition in spec.match_conditions {
        let expression = in_part(format!("the match condition {}", condition.name), &condition.expression, &names)?;
        conditions.push(Condition { name: condition.name, expression });
    }
    for variable in spec.variables {
        let added = variables.add(&variable.name, &variable.expression, &mut names);
        added.map_err(|why| format!("the variable {}: {why}", variable.name))?;
    }
    let does = if mutates {
        let patches = spec.mutations.iter().map(|m| in_part("a mutation".to_owned(), &m.json_patch.expression, &names));
        Does::Mutate {
            patches: patches.collect::<std::result::Result<_, _>>()?,
            again: spec.reinvocation_policy == ReinvocationPolicy::IfNeeded,
        }
    } else {
        let validations = spec.validations.into_iter().map(|validation| {
            let part = || format!("the validation `{}`", validation.expression);
            let expression = in_part(part(), &validation.expression, &names)?;
            Ok(Validation {
                fields: fields(&expression, variables),
                expression,
                message_expression: match &validation.message_expression {
                    None => None,
                    Some(text) => Some(in_part(part(), text, &names)?),
                },
                text: validation.expression.trim().to_owned(),
                message: validation.message.map(|message| message.trim().to_owned()),
            })
        });
        Does::Validate(validations.collect::<std::result::Result<_, String>>()?)
    };
    Ok(Policy {
        name: name.to_owned(),
        fails: spec.failure_policy != Some(FailurePolicy::Ignore),
        resources: spec.match_constraints,
        conditions,
        names,
        does,
        bindings: Vec::new(),
    })
}
