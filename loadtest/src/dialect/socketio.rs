//! socket.io over a WebSocket: version 5 of its protocol in version 4 of Engine.IO's. A frame is text:
//! the digits of the two packet types, an id where an answer is wanted, and JSON.

use std::fmt::Write;

use anyhow::{Context, bail};
use rookery_client::socket::RawMessage;
use rookery_client::{Connect, Socket, TokenIn};
use rookery_protocol::{ConversationId, Format};
use serde::Deserialize;

use crate::source;
use crate::wire::{Light, LightMessage, Payload, Tag, content};

/// Engine.IO: opened.
const OPEN: &str = "0";
const PING: &str = "2";
const PONG: &str = "3";
/// Both the request to connect and its answer.
const CONNECT: &str = "40";
const EVENT_NEW: &str = "42[\"message.new\",";
/// The answer to an event; its id follows.
const ANSWER: &str = "43";

pub(super) async fn open(url: &str, index: usize, token: &str) -> anyhow::Result<Socket> {
    let how = Connect {
        token: TokenIn::Nowhere,
        ..source::connect(url, index, "", Format::Json)
    };
    let connecting = || format!("connecting to {url}");
    let socket_url = format!("{url}/socket.io/?EIO=4&transport=websocket");
    let socket = Socket::connect(&socket_url, &how).await;
    let mut socket = socket.with_context(connecting)?;
    expect(&mut socket, OPEN).await.with_context(connecting)?;
    let hello = format!("{CONNECT}{{\"token\":\"{token}\"}}");
    socket.send_raw(RawMessage::text(hello)).await?;
    expect(&mut socket, CONNECT)
        .await
        .with_context(connecting)?;
    Ok(socket)
}

pub(super) async fn ask(socket: &mut Socket) -> anyhow::Result<()> {
    socket.send_raw(RawMessage::text("420[\"whoami\"]")).await?;
    expect(socket, "430").await
}

/// Waits for a frame that begins like this, and answers pings meanwhile.
async fn expect(socket: &mut Socket, start: &str) -> anyhow::Result<()> {
    loop {
        let frame = socket.recv_raw().await?;
        let RawMessage::Text(text) = &frame else {
            continue;
        };
        if text.starts_with(start) {
            return Ok(());
        }
        match pong(&frame) {
            Some(pong) => socket.send_raw(pong).await?,
            None => bail!("not a frame that begins with {start}: {text}"),
        }
    }
}

/// The answer to a ping.
pub(super) fn pong(frame: &RawMessage) -> Option<RawMessage> {
    let is_ping = matches!(frame, RawMessage::Text(text) if text.as_str() == PING);
    is_ping.then(|| RawMessage::text(PONG))
}

/// A send, whose counter is the id of the answer.
pub(super) fn send(tag: Tag, conversation: ConversationId, bytes: usize) -> RawMessage {
    let (id, counter) = (tag.message_id(), tag.counter);
    let content = content(tag, bytes);
    let mut text = String::with_capacity(160 + content.len());
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        r#"42{counter}["message.send",{{"message_id":"{id}","conversation_id":"{conversation}","content":"{content}"}}]"#,
    );
    RawMessage::text(text)
}

/// What a send is answered with: a place, or why there is none.
#[derive(Deserialize)]
struct Answer<'a> {
    message_id: Option<&'a str>,
    #[serde(default)]
    seq: i64,
    code: Option<&'a str>,
    message: Option<String>,
}

pub(super) fn read(frame: &RawMessage) -> Option<Light<'_>> {
    let RawMessage::Text(text) = frame else {
        return None;
    };
    let text = text.as_str().strip_suffix(']')?;
    if let Some(json) = text.strip_prefix(EVENT_NEW) {
        let message: LightMessage<'_> = serde_json::from_str(json).ok()?;
        return Some(Light {
            message: Payload::Message(message),
            ..Light::of("message.new")
        });
    }
    let (_, json) = text.strip_prefix(ANSWER)?.split_once('[')?;
    let answer: Answer<'_> = serde_json::from_str(json).ok()?;
    let kind = if answer.code.is_some() {
        "error"
    } else {
        "message.ack"
    };
    Some(Light {
        seq: answer.seq,
        message_id: answer.message_id,
        message: answer.message.map_or(Payload::None, Payload::Sentence),
        code: answer.code,
        ..Light::of(kind)
    })
}

pub(super) fn delivered(frame: &[u8]) -> Option<i64> {
    super::seq_of(frame, EVENT_NEW.as_bytes())
}

pub(super) fn acked(frame: &[u8]) -> Option<i64> {
    super::seq_of(frame, ANSWER.as_bytes())
}

#[cfg(test)]
mod tests {
    use rookery_oracle::pair::Side;

    use super::*;

    const TAG: Tag = Tag {
        run: 1_790_000_000_000,
        pair: 12,
        from: Side::A,
        counter: 34,
    };

    #[test]
    fn a_message_goes_there_and_comes_back() {
        let conversation = ConversationId::from_uuid(uuid::Uuid::from_u128(9));
        let sent = send(TAG, conversation, 120).into_data();
        let sent = std::str::from_utf8(&sent).unwrap();
        let event = sent.strip_prefix("4234").unwrap();
        let (name, message): (String, serde_json::Value) = serde_json::from_str(event).unwrap();
        assert_eq!(name, "message.send");

        let mut message = message;
        message["seq"] = 7.into();
        let frame = RawMessage::text(format!("42[\"message.new\",{message}]"));
        let light = read(&frame).unwrap();
        let Payload::Message(light) = light.message else {
            panic!("{light:?}")
        };
        assert_eq!((light.tag(), light.seq), (Some(TAG), 7));
        assert_eq!(delivered(&frame.into_data()), Some(7));
    }

    #[test]
    fn answers_are_acknowledgements_or_refusals() {
        let id = TAG.message_id();
        let frame = RawMessage::text(format!("4334[{{\"message_id\":\"{id}\",\"seq\":8}}]"));
        let ack = read(&frame).unwrap();
        assert_eq!((ack.kind, ack.seq), ("message.ack", 8));
        assert_eq!(ack.message_id.and_then(Tag::of_message_id), Some(TAG));
        assert_eq!(acked(&frame.into_data()), Some(8));

        let frame = "4335[{\"code\":\"INTERNAL\",\"message\":\"no\",\"message_id\":null}]";
        let frame = RawMessage::text(frame);
        let error = read(&frame).unwrap();
        assert_eq!((error.kind, error.code), ("error", Some("INTERNAL")));
        assert!(matches!(error.message, Payload::Sentence(text) if text == "no"));
        assert_eq!(acked(&frame.into_data()), None);
    }

    #[test]
    fn pings_are_answered_and_no_event() {
        let ping = RawMessage::text(PING);
        assert_eq!(pong(&ping), Some(RawMessage::text(PONG)));
        assert!(read(&ping).is_none());
        assert_eq!(pong(&RawMessage::text("40")), None);
    }
}
