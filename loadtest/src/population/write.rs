//! A long conversation on a server that the load test did not start: written the ordinary way.

use anyhow::bail;
use rookery_client::{Api, ClientCommand, ServerEvent};
use rookery_protocol::command::MessageSend;
use rookery_protocol::{ConversationId, Format, MessageId};
use uuid::Uuid;

use super::Person;
use crate::progress::Line;
use crate::source;

/// Messages under way: many enough for large commits, few enough for a socket's limits.
const WINDOW: u32 = 100;

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
