//! What is made the ordinary way, call by call and message by message.

use anyhow::{Context, bail};
use rookery_client::{Api, ClientCommand, ServerEvent};
use rookery_protocol::command::MessageSend;
use rookery_protocol::{ConversationId, Format, MessageId};
use uuid::Uuid;

use super::{Circle, Person};
use crate::progress::Line;
use crate::source;

/// Messages under way: many enough for large commits, few enough for a socket's limits.
const WINDOW: u32 = 100;
/// Members named in one call.
const PER_CALL: usize = 999;

/// A group of all of these, the first of them its owner.
pub(super) async fn assembly(api: &Api, people: &[Person]) -> anyhow::Result<Circle> {
    let owner = people.first().context("a group without members")?;
    let api = api.with_token(&owner.token);
    let ids: Vec<_> = people[1..].iter().map(|person| person.user_id).collect();
    let mut chunks = ids.chunks(PER_CALL);
    let first = chunks.next().unwrap_or_default();
    let group = api.create_group("load test", first).await;
    let id = group.context("making a group")?.conversation_id;
    for more in chunks {
        api.add_members(id, more).await.context("adding members")?;
    }
    let group = api.conversation(id).await.context("reading the group")?;
    Ok(Circle {
        conversation: id,
        base: group.last_seq.0,
        people: people.to_vec(),
    })
}

/// Fills a conversation of a server that the load test did not start.
pub(super) async fn messages(
    api: &Api,
    conversation: ConversationId,
    sender: &Person,
    count: u32,
) -> anyhow::Result<()> {
    let how = source::connect(api.base(), 0, &sender.token, Format::Json);
    let mut socket = source::open(api.base(), &how).await?;
    let mut line = Line::new("messages", u64::from(count));
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && sent - acked < WINDOW {
            sent += 1;
            let send = MessageSend {
                reference: None,
                message_id: MessageId::from_uuid(Uuid::now_v7()),
                content: format!("{sent:.<120}"),
                conversation_id: Some(conversation),
                recipient_id: None,
                reply_to: None,
                metadata: None,
            };
            socket.feed(&ClientCommand::MessageSend(send)).await?;
        }
        socket.flush().await?;
        match socket.recv().await? {
            ServerEvent::MessageAck(_) => acked += 1,
            ServerEvent::Error(error) => bail!("filling a conversation: {}", error.message),
            _ => {}
        }
        line.show(u64::from(acked));
    }
    line.end();
    Ok(())
}
