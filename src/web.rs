//! The browser client: static files, compiled in, so that the binary is all there is to deploy.

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use sha2::{Digest, Sha256};

/// Scripts and styles come from here only; the page talks to this host, and to WebSockets of other
/// names for it (Safari does not count them as 'self').
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Path, kind and text of each file.
const FILES: [(&str, &str, &str); 11] = [
    ("/", HTML, include_str!("../web/index.html")),
    ("/web/app.css", STYLE, include_str!("../web/app.css")),
    ("/web/icon.svg", IMAGE, include_str!("../web/icon.svg")),
    ("/web/app.js", SCRIPT, include_str!("../web/app.js")),
    (
        "/web/connection.js",
        SCRIPT,
        include_str!("../web/connection.js"),
    ),
    (
        "/web/conversations.js",
        SCRIPT,
        include_str!("../web/conversations.js"),
    ),
    ("/web/frames.js", SCRIPT, include_str!("../web/frames.js")),
    (
        "/web/outgoing.js",
        SCRIPT,
        include_str!("../web/outgoing.js"),
    ),
    ("/web/people.js", SCRIPT, include_str!("../web/people.js")),
    ("/web/view.js", SCRIPT, include_str!("../web/view.js")),
    ("/web/session.js", SCRIPT, include_str!("../web/session.js")),
];

/// Serves the client at `/`.
pub fn router() -> Router {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, text)| {
            router.route(path, file(kind, text))
        })
}

fn file(kind: &'static str, text: &'static str) -> MethodRouter {
    let hash = Sha256::digest(text);
    let tag: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("\"{tag}\"");
    get(async move |headers: HeaderMap| answer(&headers, kind, text, &tag))
}

/// The file, or 304 to a browser that has it. Browsers ask each time (`no-cache`), so that a new
/// version is used as soon as it runs.
fn answer(request: &HeaderMap, kind: &'static str, text: &'static str, tag: &str) -> Response {
    let known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().trim_start_matches("W/") == tag);
    let headers: [(HeaderName, HeaderValue); 6] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::ETAG,
            HeaderValue::from_str(tag).unwrap_or(HeaderValue::from_static("\"\"")),
        ),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    if known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_browser_that_has_the_page_is_told_so() {
        for (path, _, _) in FILES {
            let first = Request::get(path).body(Body::empty()).unwrap();
            let response = router().oneshot(first).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert!(
                response
                    .headers()
                    .contains_key(header::CONTENT_SECURITY_POLICY)
            );
            let tag = response.headers()[header::ETAG].clone();
            let again = Request::get(path).header(header::IF_NONE_MATCH, tag);
            let response = router()
                .oneshot(again.body(Body::empty()).unwrap())
                .await
                .unwrap();
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{path}");
        }
    }

    #[test]
    fn the_page_needs_nothing_that_its_policy_forbids_or_that_is_not_served() {
        let page = FILES[0].2;
        for forbidden in [
            "<style",
            "<script>",
            "style=",
            "onclick=",
            "javascript:",
            "://",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let served = |path: &str| FILES.iter().any(|(served, _, _)| *served == path);
        for link in page
            .split(['"', '\''])
            .filter(|text| text.starts_with("/web/"))
        {
            assert!(served(link), "{link}");
        }
        for (_, _, text) in FILES {
            for (_, import) in text
                .lines()
                .filter_map(|line| line.split_once(" from \"./"))
            {
                let path = format!("/web/{}", import.trim_end_matches("\";"));
                assert!(served(&path), "{path}");
            }
        }
    }
}
