//! Computes whether a server-side apply would change an object, and the change
//! to show in the plan.
//!
//! The server's own dry run decides. No dry run is needed if the live object
//! proves that nothing would change: our field manager owns exactly the desired
//! fields, and every field has the desired value.

use crate::engine::value;
use serde_json::{Map, Value};

pub const MANAGER: &str = "ringfence";
/// Media type of a server-side apply patch. JSON is valid YAML.
pub const PATCH: &str = "application/apply-patch+yaml";

/// True if an apply of `desired` to `live` certainly changes nothing.
pub fn is_settled(desired: &Value, live: &Value) -> bool {
    let same = |field: &str| desired.get(field) == live.get(field);
    let Some(owned) = owned_fields(live, desired.get("apiVersion")) else { return false };
    same("apiVersion")
        && same("kind")
        && owns(owned, &without_identity(desired), Some(live))
        && without_additions(live).is_none()
}

/// True if we have applied the object. Our labels don't prove that, because
/// they may be a copy.
pub fn is_applied(live: &Value) -> bool {
    managers(live).any(is_ours)
}

/// True if the object has a controller as owner.
pub fn is_controlled(live: &Value) -> bool {
    let owners = value::at(live, "/metadata/ownerReferences").and_then(Value::as_array);
    owners.is_some_and(|all| all.iter().any(|o| o.get("controller") == Some(&Value::Bool(true))))
}

/// The other field managers of the object.
pub fn other_managers(live: &Value) -> Vec<&str> {
    managers(live).filter(|m| !is_ours(m)).filter_map(|m| m.get("manager")?.as_str()).collect()
}

/// API groups whose objects define the permissions of tenants. A field that somebody
/// else adds could make such an object ineffective, so we own the whole object,
/// except metadata and status. In objects of other groups, controllers may own
/// fields.
const WHOLE: [&str; 9] = [
    "admissionregistration.k8s.io",
    "crd.projectcalico.org",
    "networking.k8s.aws",
    "networking.k8s.io",
    "projectcalico.org",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "vpcresources.k8s.aws",
    "",
];
/// Kinds of the core group that set limits.
const LIMITS: [&str; 2] = ["LimitRange", "ResourceQuota"];

/// `live` without the fields that others have added to an object that we own as
/// a whole. `None`: there are no such fields. A server-side apply doesn't
/// remove them, because other managers own them.
pub fn without_additions(live: &Value) -> Option<Value> {
    let text = |field: &str| live.get(field).and_then(Value::as_str).unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    if !WHOLE.contains(&group) || (group.is_empty() && !LIMITS.contains(&text("kind"))) {
        return None;
    }
    let ours = owned_fields(live, live.get("apiVersion"))?;
    let others = managers(live).filter(|m| {
        let is = |field: &str| m.get(field).and_then(Value::as_str).unwrap_or_default();
        is("manager") != MANAGER && is("subresource").is_empty() && m.get("apiVersion") == live.get("apiVersion")
    });
    let mut fields = others.filter_map(|m| m.get("fieldsV1")?.as_object()).peekable();
    fields.peek()?;
    let mut whole = live.clone();
    for theirs in fields {
        let kept = ["f:metadata", "f:status"];
        let theirs = theirs.iter().filter(|(k, _)| !kept.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone()));
        remove_added(&mut whole, &theirs.collect(), Some(ours));
    }
    (whole != *live).then_some(whole)
}

/// Removes the fields from `value` that are in `theirs` and not in `ours`
/// (fieldsV1).
fn remove_added(value: &mut Value, theirs: &Map<String, Value>, ours: Option<&Map<String, Value>>) {
    for (key, child) in theirs.iter().filter(|(k, _)| *k != ".") {
        let Some(child) = child.as_object() else { continue };
        let own = ours.and_then(|o| o.get(key)).and_then(Value::as_object);
        let whole = own.is_none() && (is_leaf(child) || !key.starts_with("f:"));
        match value {
            Value::Object(map) => {
                let Some(name) = key.strip_prefix("f:") else { continue };
                if whole {
                    map.shift_remove(name);
                } else if let Some(under) = map.get_mut(name) {
                    let was_empty = is_hollow(under);
                    remove_added(under, child, own);
                    if own.is_none() && !was_empty && is_hollow(under) {
                        map.shift_remove(name);
                    }
                }
            }
            Value::Array(items) => {
                let Some(name) = ItemKey::parse(key) else { continue };
                let Some(place) = items.iter().position(|item| name.is_of(item)) else { continue };
                if whole {
                    items.remove(place);
                } else if let Some(item) = items.get_mut(place) {
                    remove_added(item, child, own);
                }
            }
            _ => {}
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// The key of a list's item in fieldsV1, for a list that isn't owned as a
/// whole.
enum ItemKey {
    /// `v:`: an item of a set.
    Value(Value),
    /// `k:`: the key fields of an item. They may have default values.
    Fields(Map<String, Value>),
}

impl ItemKey {
    fn parse(key: &str) -> Option<Self> {
        let (kind, json) = key.split_at_checked(2)?;
        match kind {
            "v:" => serde_json::from_str(json).ok().map(Self::Value),
            "k:" => serde_json::from_str(json).ok().map(Self::Fields),
            _ => None,
        }
    }

    fn is_of(&self, item: &Value) -> bool {
        match self {
            Self::Value(value) => value == item,
            Self::Fields(fields) => fields.iter().all(|(k, v)| item.get(k) == Some(v)),
        }
    }
}

/// `object` without the fields that only the server writes.
pub fn normalised(object: &Value) -> Value {
    let Value::Object(map) = object else { return object.clone() };
    let mut map = map.clone();
    map.shift_remove("status");
    if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
        for field in [
            "managedFields",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "uid",
            "selfLink",
        ] {
            metadata.shift_remove(field);
        }
    }
    Value::Object(map)
}

/// Projects `live` onto `desired`. Where `applied` (the object after the apply)
/// shows no change, the result equals `desired`. So a value that the server
/// adds, or writes in another form, is no difference. Fields that the apply
/// would remove are in the result.
pub fn projected(desired: &Value, live: &Value, applied: &Value) -> Value {
    project(Some(desired), Some(live), Some(applied)).unwrap_or(Value::Null)
}

/// `live` with `desired` written over it: the result of a dry run, except for
/// the fields that an apply removes. Used if no dry run is possible.
pub fn overlaid(live: &Value, desired: &Value) -> Value {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            let mut merged = live.clone();
            for (key, value) in desired {
                let under = live.get(key).unwrap_or(&Value::Null);
                merged.insert(key.clone(), overlaid(under, value));
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(desired)) if live.len() == desired.len() => {
            live.iter().zip(desired).map(|(l, d)| overlaid(l, d)).collect()
        }
        _ => desired.clone(),
    }
}

fn project(desired: Option<&Value>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    if live == applied {
        return desired.cloned();
    }
    match (live?, applied) {
        (live, None) => Some(live.clone()),
        (Value::Object(live), Some(Value::Object(applied))) => {
            let wanted = desired.and_then(Value::as_object);
            let mut seen = Map::new();
            let added = live.keys().filter(|k| !wanted.is_some_and(|w| w.contains_key(*k)));
            for key in wanted.into_iter().flat_map(Map::keys).chain(added) {
                let value = project(wanted.and_then(|w| w.get(key)), live.get(key), applied.get(key));
                seen.extend(value.map(|v| (key.clone(), v)));
            }
            (desired.is_some() || !seen.is_empty()).then_some(Value::Object(seen))
        }
        (Value::Array(live), Some(Value::Array(applied))) => {
            let seen = project_items(desired.and_then(Value::as_array), live, applied);
            (desired.is_some() || !seen.is_empty()).then_some(Value::Array(seen))
        }
        // The server itself writes this field.
        _ if desired.is_none() => None,
        (live, _) => Some(live.clone()),
    }
}

/// Projects the items of a list. The server's schema, which isn't known here,
/// says which items belong together. So equal items are paired, and items at
/// the same position.
fn project_items(desired: Option<&Vec<Value>>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let desired = desired.map(Vec::as_slice).unwrap_or_default();
    let in_step = desired.len() == applied.len();
    let mut taken = vec![false; applied.len()];
    // The desired item for each applied item. Items of other managers have
    // none.
    let mut meant: Vec<Option<&Value>> = vec![None; applied.len()];
    for (i, wanted) in desired.iter().enumerate() {
        let place = (0..applied.len())
            .find(|j| meant.get(*j).is_some_and(Option::is_none) && applied.get(*j).is_some_and(|a| covers(a, wanted)))
            .or(Some(i).filter(|_| in_step));
        if let Some(slot) = place.and_then(|j| meant.get_mut(j)) {
            *slot = Some(wanted);
        }
    }
    let mut seen = Vec::new();
    for (i, item) in live.iter().enumerate() {
        let equal = applied.iter().zip(&taken).position(|(a, t)| !t && a == item);
        if let Some(j) = equal {
            if let Some(slot) = taken.get_mut(j) {
                *slot = true;
            }
            seen.extend(meant.get(j).copied().flatten().cloned());
            continue;
        }
        let pair = applied.get(i).filter(|a| in_step && !live.contains(*a));
        let value = project(meant.get(i).copied().flatten().filter(|_| pair.is_some()), Some(item), pair);
        seen.extend(value);
    }
    seen
}

/// True if `whole` contains all of `desired`.
fn covers(whole: &Value, desired: &Value) -> bool {
    match (whole, desired) {
        (Value::Object(whole), Value::Object(desired)) => {
            desired.iter().all(|(k, v)| whole.get(k).is_some_and(|w| covers(w, v)))
        }
        _ => whole == desired,
    }
}

fn managers(live: &Value) -> impl Iterator<Item = &Value> {
    value::at(live, "/metadata/managedFields").and_then(Value::as_array).into_iter().flatten()
}

fn is_ours(entry: &Value) -> bool {
    let is = |field: &str, value: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default() == value;
    is("manager", MANAGER) && is("operation", "Apply") && is("subresource", "")
}

/// The fields that we applied, if we applied them in the desired API version.
fn owned_fields<'a>(live: &'a Value, api_version: Option<&Value>) -> Option<&'a Map<String, Value>> {
    let mut entries = managers(live).filter(|m| is_ours(m));
    let (entry, more) = (entries.next()?, entries.next());
    if more.is_some() || entry.get("apiVersion") != api_version {
        return None;
    }
    entry.get("fieldsV1")?.as_object()
}

/// `desired` without the fields that identify the object. No manager owns these fields.
fn without_identity(desired: &Value) -> Value {
    let mut object = desired.clone();
    if let Value::Object(map) = &mut object {
        map.shift_remove("apiVersion");
        map.shift_remove("kind");
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            metadata.shift_remove("name");
            metadata.shift_remove("namespace");
        }
        if map.get("metadata").and_then(Value::as_object).is_some_and(Map::is_empty) {
            map.shift_remove("metadata");
        }
    }
    object
}

/// True if `fields` (fieldsV1, structured-merge-diff) is exactly the set of
/// fields of `desired`, and `live` has the same values.
fn owns(fields: &Map<String, Value>, desired: &Value, live: Option<&Value>) -> bool {
    let children = || fields.iter().filter(|(k, _)| *k != ".");
    match desired {
        Value::Object(map) => {
            let wanted: Vec<_> = map.iter().filter(|(_, v)| !v.is_null()).collect();
            wanted.len() == children().count()
                && wanted.into_iter().all(|(key, value)| {
                    let child = fields.get(&format!("f:{key}")).and_then(Value::as_object);
                    let live = live.and_then(|l| l.get(key));
                    child.is_some_and(|child| match is_leaf(child) {
                        true => is_same(value, live),
                        false => owns(child, value, live),
                    })
                })
        }
        Value::Array(items) => {
            items.len() == children().count()
                && children().all(|(key, child)| owns_item(key, child, items, live.and_then(Value::as_array)))
        }
        _ => false,
    }
}

/// The same for an item of a list that isn't owned as a whole.
fn owns_item(key: &str, child: &Value, desired: &[Value], live: Option<&Vec<Value>>) -> bool {
    let (Some(live), Some(name)) = (live, ItemKey::parse(key)) else { return false };
    let keys = match &name {
        ItemKey::Value(value) => return desired.contains(value) && live.contains(value),
        ItemKey::Fields(keys) => keys,
    };
    let mut wanted = desired.iter().filter(|d| {
        let named = keys.iter().filter(|(k, _)| d.get(k.as_str()).is_some()).count();
        named > 0 && keys.iter().all(|(k, v)| d.get(k).is_none_or(|w| w == v))
    });
    let held = live.iter().find(|item| name.is_of(item));
    match (wanted.next(), wanted.next(), held, child.as_object()) {
        // Items may be owned as a whole.
        (Some(item), None, Some(held), Some(child)) if is_leaf(child) => item == held,
        (Some(item), None, Some(held), Some(child)) => owns(child, item, Some(held)),
        _ => false,
    }
}

/// True for a field that is owned as a whole: a plain value, an atomic list or
/// map, or an empty one.
fn is_leaf(child: &Map<String, Value>) -> bool {
    child.keys().all(|k| k == ".")
}

fn is_same(desired: &Value, live: Option<&Value>) -> bool {
    // The server doesn't store an empty value, but a manager can own it.
    live.map_or_else(|| is_empty(desired), |l| l == desired)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Null => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn desired() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "t-1", "labels": {"ringfence.dev/tenancy": "acme"}},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "name": "http"}], "type": "ClusterIP"},
        })
    }

    /// `desired()` as an API server stores it: with default values, and with a
    /// port and an annotation of another manager.
    fn live() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "web", "namespace": "t-1", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-11-23T06:00:00Z",
                "labels": {"ringfence.dev/tenancy": "acme"}, "annotations": {"theirs": "x"},
                "managedFields": [
                    {"manager": "ringfence", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:ringfence.dev/tenancy": {}}},
                        "f:spec": {
                            "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
                            "f:selector": {}, "f:type": {},
                        },
                    }},
                    {"manager": "kubectl-edit", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {
                        "f:metadata": {"f:annotations": {".": {}, "f:theirs": {}}},
                        "f:spec": {"f:ports": {"k:{\"port\":81,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}},
                    }},
                ],
            },
            "spec": {
                "clusterIP": "10.100.0.9", "selector": {"app": "web"}, "type": "ClusterIP",
                "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80},
                    {"name": "more", "port": 81, "protocol": "TCP", "targetPort": 81},
                ],
            },
            "status": {"loadBalancer": {}},
        })
    }

    fn with(mut object: Value, pointer: &str, value: Value) -> Value {
        if let Some(place) = object.pointer_mut(pointer) {
            *place = value;
        }
        object
    }

    #[test]
    fn nothing_to_apply_is_seen_without_asking() {
        assert!(is_settled(&desired(), &live()));
    }

    #[test]
    fn whatever_may_differ_is_left_to_the_server() {
        let changed = with(desired(), "/spec/type", json!("NodePort"));
        assert!(!is_settled(&changed, &live()), "a value");
        let more = with(desired(), "/spec/selector", json!({"app": "web", "tier": "front"}));
        assert!(!is_settled(&more, &live()), "a value that is owned as a whole");
        let port = with(desired(), "/spec/ports/0/port", json!(8080));
        assert!(!is_settled(&port, &live()), "a list's item");
        let extra = with(desired(), "/spec/ports", json!([{"port": 80, "name": "http"}, {"port": 82, "name": "x"}]));
        assert!(!is_settled(&extra, &live()), "one more item");
        let fewer = with(desired(), "/metadata/labels", json!({}));
        assert!(!is_settled(&fewer, &live()), "a field that is ours still and desired no more");
        let label = with(live(), "/metadata/labels", json!({"ringfence.dev/tenancy": "other"}));
        assert!(!is_settled(&desired(), &label), "a live value");
        let adopted = with(live(), "/metadata/managedFields/0/manager", json!("kubectl"));
        assert!(!is_settled(&desired(), &adopted), "what someone else applied");
        let taken = with(
            live(),
            "/metadata/managedFields/0/fieldsV1/f:spec",
            json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}, "f:type": {}}),
        );
        assert!(!is_settled(&desired(), &taken), "a field that someone else has taken");
        let version = with(live(), "/metadata/managedFields/0/apiVersion", json!("v1beta1"));
        assert!(!is_settled(&desired(), &version), "fields of another version");
    }

    #[test]
    fn what_others_add_to_an_object_that_is_wholly_ours() {
        let ours = json!({"f:spec": {"f:matchConditions": {"k:{\"name\":\"own\"}": {".": {}, "f:name": {}, "f:expression": {}}},
            "f:matchConstraints": {"f:resourceRules": {}}, "f:validationActions": {"v:\"Deny\"": {}}}});
        let theirs = json!({"f:metadata": {"f:labels": {"f:theirs": {}}}, "f:spec": {
            "f:matchConditions": {"k:{\"name\":\"never\"}": {".": {}, "f:name": {}, "f:expression": {}}},
            "f:matchConstraints": {"f:excludeResourceRules": {}, "f:objectSelector": {"f:matchLabels": {"f:a": {}}}},
            "f:validationActions": {"v:\"Warn\"": {}}}});
        let entry = |manager: &str, operation: &str, fields: &Value| json!({"manager": manager, "operation": operation, "apiVersion": "admissionregistration.k8s.io/v1", "fieldsV1": fields});
        let own = json!({"name": "own", "expression": "true"});
        let mut live = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "p", "labels": {"theirs": "x"}, "managedFields": [
                entry("ringfence", "Apply", &ours), entry("kubectl-edit", "Update", &theirs)]},
            "spec": {
                "matchConditions": [own, {"name": "never", "expression": "false"}],
                "matchConstraints": {"resourceRules": [1], "excludeResourceRules": [2], "objectSelector": {"matchLabels": {"a": "b"}}},
                "validationActions": ["Warn", "Deny"],
            },
        });
        let spec = json!({"matchConditions": [own], "matchConstraints": {"resourceRules": [1]}, "validationActions": ["Deny"]});
        let cleared = without_additions(&live).unwrap_or_default();
        assert_eq!(cleared["spec"], spec);
        assert_eq!(cleared["metadata"], live["metadata"]);
        live["kind"] = json!("Secret");
        live["apiVersion"] = json!("v1");
        assert_eq!(without_additions(&live), None, "controllers have their say elsewhere");
    }

    #[test]
    fn empty_lists_are_owned_and_not_stored() {
        let policy = |egress: Option<Value>| {
            let mut object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "deny", "managedFields": [{"manager": "ringfence", "operation": "Apply",
                    "apiVersion": "networking.k8s.io/v1", "fieldsV1": {"f:spec": {"f:egress": {}, "f:podSelector": {}}}}]},
                "spec": {"podSelector": {}}});
            if let (Some(egress), Some(Value::Object(spec))) = (egress, object.get_mut("spec")) {
                spec.insert("egress".to_owned(), egress);
            }
            object
        };
        let desired = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
            "spec": {"podSelector": {}, "egress": []}});
        assert!(is_settled(&desired, &policy(None)));
        assert!(!is_settled(&desired, &policy(Some(json!([{}])))));

        let class = |default: bool| json!({"kind": "PriorityClass", "value": 1, "globalDefault": default});
        let mut live = json!({"kind": "PriorityClass", "value": 1});
        let fields = json!({"f:value": {}, "f:globalDefault": {}});
        live["metadata"]["managedFields"] = json!([{"manager": "ringfence", "operation": "Apply", "fieldsV1": fields}]);
        assert!(is_settled(&class(false), &live));
        assert!(!is_settled(&class(true), &live));
    }

    #[test]
    fn items_that_are_owned_as_a_whole() {
        let fields = json!({"f:variables": {"k:{\"name\":\"a\"}": {}}});
        let live = json!({"variables": [{"name": "a", "expression": "1"}]});
        let owned = |desired: Value| fields.as_object().is_some_and(|f| owns(f, &desired, Some(&live)));
        assert!(owned(live.clone()));
        assert!(!owned(json!({"variables": [{"name": "a", "expression": "2"}]})));
        assert!(!owned(json!({"variables": [{"name": "a"}]})));
    }

    #[test]
    fn items_of_sets() {
        let fields = json!({"f:finalizers": {"v:\"a\"": {}, "v:\"b\"": {}}});
        let owned = |desired: Value| {
            let live = json!({"finalizers": ["a", "b", "theirs"]});
            fields.as_object().is_some_and(|f| owns(f, &desired, Some(&live)))
        };
        assert!(owned(json!({"finalizers": ["b", "a"]})));
        assert!(!owned(json!({"finalizers": ["a"]})));
        assert!(!owned(json!({"finalizers": ["a", "c"]})));
    }

    #[test]
    fn what_the_server_writes_its_own_way_is_no_difference() {
        let desired = json!({"spec": {"hard": {"cpu": "1000m"}, "rules": [{"port": 53}]}});
        let live = json!({"spec": {"hard": {"cpu": "1"}, "rules": [{"port": 53, "protocol": "TCP"}], "added": true}, "status": 1});
        let applied = json!({"spec": {"hard": {"cpu": "1"}, "rules": [{"port": 53, "protocol": "TCP"}], "added": false}, "status": 2});
        assert_eq!(projected(&desired, &normalised(&live), &normalised(&applied)), desired);
    }

    #[test]
    fn differences_are_told_in_the_desired_ones_terms() {
        let desired =
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"hard": {"cpu": "2000m", "pods": "40"}}});
        let live = json!({"metadata": {"labels": {"a": "9", "old": "x", "theirs": "y"}, "uid": "u"},
            "spec": {"hard": {"cpu": "1", "pods": "40"}, "defaulted": 1}});
        let applied = json!({"metadata": {"labels": {"a": "1", "b": "2", "theirs": "y"}, "uid": "u"},
            "spec": {"hard": {"cpu": "2", "pods": "40"}, "defaulted": 1}});
        assert_eq!(
            projected(&desired, &live, &applied),
            json!({"metadata": {"labels": {"a": "9", "old": "x"}}, "spec": {"hard": {"cpu": "1", "pods": "40"}}})
        );
    }

    #[test]
    fn what_is_desired_no_more_shows_as_removed() {
        let desired = json!({"metadata": {"name": "a"}});
        let live = json!({"metadata": {"name": "a", "annotations": {"ours": "1", "theirs": "2"}}, "data": {"k": "v"}});
        let applied = json!({"metadata": {"name": "a", "annotations": {"theirs": "2"}}});
        assert_eq!(
            projected(&desired, &live, &applied),
            json!({"metadata": {"name": "a", "annotations": {"ours": "1"}}, "data": {"k": "v"}})
        );
    }

    #[test]
    fn lists_item_by_item() {
        let desired = json!([{"to": "dns", "port": 53}, {"to": "self"}]);
        let live = json!([{"to": "dns", "port": 5353, "protocol": "TCP"}, {"to": "self", "protocol": "TCP"}]);
        let applied = json!([{"to": "dns", "port": 53, "protocol": "TCP"}, {"to": "self", "protocol": "TCP"}]);
        assert_eq!(projected(&desired, &live, &applied), json!([{"to": "dns", "port": 5353}, {"to": "self"}]));

        let by_hand =
            json!([{"to": "dns", "port": 53, "protocol": "TCP"}, {"to": "self", "protocol": "TCP"}, {"to": "all"}]);
        assert_eq!(
            projected(&desired, &by_hand, &applied),
            json!([{"to": "dns", "port": 53}, {"to": "self"}, {"to": "all"}]),
            "a rule added by hand"
        );
        let gone = json!([{"to": "self", "protocol": "TCP"}]);
        assert_eq!(projected(&desired, &gone, &applied), json!([{"to": "self"}]), "a rule removed by hand");

        let theirs = json!([{"name": "theirs"}, {"to": "dns", "port": 53}, {"to": "self"}]);
        let both = json!([{"name": "theirs"}, {"to": "dns", "port": 53}, {"to": "self"}]);
        assert_eq!(projected(&desired, &theirs, &both), desired, "another manager's item");
    }

    #[test]
    fn without_a_dry_run_only_what_is_desired_counts() {
        let desired = json!({"spec": {"groupIds": ["(known after apply)"], "port": 443}});
        let live = json!({"spec": {"groupIds": ["sg-1"], "port": 443, "defaulted": 1}});
        assert_eq!(
            projected(&desired, &live, &overlaid(&live, &desired)),
            json!({"spec": {"groupIds": ["sg-1"], "port": 443}})
        );
    }
}
