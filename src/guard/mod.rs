//! Evaluates a cluster's admission policies on a request, without the cluster.
//!
//! The rules stand once, in `templates/manifests/cluster`. [`Guard`] takes those very objects, as they are rendered for
//! a cluster, and gives the API server's verdict: the object with all fields that the policies add, or every refusal.
//! It never allows what the API server refuses. Where it can't know what the API server would do, it refuses.
//!
//! What the API server does before its policies run is in [`defaults`].

pub(crate) mod cel;
pub mod defaults;
pub(crate) mod matching;
pub(crate) mod policy;
mod request;
mod rights;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::engine::error::{Error, Result};
use cel::{Scene, Val, Variables};
use matching::Fit;
use policy::{Binding, Does, Policy, Validation};

pub use cel::Check;
pub use request::{Operation, Request, User};
pub use rights::Rights;

/// The longest message that the API server takes from an expression, in bytes.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// The API server's answer.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The object with the fields that the policies add. None if the request has none, or is refused before.
    pub object: Option<Value>,
    /// Empty if the request is admitted. The API server names only the first one.
    pub refusals: Vec<Refusal>,
}

/// Why a policy refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    pub policy: String,
    pub binding: String,
    /// The control that the policy is part of, such as POD-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// The fields of the object that the policy's rule reads, as `spec.containers[].image`. In objects that make Pods, the
    /// fields of a Pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// What is wrong, and how to comply.
    pub message: String,
}

/// The policies of a cluster.
#[derive(Debug)]
pub struct Guard {
    policies: Vec<Policy>,
    variables: Variables,
    /// Whether the guard decorates templates of Pods like Pods, because the cluster doesn't decorate their Pods.
    templates: bool,
}

impl Verdict {
    pub fn admits(&self) -> bool {
        self.refusals.is_empty()
    }
}

impl fmt::Display for Refusal {
    /// As the API server says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, binding, message, .. } = self;
        write!(f, "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}")
    }
}

impl Guard {
    /// The guard of a cluster with these objects. All but admission policies and their bindings are ignored.
    ///
    /// # Errors
    /// A policy has a part that isn't known here.
    pub fn new<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Result<Self> {
        let (policies, variables) = policy::load(objects)?;
        match policies.iter().any(|policy| matches!(policy.does, Does::Validate(_)) && !policy.bindings.is_empty()) {
            true => Ok(Self { policies, variables, templates: false }),
            false => Err(Error::input("there are no validating policies, so everything would be admitted")
                .help("the templates of the cluster's admission policies are missing or have no bindings")),
        }
    }

    /// A guard for a cluster that has no mutating policies, but validates. It decorates in the cluster's place, so it
    /// must also decorate the templates from which controllers make Pods.
    pub fn decorating<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Result<Self> {
        Ok(Self { templates: true, ..Self::new(objects)? })
    }

    /// Decides on a request. `namespace` is the Namespace object of the request's namespace. `may` answers the questions
    /// of policies about other permissions of the user.
    pub fn review(&self, mut request: Request, namespace: Option<&Value>, may: &dyn Fn(&Check) -> bool) -> Verdict {
        if request.namespace.is_some() && !request.is_namespace() && namespace.is_none() {
            let message = format!("the namespace {} isn't known", request.namespace.as_deref().unwrap_or_default());
            return Verdict { object: None, refusals: vec![Refusal::of_guard(message)] };
        }
        defaults::decode(&mut request);
        let decorated = self.mutate(&mut request, namespace, may).and_then(|()| match self.templates {
            true => self.mutate_template(&mut request, namespace, may),
            false => Ok(()),
        });
        if let Err(refusal) = decorated {
            return Verdict { object: None, refusals: vec![refusal] };
        }
        let variable = request.variable();
        let null = Value::Null;
        let prepared = defaults::prepared(&request);
        let roots = [
            prepared.as_ref().or(request.object.as_ref()).unwrap_or(&null),
            request.old_object.as_ref().unwrap_or(&null),
            &variable,
            namespace.unwrap_or(&null),
        ];
        let scene = Scene::new(roots, may, &self.variables);
        let mut refusals = Vec::new();
        for policy in &self.policies {
            let Does::Validate(validations) = &policy.does else { continue };
            let bindings = policy.bindings.iter().filter(|binding| binding.denies);
            let bindings = bindings.filter_map(|binding| policy.concerns(binding, &request, namespace));
            for bound in bindings {
                scene.rest();
                match bound {
                    Err(refusal) => refusals.push(refusal),
                    Ok(binding) => refusals.extend(policy.refusals(validations, binding, &scene)),
                }
            }
        }
        Verdict { object: request.object, refusals }
    }

    /// Runs the mutating policies one after the other, and a second time those that may see a change of a later one.
    fn mutate(
        &self,
        request: &mut Request,
        namespace: Option<&Value>,
        may: &dyn Fn(&Check) -> bool,
    ) -> std::result::Result<(), Refusal> {
        let mut last_change = None;
        for round in 0..2 {
            for (i, policy) in self.policies.iter().enumerate() {
                let Does::Mutate { patches, again } = &policy.does else { continue };
                if round == 1 && !(*again && last_change.is_some_and(|changed| changed > i)) {
                    continue;
                }
                for binding in &policy.bindings {
                    let Some(binding) = policy.concerns(binding, request, namespace).transpose()? else { continue };
                    for patch in patches {
                        let changed = match self.patched(patch, policy, request, namespace, may) {
                            Ok(changed) => changed,
                            Err(_) if !policy.fails => None,
                            Err(why) => return Err(policy.refusal(binding, why)),
                        };
                        if let Some(object) = changed {
                            request.object = Some(object);
                            last_change = Some(i);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Decorates the template of Pods in a new or changed object, as if it were a new Pod.
    fn mutate_template(
        &self,
        request: &mut Request,
        namespace: Option<&Value>,
        may: &dyn Fn(&Check) -> bool,
    ) -> std::result::Result<(), Refusal> {
        let Some(path) = defaults::pod_path(request).filter(|path| !path.is_empty()) else { return Ok(()) };
        let template = |object: &Option<Value>| object.as_ref().and_then(|object| object.pointer(path)).cloned();
        let Some(written) = template(&request.object) else { return Ok(()) };
        if Some(&written) == template(&request.old_object).as_ref() {
            return Ok(());
        }
        let mut pod = written;
        if let Value::Object(fields) = &mut pod {
            fields.insert("apiVersion".to_owned(), "v1".into());
            fields.insert("kind".to_owned(), "Pod".into());
            fields.entry("metadata").or_insert_with(|| serde_json::json!({}));
        }
        let mut as_pod = Request {
            operation: Operation::Create,
            group: String::new(),
            version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            resource: "pods".to_owned(),
            object: Some(pod),
            old_object: None,
            ..request.clone()
        };
        self.mutate(&mut as_pod, namespace, may)?;
        if let (Some(Value::Object(mut pod)), Some(place)) =
            (as_pod.object, request.object.as_mut().and_then(|object| object.pointer_mut(path)))
        {
            pod.retain(|name, _| name != "apiVersion" && name != "kind");
            *place = pod.into();
        }
        Ok(())
    }

    /// The object after a patch. None if the policy isn't for it, or changes nothing.
    fn patched(
        &self,
        patch: &cel::Expr,
        policy: &Policy,
        request: &Request,
        namespace: Option<&Value>,
        may: &dyn Fn(&Check) -> bool,
    ) -> std::result::Result<Option<Value>, String> {
        let (null, variable) = (Value::Null, request.variable());
        let Some(object) = &request.object else { return Ok(None) };
        let old = request.old_object.as_ref().unwrap_or(&null);
        let scene = Scene::new([object, old, &variable, namespace.unwrap_or(&null)], may, &self.variables);
        if !policy.applies(&scene)? {
            return Ok(None);
        }
        let value = scene.value(patch).map_err(|fault| fault.to_string())?;
        let mut operations = Vec::new();
        for item in value.items().map_err(|fault| fault.to_string())? {
            let Val::Patch(fields) = &item else { return Err(format!("a {} is no JSONPatch", item.kind())) };
            let mut operation = serde_json::Map::new();
            for (name, value) in fields.iter() {
                operation.insert((*name).to_owned(), value.json().map_err(|fault| fault.to_string())?);
            }
            operations.push(Value::Object(operation));
        }
        if operations.is_empty() {
            return Ok(None);
        }
        let patch: json_patch::Patch = serde_json::from_value(operations.into()).map_err(|e| e.to_string())?;
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &patch).map_err(|e| e.to_string())?;
        Ok((patched != *object).then_some(patched))
    }
}

impl Policy {
    /// The binding, if the policy and the binding are for the request.
    fn concerns<'b>(
        &self,
        binding: &'b Binding,
        request: &Request,
        namespace: Option<&Value>,
    ) -> Option<std::result::Result<&'b Binding, Refusal>> {
        let fits = [self.resources.fit(request, namespace, false), binding.resources.fit(request, namespace, true)];
        match fits {
            [Fit::No, _] | [_, Fit::No] => None,
            [Fit::Yes, Fit::Yes] => Some(Ok(binding)),
            _ => {
                let Request { group, version, resource, .. } = request;
                let message = format!(
                    "{resource} of the version {version} can't be compared with this policy; use the version of \
                     {group} that the policy names"
                );
                Some(Err(self.refusal(binding, message)))
            }
        }
    }

    /// Whether all match conditions hold ("Matching requests: matchConditions" of the Kubernetes documentation).
    fn applies<'a>(&'a self, scene: &Scene<'a>) -> std::result::Result<bool, String> {
        let mut error = None;
        for condition in &self.conditions {
            match scene.bool(&condition.expression) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(fault) => error = error.or(Some(format!("the match condition {}: {fault}", condition.name))),
            }
        }
        error.map_or(Ok(true), Err)
    }

    fn refusals<'a>(&'a self, validations: &'a [Validation], binding: &Binding, scene: &Scene<'a>) -> Vec<Refusal> {
        match self.applies(scene) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(_) if !self.fails => return Vec::new(),
            Err(why) => return vec![self.refusal(binding, why)],
        }
        let refused = validations.iter().filter_map(|validation| match scene.bool(&validation.expression) {
            Ok(true) => None,
            Ok(false) => Some((validation, validation.message(scene))),
            Err(_) if !self.fails => None,
            Err(fault) => Some((validation, format!("expression '{}' resulted in error: {fault}", validation.text))),
        });
        let named = refused.map(|(validation, message)| Refusal {
            fields: validation.fields.clone(),
            ..self.refusal(binding, message)
        });
        named.collect()
    }

    fn refusal(&self, binding: &Binding, message: String) -> Refusal {
        let control = message.split_once(": ").map(|(control, _)| control);
        let is_control = |text: &&str| {
            text.split_once('-').is_some_and(|(area, number)| {
                area.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
                    && number.bytes().all(|b| b.is_ascii_digit())
            })
        };
        let control = control.filter(is_control).map(str::to_owned);
        Refusal { policy: self.name.clone(), binding: binding.name.clone(), control, fields: Vec::new(), message }
    }
}

impl Refusal {
    /// A refusal that is no policy's.
    fn of_guard(message: String) -> Self {
        Self {
            policy: "ringfence".to_owned(),
            binding: "ringfence".to_owned(),
            control: None,
            fields: Vec::new(),
            message,
        }
    }
}

impl Validation {
    /// The message, chosen as the API server does: an expression's is used only if it is one line of some length.
    fn message<'a>(&'a self, scene: &Scene<'a>) -> String {
        let from_expression = self.message_expression.as_ref().and_then(|expression| {
            let value = scene.value(expression).ok()?;
            let text = value.as_str()?.trim();
            (!text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n')).then(|| text.to_owned())
        });
        from_expression
            .or_else(|| self.message.clone().filter(|message| !message.is_empty()))
            .unwrap_or_else(|| format!("failed expression: {}", self.text))
    }
}
