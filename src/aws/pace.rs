//! A token bucket for each API, so that AWS doesn't have to throttle, and
//! slower ones once it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::engine::clock::Clock;

/// Throttled again and again, an API is still called this often: a wait must
/// end before the call times out.
const SLOWEST: f64 = 0.5;

/// The part of what AWS grants that is used: calls don't arrive as evenly as
/// they are sent, and others have the account too.
const SHARE: f64 = 0.9;

/// Calls at once, and calls a second, for reads and for changes.
///
/// EC2: "Request throttling for the Amazon EC2 API", by category. KMS:
/// "Request quotas". CloudWatch Logs and Systems Manager: their "endpoints and
/// quotas". EKS and IAM publish none: what their users find to work.
fn limits(service: &str, reads: bool) -> (f64, f64) {
    match (service, reads) {
        ("ec2", true) => (100.0, 20.0),
        ("ec2", false) => (50.0, 5.0),
        ("eks", true) => (100.0, 20.0),
        ("eks", false) => (20.0, 5.0),
        ("iam", true) => (50.0, 20.0),
        ("iam", false) => (20.0, 10.0),
        ("kms", false) => (5.0, 5.0),
        ("logs", true) => (10.0, 10.0),
        ("logs", false) => (5.0, 5.0),
        ("ssm", true) => (40.0, 40.0),
        ("ssm", false) => (3.0, 3.0),
        ("servicequotas", _) => (10.0, 10.0),
        _ => (100.0, 100.0),
    }
}

/// One API's tokens.
#[derive(Debug)]
struct Bucket {
    burst: f64,
    rate: f64,
    /// The part of `rate` that AWS turned out to grant.
    granted: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    fn new((burst, rate): (f64, f64), now: Duration) -> Self {
        Self { burst, rate, granted: 1.0, tokens: burst, filled: now }
    }

    fn fill(&mut self, now: Duration) -> f64 {
        let rate = (self.rate * self.granted).max(SLOWEST);
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(self.burst);
        self.filled = now;
        rate
    }

    /// Takes a token; how long to wait for it.
    fn take(&mut self, now: Duration) -> Duration {
        let rate = self.fill(now);
        self.tokens -= 1.0;
        Duration::try_from_secs_f64(-self.tokens / rate).unwrap_or_default()
    }

    /// Halves when throttled, and grows again with what succeeds.
    fn learn(&mut self, throttled: bool, now: Duration) {
        self.fill(now);
        if throttled {
            self.granted = (self.granted / 2.0).max(SLOWEST / self.rate);
            self.tokens = self.tokens.min(0.0);
        } else {
            self.granted = (self.granted + 0.05).min(1.0);
        }
    }
}

/// The buckets of one account and region.
#[derive(Clone, Debug)]
pub struct Pace {
    clock: Clock,
    buckets: Arc<Mutex<BTreeMap<String, Bucket>>>,
}

impl Pace {
    pub fn new(clock: Clock) -> Self {
        Self { clock, buckets: Arc::default() }
    }

    fn with<T>(&self, api: &Api, change: impl FnOnce(&mut Bucket, Duration) -> T) -> T {
        let now = self.clock.elapsed();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(format!("{}:{}", api.service, api.action)).or_insert_with(|| {
            let (burst, rate) = limits(&api.service, api.reads());
            Bucket::new((burst * SHARE, rate * SHARE), now)
        });
        change(bucket, now)
    }

    async fn wait(&self, api: &Api) {
        let pause = self.with(api, Bucket::take);
        if !pause.is_zero() {
            self.clock.sleep(pause).await;
        }
    }
}

/// What a request calls.
struct Api {
    service: String,
    /// For EKS, the HTTP method: its paths carry names.
    action: String,
}

impl Api {
    /// By the credential scope, and by what each protocol says of the action.
    fn of(request: &HttpRequest) -> Option<Self> {
        let scope = request.headers().get("authorization")?.split("Credential=").nth(1)?;
        let service = scope.split(',').next()?.split('/').nth(3)?.to_owned();
        let target = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let body = || std::str::from_utf8(request.body().bytes()?).ok();
        let query = || body()?.split('&').find_map(|pair| pair.strip_prefix("Action="));
        let action = target.or_else(query).unwrap_or(request.method()).to_owned();
        Some(Self { service, action })
    }

    fn reads(&self) -> bool {
        ["Describe", "Get", "List", "GET"].iter().any(|verb| self.action.starts_with(verb))
    }
}

/// `client`, at this pace.
pub fn paced(client: SharedHttpClient, pace: Pace) -> SharedHttpClient {
    SharedHttpClient::new(Paced { client, pace })
}

#[derive(Debug)]
struct Paced {
    client: SharedHttpClient,
    pace: Pace,
}

impl HttpClient for Paced {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let connector = self.client.http_connector(settings, components);
        SharedHttpConnector::new(PacedConnector { connector, pace: self.pace.clone() })
    }
}

#[derive(Debug)]
struct PacedConnector {
    connector: SharedHttpConnector,
    pace: Pace,
}

impl HttpConnector for PacedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (connector, pace) = (self.connector.clone(), self.pace.clone());
        HttpConnectorFuture::new(async move {
            let Some(api) = Api::of(&request) else { return connector.call(request).await };
            pace.wait(&api).await;
            let mut response = connector.call(request).await?;
            let success = response.status().is_success();
            // Some operations answer with nothing, so nobody would read it.
            let html = |kind: &str| kind.starts_with("text/html");
            if success && response.headers().get("content-type").is_some_and(html) && is_page(&mut response).await? {
                let page = format!("{NOT_AWS}: HTTP {}, a web page", response.status().as_u16());
                return Err(ConnectorError::other(page.into(), Some(ErrorKind::TransientError)));
            }
            let throttled = !success && is_throttling(&mut response).await?;
            pace.with(&api, |bucket, now| bucket.learn(throttled, now));
            Ok(response)
        })
    }
}

/// The beginning of what is said of an answer that somebody in between gave.
pub(super) const NOT_AWS: &str = "the answer isn't AWS's";

/// Emulators give answers this type, too.
async fn is_page(response: &mut HttpResponse) -> Result<bool, ConnectorError> {
    let bytes = read(response).await?;
    let start = String::from_utf8_lossy(bytes.get(..256).unwrap_or(&bytes)).trim_start().to_lowercase();
    Ok(start.starts_with("<!doctype html") || start.starts_with("<html"))
}

/// The body, which stays for who asked.
async fn read(response: &mut HttpResponse) -> Result<Bytes, ConnectorError> {
    let body = std::mem::replace(response.body_mut(), SdkBody::taken());
    let bytes = body.collect().await.map_err(ConnectorError::io)?.to_bytes();
    *response.body_mut() = SdkBody::from(bytes.clone());
    Ok(bytes)
}

async fn is_throttling(response: &mut HttpResponse) -> Result<bool, ConnectorError> {
    let bytes = read(response).await?;
    let said = String::from_utf8_lossy(&bytes);
    let kind = response.headers().get("x-amzn-errortype").unwrap_or_default();
    let words = ["Throttl", "RequestLimitExceeded", "TooManyRequests"];
    let throttled = response.status().as_u16() == 429 || words.iter().any(|w| said.contains(w) || kind.contains(w));
    Ok(throttled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_burst_passes_and_the_rest_keeps_the_rate() {
        let mut bucket = Bucket::new((50.0, 5.0), at(0.0));
        let waits: Vec<f64> = (0..60).map(|_| bucket.take(at(0.0)).as_secs_f64()).collect();
        assert!(waits[..50].iter().all(|w| *w == 0.0), "{waits:?}");
        assert_eq!(waits[50..55], [0.2, 0.4, 0.6, 0.8, 1.0]);
        // All that was waited for is paid for.
        assert_eq!(bucket.take(at(2.2)).as_secs_f64(), 0.0);
        assert_eq!(bucket.take(at(2.2)).as_secs_f64(), 0.2);
    }

    #[test]
    fn throttling_halves_the_rate_and_success_restores_it() {
        let mut bucket = Bucket::new((50.0, 8.0), at(0.0));
        bucket.learn(true, at(0.0));
        assert_eq!(bucket.take(at(0.0)), at(0.25));
        bucket.learn(true, at(0.25));
        assert_eq!(bucket.take(at(0.25)), at(0.5));
        for _ in 0..20 {
            bucket.learn(true, at(0.25));
        }
        assert_eq!(bucket.fill(at(0.25)), SLOWEST);
        for _ in 0..20 {
            bucket.learn(false, at(0.25));
        }
        assert_eq!(bucket.fill(at(0.25)), 8.0);
    }
}
