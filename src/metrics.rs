//! Metrics. `declared.rs` declares each one once: its doc comment is its help text, its labels
//! and their values are part of the declaration, and it becomes a function that returns a cached
//! handle. `docs/OPERATIONS.md` lists them, compared with [`all`] by a test.
//!
//! No label ever takes a value from a client: a metric with unbounded labels fills the memory of
//! whoever scrapes it.

mod declare;
mod declared;
mod http;
mod level;
mod process;
mod recorder;
mod runtime;

pub use declare::{Kind, Metric};
pub use declared::*;
pub use http::track_http;
pub use level::Level;
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use recorder::spawn_upkeep;

/// Describes all metrics and shows those that have not moved yet as 0. May be called by every node
/// that runs in a process; they share the numbers.
pub fn install() -> PrometheusHandle {
    for metric in declared::DECLARED {
        metric.describe();
        (metric.touch)();
    }
    build_info(env!("CARGO_PKG_VERSION")).set(1.0);
    recorder::recorder().handle()
}

/// The answer to a scrape, in Prometheus' text format.
#[must_use]
pub fn render(handle: &PrometheusHandle) -> String {
    let mut text = handle.render();
    process::render_into(&mut text);
    runtime::render_into(&mut text);
    text
}

/// Every metric there is, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    declared::DECLARED
        .iter()
        .chain(process::DECLARED)
        .chain(runtime::DECLARED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(text: &str, name: &str) -> f64 {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn every_metric_is_rendered_with_its_help_even_after_two_installs() {
        // A handle that is got before the installation counts as well.
        messages_total().stored.increment(2);
        let handle = install();
        assert!(!install().render().is_empty());
        messages_total().stored.increment(1);
        closes_total("1012").increment(1);
        http_requests_total("/x", "GET", "200").increment(1);
        http_request_seconds("/x").record(0.004);
        commit_batch_size().record(3.0);
        used().sockets.set(3.0);
        let text = render(&handle);
        for metric in all() {
            let (name, kind) = (metric.name, metric.kind.as_str());
            assert!(
                text.contains(&format!("# TYPE {name} {kind}\n")),
                "{name} in {text}"
            );
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert!(metric.help().ends_with('.'), "{name}: {}", metric.help());
        }
        assert!(
            text.contains("rookery_messages_total{result=\"stored\"} 3\n"),
            "{text}"
        );
        assert!(text.contains("rookery_auth_logins_total{result=\"limited\"} 0\n"));
        assert!(text.contains("rookery_used{resource=\"sockets\"} 3\n"));
        let started = value_of(&text, "process_start_time_seconds");
        let now = crate::clock::Clock::system().now().as_millis() as f64 / 1_000.0;
        assert!((now - 86_400.0..=now + 1.0).contains(&started), "{started}");
        assert!(text.contains("rookery_commit_batch_size_bucket{le=\"4\"} 1\n"));
        assert!(
            text.contains("rookery_http_request_seconds_bucket{route=\"/x\",le=\"0.005\"} 1\n")
        );
    }
}
