//! Checks the structure of a document against its JSON Schema. It supports the keywords that schemars derives from
//! [`super::document`] and [`super::settings`], except `pattern`: [`super::checks`] checks these values and explains
//! mistakes in words.
//!
//! Unknown fields are removed from the tree, and wrong values are marked invalid. So later checks see only values of
//! the right shape, and each mistake is reported once.

use serde_json::Value as Json;

use super::error::{Code, SpecError};
use super::findings::{Findings, describe};
use super::tree::{Entry, Mark, Node, Value};
use super::words::{join, list, nearest, one_of, quote};

/// Checks `node` against `schema`. `path` is its place in the document.
pub fn check(schema: &Json, node: &mut Node, path: &str, findings: &mut Findings) {
    let mark = node.mark.clone();
    Walker { root: schema, findings }.node(schema, node, path, &mark);
}

struct Walker<'a> {
    root: &'a Json,
    findings: &'a mut Findings,
}

impl<'a> Walker<'a> {
    /// `name` is the mark of the value's key. Errors about missing fields are shown there.
    fn node(&mut self, schema: &'a Json, node: &mut Node, path: &str, name: &Mark) {
        if matches!(node.value, Value::Null) && allows_null(schema) {
            return;
        }
        let schema = self.resolve(schema);
        let choices = choices(schema);
        if !choices.is_empty() {
            self.choice(&choices, node, path);
            return;
        }
        let types = types(schema);
        if !types.is_empty() && !types.iter().any(|t| has_type(t, node)) {
            self.wrong_type(schema, &types, node, path);
            return;
        }
        match &mut node.value {
            Value::Map(entries) => self.map(schema, entries, path, name),
            Value::List(items) => {
                if let Some(schema) = schema.get("items") {
                    for (i, item) in items.iter_mut().enumerate() {
                        // A list's entry has no key of its own, so a missing field is shown at the entry's first key.
                        let name = item.entries().first().map_or(&item.mark, |first| &first.key_mark).clone();
                        self.node(schema, item, &format!("{path}[{i}]"), &name);
                    }
                }
            }
            _ => {}
        }
        self.bounds(schema, node, path);
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        while let Some(name) = schema.get("$ref").and_then(Json::as_str) {
            match self.root.pointer(name.trim_start_matches('#')) {
                Some(target) => schema = target,
                None => return schema,
            }
        }
        // schemars writes an optional type as `anyOf: [type, null]`.
        match schema.get("anyOf").and_then(Json::as_array) {
            Some(any) => match any.iter().find(|s| s.get("type").and_then(Json::as_str) != Some("null")) {
                Some(first) => self.resolve(first),
                None => schema,
            },
            None => schema,
        }
    }

    fn map(&mut self, schema: &'a Json, entries: &mut Vec<Entry>, path: &str, name: &Mark) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let additional = schema.get("additionalProperties");
        let required: Vec<&str> =
            schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        let closed = additional == Some(&Json::Bool(false));
        let present: Vec<String> = entries.iter().map(|e| e.key.clone()).collect();
        let mut meant: Vec<&str> = Vec::new();
        entries.retain_mut(|entry| {
            let here = join(path, &entry.key);
            let known = properties.and_then(|p| p.get_key_value(&entry.key));
            match known {
                Some((key, _)) if matches!(entry.value.value, Value::Null) && self.absent_is_fine(schema, key) => false,
                Some((_, schema)) => {
                    self.node(schema, &mut entry.value, &here, &entry.key_mark);
                    true
                }
                None if closed => {
                    let free = properties.into_iter().flat_map(|p| p.keys()).map(String::as_str);
                    let free: Vec<&str> = free.filter(|k| !present.iter().any(|p| p == k)).collect();
                    let near = nearest(&entry.key, free.iter().copied());
                    meant.extend(near);
                    let help = match near {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if free.is_empty() => "remove it; all possible fields are set already".to_owned(),
                        None => format!("other possible fields are {}", list(free)),
                    };
                    let message = format!("there is no field {}", quote(&entry.key));
                    self.findings.error(SpecError::new(Code::UnknownField, here, &entry.key_mark, message).help(help));
                    false
                }
                None => {
                    if let Some(schema) = additional.filter(|s| s.is_object()) {
                        self.node(schema, &mut entry.value, &here, &entry.key_mark);
                    }
                    true
                }
            }
        });
        for key in required {
            if present.iter().any(|p| p == key) || meant.contains(&key) {
                continue;
            }
            let field = properties.and_then(|p| p.get(key)).map(|f| self.resolve(f));
            let example = field.and_then(example);
            let about = field.and_then(|f| f.get("description")).and_then(Json::as_str);
            let help = match (example, about) {
                (Some(example), Some(about)) => format!("add `{key}: {example}`. {about}"),
                (Some(example), None) => format!("add `{key}: {example}`"),
                (None, Some(about)) => format!("add `{key}:`. {about}"),
                (None, None) => format!("add `{key}:`"),
            };
            let message = format!("`{key}` is missing");
            self.findings.error(SpecError::new(Code::MissingField, join(path, key), name, message).help(help));
        }
    }

    /// True if a key without a value may count as a missing key.
    fn absent_is_fine(&self, schema: &Json, key: &str) -> bool {
        let required = schema.get("required").and_then(Json::as_array);
        let field = schema.get("properties").and_then(|p| p.get(key));
        let is_required = required.is_some_and(|r| r.iter().any(|k| k == key));
        // In a merge patch, `null` removes a value if the schema allows it.
        !is_required && field.is_some_and(|f| f.get("default").is_some() || f.get("$ref").is_some())
    }

    fn choice(&mut self, choices: &[&Json], node: &mut Node, path: &str) {
        let given = match &node.value {
            Value::Invalid => return,
            Value::Text(text) => Some(Json::from(text.clone())),
            Value::Number { int, .. } => int.map(Json::from),
            _ => None,
        };
        if given.as_ref().is_some_and(|g| choices.contains(&g)) {
            return;
        }
        let names: Vec<String> = choices.iter().map(|c| plain(c)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (message, help) = match &node.value {
            Value::Text(text) => {
                let stripped = text.strip_prefix("CAP_").filter(|rest| names.contains(rest));
                let help = match stripped {
                    Some(rest) => format!("write it without `CAP_`: `{rest}`"),
                    None => one_of(text, &names),
                };
                (format!("{} is not a possible value", quote(text)), help)
            }
            _ => (format!("{} is not a possible value", describe(node)), one_of("", &names)),
        };
        self.findings.error(SpecError::new(Code::BadValue, path, &node.mark, message).help(help));
        node.value = Value::Invalid;
    }

    fn wrong_type(&mut self, schema: &Json, types: &[&str], node: &mut Node, path: &str) {
        if matches!(node.value, Value::Invalid) {
            return;
        }
        let wanted = types.iter().find(|t| **t != "null").copied().unwrap_or("null");
        let help = match (wanted, &node.value) {
            ("string", Value::Number { raw, .. }) => format!("put it in quotes: \"{raw}\""),
            ("string", Value::Bool(b)) => format!("put it in quotes: \"{b}\""),
            ("integer", Value::Text(text)) if text.parse::<i64>().is_ok() => format!("write it without quotes: {text}"),
            ("integer", Value::Number { .. }) => "write a whole number".to_owned(),
            ("boolean", Value::Text(text)) if matches!(text.to_lowercase().as_str(), "yes" | "on" | "y") => {
                "write `true`".to_owned()
            }
            ("boolean", Value::Text(text)) if matches!(text.to_lowercase().as_str(), "no" | "off" | "n") => {
                "write `false`".to_owned()
            }
            ("array", Value::Text(text)) => format!("write a list: [{}]", quote(text).trim_matches('`')),
            ("object", _) => match schema.get("properties").and_then(Json::as_object) {
                Some(p) => {
                    format!(
                        "write `key: value` lines below it; possible keys are {}",
                        list(p.keys().map(String::as_str))
                    )
                }
                None => "write `key: value` lines below it".to_owned(),
            },
            _ => match example(schema) {
                Some(example) => format!("write a value such as {example}"),
                None => format!("write {}", type_name(wanted)),
            },
        };
        let message = format!("the value must be {}, but it is {}", type_name(wanted), describe(node));
        self.findings.error(SpecError::new(Code::WrongType, path, &node.mark, message).help(help));
        node.value = Value::Invalid;
    }

    /// Ranges and lengths.
    fn bounds(&mut self, schema: &Json, node: &mut Node, path: &str) {
        let bound = |key: &str| schema.get(key).and_then(Json::as_i64);
        let (size, low, high, unit) = match &node.value {
            Value::Number { int: Some(int), .. } => (*int, bound("minimum"), bound("maximum"), ""),
            Value::Text(text) => (length(text.chars().count()), bound("minLength"), bound("maxLength"), " characters"),
            Value::List(items) => (length(items.len()), bound("minItems"), bound("maxItems"), " entries"),
            Value::Map(entries) => (length(entries.len()), bound("minProperties"), bound("maxProperties"), " entries"),
            _ => return,
        };
        if low.is_none_or(|low| size >= low) && high.is_none_or(|high| size <= high) {
            return;
        }
        let (message, is_number) = match &node.value {
            Value::Number { .. } => (format!("{size} is out of range"), true),
            _ if size == 0 => ("the value is empty".to_owned(), false),
            _ => (format!("the value has {size}{unit}"), false),
        };
        let range = match (low, high) {
            (Some(low), Some(high)) => format!("allowed: {low} to {high}{unit}"),
            (Some(low), None) => format!("allowed: at least {low}{unit}"),
            (None, Some(high)) => format!("allowed: at most {high}{unit}"),
            (None, None) => return,
        };
        self.findings.error(SpecError::new(Code::BadValue, path, &node.mark, message).help(range));
        if is_number {
            node.value = Value::Invalid;
        }
    }
}

/// The values of an enumeration. schemars writes them in three ways.
fn choices(schema: &Json) -> Vec<&Json> {
    let mut found: Vec<&Json> = Vec::new();
    let variants = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    for part in std::iter::once(schema).chain(variants) {
        found.extend(part.get("const"));
        found.extend(part.get("enum").and_then(Json::as_array).into_iter().flatten());
    }
    found
}

fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => vec![],
    }
}

/// True if the value may be null. schemars writes this as a second type, or as a second alternative.
fn allows_null(schema: &Json) -> bool {
    let any = schema.get("anyOf").and_then(Json::as_array).into_iter().flatten();
    std::iter::once(schema).chain(any).any(|s| types(s).contains(&"null"))
}

fn has_type(name: &str, node: &Node) -> bool {
    matches!(
        (&node.value, name),
        (Value::Null, "null")
            | (Value::Bool(_), "boolean")
            | (Value::Number { .. }, "number")
            | (Value::Number { int: Some(_), .. }, "integer")
            | (Value::Text(_), "string")
            | (Value::List(_), "array")
            | (Value::Map(_), "object")
    )
}

fn type_name(name: &str) -> &'static str {
    match name {
        "null" => "nothing",
        "boolean" => "`true` or `false`",
        "number" => "a number",
        "integer" => "a whole number",
        "string" => "text",
        "array" => "a list",
        _ => "a mapping",
    }
}

fn example(schema: &Json) -> Option<String> {
    match choices(schema).as_slice() {
        [only] => Some(plain(only)),
        _ => Some(schema.get("examples")?.as_array()?.first()?.to_string()),
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
