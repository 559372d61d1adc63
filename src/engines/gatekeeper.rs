//! Gatekeeper: ConstraintTemplates and Constraints from validating policies, mutators from mutating policies.
//!
//! Gatekeeper's engine `K8sNativeValidation` evaluates the same CEL as the API server, so each expression is taken as it
//! is. Gatekeeper's `match` knows neither resources nor operations. So these become a match condition.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::LeftOut;
use crate::engine::error::{Error, Result};
use crate::guard::{Guard, Operation, Request, User};

/// The ConstraintTemplates and Constraints of a cluster's validating policies. Parts that are [`left_out`] are omitted.
///
/// # Errors
/// A policy or a binding has a part that has no equivalent here.
pub fn render(rendered: &[Value]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for policy in of_kind(rendered, "ValidatingAdmissionPolicy") {
        let carried = Carried::of(policy)?;
        if carried.validations.is_empty() {
            continue;
        }
        let name = text(policy, "/metadata/name");
        let bindings = of_kind(rendered, "ValidatingAdmissionPolicyBinding");
        let bindings: Vec<_> = bindings.filter(|b| text(b, "/spec/policyName") == name).collect();
        if bindings.is_empty() {
            continue;
        }
        objects.push(template(name, policy, &carried)?);
        for binding in bindings {
            objects.push(constraint(name, policy, binding)?);
        }
    }
    Ok(objects)
}

/// What only the API server's own policies enforce.
///
/// # Errors
/// As [`render`].
pub fn left_out(rendered: &[Value]) -> Result<Vec<LeftOut>> {
    let mut left = Vec::new();
    for policy in of_kind(rendered, "ValidatingAdmissionPolicy") {
        left.extend(Carried::of(policy)?.left);
    }
    Ok(left)
}

/// The parts of a policy that Gatekeeper evaluates, and the others.
struct Carried {
    validations: Vec<Value>,
    left: Vec<LeftOut>,
}

impl Carried {
    fn of(policy: &Value) -> Result<Self> {
        let name = text(policy, "/metadata/name");
        if policy.pointer("/spec/paramKind").is_some() {
            return Err(no_equivalent(name, "spec.paramKind"));
        }
        let left = |part, reason: &str| LeftOut { policy: name.to_owned(), part, reason: reason.to_owned() };
        let whole = |reason| Ok(Self { validations: Vec::new(), left: vec![left(None, reason)] });
        let before = ["/spec/matchConditions", "/spec/variables"].into_iter().flat_map(|list| items(policy, list));
        if before.into_iter().any(asks_authorizer) {
            return whole(AUTHORIZER);
        }
        let mut resources = items(policy, "/spec/matchConstraints/resourceRules").flat_map(|r| items(r, "/resources"));
        if resources.all(|resource| resource.as_str().is_some_and(of_cluster)) {
            return whole(CLUSTER_SCOPED);
        }
        let (asking, validations): (Vec<_>, Vec<_>) =
            items(policy, "/spec/validations").cloned().partition(asks_authorizer);
        let left = asking.iter().map(|v| {
            let part = v.get("message").or(v.get("expression")).and_then(Value::as_str).unwrap_or_default();
            left(Some(part.trim().to_owned()), AUTHORIZER)
        });
        Ok(Self { left: left.collect(), validations })
    }
}

const AUTHORIZER: &str = "Gatekeeper can't ask the API server's authorizer who is an administrator";
const CLUSTER_SCOPED: &str =
    "Gatekeeper isn't asked about objects outside of namespaces: while it is down, nodes must be able to report";

/// Whether objects of a resource, as a rule names it, are in no namespace.
fn of_cluster(resource: &str) -> bool {
    ["namespaces", "nodes"].contains(&resource.split('/').next().unwrap_or_default())
}

/// Whether an expression names the variable `authorizer`, or might.
fn asks_authorizer(part: &Value) -> bool {
    ["expression", "messageExpression"].iter().any(|field| text(part, &format!("/{field}")).contains("authorizer"))
}

fn template(name: &str, policy: &Value, carried: &Carried) -> Result<Value> {
    let validations = carried.validations.iter().map(|validation| {
        let fields = ["expression", "message", "messageExpression"];
        let kept = fields.iter().filter_map(|field| Some(((*field).to_owned(), validation.get(*field)?.clone())));
        Value::Object(kept.collect())
    });
    let mut conditions = vec![json!({"name": "resources", "expression": resources(name, policy)?})];
    conditions.extend(items(policy, "/spec/matchConditions").cloned());
    let kind = kind(name);
    Ok(json!({
        "requires": "templates.gatekeeper.sh/v1",
        "apiVersion": "templates.gatekeeper.sh/v1",
        "kind": "ConstraintTemplate",
        "metadata": {"name": kind.to_lowercase()},
        "spec": {
            "crd": {"spec": {"names": {"kind": kind}}},
            "targets": [{
                "target": "admission.k8s.gatekeeper.sh",
                "code": [{
                    "engine": "K8sNativeValidation",
                    "source": {
                        // The API server already has the policy.
                        "generateVAP": false,
                        "failurePolicy": policy.pointer("/spec/failurePolicy").unwrap_or(&json!("Fail")),
                        // The field's name is in the singular.
                        "matchCondition": conditions,
                        "variables": policy.pointer("/spec/variables").unwrap_or(&json!([])),
                        "validations": validations.collect::<Vec<_>>(),
                    },
                }],
            }],
        },
    }))
}

fn constraint(name: &str, policy: &Value, binding: &Value) -> Result<Value> {
    for part in ["matchResources", "paramRef"] {
        if binding.pointer(&format!("/spec/{part}")).is_some_and(|value| *value != json!({})) {
            return Err(no_equivalent(name, &format!("spec.{part} of its binding")));
        }
    }
    let actions: Vec<_> = items(binding, "/spec/validationActions").filter_map(Value::as_str).collect();
    let action = match () {
        () if actions.contains(&"Deny") => "deny",
        () if actions.contains(&"Warn") => "warn",
        () => "dryrun",
    };
    let mut selectors = Map::new();
    for (field, theirs) in [("namespaceSelector", "namespaceSelector"), ("objectSelector", "labelSelector")] {
        let selector = policy.pointer(&format!("/spec/matchConstraints/{field}"));
        if let Some(selector) = selector.filter(|selector| **selector != json!({})) {
            selectors.insert(theirs.to_owned(), selector.clone());
        }
    }
    Ok(json!({
        "requires": "constraints.gatekeeper.sh/v1beta1",
        "apiVersion": "constraints.gatekeeper.sh/v1beta1",
        "kind": kind(name),
        "metadata": {"name": text(binding, "/metadata/name")},
        // For the webhook only. An audit has no request, so the rules match nothing there. And of a plain `deny`, Gatekeeper
        // says that it can't make a ValidatingAdmissionPolicyBinding.
        "spec": {
            "enforcementAction": "scoped",
            "scopedEnforcementActions": [{"action": action, "enforcementPoints": [{"name": "validation.gatekeeper.sh"}]}],
            "match": selectors,
        },
    }))
}

/// `ringfence-pod-security` becomes `RingfencePodSecurity`.
fn kind(name: &str) -> String {
    let words = name.split(['-', '.']).map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    });
    words.collect()
}

/// The resource rules as an expression. Versions aren't compared, because a policy with `matchPolicy: Equivalent` is
/// for all of them.
fn resources(name: &str, policy: &Value) -> Result<String> {
    let rules = |list: &str| {
        let rules = items(policy, &format!("/spec/matchConstraints/{list}"));
        rules.map(|rule| resource_rule(name, rule)).collect::<Result<Vec<_>>>()
    };
    let (included, excluded) = (rules("resourceRules")?, rules("excludeResourceRules")?);
    let any = |rules: &[String]| rules.join(" || ");
    Ok(match excluded.is_empty() {
        true => any(&included),
        false => format!("({}) && !({})", any(&included), any(&excluded)),
    })
}

fn resource_rule(name: &str, rule: &Value) -> Result<String> {
    if items(rule, "/resourceNames").next().is_some() {
        return Err(no_equivalent(name, "resourceNames of a rule"));
    }
    let mut parts = Vec::new();
    for (field, of_request) in [("apiGroups", "request.resource.group"), ("operations", "request.operation")] {
        let allowed: Vec<_> = items(rule, &format!("/{field}")).cloned().collect();
        if !allowed.contains(&json!("*")) {
            parts.push(format!("{of_request} in {}", Value::Array(allowed)));
        }
    }
    // Without a subresource, the name ends with the slash.
    let resource = "(request.resource.resource + '/' + request.?subResource.orValue(''))";
    let mut exact = Vec::new();
    let mut patterns = Vec::new();
    let mut all = false;
    for one in items(rule, "/resources").filter_map(Value::as_str) {
        match one.split_once('/').unwrap_or((one, "")) {
            ("*", "*") => all = true,
            ("*", "") => patterns.push(format!("{resource}.endsWith('/')")),
            ("*", subresource) => patterns.push(format!("{resource}.endsWith({})", json!(format!("/{subresource}")))),
            (of, "*") => patterns.push(format!("{resource}.startsWith({})", json!(format!("{of}/")))),
            (of, subresource) => exact.push(json!(format!("{of}/{subresource}"))),
        }
    }
    if !exact.is_empty() {
        patterns.push(format!("{resource} in {}", Value::Array(exact)));
    }
    if !all {
        parts.push(format!("({})", patterns.join(" || ")));
    }
    // Gatekeeper takes the namespace away from requests for Namespaces.
    match text(rule, "/scope") {
        "Namespaced" => parts.push("has(request.namespace)".to_owned()),
        "Cluster" => parts.push("!has(request.namespace)".to_owned()),
        _ => {}
    }
    Ok(match parts.is_empty() {
        true => "true".to_owned(),
        false => format!("({})", parts.join(" && ")),
    })
}

/// Mutators for clusters whose version has no mutating policies: what the policies `mutating` fill in for the tenants of
/// these `namespaces`. Where a version has them, they run before Gatekeeper and leave nothing to fill in.
///
/// A mutator can only write a fixed value where none is. So the policies are evaluated on objects without the fields,
/// and each field that they add becomes a mutator. docs/gatekeeper.md lists what mutators can't say.
///
/// # Errors
/// The guard doesn't know a part of a policy, or a policy refuses the object.
pub fn mutators(mutating: &[Value], rendered: &[Value]) -> Result<Vec<Value>> {
    if of_kind(rendered, "Namespace").next().is_none() {
        return Ok(Vec::new());
    }
    let guard = Guard::decorating(mutating.iter().chain(rendered))?;
    let namespaces: Vec<_> = of_kind(rendered, "Namespace")
        .filter(|namespace| namespace.pointer("/metadata/labels/ringfence.dev~1tenant").is_some())
        .collect();
    let mut objects = Vec::new();
    for shape in SHAPES {
        let nobody = filled(&guard, shape, &nobody())?;
        let mut everybody = nobody.clone();
        let mut apart = Vec::new();
        for namespace in &namespaces {
            let own = filled(&guard, shape, namespace)?;
            everybody.retain(|location, value| own.get(location) == Some(value));
            apart.push((text(namespace, "/metadata/name"), own));
        }
        objects.extend(everybody.iter().map(|(location, value)| mutator(shape, None, location, value)));
        for (namespace, own) in apart {
            let own = own.iter().filter(|(location, _)| !everybody.contains_key(*location));
            objects.extend(own.map(|(location, value)| mutator(shape, Some(namespace), location, value)));
        }
    }
    Ok(objects)
}

/// Values of Gatekeeper's Helm chart. With the chart's own, Gatekeeper admits everything while it is down or slow, and
/// is asked about all objects of the cluster, so that `Fail` alone could stop the cluster's own pods.
pub const HELM_VALUES: &str = "\
validatingWebhookFailurePolicy: Fail
validatingWebhookScope: Namespaced
validatingWebhookExemptNamespacesLabels:
  kubernetes.io/metadata.name: [kube-system, kube-public, kube-node-lease, default]
mutatingWebhookReinvocationPolicy: IfNeeded
";

/// Kinds whose fields are at the same place.
struct Shape {
    group: &'static str,
    kinds: &'static [(&'static str, &'static str)],
    /// Where their Pod is, if it isn't the object itself.
    template: &'static str,
}

const SHAPES: &[Shape] = &[
    Shape { group: "", kinds: &[("Pod", "pods")], template: "" },
    Shape { group: "", kinds: &[("ReplicationController", "replicationcontrollers")], template: "/spec/template" },
    Shape { group: "", kinds: &[("ServiceAccount", "serviceaccounts")], template: "" },
    Shape {
        group: "apps",
        kinds: &[("DaemonSet", "daemonsets"), ("Deployment", "deployments"), ("StatefulSet", "statefulsets")],
        template: "/spec/template",
    },
    Shape { group: "batch", kinds: &[("Job", "jobs")], template: "/spec/template" },
    Shape { group: "batch", kinds: &[("CronJob", "cronjobs")], template: "/spec/jobTemplate/spec/template" },
    // Only their label is filled in. A mutator needs a list of kinds. These are the others that tenants may create.
    Shape {
        group: "",
        kinds: &[
            ("ConfigMap", "configmaps"),
            ("PersistentVolumeClaim", "persistentvolumeclaims"),
            ("Secret", "secrets"),
            ("Service", "services"),
        ],
        template: "",
    },
    Shape { group: "autoscaling", kinds: &[("HorizontalPodAutoscaler", "horizontalpodautoscalers")], template: "" },
    Shape { group: "policy", kinds: &[("PodDisruptionBudget", "poddisruptionbudgets")], template: "" },
];

/// The namespace of a tenant whose permissions nobody has, so values from it are equal to nobody's.
fn nobody() -> Value {
    let notes = ["first-uid", "last-uid", "isolation", "priority-class", "node-ports", "load-balancers"];
    let notes: Map<String, Value> = notes.iter().map(|note| (format!("ringfence.dev/{note}"), json!("1"))).collect();
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "t-", "labels": {"ringfence.dev/tenant": "", "kubernetes.io/metadata.name": "t-"}, "annotations": notes,
    }})
}

/// The fields that the policies add to an object of this shape, by their location.
fn filled(guard: &Guard, shape: &Shape, namespace: &Value) -> Result<BTreeMap<String, Value>> {
    // The API server has written imagePullPolicy before.
    let container = |name: &str| json!([{"name": name, "image": "i", "imagePullPolicy": "IfNotPresent"}]);
    let pod = json!({"metadata": {"labels": {}}, "spec": {
        "containers": container("c"), "initContainers": container("i"), "securityContext": {},
    }});
    let (kind, resource) = shape.kinds[0];
    let mut object = match kind {
        "Pod" => pod.clone(),
        _ => json!({}),
    };
    let mut place = &mut object;
    for part in shape.template.split('/').skip(1) {
        place = &mut place[part];
    }
    if !shape.template.is_empty() {
        *place = pod;
    }
    object["metadata"] = json!({"name": "n", "labels": {}});
    let request = Request {
        operation: Operation::Create,
        group: shape.group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        resource: resource.to_owned(),
        subresource: None,
        namespace: Some(text(namespace, "/metadata/name").to_owned()),
        name: "n".to_owned(),
        user: User::default(),
        object: Some(object.clone()),
        old_object: None,
        dry_run: true,
    };
    let verdict = guard.review(request, Some(namespace), &|_| false);
    let Some(decorated) = verdict.object else {
        let why = verdict.refusals.first().map(ToString::to_string).unwrap_or_default();
        return Err(Error::input(format!("what mutating policies fill in can't be computed: {why}"))
            .help("correct the policy in its template"));
    };
    let mut fields = BTreeMap::new();
    added(&object, &decorated, "", &mut fields);
    Ok(fields)
}

/// Collects the values that are in `after` but not in `before`, by location. Lists are compared by their first element.
fn added(before: &Value, after: &Value, at: &str, found: &mut BTreeMap<String, Value>) {
    match (before, after) {
        (_, Value::Object(fields)) => {
            for (name, value) in fields {
                let plain = name.chars().all(|c| c.is_ascii_alphanumeric());
                let name_there = if plain { name.clone() } else { format!("\"{name}\"") };
                let at = if at.is_empty() { name_there } else { format!("{at}.{name_there}") };
                added(before.get(name).unwrap_or(&Value::Null), value, &at, found);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            if let (Some(old), Some(new)) = (old.first(), new.first()) {
                added(old, new, &format!("{at}[name: *]"), found);
            }
        }
        (Value::Null, value) => {
            found.insert(at.to_owned(), value.clone());
        }
        _ => {}
    }
}

/// `namespace`: for this one only. None: for those of all tenants.
fn mutator(shape: &Shape, namespace: Option<&str>, location: &str, value: &Value) -> Value {
    let kinds: Vec<_> = shape.kinds.iter().map(|(kind, _)| kind).collect();
    let mut matches = json!({"scope": "Namespaced"});
    match namespace {
        Some(namespace) => matches["namespaces"] = json!([namespace]),
        None => {
            matches["namespaceSelector"] =
                json!({"matchExpressions": [{"key": "ringfence.dev/tenant", "operator": "Exists"}]});
        }
    }
    let mut spec = json!({
        "applyTo": [{"groups": [shape.group], "versions": ["v1"], "kinds": kinds, "operations": ["CREATE"]}],
        "location": location,
    });
    let of_objects = value.as_array().is_some_and(|list| list.iter().any(Value::is_object));
    let kind = if location.starts_with("metadata.") {
        matches["kinds"] = json!([{"apiGroups": [shape.group], "kinds": kinds}]);
        spec = json!({"location": location, "parameters": {"assign": {"value": value}}});
        "AssignMetadata"
    } else if of_objects {
        spec["parameters"] = json!({"operation": "merge", "values": {"fromList": value}});
        "ModifySet"
    } else {
        let absent = json!([{"subPath": location, "condition": "MustNotExist"}]);
        spec["parameters"] = json!({"assign": {"value": value}, "pathTests": absent});
        "Assign"
    };
    spec["match"] = matches;
    let field = location.rsplit('.').next().unwrap_or_default().replace(|c: char| !c.is_ascii_alphanumeric(), "");
    let apart = Sha256::digest(format!("{} {kinds:?} {namespace:?} {location}", shape.group));
    let apart: String = hex::encode(apart).chars().take(8).collect();
    json!({
        "requires": "mutations.gatekeeper.sh/v1",
        "apiVersion": "mutations.gatekeeper.sh/v1",
        "kind": kind,
        "metadata": {"name": format!("ringfence-{}-{apart}", field.to_lowercase())},
        "spec": spec,
    })
}

fn no_equivalent(policy: &str, part: &str) -> Error {
    Error::input(format!("the policy {policy} can't become a constraint of Gatekeeper: {part} has no equivalent there"))
        .help("remove it from the template of the policy, or choose `policyEngine: native`")
}

fn of_kind<'o>(objects: &'o [Value], kind: &str) -> impl Iterator<Item = &'o Value> {
    objects.iter().filter(move |object| text(object, "/kind") == kind)
}

fn items<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
