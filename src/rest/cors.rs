//! Web pages of other origins that may call: those in `ALLOWED_ORIGINS`, or, while that is empty,
//! those on loopback, for development. Pages of the server's own origin need no permission.
//!
//! Nothing here protects the server: browsers send no credentials by themselves (tokens travel in
//! a header), so this only decides whose pages may read answers.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::RestState;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, x-request-id");
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after, x-request-id");
/// A browser asks again after so many seconds; Chromium caps it at two hours.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Answers preflights of allowed origins, and marks other answers as theirs to read.
pub(super) async fn answer(
    State(state): State<RestState>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let origin = origin.filter(|origin| is_allowed(origin, &state.allowed_origins));
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&origin, preflight) {
        (Some(_), true) => preflight_answer(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

fn preflight_answer() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    (StatusCode::OK, headers).into_response()
}

fn is_allowed(origin: &HeaderValue, allowed: &[String]) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if allowed.is_empty() {
        is_loopback(origin)
    } else {
        allowed.iter().any(|one| one == origin)
    }
}

fn is_loopback(origin: &str) -> bool {
    let Some((_, authority)) = origin.split_once("://") else {
        return false;
    };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origin: &str, list: &[&str]) -> bool {
        let list: Vec<String> = list.iter().map(|one| (*one).to_owned()).collect();
        is_allowed(&HeaderValue::from_str(origin).unwrap(), &list)
    }

    #[test]
    fn origins_are_compared_as_a_whole() {
        let list = ["https://chat.example"];
        assert!(allowed("https://chat.example", &list));
        for other in [
            "http://chat.example",
            "https://chat.example:8443",
            "https://chat.example.evil.example",
            "https://evil-chat.example",
            "http://localhost",
            "null",
            "",
        ] {
            assert!(!allowed(other, &list), "{other}");
        }
    }

    #[test]
    fn without_a_list_only_loopback_is_allowed() {
        for good in [
            "http://localhost",
            "http://localhost:5173",
            "http://127.0.0.1:80",
            "http://[::1]:3000",
        ] {
            assert!(allowed(good, &[]), "{good}");
        }
        for bad in [
            "http://localhost.evil.example",
            "http://evil.example:80",
            "null",
            "http://localhost:80.evil.example",
        ] {
            assert!(!allowed(bad, &[]), "{bad}");
        }
    }
}
