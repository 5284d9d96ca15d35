//! A WebSocket made by hand over plain TCP: says what no library would let one say, and shows each
//! frame as it came.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::eventually::PATIENCE;

/// The first byte of a frame: a whole message, or the last part of one.
pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
/// What is told of a connection that ended without a close frame.
pub const CUT_OFF: u16 = 1006;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as clients have to send it: masked, its length as short as possible. `first` is the first
/// byte: [`FIN`], reserved bits, opcode.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len() as u64, true);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// The same without a mask, which only servers may send.
#[must_use]
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len() as u64, false);
    bytes.extend(payload);
    bytes
}

/// What stands before a payload of this length, the mask included; the payload may be missing.
#[must_use]
pub fn head(first: u8, length: u64, masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => bytes.push(bit | short),
        (_, Ok(medium)) => {
            bytes.push(bit | 126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(bit | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    if masked {
        bytes.extend(MASK);
    }
    bytes
}

/// A close frame's payload.
#[must_use]
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// A handshake, line by line.
#[derive(Clone, Debug)]
pub struct Handshake {
    address: SocketAddr,
    path: String,
    headers: Vec<(String, String)>,
}

impl Handshake {
    /// A correct one to `/ws` of the server at `http://<address>:<port>`.
    ///
    /// # Panics
    /// `url` is of another form.
    #[must_use]
    pub fn to(url: &str) -> Self {
        let host = url.strip_prefix("http://").expect("an http URL");
        let address = host.parse().expect("an address and a port");
        let headers = [
            ("Host", host),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            address,
            path: "/ws".into(),
            headers: headers.into(),
        }
    }

    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// Sets a header, in place of one of the same name.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        let mut handshake = self.without(name);
        handshake.headers.push((name.into(), value.into()));
        handshake
    }

    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// With this access token in the `Authorization` header.
    #[must_use]
    pub fn token(self, access_token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {access_token}"))
    }

    /// The request as it is sent.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = headers.collect();
        format!("GET {} HTTP/1.1\r\n{headers}\r\n", self.path).into_bytes()
    }

    /// Connects and sends nothing yet.
    ///
    /// # Panics
    /// Nobody listens.
    pub async fn connect(&self) -> Wire {
        let stream = TcpStream::connect(self.address)
            .await
            .expect("the server listens");
        stream
            .set_nodelay(true)
            .expect("a fresh socket takes options");
        Wire {
            stream,
            waiting: Vec::new(),
        }
    }

    /// Sends it and reads the answer.
    ///
    /// # Panics
    /// No answer comes.
    pub async fn send(&self) -> Answer {
        let mut wire = self.connect().await;
        wire.raw(&self.bytes()).await;
        wire.answer().await
    }

    /// Opens a socket.
    ///
    /// # Panics
    /// It is refused.
    pub async fn open(&self) -> Wire {
        let answer = self.send().await;
        assert_eq!(answer.status, 101, "{}{}", answer.head, answer.body);
        answer.wire
    }
}

/// The answer to a handshake.
pub struct Answer {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// Empty after a 101.
    pub body: String,
    pub wire: Wire,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// [`FIN`], reserved bits and opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

/// One connection.
pub struct Wire {
    stream: TcpStream,
    /// Read and not taken yet.
    waiting: Vec<u8>,
}

impl Wire {
    /// Sends these bytes. That the server has hung up meanwhile shows when one reads.
    pub async fn raw(&mut self, bytes: &[u8]) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes));
        sent.await.expect("the server takes what it is sent").ok();
    }

    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        self.raw(&frame(first, payload)).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.send(FIN | TEXT, text.as_bytes()).await;
    }

    pub async fn json(&mut self, value: &Value) {
        self.text(&value.to_string()).await;
    }

    /// Sends nothing more; reading goes on.
    pub async fn hang_up(&mut self) {
        self.stream.shutdown().await.ok();
    }

    /// Whether there is more to take; false at the end of the connection.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.waiting)).await;
        let read = read.unwrap_or_else(|_| panic!("the server says nothing"));
        read.is_ok_and(|count| count > 0)
    }

    /// The head and body of an HTTP answer.
    ///
    /// # Panics
    /// None comes.
    pub async fn answer(self) -> Answer {
        let answer = self.answer_or_end().await;
        answer.expect("an answer instead of the end of the connection")
    }

    /// The same; `None` if the connection ends instead.
    ///
    /// # Panics
    /// Neither comes.
    pub async fn answer_or_end(mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self
                .waiting
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
            {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head: Vec<u8> = self.waiting.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head}"));
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
        let mut body = String::new();
        if status != 101 {
            let length = length.unwrap_or(0);
            while self.waiting.len() < length && self.more().await {}
            let taken = length.min(self.waiting.len());
            let bytes: Vec<u8> = self.waiting.drain(..taken).collect();
            body = String::from_utf8_lossy(&bytes).into_owned();
        }
        Some(Answer {
            status,
            head,
            body,
            wire: self,
        })
    }

    /// The next frame; `None` at the end of the connection.
    ///
    /// # Panics
    /// None comes, or a masked one.
    pub async fn read(&mut self) -> Option<Incoming> {
        loop {
            if let Some(incoming) = self.take() {
                return Some(incoming);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Incoming> {
        let [first, second] = *self.waiting.first_chunk()?;
        assert!(second < 0x80, "servers do not mask");
        let (head, length) = match second {
            126 => (
                4,
                u64::from(u16::from_be_bytes(*self.waiting[2..].first_chunk()?)),
            ),
            127 => (10, u64::from_be_bytes(*self.waiting[2..].first_chunk()?)),
            short => (2, u64::from(short)),
        };
        let end = head + usize::try_from(length).expect("a frame that fits");
        if self.waiting.len() < end {
            return None;
        }
        let bytes: Vec<u8> = self.waiting.drain(..end).collect();
        Some(Incoming {
            first,
            payload: bytes[head..].to_vec(),
        })
    }

    /// The next event, on a JSON socket; pings of the server are passed over.
    ///
    /// # Panics
    /// The socket is closed instead.
    pub async fn event(&mut self) -> Value {
        loop {
            let Some(frame) = self.read().await else {
                panic!("cut off instead of an event")
            };
            match frame.first {
                first if first == FIN | TEXT => {
                    return serde_json::from_slice(&frame.payload).expect("events are JSON");
                }
                first if first == FIN | PING => {}
                _ => panic!("instead of an event: {frame:?}"),
            }
        }
    }

    /// The next event of this type; others are passed over, errors are not.
    ///
    /// # Panics
    /// An error or the end comes instead.
    pub async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            if event["type"] == kind {
                return event;
            }
            assert_ne!(event["type"], "error", "instead of {kind}: {event}");
        }
    }

    /// Reads on to the close and returns its code; [`CUT_OFF`] if the connection just ends.
    ///
    /// # Panics
    /// The socket stays open.
    pub async fn closed(&mut self) -> u16 {
        self.closed_after().await.1
    }

    /// As [`Self::closed`], with the events that came before it.
    ///
    /// # Panics
    /// The socket stays open.
    pub async fn closed_after(&mut self) -> (Vec<Value>, u16) {
        let mut events = Vec::new();
        while let Some(frame) = self.read().await {
            if frame.first == FIN | CLOSE {
                // No code is 1005, "no status received".
                let code = frame
                    .payload
                    .first_chunk()
                    .map_or(1005, |b| u16::from_be_bytes(*b));
                return (events, code);
            }
            if frame.first == FIN | TEXT {
                events.push(serde_json::from_slice(&frame.payload).expect("events are JSON"));
            }
        }
        (events, CUT_OFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_short_as_possible() {
        assert_eq!(
            frame(FIN | TEXT, b"Hello")[..6],
            [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d]
        );
        assert_eq!(
            frame(FIN | TEXT, b"Hello")[6..],
            [0x7f, 0x9f, 0x4d, 0x51, 0x58]
        );
        assert_eq!(unmasked(FIN | BINARY, &[0; 126])[..4], [0x82, 126, 0, 126]);
        assert_eq!(
            head(FIN | BINARY, 65_536, false),
            [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }
}
