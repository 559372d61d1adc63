//! Tokens of identity providers: signed JSON Web Tokens (RFC 7519 in the compact form of RFC 7515), verified by the
//! rules of RFC 8725, "JSON Web Token Best Current Practices".

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::http::{Http, Trust, is_loopback};
use super::keys::{Algorithm, Outcome};
use super::refused::Refused;
use super::rotation::{Origin, Rotation};
use super::time::Time;
use super::{Identity, Proof};
use crate::engine::error::{Error, Result};

/// Clocks of two computers differ by this much.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// The bytes of a user's name or of a key id.
const NAME: usize = 1024;
/// Parameters of a token's header that bring a key or say where one is (RFC 8725, 3.10: "Do not trust received
/// claims"), that change how the token is read (RFC 7515 `crit`, RFC 7797 `b64`), or that belong to encrypted and
/// nested tokens.
const FORBIDDEN: &[&str] = &["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "cty", "epk", "p2c", "p2s"];
/// RFC 8725, 3.11: other types are of other uses, such as `logout+jwt`, `secevent+jwt` and `dpop+jwt`.
const TYPES: &[&str] = &["jwt", "at+jwt"];

/// An identity provider, or a cluster's issuer of service account tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerConfig {
    /// The exact text of the claim `iss`.
    pub issuer: String,
    /// A token must be for one of these: the exact text of the claim `aud`. Otherwise a token that a user gave to
    /// another service would be good here.
    pub audiences: Vec<String>,
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// A file with a JSON Web Key Set. `None`: the keys are found by OpenID Connect Discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_file: Option<PathBuf>,
    /// A PEM file with the certificate authorities of the provider's servers. `None`: the operating system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<PathBuf>,
    /// The claim with the user's name for the audit log.
    #[serde(default = "default_username_claim")]
    pub username_claim: String,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Rs256, Algorithm::Es256]
}

fn default_username_claim() -> String {
    "sub".to_owned()
}

/// The issuers of a gateway, by the exact text of `iss`.
pub(super) struct Issuers {
    all: BTreeMap<String, Issuer>,
    time: Time,
}

struct Issuer {
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    username_claim: String,
    rotation: Arc<Rotation>,
}

/// A token's parts, before any of them is verified.
struct Parts<'a> {
    algorithm: Algorithm,
    key: Option<String>,
    claims: Map<String, Value>,
    /// The header and the claims, which the signature is about.
    message: &'a [u8],
    signature: &'a str,
}

impl Issuers {
    pub(super) fn new(configs: Vec<IssuerConfig>, time: &Time) -> Result<Self> {
        let (mut all, mut system) = (BTreeMap::new(), None);
        for config in configs {
            check(&config)?;
            let origin = match (&config.keys_file, &config.certificate_authority) {
                (Some(path), _) => Origin::File(path.clone()),
                (None, authority) => {
                    let http = match authority {
                        Some(path) => Http::new(&Trust::File(path), time.clone())?,
                        None if config.issuer.starts_with("http://") => Http::new(&Trust::Nobody, time.clone())?,
                        // Reading the system's certificates takes time: once for all issuers.
                        None => match &system {
                            Some(http) => Http::clone(http),
                            None => system.insert(Http::new(&Trust::System, time.clone())?).clone(),
                        },
                    };
                    Origin::Discovery { issuer: config.issuer.clone(), http: Box::new(http) }
                }
            };
            let issuer = Issuer {
                audiences: config.audiences,
                algorithms: config.algorithms,
                username_claim: config.username_claim,
                rotation: Rotation::new(origin, time.clone()),
            };
            if all.insert(config.issuer.clone(), issuer).is_some() {
                return Err(Error::input(format!("the issuer `{}` is configured twice", config.issuer))
                    .help("name all its audiences in one entry"));
            }
        }
        Ok(Self { all, time: time.clone() })
    }

    /// Fetches all keys, if they weren't just fetched.
    pub(super) async fn refresh(&self) {
        futures::future::join_all(self.all.values().map(|issuer| issuer.rotation.refresh())).await;
    }

    /// The issuers whose keys couldn't be fetched the last time, and why.
    pub(super) fn failures(&self) -> Vec<(&str, &'static str)> {
        self.all.iter().filter_map(|(name, issuer)| issuer.rotation.failure().map(|why| (name.as_str(), why))).collect()
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Identity, Refused> {
        let parts = Parts::read(token)?;
        // The claim isn't verified yet. It only chooses among configured issuers, whose keys decide alone.
        let name = parts.claims.get("iss").and_then(Value::as_str).ok_or(Refused::Issuer)?;
        let issuer = self.all.get(name).ok_or(Refused::Issuer)?;
        if !issuer.algorithms.contains(&parts.algorithm) {
            return Err(Refused::Algorithm);
        }
        issuer.verify_signature(&parts).await?;
        let now = self.time.now();
        let expires = dates(&parts.claims, now)?;
        issuer.verify_audience(&parts.claims)?;
        parts.claims.get("sub").and_then(Value::as_str).filter(|s| !s.is_empty()).ok_or(Refused::Subject)?;
        let user = parts.claims.get(&issuer.username_claim).and_then(Value::as_str).ok_or(Refused::Username)?;
        // A name with a line break could write lines of its own into a log.
        if user.is_empty() || user.len() > NAME || user.chars().any(char::is_control) {
            return Err(Refused::Username);
        }
        // With the issuer, as API servers prefix names by default: two issuers may both have an `admin`.
        let (user, issuer) = (format!("{name}#{user}"), name.to_owned());
        Ok(Identity { name: user, proof: Proof::Token { issuer, claims: parts.claims }, expires: Some(expires) })
    }
}

impl Issuer {
    async fn verify_signature(&self, parts: &Parts<'_>) -> Result<(), Refused> {
        let id = parts.key.as_deref();
        let held = self.rotation.keys().await?;
        let mut outcome = held.keys.verify(id, parts.algorithm, parts.message, parts.signature);
        // A key with the token's id is known, so other keys have other ids. Without an id, the one key may be old.
        let may_be_rotated = outcome == Outcome::NoKey || outcome == Outcome::Wrong && id.is_none();
        if may_be_rotated && let Some(newer) = self.rotation.newer(&held).await {
            outcome = newer.keys.verify(id, parts.algorithm, parts.message, parts.signature);
        }
        match outcome {
            Outcome::Verified => Ok(()),
            Outcome::Wrong => Err(Refused::Signature),
            Outcome::NoKey => Err(Refused::UnknownKey),
        }
    }

    /// RFC 7519, 4.1.3: one text, or a list of texts.
    fn verify_audience(&self, claims: &Map<String, Value>) -> Result<(), Refused> {
        let ours = |audience: &str| self.audiences.iter().any(|a| a == audience);
        let is_for_us = match claims.get("aud") {
            Some(Value::String(audience)) => ours(audience),
            Some(Value::Array(list)) => {
                list.iter().all(Value::is_string) && list.iter().filter_map(Value::as_str).any(ours)
            }
            _ => false,
        };
        if is_for_us { Ok(()) } else { Err(Refused::Audience) }
    }
}

impl<'a> Parts<'a> {
    fn read(token: &'a str) -> Result<Self, Refused> {
        let (message, signature) = token.rsplit_once('.').ok_or(Refused::NotJwt)?;
        let (header, claims) = message.split_once('.').ok_or(Refused::NotJwt)?;
        // An encrypted token has five parts.
        if claims.contains('.') {
            return Err(Refused::NotJwt);
        }
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::NotJwt);
        let header = super::json::object(&part(header)?).ok_or(Refused::Json)?;
        if FORBIDDEN.iter().any(|name| header.contains_key(*name)) {
            return Err(Refused::HeaderParameter);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let algorithm = algorithm.ok_or(Refused::Algorithm)?;
        match header.get("typ") {
            None => {}
            Some(Value::String(typ)) if is_allowed(typ) => {}
            Some(_) => return Err(Refused::Type),
        }
        let key = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if !id.is_empty() && id.len() <= NAME => Some(id.clone()),
            Some(_) => return Err(Refused::KeyId),
        };
        let claims = super::json::object(&part(claims)?).ok_or(Refused::Json)?;
        Ok(Self { algorithm, key, claims, message: message.as_bytes(), signature })
    }
}

/// RFC 7515, 4.1.9: a media type, without regard to case, and usually without `application/`.
fn is_allowed(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

/// Checks the claims with dates. Returns when the token expires.
///
/// `jsonwebtoken` isn't asked: up to 10.2 it took a date of another JSON type for a missing one (CVE-2026-25537).
fn dates(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, Refused> {
    let date = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => timestamp(number).ok_or(Refused::Dates).map(Some),
        Some(_) => Err(Refused::Dates),
    };
    let (expires, begins, issued) = (date("exp")?.ok_or(Refused::Dates)?, date("nbf")?, date("iat")?);
    let later = now.saturating_add(SKEW).unwrap_or(now);
    if now.saturating_sub(SKEW).unwrap_or(now) >= expires {
        return Err(Refused::Expired);
    }
    if begins.is_some_and(|begins| begins > later) {
        return Err(Refused::NotYetValid);
    }
    if issued.is_some_and(|issued| issued > later) {
        return Err(Refused::IssuedInFuture);
    }
    Ok(expires)
}

/// RFC 7519, 2: a NumericDate may have a fraction.
fn timestamp(number: &serde_json::Number) -> Option<Timestamp> {
    let seconds = match number.as_i64() {
        Some(seconds) => seconds,
        // A conversion from a float saturates, and `Timestamp` refuses what is out of its range.
        #[allow(clippy::cast_possible_truncation)]
        None => number.as_f64().filter(|s| s.is_finite())?.floor() as i64,
    };
    Timestamp::from_second(seconds).ok().filter(|date| date.as_second() >= 0)
}

fn check(config: &IssuerConfig) -> Result<()> {
    let wrong = |what: &str, help: &str| {
        Err(Error::input(format!("the issuer `{}` can't be used: {what}", config.issuer)).help(help))
    };
    if config.issuer.is_empty() {
        return wrong("it is empty", "write the exact text of the claim `iss`");
    }
    if config.audiences.is_empty() || config.audiences.iter().any(String::is_empty) {
        return wrong("it has no audience", "name the gateway's client id at the issuer under `audiences`");
    }
    if config.algorithms.is_empty() {
        return wrong("it has no algorithm", "leave `algorithms` out for RS256 and ES256");
    }
    if config.username_claim.is_empty() {
        return wrong("its claim for names is empty", "leave `usernameClaim` out for `sub`");
    }
    if let Some(path) = &config.keys_file {
        let document = std::fs::read(path).map_err(|e| {
            Error::input(format!(
                "the keys of the issuer `{}` can't be read from `{}`: {e}",
                config.issuer,
                path.display()
            ))
            .help("write a JSON Web Key Set to the file")
        })?;
        if super::keys::KeySet::read(&document).is_none_or(|keys| keys.is_empty()) {
            return wrong("its file has no usable key", "write a JSON Web Key Set with public keys to the file");
        }
        return Ok(());
    }
    // OpenID Connect Discovery 1.0, 4, and 3 (`issuer`): https, without query and fragment.
    let uri: Option<Uri> = config.issuer.parse().ok();
    let authority = uri.as_ref().and_then(Uri::authority).map_or("@", |a| a.as_str());
    let is_url = uri.as_ref().is_some_and(|u| u.scheme_str() == Some("https") || is_http(u) && is_loopback(u));
    if !is_url || authority.contains('@') || config.issuer.contains(['?', '#']) {
        return wrong(
            "it isn't an https URL without user, query and fragment",
            "correct the URL, or name a file with its keys under `keysFile`",
        );
    }
    Ok(())
}

fn is_http(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
}

#[cfg(test)]
mod tests;
