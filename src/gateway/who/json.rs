//! JSON of strangers. Two parsers that read one text differently are an attack: one checks a claim, the other uses it.
//! So a member may not stand twice (RFC 8725, 2.4 and 3.10; RFC 7519, 4).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Tokens of Kubernetes nest their claims three levels deep.
const DEPTH: usize = 16;

/// The object that `text` is. `None` if `text` is anything else, is nested too deep, or has a member twice.
pub(super) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: DEPTH }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        self.depth.checked_sub(1).map(|depth| Self { depth }).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(seed)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = items.next_key::<String>()? {
            let value = items.next_value_seed(seed)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn values_are_as_serde_json_reads_them() {
        let text = r#"{"a":[null,true,-1,18446744073709551615,1.5,"é\u00e9\ud83d\ude00",{"b":{}}],"":""}"#;
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn only_a_whole_object_without_repetitions_is_one() {
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(object(deep(DEPTH - 1).as_bytes()).is_some());
        let texts = [
            "".to_owned(),
            "[]".to_owned(),
            "\"a\"".to_owned(),
            "null".to_owned(),
            "{} {}".to_owned(),
            "{}\0".to_owned(),
            "\u{feff}{}".to_owned(),
            "{\"a\":1,}".to_owned(),
            "{\"a\":NaN}".to_owned(),
            "{\"a\":1e999}".to_owned(),
            "{\"a\":1,\"a\":1}".to_owned(),
            "{\"a\":1,\"\\u0061\":2}".to_owned(),
            "{\"x\":{\"a\":1,\"a\":2}}".to_owned(),
            "{\"x\":[{\"a\":1,\"a\":2}]}".to_owned(),
            "{\"a\":\"\\ud800\"}".to_owned(),
            deep(DEPTH),
            deep(8_000),
        ];
        for text in texts {
            assert_eq!(object(text.as_bytes()), None, "{text:.40}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
    }
}
