//! Traces over OTLP, when a collector is configured; else no span is ever made.
//!
//! The trace of a message has the message's id, so that every node it passes adds its spans to it
//! and nothing has to travel with it: `message.send` from accepting it to its acknowledgement,
//! `publish`, and `deliver` on each node with sockets for it. By the same id every node decides
//! alike whether a message is among those that are traced.

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use rookery_protocol::MessageId;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};
use url::Url;

use super::collector::Collector;
use super::{OURS, TelemetryError};
use crate::config::TracesConfig;

/// The target of spans that are there for traces.
pub const SPANS: &str = "rookery::spans";

/// Puts a new span into the trace of a message.
#[must_use]
pub fn of_message(span: Span, id: MessageId) -> Span {
    if !span.is_disabled() {
        let trace = id.as_bytes();
        let mut parent = [0; 8];
        parent.copy_from_slice(&trace[8..]);
        let context = SpanContext::new(
            TraceId::from_bytes(*trace),
            SpanId::from_bytes(parent),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        // Fails where spans are made for the log alone.
        span.set_parent(Context::new().with_remote_span_context(context))
            .ok();
    }
    span
}

/// What sends traces, and the layer that feeds it; `None` without a collector.
pub(super) fn start(
    config: &TracesConfig,
    node_id: &str,
) -> Result<Option<(SdkTracerProvider, impl Layer<Registry>)>, TelemetryError> {
    let Some(endpoint) = &config.endpoint else {
        return Ok(None);
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::default())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(address(endpoint))
        .build()
        .map_err(|error| TelemetryError::Traces(error.to_string()))?;
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", "rookery"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node_id.to_owned()),
    ]);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(ById(config.ratio))
        .with_resource(resource.build())
        .build();
    // Spans of ours, and no events: those are the log's.
    let ours = filter_fn(|of| of.is_span() && of.target().starts_with(OURS));
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("rookery"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(ours);
    Ok(Some((provider, layer)))
}

/// Where traces go below a collector's address.
fn address(endpoint: &Url) -> String {
    format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'))
}

/// Traces this part of all ids, the same ones on every node.
#[derive(Clone, Debug)]
struct ById(f64);

impl ById {
    fn takes(&self, id: TraceId) -> bool {
        // Ids of messages are UUIDs, some bits of which never change: mixed before they are
        // compared (MurmurHash3's last step).
        let id = u128::from_be_bytes(id.to_bytes());
        let mut mixed = (id >> 64) as u64 ^ id as u64;
        for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
        }
        mixed ^= mixed >> 33;
        let part = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
        part < self.0
    }
}

impl ShouldSample for ById {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        trace_id: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        SamplingResult {
            decision: if self.takes(trace_id) {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn about_as_many_ids_are_taken_as_asked_for_and_always_the_same() {
        let ids: Vec<TraceId> = (0..10_000)
            .map(|_| TraceId::from_bytes(*clock::new_id().as_bytes()))
            .collect();
        for (ratio, allowed) in [(0.0, 0..=0), (0.1, 800..=1_200), (1.0, 10_000..=10_000)] {
            let taken = ids.iter().filter(|id| ById(ratio).takes(**id)).count();
            assert!(allowed.contains(&taken), "{taken} of 10,000 at {ratio}");
        }
        let few: Vec<_> = ids.iter().filter(|id| ById(0.1).takes(**id)).collect();
        assert!(few.iter().all(|id| ById(0.2).takes(**id)));
    }

    #[test]
    fn traces_go_below_the_address_of_the_collector() {
        for (endpoint, expected) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c/otlp/", "http://c/otlp/v1/traces"),
        ] {
            assert_eq!(address(&Url::parse(endpoint).unwrap()), expected);
        }
    }
}
