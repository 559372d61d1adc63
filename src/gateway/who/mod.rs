//! Who somebody is: the authentication of a gateway that stands in front of API servers.
//!
//! A request proves an identity by a bearer token or by a client certificate. Tokens are of two kinds: signed tokens of
//! an OpenID Connect provider ([`IssuerConfig`]), and the tokens of `aws eks get-token` ([`AwsConfig`]). The identity
//! says nothing about rights: [`Access`] tells which tenant's it is. There is no anonymous identity, and no credential
//! is tried by a second method after a first one refused it.

mod certificate;
mod http;
mod json;
mod jwt;
mod keys;
mod refused;
mod rotation;
mod sts;
mod time;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::error::Result;

pub use http::trusting;
pub use jwt::IssuerConfig;
pub use keys::Algorithm;
pub use refused::Refused;
pub use sts::AwsConfig;
pub use time::Time;

/// The bytes of a token. API servers limit all headers of a request to 1 MiB, most proxies one header to 8 or 16 KiB.
const TOKEN: usize = 16 * 1024;

/// Who somebody is, as a credential proves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// For the audit log. It has no control characters, and is never a secret. Of a token it is `issuer#name`, of AWS
    /// the ARN as STS names it, of a certificate its URI or, without one, its common name. Rights follow from `proof`
    /// only.
    pub name: String,
    pub proof: Proof,
    /// When the credential expires. A gateway should end a longer request, such as a watch, at this time. `None`: never.
    pub expires: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Proof {
    /// The claims of a verified token.
    Token { issuer: String, claims: Map<String, Value> },
    /// The ARN of an IAM user or role, such as `arn:aws:iam::123456789012:role/Name`. A role's ARN is without its path,
    /// because STS doesn't name it. The session's name is chosen by its caller, and proves nothing. `None` for a user.
    Aws { arn: String, session: Option<String> },
    /// A client certificate that rustls has verified.
    Certificate { common_name: Option<String>, uris: Vec<String> },
}

/// An identity of a tenant, as the spec names it. An identity is the tenant's if one of the tenant's entries matches.
/// All texts are compared exactly, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The issuer's token has the claim with this text, or with a list that contains this text. `claim` is the name of
    /// a member at the top of the claims: dots in it mean nothing, so `https://acme.com/tenant` works.
    ///
    /// The claim `email` counts only with `email_verified: true`. Some providers let users set any address, and say
    /// nothing about it (Microsoft Entra ID, "Migrate away from using email claims for user identification or
    /// authorization").
    Claim { issuer: String, claim: String, value: String },
    /// An IAM role or user.
    ///
    /// **A role's path is not compared**: `role/team/Name` and `role/Name` match the same role. STS names the role of a
    /// session without its path. The comparison is exact all the same, because one account can't have two roles of one
    /// name, whatever their paths (IAM User Guide, "IAM and AWS STS quotas": names are unique within an account). But
    /// a principal that may create roles under one path can take the *name* of a role that doesn't exist yet. Name only
    /// roles that exist.
    ///
    /// A user's ARN is compared with its path.
    Role { arn: String },
    /// The certificate has this URI among its subject alternative names. Common names never match.
    Certificate { uri: String },
}

impl Access {
    /// True if `identity` is this one.
    pub fn matches(&self, identity: &Identity) -> bool {
        match (self, &identity.proof) {
            (Self::Claim { issuer, claim, value }, Proof::Token { issuer: by, claims }) => {
                let verified = claim != "email" || claims.get("email_verified") == Some(&Value::Bool(true));
                let same = |found: &Value| found.as_str() == Some(value.as_str());
                let has = match claims.get(claim) {
                    Some(Value::Array(list)) => list.iter().any(same),
                    Some(found) => same(found),
                    None => false,
                };
                issuer == by && verified && has && !value.is_empty()
            }
            (Self::Role { arn }, Proof::Aws { arn: proven, .. }) => sts::is_same_principal(arn, proven),
            (Self::Certificate { uri }, Proof::Certificate { uris, .. }) => !uri.is_empty() && uris.contains(uri),
            _ => false,
        }
    }
}

/// The credentials that a gateway accepts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<IssuerConfig>,
    /// `None`: no tokens of AWS are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsConfig>,
}

/// Authenticates requests.
pub struct Authenticators {
    issuers: jwt::Issuers,
    sts: Option<sts::Sts>,
    time: Time,
}

impl Authenticators {
    /// Fails if `config` can't be used. Reads files, but asks no server.
    pub fn new(config: Config, time: Time) -> Result<Self> {
        let issuers = jwt::Issuers::new(config.issuers, &time)?;
        let sts = config.aws.map(|aws| sts::Sts::new(aws, time.clone())).transpose()?;
        Ok(Self { issuers, sts, time })
    }

    /// Fetches the keys of all issuers, so that the first requests needn't wait. Must run in a Tokio runtime, as all
    /// asynchronous functions of this module.
    pub async fn warm(&self) {
        self.issuers.refresh().await;
    }

    /// The issuers whose keys couldn't be fetched the last time, and why: for logs and for health checks. Keys that are
    /// known are used for a day after the last success.
    pub fn failures(&self) -> Vec<(&str, &'static str)> {
        self.issuers.failures()
    }

    /// The identity of a request. `authorization` has the values of all its `Authorization` headers. `certificate` is
    /// the client's, if the TLS layer has verified that one of the configured authorities issued it.
    ///
    /// A token decides if there is one: people send tokens through proxies and agents that have certificates of their
    /// own. A token that is refused is refused, and a certificate beside doesn't help.
    pub async fn authenticate(
        &self,
        authorization: &[&[u8]],
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<Identity, Refused> {
        let token = match (authorization, certificate) {
            ([], None) => return Err(Refused::NoCredential),
            ([], Some(certificate)) => return certificate::identity(certificate, self.time.now()),
            ([value], _) => bearer(value)?,
            _ => return Err(Refused::SeveralHeaders),
        };
        if !token.starts_with(sts::PREFIX) {
            return self.issuers.verify(token).await;
        }
        self.sts.as_ref().ok_or(Refused::AwsNotAccepted)?.verify(token).await
    }
}

/// The token of an `Authorization` header (RFC 6750, 2.1). Several spaces, tabs and lists are refused: HTTP libraries
/// differ about them.
fn bearer(value: &[u8]) -> Result<&str, Refused> {
    let value = std::str::from_utf8(value).map_err(|_| Refused::MalformedHeader)?;
    let (scheme, token) = match value.split_once(' ') {
        Some((scheme, token)) => (scheme, token),
        None => (value, ""),
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::NotBearer);
    }
    if token.is_empty() {
        return Err(Refused::EmptyToken);
    }
    if token.len() > TOKEN {
        return Err(Refused::TooLong);
    }
    // Base64url with dots: all that the accepted kinds of tokens have.
    if !token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(Refused::MalformedHeader);
    }
    Ok(token)
}
