//! The REST interface, typed: a method an operation, in a file a noun.

mod accounts;
mod conversations;
mod messages;
mod presence;
mod receipts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use messages::{Sent, Span};
pub use reqwest::Method;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url, header};
use rookery_protocol::ErrorCode;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::rest::Success;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::ClientConfig;

use crate::tls;

/// How long one call may take, its connection included.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Most that is shown of what is no answer of Rookery's.
const SHOWN_CHARS: usize = 200;

/// A server's REST interface as one user, or as nobody. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Api {
    http: Client,
    /// Without a slash at its end.
    base: Arc<str>,
    token: Option<Arc<str>>,
}

/// Without the token: secrets stay out of logs.
impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// One page of a list is asked for with these; the default is the first page of default size.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// At most 200; the server's default is 50.
    pub limit: Option<usize>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl PageRequest {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        let cursor = self.cursor.clone().map(|cursor| ("cursor", cursor));
        limit.into_iter().chain(cursor).collect()
    }
}

/// A call that was refused, or got no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} ({}): {message}", .code.as_str(), if *.status == 0 { "no answer".into() } else { .status.to_string() })]
pub struct ApiError {
    /// The HTTP status; 0 when there was no answer.
    pub status: u16,
    /// `UNAVAILABLE` when there was no answer; read from the status when the body had none.
    pub code: ErrorCode,
    pub message: String,
    pub details: Vec<ErrorDetail>,
    /// What a `Retry-After` header asked for.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    fn no_answer(error: &reqwest::Error) -> Self {
        // reqwest keeps the cause ("connection refused") in the source chain.
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            if let Some(advice) = tls::advice(cause) {
                message = format!("{message} ({advice})");
            }
            source = cause.source();
        }
        Self::unavailable(message)
    }

    pub(crate) fn unavailable(message: String) -> Self {
        Self::local(0, ErrorCode::Unavailable, message)
    }

    fn local(status: u16, code: ErrorCode, message: String) -> Self {
        Self {
            status,
            code,
            message,
            details: Vec::new(),
            retry_after: None,
        }
    }

    /// Whether the same call may succeed later: no answer, or a retryable code.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }
}

/// A success with its status: 201 where something was made, 200 otherwise.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    pub status: u16,
    pub data: T,
}

impl Api {
    /// The server at `base`, for instance `http://127.0.0.1:8080`. Proxies named by the environment
    /// are not used, and redirects not followed: the socket would do neither.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let http = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(CALL_TIMEOUT)
            .tls_backend_preconfigured(ClientConfig::clone(&tls::config()))
            .build()
            .expect("a client of this rustls, without a proxy or a resolver of its own");
        Self::with_http(http, base)
    }

    /// As [`Api::new`], with an HTTP client of one's own (shared between many users, for instance).
    #[must_use]
    pub fn with_http(http: Client, base: &str) -> Self {
        Self {
            http,
            base: base.trim_end_matches('/').into(),
            token: None,
        }
    }

    /// The same server with this access token.
    #[must_use]
    pub fn with_token(&self, access_token: &str) -> Self {
        Self {
            token: Some(access_token.into()),
            ..self.clone()
        }
    }

    /// The same server as nobody.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    /// The same user at another node.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').into(),
            ..self.clone()
        }
    }

    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Any operation: `path` is below `/api/v1` and starts with a slash.
    ///
    /// # Errors
    /// [`ApiError`], with status 0 when there was no answer.
    pub async fn call<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&'static str, String)],
        body: Option<&B>,
    ) -> Result<Answer<T>, ApiError> {
        let mut url = Url::parse(&format!("{}/api/v1{path}", self.base)).map_err(|error| {
            ApiError::local(0, ErrorCode::Invalid, format!("{}: {error}", self.base))
        })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| ApiError::no_answer(&error))?;
        read(response).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<T, ApiError> {
        Ok(self
            .call::<(), T>(Method::GET, path, query, None)
            .await?
            .data)
    }

    async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ApiError> {
        Ok(self.call(Method::POST, path, &[], Some(body)).await?.data)
    }

    async fn patch<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ApiError> {
        Ok(self.call(Method::PATCH, path, &[], Some(body)).await?.data)
    }

    async fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.call::<(), IgnoredAny>(Method::DELETE, path, &[], None)
            .await
            .map(drop)
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<Answer<T>, ApiError> {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let location = redirect_of(response.status(), response.headers());
    let body = response
        .bytes()
        .await
        .map_err(|error| ApiError::no_answer(&error))?;
    if (200..300).contains(&status) {
        return serde_json::from_slice::<Success<T>>(&body)
            .map(|success| Answer {
                status,
                data: success.data,
            })
            .map_err(|error| {
                let message = format!("the answer is not what this version expects: {error}");
                ApiError::local(status, ErrorCode::Internal, message)
            });
    }
    let mut error = refusal(status, &body);
    error.message = location.unwrap_or(error.message);
    error.retry_after = retry_after;
    Err(error)
}

/// What to say of a redirect: a client that followed it would send a token or a password where nobody
/// meant it to.
pub(crate) fn redirect_of(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let location: String = location.chars().take(SHOWN_CHARS).collect();
    let said = format!("this address leads to {location}: use that one");
    status.is_redirection().then_some(said)
}

/// Reads a failure leniently: a proxy's page and a newer server's code must still yield an error
/// that can be acted upon.
fn refusal(status: u16, body: &[u8]) -> ApiError {
    #[derive(Deserialize)]
    struct Body {
        code: String,
        message: String,
        #[serde(default)]
        details: Vec<ErrorDetail>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        error: Body,
    }
    let by_status = match status {
        401 => ErrorCode::Unauthenticated,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::NotFound,
        409 => ErrorCode::Conflict,
        413 => ErrorCode::TooLarge,
        429 => ErrorCode::RateLimited,
        502..=504 => ErrorCode::Unavailable,
        500.. => ErrorCode::Internal,
        _ => ErrorCode::Invalid,
    };
    let Ok(Refusal { error: body }) = serde_json::from_slice(body) else {
        // A page, in one line.
        let text = String::from_utf8_lossy(body);
        let words: Vec<&str> = text.split_whitespace().collect();
        let shown = words.join(" ").chars().take(SHOWN_CHARS).collect();
        return ApiError::local(status, by_status, shown);
    };
    let named = ErrorCode::ALL
        .into_iter()
        .find(|code| code.as_str() == body.code);
    let mut error = ApiError::local(status, named.unwrap_or(by_status), body.message);
    error.details = body.details;
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Connect, Socket};

    #[test]
    fn a_refusal_is_read_even_from_strangers() {
        let ours = br#"{"success":false,"error":{"code":"CONFLICT","message":"taken","details":[
            {"field":"username","reason":"taken","allowed":null}]},"timestamp":"x"}"#;
        let error = refusal(409, ours);
        assert_eq!(
            (error.code, error.details[0].field.as_str()),
            (ErrorCode::Conflict, "username")
        );
        let newer = br#"{"error":{"code":"TEAPOT","message":"short and stout"}}"#;
        assert_eq!(refusal(429, newer).code, ErrorCode::RateLimited);
        let proxy = refusal(502, b"<html>bad gateway</html>");
        assert_eq!(
            (proxy.code, proxy.is_retryable()),
            (ErrorCode::Unavailable, true)
        );
        assert_eq!(
            proxy.to_string(),
            "UNAVAILABLE (502): <html>bad gateway</html>"
        );
        let page = refusal(400, b"<html>\r\n<h1>Bad</h1>\r\n</html>\r\n");
        assert_eq!(page.message, "<html> <h1>Bad</h1> </html>");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_but_told() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let answer = b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://chat.example.org/x\r\n\
                       Content-Length: 0\r\nConnection: close\r\n\r\n";
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1_024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(read > 0);
                stream.write_all(answer).await.unwrap();
            }
        });
        let rest = Api::new(&base).me().await.unwrap_err().to_string();
        let socket = Socket::connect(&base, &Connect::default()).await.err();
        for error in [rest, socket.unwrap().to_string()] {
            assert!(error.contains("301"), "{error}");
            let wanted = "leads to https://chat.example.org/x: use that one";
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn the_token_is_not_shown() {
        let api = Api::new("http://127.0.0.1:9").with_token("hunter2");
        let shown = format!("{api:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("127.0.0.1"), "{shown}");
    }

    #[tokio::test]
    async fn no_answer_is_an_error_of_its_own() {
        let error = Api::new("http://127.0.0.1:9").me().await.unwrap_err();
        assert_eq!((error.status, error.code), (0, ErrorCode::Unavailable));
        assert!(
            error.to_string().starts_with("UNAVAILABLE (no answer)"),
            "{error}"
        );
    }
}
