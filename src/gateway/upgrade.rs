//! `GET /ws`: everything that can be refused with an HTTP status is refused here, cheapest first.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::{ErrorCode, Format, Timestamp};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use url::{Host, Url};

use super::admission::Refused;
use super::listener::Place;
use super::open::{Credentials, Opening};
use super::{Gateway, connection};
use crate::error::AppError;
use crate::metrics;
use crate::rest::client_ip::client_ip;
use crate::rest::envelope::failure;
use crate::rest::request_id::RequestId;

/// Answers an upgrade and starts the socket's task.
pub async fn upgrade(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let results = metrics::upgrades_total();
    if gateway.is_draining() {
        results.draining.increment(1);
        return unavailable(1, gateway.clock.now());
    }
    let address = client_ip(peer, request.headers(), &gateway.options.trusted_proxies);
    let shows_token =
        bearer(request.headers()).is_some() || query(request.uri(), "token").is_some();
    let mut permit = match gateway.admission.admit(address, shows_token) {
        Ok(permit) => permit,
        Err(refused) => {
            match refused {
                Refused::Rate => &results.rate,
                Refused::Opening => &results.opening,
                Refused::Full => &results.full,
                Refused::Address => &results.address,
            }
            .increment(1);
            return unavailable(refused.retry_after().as_secs(), gateway.clock.now());
        }
    };
    let (accept, opening) = match check(&gateway, &request, address) {
        Ok(checked) => checked,
        Err(rejected) => return rejected.answer(gateway.clock.now()),
    };
    let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return malformed("Connection", "cannot be upgraded", "HTTP/1.1")
            .answer(gateway.clock.now());
    };
    if let Some(place) = request.extensions_mut().remove::<Place>() {
        permit.keep(place);
    }
    let protocol = opening
        .asked_for_protocol
        .then(|| opening.format.subprotocol());
    results.accepted.increment(1);
    let tasks = gateway.tasks.clone();
    tasks.spawn(
        "socket",
        connection::run(gateway, on_upgrade, Box::new(opening), permit),
    );
    switching(&accept, protocol)
}

/// Why a handshake is answered with a status instead of an upgrade.
#[derive(Debug)]
enum Rejected {
    /// Not a WebSocket handshake, or one for something we do not speak.
    Malformed(ErrorDetail),
    Version,
    Origin,
    Token(AppError),
}

impl Rejected {
    fn answer(self, now: Timestamp) -> Response {
        let results = metrics::upgrades_total();
        match self {
            Self::Malformed(detail) => {
                results.refused.increment(1);
                failure(AppError::invalid(detail), now)
            }
            Self::Version => {
                results.refused.increment(1);
                let detail = ErrorDetail::new("Sec-WebSocket-Version", "is not supported", "13");
                let mut response = failure(AppError::invalid(detail), now);
                *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
                let version = HeaderValue::from_static("13");
                response
                    .headers_mut()
                    .insert(header::SEC_WEBSOCKET_VERSION, version);
                response
            }
            Self::Origin => {
                results.forbidden.increment(1);
                failure(AppError::forbidden("this origin is not allowed"), now)
            }
            Self::Token(error) => {
                results.unauthenticated.increment(1);
                failure(error, now)
            }
        }
    }
}

fn check(
    gateway: &Gateway,
    request: &Request,
    address: IpAddr,
) -> Result<(String, Opening), Rejected> {
    let headers = request.headers();
    let key = websocket_key(headers)?;
    let (format, asked_for_protocol) = subprotocol(headers)?;
    if !origin_allowed(&gateway.options.allowed_origins, headers) {
        return Err(Rejected::Origin);
    }
    let credentials = match bearer(headers) {
        Some(token) => Credentials::Verified(gateway.auth.verify(token).map_err(Rejected::Token)?),
        None => match query(request.uri(), "token") {
            Some(token) => Credentials::Token(token),
            None => Credentials::FirstFrame,
        },
    };
    let resume =
        query(request.uri(), "resume").is_some_and(|value| value == "1" || value == "true");
    let accept = derive_accept_key(key.as_bytes());
    Ok((
        accept,
        Opening {
            credentials,
            format,
            asked_for_protocol,
            resume,
            address,
            request_id: RequestId::carried_by(request),
        },
    ))
}

/// The client's key, if this is a WebSocket handshake of version 13 (RFC 6455, 4.2.1).
fn websocket_key(headers: &HeaderMap) -> Result<&HeaderValue, Rejected> {
    let has = |name: header::HeaderName, token: &str| {
        let values = headers.get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value
                    .split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(token))
            })
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(malformed(
            "Upgrade",
            "is not a WebSocket handshake",
            "websocket",
        ));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(Rejected::Version);
    }
    // 16 bytes in base64.
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24);
    key.ok_or_else(|| {
        malformed(
            "Sec-WebSocket-Key",
            "is missing or malformed",
            "16 bytes, base64",
        )
    })
}

/// The first subprotocol asked for that is known; JSON when none is asked for.
fn subprotocol(headers: &HeaderMap) -> Result<(Format, bool), Rejected> {
    let mut asked = false;
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        for name in value.to_str().unwrap_or_default().split(',') {
            asked = true;
            if let Some(format) = Format::from_subprotocol(name.trim()) {
                return Ok((format, true));
            }
        }
    }
    if asked {
        let known = Format::ALL.map(Format::subprotocol).join(", ");
        return Err(malformed(
            "Sec-WebSocket-Protocol",
            "is not supported",
            &known,
        ));
    }
    Ok((Format::Json, false))
}

/// Only browsers send an `Origin`; it must be one the operator named or, if none is named, the very
/// host that was asked or loopback.
fn origin_allowed(allowed: &[String], headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if !allowed.is_empty() {
        return allowed.iter().any(|known| known == origin);
    }
    let Ok(url) = Url::parse(origin) else {
        return false;
    };
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let asked = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let from = origin.split_once("://").map(|(_, authority)| authority);
    loopback
        || asked
            .zip(from)
            .is_some_and(|(asked, from)| asked.eq_ignore_ascii_case(from))
}

/// The bearer token, empty if the header names none; other schemes are for proxies before us.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A query parameter; tokens and flags need no percent-decoding.
fn query(uri: &Uri, name: &str) -> Option<String> {
    uri.query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

fn switching(accept: &str, protocol: Option<&'static str>) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(protocol),
        );
    }
    response
}

fn malformed(field: &str, reason: &str, allowed: &str) -> Rejected {
    Rejected::Malformed(ErrorDetail::new(field, reason, allowed))
}

fn unavailable(retry_after_seconds: u64, now: Timestamp) -> Response {
    let error = AppError {
        retry_after_ms: Some(retry_after_seconds * 1_000),
        ..AppError::new(
            ErrorCode::Unavailable,
            "no room for another socket; come back later",
        )
    };
    failure(error, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn origins_match_exactly_or_by_host() {
        let from =
            |origin: &str| headers(&[(header::ORIGIN, origin), (header::HOST, "chat.test:80")]);
        assert!(origin_allowed(&[], &headers(&[])));
        assert!(origin_allowed(&[], &from("http://chat.test:80")));
        assert!(origin_allowed(&[], &from("http://127.0.0.1:3000")));
        assert!(origin_allowed(&[], &from("http://[::1]:3000")));
        for evil in [
            "null",
            "127.0.0.1",
            "http://127.0.0.1:80.evil.test",
            "http://evil.test",
            "http://chat.test.evil.test",
            "http://localhost.evil",
        ] {
            assert!(!origin_allowed(&[], &from(evil)), "{evil}");
        }
        let allowed = ["https://app.test".to_owned()];
        assert!(origin_allowed(&allowed, &from("https://app.test")));
        assert!(!origin_allowed(&allowed, &from("https://app.test:8443")));
        assert!(!origin_allowed(&allowed, &from("http://chat.test:80")));
    }

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        let asked = |value: &str| subprotocol(&headers(&[(header::SEC_WEBSOCKET_PROTOCOL, value)]));
        assert_eq!(subprotocol(&headers(&[])).unwrap(), (Format::Json, false));
        assert_eq!(
            asked("x, rookery.v1.msgpack").unwrap(),
            (Format::MsgPack, true)
        );
        let rejected = asked("rookery.v2")
            .unwrap_err()
            .answer(Timestamp::from_millis(0));
        assert_eq!(rejected.status(), StatusCode::BAD_REQUEST);
    }
}
