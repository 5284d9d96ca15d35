//! What every answer looks like.
//!
//! Successes are written where they are made (`ok`, `made`). Failures come from everywhere:
//! handlers, extractors, the router, panics. Each leaves its [`AppError`] in the response, and
//! `seal`, around all of them, writes the one body there is for it.

use std::panic::AssertUnwindSafe;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::rest::{ErrorBody, Failure, Success};
use rookery_protocol::{ErrorCode, Timestamp};
use serde::Serialize;

use super::RestState;
use crate::clock::Clock;
use crate::error::AppError;

/// A handler's result.
pub(super) type Answer<T> = Result<(StatusCode, Json<Success<T>>), AppError>;

/// 200 with data.
pub(super) fn ok<T: Serialize>(clock: &Clock, data: T) -> Answer<T> {
    success(clock, StatusCode::OK, data)
}

/// 201 with what was made, or 200 with what had been made before.
pub(super) fn made<T: Serialize>(clock: &Clock, new: bool, data: T) -> Answer<T> {
    success(
        clock,
        if new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        },
        data,
    )
}

/// 200 with `"data": null`: it was done, and there is nothing to tell.
pub(super) fn done(clock: &Clock) -> Answer<()> {
    ok(clock, ())
}

fn success<T: Serialize>(clock: &Clock, status: StatusCode, data: T) -> Answer<T> {
    let envelope = Success {
        success: true,
        data,
        message: None,
        timestamp: clock.now(),
    };
    Ok((status, Json(envelope)))
}

/// A failed request's whole answer.
#[must_use]
pub fn failure(error: AppError, now: Timestamp) -> Response {
    let code = error.code;
    let retry_after_ms = error.retry_after_ms;
    let body = Failure {
        success: false,
        error: ErrorBody {
            code,
            message: error.message,
            details: error.details,
            retry_after_ms,
        },
        timestamp: now,
    };
    let mut response = (status_of(code), Json(body)).into_response();
    let headers = response.headers_mut();
    if let Some(millis) = retry_after_ms {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(millis.div_ceil(1_000)),
        );
    }
    if code == ErrorCode::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn status_of(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Carries the error out to `seal`, which knows the time.
impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let mut response = status_of(self.code).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the bodies of failures.
pub(super) async fn seal(State(state): State<RestState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<AppError>() else {
        return response;
    };
    let mut sealed = failure(error, state.clock.now());
    *sealed.status_mut() = response.status();
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        sealed.headers_mut().insert(header::ALLOW, allow);
    }
    sealed
}

/// A bug in one handler costs its caller an `INTERNAL`, not the connection.
pub(super) async fn catch_panic(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            // The panic hook has written the message and the place.
            tracing::error!("a request handler panicked");
            AppError::internal().into_response()
        }
    }
}

const NOSNIFF: (HeaderName, HeaderValue) = (
    header::X_CONTENT_TYPE_OPTIONS,
    HeaderValue::from_static("nosniff"),
);
const NO_STORE: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// Headers of every answer: nothing here may be kept by a cache or guessed at by a browser.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .extend([NOSNIFF, NO_STORE].map(|(name, value)| (Some(name), value)));
    response
}

pub(super) async fn unknown_route() -> AppError {
    AppError::not_found()
}

/// The code table has no code of its own for this; the status says it.
pub(super) async fn wrong_method() -> Response {
    let detail = ErrorDetail {
        field: "method".into(),
        reason: "is not one of this route's".into(),
        allowed: Some("see the Allow header".into()),
    };
    let mut response = AppError::invalid(detail).into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn bug() {
        panic!("on purpose");
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_that_says_nothing() {
        let router: Router = Router::new()
            .route("/", get(bug))
            .layer(from_fn(catch_panic));
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let error = response.extensions().get::<AppError>();
        assert_eq!(error, Some(&AppError::internal()));
    }

    #[tokio::test]
    async fn a_failure_says_when_to_come_back() {
        let now = Timestamp::from_millis(0);
        let response = failure(AppError::rate_limited(1_001), now);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            response.headers()[header::RETRY_AFTER],
            "2",
            "whole seconds, rounded up"
        );
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Failure = serde_json::from_slice(&body).unwrap();
        assert!(!body.success);
        assert_eq!(body.error.retry_after_ms, Some(1_001));
        let response = failure(AppError::not_found(), now);
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
