//! Field ownership: server-side apply, and how other writes change owners.
//!
//! Sets of fields are stored in the form of `managedFields` ("FieldsV1"): objects whose keys are `f:<member>`, `k:{…}`
//! for an item of a list with keys, `v:…` for a value of a set, and `.` for the thing itself. There are no schemas. So
//! a list is atomic unless Kubernetes' own kinds have a list of the same name that is merged. Lists of custom resources
//! are always atomic.

use super::kinds::Kind;
use serde_json::{Map, Value, json};

/// Lists with keys, by name, of Kubernetes' own types (`x-kubernetes-list-map-keys` in its OpenAPI).
const KEYED: &[(&str, &[&str])] = &[
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("hostAliases", &["ip"]),
    ("imagePullSecrets", &["name"]),
    ("initContainers", &["name"]),
    ("matchConditions", &["name"]),
    ("ownerReferences", &["uid"]),
    ("secrets", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("variables", &["name"]),
    ("volumeDevices", &["devicePath"]),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
    ("webhooks", &["name"]),
];

/// Maps that are owned as a whole (`x-kubernetes-map-type: atomic`).
const ATOMIC: &[&str] = &[
    "configMapKeyRef",
    "fieldRef",
    "labelSelector",
    "namespaceSelector",
    "nodeSelector",
    "objectSelector",
    "paramKind",
    "paramRef",
    "podSelector",
    "resourceFieldRef",
    "roleRef",
    "secretKeyRef",
    "selector",
];

/// Metadata that has no owner.
const UNOWNED: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

enum List {
    Atomic,
    Set,
    Keyed(Vec<&'static str>),
}

/// How the list of a field is merged.
fn list_kind(field: &str, list: &[Value], custom: bool) -> List {
    let all_have = |key: &str| list.iter().all(|item| !item[key].is_null());
    if field == "finalizers" {
        return List::Set;
    }
    if custom && field != "ownerReferences" {
        return List::Atomic;
    }
    let keys = match field {
        "ports" if all_have("containerPort") => vec!["containerPort", "protocol"],
        "ports" if all_have("port") => vec!["port", "protocol"],
        _ => match KEYED.iter().find(|(name, _)| *name == field) {
            Some((_, keys)) => keys.to_vec(),
            None => return List::Atomic,
        },
    };
    if keys.first().is_some_and(|key| all_have(key)) { List::Keyed(keys) } else { List::Atomic }
}

/// The key of a list's item in a set of fields.
fn item_key(item: &Value, keys: &[&str]) -> String {
    let mut values = Map::new();
    for key in keys {
        let default = if *key == "protocol" { "TCP".into() } else { Value::Null };
        let value = if item[*key].is_null() { default } else { item[*key].clone() };
        values.insert((*key).to_owned(), value);
    }
    format!("k:{}", Value::Object(values))
}

fn is_granular(field: &str, members: &Map<String, Value>, custom: bool) -> bool {
    !members.is_empty() && (custom || !ATOMIC.contains(&field))
}

/// All fields below a value.
fn set_of(field: &str, value: &Value, custom: bool) -> Value {
    let mut set = Map::new();
    match value {
        Value::Object(members) if is_granular(field, members, custom) => {
            for (name, value) in members {
                set.insert(format!("f:{name}"), set_of(name, value, custom));
            }
        }
        Value::Array(list) => match list_kind(field, list, custom) {
            List::Atomic => {}
            List::Set => set.extend(list.iter().map(|value| (format!("v:{value}"), json!({})))),
            List::Keyed(keys) => {
                for item in list {
                    let mut inner = set_of("", item, custom);
                    inner["."] = json!({});
                    set.insert(item_key(item, &keys), inner);
                }
            }
        },
        _ => {}
    }
    Value::Object(set)
}

/// The fields of an object that can have owners.
fn owned(object: &Value, kind: &Kind, status: bool) -> Value {
    let mut object = object.clone();
    if let Some(members) = object.as_object_mut() {
        members.retain(|name, _| name != "apiVersion" && name != "kind" && (status || name != "status"));
        if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|name, _| !UNOWNED.contains(&name.as_str()));
        }
        if members.get("metadata").and_then(Value::as_object).is_some_and(Map::is_empty) {
            members.remove("metadata");
        }
    }
    set_of("", &object, kind.custom)
}

/// The part of a value that a key of a set names.
fn child<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let (sort, name) = key.split_at_checked(2)?;
    match sort {
        "f:" => value.get(name),
        "k:" => value.as_array()?.iter().find(|item| is_item(item, name)),
        "v:" => value.as_array()?.iter().find(|item| quoted(item) == name),
        _ => None,
    }
}

fn child_mut<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    let (sort, name) = key.split_at_checked(2)?;
    match sort {
        "f:" => value.get_mut(name),
        "k:" => value.as_array_mut()?.iter_mut().find(|item| is_item(item, name)),
        _ => None,
    }
}

fn remove_child(value: &mut Value, key: &str) {
    let Some((sort, name)) = key.split_at_checked(2) else { return };
    match (sort, value) {
        ("f:", Value::Object(members)) => {
            members.shift_remove(name);
        }
        ("k:", Value::Array(list)) => list.retain(|item| !is_item(item, name)),
        ("v:", Value::Array(list)) => list.retain(|item| quoted(item) != name),
        _ => {}
    }
}

/// A value of a set, in the form that its `v:` key has.
fn quoted(value: &Value) -> String {
    value.to_string()
}

fn is_item(item: &Value, keys: &str) -> bool {
    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
    let names: Vec<&str> = keys.keys().map(String::as_str).collect();
    item_key(item, &names).strip_prefix("k:") == Some(Value::Object(keys.clone()).to_string().as_str())
}

fn keys(set: &Value) -> impl Iterator<Item = (&String, &Value)> {
    set.as_object().into_iter().flatten().filter(|(key, _)| *key != ".")
}

fn is_leaf(set: &Value) -> bool {
    keys(set).next().is_none()
}

/// Fields of `set` that `other` owns too and whose values differ between the two objects: as paths for people, and as a set.
fn clashes(set: &Value, other: &Value, new: &Value, old: &Value, path: &str, found: &mut Vec<String>) -> Value {
    let mut clashing = Map::new();
    for (key, inner) in keys(set) {
        let Some(theirs) = other.get(key) else { continue };
        let (now, before) = (child(new, key).unwrap_or(&Value::Null), child(old, key).unwrap_or(&Value::Null));
        let path = format!("{path}{}", told(key));
        if is_leaf(inner) || is_leaf(theirs) {
            if now != before && !(before.is_null() && is_leaf(theirs)) {
                found.push(path);
                clashing.insert(key.clone(), json!({}));
            }
        } else {
            let below = clashes(inner, theirs, now, before, &path, found);
            if !is_leaf(&below) {
                clashing.insert(key.clone(), below);
            }
        }
    }
    Value::Object(clashing)
}

/// A field as the API server names it: `.spec`, `[name="a"]`.
fn told(key: &str) -> String {
    let (sort, name) = key.split_at_checked(2).unwrap_or(("", key));
    match sort {
        "f:" => format!(".{name}"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(name).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[={name}]"),
    }
}

/// `set` without the fields of `gone`.
fn without(set: &Value, gone: &Value) -> Value {
    let mut left = Map::new();
    for (key, inner) in set.as_object().into_iter().flatten() {
        match gone.get(key) {
            None => {
                left.insert(key.clone(), inner.clone());
            }
            Some(below) if !is_leaf(below) && !is_leaf(inner) => {
                let rest = without(inner, below);
                if rest.as_object().is_some_and(|rest| !rest.is_empty()) {
                    left.insert(key.clone(), rest);
                }
            }
            Some(_) => {}
        }
    }
    Value::Object(left)
}

fn union(set: &mut Value, more: &Value) {
    let Some(members) = set.as_object_mut() else { return };
    for (key, inner) in more.as_object().into_iter().flatten() {
        union(members.entry(key.clone()).or_insert_with(|| json!({})), inner);
    }
}

/// `set` without the fields that the value doesn't have any more.
fn existing(set: &Value, value: &Value) -> Value {
    let mut left = Map::new();
    for (key, inner) in set.as_object().into_iter().flatten() {
        if key == "." {
            left.insert(key.clone(), inner.clone());
        } else if let Some(value) = child(value, key) {
            let rest = existing(inner, value);
            if is_leaf(inner) || rest.as_object().is_some_and(|rest| !rest.is_empty()) {
                left.insert(key.clone(), rest);
            }
        }
    }
    Value::Object(left)
}

/// The fields below `new` that are missing in `old` or differ.
fn changed(field: &str, old: Option<&Value>, new: &Value, custom: bool) -> Value {
    let set = set_of(field, new, custom);
    let mut differing = Map::new();
    for (key, inner) in set.as_object().into_iter().flatten() {
        if key == "." {
            continue;
        }
        let (before, now) = (old.and_then(|old| child(old, key)), child(new, key).unwrap_or(&Value::Null));
        match before {
            Some(before) if before == now => {}
            Some(before) if !is_leaf(inner) => {
                let name = key.strip_prefix("f:").unwrap_or_default();
                let below = changed(name, Some(before), now, custom);
                if below.as_object().is_some_and(|below| !below.is_empty()) {
                    differing.insert(key.clone(), below);
                }
            }
            _ => {
                differing.insert(key.clone(), inner.clone());
            }
        }
    }
    Value::Object(differing)
}

/// Merges an applied configuration into a value.
fn merge(field: &str, live: &mut Value, applied: &Value, custom: bool) {
    match (&mut *live, applied) {
        (Value::Object(members), Value::Object(new))
            if is_granular(field, new, custom) || (new.is_empty() && !ATOMIC.contains(&field)) =>
        {
            for (name, value) in new {
                if value.is_null() {
                    members.shift_remove(name);
                } else {
                    merge(name, members.entry(name.clone()).or_insert(Value::Null), value, custom);
                }
            }
        }
        (Value::Array(list), Value::Array(new)) => match list_kind(field, new, custom) {
            List::Keyed(keys) => {
                for item in new {
                    let key = item_key(item, &keys);
                    match list.iter_mut().find(|one| item_key(one, &keys) == key) {
                        Some(one) => merge("", one, item, custom),
                        None => list.push(item.clone()),
                    }
                }
            }
            List::Set => {
                let missing: Vec<Value> = new.iter().filter(|value| !list.contains(value)).cloned().collect();
                list.extend(missing);
            }
            List::Atomic => *live = applied.clone(),
        },
        _ => *live = applied.clone(),
    }
}

/// Removes the fields that `old` has, `new` doesn't have, and no other manager owns.
fn prune(value: &mut Value, old: &Value, new: &Value, others: &[&Value]) {
    for (key, inner) in keys(old) {
        let theirs: Vec<&Value> = others.iter().filter_map(|other| other.get(key)).collect();
        let still = new.get(key);
        if is_leaf(inner) || still.is_some_and(is_leaf) {
            if still.is_none() && theirs.is_empty() {
                remove_child(value, key);
            }
            continue;
        }
        if key.starts_with("k:") && still.is_none() && theirs.is_empty() {
            remove_child(value, key);
            continue;
        }
        let empty = json!({});
        let Some(below) = child_mut(value, key) else { continue };
        prune(below, inner, still.unwrap_or(&empty), &theirs);
        let hollow = match below {
            Value::Object(members) => members.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if hollow && still.is_none() && theirs.is_empty() {
            remove_child(value, key);
        }
    }
}

/// Applies a strategic merge patch, with the same rules for lists.
pub(super) fn strategic(object: &mut Value, patch: &Value, kind: &Kind) {
    merge("", object, patch, kind.custom);
}

/// A server-side apply on a live object (`{}` if there is none).
///
/// # Errors
/// The fields that other managers own with other values, and those managers.
pub(super) fn applied(
    live: &Value,
    mut config: Value,
    kind: &Kind,
    manager: &str,
    force: bool,
    time: &str,
    status: bool,
) -> Result<Value, Vec<(String, String)>> {
    if !status && let Some(members) = config.as_object_mut() {
        members.shift_remove("status");
    }
    let mut managed = entries(live);
    let mine = |entry: &Value| entry["manager"] == manager && entry["operation"] == "Apply";
    let before = managed.iter().find(|entry| mine(entry)).map_or_else(|| json!({}), |entry| entry["fieldsV1"].clone());
    let set = owned(&config, kind, status);
    let mut conflicts = Vec::new();
    for entry in managed.iter_mut().filter(|entry| !mine(entry)) {
        let mut found = Vec::new();
        let clashing = clashes(&set, &entry["fieldsV1"], &config, live, "", &mut found);
        let who = told_manager(entry);
        conflicts.extend(found.into_iter().map(|field| (who.clone(), field)));
        entry["fieldsV1"] = without(&entry["fieldsV1"], &clashing);
    }
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    let mut object = live.clone();
    let mut wanted = config.clone();
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !UNOWNED.contains(&name.as_str()));
    }
    merge("", &mut object, &wanted, kind.custom);
    let others: Vec<&Value> = managed.iter().filter(|entry| !mine(entry)).map(|entry| &entry["fieldsV1"]).collect();
    prune(&mut object, &before, &set, &others);
    let unchanged = set == before && without_managed(&object) == without_managed(live);
    if !unchanged {
        managed.retain(|entry| !mine(entry));
        managed.push(entry(manager, "Apply", kind, time, set));
    }
    keep(&mut object, managed);
    Ok(object)
}

/// An object after a write that isn't an apply: the writing manager becomes the only owner of the fields that it
/// changed.
pub(super) fn updated(old: &Value, mut new: Value, kind: &Kind, manager: &str, time: &str) -> Value {
    let trim = |object: &Value| {
        let mut object = without_managed(object);
        if let Some(members) = object.as_object_mut() {
            members.retain(|name, _| name != "apiVersion" && name != "kind");
            if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|name, _| !UNOWNED.contains(&name.as_str()));
            }
        }
        object
    };
    let (before, after) = (trim(old), trim(&new));
    let change = changed("", Some(&before), &after, kind.custom);
    let mut managed = entries(old);
    let mine = |entry: &Value| entry["manager"] == manager && entry["operation"] == "Update";
    for entry in &mut managed {
        let left = if mine(entry) { entry["fieldsV1"].clone() } else { without(&entry["fieldsV1"], &change) };
        entry["fieldsV1"] = existing(&left, &after);
    }
    if change.as_object().is_some_and(|change| !change.is_empty()) {
        match managed.iter_mut().find(|entry| mine(entry)) {
            Some(entry) => {
                union(&mut entry["fieldsV1"], &change);
                entry["time"] = time.into();
            }
            None => managed.push(entry(manager, "Update", kind, time, change)),
        }
    }
    keep(&mut new, managed);
    new
}

fn entries(object: &Value) -> Vec<Value> {
    object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default()
}

/// `"kubectl" using v1 at 2026-11-23T06:19:00Z`; for a manager that applies, its name alone.
fn told_manager(entry: &Value) -> String {
    let text = |member: &str| entry[member].as_str().unwrap_or_default();
    match text("operation") {
        "Apply" => format!("{:?}", text("manager")),
        _ => format!("{:?} using {} at {}", text("manager"), text("apiVersion"), text("time")),
    }
}

fn entry(manager: &str, operation: &str, kind: &Kind, time: &str, set: Value) -> Value {
    json!({
        "manager": manager, "operation": operation, "apiVersion": kind.api_version(), "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": set,
    })
}

fn keep(object: &mut Value, mut managed: Vec<Value>) {
    managed.retain(|entry| entry["fieldsV1"].as_object().is_some_and(|set| !set.is_empty()));
    object["metadata"]["managedFields"] = managed.into();
}

fn without_managed(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    object
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::kinds::builtin;
    use super::*;

    fn apply(live: &Value, config: Value, manager: &str, force: bool) -> Result<Value, Vec<(String, String)>> {
        applied(live, config, &builtin("apps", "deployments"), manager, force, "now", false)
    }

    #[test]
    fn a_manager_drops_what_it_no_longer_applies_and_nothing_else() {
        let two =
            json!({"spec": {"replicas": 2, "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let live = apply(&json!({}), two, "one", false).unwrap();
        let live = apply(&live, json!({"spec": {"containers": [{"name": "c", "image": "1"}]}}), "two", false).unwrap();
        let live = apply(&live, json!({"spec": {"containers": [{"name": "a", "image": "2"}]}}), "one", false).unwrap();
        assert_eq!(live["spec"], json!({"containers": [{"name": "a", "image": "2"}, {"name": "c", "image": "1"}]}));
    }

    #[test]
    fn another_managers_value_is_a_conflict_until_forced() {
        let live = apply(&json!({}), json!({"spec": {"replicas": 2}}), "one", false).unwrap();
        let other = json!({"spec": {"replicas": 3}});
        let conflicts = apply(&live, other.clone(), "two", false).unwrap_err();
        assert_eq!(conflicts, [("\"one\"".to_owned(), ".spec.replicas".to_owned())]);
        let live = apply(&live, other, "two", true).unwrap();
        assert_eq!(live["spec"]["replicas"], 3);
        let managers: Vec<&Value> =
            live["metadata"]["managedFields"].as_array().unwrap().iter().map(|m| &m["manager"]).collect();
        assert_eq!(managers, ["two"]);
    }

    #[test]
    fn applying_again_changes_nothing() {
        let config =
            json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x/y"]}, "spec": {"selector": {"a": "b"}}});
        let live = apply(&json!({}), config.clone(), "one", false).unwrap();
        assert_eq!(apply(&live, config, "one", false).unwrap(), live);
    }

    #[test]
    fn an_update_takes_over_what_it_changes() {
        let kind = builtin("apps", "deployments");
        let live = apply(&json!({}), json!({"spec": {"replicas": 2, "paused": true}}), "one", false).unwrap();
        let mut new = live.clone();
        new["spec"]["replicas"] = 5.into();
        let live = updated(&live, new, &kind, "hand", "later");
        let conflicts = apply(&live, json!({"spec": {"replicas": 2, "paused": true}}), "one", false).unwrap_err();
        assert_eq!(conflicts, [("\"hand\" using apps/v1 at later".to_owned(), ".spec.replicas".to_owned())]);
    }
}
