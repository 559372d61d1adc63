//! Members of IAM's requests, lists, tags and errors.

use super::super::pages::{Pages, paged};
use super::super::tags::{Tags, check_tag};
use super::super::wire::{Fault, Reply, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// Characters that IAM doesn't encode when it URL-encodes a policy document (RFC 3986).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(super) fn list(req: &Request, list: &str, all: impl Iterator<Item = (String, Value)>) -> Reply {
    const PAGES: Pages = Pages { size: "MaxItems", token: "Marker", next: "Marker", usual: 100, most: 1000 };
    let mut reply = paged(req, &PAGES, list, all).map_err(|why| Fault::new(400, "ValidationError", why))?;
    reply["IsTruncated"] = reply.get("Marker").is_some().into();
    Ok(reply)
}

pub(super) fn encoded(document: &str) -> String {
    utf8_percent_encode(document, ENCODED).to_string()
}

pub(super) fn required(req: &Request, name: &str) -> Result<String, Fault> {
    req.text(name).ok_or_else(|| {
        let at = name.chars().enumerate().map(|(n, c)| if n == 0 { c.to_ascii_lowercase() } else { c });
        let message = format!(
            "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null",
            at.collect::<String>()
        );
        Fault::new(400, "ValidationError", message)
    })
}

pub(super) fn name(req: &Request, member: &str, longest: usize) -> Result<String, Fault> {
    let name = required(req, member)?;
    if name.chars().count() > longest {
        let constraint = format!("Member must have length less than or equal to {longest}");
        return Err(invalid(&name, member, &constraint));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)) {
        let message = "The specified value for the name is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-";
        return Err(Fault::new(400, "ValidationError", message.replace("the name", member)));
    }
    Ok(name)
}

pub(super) fn path(req: &Request) -> Result<String, Fault> {
    let Some(path) = req.text("Path") else { return Ok("/".to_owned()) };
    let shaped = path.starts_with('/') && path.ends_with('/') && path.chars().all(|c| ('!'..='~').contains(&c));
    if !shaped || path.len() > 512 {
        let message = "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.";
        return Err(Fault::new(400, "ValidationError", message));
    }
    Ok(path)
}

pub(super) fn description(req: &Request) -> Result<Option<String>, Fault> {
    match req.text("Description") {
        Some(text) if text.chars().count() > 1000 => {
            Err(invalid(&text, "description", "Member must have length less than or equal to 1000"))
        }
        text => Ok(text),
    }
}

/// Tags of a request, checked by IAM's rules, which EC2 and others share: at most 50 tags; keys of 1–128 and values of
/// at most 256 characters; letters, digits, spaces and `_.:/=+-@`; `aws:` is reserved.
pub(super) fn new_tags(req: &Request) -> Result<Tags, Fault> {
    let mut tags = Tags::new();
    for tag in req.items("Tags") {
        let of = |name: &str| tag[name].as_str().unwrap_or_default().to_owned();
        let (key, value) = (of("Key"), of("Value"));
        check_tag(&key, &value).map_err(|(at, constraint)| {
            invalid(if at == "key" { &key } else { &value }, &format!("tags.1.member.{at}"), &constraint)
        })?;
        if tags.keys().any(|other| other.eq_ignore_ascii_case(&key)) {
            let message = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
            return Err(Fault::new(400, "InvalidInput", message));
        }
        tags.insert(key, value);
    }
    if tags.len() > 50 {
        return Err(invalid("[…]", "tags", "Member must have length less than or equal to 50"));
    }
    Ok(tags)
}

pub(super) fn tag(tags: &mut Tags, req: &Request, kind: &str) -> Reply {
    let mut all = tags.clone();
    all.extend(new_tags(req)?);
    at_most(all.len(), 50, &format!("TagsPer{kind}"))?;
    *tags = all;
    Ok(json!({}))
}

pub(super) fn untag(tags: &mut Tags, req: &Request) -> Reply {
    for key in req.texts("TagKeys") {
        tags.remove(&key);
    }
    Ok(json!({}))
}

pub(super) fn list_tags(tags: &Tags, req: &Request) -> Reply {
    list(req, "Tags", tags.iter().map(|(key, value)| (key.clone(), json!({"Key": key, "Value": value}))))
}

pub(super) fn wire_tags(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

pub(super) fn invalid(value: &str, at: &str, constraint: &str) -> Fault {
    let message =
        format!("1 validation error detected: Value '{value}' at '{at}' failed to satisfy constraint: {constraint}");
    Fault::new(400, "ValidationError", message)
}

pub(super) fn conflict(message: &str) -> Fault {
    Fault::new(409, "DeleteConflict", message)
}

pub(super) fn no_such(message: String) -> Fault {
    Fault::new(404, "NoSuchEntity", message)
}

pub(super) fn at_most(count: usize, most: usize, quota: &str) -> Result<(), Fault> {
    if count > most { Err(over(quota, most as f64)) } else { Ok(()) }
}

pub(super) fn over(quota: &str, limit: f64) -> Fault {
    Fault::new(409, "LimitExceeded", format!("Cannot exceed quota for {quota}: {limit}"))
}
