//! URLs and URIs as far as a spec holds them. Both are compared as texts, so only one form of each is accepted.

use std::net::Ipv6Addr;

/// The mistake in an https URL. `None` if the text is `https://HOST[:PORT][/PATH]`. "OpenID Connect Core 1.0", section
/// 2, allows an issuer no query and no fragment.
pub fn https_mistake(text: &str) -> Option<&'static str> {
    let Some(rest) = text.strip_prefix("https://") else { return Some("it doesn't begin with `https://`") };
    if let Some(mistake) = characters(rest) {
        return Some(mistake);
    }
    if rest.contains(['?', '#']) {
        return Some("it has a query or a fragment");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Some("it has a user name");
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address are within the brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|p| p > 0);
    if port.is_some_and(|port| !is_port(port)) {
        return Some("its port is not a number from 1 to 65535");
    }
    (!is_host(host)).then_some("it has no valid host")
}

/// The mistake in an absolute URI. `None` if it has a scheme and more. RFC 5280, section 4.2.1.6, has the rules of URIs
/// in certificates.
pub fn uri_mistake(text: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = text.split_once(':') else { return Some("it has no scheme") };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b);
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.bytes().all(allowed) {
        return Some("it has no scheme in lowercase letters");
    }
    if rest.trim_start_matches('/').is_empty() {
        return Some("it has nothing after its scheme");
    }
    if rest.contains('*') {
        return Some("it has a wildcard, but it is compared exactly");
    }
    characters(rest)
}

/// RFC 3986, appendix A.
fn characters(text: &str) -> Option<&'static str> {
    let wrong = |b: u8| !b.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&b);
    text.bytes().any(wrong).then_some("it has a space or another character that a URL can't have")
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let label = |s: &str| {
        let edges = !s.starts_with('-') && !s.ends_with('-');
        (1..=63).contains(&s.len()) && edges && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_one_form() {
        for right in [
            "https://login.example.com",
            "https://login.example.com/",
            "https://login.example.com:8443/realms/a%20b",
            "https://10.0.0.1",
            "https://[fd00::1]:8443",
            "https://[fd00::1]/a",
            "https://localhost",
        ] {
            assert_eq!(https_mistake(right), None, "{right}");
        }
        for (wrong, part) in [
            ("", "begin"),
            ("http://a.example", "begin"),
            ("HTTPS://a.example", "begin"),
            ("https://", "host"),
            ("https:///a", "host"),
            ("https://a..b", "host"),
            ("https://-a.example", "host"),
            ("https://a_b.example", "host"),
            ("https://[fd00::g]", "host"),
            ("https://a.example:", "port"),
            ("https://a.example:0", "port"),
            ("https://a.example:65536", "port"),
            ("https://a.example:+1", "port"),
            ("https://u@a.example", "user name"),
            ("https://u:p@a.example", "user name"),
            ("https://a.example/x?y", "query"),
            ("https://a.example#y", "fragment"),
            ("https://a.example/x y", "character"),
            ("https://a.example\\x", "character"),
            ("https://ä.example", "character"),
        ] {
            assert!(https_mistake(wrong).is_some_and(|m| m.contains(part)), "{wrong}: {:?}", https_mistake(wrong));
        }
    }

    #[test]
    fn uris_are_absolute_and_exact() {
        for right in ["spiffe://globex.example/ci", "urn:uuid:1-2", "https://globex.example/ci"] {
            assert_eq!(uri_mistake(right), None, "{right}");
        }
        for wrong in ["", "ci", "://x", "Spiffe://x", "spiffe:", "spiffe://", "spiffe://x/*", "spiffe://x y", "9p://x"]
        {
            assert!(uri_mistake(wrong).is_some(), "{wrong}");
        }
    }
}
