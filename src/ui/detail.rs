//! Attributes and changes as lines of text, for all formats.

use serde_json::Value;
use similar::{Algorithm, ChangeTag, capture_diff_slices, group_diff_ops};

use super::text::{count, cut, past, plain, plain_lines, width};
use crate::engine::kind::Change;
use crate::engine::value::display;

/// The role of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Plain,
    Added,
    Removed,
    /// Context of a difference, or a remark.
    Dim,
    Alert,
}

/// One line below a resource's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Detail {
    pub depth: usize,
    pub mark: Mark,
    pub text: String,
}

impl Detail {
    pub fn new(depth: usize, mark: Mark, text: impl Into<String>) -> Self {
        Self { depth, mark, text: text.into() }
    }
}

/// All attributes of a state, except null ones.
pub(super) fn attributes(state: &Value) -> Vec<Detail> {
    let mut out = Vec::new();
    if let Value::Object(fields) = state {
        for (key, value) in fields {
            attribute(0, &format!("{}: ", plain(&display(key))), value, &mut out);
        }
    }
    out
}

fn attribute(depth: usize, lead: &str, value: &Value, out: &mut Vec<Detail>) {
    let mut line = |text: String| out.push(Detail::new(depth, Mark::Plain, text));
    match value {
        Value::Null => {}
        Value::Object(fields) if !fields.is_empty() => {
            line(lead.trim_end().to_owned());
            for (key, value) in fields {
                attribute(depth + 1, &format!("{}: ", plain(&display(key))), value, out);
            }
        }
        Value::Array(items) if items.iter().any(|v| v.is_object() || v.is_array()) => {
            line(lead.trim_end().to_owned());
            for item in items {
                element(depth + 1, item, out);
            }
        }
        Value::Array(items) if width(lead) + width(&compact(value)) > 80 => {
            line(lead.trim_end().to_owned());
            for item in items {
                attribute(depth + 1, "- ", item, out);
            }
        }
        Value::String(text) if text.trim_end().contains('\n') => {
            line(format!("{lead}|"));
            out.extend(plain_lines(&display(text)).into_iter().map(|l| Detail::new(depth + 1, Mark::Plain, l)));
        }
        value => line(format!("{lead}{}", compact(value))),
    }
}

/// An element of a list. Its first field follows the dash.
fn element(depth: usize, item: &Value, out: &mut Vec<Detail>) {
    let Value::Object(fields) = item else { return attribute(depth, "- ", item, out) };
    let first = out.len();
    for (key, value) in fields {
        attribute(depth + 1, &format!("{}: ", plain(&display(key))), value, out);
    }
    if let Some(line) = out.get_mut(first) {
        line.depth = depth;
        line.text = format!("- {}", line.text);
    }
}

/// A change on one line of about `room` columns.
pub(super) fn short(change: &Change, room: usize) -> Detail {
    let path = plain(&change.path);
    let fate = if change.replaces { " (forces replacement)" } else { "" };
    let room = room.saturating_sub(width(&path) + 2 + width(fate)).max(24);
    let text = match (&change.before, &change.after) {
        _ if change.secret => "changed (secret)".to_owned(),
        (Value::Array(before), Value::Array(after)) => {
            let (removed, added) = (missing(before, after), missing(after, before));
            let parts: Vec<String> = removed
                .iter()
                .map(|v| format!("- {}", compact(v)))
                .chain(added.iter().map(|v| format!("+ {}", compact(v))))
                .collect();
            match parts.is_empty() {
                true => "same elements in another order".to_owned(),
                false => cut(&parts.join(", "), room),
            }
        }
        (Value::String(before), Value::String(after)) if before.contains('\n') || after.contains('\n') => {
            let lines = difference(&plain_lines(&display(before)), &plain_lines(&display(after)), 0);
            let changed = lines.iter().filter(|l| l.mark != Mark::Dim).count();
            format!("{} changed (-v shows all)", count(changed, "line"))
        }
        (before, after) => pair(&compact(before), &compact(after), room),
    };
    let mark = if change.replaces { Mark::Alert } else { Mark::Plain };
    Detail::new(0, mark, format!("{path}: {text}{fate}"))
}

/// A change in full.
pub(super) fn full(change: &Change) -> Vec<Detail> {
    let path = plain(&change.path);
    let fate = if change.replaces { " (forces replacement)" } else { "" };
    let mark = if change.replaces { Mark::Alert } else { Mark::Plain };
    let nested = |v: &Value| match v {
        Value::Array(_) => true,
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => text.trim_end().contains('\n'),
        _ => false,
    };
    if change.secret || !(nested(&change.before) || nested(&change.after)) {
        let text = match change.secret {
            true => "changed (secret)".to_owned(),
            false => format!("{} → {}", compact(&change.before), compact(&change.after)),
        };
        return vec![Detail::new(0, mark, format!("{path}: {text}{fate}"))];
    }
    let mut out = vec![Detail::new(0, mark, format!("{path}:{fate}"))];
    let lines = difference(&pretty(&change.before), &pretty(&change.after), 2);
    out.extend(lines.into_iter().map(|l| Detail { depth: l.depth + 1, ..l }));
    out
}

/// The elements of `these` that `those` lacks. Repeated elements count.
fn missing<'a>(these: &'a [Value], those: &[Value]) -> Vec<&'a Value> {
    let mut left: Vec<&Value> = those.iter().collect();
    these
        .iter()
        .filter(|v| match left.iter().position(|w| w == v) {
            Some(i) => {
                left.swap_remove(i);
                false
            }
            None => true,
        })
        .collect()
}

/// `before → after` in `room` columns. Their common start is cut first.
fn pair(before: &str, after: &str, room: usize) -> String {
    if width(before) + width(after) + 3 <= room {
        return format!("{before} → {after}");
    }
    let common: String = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let half = room.saturating_sub(3) / 2;
    // Keeps as much of the end as fits. Differing text is cut only after all common text is cut.
    let end = |text: &str| {
        let skip = (width(text) + 2).saturating_sub(half).min(width(&common));
        match (skip > 2, text.starts_with('"')) {
            (false, _) => cut(text, half),
            (true, quoted) => {
                let quote = if quoted { "\"" } else { "" };
                cut(&format!("{quote}…{}", past(text, skip)), half)
            }
        }
    };
    format!("{} → {}", end(before), end(after))
}

/// A value on one line.
pub(super) fn compact(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => {
            let shown = display(text);
            match shown != *text && shown.starts_with("(known") {
                true => shown,
                false => plain(&Value::String(shown).to_string()),
            }
        }
        Value::Array(items) => format!("[{}]", items.iter().map(compact).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(k, v)| format!("{}: {}", plain(&display(k)), compact(v)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A value as lines to compare. A list of plain elements has one line for each element.
fn pretty(value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec![],
        Value::String(text) => plain_lines(&display(text)),
        Value::Array(items) if items.iter().all(|v| !v.is_object() && !v.is_array()) => {
            items.iter().map(compact).collect()
        }
        Value::Array(_) | Value::Object(_) => {
            let mut lines = Vec::new();
            let mut out = Vec::new();
            match value {
                Value::Array(items) => items.iter().for_each(|item| element(0, item, &mut out)),
                value => out = attributes(value),
            }
            lines.extend(out.into_iter().map(|d| format!("{}{}", "  ".repeat(d.depth), d.text)));
            lines
        }
        other => vec![other.to_string()],
    }
}

/// Removed and added lines, with `context` unchanged lines around them.
fn difference(before: &[String], after: &[String], context: usize) -> Vec<Detail> {
    let gap = |lines: usize| {
        let text = format!("… {} unchanged", count(lines, "line"));
        (lines > 0).then(|| Detail::new(0, Mark::Dim, text))
    };
    let mut out = Vec::new();
    let mut shown = 0;
    for group in group_diff_ops(capture_diff_slices(Algorithm::Myers, before, after), context) {
        let start = group.first().map_or(shown, |op| op.old_range().start);
        out.extend(gap(start - shown));
        for line in group.iter().flat_map(|op| op.iter_changes(before, after)) {
            let (lead, mark) = match line.tag() {
                ChangeTag::Insert => ("+", Mark::Added),
                ChangeTag::Delete => ("-", Mark::Removed),
                ChangeTag::Equal => (" ", Mark::Dim),
            };
            out.push(Detail::new(0, mark, format!("{lead} {}", line.value_ref())));
        }
        shown = group.last().map_or(start, |op| op.old_range().end);
    }
    out.extend(gap(before.len() - shown));
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::address::Address;
    use crate::engine::value::reference;
    use serde_json::json;

    fn change(before: Value, after: Value) -> Change {
        Change { path: "field".into(), before, after, replaces: false, secret: false }
    }

    fn shown(details: &[Detail]) -> String {
        details.iter().map(|d| format!("{}{}\n", "  ".repeat(d.depth), d.text)).collect()
    }

    #[test]
    fn short_changes() {
        let vpc = reference(&Address::new("pool/a/vpc"), "id");
        let line = |before, after| short(&change(before, after), 70).text;
        let lines = [
            line(json!(3), json!(5)),
            line(json!(null), json!("a\u{1b}[31mb")),
            line(json!(["a", "b"]), json!(["b", "c"])),
            line(json!(["a", "b"]), json!(["b", "a"])),
            line(json!("vpc-1"), json!(vpc)),
            line(json!("x"), json!(format!("prefix-{vpc}"))),
            line(json!("a\nb\nc"), json!("a\nB\nc\nd")),
            line(
                json!("arn:aws:iam::123456789012:role/ringfence/us-east-1/acme-old"),
                json!("arn:aws:iam::123456789012:role/ringfence/us-east-1/acme-new"),
            ),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        field: 3 → 5
        field: (none) → "a\u001b[31mb"
        field: - "a", + "c"
        field: same elements in another order
        field: "vpc-1" → (known after apply)
        field: "x" → "prefix-<pool/a/vpc.id>"
        field: 3 lines changed (-v shows all)
        field: "…ingfence/us-east-1/acme-old" → "…ingfence/us-east-1/acme-new"
        "#);
    }

    #[test]
    fn full_changes() {
        let policy = |actions: Value| {
            json!({"Version": "2012-10-17", "Statement": [
                {"Sid": "Read", "Effect": "Allow", "Action": actions, "Resource": "*"},
                {"Sid": "Pass", "Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"},
            ]})
        };
        let mut out = shown(&full(&change(
            policy(json!(["ec2:Describe*"])),
            policy(json!(["ec2:Describe*", "ec2:RunInstances"])),
        )));
        out += &shown(&full(&change(json!("one\ntwo\nthree\nfour\nfive"), json!("one\ntwo\nthree\nfour\n5"))));
        out += &shown(&full(&change(json!(["a", "b"]), json!(["b", "c"]))));
        out += &shown(&full(&Change { secret: true, ..change(json!("(secret)"), json!("(secret)")) }));
        insta::assert_snapshot!(out, @r#"
        field:
          … 2 lines unchanged
              - Sid: "Read"
                Effect: "Allow"
          -     Action: ["ec2:Describe*"]
          +     Action: ["ec2:Describe*", "ec2:RunInstances"]
                Resource: "*"
              - Sid: "Pass"
          … 3 lines unchanged
        field:
          … 2 lines unchanged
            three
            four
          - five
          + 5
        field:
          - "a"
            "b"
          + "c"
        field: changed (secret)
        "#);
    }

    #[test]
    fn attributes_are_a_tree() {
        let state = json!({
            "cidr": "10.64.0.0/16",
            "role": reference(&Address::new("pool/a/role"), "arn"),
            "gone": null,
            "zones": ["a", "b"],
            "tags": {"a/b": "c"},
            "rules": [{"from": 1, "to": [2, 3]}, {"from": 4}],
            "user_data": "[settings]\nx = 1\n",
            "empty": {},
        });
        insta::assert_snapshot!(shown(&attributes(&state)), @r#"
        cidr: "10.64.0.0/16"
        role: (known after apply)
        zones: ["a", "b"]
        tags:
          a/b: "c"
        rules:
          - from: 1
            to: [2, 3]
          - from: 4
        user_data: |
          [settings]
          x = 1
        empty: {}
        "#);
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other() {
        let words = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (a, b) in [("", "abc"), ("abc", ""), ("abcdef", "abxdef"), ("abcabba", "cbabac")] {
            let lines = difference(&words(a), &words(b), 100);
            let side = |skip: Mark| {
                lines.iter().filter(|l| l.mark != skip).map(|l| l.text.get(2..).unwrap()).collect::<String>()
            };
            assert_eq!(side(Mark::Added), a);
            assert_eq!(side(Mark::Removed), b);
        }
    }
}
