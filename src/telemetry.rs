//! Traces in OpenTelemetry's form, which a collector gets by OTLP over HTTP.
//!
//! The environment variables are those of the OpenTelemetry specification ("Environment Variable Specification").
//! Spans have no more about a request than an audit line has: no token, no body, no query.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::context::FutureExt as _;
use opentelemetry::propagation::TextMapPropagator as _;
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{Link, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{HeaderExtractor, HeaderInjector, HttpClient, HttpError};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use rustls::ClientConfig;
use tokio::runtime::Handle;

use crate::engine::error::{Error, Result};

/// For one attempt to deliver spans.
const DELIVERY: Duration = Duration::from_secs(10);
/// For the last spans, when the program ends.
const LAST: Duration = Duration::from_secs(5);
/// Of a collector's answer, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// Where traces go.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The URL that spans are posted to.
    pub url: Uri,
    /// The share of traces that are recorded, from 0 to 1. None: as `OTEL_TRACES_SAMPLER` says, or all.
    pub ratio: Option<f64>,
}

/// Makes spans. Without a destination, it makes none.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<(SdkTracerProvider, SdkTracer)>);

/// A part of the work. It ends with [`Span::end`], or with its last clone.
#[derive(Clone, Default)]
pub struct Span(Option<Context>);

impl Destination {
    /// The destination that a configuration or the environment names.
    ///
    /// # Errors
    /// The destination can't be used.
    pub fn named(
        url: Option<&str>,
        ratio: Option<f64>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let of_all = || {
            let base = variable("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            Some(format!("{}/v1/traces", base.trim_end_matches('/')))
        };
        let url = url.map(str::to_owned).or_else(|| variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")).or_else(of_all);
        let Some(url) = url.filter(|_| !off) else { return Ok(None) };
        let of_traces = |name: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        if let Some(other) = of_traces("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
            return Err(Error::input(format!("traces can't be sent by `{other}`"))
                .help("set OTEL_EXPORTER_OTLP_PROTOCOL to `http/protobuf`, and the endpoint to the collector's port for HTTP (4318)"));
        }
        // A user's name and password, and a query, may be secret.
        let shown = url.split('?').next().and_then(|url| url.rsplit('@').next()).unwrap_or_default();
        let unusable = |why: &str| {
            Error::input(format!("traces can't be sent to `{shown}`: {why}"))
                .help("name the collector's URL, such as `https://collector.example:4318/v1/traces`")
        };
        let uri: Uri = url.parse().map_err(|_| unusable("this is no URL"))?;
        let local = uri.host().is_some_and(|host| {
            let host = host.trim_matches(['[', ']']);
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        });
        match uri.scheme_str() {
            Some("https") => {}
            // The headers often hold a key of the collector.
            Some("http") if !local && of_traces("HEADERS").is_some() => {
                return Err(unusable("OTEL_EXPORTER_OTLP_HEADERS would be sent without encryption"));
            }
            Some("http") => {}
            _ => return Err(unusable("this is neither http nor https")),
        }
        if ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio)) {
            return Err(Error::input("the share of traces is a number from 0 to 1"));
        }
        Ok(Some(Self { url: uri, ratio }))
    }
}

impl Traces {
    /// Starts to send spans to `destination`. `failed` hears when spans can't be delivered, once until they can.
    ///
    /// # Errors
    /// The exporter's variables can't be used.
    pub fn start(
        service: &'static str,
        destination: &Destination,
        tls: ClientConfig,
        runtime: Handle,
        failed: impl Fn(&Error) + Send + Sync + 'static,
    ) -> Result<Self> {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(DELIVERY));
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector.wrap_connector(http));
        let sender = Sender { client, runtime, failed: Box::new(failed), failing: AtomicBool::default() };
        let unusable = |why: &dyn std::fmt::Display| {
            Error::input(format!("traces can't be sent: {why}")).help("check the variables OTEL_EXPORTER_OTLP_*")
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_endpoint(destination.url.to_string())
            .build()
            .map_err(|e| unusable(&e))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service);
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let mut provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.with_attribute(version).build());
        if let Some(ratio) = destination.ratio {
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))));
        }
        let provider = provider.build();
        let tracer = provider.tracer("ringfence");
        Ok(Self(Some((provider, tracer))))
    }

    /// The span of a request of a client that isn't trusted. The client's own trace is a link and not the parent, so
    /// that clients decide neither what is recorded nor where it appears (OpenTelemetry specification, "Links between
    /// spans").
    pub fn request(&self, headers: &HeaderMap) -> Span {
        let Some((_, tracer)) = &self.0 else { return Span::default() };
        let theirs = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let theirs = theirs.span().span_context().clone();
        let mut builder = tracer.span_builder("request").with_kind(SpanKind::Server);
        if theirs.is_valid() {
            builder = builder.with_links(vec![Link::with_context(theirs)]);
        }
        let span = tracer.build_with_context(builder, &Context::new());
        Span(Some(Context::new().with_value(tracer.clone()).with_span(span)))
    }

    /// Sends the last spans.
    pub async fn end(self) {
        if let Some((provider, _)) = self.0 {
            // A failure was already told.
            let _told = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST)).await;
        }
    }
}

impl Span {
    /// A part of what this task does within [`Span::around`].
    pub fn part(name: &'static str, kind: SpanKind) -> Self {
        Context::map_current(|current| {
            let Some(tracer) = current.get::<SdkTracer>() else { return Self::default() };
            let span = tracer.build_with_context(tracer.span_builder(name).with_kind(kind), current);
            Self(Some(current.with_span(span)))
        })
    }

    /// Does the work within the span.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }

    pub fn is_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|context| context.span().is_recording())
    }

    pub fn rename(&self, name: String) {
        if let Some(context) = &self.0 {
            context.span().update_name(name);
        }
    }

    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// The server's fault, not the caller's.
    pub fn failed(&self, why: &'static str) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(why));
        }
    }

    pub fn end(&self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }

    /// The id of the trace. None if it isn't recorded.
    pub fn trace(&self) -> Option<String> {
        let context = self.0.as_ref().filter(|_| self.is_recorded())?;
        Some(context.span().span_context().trace_id().to_string())
    }

    /// Adds `traceparent`, so that the next server's spans are children of this one.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
        }
    }
}

/// Delivers spans on the program's own runtime: the exporter has a thread without one.
struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    failed: Box<dyn Fn(&Error) + Send + Sync>,
    failing: AtomicBool,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    fn note(&self, why: Option<String>) {
        let failing = why.is_some();
        if let (false, Some(why)) = (self.failing.swap(failing, Ordering::Relaxed), why) {
            (self.failed)(&Error::input(format!("traces can't be delivered: {why}")).help(
                "check the collector and the way to it; until then, the newest traces are kept for a moment and then lost",
            ));
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let answer = async {
                let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, LARGEST_ANSWER).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::from_parts(head, body))
            };
            tokio::time::timeout(DELIVERY, answer).await.unwrap_or_else(|_| Err("no answer in time".into()))
        });
        let answer = match sending.await {
            Ok(answer) => answer,
            Err(ended) => Err(ended.into()),
        };
        self.note(match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn named(url: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<Destination>> {
        Destination::named(url, None, |name| {
            variables.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_configuration_or_the_environment_names_the_destination() {
        const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        const OWN: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/x");
        for (url, variables, expected) in [
            (None, &[][..], None),
            (None, &[ALL], Some("http://collector:4318/v1/traces")),
            (None, &[ALL, OWN], Some("https://traces.example/x")),
            (Some("https://a.example/v1/traces"), &[ALL, OWN], Some("https://a.example/v1/traces")),
            (None, &[ALL, ("OTEL_SDK_DISABLED", "TRUE")], None),
            (Some("https://a.example/v1/traces"), &[("OTEL_TRACES_EXPORTER", "none")], None),
            (None, &[OWN, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], Some("https://traces.example/x")),
            (None, &[OWN, ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")], Some("https://traces.example/x")),
        ] {
            let found = named(url, variables).unwrap().map(|found| found.url.to_string());
            assert_eq!(found.as_deref(), expected, "{url:?} {variables:?}");
        }
    }

    #[test]
    fn a_destination_that_cannot_be_used_is_named() {
        const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (url, variables, expected) in [
            (Some("collector"), &[][..], "neither http nor https"),
            (Some("grpc://collector:4317"), &[], "neither http nor https"),
            (Some("http://a b"), &[], "no URL"),
            (Some("ftp://me:secret@collector?key=secret"), &[], "to `collector`"),
            (None, &[ALL, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "by `grpc`"),
            (None, &[ALL, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")], "by `http/json`"),
            (None, &[ALL, ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")], "without encryption"),
        ] {
            let error = named(url, variables).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let ratio = Destination::named(Some("https://a.example"), Some(1.5), |_| None).unwrap_err();
        assert!(ratio.message.contains("from 0 to 1"), "{ratio}");
    }
}
