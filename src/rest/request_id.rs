//! An id for each request: the client's or the proxy's (`X-Request-Id`), if it can be one, else a new
//! one. It is in every line that is logged for the request, and in its answer.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::clock;

pub(super) const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// Room for what proxies make: 32 hexadecimal digits, a UUID.
const CHARS_MAX: usize = 64;

/// Carried by each request.
#[derive(Clone, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// That of a request which [`name`] has passed; else a new one.
    #[must_use]
    pub fn carried_by(request: &Request) -> Self {
        let carried = request.extensions().get().cloned();
        carried.unwrap_or_else(Self::new)
    }

    fn new() -> Self {
        Self(clock::new_id().simple().to_string().into())
    }

    fn of(headers: &HeaderMap) -> Self {
        let told = headers.get(NAME).and_then(|value| value.to_str().ok());
        match told.filter(|id| is_sane(id)) {
            Some(id) => Self(id.into()),
            None => Self::new(),
        }
    }
}

/// Nothing that could end a line, or be taken for something else in one.
fn is_sane(id: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=CHARS_MAX).contains(&id.len()) && id.chars().all(is_plain)
}

/// Names a request. Its path is logged as the router's table has it, since ids and tokens may stand
/// in what was asked for.
pub async fn name(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", |path| path.as_str());
    // At the level of errors, so that these have it whatever else is logged.
    let span = tracing::error_span!("request", id = id.as_str(), method = %request.method(), route);
    request.extensions_mut().insert(id.clone());
    let answered = async {
        let began = Instant::now();
        let response = next.run(request).await;
        let status = response.status().as_u16();
        tracing::debug!(status, took = ?began.elapsed(), "answered");
        response
    };
    let mut response = answered.instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(NAME, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn answered(id: Option<&str>) -> String {
        let echo = async |request: Request| {
            let id = request.extensions().get::<RequestId>();
            id.map(|id| id.as_str().to_owned()).unwrap_or_default()
        };
        let router: Router = Router::new().route("/", get(echo)).layer(from_fn(name));
        let mut request = Request::get("/");
        if let Some(id) = id {
            request = request.header(NAME, id);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let told = response.headers()[NAME].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1_000).await;
        assert_eq!(body.unwrap(), told.as_bytes(), "the handler saw another");
        told
    }

    #[tokio::test]
    async fn what_the_proxy_says_is_kept_and_what_is_no_id_is_replaced() {
        let longest = "a".repeat(CHARS_MAX);
        for id in ["3f0c9e", "5a1b-7_x.Y", longest.as_str()] {
            assert_eq!(answered(Some(id)).await, id);
        }
        let too_long = "a".repeat(CHARS_MAX + 1);
        for id in [
            None,
            Some(""),
            Some("a b"),
            Some("a\"}"),
            Some(too_long.as_str()),
        ] {
            let made = answered(id).await;
            assert!(made.len() == 32 && is_sane(&made), "{made}");
        }
    }
}
