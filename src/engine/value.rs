//! References between resources, and the outputs that replace them.
//!
//! A desired state is plain JSON. For a value that AWS assigns to another resource (an id, an ARN), a string or an
//! object key contains a *reference*: `\u{E000}address\u{E001}output\u{E002}`, possibly inside of a longer string (a
//! policy's condition key, a line of user data). The three characters are from Unicode's private use area. The spec
//! refuses them, so no input can forge a reference.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::address::Address;

const OPEN: char = '\u{E000}';
const MID: char = '\u{E001}';
const CLOSE: char = '\u{E002}';

/// Values of a resource that others refer to, such as `id` and `arn`.
pub type Outputs = BTreeMap<String, String>;

/// True for the characters that delimit references. Input must not contain them.
pub fn is_reserved(c: char) -> bool {
    matches!(c, OPEN | MID | CLOSE)
}

/// A reference to `output` of the resource at `address`.
pub fn reference(address: &Address, output: &str) -> String {
    format!("{OPEN}{address}{MID}{output}{CLOSE}")
}

/// Every (address, output) that `value` refers to.
pub fn references(value: &Value) -> BTreeSet<(Address, String)> {
    let mut found = BTreeSet::new();
    walk(value, &mut |text| found.extend(references_in(text)));
    found
}

/// Every (address, output) that `text` refers to.
pub(super) fn references_in(text: &str) -> BTreeSet<(Address, String)> {
    let mut found = BTreeSet::new();
    scan(text, &mut |address, output| {
        found.insert((Address::new(address), output.to_owned()));
    });
    found
}

/// The member at a JSON pointer through objects. Unlike [`Value::pointer`], it allocates nothing for plain names, and an
/// estate has many of them.
pub fn at<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
    pointer.split('/').skip(1).try_fold(value, |inner, name| match name.contains('~') {
        true => inner.get(name.replace("~1", "/").replace("~0", "~")),
        false => inner.get(name),
    })
}

/// True if `value` contains a reference.
pub fn has_references(value: &Value) -> bool {
    let mut any = false;
    walk(value, &mut |text| any |= is_reference_in(text));
    any
}

/// True if `text` contains a reference.
pub(super) fn is_reference_in(text: &str) -> bool {
    text.contains(OPEN)
}

/// Replaces every reference for which `lookup` returns a value. Others are unchanged.
pub fn resolve(value: &Value, lookup: &impl Fn(&Address, &str) -> Option<String>) -> Value {
    match value {
        Value::String(text) => Value::String(resolve_text(text, lookup)),
        Value::Array(items) => items.iter().map(|v| resolve(v, lookup)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (resolve_text(k, lookup), resolve(v, lookup)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// `text` for people: a remaining reference is shown as `(known after apply)` if it is the whole text, and as
/// `<address.output>` inside of a longer text.
pub fn display(text: &str) -> String {
    if !text.contains(OPEN) {
        return text.to_owned();
    }
    let whole = text.starts_with(OPEN) && text.ends_with(CLOSE) && text.matches(OPEN).count() == 1;
    if whole {
        return "(known after apply)".to_owned();
    }
    text.replace(OPEN, "<").replace(MID, ".").replace(CLOSE, ">")
}

pub(super) fn resolve_text(text: &str, lookup: &impl Fn(&Address, &str) -> Option<String>) -> String {
    if !text.contains(OPEN) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inner, after)) = next(rest) {
        out.push_str(before);
        let known = inner.split_once(MID).and_then(|(address, output)| lookup(&Address::new(address), output));
        match known {
            Some(value) => out.push_str(&value),
            None => {
                out.push(OPEN);
                out.push_str(inner);
                out.push(CLOSE);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn next(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(OPEN)?;
    let (inner, after) = rest.split_once(CLOSE)?;
    Some((before, inner, after))
}

fn scan(text: &str, visit: &mut impl FnMut(&str, &str)) {
    let mut rest = text;
    while let Some((_, inner, after)) = next(rest) {
        if let Some((address, output)) = inner.split_once(MID) {
            visit(address, output);
        }
        rest = after;
    }
}

/// Visits every string and object key in `value`.
pub fn walk(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|v| walk(v, visit)),
        Value::Object(map) => map.iter().for_each(|(k, v)| {
            visit(k);
            walk(v, visit);
        }),
        _ => {}
    }
}

/// `value` for people, with references as in [`display`].
pub fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(display(text)),
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (display(k), shown(v))).collect::<serde_json::Map<_, _>>().into(),
        other => other.clone(),
    }
}
