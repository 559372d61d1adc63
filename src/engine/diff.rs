//! Compares desired and observed state, field by field.

use std::collections::BTreeSet;

use serde_json::Value;

use super::kind::{Change, Rule};
use super::packed::Packed;
use super::value::walk;

/// The differences, in the order of the fields' names. `desired` may contain references. A reference differs from
/// every value.
pub fn changes(desired: &Packed, observed: &Packed, rules: &[(&str, Rule)]) -> Vec<Change> {
    let mut found = Vec::new();
    if desired.text() != observed.text() {
        desired
            .read(|desired| observed.read(|observed| compare(&mut Vec::new(), desired, observed, rules, &mut found)));
    }
    found
}

/// `value` with every field that a rule calls secret masked.
pub fn masked(value: &Value, rules: &[(&str, Rule)]) -> Value {
    mask(&mut Vec::new(), value, rules)
}

fn compare(path: &mut Vec<String>, desired: &Value, observed: &Value, rules: &[(&str, Rule)], out: &mut Vec<Change>) {
    if desired == observed {
        return;
    }
    if has(path, rules, Rule::CreateOnly) || (desired.is_null() && has(path, rules, Rule::ServerDefault)) {
        return;
    }
    match (desired, observed) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                path.push(key.clone());
                let (x, y) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                compare(path, x, y, rules, out);
                path.pop();
            }
        }
        (Value::Array(a), Value::Array(b)) if has(path, rules, Rule::Unordered) => {
            if sorted(a) != sorted(b) {
                out.push(change(path, desired, observed, rules));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().chain(b).all(Value::is_object) => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                path.push(i.to_string());
                compare(path, x, y, rules, out);
                path.pop();
            }
        }
        _ => out.push(change(path, desired, observed, rules)),
    }
}

fn change(path: &[String], desired: &Value, observed: &Value, rules: &[(&str, Rule)]) -> Change {
    let secret = has(path, rules, Rule::Secret);
    let shown = |v: &Value| if secret { Value::String("(secret)".to_owned()) } else { v.clone() };
    Change {
        path: join(path),
        before: shown(observed),
        after: shown(desired),
        replaces: has(path, rules, Rule::Replace) || (has(path, rules, Rule::AddOnly) && !observed.is_null()),
        secret,
    }
}

fn mask(path: &mut Vec<String>, value: &Value, rules: &[(&str, Rule)]) -> Value {
    if has(path, rules, Rule::Secret) {
        return Value::String("(secret)".to_owned());
    }
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| {
                path.push(k.clone());
                let v = mask(path, v, rules);
                path.pop();
                (k.clone(), v)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn sorted(items: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = items.iter().map(Value::to_string).collect();
    texts.sort();
    texts
}

/// Every string in `state` that may be the id of a dependency. Tags don't count, nor do fields whose rule says that
/// they only mention other resources.
pub fn depends_on(state: &Packed, rules: &[(&str, Rule)], visit: &mut impl FnMut(&str)) {
    state.read(|state| {
        let Value::Object(fields) = state else { return };
        for (name, value) in fields {
            let path = [name.clone()];
            if name != "tags" && !has(&path, rules, Rule::Mentions) {
                walk(value, visit);
            }
        }
    });
}

/// True if `rule` is given for `path` or for a parent of `path`.
fn has(path: &[String], rules: &[(&str, Rule)], rule: Rule) -> bool {
    rules.iter().any(|(pattern, r)| {
        let mut steps = path.iter();
        *r == rule && pattern.split('.').all(|part| steps.next().is_some_and(|step| part == "*" || part == step))
    })
}

/// `tags["example.com/team"]`: keys with dots or slashes are quoted.
fn join(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if part.contains(['.', '/', ' ']) {
            text.push_str(&format!("[{part:?}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(part);
        }
    }
    text
}
