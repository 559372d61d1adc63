//! The objects that requests carry. They are read once, judged, and written again, so that an API server reads exactly
//! the object that was judged.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::Value;

use super::answer::Refused;
use super::{json, protobuf};

/// How deep maps and lists may be nested. Objects of Kubernetes have fewer than 20 levels.
const DEEPEST: usize = 64;

/// The syntax of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    /// Kubernetes' own form of Protobuf.
    Protobuf,
    /// RFC 6902.
    JsonPatch,
    /// RFC 7386.
    MergePatch,
    /// "Use a strategic merge patch to update a Deployment" of the Kubernetes documentation.
    StrategicMergePatch,
    /// "Server-Side Apply" of the Kubernetes documentation.
    ApplyPatch,
}

impl Media {
    /// The media type of a request's body.
    ///
    /// # Errors
    /// The body has another type, such as CBOR, which the gateway doesn't read.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refused> {
        let mut all = headers.get_all(CONTENT_TYPE).iter();
        let (first, second) = (all.next(), all.next());
        let text = first.map_or(Ok("application/json"), |value| value.to_str()).unwrap_or_default();
        let (media, rest) = text.split_once(';').map_or((text, ""), |(media, rest)| (media, rest.trim()));
        let utf8 = rest.is_empty() || rest.eq_ignore_ascii_case("charset=utf-8");
        let known = match media.trim().to_ascii_lowercase().as_str() {
            "application/json" => Some(Self::Json),
            "application/yaml" => Some(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            "application/json-patch+json" => Some(Self::JsonPatch),
            "application/merge-patch+json" => Some(Self::MergePatch),
            "application/strategic-merge-patch+json" => Some(Self::StrategicMergePatch),
            "application/apply-patch+yaml" => Some(Self::ApplyPatch),
            _ => None,
        };
        known.filter(|_| utf8 && second.is_none() && !headers.contains_key(CONTENT_ENCODING)).ok_or_else(|| {
            Refused::new(
                415,
                "UnsupportedMediaType",
                "the gateway reads bodies in JSON, YAML and Kubernetes' Protobuf, without a content encoding",
            )
        })
    }

    pub fn is_patch(self) -> bool {
        !matches!(self, Self::Json | Self::Yaml | Self::Protobuf)
    }

    /// The media type under which the body is sent on. It is always written in JSON, which is YAML, too.
    pub fn written(self) -> &'static str {
        match self {
            Self::Json | Self::Yaml | Self::Protobuf => "application/json",
            Self::JsonPatch => "application/json-patch+json",
            Self::MergePatch => "application/merge-patch+json",
            Self::StrategicMergePatch => "application/strategic-merge-patch+json",
            Self::ApplyPatch => "application/apply-patch+yaml",
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// The body isn't one value of this syntax, has a key twice, or is nested too deeply.
    pub fn read(self, body: &[u8]) -> Result<Value, Refused> {
        let value = match self {
            Self::Yaml | Self::ApplyPatch => yaml(body),
            Self::Protobuf => protobuf::decode(body),
            _ => json(body),
        };
        value.map_err(|why| Refused::new(400, "BadRequest", format!("the body can't be read: {why}")))
    }
}

fn json(body: &[u8]) -> Result<Value, String> {
    json::read(body, DEEPEST).map_err(|e| e.to_string())
}

fn yaml(body: &[u8]) -> Result<Value, String> {
    // A client that writes JSON gets the strict reader, whose limits are known.
    if body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
        return json(body);
    }
    let text = std::str::from_utf8(body).map_err(|_| "it isn't UTF-8".to_owned())?;
    let values: Vec<Value> = serde_yaml::from_multiple(text).map_err(|e| e.without_snippet().to_string())?;
    let mut values = values.into_iter().filter(|value| !value.is_null());
    match (values.next(), values.next()) {
        (Some(value), None) if depth(&value) <= DEEPEST => Ok(value),
        (Some(_), None) => Err("it is nested too deeply".to_owned()),
        _ => Err("it isn't exactly one document".to_owned()),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_one_value_with_each_key_once() {
        let good = json!({"a": [1, -2, 0.5, null, true, {"b": "c"}], "d": 18_446_744_073_709_551_615_u64});
        assert_eq!(Media::Json.read(good.to_string().as_bytes()).unwrap(), good);
        assert_eq!(Media::Yaml.read(b"a: {b: c}\n").unwrap(), json!({"a": {"b": "c"}}));
        assert_eq!(Media::ApplyPatch.read(b" {\"a\": 1}").unwrap(), json!({"a": 1}));
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Media::Json.read(deep(DEEPEST).as_bytes()).is_ok());
        for body in [
            r#"{"a": 1, "a": 2}"#,
            r#"{"a": {"b": 1, "b": 1}}"#,
            r#"{"a": 1} {"b": 2}"#,
            "{",
            "",
            "nul",
            "\u{feff}{}",
            &deep(DEEPEST + 1),
            &deep(100_000),
            r#"{"a": NaN}"#,
            r#"{"a": 1,}"#,
        ] {
            assert!(Media::Json.read(body.as_bytes()).is_err(), "{body:.40}");
        }
        for body in ["a: 1\na: 2\n", "a: 1\n---\nb: 2\n", "", "a: [", &deep(100_000), "a: &x [*x]", "\u{0}"] {
            assert!(Media::Yaml.read(body.as_bytes()).is_err(), "{body:.40}");
        }
        assert!(Media::Json.read(b"{\"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn only_json_and_yaml_are_read() {
        let of = |types: &[&str]| {
            let mut headers = HeaderMap::new();
            for media in types {
                headers.append(CONTENT_TYPE, media.parse().unwrap());
            }
            Media::of(&headers)
        };
        assert_eq!(of(&[]).unwrap(), Media::Json);
        assert_eq!(of(&["application/json; charset=UTF-8"]).unwrap(), Media::Json);
        assert_eq!(of(&["Application/Apply-Patch+YAML"]).unwrap(), Media::ApplyPatch);
        for types in [
            &["application/protobuf"][..],
            &["application/cbor"],
            &["application/apply-patch+cbor"],
            &["text/plain"],
            &[""],
            &["application/json", "application/json"],
            &["application/json; charset=utf-7"],
            &["application/json, application/vnd.kubernetes.protobuf"],
        ] {
            assert_eq!(of(types).unwrap_err().status, 415, "{types:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]

        /// Any bytes are read or refused, and what was read is read in the same way again after it was written.
        #[test]
        fn a_body_that_is_read_is_the_body_that_is_sent(text in "[\\[\\]{}:,\"0-9a-e&*! \n.-]{0,60}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            for media in [Media::Json, Media::Yaml, Media::ApplyPatch, Media::Protobuf] {
                for body in [text.as_bytes(), &bytes, &[b"k8s\0".as_slice(), &bytes].concat()] {
                    if let Ok(value) = media.read(body) {
                        proptest::prop_assert_eq!(Media::Json.read(value.to_string().as_bytes()).unwrap(), value);
                    }
                }
            }
        }
    }
}
