//! `message.send`: queued here, acked from the group commit once it is stored.

use std::sync::Arc;
use std::time::Instant;

use rookery_protocol::MessageId;
use rookery_protocol::command::MessageSend;
use rookery_protocol::event::{MessageAck, ServerEvent};
use rookery_protocol::message::MessageStatus;

use super::Outcome;
use crate::chat::messages::{Answer, SendRequest};
use crate::error::AppError;
use crate::gateway::{Bucket, Gateway, Rates, Session};
use crate::metrics;

pub(super) async fn handle(
    gateway: &Gateway,
    session: &Arc<Session>,
    command: MessageSend,
    rates: &mut Rates,
) -> Outcome {
    let now = Instant::now();
    let reference = command.reference;
    let message_id = command.message_id;
    if let Err(limited) = rates.take(Bucket::Messages) {
        return refuse(limited, reference, message_id);
    }
    let request = SendRequest {
        message_id,
        conversation_id: command.conversation_id,
        recipient_id: command.recipient_id,
        content: command.content,
        reply_to: command.reply_to,
        metadata: command.metadata,
    };
    let answer = answer(Arc::clone(session), reference.clone(), message_id, now);
    session.began();
    let (sender, skip) = (session.user_id, Some(session.id));
    let submitted = if request.recipient_id.is_some() {
        // May make a conversation, which its members have to be told of.
        let messages = Arc::clone(&gateway.messages);
        let submit = async move { messages.submit(sender, request, skip, answer).await };
        Box::pin(super::to_the_end(gateway, submit)).await
    } else {
        let messages = &gateway.messages;
        messages.submit(sender, request, skip, answer).await
    };
    match submitted {
        Ok(()) => Outcome::Nothing,
        Err(error) => {
            session.done();
            refuse(error, reference, message_id)
        }
    }
}

fn refuse(error: AppError, reference: Option<String>, message_id: MessageId) -> Outcome {
    Outcome::Reply(ServerEvent::Error(
        error.into_event(reference, Some(message_id)),
    ))
}

/// What happens once the message is stored or refused.
fn answer(
    session: Arc<Session>,
    reference: Option<String>,
    message_id: MessageId,
    began: Instant,
) -> Answer {
    Box::new(move |outcome| {
        let event = match outcome {
            Ok(sent) => ServerEvent::MessageAck(MessageAck {
                reference,
                message_id,
                conversation_id: sent.message.conversation_id,
                seq: sent.message.seq,
                created_at: sent.message.created_at,
                status: sent.message.status.unwrap_or(MessageStatus::Sent),
                duplicate: sent.duplicate,
            }),
            Err(error) => ServerEvent::Error(error.into_event(reference, Some(message_id))),
        };
        session.send(&event);
        session.done();
        metrics::ack_seconds().record(began.elapsed());
    })
}
