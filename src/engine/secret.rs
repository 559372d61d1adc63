//! The only module that hides credentials. A server, a proxy or a library may quote in its messages what it was sent.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

static KEPT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The characters that SigV4 encodes in a query.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const HIDDEN: &str = "(hidden)";

/// From now on, no error and no log shows `secret`.
pub fn keep(secret: &str) {
    // A shorter text is no credential, and would match in ordinary text.
    if secret.len() >= 12 {
        // Presigned URLs contain the session token in the encoded form.
        let forms = [secret.to_owned(), utf8_percent_encode(secret, RESERVED).to_string()];
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).extend(forms);
    }
}

/// `text` without registered secrets, without signatures of requests and tokens made of them, and without user names
/// and passwords in URLs.
pub fn hide(text: &str) -> String {
    let mut text = text.to_owned();
    for secret in KEPT.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        text = text.replace(secret, HIDDEN);
    }
    for begins in ["Signature=", "k8s-aws-v1."] {
        text = after(&text, begins, |rest| rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)));
    }
    // A credential plugin's keys, which were never registered here.
    text = after(&text, "Bearer ", |rest| {
        let end = rest.find(|c: char| c.is_whitespace() || "\"'<`,".contains(c)).unwrap_or(rest.len());
        Some(if end < 20 { 0 } else { end })
    });
    after(&text, "://", |rest| {
        let end = rest.find(|c: char| c.is_whitespace() || "/?#\"'<>`".contains(c)).unwrap_or(rest.len());
        Some(rest.get(..end)?.rfind('@').unwrap_or_default())
    })
}

/// Hides the text after each of `begins`, up to the end that `end` returns, or all of the rest.
fn after(text: &str, begins: &str, end: impl Fn(&str) -> Option<usize>) -> String {
    let mut parts = text.split(begins);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for rest in parts {
        out.push_str(begins);
        let at = end(rest).unwrap_or(rest.len());
        if at > 0 {
            out.push_str(HIDDEN);
        }
        out.push_str(rest.get(at..).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_hidden_and_nothing_else() {
        keep("a-token-of-a-test+/=");
        keep("short");
        assert_eq!(hide("x a-token-of-a-test+/=, short"), "x (hidden), short");
        assert_eq!(hide("&X-Amz-Security-Token=a-token-of-a-test%2B%2F%3D&"), "&X-Amz-Security-Token=(hidden)&");
        assert_eq!(hide("SignedHeaders=host, Signature=0aF9</p>"), "SignedHeaders=host, Signature=(hidden)</p>");
        assert_eq!(hide("?X-Amz-Signature=0a"), "?X-Amz-Signature=(hidden)");
        assert_eq!(hide("k8s-aws-v1.aHR0_-9 was refused"), "k8s-aws-v1.(hidden) was refused");
        assert_eq!(hide("'Bearer 0123456789abcdefghij' isn't"), "'Bearer (hidden)' isn't");
        assert_eq!(hide("Bearer tokens aren't"), "Bearer tokens aren't");
        assert_eq!(hide("http://me:p@ss@proxy:3128/x@y"), "http://(hidden)@proxy:3128/x@y");
        assert_eq!(
            hide("https://sts.amazonaws.com: refused, me@there"),
            "https://sts.amazonaws.com: refused, me@there"
        );
    }
}
