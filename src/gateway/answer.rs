//! Answers to clients, in the form that an API server's have.

use std::io;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::response::Parts;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::attributes::Attributes;
use crate::guard::Refusal;

/// Headers of an answer that go back to the client.
const ANSWERED: &[&str] =
    &["audit-id", "cache-control", "content-encoding", "content-type", "etag", "retry-after", "vary", "warning"];

pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer of the gateway itself that is no success.
#[derive(Clone, Debug)]
pub struct Refused {
    pub status: u16,
    /// One of the API server's reasons, such as `Forbidden`.
    pub reason: &'static str,
    pub message: String,
    /// The policy or limit that refuses, for the audit log.
    pub rule: Option<String>,
    details: Option<Box<Value>>,
    retry_after: Option<u32>,
}

impl Refused {
    pub fn new(status: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into(), rule: None, details: None, retry_after: None }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// The same refusal with the name of the rule that it comes from.
    pub fn rule(self, rule: impl Into<String>) -> Self {
        Self { rule: Some(rule.into()), ..self }
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// The same answer for what isn't allowed and for what isn't there.
    pub fn forbidden(user: &str, attributes: &Attributes) -> Self {
        let Attributes { verb, group, namespace, name, .. } = attributes;
        let resource = attributes.in_roles();
        let place = match namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        let named = name.as_ref().map_or(String::new(), |name| format!(" \"{name}\""));
        let message = format!(
            "{resource}{named} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \
             \"{group}\" {place}"
        );
        let details = json!({"name": name, "group": group, "kind": attributes.resource});
        Self {
            details: Some(Box::new(details)),
            rule: Some("rights".to_owned()),
            ..Self::new(403, "Forbidden", message)
        }
    }

    /// The answer to a request that policies refuse: the first refusal as the API server writes it, and the others as
    /// causes.
    pub fn denied(attributes: &Attributes, refusals: &[Refusal]) -> Self {
        let resource = attributes.in_roles();
        let named = attributes.name.as_ref().map_or(String::new(), |name| format!(" \"{name}\""));
        let first = refusals.first().map(ToString::to_string).unwrap_or_default();
        let causes: Vec<Value> = refusals
            .iter()
            .map(|refusal| json!({"reason": refusal.policy, "message": refusal.message, "field": refusal.fields.join(", ")}))
            .collect();
        let details =
            json!({"name": attributes.name, "group": attributes.group, "kind": attributes.resource, "causes": causes});
        let rules: Vec<&str> =
            refusals.iter().map(|refusal| refusal.control.as_deref().unwrap_or(&refusal.policy)).collect();
        Self {
            details: Some(Box::new(details)),
            rule: Some(rules.join(",")),
            // ValidatingAdmissionPolicies refuse with this status unless they name another reason.
            ..Self::new(422, "Invalid", format!("{resource}{named} is forbidden: {first}"))
        }
    }

    pub fn too_many(what: &'static str) -> Self {
        Self {
            rule: Some(what.to_owned()),
            retry_after: Some(1),
            ..Self::new(
                429,
                "TooManyRequests",
                format!("too many requests: the limit of this tenant for {what} is reached"),
            )
        }
    }

    pub fn response(&self) -> Response<Body> {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.status,
        });
        let mut response = json_response(self.status, &status);
        let headers = response.headers_mut();
        if self.status == 401 {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

pub fn json_response(status: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(whole(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer of the API server, with the headers that concern the client.
pub fn answered(parts: &Parts, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    for name in ANSWERED {
        for value in parts.headers.get_all(*name) {
            response.headers_mut().append(*name, value.clone());
        }
    }
    response
}
