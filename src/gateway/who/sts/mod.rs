//! Tokens of `aws eks get-token`: a presigned `sts:GetCallerIdentity` request, which the gateway sends to STS. The
//! rules are those of the server that EKS runs (kubernetes-sigs/aws-iam-authenticator, `pkg/token/token.go`), and
//! stricter where it takes what no client writes.
//!
//! The header `x-k8s-aws-id` is part of the signature. The gateway sends its own name in it, so a token for a cluster
//! of another name is refused by STS. For the same reason a gateway's name must not be a cluster's: a token for
//! that cluster would be good here, too.

mod presigned;
mod verdicts;

use std::collections::BTreeMap;

use http::header::{ACCEPT, HOST};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use self::presigned::Presigned;
use self::verdicts::Verdicts;
use super::http::{Http, LIMIT, Trust, is_loopback};
use super::refused::Refused;
use super::time::Time;
use super::{Identity, Proof};
use crate::engine::error::{Error, Result};

pub(super) const PREFIX: &str = "k8s-aws-v1.";
const NAME_HEADER: HeaderName = HeaderName::from_static("x-k8s-aws-id");
/// Requests to STS at one time. Each waits for milliseconds, and tokens that aren't in the cache are rare.
const REQUESTS: usize = 32;
/// The size of an answer.
const SIZE: usize = 64 * 1024;

/// Tokens of AWS principals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsConfig {
    /// The value of `x-k8s-aws-id`: `aws eks get-token --cluster-name NAME`. It must not be the name of a cluster.
    pub name: String,
    /// The regions whose STS endpoints clients may sign for. The global endpoint isn't among them.
    pub regions: Vec<String>,
    /// The accounts whose principals may authenticate. Anybody can sign valid tokens in an account of their own. Their
    /// verdicts must not fill the cache.
    pub accounts: Vec<String>,
    /// Another address of STS, on this computer. For tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// Asks STS about tokens, and keeps its verdicts.
pub(super) struct Sts {
    name: HeaderValue,
    accounts: Vec<String>,
    /// The allowed endpoints by host.
    endpoints: BTreeMap<String, Endpoint>,
    /// Scheme and authority of the stand-in.
    stand_in: Option<String>,
    http: Http,
    requests: Semaphore,
    verdicts: Verdicts,
    time: Time,
}

struct Endpoint {
    region: String,
    partition: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "GetCallerIdentityResponse")]
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    #[serde(rename = "GetCallerIdentityResult")]
    result: Caller,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Caller {
    arn: String,
    account: String,
    user_id: String,
}

impl Sts {
    pub(super) fn new(config: AwsConfig, time: Time) -> Result<Self> {
        check(&config)?;
        let name = HeaderValue::from_str(&config.name).map_err(|_| Error::bug("the gateway's name isn't a header"))?;
        let endpoints = config.regions.into_iter().map(|region| {
            let (partition, suffix) = partition(&region);
            (format!("sts.{region}.{suffix}"), Endpoint { region, partition })
        });
        let trust = if config.endpoint.is_some() { Trust::Nobody } else { Trust::System };
        Ok(Self {
            name,
            accounts: config.accounts,
            endpoints: endpoints.collect(),
            stand_in: config.endpoint.map(|e| e.trim_end_matches('/').to_owned()),
            http: Http::new(&trust, time.clone())?,
            requests: Semaphore::new(REQUESTS),
            verdicts: Verdicts::default(),
            time,
        })
    }

    /// The identity of a token. A verdict of STS is used until the token expires, 15 minutes after its date: STS
    /// itself would accept it for as long, unless the credentials were revoked meanwhile.
    pub(super) async fn verify(&self, token: &str) -> Result<Identity, Refused> {
        let allowed = |host: &str| self.endpoints.get(host).map(|e| e.region.as_str());
        let presigned = Presigned::read(token, allowed, self.time.now())?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(verdict) = self.verdicts.get(&digest, self.time.now()) {
            return verdict;
        }
        let flight = self.verdicts.flight(digest);
        let ask = || async {
            // Another flight may have landed between the look and this one's start.
            if let Some(verdict) = self.verdicts.get(&digest, self.time.now()) {
                return verdict;
            }
            let verdict = self.ask(&presigned).await;
            self.verdicts.keep(digest, &verdict, self.time.now());
            verdict
        };
        flight.verdict(ask).await
    }

    async fn ask(&self, presigned: &Presigned) -> Result<Identity, Refused> {
        let permit = self.time.within(LIMIT, self.requests.acquire()).await;
        let _permit = permit.ok_or(Refused::AwsUnavailable)?.map_err(|_| Refused::AwsUnavailable)?;
        let base = self.stand_in.clone().unwrap_or_else(|| format!("https://{}", presigned.host));
        let uri: Uri = format!("{base}/?{}", presigned.query).parse().map_err(|_| Refused::AwsQuery)?;
        // These headers and no others: a signature about a header that isn't sent can't be right.
        let host = HeaderValue::from_str(&presigned.host).map_err(|_| Refused::AwsHost)?;
        let headers =
            [(HOST, host), (ACCEPT, HeaderValue::from_static("application/json")), (NAME_HEADER, self.name.clone())];
        let (status, body) = self.http.get(uri, headers, SIZE).await.map_err(|_| Refused::AwsUnavailable)?;
        if status != StatusCode::OK {
            let throttled = status == StatusCode::TOO_MANY_REQUESTS || holds(&body, b"Throttling");
            let definite = status.is_client_error() && !throttled;
            return Err(if definite { Refused::AwsRefused } else { Refused::AwsUnavailable });
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| Refused::AwsAnswer)?;
        let partition = self.endpoints.get(&presigned.host).map(|e| e.partition).ok_or(Refused::AwsHost)?;
        self.identity(answer.response.result, partition, presigned)
    }

    fn identity(&self, caller: Caller, partition: &str, presigned: &Presigned) -> Result<Identity, Refused> {
        let arn = Arn::read(&caller.arn).ok_or(Refused::AwsAnswer)?;
        if arn.partition != partition || arn.account != caller.account {
            return Err(Refused::AwsAnswer);
        }
        let (canonical, session) = match (arn.service, arn.resource.split('/').collect::<Vec<_>>().as_slice()) {
            ("sts", ["assumed-role", role, session]) if is_name(role) && is_name(session) => {
                // The second half of the user id is the session's name.
                if caller.user_id.split_once(':').is_none_or(|(_, s)| s != *session) {
                    return Err(Refused::AwsAnswer);
                }
                let canonical = format!("arn:{}:iam::{}:role/{role}", arn.partition, arn.account);
                (canonical, Some((*session).to_owned()))
            }
            ("iam", ["user", path @ .., user]) if is_name(user) && path.iter().all(|p| is_printable(p)) => {
                (caller.arn.clone(), None)
            }
            // The caller of GetFederationToken chooses a federated user's name. The root user has no name.
            ("sts", ["federated-user", ..]) | ("iam", ["root"]) => return Err(Refused::AwsPrincipal),
            _ => return Err(Refused::AwsAnswer),
        };
        if !self.accounts.iter().any(|account| account == arn.account) {
            return Err(Refused::AwsAccount);
        }
        let proof = Proof::Aws { arn: canonical, session };
        Ok(Identity { name: caller.arn, proof, expires: Some(presigned.expires) })
    }
}

/// An ARN of IAM or of STS. They name no region.
struct Arn<'a> {
    partition: &'a str,
    service: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        match (next()?, next()?, next()?, next()?, next()?, next()?) {
            ("arn", partition, service @ ("iam" | "sts"), "", account, resource) if is_account(account) => {
                Some(Self { partition, service, account, resource })
            }
            _ => None,
        }
    }
}

/// True if `arn`, which a spec names, is the principal `proven`, which STS has named. Of a role's path only the last
/// part is compared: see [`super::Access::Role`].
pub(super) fn is_same_principal(arn: &str, proven: &str) -> bool {
    let (Some(wanted), Some(found)) = (Arn::read(arn), Arn::read(proven)) else { return false };
    if wanted.partition != found.partition || wanted.service != "iam" || found.service != "iam" {
        return false;
    }
    match (wanted.resource.strip_prefix("role/"), found.resource.strip_prefix("role/")) {
        (Some(wanted_role), Some(found_role)) => {
            let last = wanted_role.rsplit('/').next().unwrap_or_default();
            wanted.account == found.account && is_name(last) && last == found_role
        }
        (None, None) => wanted.resource.starts_with("user/") && arn == proven,
        _ => false,
    }
}

/// The characters of names in IAM and of sessions (IAM User Guide, "IAM and AWS STS quotas").
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn holds(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|w| w == word)
}

/// The partition of a region, and the suffix of its host names (botocore `partitions.json`).
fn partition(region: &str) -> (&'static str, &'static str) {
    const ALL: [(&str, &str, &str); 7] = [
        ("cn-", "aws-cn", "amazonaws.com.cn"),
        ("us-gov-", "aws-us-gov", "amazonaws.com"),
        ("us-iso-", "aws-iso", "c2s.ic.gov"),
        ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
        ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
        ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
        ("eusc-", "aws-eusc", "amazonaws.eu"),
    ];
    let known = ALL.iter().find(|(prefix, ..)| region.starts_with(prefix));
    known.map_or(("aws", "amazonaws.com"), |(_, partition, suffix)| (partition, suffix))
}

fn check(config: &AwsConfig) -> Result<()> {
    let wrong =
        |what: &str, help: &str| Err(Error::input(format!("tokens of AWS can't be accepted: {what}")).help(help));
    // The characters of a cluster's name (EKS API Reference, "CreateCluster").
    let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
    if config.name.is_empty() || config.name.len() > 100 || !config.name.bytes().all(is_name) {
        let help = "write a name of at most 100 letters, digits, `-` and `_`, which no cluster has";
        return wrong("the gateway's name isn't like a cluster's", help);
    }
    // The text becomes a part of a host name.
    let is_region =
        |r: &String| r.contains('-') && r.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if config.regions.is_empty() || !config.regions.iter().all(is_region) {
        return wrong("`regions` has no region, or a text that isn't one", "write regions such as `eu-central-1`");
    }
    if config.accounts.is_empty() || !config.accounts.iter().all(|a| is_account(a)) {
        return wrong("`accounts` has no account, or a text that isn't one", "write account ids of 12 digits");
    }
    let is_local = |endpoint: &String| {
        let uri: Option<Uri> = endpoint.parse().ok();
        uri.is_some_and(|u| u.scheme_str() == Some("http") && is_loopback(&u) && u.path() == "/" && u.query().is_none())
    };
    if config.endpoint.as_ref().is_some_and(|e| !is_local(e)) {
        return wrong("`endpoint` isn't on this computer", "remove it, or write a URL such as `http://127.0.0.1:8080`");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
