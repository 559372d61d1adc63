//! Sessions in Pods: exec, attach and port-forward, over WebSocket and SPDY. The connection changes its protocol, and
//! then belongs to one session.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, Response, Version};

use super::answer::Refused;

const SUBPROTOCOL: &str = "sec-websocket-protocol";

/// Headers of the change of protocol that go to the API server.
const ASKED: &[&str] = &["sec-websocket-key", "sec-websocket-version", "x-stream-protocol-version"];
/// Headers of the change of protocol that come back.
const ANSWERED: &[&str] = &["sec-websocket-accept", "sec-websocket-protocol", "upgrade", "x-stream-protocol-version"];

/// The protocols of sessions (`k8s.io/apimachinery/pkg/util/remotecommand`, `k8s.io/kubelet/pkg/cri/streaming`).
/// WebSocket clients could also send a token as a protocol (`base64url.bearer.authorization.k8s.io.…`), which an API
/// server would read as a login.
const PROTOCOLS: &[&str] = &[
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "v2.channel.k8s.io",
    "v3.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v5.channel.k8s.io",
    "SPDY/3.1+portforward.k8s.io",
    "portforward.k8s.io",
];

/// The headers with which the API server is asked to change the protocol.
///
/// # Errors
/// The client doesn't ask for a change of protocol, or for one that isn't used by Kubernetes.
pub fn asked(version: Version, method: &Method, headers: &HeaderMap) -> Result<HeaderMap, Refused> {
    let unknown = |what: &str| Refused::bad(format!("this path opens a session, for which {what}"));
    if version != Version::HTTP_11 {
        return Err(unknown("the client must use HTTP/1.1"));
    }
    let mut all = headers.get_all(UPGRADE).iter();
    let protocol = match (all.next().and_then(|value| value.to_str().ok()), all.next()) {
        (Some(one), None) if one.eq_ignore_ascii_case("websocket") && *method == Method::GET => "websocket",
        (Some(one), None) if one.eq_ignore_ascii_case("SPDY/3.1") => "SPDY/3.1",
        _ => return Err(unknown("the client must ask for the protocol websocket (with GET) or SPDY/3.1")),
    };
    let mut sent = HeaderMap::new();
    sent.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    sent.insert(UPGRADE, HeaderValue::from_static(protocol));
    for value in headers.get_all(SUBPROTOCOL) {
        let text = value.to_str().unwrap_or_default();
        if text.split(',').any(|one| !PROTOCOLS.contains(&one.trim())) {
            return Err(unknown("a subprotocol isn't one of Kubernetes"));
        }
        sent.append(SUBPROTOCOL, value.clone());
    }
    for name in ASKED {
        for value in headers.get_all(*name) {
            sent.append(*name, value.clone());
        }
    }
    Ok(sent)
}

/// The headers of a change of protocol that the API server agreed to.
pub fn answered<B>(response: &Response<B>) -> HeaderMap {
    let mut sent = HeaderMap::new();
    sent.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    for name in ANSWERED {
        for value in response.headers().get_all(*name) {
            sent.append(*name, value.clone());
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::header::HeaderName;

    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_protocols_of_kubernetes_are_changed_to() {
        let good = headers(&[
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade, Impersonate-User"),
            ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io"),
            ("sec-websocket-key", "k"),
            ("impersonate-user", "admin"),
        ]);
        let sent = asked(Version::HTTP_11, &Method::GET, &good).unwrap();
        assert_eq!(sent.get(CONNECTION).unwrap(), "Upgrade");
        assert!(!sent.contains_key("impersonate-user"));
        assert!(asked(Version::HTTP_2, &Method::GET, &good).is_err());
        assert!(asked(Version::HTTP_11, &Method::POST, &good).is_err());
        for bad in [
            &[][..],
            &[("upgrade", "h2c")],
            &[("upgrade", "websocket"), ("upgrade", "SPDY/3.1")],
            &[("upgrade", "websocket"), ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.eHh4")],
            &[("upgrade", "websocket"), ("sec-websocket-protocol", "v5.channel.k8s.io,x")],
        ] {
            assert!(asked(Version::HTTP_11, &Method::GET, &headers(bad)).is_err(), "{bad:?}");
        }
    }
}
