//! What handlers take: who is asking, from where, ids, query parameters, bodies. Each refuses with
//! an [`AppError`] that names the field.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rookery_protocol::codec::detail_of;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::rest::Page;
use rookery_protocol::{ErrorCode, limits};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{RestState, client_ip::client_ip};
use crate::auth::Access;
use crate::chat::accounts::Origin;
use crate::error::AppError;

/// Who is asking, by `Authorization: Bearer`.
pub(super) struct Caller(pub(super) Access);

impl FromRequestParts<RestState> for Caller {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, AppError> {
        let value = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(|| {
            AppError::unauthenticated("this needs an access token: Authorization: Bearer …")
        })?;
        state.auth.verify(token).map(Self)
    }
}

/// Where the request comes from.
pub(super) struct From(pub(super) Origin);

/// Longest `User-Agent` kept, in characters: enough to tell one's devices apart.
const USER_AGENT_CHARS: usize = 200;

impl FromRequestParts<RestState> for From {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, AppError> {
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
            tracing::error!("the server does not tell the peer's address");
            return Err(AppError::internal());
        };
        let ip = client_ip(*peer, &parts.headers, &state.trusted_proxies);
        let user_agent = parts.headers.get(header::USER_AGENT);
        let user_agent = user_agent.and_then(|value| value.to_str().ok());
        let user_agent = user_agent.map(|text| text.chars().take(USER_AGENT_CHARS).collect());
        Ok(Self(Origin { ip, user_agent }))
    }
}

/// Ids in the path. What is no id names nothing.
pub(super) struct Ids<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<RestState> for Ids<T> {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, AppError> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(ids)| Self(ids))
            .map_err(|_| AppError::not_found())
    }
}

/// For 256 KiB over a bad mobile network; a client that dribbles longer holds a connection for
/// nothing.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<RestState> for Body<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, state: &RestState) -> Result<Self, AppError> {
        let bytes = tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, state)).await;
        let late = |_| AppError::new(ErrorCode::BadFrame, "the request body came too slowly");
        let bytes = bytes.map_err(late)?.map_err(unreadable)?;
        decode(&bytes).map(Self)
    }
}

fn unreadable(rejection: BytesRejection) -> AppError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return AppError::new(ErrorCode::TooLarge, "a request body has at most 256 KiB");
    }
    AppError::new(ErrorCode::BadFrame, "the request body could not be read")
}

/// Decodes; only a bad body pays for finding out which field is wrong.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AppError> {
    let is_json = || serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    // A list would be read by position, and fields have names here.
    if bytes.trim_ascii_start().first() != Some(&b'{') && is_json() {
        let detail = ErrorDetail::new("body", "is not an object", "a JSON object");
        return Err(AppError::invalid(detail));
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    if !is_json() {
        return Err(AppError::new(
            ErrorCode::BadFrame,
            "the request body is not JSON",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(value) => Ok(value),
        Err(error) => {
            let detail = detail_of(&error.path().to_string(), &error.inner().to_string());
            Err(AppError::invalid(detail))
        }
    }
}

/// The query string. Of a repeated parameter the first counts; unknown ones are ignored.
pub(super) struct Params(Vec<(String, String)>);

impl FromRequestParts<RestState> for Params {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, AppError> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let refusal = || ErrorDetail::new("query", "cannot be read", "name=value pairs").into();
        query.map(|Query(pairs)| Self(pairs)).map_err(|_| refusal())
    }
}

impl Params {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A value of another type; `allowed` describes it.
    pub(super) fn parse<T: FromStr>(
        &self,
        name: &str,
        allowed: &str,
    ) -> Result<Option<T>, AppError> {
        let refusal = |_| ErrorDetail::new(name, "cannot be read", allowed).into();
        self.text(name)
            .map(|text| text.parse().map_err(refusal))
            .transpose()
    }

    /// `limit`, or the default.
    pub(super) fn limit(&self) -> Result<usize, AppError> {
        let allowed = "1 to 200";
        let limit = self
            .parse("limit", allowed)?
            .unwrap_or(limits::PAGE_DEFAULT);
        if (1..=limits::PAGE_MAX).contains(&limit) {
            return Ok(limit);
        }
        Err(ErrorDetail::new("limit", "is out of range", allowed).into())
    }

    /// The position in the list `kind` that `cursor` stands for.
    pub(super) fn cursor<T: FromStr>(&self, kind: Cursor) -> Result<Option<T>, AppError> {
        let Some(text) = self.text("cursor") else {
            return Ok(None);
        };
        kind.read(text).map(Some).ok_or_else(|| {
            let allowed = "the next_cursor of the same list";
            ErrorDetail::new("cursor", "is not a cursor of this list", allowed).into()
        })
    }
}

/// Which list a cursor continues; one of another list is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    Users,
    Conversations,
    Members,
    Online,
    Receipts,
    Blocks,
}

impl Cursor {
    const fn tag(self) -> &'static str {
        match self {
            Self::Users => "u1:",
            Self::Conversations => "c1:",
            Self::Members => "m1:",
            Self::Online => "o1:",
            Self::Receipts => "r1:",
            Self::Blocks => "b1:",
        }
    }

    /// Opaque to clients, so that what is in it may change.
    pub(super) fn write(self, position: impl Display) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{position}", self.tag()))
    }

    fn read<T: FromStr>(self, text: &str) -> Option<T> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        std::str::from_utf8(&bytes)
            .ok()?
            .strip_prefix(self.tag())?
            .parse()
            .ok()
    }
}

/// The page of a list from which one item more than `limit` was asked for.
pub(super) fn page<T>(
    mut items: Vec<T>,
    limit: usize,
    cursor: impl FnOnce(&T) -> String,
) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = if more { items.last().map(cursor) } else { None };
    Page { items, next_cursor }
}

/// What to ask the store for, to know whether there is more than `limit`.
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).map_or(i64::MAX, |limit| limit.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use rookery_protocol::UserId;
    use rookery_protocol::rest::{AddMembers, CreateConversation, Register};

    use super::*;

    fn refused<T: DeserializeOwned>(body: &str) -> AppError {
        decode::<T>(body.as_bytes()).err().unwrap()
    }

    #[test]
    fn a_bad_body_is_told_from_a_bad_field() {
        assert_eq!(refused::<Register>("").code, ErrorCode::BadFrame);
        assert_eq!(refused::<Register>("{\"a\":").code, ErrorCode::BadFrame);
        assert_eq!(refused::<Register>("{} {}").code, ErrorCode::BadFrame);
        let missing = refused::<Register>(r#"{"username":"ann"}"#);
        assert_eq!(
            (missing.code, missing.details[0].field.as_str()),
            (ErrorCode::Invalid, "email")
        );
        let wrong = refused::<AddMembers>(r#"{"user_ids":["x"]}"#);
        assert_eq!(wrong.details[0].field, "user_ids[0]");
        assert_eq!(refused::<AddMembers>("7").code, ErrorCode::Invalid);
        let kind = refused::<CreateConversation>(r#"{"kind":"club"}"#);
        assert_eq!(kind.code, ErrorCode::Invalid);
        assert!(kind.details[0].reason.contains("club"), "{kind:?}");
    }

    #[test]
    fn a_cursor_continues_only_its_own_list() {
        let id: UserId = "00000000-0000-7000-8000-000000000001".parse().unwrap();
        let cursor = Cursor::Members.write(id);
        assert_eq!(Cursor::Members.read::<UserId>(&cursor), Some(id));
        assert_eq!(Cursor::Users.read::<UserId>(&cursor), None);
        for garbled in ["", "x", "====", "bTE6eA", &cursor[1..]] {
            assert_eq!(Cursor::Members.read::<UserId>(garbled), None, "{garbled}");
        }
    }

    #[test]
    fn a_page_ends_where_the_list_does() {
        let cursor = |item: &i32| item.to_string();
        let full = page(vec![1, 2, 3], 2, cursor);
        assert_eq!(
            (full.items, full.next_cursor.as_deref()),
            (vec![1, 2], Some("2"))
        );
        let last = page(vec![1, 2], 2, cursor);
        assert_eq!((last.items, last.next_cursor), (vec![1, 2], None));
    }

    #[test]
    fn parameters_have_bounds() {
        let params = |pairs: &[(&str, &str)]| {
            Params(
                pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        assert_eq!(params(&[]).limit().unwrap(), 50);
        assert_eq!(
            params(&[("limit", "200"), ("limit", "9")]).limit().unwrap(),
            200
        );
        for bad in ["0", "201", "-1", "x", ""] {
            let refused = params(&[("limit", bad)]).limit().unwrap_err();
            assert_eq!(refused.details[0].field, "limit", "{bad}");
        }
    }
}
