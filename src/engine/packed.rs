//! States of resources, as JSON text.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::address::Address;
use super::error::{Error, Result};
use super::value;

/// The state of a resource, as JSON text. Copies share the text. An estate has tens of thousands of states, and a
/// parsed state takes several times the memory of its text (`benches/report.py --scale`). So what goes through all
/// states works on the text, or on a value that it drops ([`Self::value`], [`Self::typed`]).
///
/// It can be used as a [`Value`]. Then the parsed value is kept as long as the state.
#[derive(Clone)]
pub struct Packed(Arc<Inner>);

/// How many levels of maps and lists a state may have. A parser of JSON reads 127 levels, and a document in which a
/// state stands adds a few. Nothing of AWS, and nothing that Kubernetes itself defines, comes near.
const DEEPEST: usize = 100;

struct Inner {
    text: Box<str>,
    parsed: OnceLock<Value>,
}

impl Packed {
    /// The state of a kind. A state with more than [`DEEPEST`] levels is refused, because its text couldn't be read.
    pub fn of(state: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_string(state)
            .map_err(|e| Error::bug(format!("a resource's state can't be written as JSON: {e}")))?;
        match depth(&text) {
            levels if levels > DEEPEST => Err(Error::input(format!(
                "a resource's state has {levels} levels of maps and lists; {DEEPEST} can be read"
            ))
            .help("remove the nested fields from the object, or delete the object")),
            _ => Ok(Self::new(text)),
        }
    }

    fn new(text: String) -> Self {
        Self(Arc::new(Inner { text: text.into(), parsed: OnceLock::new() }))
    }

    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Calls `read` with the parsed state, which isn't kept.
    pub fn read<R>(&self, read: impl FnOnce(&Value) -> R) -> R {
        match self.0.parsed.get() {
            Some(parsed) => read(parsed),
            None => read(&self.parse()),
        }
    }

    /// The parsed state, which isn't kept.
    pub fn value(&self) -> Value {
        self.read(Value::clone)
    }

    /// See [`value::walk`].
    pub fn walk(&self, visit: &mut impl FnMut(&str)) {
        self.read(|value| value::walk(value, visit));
    }

    /// True if the parsed state is kept.
    pub fn is_parsed(&self) -> bool {
        self.0.parsed.get().is_some()
    }

    fn parse(&self) -> Value {
        // The text was written from a value, so it can be read.
        serde_json::from_str(&self.0.text).unwrap_or_default()
    }

    /// The typed state of a kind. A failure is a bug, because the stack or the kind itself builds states.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.0.text)
            .map_err(|e| Error::bug(format!("a resource's state has the wrong shape: {e}")))
    }

    /// See [`value::references`].
    pub fn references(&self) -> BTreeSet<(Address, String)> {
        value::references_in(&self.0.text)
    }

    /// See [`value::has_references`].
    pub fn has_references(&self) -> bool {
        value::is_reference_in(&self.0.text)
    }

    /// See [`value::resolve`].
    pub fn resolve(&self, lookup: &impl Fn(&Address, &str) -> Option<String>) -> Self {
        if !self.has_references() {
            return self.clone();
        }
        // The text of a reference stands in a JSON string, and so must its value.
        let escaped = |address: &Address, output: &str| {
            let text = serde_json::to_string(&lookup(address, output)?).ok()?;
            text.get(1..text.len() - 1).map(str::to_owned)
        };
        Self::new(value::resolve_text(&self.0.text, &escaped))
    }

    /// The state with these additional fields. A field without a value is left out.
    pub fn with<const N: usize>(&self, more: [(&str, Option<Value>); N]) -> Self {
        let more = more.map(|(name, value)| value.map(|value| (name.to_owned(), value)));
        if more.iter().all(Option::is_none) {
            return self.clone();
        }
        self.edited(|state| {
            if let Value::Object(fields) = state {
                fields.extend(more.into_iter().flatten());
            }
        })
    }

    /// The state after a change of its value.
    pub fn edited(&self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut value = self.value();
        edit(&mut value);
        value.into()
    }
}

impl Deref for Packed {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.0.parsed.get_or_init(|| self.parse())
    }
}

impl From<Value> for Packed {
    fn from(value: Value) -> Self {
        Self::new(value.to_string())
    }
}

impl Default for Packed {
    fn default() -> Self {
        Value::Null.into()
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        // Objects whose keys have another order are equal, too.
        self.0.text == other.0.text || self.read(|one| other.read(|two| one == two))
    }
}

impl Eq for Packed {}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.read(|value| value.serialize(serializer))
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

/// How many levels of maps and lists a JSON text has at most.
fn depth(text: &str) -> usize {
    // Most texts have so few brackets that they needn't be paired.
    let brackets = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if brackets <= DEEPEST {
        return brackets;
    }
    let (mut levels, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                levels += 1;
                deepest = deepest.max(levels);
            }
            b'}' | b']' if !quoted => levels = levels.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn state() -> Packed {
        let vpc = value::reference(&Address::new("pool/a/vpc"), "id");
        let role = value::reference(&Address::new("pool/a/role"), "arn");
        json!({"vpc": vpc, "policy": {format!("{role}:sub"): ["a \"quoted\" text", role]}, "plain": 1}).into()
    }

    #[test]
    fn references_in_the_text_are_those_in_the_value() {
        let state = state();
        assert_eq!(state.references(), value::references(&state));
        assert_eq!(state.references().len(), 2);
        let lookup = |address: &Address, output: &str| Some(format!("{address} \"{output}\"\\\n"));
        let resolved = state.resolve(&lookup);
        assert_eq!(*resolved, value::resolve(&state, &lookup));
        assert_eq!(resolved["vpc"], "pool/a/vpc \"id\"\\\n");
        assert!(!resolved.has_references());
        let half = state.resolve(&|address, _| address.as_str().ends_with("vpc").then(|| "vpc-1".to_owned()));
        assert_eq!(half.references().len(), 1);
    }

    #[test]
    fn states_are_equal_if_their_values_are() {
        let (one, two): (Packed, Packed) = (json!({"a": 1, "b": [2]}).into(), json!({"b": [2], "a": 1}).into());
        assert_ne!(one.text(), two.text());
        assert_eq!(one, two);
        assert_ne!(one, json!({"b": [2], "a": 2}).into());
        assert_eq!(one.with([("c", Some(json!(3))), ("d", None)]), json!({"a": 1, "b": [2], "c": 3}).into());
    }

    #[test]
    fn a_state_that_is_nested_too_deeply_is_refused() {
        let nested = |levels: usize| (1..levels).fold(json!({"text": "[[\\\"[[{"}), |inner, _| json!([inner]));
        let deepest = Packed::of(&nested(DEEPEST)).unwrap();
        assert_eq!(deepest.value(), nested(DEEPEST));
        let refused = Packed::of(&nested(DEEPEST + 1)).unwrap_err();
        assert_eq!(refused.to_string(), "a resource's state has 101 levels of maps and lists; 100 can be read");
    }
}
