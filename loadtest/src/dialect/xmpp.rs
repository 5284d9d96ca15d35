//! XMPP over a WebSocket (RFC 7395): one stanza a frame. A message to one person is acknowledged by
//! stream management (XEP-0198), which counts what the server has taken care of. A group is a room
//! (XEP-0045), which sends a message to its writer too: that is its acknowledgement. XMPP knows no
//! places in a conversation: a message's place is its number among those of its sender.
//!
//! Stanzas are not parsed: contents and ids of the load test need no escapes.

use anyhow::{Context, bail};
use rookery_client::socket::RawMessage;
use rookery_client::{Connect, Socket, TokenIn};
use rookery_protocol::{ConversationId, Format};

use crate::population::Person;
use crate::source;
use crate::wire::{Light, LightMessage, Payload, Tag, content};

const DOMAIN: &str = "localhost";
const ROOMS: &str = "conference.localhost";
const SUBPROTOCOL: &str = "xmpp";

/// Logs in as this person: stream, PLAIN with their token, stream once more, resource, presence.
pub(super) async fn open(url: &str, index: usize, person: &Person) -> anyhow::Result<Socket> {
    let how = Connect {
        token: TokenIn::Nowhere,
        headers: vec![("Sec-WebSocket-Protocol".to_owned(), SUBPROTOCOL.to_owned())],
        ..source::connect(url, index, "", Format::Json)
    };
    let connecting = || format!("connecting to {url}");
    let socket = Socket::connect(&format!("{url}/xmpp"), &how).await;
    let mut socket = socket.with_context(connecting)?;
    let user = person.user_id;
    let stream = format!(
        r#"<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" to="{DOMAIN}" version="1.0"/>"#
    );
    let credentials = base64(format!("\0{user}\0{}", person.token).as_bytes());
    let auth = format!(
        r#"<auth xmlns="urn:ietf:params:xml:ns:xmpp-sasl" mechanism="PLAIN">{credentials}</auth>"#
    );
    let bind = r#"<iq xmlns="jabber:client" type="set" id="bind"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"/></iq>"#;
    let presence = r#"<presence xmlns="jabber:client"/>"#;
    for (stanza, answer) in [
        (stream.as_str(), "<stream:features"),
        (&auth, "<success"),
        (&stream, "<stream:features"),
        (bind, "type='result'"),
        (presence, "<presence"),
    ] {
        exchange(&mut socket, stanza, answer)
            .await
            .with_context(connecting)?;
    }
    Ok(socket)
}

/// Asks for acknowledgements of what this socket sends from now on.
pub(super) async fn before_sending(socket: &mut Socket) -> anyhow::Result<()> {
    exchange(socket, r#"<enable xmlns="urn:xmpp:sm:3"/>"#, "<enabled").await
}

pub(super) async fn ask(socket: &mut Socket) -> anyhow::Result<()> {
    let ping = format!(
        r#"<iq xmlns="jabber:client" type="get" id="ping" to="{DOMAIN}"><ping xmlns="urn:xmpp:ping"/></iq>"#
    );
    exchange(socket, &ping, "id='ping'").await
}

/// Sends a stanza, and waits for one that has this in it.
async fn exchange(socket: &mut Socket, stanza: &str, answer: &str) -> anyhow::Result<()> {
    socket.send_raw(RawMessage::text(stanza)).await?;
    loop {
        let RawMessage::Text(text) = socket.recv_raw().await? else {
            continue;
        };
        if text.contains(answer) {
            return Ok(());
        }
        if text.starts_with("<failure") || text.starts_with("<close") || text.contains("<error") {
            bail!("wanted is {answer}, and it says {text}");
        }
    }
}

/// Enters the room of a group; the first one makes it.
pub(super) async fn join(
    socket: &mut Socket,
    group: ConversationId,
    person: &Person,
) -> anyhow::Result<()> {
    let nick = person.user_id;
    let presence = format!(
        r#"<presence xmlns="jabber:client" to="{group}@{ROOMS}/{nick}"><x xmlns="http://jabber.org/protocol/muc"><history maxstanzas="0"/></x></presence>"#
    );
    // XEP-0045: one's own presence, after those of others.
    exchange(socket, &presence, "code='110'").await
}

/// A message to a room, or to the person after whom the conversation is named.
pub(super) fn send(tag: Tag, to: ConversationId, is_group: bool, bytes: usize) -> RawMessage {
    let (id, content) = (tag.message_id(), content(tag, bytes));
    let (domain, kind) = match is_group {
        true => (ROOMS, "groupchat"),
        false => (DOMAIN, "chat"),
    };
    RawMessage::text(format!(
        r#"<message xmlns="jabber:client" to="{to}@{domain}" id="{id}" type="{kind}"><body>{content}</body></message>"#
    ))
}

/// The place of the message that a frame delivers.
pub(super) fn delivered(frame: &[u8]) -> Option<i64> {
    let end = frame.iter().position(|byte| *byte == b'>')?;
    let tag = std::str::from_utf8(&frame[..end]).ok()?;
    let id = attribute(tag.strip_prefix("<message")?, "id")?;
    Some(place(Tag::of_message_id(id)?.counter))
}

/// Asks how many stanzas have been taken care of.
pub(super) fn request() -> RawMessage {
    RawMessage::text(r#"<r xmlns="urn:xmpp:sm:3"/>"#)
}

pub(super) fn read(frame: &RawMessage) -> Option<Light<'_>> {
    let RawMessage::Text(text) = frame else {
        return None;
    };
    let (tag, rest) = text.as_str().split_once('>')?;
    if tag.starts_with("<a ") {
        return Some(Light {
            seq: attribute(tag, "h")?.parse().ok()?,
            ..Light::of("ack.upto")
        });
    }
    if !tag.starts_with("<message ") {
        return None;
    }
    let id = attribute(tag, "id")?;
    if attribute(tag, "type") == Some("error") {
        return Some(Light {
            message_id: Some(id),
            message: Payload::Sentence(rest.to_owned()),
            ..Light::of("error")
        });
    }
    let (to, _) = attribute(tag, "to")?.split_once('@')?;
    let (_, body) = rest.split_once("<body>")?;
    let (body, _) = body.split_once("</body>")?;
    let message = LightMessage {
        seq: place(Tag::of_message_id(id)?.counter),
        conversation_id: to,
        message_id: id,
        content: body.into(),
    };
    Some(Light {
        message: Payload::Message(message),
        ..Light::of("message.new")
    })
}

/// Of the message with this counter.
pub(crate) fn place(counter: u64) -> i64 {
    i64::try_from(counter).map_or(i64::MAX, |counter| counter + 1)
}

/// An attribute of an opening tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = tag.find(&format!(" {name}='"))? + name.len() + 3;
    tag[start..].split('\'').next()
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for digit in 0..4 {
            match digit <= three.len() {
                true => out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
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

    fn bob() -> ConversationId {
        ConversationId::from_uuid(uuid::Uuid::from_u128(9))
    }

    #[test]
    fn a_message_goes_there_and_comes_back() {
        let sent = send(TAG, bob(), false, 120).into_data();
        let sent = std::str::from_utf8(&sent).unwrap();
        // As ejabberd passes it on: other quotes, and elements of its own before the body.
        let archived = "><stanza-id by='x' id='1' xmlns='urn:xmpp:sid:0'/><body>";
        let received = sent.replace('"', "'").replace("><body>", archived);
        let frame = RawMessage::text(received);
        let light = read(&frame).unwrap();
        let Payload::Message(light) = light.message else {
            panic!("{light:?}")
        };
        assert_eq!((light.tag(), light.seq), (Some(TAG), 35));
        assert_eq!(light.conversation_id, bob().to_string());
        assert_eq!(delivered(&frame.clone().into_data()), Some(35));

        let refused = frame
            .into_text()
            .unwrap()
            .replace("type='chat'", "type='error'");
        let refused = RawMessage::text(refused);
        let light = read(&refused).unwrap();
        assert_eq!(light.kind, "error");
        assert_eq!(light.message_id.and_then(Tag::of_message_id), Some(TAG));
    }

    #[test]
    fn a_room_is_written_to_by_its_own_address() {
        let sent = send(TAG, bob(), true, 120).into_text().unwrap();
        let to = format!("to=\"{}@{ROOMS}\"", bob());
        assert!(
            sent.contains(&to) && sent.contains("type=\"groupchat\""),
            "{sent}"
        );
        let subject = "<message from='x' type='groupchat'><subject/></message>";
        assert_eq!(delivered(subject.as_bytes()), None);
    }

    #[test]
    fn acknowledgements_are_counts() {
        let frame = RawMessage::text("<a h='7' xmlns='urn:xmpp:sm:3'/>");
        let light = read(&frame).unwrap();
        assert_eq!((light.kind, light.seq), ("ack.upto", 7));
        for other in ["<r xmlns='urn:xmpp:sm:3'/>", "<presence id='1'/>", ""] {
            assert!(read(&RawMessage::text(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn credentials_are_written_as_base64() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
