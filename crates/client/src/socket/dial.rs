//! From a URL to an upgraded connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Url;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::{rest, tls};

use super::{Connect, ConnectError, TokenIn};

/// Largest frame taken from a server: a batch of a replay fits many times over.
const FRAME_BYTES: usize = 1024 * 1024;
/// Frames gather up to this size before they are written without a flush.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Most bytes that wait for a server that does not read: eight of the largest frames it takes.
const WRITE_BUFFER_MAX_BYTES: usize = 512 * 1024;
/// Most of a refusal's body that is kept.
const BODY_BYTES: usize = 4 * 1024;

pub(super) async fn dial(
    url: &str,
    how: &Connect,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, ConnectError> {
    let url = socket_url(url, how)?;
    let tcp = connect(&url, how).await?;
    tcp.set_nodelay(true)?;
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|e| handshake(&e))?;
    let headers = request.headers_mut();
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(how.format.subprotocol()),
    );
    if let TokenIn::Header(token) = &how.token {
        headers.insert(header::AUTHORIZATION, value(&format!("Bearer {token}"))?);
    }
    for (name, text) in &how.headers {
        let name = HeaderName::try_from(name).map_err(|e| ConnectError::Url(e.to_string()))?;
        headers.insert(name, value(text)?);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(how.read_buffer_bytes)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_MAX_BYTES)
        .max_message_size(Some(FRAME_BYTES))
        .max_frame_size(Some(FRAME_BYTES));
    let connector = match url.scheme() {
        "wss" => Connector::Rustls(tls::config()),
        _ => Connector::Plain,
    };
    match client_async_tls_with_config(request, tcp, Some(config), Some(connector)).await {
        Ok((stream, _)) => Ok(stream),
        Err(WsError::Http(response)) => Err(refused(&response)),
        Err(WsError::Io(error)) => Err(no_connection(error)),
        Err(error) => Err(handshake(&error)),
    }
}

/// The URL of the upgrade: `ws` or `wss`, with a path, `?token=` and `?resume=1` as asked.
fn socket_url(text: &str, how: &Connect) -> Result<Url, ConnectError> {
    let bad = |why: &str| ConnectError::Url(format!("{text}: {why}"));
    let mut url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    let scheme = match url.scheme() {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        _ => return Err(bad("not an http, https, ws or wss URL")),
    };
    url.set_scheme(scheme)
        .map_err(|()| bad("not a URL of the web"))?;
    if url.path() == "/" {
        url.set_path("/ws");
    }
    if let TokenIn::Query(token) = &how.token {
        url.query_pairs_mut().append_pair("token", token);
    }
    if how.resume && !matches!(how.token, TokenIn::FirstFrame(_)) {
        url.query_pairs_mut().append_pair("resume", "1");
    }
    Ok(url)
}

async fn connect(url: &Url, how: &Connect) -> Result<TcpStream, ConnectError> {
    // Not the URL itself: a token may be part of it.
    let no_host = || ConnectError::Url("the URL names no host".to_owned());
    let host = url.host_str().ok_or_else(no_host)?;
    let port = url.port_or_known_default().unwrap_or(80);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut last = None;
    for address in lookup_host((host, port)).await? {
        let connected = match how.source {
            None => TcpStream::connect(address).await,
            Some(source) => from_source(SocketAddr::new(source, 0), address).await,
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => ConnectError::Io(error),
        None => ConnectError::Url(format!("{host} has no address")),
    })
}

async fn from_source(source: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind(source)?;
    socket.connect(to).await
}

fn no_connection(error: io::Error) -> ConnectError {
    ConnectError::Io(match tls::advice(&error) {
        Some(advice) => io::Error::new(error.kind(), format!("{error} ({advice})")),
        None => error,
    })
}

fn refused(response: &Response<Option<Vec<u8>>>) -> ConnectError {
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = response.body().as_deref().unwrap_or_default();
    let text = || String::from_utf8_lossy(&body[..body.len().min(BODY_BYTES)]).into_owned();
    let body = rest::redirect_of(response.status(), response.headers()).unwrap_or_else(text);
    ConnectError::Refused {
        status: response.status().as_u16(),
        retry_after,
        body,
    }
}

fn value(text: &str) -> Result<HeaderValue, ConnectError> {
    HeaderValue::from_str(text).map_err(|error| ConnectError::Url(error.to_string()))
}

fn handshake(error: &WsError) -> ConnectError {
    ConnectError::Handshake(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_shown() {
        let tokens = [TokenIn::Header, TokenIn::Query, TokenIn::FirstFrame];
        for token in tokens.map(|place| place("hunter2".to_owned())) {
            let headers = vec![("Cookie".to_owned(), "hunter2".to_owned())];
            let how = Connect {
                token,
                headers,
                ..Connect::default()
            };
            let shown = format!("{how:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn urls_are_completed() {
        let url = |text: &str, how: &Connect| socket_url(text, how).map(|url| url.to_string());
        let plain = Connect::with_token("t");
        assert_eq!(url("http://h:8080", &plain).unwrap(), "ws://h:8080/ws");
        assert_eq!(
            url("ws://h/ws", &Connect::resuming("t")).unwrap(),
            "ws://h/ws?resume=1"
        );
        let query = Connect {
            token: TokenIn::Query("a b".into()),
            ..Connect::default()
        };
        assert_eq!(
            url("http://h/chat/ws", &query).unwrap(),
            "ws://h/chat/ws?token=a+b"
        );
        assert_eq!(url("https://h", &plain).unwrap(), "wss://h/ws");
        assert_eq!(url("HTTPS://h:8443/x", &plain).unwrap(), "wss://h:8443/x");
        for bad in ["nonsense", "ftp://h", "httpx://h"] {
            let error = url(bad, &plain).unwrap_err().to_string();
            assert!(error.starts_with(bad), "{error}");
        }
    }
}
