//! The JSON of tokens.

use serde_json::{Map, Value};

use crate::gateway::json;

/// Tokens of Kubernetes nest their claims three levels deep.
const DEPTH: usize = 16;

/// The object that `text` is. `None` if `text` is anything else, is nested too deep, or has a member twice.
pub(super) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match json::read(text, DEPTH) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
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
