//! The body of a webhook's request and of its answer: `AdmissionReview` of `admission.k8s.io/v1` (Kubernetes
//! documentation, "Dynamic Admission Control").

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde_json::{Value, json};

use super::super::json;
use crate::guard::{Operation, Refusal, Request, User};

/// As API servers limit it for the objects that they take.
const DEEPEST: usize = 128;

#[derive(Debug)]
pub struct Review {
    pub uid: String,
    pub request: Request,
    /// The whole `userInfo`: an authorizer may look at its UID and its extra fields.
    pub user: Value,
}

impl Review {
    /// # Errors
    /// The body isn't an AdmissionReview of this version.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let mut review = json::read(body, DEEPEST).map_err(|e| e.to_string())?;
        if review.get("apiVersion") != Some(&"admission.k8s.io/v1".into())
            || review.get("kind") != Some(&"AdmissionReview".into())
        {
            return Err("the body isn't an AdmissionReview of admission.k8s.io/v1".to_owned());
        }
        let Some(Value::Object(fields)) = review.get_mut("request") else {
            return Err("request is missing".to_owned());
        };
        let mut taken = |name: &str| fields.remove(name).filter(|value| !value.is_null());
        let (object, old_object) = (taken("object"), taken("oldObject"));
        let request = review.get("request").unwrap_or(&Value::Null);
        let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let needed =
            |pointer: &str| text(pointer).map(str::to_owned).ok_or_else(|| format!("request{pointer} is missing"));
        let operation = match text("/operation") {
            Some("CREATE") => Operation::Create,
            Some("UPDATE") => Operation::Update,
            Some("DELETE") => Operation::Delete,
            Some("CONNECT") => Operation::Connect,
            _ => return Err("request/operation isn't known".to_owned()),
        };
        let groups = request.pointer("/userInfo/groups").and_then(Value::as_array).into_iter().flatten();
        let user = User {
            username: text("/userInfo/username").unwrap_or_default().to_owned(),
            groups: groups.filter_map(|group| group.as_str().map(str::to_owned)).collect(),
        };
        let asked = Request {
            operation,
            group: text("/resource/group").unwrap_or_default().to_owned(),
            version: needed("/resource/version")?,
            kind: needed("/kind/kind")?,
            resource: needed("/resource/resource")?,
            subresource: text("/subResource").map(str::to_owned),
            namespace: text("/namespace").map(str::to_owned),
            name: text("/name").unwrap_or_default().to_owned(),
            user,
            object,
            old_object,
            dry_run: request.get("dryRun") == Some(&Value::Bool(true)),
        };
        let whole_user = request.get("userInfo").cloned().unwrap_or_default();
        Ok(Self { uid: needed("/uid")?, request: asked, user: whole_user })
    }
}

/// The answer that admits the object, with these changes.
pub fn admitted(uid: &str, patch: &Patch) -> Value {
    let mut response = json!({"uid": uid, "allowed": true});
    if !patch.0.is_empty() {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = STANDARD.encode(json!(patch).to_string()).into();
    }
    answer(response)
}

/// The answer that refuses, with the status that the API server gives for its own policies.
pub fn refused(uid: &str, refusals: &[Refusal]) -> Value {
    let messages: Vec<&str> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
    let status = json!({"code": 422, "reason": "Invalid", "message": messages.join("; ")});
    answer(json!({"uid": uid, "allowed": false, "status": status}))
}

/// The answer of a webhook that can't judge now. The API server refuses the request, and the client may try again.
pub fn undecided(uid: &str, why: &str) -> Value {
    let status = json!({"code": 503, "reason": "ServiceUnavailable", "message": why});
    answer(json!({"uid": uid, "allowed": false, "status": status}))
}

fn answer(response: Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn review() -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "operation": "UPDATE", "name": "web", "namespace": "t-a",
            "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "subResource": "", "userInfo": {"username": "jo", "groups": ["a", "b"], "uid": "u", "extra": {"arn": ["x"]}},
            "object": {"a": 1}, "oldObject": null, "dryRun": true,
        }})
    }

    #[test]
    fn a_review_is_the_request_that_it_tells_of() {
        let Review { uid, request, user } = Review::read(review().to_string().as_bytes()).unwrap();
        assert_eq!(uid, "1");
        assert_eq!((request.operation, request.subresource), (Operation::Update, None));
        assert_eq!((request.group.as_str(), request.resource.as_str()), ("apps", "deployments"));
        assert_eq!((request.namespace.as_deref(), request.name.as_str()), (Some("t-a"), "web"));
        assert_eq!((request.object, request.old_object, request.dry_run), (Some(json!({"a": 1})), None, true));
        assert_eq!(request.user.groups, ["a", "b"]);
        assert_eq!((&user["uid"], &user["extra"]), (&json!("u"), &json!({"arn": ["x"]})));
    }

    #[test]
    fn what_is_no_review_is_an_error() {
        for (pointer, value) in [
            ("/apiVersion", json!("admission.k8s.io/v1beta1")),
            ("/kind", json!("Review")),
            ("/request", Value::Null),
            ("/request/uid", json!("")),
            ("/request/operation", json!("PATCH")),
            ("/request/resource/resource", json!(1)),
            ("/request/kind", Value::Null),
        ] {
            let mut review = review();
            *review.pointer_mut(pointer).unwrap() = value;
            assert!(Review::read(review.to_string().as_bytes()).is_err(), "{pointer}");
        }
        for body in ["", "{", "[]", "null", r#"{"kind": "AdmissionReview", "kind": "AdmissionReview"}"#] {
            assert!(Review::read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_change_is_a_json_patch_in_base64() {
        let patch = json_patch::diff(&json!({"a": {}}), &json!({"a": {"b/c": 1}}));
        let answer = admitted("7", &patch);
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        let text = STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), r#"[{"op":"add","path":"/a/b~1c","value":1}]"#);
        assert_eq!(admitted("7", &Patch::default())["response"], json!({"uid": "7", "allowed": true}));
    }
}
