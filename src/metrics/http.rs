//! Counts and times REST requests: `axum::middleware::from_fn(metrics::track_http)`.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use super::{http_request_seconds, http_requests_total};

/// Labels come from tables only: the router's paths, the usual methods, the status.
pub async fn track_http(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = name_of(request.method());
    let begun = Instant::now();
    let response = next.run(request).await;
    http_request_seconds(route.clone()).record(begun.elapsed());
    let status = response.status().as_u16().to_string();
    http_requests_total(route, method, status).increment(1);
    response
}

/// Clients may make methods up.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::metrics;

    #[tokio::test]
    async fn requests_are_counted_by_the_routers_path_and_never_by_their_own() {
        let things = Router::new().route("/things/{id}", get(async || "one"));
        let router = Router::new()
            .nest("/tracked", things)
            .layer(from_fn(track_http));
        for (method, path) in [("GET", "/tracked/things/7"), ("MADE-UP", "/nowhere")] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(Body::empty())
                .unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        let text = metrics::render(&metrics::install());
        let series = |labels: &str| format!("rookery_http_requests_total{{{labels}}} 1\n");
        let known = series(r#"route="/tracked/things/{id}",method="GET",status="200""#);
        let unknown = series(r#"route="none",method="other",status="404""#);
        assert!(text.contains(&known) && text.contains(&unknown), "{text}");
    }
}
