//! After a lost connection: to another node, when the old one asked for that, and everything that
//! has no answer once more.

use std::time::{Duration, Instant};

use rookery_client::{ClientCommand, SocketError};
use rookery_oracle::pair::Side;
use rookery_protocol::Seq;
use rookery_protocol::command::Sync;

use super::Pair;

/// Between two attempts to come back.
const RETURN: Duration = Duration::from_millis(250);

impl Pair {
    pub(super) fn on_draining(&mut self, side: Side, reconnect_after_ms: u64) {
        let at = Instant::now() + Duration::from_millis(reconnect_after_ms);
        self.ends[side as usize].return_at = Some(at);
        if let Some(witness) = &self.shared.plan.witness {
            witness.hinted();
        }
    }

    /// Its socket was closed. If that was so already, and not everything that it missed has come, it
    /// is still away from the same time.
    pub(super) fn is_away(&mut self, side: Side, code: u16) {
        let end = &mut self.ends[side as usize];
        if end.away_since.is_some() {
            return;
        }
        end.away_since = Some(Instant::now());
        if let Some(witness) = &self.shared.plan.witness {
            witness.closed(code);
        }
    }

    /// Everything that it missed has come.
    pub(super) fn is_back(&mut self, side: Side) {
        let away = self.ends[side as usize].away_since.take();
        if let (Some(since), Some(witness)) = (away, &self.shared.plan.witness) {
            witness.returned(since.elapsed());
        }
    }

    /// Connects to another node, and asks for what came behind the cursor.
    pub(super) async fn come_back(&mut self, side: Side) {
        let socket_index = self.index * 2 + side as usize;
        let cursors = [(self.conversation, Seq(self.watch.cursor(side)))].into();
        let sync = ClientCommand::Sync(Sync {
            reference: None,
            cursors: Some(cursors),
            since: None,
        });
        let end = &mut self.ends[side as usize];
        let mut next = end.return_at.take();
        loop {
            let at = next.take().unwrap_or_else(|| Instant::now() + RETURN);
            tokio::time::sleep_until(at.into()).await;
            end.target = (end.target + 1) % self.shared.plan.targets.len();
            let opened = self
                .shared
                .open(socket_index, end.target, &end.person, true);
            if let Ok(socket) = opened.await {
                end.socket = socket;
                if end.socket.send(&sync).await.is_ok() {
                    return;
                }
            }
        }
    }

    /// The replay is over: what is still without an answer is sent once more, under its old ids.
    pub(super) async fn send_again(&mut self, side: Side) -> Result<(), (Side, SocketError)> {
        for counter in self.watch.unanswered(side) {
            self.tally.repeated += 1;
            self.write(side, counter).await?;
        }
        Ok(())
    }
}
