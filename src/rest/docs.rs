//! `/openapi.json`, kept by hand beside this file, and `/docs`, a page that renders it with nothing
//! from elsewhere. Tests compare the document with the router's table and with the wire types.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::RestState;

const OPENAPI: &str = include_str!("docs/openapi.json");
const PAGE: &str = include_str!("docs/page.html");
/// The page's own style and script, and the document from this server; nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) fn routes() -> Router<RestState> {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/docs", get(page))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, PAGE)
}

#[cfg(test)]
mod tests;
