//! A device at work: an application around the reference client, as one is meant to be written. It
//! keeps its cursors and its unacknowledged sends, and starts again with them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rookery_client::{ClientCommand, Credentials, Live, LiveConfig, Outgoing, Update};
use rookery_oracle::DeviceRecorder;
use rookery_oracle::client::LiveRecorder;
use rookery_protocol::command::{MessageEdit, ReactionChange};
use rookery_protocol::event::MessageAck;
use rookery_protocol::{ConversationId, Seq};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::memory::{Memory, Unsettled};
use super::{Job, Order, Seen, What};
use crate::measure::{Measure, add, lock};
use crate::people::Account;
use crate::rooms::Rooms;

/// Sends that may wait for their acks; then jobs wait. Below the client's own bound, so that
/// sending never waits for room, and so few that an outage of seconds is made up for in seconds.
const UNSETTLED: usize = 128;
/// Between attempts to log in.
const AGAIN: Duration = Duration::from_millis(500);
const EMOJI: [&str; 4] = ["👍", "❤️", "😀", "🎉"];

pub(super) struct Runner {
    pub(super) name: String,
    pub(super) recorder: DeviceRecorder,
    pub(super) account: Arc<Account>,
    pub(super) credentials: Credentials,
    pub(super) credentials_since: Instant,
    pub(super) rooms: Arc<Rooms>,
    pub(super) measure: Arc<Measure>,
    pub(super) seen: Arc<Seen>,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) memory: Memory,
    /// Since when it is connected, and in step.
    pub(super) connected: Option<Instant>,
    pub(super) in_step: Option<Instant>,
}

/// Why a client ended.
enum Next {
    Restart { away: Duration, crash: bool },
    LogIn,
    Renew,
    Over,
}

impl Runner {
    pub(super) async fn run(mut self) {
        loop {
            let start = self.memory.start();
            let mut config = LiveConfig::new([self.account.url()], self.credentials.clone());
            config.start = start.clone();
            config.epoch.clone_from(&self.memory.epoch);
            let Ok(mut live) = Live::start(config) else {
                return;
            };
            let mut notes = LiveRecorder::new(self.recorder.clone(), &start);
            self.send_again(&live).await;
            match self.follow(&mut live, &mut notes).await {
                Next::Over => return notes.end(&live.close().await.unacked),
                Next::Restart { away, crash } => {
                    self.leave(live, crash).await;
                    sleep(away).await;
                }
                Next::Renew => {
                    self.leave(live, false).await;
                    self.renew().await;
                }
                Next::LogIn => {
                    self.leave(live, false).await;
                    self.log_in().await;
                }
            }
        }
    }

    /// What was never acknowledged leaves again, with the same ids.
    async fn send_again(&self, live: &Live) {
        for message in self.memory.unsettled() {
            self.recorder.outgoing(&message);
            // Ended already: it stays unsettled, and leaves once more with the next client.
            let _ = live.handle().send(message).await;
        }
    }

    async fn leave(&mut self, live: Live, crash: bool) {
        // From now on it starts with its cursors, be it with none.
        self.memory.cursors();
        if self.connected.is_some() {
            self.recorder.disconnected(1006);
        }
        self.out_of_step();
        if crash {
            drop(live);
        } else {
            let last = live.close().await.credentials;
            if last.access_token != self.credentials.access_token {
                self.renewed(last);
            }
        }
    }

    async fn follow(&mut self, live: &mut Live, notes: &mut LiveRecorder) -> Next {
        loop {
            let room = self.memory.unsettled_count() < UNSETTLED;
            tokio::select! {
                update = live.next() => {
                    let Some(update) = update else {
                        return Next::LogIn;
                    };
                    notes.update(&update);
                    self.on_update(update);
                }
                Some(job) = self.jobs.recv(), if room => self.work(job, live).await,
                order = self.orders.recv() => match order {
                    Some(Order::Restart { away, crash }) => return Next::Restart { away, crash },
                    Some(Order::Doze(time)) => sleep(time).await,
                    Some(Order::RenewUnless(head)) if head == self.seen.token_head() => {}
                    Some(Order::RenewUnless(_)) => return Next::Renew,
                    None => return Next::Over,
                }
            }
            let unsettled = self.memory.unsettled_count();
            self.seen.unsettled.store(unsettled, Ordering::SeqCst);
        }
    }

    fn on_update(&mut self, update: Update) {
        match update {
            Update::Connected {
                session_id, epoch, ..
            } => {
                add(&self.measure.count.connections);
                if lock(&self.seen.session).replace(session_id) != Some(session_id) {
                    // Logged in anew: what was revoked had no connection.
                    *lock(&self.seen.revoked) = None;
                }
                lock(&self.seen.epoch).clone_from(&epoch);
                self.memory.epoch = Some(epoch);
                self.connected = Some(Instant::now());
            }
            Update::Synced { .. } => {
                if let Some(connected) = self.connected {
                    self.measure.resumed(connected.elapsed());
                }
                self.in_step = Some(Instant::now());
                self.seen.in_step.store(true, Ordering::SeqCst);
            }
            Update::Message(message) => {
                let (conversation, seq) = (message.conversation_id, message.seq);
                self.measure.arrived(message.message_id, self.in_step);
                self.memory.others.push((conversation, seq));
                self.shown(conversation, seq);
            }
            Update::Changed { cursor, message } => {
                add(&self.measure.count.changes);
                self.shown(message.conversation_id, cursor);
            }
            Update::Cursor {
                conversation_id,
                seq,
            } => self.shown(conversation_id, seq),
            Update::Acked(ack) => self.acked(&ack),
            Update::Failed { message_id, error } => {
                self.memory.settle(message_id);
                let code = error.code.as_str().to_owned();
                *lock(&self.measure.refused).entry(code).or_default() += 1;
            }
            Update::MemberChanged {
                conversation_id,
                added: false,
                member,
                ..
            } if member.user_id == self.account.id() => {
                self.memory.cursors().remove(&conversation_id);
            }
            Update::Reset(reset) => {
                add(&self.measure.count.resets);
                self.memory
                    .cursors()
                    .insert(reset.conversation_id, reset.seq);
                self.seen.show(reset.conversation_id, reset.seq);
                lock(&self.seen.resets).insert(reset.conversation_id, reset.seq);
            }
            Update::EpochChanged { epoch } => {
                self.memory.forget();
                self.seen.forget();
                self.memory.epoch = Some(epoch);
            }
            Update::Refreshed(tokens) => self.renewed(tokens.as_ref().into()),
            Update::Disconnected { .. } => self.out_of_step(),
            Update::Stopped { code, .. } => {
                self.measure.stopped(code, self.credentials_since.elapsed());
                self.out_of_step();
            }
            _ => {}
        }
    }

    fn acked(&mut self, ack: &MessageAck) {
        if let Some(Unsettled { since, .. }) = self.memory.settle(ack.message_id) {
            self.measure.acked(ack.message_id, since.elapsed());
        }
        self.memory.own.push((ack.conversation_id, ack.seq));
        self.memory.acked(ack.conversation_id, ack.seq);
        self.seen.show(ack.conversation_id, ack.seq);
    }

    /// All up to here was handed out.
    fn shown(&mut self, conversation: ConversationId, seq: Seq) {
        let cursor = self.memory.cursors().entry(conversation).or_default();
        *cursor = (*cursor).max(seq);
        self.seen.show(conversation, seq);
    }

    fn out_of_step(&mut self) {
        self.seen.in_step.store(false, Ordering::SeqCst);
        self.in_step = None;
        if self.connected.take().is_some()
            && let Some(revoked) = lock(&self.seen.revoked).take()
        {
            self.measure.revoked(revoked.elapsed());
        }
    }

    async fn work(&mut self, job: Job, live: &Live) {
        let count = &self.measure.count;
        match job.what {
            What::Send => self.send(job.pick, live).await,
            What::Edit => {
                if let Some((conversation_id, seq)) = self.memory.own.choose(job.pick) {
                    add(&count.edits);
                    self.command(live, self.edit_of(conversation_id, seq));
                }
            }
            What::React => {
                if let Some((conversation_id, seq)) = self.memory.others.choose(job.pick) {
                    add(&count.reactions);
                    let reaction = ReactionChange {
                        reference: None,
                        conversation_id,
                        seq,
                        emoji: EMOJI[job.pick as usize % EMOJI.len()].to_owned(),
                    };
                    self.command(live, ClientCommand::ReactionAdd(reaction));
                }
            }
            What::Read | What::Delivered => {
                if let Some((conversation, seq)) = self.memory.others.choose(job.pick) {
                    add(&count.marks);
                    // A client that has ended repeats no mark, and neither do people.
                    let _ = if job.what == What::Read {
                        live.handle().read(conversation, seq)
                    } else {
                        live.handle().delivered(conversation, seq)
                    };
                }
            }
        }
    }

    async fn send(&mut self, pick: u32, live: &Live) {
        let Some(room) = self.rooms.choose(self.account.number, pick) else {
            return;
        };
        self.memory.sent += 1;
        let content = format!("{} {}", self.name, self.memory.sent);
        let message = Outgoing::to_conversation(room, &content);
        add(&self.measure.count.sent);
        self.recorder.outgoing(&message);
        self.memory.keep(message.clone());
        // A client that has ended takes nothing: the next one gets what is unsettled.
        let _ = live.handle().send(message).await;
    }

    fn edit_of(&self, conversation_id: ConversationId, seq: Seq) -> ClientCommand {
        let content = format!("{} {seq} edited at {}", self.name, self.memory.sent);
        ClientCommand::MessageEdit(MessageEdit {
            reference: None,
            conversation_id,
            seq,
            content,
        })
    }

    /// Once, or never: not every edit has to succeed, and what becomes of it is seen by all.
    fn command(&self, live: &Live, command: ClientCommand) {
        self.recorder.command(&command);
        let _ = live.handle().command(command);
    }

    fn hold(&mut self, credentials: Credentials) {
        self.seen.set_token(&credentials);
        self.credentials = credentials;
        self.credentials_since = Instant::now();
    }

    /// The client renews tokens when they have run out or are refused.
    fn renewed(&mut self, credentials: Credentials) {
        let age = self.credentials_since.elapsed();
        self.measure.token_was_refused(age);
        self.hold(credentials);
    }

    async fn renew(&mut self) {
        let refresh_token = self.credentials.refresh_token.clone().unwrap_or_default();
        match self.account.renew(&refresh_token).await {
            Ok(tokens) => self.hold((&tokens).into()),
            Err(_) => self.log_in().await,
        }
    }

    async fn log_in(&mut self) {
        loop {
            match self.account.log_in().await {
                Ok(tokens) => return self.hold((&tokens).into()),
                // Whoever asked for this device's end must not wait for a server that is down.
                Err(_) if self.orders.is_closed() => return,
                Err(_) => sleep(AGAIN).await,
            }
        }
    }
}
