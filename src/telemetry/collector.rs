//! The way to a collector of traces: one POST after the other, over plain HTTP.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use url::Url;

/// For connecting, and for each part that is sent or read. What cannot be delivered is dropped.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of an answer; collectors say little.
const ANSWER_BYTES: u64 = 16 * 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Collector {
    is_away: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    /// Blocks: called by the exporter's own thread, which waits for nothing else.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = post(&request);
        let problem = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        let was_away = self.is_away.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !was_away => {
                tracing::warn!(
                    problem,
                    "the collector does not take traces; they are dropped"
                );
            }
            None if was_away => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        Ok(answer?)
    }
}

fn post(request: &Request<Bytes>) -> io::Result<Response<Bytes>> {
    let url = Url::parse(&request.uri().to_string()).map_err(io::Error::other)?;
    let mut stream = connect(&url)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let length = request.body().len();
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n"
    )
    .into_bytes();
    for (name, value) in request.headers() {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    stream.write_all(&[&head, request.body().as_ref()].concat())?;
    let mut answer = Vec::new();
    // Collectors that close late are not waited for: the status is all there is to know.
    match stream.take(ANSWER_BYTES).read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => return Err(error),
        _ => {}
    }
    let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default());
    let status = status.unwrap_or_default();
    Response::builder()
        .status(status)
        .body(Bytes::new())
        .map_err(|_| io::Error::other("the answer is not HTTP"))
}

/// The first address that answers: `localhost` may be two.
fn connect(url: &Url) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in url.socket_addrs(|| None)? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
