//! The operations port: metrics and probes, for the machines that run the cluster. Never public.
//!
//! `/healthz` asks whether this process works, `/readyz` whether clients should be sent to it,
//! `/health` what there is to know. None of them waits for the database or Redis: they read
//! [`NodeStatus`], which the stages keep.

mod status;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

pub use status::{Flag, Health, NodeStatus, Number};

use crate::metrics::{self, PrometheusHandle};

#[derive(Clone)]
struct Ops {
    status: Arc<NodeStatus>,
    metrics: PrometheusHandle,
}

/// What the operations port serves.
pub fn router(status: Arc<NodeStatus>, metrics: PrometheusHandle) -> Router {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/health", get(health))
        .with_state(Ops { status, metrics });
    #[cfg(feature = "failpoints")]
    let router = router.route("/failpoints/{name}", axum::routing::put(set_failpoint));
    router
}

/// Only where faults are built in: in tests.
#[cfg(feature = "failpoints")]
async fn set_failpoint(
    axum::extract::Path(name): axum::extract::Path<String>,
    action: String,
) -> Response {
    match crate::failpoint::set(&name, &action) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error).into_response(),
    }
}

/// What the public port tells of a node: that it works, and, for load balancers that see no other
/// port, whether to send it clients (503: do not). Nothing an outsider could use.
pub fn public_health_router(status: Arc<NodeStatus>) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/health", get(terse_health))
        .with_state(status)
}

async fn scrape(State(ops): State<Ops>) -> Response {
    ops.status.set_gauges();
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, metrics::render(&ops.metrics)).into_response()
}

/// An answer is all the proof there is: the runtime runs tasks and the port is served.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(ops): State<Ops>) -> Response {
    let reasons = ops.status.not_ready_because();
    let status = status_of(reasons.is_empty());
    (
        status,
        Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })),
    )
        .into_response()
}

async fn health(State(ops): State<Ops>) -> Json<Health> {
    Json(ops.status.health())
}

async fn terse_health(State(status): State<Arc<NodeStatus>>) -> Response {
    let ready = status.not_ready_because().is_empty();
    (status_of(ready), Json(json!({ "status": status.word() }))).into_response()
}

fn status_of(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get_from(router: Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn running(cluster: bool) -> Arc<NodeStatus> {
        let status = NodeStatus::new("node-1", cluster);
        for flag in [
            &status.started,
            &status.in_step,
            &status.redis_up,
            &status.database_up,
        ] {
            flag.set(true);
        }
        Arc::new(status)
    }

    #[tokio::test]
    async fn readiness_follows_this_node_and_not_the_services_all_share() {
        let status = running(true);
        let ready = async || {
            let router = router(Arc::clone(&status), metrics::install());
            get_from(router, "/readyz").await
        };
        assert_eq!(ready().await.0, StatusCode::OK);

        status.behind.set(true);
        let (code, body) = ready().await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("not in step"), "{body}");

        status.behind.set(false);
        status.in_step.set(false);
        status.redis_up.set(false);
        status.database_up.set(false);
        assert_eq!(
            ready().await.0,
            StatusCode::OK,
            "an outage for everybody empties no Service"
        );
        assert_eq!(status.word(), "degraded");

        for flag in [&status.draining, &status.full] {
            flag.set(true);
            assert_eq!(ready().await.0, StatusCode::SERVICE_UNAVAILABLE);
            flag.set(false);
        }
        status.started.set(false);
        assert_eq!(ready().await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn health_tells_operators_everything_and_outsiders_one_word() {
        let status = running(false);
        status.sockets.add(3);
        let inside = router(Arc::clone(&status), metrics::install());
        let (_, body) = get_from(inside.clone(), "/health").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["sockets"], 3);
        assert_eq!(body["redis"], "none");
        assert_eq!(body["status"], "ok");
        let (_, text) = get_from(inside, "/metrics").await;
        assert!(text.contains("rookery_sockets 3\n"), "{text}");

        let outside = public_health_router(Arc::clone(&status));
        let (code, body) = get_from(outside.clone(), "/health").await;
        assert_eq!(
            (code, body.as_str()),
            (StatusCode::OK, "{\"status\":\"ok\"}")
        );
        status.draining.set(true);
        assert_eq!(
            get_from(outside.clone(), "/health").await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(get_from(outside, "/healthz").await.0, StatusCode::OK);
    }
}
