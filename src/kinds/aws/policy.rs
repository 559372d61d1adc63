//! The canonical form of policy documents, so that AWS's answer can be compared with the sent document.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// A policy document in its canonical form. Keys are sorted. `Statement` is a list. Lists of actions, resources,
/// principals and condition values are sorted without duplicates, and a list with one element is a plain string. AWS
/// treats these forms as equal (IAM User Guide, "Grammar of the IAM JSON policy language").
///
/// A reference is sorted by its own text and not by its value, so a list with a reference must have no other element.
pub fn canonical(document: &Value) -> Value {
    let Value::Object(document) = document else {
        return document.clone();
    };
    sorted(document.iter().map(|(key, value)| {
        let value = match (key.as_str(), value) {
            ("Statement", Value::Array(statements)) => statements.iter().map(statement).collect(),
            ("Statement", single) => Value::Array(vec![statement(single)]),
            _ => value.clone(),
        };
        (key.clone(), value)
    }))
}

/// The canonical form of a document that a service returns: JSON, or percent-encoded JSON as IAM returns. Any other
/// text stays a string, which differs from every document that we write.
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&percent_decode_str(text).decode_utf8_lossy()))
        .map_or_else(|_| Value::String(text.to_owned()), |document| canonical(&document))
}

fn statement(value: &Value) -> Value {
    let Value::Object(statement) = value else {
        return value.clone();
    };
    sorted(statement.iter().map(|(key, value)| {
        let value = match key.as_str() {
            "Action" | "NotAction" | "Resource" | "NotResource" => set(value),
            "Principal" | "NotPrincipal" => each(value, set),
            "Condition" => each(value, |operator| each(operator, set)),
            _ => value.clone(),
        };
        (key.clone(), value)
    }))
}

/// Applies `form` to each value of an object. Other values are unchanged.
fn each(value: &Value, form: impl Fn(&Value) -> Value) -> Value {
    match value {
        Value::Object(map) => sorted(map.iter().map(|(k, v)| (k.clone(), form(v)))),
        other => other.clone(),
    }
}

/// A set of strings, or its only element. IAM treats booleans and numbers as strings.
fn set(value: &Value) -> Value {
    let Value::Array(items) = value else {
        return text(value);
    };
    let mut items: Vec<Value> = items.iter().map(text).collect();
    items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    items.dedup();
    match items.as_slice() {
        [only] => only.clone(),
        _ => Value::Array(items),
    }
}

fn text(value: &Value) -> Value {
    match value {
        Value::Bool(_) | Value::Number(_) => Value::String(value.to_string()),
        other => other.clone(),
    }
}

fn sorted(entries: impl Iterator<Item = (String, Value)>) -> Value {
    let mut entries: Vec<(String, Value)> = entries.collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Object(entries.into_iter().collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn forms_that_mean_the_same_become_equal() {
        let sent = json!({
            "Version": "2012-10-17",
            "Statement": {
                "Sid": "Cluster",
                "Effect": "Allow",
                "Principal": {"Service": ["eks.amazonaws.com"], "AWS": ["b", "a", "a"]},
                "Action": ["sts:TagSession", "sts:AssumeRole"],
                "Resource": ["*"],
                "Condition": {"Bool": {"aws:SecureTransport": true}, "StringEquals": {"aws:SourceAccount": ["1"]}},
            },
        });
        let back = json!({
            "Statement": [{
                "Condition": {"StringEquals": {"aws:SourceAccount": "1"}, "Bool": {"aws:SecureTransport": "true"}},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Resource": "*",
                "Principal": {"AWS": ["a", "b"], "Service": "eks.amazonaws.com"},
                "Effect": "Allow",
                "Sid": "Cluster",
            }],
            "Version": "2012-10-17",
        });
        let canonical_text = canonical(&sent).to_string();
        assert_eq!(canonical_text, canonical(&back).to_string());
        assert_eq!(canonical_text, canonical(&canonical(&sent)).to_string());
    }

    #[test]
    fn order_of_statements_and_values_with_meaning_stay() {
        let document = json!({"Statement": [{"Effect": "Deny", "Action": "b"}, {"Effect": "Allow", "Action": "a"}]});
        let form = canonical(&document);
        assert_eq!(form.pointer("/Statement/0/Action").unwrap(), "b");
        assert_eq!(
            canonical(&json!({"Statement": [{"Principal": "*"}]})).pointer("/Statement/0/Principal").unwrap(),
            "*"
        );
    }

    #[test]
    fn encoded_plain_and_broken_documents() {
        let plain = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],"Resource":"arn:aws:s3:::a+b/%41"}]}"#;
        let encoded = percent_encoding::utf8_percent_encode(plain, percent_encoding::NON_ALPHANUMERIC).to_string();
        assert_eq!(parse(&encoded), parse(plain));
        assert_eq!(parse(plain).pointer("/Statement/0/Resource").unwrap(), "arn:aws:s3:::a+b/%41");
        assert_eq!(parse("<html>"), json!("<html>"));
        assert_eq!(parse(""), json!(""));
    }
}
