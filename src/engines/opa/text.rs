//! Pieces of Rego's text.

/// A text as a term.
pub fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A rule that is true if all literals hold.
pub fn rule(name: &str, body: &[String]) -> String {
    format!("{name}{}", condition(body))
}

/// The body of a rule.
pub fn condition(body: &[String]) -> String {
    match body.is_empty() {
        true => " if true".to_owned(),
        false => format!(" if {{\n\t{}\n}}", body.join("\n\t")),
    }
}
