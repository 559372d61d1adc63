//! Answers of the API server, and its error texts.

use super::super::wire::{HttpRequest, HttpResponse};
use super::kinds::Kind;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An error answer of the API server: HTTP status, reason, message, details.
pub(super) struct Failure(pub u16, pub &'static str, pub String, pub Value);

pub(super) type Answer = Result<(u16, Value), Failure>;

pub(super) fn respond(req: &HttpRequest, answer: Answer) -> HttpResponse {
    let (status, body) = answer.unwrap_or_else(|Failure(code, reason, message, details)| {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
            "details": details, "code": code,
        });
        (code, status)
    });
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let body = if req.method == "HEAD" { Vec::new() } else { body.to_string().into_bytes() };
    HttpResponse { status, headers, body }
}

/// Conflicts (manager, field) as the API server words them.
pub(super) fn conflict(conflicts: &[(String, String)]) -> Failure {
    let causes = conflicts.iter().map(|(manager, field)| {
        json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field})
    });
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (manager, field) in conflicts {
        fields.entry(manager).or_default().push_str(&format!("\n- {field}"));
    }
    let told = match conflicts {
        [(manager, field)] => format!("1 conflict: conflict with {manager}: {field}"),
        _ => {
            let told: Vec<String> =
                fields.iter().map(|(manager, fields)| format!("conflicts with {manager}:{fields}")).collect();
            format!("{} conflicts: {}", conflicts.len(), told.join("\n"))
        }
    };
    Failure(409, "Conflict", format!("Apply failed with {told}"), json!({"causes": causes.collect::<Value>()}))
}

pub(super) fn details(kind: &Kind, name: &str) -> Value {
    json!({"name": name, "group": kind.group, "kind": kind.resource})
}

pub(super) fn unknown_path() -> Failure {
    not_found("the server could not find the requested resource")
}

pub(super) fn not_found(message: &str) -> Failure {
    Failure(404, "NotFound", message.to_owned(), json!({}))
}

pub(super) fn bad_request(message: &str) -> Failure {
    Failure(400, "BadRequest", message.to_owned(), json!({}))
}
