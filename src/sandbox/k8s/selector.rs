//! Label selectors.

use super::answer::{Failure, bad_request};
use serde_json::Value;

/// One requirement of a label selector.
pub(super) struct Requirement {
    key: String,
    values: Vec<String>,
    /// True: the label must exist, with one of `values` (any value if `values` is empty). False: the opposite.
    wanted: bool,
}

impl Requirement {
    pub fn fits(&self, labels: &Value) -> bool {
        let has = labels[self.key.as_str()]
            .as_str()
            .is_some_and(|label| self.values.is_empty() || self.values.iter().any(|value| value == label));
        has == self.wanted
    }
}

/// `a=b,c!=d,e in (f,g),h,!i`.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, Failure> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match parts.last_mut() {
            Some(part) if c != ',' || depth > 0 => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    let one = |part: &str| {
        let part = part.trim();
        let requirement =
            |key: &str, values: Vec<String>, wanted| Requirement { key: key.trim().to_owned(), values, wanted };
        let set = |list: &str| {
            list.trim()
                .trim_start_matches('(')
                .trim_end_matches(')')
                .split(',')
                .map(|value| value.trim().to_owned())
                .collect()
        };
        if let Some((key, list)) = part.split_once(" notin ") {
            requirement(key, set(list), false)
        } else if let Some((key, list)) = part.split_once(" in ") {
            requirement(key, set(list), true)
        } else if let Some((key, value)) = part.split_once("!=") {
            requirement(key, vec![value.trim().to_owned()], false)
        } else if let Some((key, value)) = part.split_once('=') {
            requirement(key, vec![value.trim_start_matches('=').trim().to_owned()], true)
        } else if let Some(key) = part.strip_prefix('!') {
            requirement(key, Vec::new(), false)
        } else {
            requirement(part, Vec::new(), true)
        }
    };
    let all: Vec<Requirement> = parts.iter().filter(|part| !part.trim().is_empty()).map(|part| one(part)).collect();
    match all.iter().find(|one| one.key.is_empty() || one.key.contains([' ', '(', ')'])) {
        Some(_) => Err(bad_request(&format!("unable to parse requirement: {text:?}"))),
        None => Ok(all),
    }
}
