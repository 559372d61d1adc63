//! The layer through which each attempt of every request to AWS passes: the
//! token bucket of its API, the fence if it is a change, and a time limit.
//!
//! This layer is below the SDK, because the SDK sends one call up to eight
//! times, and a step of a kind may make calls for hours. The time limit begins
//! when the request is sent, because the wait for a token isn't AWS's time.

use std::fmt;
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

use super::fence::{Attempt, Fence};
use super::pace::Pace;
use crate::engine::clock::Clock;

/// The HTTP layer. Clones share the token buckets.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub http: SharedHttpClient,
    pub pace: Pace,
    pub clock: Clock,
    /// The time limit for an answer, in real time.
    pub patience: Duration,
    /// The fence that each attempt at a change passes.
    pub fence: Option<Fence>,
}

/// The API of a request.
#[derive(Debug)]
pub(super) struct Api {
    pub service: String,
    /// The action. For EKS: the method and the collections of the path,
    /// without names: `POST clusters node-groups`.
    pub action: String,
}

impl Api {
    /// Reads the service from the credential scope. Reads the action from a
    /// place that depends on the protocol.
    fn of(request: &HttpRequest) -> Option<Self> {
        let scope = request.headers().get("authorization")?.split("Credential=").nth(1)?;
        let service = scope.split(',').next()?.split('/').nth(3)?.to_owned();
        let target = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let body = || std::str::from_utf8(request.body().bytes()?).ok();
        let query = || body()?.split('&').find_map(|pair| pair.strip_prefix("Action="));
        let rest = || {
            let path = request.uri().split_once("://").map_or(request.uri(), |(_, rest)| rest);
            let path = path.split(['?', '#']).next().unwrap_or_default();
            let collections = path.split('/').skip(1).step_by(2);
            [request.method()].into_iter().chain(collections).collect::<Vec<_>>().join(" ")
        };
        let action = target.or_else(query).map_or_else(rest, str::to_owned);
        Some(Self { service, action })
    }

    /// True if the call may change something. STS calls never do.
    fn changes(&self) -> bool {
        self.service != "sts" && !self.reads() && !self.action.starts_with("Simulate")
    }

    pub fn reads(&self) -> bool {
        ["Describe", "Get", "List", "GET"].iter().any(|verb| self.action.starts_with(verb))
    }
}

impl HttpClient for Wire {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let connector = self.http.http_connector(settings, components);
        SharedHttpConnector::new(WireConnector { connector, wire: self.clone() })
    }
}

#[derive(Debug)]
struct WireConnector {
    connector: SharedHttpConnector,
    wire: Wire,
}

impl HttpConnector for WireConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (connector, wire) = (self.connector.clone(), self.wire.clone());
        HttpConnectorFuture::new(async move {
            let host = request.uri().parse::<http::Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
            // A request without a signature asks for credentials.
            let api = Api::of(&request);
            if let Some(api) = &api {
                wire.pace.wait(api).await;
            }
            let fence = wire.fence.as_ref().filter(|_| api.as_ref().is_some_and(Api::changes));
            let attempt = fence.map(Fence::enter).transpose().map_err(|e| ConnectorError::other(e.into(), None))?;
            let limit = attempt.as_ref().map_or(wire.patience, |attempt| attempt.limit.min(wire.patience));
            let answer = tokio::select! {
                biased;
                answer = exchange(&connector, request) => answer.map_err(|error| at(host, error)),
                () = wire.clock.sleep(limit.mul_f64(wire.clock.speed())) => {
                    Err(ConnectorError::timeout(NO_ANSWER.into()))
                }
            };
            attempt.into_iter().for_each(Attempt::over);
            let (response, body) = answer?;
            let success = response.status().is_success();
            if success && is_page(&response, &body) {
                let page = format!("{NOT_AWS}: HTTP {}, a web page", response.status().as_u16());
                return Err(ConnectorError::other(page.into(), Some(ErrorKind::TransientError)));
            }
            if let Some(api) = &api {
                wire.pace.learn(api, !success && is_throttling(&response, &body));
            }
            Ok(response)
        })
    }
}

/// Sends `request` and reads the whole answer. The caller can still read the
/// body.
async fn exchange(
    connector: &SharedHttpConnector,
    request: HttpRequest,
) -> Result<(HttpResponse, Bytes), ConnectorError> {
    let mut response = connector.call(request).await?;
    let body = std::mem::replace(response.body_mut(), SdkBody::taken());
    let bytes = body.collect().await.map_err(ConnectorError::io)?.to_bytes();
    *response.body_mut() = SdkBody::from(bytes.clone());
    Ok((response, bytes))
}

/// A connection error with the name of the host, which the SDK's own errors
/// don't have.
#[derive(Debug)]
pub(super) struct At {
    pub host: String,
    source: ConnectorError,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

impl std::error::Error for At {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

/// Adds the host to `error`. The kind of error stays the same.
fn at(host: Option<String>, error: ConnectorError) -> ConnectorError {
    let Some(host) = host else { return error };
    let (timeout, user, io, kind) = (error.is_timeout(), error.is_user(), error.is_io(), error.as_other());
    let named = Box::new(At { host, source: error });
    match (timeout, user, io) {
        (true, ..) => ConnectorError::timeout(named),
        (_, true, _) => ConnectorError::user(named),
        (.., true) => ConnectorError::io(named),
        _ => ConnectorError::other(named, kind),
    }
}

/// The message when the time limit has passed.
pub(super) const NO_ANSWER: &str = "no answer in time";

/// The beginning of the message about an answer that a proxy gave.
pub(super) const NOT_AWS: &str = "the answer isn't AWS's";

/// True for a web page. The content type alone is no proof, because emulators
/// use it for real answers. The SDK doesn't detect a web page either: some
/// operations have empty answers, so the SDK doesn't read the body.
fn is_page(response: &HttpResponse, body: &[u8]) -> bool {
    let html = response.headers().get("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    let start = || String::from_utf8_lossy(body.get(..256).unwrap_or(body)).trim_start().to_lowercase();
    html && (start().starts_with("<!doctype html") || start().starts_with("<html"))
}

fn is_throttling(response: &HttpResponse, body: &[u8]) -> bool {
    let said = String::from_utf8_lossy(body);
    let kind = response.headers().get("x-amzn-errortype").unwrap_or_default();
    let words = ["Throttl", "RequestLimitExceeded", "TooManyRequests"];
    response.status().as_u16() == 429 || words.iter().any(|w| said.contains(w) || kind.contains(w))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::sync::{Arc, Mutex};

    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;
    use crate::engine::clock::Hand;
    use crate::engine::error::{Class, Error, Result};
    use crate::engine::execute::Guard;

    /// A connector that answers after a delay, and notes when it was called.
    #[derive(Clone, Debug)]
    struct Server(Clock, Duration, Arc<Mutex<Vec<Duration>>>);

    impl HttpConnector for Server {
        fn call(&self, _request: HttpRequest) -> HttpConnectorFuture {
            let Self(clock, after, asked) = self.clone();
            HttpConnectorFuture::new(async move {
                asked.lock().unwrap().push(clock.elapsed());
                clock.sleep(after).await;
                Ok(HttpResponse::new(StatusCode::try_from(200).unwrap(), SdkBody::from("{}")))
            })
        }
    }

    impl HttpClient for Server {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    /// A guard whose lease ends at a given time.
    #[derive(Debug)]
    struct Lease(Clock, Duration);

    impl Guard for Lease {
        fn allows(&self) -> Result<Duration> {
            let left = self.1.checked_sub(self.0.elapsed()).filter(|left| *left >= Duration::from_secs(15));
            left.ok_or_else(|| Error::new(Class::Lost, "the lock was taken"))
        }
    }

    fn request(service: &str, method: &str, path: &str, body: &'static str) -> HttpRequest {
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method(method).unwrap();
        request.set_uri(format!("https://aws.example{path}")).unwrap();
        let scope = format!("AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/{service}/aws4_request, Signature=x");
        request.headers_mut().insert("authorization", scope);
        request
    }

    fn vpc() -> HttpRequest {
        request("ec2", "POST", "/", "Action=CreateVpc&Version=2016-11-15")
    }

    struct Bench {
        hand: Hand,
        connector: WireConnector,
        asked: Arc<Mutex<Vec<Duration>>>,
    }

    /// A server that answers after `answers_after`, behind a lease that ends at
    /// `lease`.
    fn bench(answers_after: u64, lease: u64) -> Bench {
        let hand = Hand::default();
        let (clock, asked) = (hand.clock(), Arc::default());
        let server = Server(clock.clone(), Duration::from_secs(answers_after), Arc::clone(&asked));
        let fence = Fence::default();
        fence.set(Arc::new(Lease(clock.clone(), Duration::from_secs(lease))));
        let wire = Wire {
            http: SharedHttpClient::new(server.clone()),
            pace: Pace::new(clock.clone()),
            clock,
            patience: Duration::from_secs(60),
            fence: Some(fence),
        };
        Bench { hand, connector: WireConnector { connector: SharedHttpConnector::new(server), wire }, asked }
    }

    fn lost(error: &ConnectorError) -> bool {
        let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<Error>());
        source.is_some_and(|e| e.class == Class::Lost)
    }

    #[test]
    fn what_is_called() {
        let of = |request| Api::of(&request).unwrap();
        let changes = |request| (of(request).action, of(vpc()).changes());
        assert_eq!(changes(vpc()), ("CreateVpc".to_owned(), true));
        let group = of(request("eks", "POST", "/clusters/a/node-groups/b/update-config?x=y", "{}"));
        assert_eq!(group.action, "POST clusters node-groups update-config");
        assert!(group.changes() && !group.reads());
        let read = of(request("eks", "GET", "/clusters/a/node-groups/b", ""));
        assert!((read.action.as_str(), read.changes()) == ("GET clusters node-groups", false));
        assert!(!of(request("iam", "POST", "/", "Action=SimulatePrincipalPolicy")).changes());
        assert!(!of(request("sts", "POST", "/", "Action=AssumeRole")).changes());
        assert!(Api::of(&HttpRequest::new(SdkBody::empty())).is_none());
    }

    #[test]
    fn a_write_never_outlives_the_lease() {
        let bench = bench(3600, 40);
        let error = bench.hand.run(bench.connector.call(vpc())).unwrap().unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(bench.hand.clock().elapsed().as_secs(), 40);
        // The next attempt, such as a retry of the SDK, isn't sent at all.
        let error = bench.hand.run(bench.connector.call(vpc())).unwrap().unwrap_err();
        assert!(lost(&error) && !error.is_timeout() && error.as_other().is_none(), "{error:?}");
        assert_eq!(bench.asked.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_write_begins_only_with_a_lease_long_enough() {
        let bench = bench(1, 40);
        let clock = bench.hand.clock();
        bench.hand.run(clock.sleep(Duration::from_secs(26))).unwrap();
        assert!(lost(&bench.hand.run(bench.connector.call(vpc())).unwrap().unwrap_err()));
        // Reads are still allowed.
        let read = request("ec2", "POST", "/", "Action=DescribeVpcs&Version=2016-11-15");
        bench.hand.run(bench.connector.call(read)).unwrap().unwrap();
        assert_eq!(bench.asked.lock().unwrap().len(), 1);
    }

    #[test]
    fn who_waits_for_its_turn_loses_no_time_to_be_answered_in() {
        let bench = bench(30, 36_000);
        let calls = (0..400).map(|_| bench.connector.call(vpc()));
        let answers = bench.hand.run(futures::future::join_all(calls)).unwrap();
        assert!(answers.iter().all(std::result::Result::is_ok));
        let last = bench.asked.lock().unwrap().iter().max().copied().unwrap();
        assert!(last > Duration::from_secs(61), "{last:?}");
    }

    #[test]
    fn a_write_that_is_dropped_is_remembered() {
        let bench = bench(30, 36_000);
        let fence = bench.connector.wire.fence.clone().unwrap();
        let clock = bench.hand.clock();
        let cut = async {
            tokio::select! {
                _ = bench.connector.call(vpc()) => panic!("it was answered"),
                () = clock.sleep(Duration::from_secs(5)) => {}
            }
        };
        bench.hand.run(bench.connector.call(vpc())).unwrap().unwrap();
        assert_eq!(fence.cut(), 0);
        bench.hand.run(cut).unwrap();
        assert_eq!(fence.cut(), 1);
    }
}
