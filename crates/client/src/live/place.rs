//! Where a device stands in its conversations when it has no cursors, or none that count.

use std::collections::HashMap;

use rookery_protocol::conversation::Conversation;
use rookery_protocol::event::ResetCursor;
use rookery_protocol::{ConversationId, Seq};

use super::driver::Driver;
use super::end::End;
use super::ledger::Ledger;
use super::receipts::Receipts;
use super::{Start, Update};

impl Driver {
    /// Reads the first cursors from the server.
    pub(super) async fn find_place(&mut self) -> Result<(), End> {
        let now = matches!(self.config.start, Start::Now);
        self.ledger = Ledger::new(self.read_cursors(now).await?);
        self.placed = true;
        Ok(())
    }

    /// Cursors of another incarnation of the database say nothing: everything counts from the
    /// present ends, and the application is told to fetch what it shows. A failure on the way ends
    /// the connection, and the next one does it all again.
    pub(super) async fn check_epoch(&mut self, epoch: &str) -> Result<(), End> {
        if self.epoch.as_ref().is_some_and(|known| known != epoch) {
            let cursors = self.read_cursors(true).await?;
            let epoch = epoch.to_owned();
            self.say(Update::EpochChanged { epoch }).await;
            for (&conversation_id, &seq) in &cursors {
                let reset = ResetCursor {
                    conversation_id,
                    seq,
                };
                self.say(Update::Reset(reset)).await;
            }
            self.ledger = Ledger::new(cursors);
            self.receipts = Receipts::default();
            self.inbox.lock().marks.forget();
        }
        self.epoch = Some(epoch.to_owned());
        Ok(())
    }

    /// The cursors of someone who has everything up to the present ends, or up to what was
    /// confirmed as delivered. All memberships must be named: others count from the joining.
    async fn read_cursors(&self, now: bool) -> Result<HashMap<ConversationId, Seq>, End> {
        let cursor = |conversation: Conversation| {
            let me = &conversation.me;
            let seq = if now {
                conversation.last_seq
            } else {
                me.delivered_seq.max(me.joined_seq)
            };
            (conversation.conversation_id, seq)
        };
        let conversations = self.api.all_conversations().await?;
        Ok(conversations.into_iter().map(cursor).collect())
    }
}
