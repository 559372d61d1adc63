//! Figures for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of latency, in seconds.
const SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    pub phase: &'static str,
    pub verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPhase {
    pub phase: &'static str,
}

pub struct Metrics {
    registry: Registry,
    pub reviews: Family<Labels, Counter>,
    pub latency: Family<OfPhase, Histogram>,
    pub failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ringfence_admission");
        let reviews = Family::default();
        let latency: Family<OfPhase, Histogram> = Family::new_with_constructor(|| Histogram::new(SECONDS));
        let failures = Counter::default();
        registry.register("reviews", "Reviews, by phase and verdict", Family::clone(&reviews));
        registry.register_with_unit("latency", "Time until an answer", Unit::Seconds, latency.clone());
        registry.register("upkeep_failures", "Policies or certificates that couldn't be renewed", failures.clone());
        Self { registry, reviews, latency, failures }
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
