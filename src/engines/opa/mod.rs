//! Open Policy Agent: Rego in ConfigMaps, as kube-mgmt loads it.
//!
//! Each validating policy becomes a ConfigMap with one module. kube-mgmt loads the ConfigMaps in no certain order, and
//! OPA compiles after each, so a module calls no function of another one. One more ConfigMap has the decision that OPA
//! answers a webhook with (`system.main`, the default of OPA's configuration). It refuses while a policy isn't loaded.
//!
//! Sources: the documentation of OPA ("Kubernetes admission control", "Policy Language", "Policy Reference") and the
//! README of kube-mgmt (labels of ConfigMaps, the path of replicated Namespaces).

mod kind;
mod matching;
mod module;
mod rego;
mod text;

use serde_json::{Value, json};

use super::LeftOut;
use crate::engine::error::{Error, Result};
use crate::guard::policy::{self, Does, Policy};
use module::module;

/// The namespace of OPA. kube-mgmt reads the ConfigMaps of its own namespace.
pub const NAMESPACE: &str = "opa";

/// The annotations that kube-mgmt writes on a ConfigMap: whether OPA took it, and how often it still tries.
pub const ANNOTATIONS: [&str; 2] = ["openpolicyagent.org/kube-mgmt-status", "openpolicyagent.org/kube-mgmt-retries"];

const ENTRY_POINT: &str = include_str!("main.rego");

/// The ConfigMaps for a cluster with these admission policies.
///
/// # Errors
/// A policy has a part that can't be translated to Rego.
pub fn render(objects: &[Value]) -> Result<Vec<Value>> {
    let Made { modules, .. } = made(objects)?;
    let mut names: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let main = format!("{ENTRY_POINT}\npolicies := {}\n", json!(names));
    let maps = modules.iter().map(|(name, module)| config_map(name, module));
    Ok(maps.chain([config_map("ringfence-main", &main)]).collect())
}

/// What of these policies isn't in the ConfigMaps.
///
/// # Errors
/// As [`render`].
pub fn left_out(objects: &[Value]) -> Result<Vec<LeftOut>> {
    Ok(made(objects)?.left)
}

fn config_map(name: &str, module: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"openpolicyagent.org/policy": "rego"}},
        "data": {"policy.rego": module},
    })
}

struct Made {
    /// Each with its policy's name.
    modules: Vec<(String, String)>,
    left: Vec<LeftOut>,
}

/// The modules of the policies that refuse something.
fn made(objects: &[Value]) -> Result<Made> {
    let (policies, variables) = policy::load(objects)?;
    let (mut modules, mut left) = (Vec::new(), Vec::new());
    for policy in policies.iter().filter(|policy| refuses(policy)) {
        let wrong = |what: String| {
            Error::input(format!("ValidatingAdmissionPolicy {} can't be translated to Rego: {what}", policy.name))
                .help("use another policyEngine, or write the policy with the parts of CEL that the other policies use")
        };
        if let Some(text) = module(policy, &variables, &mut left).map_err(wrong)? {
            modules.push((policy.name.clone(), text));
        }
    }
    Ok(Made { modules, left })
}

fn refuses(policy: &Policy) -> bool {
    matches!(policy.does, Does::Validate(_)) && policy.bindings.iter().any(|binding| binding.denies)
}
