//! What each event of the server means: for the cursors, for the outbox, for the application.

use std::time::Duration;

use rookery_protocol::ErrorCode;
use rookery_protocol::event::{
    ConversationChanged, ErrorEvent, MemberChanged, MessageAck, MessageBatch, MessageChanged,
    Receipt, ResetCursor, ServerDraining, ServerEvent, SyncDone,
};
use rookery_protocol::message::{Message, MessageStatus};
use tokio::time::Instant;

use super::Update;
use super::driver::Driver;
use super::end::End;
use super::nodes::believed;
use super::session::{AUTH, SYNC, Session};

/// The wait after a retryable refusal of anything but a send that names none.
const RETRY: Duration = Duration::from_millis(500);

impl Driver {
    pub(super) async fn on_event(
        &mut self,
        session: &mut Session,
        event: ServerEvent,
    ) -> Result<(), End> {
        match event {
            ServerEvent::MessageNew(new) => self.on_message(new.message).await,
            ServerEvent::MessageAck(ack) => self.on_ack(ack).await,
            ServerEvent::MessageBatch(batch) => self.on_batch(batch).await,
            ServerEvent::MessageEdited(change)
            | ServerEvent::MessageDeleted(change)
            | ServerEvent::ReactionAdded(change)
            | ServerEvent::ReactionRemoved(change) => self.on_change(change).await,
            ServerEvent::SyncDone(done) => self.on_synced(session, done).await,
            ServerEvent::ConversationCreated(change) => self.on_conversation(change, true).await,
            ServerEvent::ConversationUpdated(change) => self.on_conversation(change, false).await,
            ServerEvent::MemberAdded(change) => self.on_member(change, true).await,
            ServerEvent::MemberRemoved(change) => self.on_member(change, false).await,
            ServerEvent::ConversationRead(read) if self.receipts.is_current(&read) => {
                self.say(Update::Read(read)).await;
            }
            ServerEvent::ReceiptDelivered(receipt) => self.on_receipt(receipt, false).await,
            ServerEvent::ReceiptRead(receipt) => self.on_receipt(receipt, true).await,
            ServerEvent::AuthOk(renewed) => self.on_auth_ok(session, renewed.token_expires_at),
            ServerEvent::ServerDraining(drain) => self.on_draining(&drain).await,
            ServerEvent::Error(error) => self.on_error(session, error).await?,
            ServerEvent::Ready(_)
            | ServerEvent::ConversationRead(_)
            | ServerEvent::SyncStart(_)
            | ServerEvent::Ok(_)
            | ServerEvent::Pong(_) => {}
            other => self.say(Update::Event(Box::new(other))).await,
        }
        Ok(())
    }

    async fn on_message(&mut self, message: Message) {
        let new = self.ledger.arrived(message.conversation_id, message.seq);
        let own = self.me == Some(message.sender_id);
        if own && self.inbox.settle(message.message_id).is_some() {
            // Seen in the log before its ack, or instead of it.
            self.say(Update::Acked(ack_of(&message))).await;
        } else if new {
            self.say(Update::Message(Box::new(message))).await;
        }
    }

    async fn on_ack(&mut self, ack: MessageAck) {
        self.ledger.acked(ack.conversation_id, ack.seq);
        if self.inbox.settle(ack.message_id).is_some() {
            self.say(Update::Acked(ack)).await;
        }
    }

    /// A change has a place in the log like a message, and moves the cursor like one.
    async fn on_change(&mut self, change: MessageChanged) {
        let cursor = change.seq;
        if self.ledger.arrived(change.conversation_id, cursor) {
            let message = Box::new(change.message);
            self.say(Update::Changed { cursor, message }).await;
        }
    }

    /// Changes first: their entries lie anywhere among the batch's messages, whose `seq` moves the
    /// application's cursor. Whoever stops in the middle must not have passed over a change.
    async fn on_batch(&mut self, batch: MessageBatch) {
        let conversation_id = batch.conversation_id;
        let mut cursor = self.ledger.cursor(conversation_id);
        let seq = batch.to_seq;
        if seq > cursor {
            for message in batch.changed {
                let message = Box::new(message);
                self.say(Update::Changed { cursor, message }).await;
            }
        }
        for message in batch.messages {
            cursor = cursor.max(message.seq);
            self.on_message(message).await;
        }
        self.ledger.advance(conversation_id, seq);
        if seq > cursor {
            self.say(Update::Cursor {
                conversation_id,
                seq,
            })
            .await;
        }
    }

    async fn on_synced(&mut self, session: &mut Session, done: SyncDone) {
        for reset in done.reset {
            let ResetCursor {
                conversation_id,
                seq,
            } = reset;
            let seq = self.ledger.reset(conversation_id, seq);
            let reset = ResetCursor {
                conversation_id,
                seq,
            };
            self.say(Update::Reset(reset)).await;
        }
        self.ledger.end_sync();
        session.synced = true;
        let messages = done.count;
        self.say(Update::Synced { messages }).await;
    }

    async fn on_conversation(&mut self, change: ConversationChanged, created: bool) {
        let conversation = Box::new(change.conversation);
        self.say(Update::ConversationChanged {
            seq: change.seq,
            created,
            conversation,
        })
        .await;
    }

    async fn on_member(&mut self, change: MemberChanged, added: bool) {
        let MemberChanged {
            conversation_id,
            seq,
            member,
        } = change;
        if !added && self.me == Some(member.user_id) {
            self.ledger.forget(conversation_id);
        }
        self.say(Update::MemberChanged {
            conversation_id,
            seq,
            added,
            member,
        })
        .await;
    }

    async fn on_receipt(&mut self, receipt: Receipt, read: bool) {
        if self.receipts.is_news(&receipt, read) {
            self.say(Update::Receipt { receipt, read }).await;
        }
    }

    async fn on_draining(&mut self, drain: &ServerDraining) {
        let reconnect_after = believed(Duration::from_millis(drain.reconnect_after_ms));
        self.return_at = Some(Instant::now() + reconnect_after);
        self.say(Update::Draining { reconnect_after }).await;
    }

    async fn on_error(&mut self, session: &mut Session, error: ErrorEvent) -> Result<(), End> {
        let now = Instant::now();
        let hint = error
            .retry_after_ms
            .map(Duration::from_millis)
            .map(believed);
        let retry_at = error.retryable.then(|| now + hint.unwrap_or(RETRY));
        let reference = error.reference.as_deref().unwrap_or_default();
        if reference == SYNC {
            // The database cannot be read, or the server has lost its place: from the beginning.
            let reason = || format!("{}: {}", error.code.as_str(), error.message);
            session.sync_at = Some(retry_at.ok_or_else(|| End::again(reason()))?);
        } else if reference == AUTH {
            session.auth_at = retry_at;
        } else if self.inbox.lock().marks.refused(reference, retry_at) {
            // Repeated if that is of use; nobody waits for an answer.
        } else if let Some(message_id) = error.message_id.or_else(|| reference.parse().ok()) {
            if error.retryable {
                let by_rate = error.code == ErrorCode::RateLimited;
                let mut state = self.inbox.lock();
                let dice = &mut rand::rng();
                state.outbox.postpone(message_id, now, hint, by_rate, dice);
            } else if self.inbox.settle(message_id).is_some() {
                self.say(Update::Failed { message_id, error }).await;
            }
        } else {
            self.say(Update::Event(Box::new(ServerEvent::Error(error))))
                .await;
        }
        Ok(())
    }
}

fn ack_of(message: &Message) -> MessageAck {
    MessageAck {
        reference: None,
        message_id: message.message_id,
        conversation_id: message.conversation_id,
        seq: message.seq,
        created_at: message.created_at,
        status: message.status.unwrap_or(MessageStatus::Sent),
        duplicate: true,
    }
}
