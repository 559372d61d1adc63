//! Classifies failures of an API server, and of a proxy that answers in its
//! place.

use std::error::Error as StdError;

use serde_json::Value;

use crate::engine::error::{Class, Error};
use crate::engine::secret::hide;

/// The error for a missing answer. `help` is the remedy if the server can't be
/// reached.
pub fn transport(error: &kube::Error, cluster: &str, help: &str) -> Error {
    let links = chain(error);
    // The error text of a credential plugin contains its output, which may be a
    // token.
    if links.iter().any(|l| l.is::<kube::client::AuthError>()) || matches!(error, kube::Error::Auth(_)) {
        return Error::new(Class::Denied, format!("the kubeconfig gives no credentials for cluster {cluster}"))
            .help("try the same kubeconfig with kubectl, which shows the error of its credential plugin");
    }
    let connecting = links.iter().any(|l| {
        l.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(hyper_util::client::legacy::Error::is_connect)
    });
    let cause = match links.last().map(ToString::to_string).unwrap_or_default() {
        late if late.contains("deadline has elapsed") => NO_ANSWER.to_owned(),
        cause => cause,
    };
    if connecting && cause.contains("certificate") {
        Error::new(Class::Unreachable, format!("the API server of cluster {cluster} isn't trusted: {cause}"))
            .help("a proxy before the cluster may decrypt TLS, such as a company's proxy; or the certificate authority in the kubeconfig is no longer the cluster's")
    } else if connecting {
        Error::new(Class::Unreachable, format!("the API server of cluster {cluster} can't be reached: {cause}"))
            .help(help)
    } else {
        Error::new(Class::Unclear, format!("the connection to the API server of cluster {cluster} broke: {cause}"))
    }
}

const NO_ANSWER: &str = "no answer in time";

/// The error for an answer that didn't come within the time limit.
pub fn no_answer(cluster: &str) -> Error {
    Error::new(Class::Unclear, format!("the connection to the API server of cluster {cluster} broke: {NO_ANSWER}"))
}

/// The error for an answer with an error status. `login` names the refused login,
/// and the way to give it access.
pub fn status(status: u16, body: &[u8], cluster: &str, login: &str) -> Error {
    let Some(answer) = json(body).filter(|a| a.get("kind").and_then(Value::as_str) == Some("Status")) else {
        return match status {
            // The answer of the server's own router for a path that doesn't
            // exist.
            404 if body.starts_with(b"404 page not found") => {
                Error::new(Class::NotFound, "the API server has no such path")
            }
            _ => not_kubernetes(status, body, cluster),
        };
    };
    let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default();
    let (message, reason) = (text("message"), text("reason"));
    let cause = |wanted: &str| {
        let causes = answer.pointer("/details/causes").and_then(Value::as_array);
        causes.is_some_and(|all| all.iter().any(|c| c.get("reason").and_then(Value::as_str) == Some(wanted)))
    };
    let class = match (status, reason) {
        (401, _) => Class::Denied,
        (403, _) if cause("NamespaceTerminating") => Class::NotYet,
        (403, _) if refused(message) => Class::Invalid,
        (403, _) => Class::Denied,
        (404, _) => Class::NotFound,
        (409, "AlreadyExists") => Class::Exists,
        (409, _) => Class::Conflict,
        (429, _) => Class::Throttled,
        // The server answers 500 to an apply of an object with a wrong shape.
        (500, _) if misshapen(message) => Class::Invalid,
        (500.., _) => Class::Unclear,
        _ => Class::Invalid,
    };
    let said = match (status, message) {
        (401, _) => format!("the API server of cluster {cluster} doesn't accept the credentials"),
        (_, "") => format!("the API server of cluster {cluster} answered with HTTP {status}"),
        _ => format!("{} (the answer of the API server of cluster {cluster})", message.trim_end_matches('.')),
    };
    let mut error = Error::new(class, said);
    error.code = (!reason.is_empty()).then(|| hide(reason));
    error.help = (class == Class::Denied).then(|| login.to_owned());
    error
}

fn misshapen(message: &str) -> bool {
    ["failed to create typed patch object", "failed to convert new object"].iter().any(|text| message.starts_with(text))
}

/// True for a 403 that is about the object (from admission), not about the
/// caller's permissions.
fn refused(message: &str) -> bool {
    ["denied request", "denied the request", "exceeded quota", "violates PodSecurity", "limited to"]
        .iter()
        .any(|text| message.contains(text))
}

/// The error for an answer that isn't JSON, such as a proxy's HTML page.
pub fn not_kubernetes(status: u16, body: &[u8], cluster: &str) -> Error {
    // Secrets are hidden before the text is cut: half of a secret must not be
    // shown either.
    let start: String =
        hide(&String::from_utf8_lossy(body)).chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let class = if status >= 500 { Class::Unclear } else { Class::Unreachable };
    Error::new(
        class,
        format!(
            "the answer for cluster {cluster} isn't from a Kubernetes API server: HTTP {status}, beginning `{}`",
            start.trim()
        ),
    )
    .help("a proxy, a load balancer or a login page may have answered: check HTTPS_PROXY, NO_PROXY and --kubeconfig")
}

pub fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

/// The causes of `error`, outermost first.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |e: &&'a (dyn StdError + 'static)| (*e).source()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status_code: u16, body: &str) -> Error {
        status(status_code, body.as_bytes(), "acme-p-shared-1", "make an access entry")
    }

    #[test]
    fn refusals_of_people_and_of_objects_differ() {
        let rbac = of(
            403,
            r#"{"kind":"Status","reason":"Forbidden","message":"namespaces is forbidden: User \"x\" cannot list"}"#,
        );
        assert_eq!((rbac.class, rbac.help.as_deref()), (Class::Denied, Some("make an access entry")));
        let quota =
            of(403, r#"{"kind":"Status","reason":"Forbidden","message":"pods \"a\" is forbidden: exceeded quota: q"}"#);
        assert_eq!((quota.class, quota.help), (Class::Invalid, None));
        let leaving = of(
            403,
            r#"{"kind":"Status","reason":"Forbidden","message":"being terminated","details":{"causes":[{"reason":"NamespaceTerminating"}]}}"#,
        );
        assert_eq!(leaving.class, Class::NotYet);
        assert_eq!(
            of(401, r#"{"kind":"Status","reason":"Unauthorized","message":"Unauthorized"}"#).class,
            Class::Denied
        );
    }

    #[test]
    fn an_object_of_the_wrong_shape_isnt_tried_again() {
        let error = of(
            500,
            r#"{"kind":"Status","message":"failed to create typed patch object (/x; /v1, Kind=ConfigMap): .dota: field not declared in schema","code":500}"#,
        );
        assert_eq!(error.class, Class::Invalid);
        assert_eq!(
            of(500, r#"{"kind":"Status","reason":"InternalError","message":"etcdserver: timeout"}"#).class,
            Class::Unclear
        );
    }

    #[test]
    fn a_page_is_no_answer() {
        let page = of(200, "<html>\n<title>Sign in</title>");
        assert_eq!(page.class, Class::Unreachable);
        assert!(page.message.contains("HTTP 200, beginning `<html> <title>Sign in</title>`"), "{}", page.message);
        assert_eq!(of(404, "404 page not found\n").class, Class::NotFound);
        assert_eq!(of(502, "bad gateway").class, Class::Unclear);
    }
}
