//! Compares two answers, and explains known differences.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::wire::Answer;

const KNOWN: &str = include_str!("../../../docs/sandbox-differences.md");
/// Longer values are cut. The beginning is enough to recognise a value.
const SHOWN: usize = 60;

/// A difference between an answer and the sandbox's answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// Service, operation, and the number of the call.
    pub call: String,
    /// The path of the member, or `error`.
    #[serde(rename = "where")]
    pub at: String,
    pub sandbox: String,
    pub other: String,
    /// The explanation: which side is right, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
}

/// Values from earlier answers, by name.
pub type Kept = BTreeMap<String, String>;

pub fn differences(call: &str, sandbox: (&Answer, &Kept), other: (&Answer, &Kept)) -> BTreeSet<Difference> {
    let mut all = BTreeSet::new();
    let mut put = |at: &str, sandbox: String, other: String| {
        all.insert(Difference { call: call.to_owned(), at: at.to_owned(), sandbox, other, known: None });
    };
    match (sandbox.0, other.0) {
        (Answer::Done(one), Answer::Done(two)) => differ("", &normal(one, sandbox.1), &normal(two, other.1), &mut put),
        (one, two) if one != two => put("error", told(one), told(two)),
        _ => {}
    }
    all
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Done(_) => "none".to_owned(),
        Answer::Refused(code) => code.clone(),
        Answer::Lost(why) => why.clone(),
    }
}

/// For clients, a missing list and an empty list are the same.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
        _ => false,
    }
}

fn differ(at: &str, one: &Value, two: &Value, put: &mut dyn FnMut(&str, String, String)) {
    match (one, two) {
        (one, two) if is_empty(one) && is_empty(two) => {}
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                differ(&at, a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null), put);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            // The order of a list has no meaning, so each item is compared with the most similar one.
            let mut rest: Vec<&Value> = b.iter().collect();
            for one in a {
                let apart = |two: &Value| {
                    let mut count = 0;
                    differ("", one, two, &mut |_, _, _| count += 1);
                    count
                };
                let closest = (0..rest.len()).min_by_key(|n| rest.get(*n).map(|two| apart(two)));
                if let Some(n) = closest {
                    differ(&format!("{at}[]"), one, rest.remove(n), put);
                }
            }
        }
        (one, two) if one != two => put(at, shown(one), shown(two)),
        _ => {}
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        value if is_empty(value) => return "absent".to_owned(),
        Value::Array(list) => return format!("{} items", list.len()),
        Value::Object(_) => return "present".to_owned(),
        Value::String(text) => text.replace(['|', '\n'], " "),
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), |n| n.to_string()),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// `value` without the parts that differ in every run.
fn normal(value: &Value, kept: &Kept) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, one)| (name.clone(), normal(one, kept)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(|one| normal(one, kept)).collect(),
        Value::Number(n) if n.as_f64().is_some_and(|n| n > 1e9) => "<seconds>".into(),
        // For clients, 30 and 30.0 are the same.
        Value::Number(n) => n.as_f64().map_or_else(|| value.clone(), Into::into),
        Value::String(text) => plain(text, kept).into(),
        other => other.clone(),
    }
}

fn plain(text: &str, kept: &Kept) -> String {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    // IAM returns policy documents URL-encoded.
    let mut text = if text.starts_with("%7B") { decoded.into_owned() } else { text.to_owned() };
    if let Ok(document) = serde_json::from_str::<Value>(&text)
        && document.is_object()
    {
        text = document.to_string();
    }
    let mut named: Vec<_> = kept.iter().filter(|(_, value)| value.len() > 5).collect();
    named.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    for (name, value) in named {
        text = text.replace(value, &format!("${name}"));
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        out.push_str(&generic(token));
        let next = after.find(word).unwrap_or(after.len());
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    let digits = |text: &str| text.starts_with("20") && text.as_bytes().get(10) == Some(&b'T');
    if digits(&text) {
        return "<time>".to_owned();
    }
    if text.parse::<std::net::Ipv4Addr>().is_ok() { "<address>".to_owned() } else { out }
}

/// A word. An id is replaced by its kind.
fn generic(word: &str) -> String {
    let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
    if let Some((before, id)) = word.split_at_checked(word.len().saturating_sub(36))
        && id.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && id.split('-').all(hex)
    {
        return format!("{before}<uuid>");
    }
    let capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    match word.rsplit_once('-') {
        Some((prefix, id)) if prefix.starts_with(char::is_lowercase) && [8, 17].contains(&id.len()) && hex(id) => {
            format!("<{prefix}>")
        }
        None if word.len() == 32 && hex(word) => "<hex>".to_owned(),
        None if word.len() >= 16 && word.starts_with('A') && word.chars().all(capital) => "<unique>".to_owned(),
        _ => word.to_owned(),
    }
}

/// A line of the table of known differences. `*` stands for anything.
#[derive(Debug)]
pub struct Row {
    cells: [&'static str; 4],
    why: &'static str,
}

impl Row {
    /// All lines of the table, in its order. The first match is the explanation.
    pub fn all() -> Vec<Self> {
        let lines = KNOWN.lines().skip_while(|line| !line.starts_with("|-"));
        let rows = lines.skip(1).filter_map(|line| {
            let mut cells = line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim);
            let mut cell = || Some(cells.next()?.trim_matches('`'));
            Some(Self { cells: [cell()?, cell()?, cell()?, cell()?], why: cell()? })
        });
        rows.collect()
    }

    pub fn explains(&self, difference: &Difference) -> bool {
        let Difference { call, at, sandbox, other, .. } = difference;
        self.cells.iter().zip([call, at, sandbox, other]).all(|(pattern, text)| fits(pattern, text))
    }

    pub fn why(&self) -> &'static str {
        self.why
    }

    /// The title of the line.
    pub fn title(&self) -> String {
        self.cells[..2].join(" ")
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.any(|at| fits(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn found(one: Value, two: Value) -> Vec<(String, String, String)> {
        let kept = |id: &str| Kept::from([("vpc".to_owned(), id.to_owned())]);
        let (a, b) = (kept("vpc-00000000000000001"), kept("vpc-00000000000000002"));
        let all = differences("x", (&Answer::Done(one), &a), (&Answer::Done(two), &b));
        all.into_iter().map(|d| (d.at, d.sandbox, d.other)).collect()
    }

    #[test]
    fn ids_and_times_are_no_difference_and_other_references_are() {
        let answer = |vpc: &str, at: f64, rule: &str| json!({"vpc": {"id": vpc, "at": at, "rules": [rule, "b"]}});
        let one = answer("vpc-00000000000000001", 1_795_639_845.5, "sgr-0aaaaaaaaaaaaaaa1");
        assert!(
            found(one.clone(), answer("vpc-00000000000000002", 1_795_639_999.0, "sgr-0bbbbbbbbbbbbbbb1")).is_empty()
        );
        let strange = answer("vpc-00000000000000003", 1_795_639_845.5, "sgr-0aaaaaaaaaaaaaaa1");
        assert_eq!(found(one, strange), [("vpc.id".into(), "$vpc".into(), "<vpc>".into())]);
    }

    #[test]
    fn what_is_empty_is_absent() {
        assert!(found(json!({"a": [], "b": {"c": ""}}), json!({"b": null})).is_empty());
        let differences = found(json!({"a": [1, 2], "b": "x|y"}), json!({"a": [1]}));
        let told = |at: &str, one: &str, two: &str| (at.to_owned(), one.to_owned(), two.to_owned());
        assert_eq!(differences, [told("a", "2 items", "1 items"), told("b", "x y", "absent")]);
    }

    #[test]
    fn an_error_differs_from_success_and_from_other_errors() {
        let refused = |code: &str| Answer::Refused(code.to_owned());
        let kept = Kept::new();
        let at = |one: &Answer, two: &Answer| differences("x", (one, &kept), (two, &kept)).len();
        assert_eq!(at(&refused("A"), &refused("A")), 0);
        assert_eq!(at(&refused("A"), &refused("B")), 1);
        assert_eq!(at(&refused("A"), &Answer::Done(json!({}))), 1);
    }

    #[test]
    fn rows_are_matched_with_stars() {
        assert!(fits("ec2:*Vpc*", "ec2:CreateVpc too large") && fits("*", "") && fits("a", "a"));
        assert!(!fits("ec2:*Vpc", "ec2:CreateVpc too large") && !fits("a*", "b"));
    }
}
