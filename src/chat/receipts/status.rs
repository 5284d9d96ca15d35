//! How far one's own messages got: read by anybody else, delivered to anybody else, or sent.

use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, UserId};

use crate::store::{Store, StoreError};

/// Sets the status of the viewer's own messages of one conversation, and of no others. Looks up
/// the others' marks once, and only if a message is the viewer's.
///
/// # Errors
/// The store does not answer.
pub async fn set_statuses<'a>(
    store: &dyn Store,
    viewer: UserId,
    id: ConversationId,
    messages: impl Iterator<Item = &'a mut Message> + Send,
) -> Result<(), StoreError> {
    let mut own: Vec<&mut Message> = Vec::new();
    for message in messages {
        message.status = None;
        if message.sender_id == viewer {
            own.push(message);
        }
    }
    let Some(newest) = own.iter().map(|message| message.seq).max() else {
        return Ok(());
    };
    let furthest = store.furthest_marks(id, viewer, newest).await?;
    for message in own {
        message.status = Some(furthest.status(message.seq));
    }
    Ok(())
}
