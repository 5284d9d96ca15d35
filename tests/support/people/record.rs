//! Everything that one device received, on all its connections, and whether it may be so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Instant;

use rookery_oracle::{Event, Line, Resume, View, wire};
use rookery_protocol::command::ClientCommand;
use rookery_protocol::event::{MessageChanged, ServerEvent};
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};

/// See the module.
#[derive(Debug)]
pub struct Record {
    /// Events of all connections, in the order of their arrival.
    events: Vec<(usize, ServerEvent)>,
    /// The number of the present connection, from 1.
    connection: usize,
    /// How the present connection ended.
    closed: Option<(u16, String)>,
    began: Instant,
    at: Vec<Instant>,
    /// What only the device knows, each with the number of events before it.
    own: Vec<(usize, Instant, Own)>,
}

/// What no event tells.
#[derive(Debug)]
enum Own {
    Opened { resume: bool },
    Said(Event),
    Closed(u16),
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            events: Vec::new(),
            connection: 0,
            closed: None,
            began: Instant::now(),
            at: Vec::new(),
            own: Vec::new(),
        }
    }

    /// Begins another connection and returns its number.
    pub(super) fn begin(&mut self, resume: bool) -> usize {
        self.note_own(Own::Opened { resume });
        self.connection += 1;
        self.closed = None;
        self.connection
    }

    /// A command of this user is about to be sent.
    pub(super) fn say(&mut self, me: UserId, command: &ClientCommand) {
        if let Some(event) = wire::of_command(me, command) {
            self.note_own(Own::Said(event));
        }
    }

    fn note_own(&mut self, own: Own) {
        self.own.push((self.events.len(), Instant::now(), own));
    }

    pub(super) fn note(&mut self, connection: usize, event: ServerEvent) {
        self.events.push((connection, event));
        self.at.push(Instant::now());
    }

    pub(super) fn end(&mut self, connection: usize, code: u16, reason: String) {
        if connection == self.connection {
            self.note_own(Own::Closed(code));
            self.closed = Some((code, reason));
        }
    }

    /// The number of the present connection, from 1.
    #[must_use]
    pub fn connection(&self) -> usize {
        self.connection
    }

    /// The close code of the present connection, once it is closed.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        self.closed.as_ref().map(|(code, _)| *code)
    }

    /// Events of the present connection.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &ServerEvent> {
        let present = self
            .events
            .iter()
            .filter(|(number, _)| *number == self.connection);
        present.map(|(_, event)| event)
    }

    /// Events of all connections.
    pub fn all_events(&self) -> impl Iterator<Item = &ServerEvent> {
        self.events.iter().map(|(_, event)| event)
    }

    /// Messages of all connections in the order of their arrival, live or replayed.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.all_events().flat_map(messages_of)
    }

    /// Messages of the present connection.
    pub fn messages_now(&self) -> impl Iterator<Item = &Message> {
        self.events().flat_map(messages_of)
    }

    /// Up to which `seq` this device has everything, by conversation: what a client keeps.
    #[must_use]
    pub fn cursors(&self) -> HashMap<ConversationId, Seq> {
        let mut cursors: HashMap<ConversationId, Seq> = HashMap::new();
        let mut raise = |id: ConversationId, seq: Seq| {
            let cursor = cursors.entry(id).or_default();
            *cursor = seq.max(*cursor);
        };
        for event in self.all_events() {
            match event {
                ServerEvent::MessageNew(new) => raise(new.message.conversation_id, new.message.seq),
                ServerEvent::MessageBatch(batch) => raise(batch.conversation_id, batch.to_seq),
                ServerEvent::SyncDone(done) => {
                    done.reset
                        .iter()
                        .for_each(|reset| raise(reset.conversation_id, reset.seq));
                }
                _ => {
                    if let Some(change) = change_of(event) {
                        raise(change.conversation_id, change.seq);
                    }
                }
            }
        }
        cursors
    }

    /// The server's time at the beginning of the last connection that was ready.
    #[must_use]
    pub fn was_ready_at(&self) -> Option<Timestamp> {
        self.events.iter().rev().find_map(|(_, event)| match event {
            ServerEvent::Ready(ready) => Some(ready.server_time),
            _ => None,
        })
    }

    /// The entries of a conversation that this device knows, be it from acks.
    #[must_use]
    pub fn known(&self, id: ConversationId) -> BTreeMap<Seq, MessageId> {
        let mut known = BTreeMap::new();
        for event in self.all_events() {
            if let ServerEvent::MessageAck(ack) = event
                && ack.conversation_id == id
            {
                known.insert(ack.seq, ack.message_id);
            }
            let messages = messages_of(event).filter(|message| message.conversation_id == id);
            known.extend(messages.map(|message| (message.seq, message.message_id)));
        }
        known
    }

    /// Checks the promise of order for a conversation, on each connection: no entry comes twice,
    /// and none before another that comes first in the log. One's own messages may come as an ack
    /// only.
    ///
    /// # Errors
    /// What was wrong.
    pub fn check_order(&self, id: ConversationId) -> Result<(), String> {
        let mut order = Order::default();
        let mut connection = 0;
        for (number, event) in &self.events {
            if *number != connection {
                connection = *number;
                order = Order::default();
            }
            order
                .take(id, event)
                .map_err(|wrong| format!("connection {number}: {wrong}"))?;
        }
        Ok(())
    }
}

impl Record {
    /// The history of this device, for the oracle: device number `device` of a history that began
    /// at `began`, and that ends now with everything at rest.
    #[must_use]
    pub fn history(&self, (device, name): (u32, &str), me: UserId, began: Instant) -> Vec<Line> {
        let line = |at: Instant, event: Event| Line {
            t: u64::try_from(at.duration_since(began).as_millis()).unwrap_or(u64::MAX),
            device,
            event,
        };
        let (name, view) = (name.to_owned(), View::Wire);
        let user = me;
        let mut lines = vec![line(self.began, Event::Device { name, user, view })];
        let mut own = self.own.iter().peekable();
        let mut resume = Resume::Fresh;
        for index in 0..=self.events.len() {
            while let Some((_, at, own)) = own.next_if(|(before, ..)| *before == index) {
                match own {
                    Own::Opened { resume: true } => resume = Resume::Sync,
                    Own::Opened { resume: false } => resume = Resume::Fresh,
                    Own::Said(event) => lines.push(line(*at, event.clone())),
                    Own::Closed(code) => {
                        lines.push(line(*at, Event::Disconnected { code: *code }));
                    }
                }
            }
            let Some(((_, event), at)) = self.events.get(index).zip(self.at.get(index)) else {
                break;
            };
            if let ServerEvent::Ready(ready) = event {
                lines.push(line(
                    *at,
                    Event::Ready {
                        node: ready.node_id.clone(),
                        epoch: ready.epoch.clone(),
                        resume: resume.clone(),
                    },
                ));
            }
            wire::of_event(me, event, |event| lines.push(line(*at, event)));
        }
        let (connected, outbox) = (self.closed.is_none(), Vec::new());
        lines.push(line(Instant::now(), Event::End { connected, outbox }));
        with_failed_sends(lines)
    }
}

/// A device of a test repeats nothing by itself: what is unanswered when its connection ends has
/// failed.
fn with_failed_sends(lines: Vec<Line>) -> Vec<Line> {
    let mut all = Vec::with_capacity(lines.len());
    let mut open = BTreeSet::new();
    for line in lines {
        match &line.event {
            Event::Send { message_id, .. } => {
                open.insert(*message_id);
            }
            Event::Ack { message_id, .. }
            | Event::Refused { message_id, .. }
            | Event::Arrived { message_id, .. } => {
                open.remove(message_id);
            }
            Event::Disconnected { .. } => {
                for message_id in std::mem::take(&mut open) {
                    let event = Event::GivenUp { message_id };
                    all.push(Line {
                        t: line.t,
                        device: line.device,
                        event,
                    });
                }
            }
            _ => {}
        }
        all.push(line);
    }
    all
}

/// What has arrived of a conversation on one connection.
#[derive(Default)]
struct Order {
    acked: BTreeSet<Seq>,
    position: Option<Seq>,
}

impl Order {
    fn take(&mut self, id: ConversationId, event: &ServerEvent) -> Result<(), String> {
        if let ServerEvent::MessageAck(ack) = event
            && ack.conversation_id == id
        {
            self.acked.insert(ack.seq);
        }
        for message in messages_of(event).filter(|message| message.conversation_id == id) {
            self.entry(message.seq)?;
        }
        if let Some(change) = change_of(event).filter(|change| change.conversation_id == id) {
            self.entry(change.seq)?;
        }
        if let ServerEvent::MessageBatch(batch) = event
            && batch.conversation_id == id
        {
            self.position = self.position.max(Some(batch.to_seq));
        }
        Ok(())
    }

    fn entry(&mut self, seq: Seq) -> Result<(), String> {
        if let Some(position) = self.position {
            if seq <= position {
                return Err(format!("{seq} came when {position} had come already"));
            }
            let between = (position.0 + 1..seq.0).map(Seq);
            if let Some(missing) = between.into_iter().find(|seq| !self.acked.contains(seq)) {
                return Err(format!("{seq} came before {missing}"));
            }
        }
        self.position = Some(seq);
        Ok(())
    }
}

/// What an event says of an entry that changed a message.
#[must_use]
pub fn change_of(event: &ServerEvent) -> Option<&MessageChanged> {
    match event {
        ServerEvent::MessageEdited(change)
        | ServerEvent::MessageDeleted(change)
        | ServerEvent::ReactionAdded(change)
        | ServerEvent::ReactionRemoved(change) => Some(change),
        _ => None,
    }
}

/// The messages that an event brings.
fn messages_of(event: &ServerEvent) -> impl Iterator<Item = &Message> {
    let (one, batch) = match event {
        ServerEvent::MessageNew(new) => (Some(&new.message), &[][..]),
        ServerEvent::MessageBatch(batch) => (None, batch.messages.as_slice()),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(batch)
}

/// A line for each event, for the text of a failed expectation.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((connection, event), at) in self.events.iter().zip(&self.at) {
            let seconds = at.duration_since(self.began).as_secs_f64();
            write!(f, "  {connection}. {seconds:7.3} {}", event.type_name())?;
            match event {
                ServerEvent::MessageAck(ack) => write!(f, " {} #{}", ack.conversation_id, ack.seq)?,
                ServerEvent::Error(error) => {
                    write!(f, " {} {}", error.code.as_str(), error.message)?;
                }
                ServerEvent::SyncDone(done) => write!(f, " {} {:?}", done.count, done.reset)?,
                _ => {}
            }
            if let Some(change) = change_of(event) {
                let (id, seq, of) = (change.conversation_id, change.seq, change.message.seq);
                write!(f, " {id} #{seq} of #{of}")?;
            }
            for message in messages_of(event) {
                let content: String = message.content.chars().take(40).collect();
                write!(
                    f,
                    " [{} #{} {content:?}]",
                    message.conversation_id, message.seq
                )?;
            }
            writeln!(f)?;
        }
        match &self.closed {
            Some((code, reason)) => writeln!(f, "  closed with {code} ({reason})"),
            None => writeln!(f, "  still open"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::event::{MessageAck, MessageNew};
    use rookery_protocol::message::{MessageKind, MessageStatus};
    use uuid::Uuid;

    use super::*;

    const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));
    const NOW: Timestamp = Timestamp::from_millis(0);

    fn new(seq: i64) -> ServerEvent {
        let message = Message {
            message_id: MessageId::from_uuid(Uuid::nil()),
            conversation_id: ROOM,
            seq: Seq(seq),
            sender_id: UserId::from_uuid(Uuid::nil()),
            kind: MessageKind::Text,
            content: String::new(),
            metadata: None,
            created_at: NOW,
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            mentions: Vec::new(),
            reactions: Vec::new(),
            status: None,
        };
        ServerEvent::MessageNew(MessageNew { message })
    }

    fn ack(seq: i64) -> ServerEvent {
        ServerEvent::MessageAck(MessageAck {
            reference: None,
            message_id: MessageId::from_uuid(Uuid::nil()),
            conversation_id: ROOM,
            seq: Seq(seq),
            created_at: NOW,
            status: MessageStatus::Sent,
            duplicate: false,
        })
    }

    fn order_of(events: impl IntoIterator<Item = ServerEvent>) -> Result<(), String> {
        let mut record = Record::new();
        let connection = record.begin(false);
        events
            .into_iter()
            .for_each(|event| record.note(connection, event));
        record.check_order(ROOM)
    }

    #[test]
    fn repeats_holes_and_disorder_are_seen() {
        assert_eq!(
            order_of([new(4), ack(5), new(6), ack(8), new(7), new(9)]),
            Ok(())
        );
        assert!(order_of([new(4), new(4)]).is_err());
        assert!(order_of([new(4), new(6), new(5)]).is_err());
        assert!(order_of([new(4), new(6), ack(5)]).is_err());
    }
}
