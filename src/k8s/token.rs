//! Tokens for EKS clusters, signed in process. A token is a presigned
//! `sts:GetCallerIdentity` request. The cluster sends this request to STS
//! (aws-iam-authenticator, `pkg/token/token.go`).

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::Scope;
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};

/// The server accepts a token for 15 minutes after the signing. Clients count
/// one minute less, so that a token is still valid when it arrives.
const LIFE: SignedDuration = SignedDuration::from_mins(14);
/// A token is replaced this long before it expires.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);
/// `X-Amz-Expires`, in seconds. The server ignores the value, but requires 0 to
/// 900.
const EXPIRES: Duration = Duration::from_secs(60);
/// Binds a token to one cluster's name.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";
/// Characters that SigV4 doesn't escape.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A bearer token for one cluster.
#[derive(Clone)]
pub struct Token {
    /// A credential. Only `ringfence token` shows it.
    pub token: String,
    /// The time at which the token must be replaced.
    pub expires: Timestamp,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// The token in use. It is replaced before it expires.
#[derive(Default)]
pub(super) struct Held(tokio::sync::Mutex<Option<Token>>);

impl Held {
    /// The token to send at `now`. Calls `fresh` if there is no token, or if it
    /// expires soon.
    pub(super) async fn get(&self, now: Timestamp, fresh: impl AsyncFnOnce() -> Result<Token>) -> Result<String> {
        let mut held = self.0.lock().await;
        if let Some(token) = held.as_ref().filter(|t| now + MARGIN < t.expires) {
            return Ok(token.token.clone());
        }
        let token = fresh().await?;
        Ok(held.insert(token).token.clone())
    }
}

/// A token for the cluster named `cluster` in the region and partition of
/// `scope`. Makes no call, except to the source of the credentials.
///
/// # Errors
/// [`Class::Denied`] if there are no credentials.
pub async fn token(config: &SdkConfig, scope: &Scope, cluster: &str) -> Result<Token> {
    let provider = config.credentials_provider().ok_or_else(|| no_credentials("none are configured"))?;
    let credentials = provider.provide_credentials().await.map_err(|e| no_credentials(&causes(&e)))?;
    let now = Clock::timestamp();
    let mut expires = now + LIFE;
    // A token expires with its session, because the cluster calls STS for each
    // request.
    if let Some(end) = credentials.expiry().and_then(|e| Timestamp::try_from(e).ok()) {
        expires = expires.min(end);
    }
    let url = presigned(&credentials, scope, cluster, now.into())?;
    Ok(Token { token: format!("k8s-aws-v1.{}", URL_SAFE_NO_PAD.encode(url)), expires })
}

fn presigned(credentials: &Credentials, scope: &Scope, cluster: &str, time: SystemTime) -> Result<String> {
    let broken = |e: &dyn fmt::Display| Error::bug(format!("a token for cluster {cluster} can't be signed: {e}"));
    let url = format!(
        "https://sts.{}.{}/?Action=GetCallerIdentity&Version=2011-06-15",
        scope.region,
        dns_suffix(&scope.partition)
    );
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(EXPIRES);
    let identity = Identity::from(credentials.clone());
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&scope.region)
        .name("sts")
        .time(time)
        .settings(settings)
        .build()
        .map_err(|e| broken(&e))?
        .into();
    let headers = [(CLUSTER_HEADER, cluster)];
    let request =
        SignableRequest::new("GET", &url, headers.into_iter(), SignableBody::Bytes(&[])).map_err(|e| broken(&e))?;
    let (signed, _) = sign(request, &params).map_err(|e| broken(&e))?.into_parts();
    let (_, query) = signed.into_parts();
    Ok(query.iter().fold(url, |mut url, (name, value)| {
        url.push('&');
        url.push_str(name);
        url.push('=');
        url.extend(utf8_percent_encode(value, &UNRESERVED));
        url
    }))
}

/// The suffix of AWS's host names in `partition` (botocore `partitions.json`).
fn dns_suffix(partition: &str) -> &'static str {
    match partition {
        "aws-cn" => "amazonaws.com.cn",
        "aws-iso" => "c2s.ic.gov",
        "aws-iso-b" => "sc2s.sgov.gov",
        "aws-iso-e" => "cloud.adc-e.uk",
        "aws-iso-f" => "csp.hci.ic.gov",
        "aws-eusc" => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}

/// `error` with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |e| e.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn no_credentials(cause: &str) -> Error {
    Error::new(Class::Denied, format!("no AWS credentials to log in to the cluster with: {cause}"))
        .help("set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or sign in with `aws sso login`")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    fn signed(region: &str, partition: &str, session: Option<&str>) -> (String, BTreeMap<String, String>) {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session.map(str::to_owned),
            None,
            "test",
        );
        let scope =
            Scope { account: "123456789012".to_owned(), region: region.to_owned(), partition: partition.to_owned() };
        let time: Timestamp = "2026-11-23T06:00:00Z".parse().unwrap();
        let url = presigned(&credentials, &scope, "acme-p-shared-1", time.into()).unwrap();
        let (base, query) = url.split_once('?').unwrap();
        let pairs: Vec<_> = query.split('&').map(|p| p.split_once('=').unwrap()).collect();
        let params: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(params.len(), pairs.len(), "every parameter stands once");
        (base.to_owned(), params)
    }

    /// The expected signatures are botocore's, for the same request, keys and
    /// time.
    #[test]
    fn url_is_what_the_authenticator_accepts() {
        let (base, params) = signed("us-east-1", "aws", None);
        assert_eq!(base, "https://sts.us-east-1.amazonaws.com/");
        let expected = BTreeMap::from(
            [
                ("Action", "GetCallerIdentity"),
                ("Version", "2011-06-15"),
                ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
                ("X-Amz-Credential", "AKIDEXAMPLE%2F20261123%2Fus-east-1%2Fsts%2Faws4_request"),
                ("X-Amz-Date", "20261123T060000Z"),
                ("X-Amz-Expires", "60"),
                ("X-Amz-SignedHeaders", "host%3Bx-k8s-aws-id"),
                ("X-Amz-Signature", "1605399e99b59a8d2374fe2a0858bbe6fb9d02735edf3191172c3b98b69af1b9"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        assert_eq!(params, expected);
    }

    #[test]
    fn session_and_partition_are_in_it() {
        let (base, params) = signed("cn-north-1", "aws-cn", Some("IQoJ/b3+Jp=ZA=="));
        assert_eq!(base, "https://sts.cn-north-1.amazonaws.com.cn/");
        assert_eq!(params["X-Amz-Security-Token"], "IQoJ%2Fb3%2BJp%3DZA%3D%3D");
        assert_eq!(params["X-Amz-Signature"], "bde951d9a93a2f66dcf81ae66597e7ec43ed940df31b4d553013b75b491c2f72");
    }

    #[tokio::test]
    async fn a_token_is_replaced_before_it_ends() {
        let held = Held::default();
        let at = |minutes: i64, seconds: i64| {
            Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes) + SignedDuration::from_secs(seconds)
        };
        let signed = |now: Timestamp, name: &str| {
            let token = Token { token: name.to_owned(), expires: now + LIFE };
            async move || Ok(token)
        };
        assert_eq!(held.get(at(0, 0), signed(at(0, 0), "first")).await.unwrap(), "first");
        assert_eq!(held.get(at(12, 59), signed(at(12, 59), "early")).await.unwrap(), "first");
        let refused = async || Err(no_credentials("signed out"));
        assert!(held.get(at(13, 0), refused).await.is_err(), "an ending token isn't sent");
        assert_eq!(held.get(at(13, 0), signed(at(13, 0), "second")).await.unwrap(), "second");
        assert_eq!(held.get(at(14, 0), signed(at(14, 0), "early")).await.unwrap(), "second");
    }

    #[test]
    fn debug_shows_no_credential() {
        let token = Token { token: "k8s-aws-v1.secret".to_owned(), expires: Timestamp::UNIX_EPOCH };
        assert!(!format!("{token:?}").contains("secret"));
    }
}
