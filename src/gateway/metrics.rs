//! Figures for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of latency, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    pub tenant: String,
    pub verb: &'static str,
    pub verdict: &'static str,
    pub code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTenant {
    pub tenant: String,
}

pub struct Metrics {
    registry: Registry,
    pub requests: Family<Labels, Counter>,
    pub latency: Family<OfTenant, Histogram>,
    pub streams: Family<OfTenant, Gauge>,
    pub connections: Gauge,
    pub reload_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ringfence_gateway");
        let requests = Family::default();
        let latency: Family<OfTenant, Histogram> = Family::new_with_constructor(|| Histogram::new(SECONDS));
        let streams = Family::default();
        let (connections, reload_failures) = (Gauge::default(), Counter::default());
        registry.register("requests", "Requests, by tenant, verb, verdict and status", Family::clone(&requests));
        registry.register_with_unit("latency", "Time until an answer began", Unit::Seconds, latency.clone());
        registry.register("streams", "Open watches, followed logs and sessions", Family::clone(&streams));
        registry.register("connections", "Open connections of clients", connections.clone());
        registry.register("reload_failures", "Changed files that couldn't be used", reload_failures.clone());
        Self { registry, requests, latency, streams, connections, reload_failures }
    }
}

impl Metrics {
    /// The text of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String doesn't fail.
        let _written = encode(&mut text, &self.registry);
        text
    }
}
