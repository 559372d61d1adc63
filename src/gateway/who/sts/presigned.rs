//! The presigned request in a token. It is taken apart and put together again: STS gets only checked values, in the
//! spelling of Signature Version 4, whatever the token's own spelling was.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::super::refused::Refused;
use super::PREFIX;

/// aws-iam-authenticator, `maxTokenLenBytes`.
const TOKEN: usize = 4096;
/// "presigned STS urls are valid for 15 minutes after timestamp in x-amz-date" (aws-iam-authenticator,
/// `presignedURLExpiration`).
const LIFE: SignedDuration = SignedDuration::from_mins(15);
/// A client's clock may be ahead by this much. STS itself allows 5 minutes.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// Characters that Signature Version 4 doesn't escape.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The allowed parameters in lower case, and whether each must be there.
const PARAMETERS: [(&str, bool); 9] = [
    ("action", true),
    ("version", true),
    ("x-amz-algorithm", true),
    ("x-amz-credential", true),
    ("x-amz-date", true),
    ("x-amz-expires", true),
    ("x-amz-security-token", false),
    ("x-amz-signature", true),
    ("x-amz-signedheaders", true),
];

/// A checked request. Neither its query nor anything else of it may get into a log.
pub(super) struct Presigned {
    pub(super) host: String,
    pub(super) query: String,
    pub(super) expires: Timestamp,
}

impl Presigned {
    /// Checks a token. `region_of` returns the region of an allowed host.
    pub(super) fn read<'a>(
        token: &str,
        region_of: impl Fn(&str) -> Option<&'a str>,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        if token.len() > TOKEN {
            return Err(Refused::TooLong);
        }
        let url = token.strip_prefix(PREFIX).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let url = url.and_then(|url| String::from_utf8(url).ok()).ok_or(Refused::AwsEncoding)?;
        // The text itself is compared, up to the query. No URL has to be parsed, so no trick with users, ports, dots
        // and backslashes needs a rule.
        let (host, query) = url
            .strip_prefix("https://")
            .and_then(|rest| rest.split_once("/?"))
            .filter(|(host, _)| region_of(host).is_some())
            .ok_or(Refused::AwsHost)?;
        let region = region_of(host).ok_or(Refused::AwsHost)?;
        let parameters = parameters(query)?;
        let expires = check(&parameters, region, now)?;
        let encoded =
            parameters.values().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, &UNRESERVED)));
        let query = encoded.collect::<Vec<_>>().join("&");
        Ok(Self { host: host.to_owned(), query, expires })
    }
}

/// The parameters by their names in lower case, each with the name as it is signed.
fn parameters(query: &str) -> Result<BTreeMap<String, (String, String)>, Refused> {
    let mut all = BTreeMap::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or(Refused::AwsQuery)?;
        let lower = name.to_ascii_lowercase();
        if !PARAMETERS.iter().any(|(allowed, _)| *allowed == lower) {
            return Err(Refused::AwsParameter);
        }
        if all.insert(lower, (name.to_owned(), decoded(value)?)).is_some() {
            return Err(Refused::AwsTwice);
        }
    }
    let missing = |name: &str| all.get(name).is_none_or(|(_, value): &(_, String)| value.is_empty());
    if PARAMETERS.iter().any(|(name, required)| (*required || all.contains_key(*name)) && missing(name)) {
        return Err(Refused::AwsMissing);
    }
    Ok(all)
}

/// A value without its escapes. Servers differ about the meaning of `+`, `;` and of broken escapes, and no client of
/// AWS writes them.
fn decoded(value: &str) -> Result<String, Refused> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%/:,=@!$'()*".contains(&b);
    let bytes = value.as_bytes();
    let is_escape = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let broken = bytes.iter().enumerate().any(|(at, b)| !plain(*b) || *b == b'%' && !is_escape(at));
    let decoded = percent_decode_str(value).decode_utf8().map_err(|_| Refused::AwsQuery)?;
    if broken || !decoded.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refused::AwsQuery);
    }
    Ok(decoded.into_owned())
}

/// Checks the values. Returns when the token expires.
fn check(parameters: &BTreeMap<String, (String, String)>, region: &str, now: Timestamp) -> Result<Timestamp, Refused> {
    let value = |name: &str| parameters.get(name).map(|(_, value)| value.as_str()).ok_or(Refused::AwsMissing);
    if value("action")? != "GetCallerIdentity" || value("version")? != "2011-06-15" {
        return Err(Refused::AwsAction);
    }
    let signature = value("x-amz-signature")?;
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if value("x-amz-algorithm")? != "AWS4-HMAC-SHA256" || signature.len() != 64 || !signature.bytes().all(is_hex) {
        return Err(Refused::AwsAlgorithm);
    }
    let mut signed: Vec<_> = value("x-amz-signedheaders")?.split(';').map(str::to_ascii_lowercase).collect();
    signed.sort();
    if signed != ["host", "x-k8s-aws-id"] {
        return Err(Refused::AwsSignedHeaders);
    }
    let seconds = value("x-amz-expires")?;
    let is_number = seconds.len() <= 3 && seconds.bytes().all(|b| b.is_ascii_digit());
    if !is_number || seconds.parse().is_ok_and(|seconds: u16| seconds > 900) {
        return Err(Refused::AwsExpires);
    }
    let text = value("x-amz-date")?;
    let date = date(text).ok_or(Refused::AwsDate)?;
    let scope: Vec<_> = value("x-amz-credential")?.split('/').collect();
    let day = text.get(..8).unwrap_or_default();
    match scope.as_slice() {
        [key, on, at, "sts", "aws4_request"] if is_key(key) && *on == day && *at == region => {}
        _ => return Err(Refused::AwsScope),
    }
    if date > now.saturating_add(AHEAD).unwrap_or(now) {
        return Err(Refused::NotYetValid);
    }
    let expires = date.checked_add(LIFE).map_err(|_| Refused::AwsDate)?;
    if now >= expires { Err(Refused::Expired) } else { Ok(expires) }
}

/// IAM API Reference, "AccessKey": 16 to 128 word characters.
fn is_key(text: &str) -> bool {
    (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A date such as `20261123T060000Z`.
fn date(text: &str) -> Option<Timestamp> {
    let (day, time) = text.strip_suffix('Z')?.split_once('T')?;
    let is_number = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(day, 8) || !is_number(time, 6) {
        return None;
    }
    let number = |text: &str, at: usize| text.get(at..at + 2)?.parse().ok();
    let date = DateTime::new(
        day.get(..4)?.parse().ok()?,
        number(day, 4)?,
        number(day, 6)?,
        number(time, 0)?,
        number(time, 2)?,
        number(time, 4)?,
        0,
    );
    Some(date.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}
