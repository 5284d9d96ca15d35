//! The first reading of all histories: what became of each send, and when people were connected.

use std::collections::{HashMap, HashSet};

use rookery_protocol::{ConversationId, MessageId, UserId};

use super::found::{About, Found, Kind};
use super::people::People;
use crate::event::{Event, Fingerprint, Line, PROCESS, View};
use crate::history::Place;
use crate::report::Counts;

/// What became of one message that a recorded device sent.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) conversation: ConversationId,
    pub(super) content: Fingerprint,
    /// The first send.
    pub(super) sent: Place,
    /// The highest place that its device had an ack for, in this conversation, when it sent: its own
    /// must be higher, unless the database was set back since.
    floor: i64,
    epoch: u32,
    /// Sent once, on a connection that then lasted: what it was answered is all there is to know.
    single: bool,
    pub(super) acked: Option<(i64, Place)>,
    /// Refused by an answer that means "not stored".
    pub(super) refused: Option<Place>,
}

#[derive(Debug, Default)]
pub(super) struct Fates {
    fates: HashMap<MessageId, Fate>,
    /// Contents that edits asked for, by message.
    edits: HashMap<(ConversationId, i64), HashSet<Fingerprint>>,
}

impl Fates {
    pub(super) fn get(&self, message: MessageId) -> Option<&Fate> {
        self.fates.get(&message)
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (MessageId, &Fate)> {
        self.fates.iter().map(|(id, fate)| (*id, fate))
    }

    /// Whether an edit asked for this content; `None` where no edit of this message was recorded.
    pub(super) fn edited_to(
        &self,
        (conversation, seq): (ConversationId, i64),
        content: Fingerprint,
    ) -> Option<bool> {
        let edits = self.edits.get(&(conversation, seq))?;
        Some(edits.contains(&content))
    }
}

/// Reads one history.
pub(super) struct FirstReading<'a> {
    pub(super) fates: &'a mut Fates,
    pub(super) people: &'a mut People,
    pub(super) found: &'a mut Found,
    pub(super) counts: &'a mut Counts,
    /// The epoch that is judged.
    pub(super) epoch: Option<&'a str>,
    devices: HashMap<u32, Sender>,
}

/// A device as a sender.
#[derive(Debug)]
struct Sender {
    user: UserId,
    view: View,
    /// Sends without an answer, with the place of the newest attempt.
    open: HashMap<MessageId, Place>,
    /// The highest place that was acknowledged.
    acked: HashMap<ConversationId, i64>,
    connection: u32,
    /// How often the epoch was another one.
    epoch: u32,
    epoch_name: Option<String>,
    /// Of each open message, the connection of its only attempt.
    attempts: HashMap<MessageId, u32>,
    judged: bool,
    ended: bool,
}

impl<'a> FirstReading<'a> {
    pub(super) fn new(
        fates: &'a mut Fates,
        people: &'a mut People,
        found: &'a mut Found,
        counts: &'a mut Counts,
        epoch: Option<&'a str>,
    ) -> Self {
        Self {
            fates,
            people,
            found,
            counts,
            epoch,
            devices: HashMap::new(),
        }
    }

    pub(super) fn see(&mut self, place: Place, line: &Line) {
        self.counts.events += 1;
        if line.device == PROCESS {
            return;
        }
        if let Event::Device { user, view, .. } = &line.event {
            self.counts.devices += 1;
            self.people.device(*user);
            self.devices.insert(line.device, Sender::new(*user, *view));
            return;
        }
        let Some(sender) = self.devices.get_mut(&line.device) else {
            return;
        };
        self.people.see(sender.user, place, &line.event);
        match &line.event {
            Event::Ready { epoch, .. } => {
                self.counts.connections += 1;
                sender.connection += 1;
                sender.judged = self.epoch.is_none_or(|judged| judged == epoch);
                sender.under(epoch);
            }
            Event::Disconnected { .. } => sender.connection += 1,
            Event::Edit {
                conversation,
                of,
                content,
            } => {
                let edits = self.fates.edits.entry((*conversation, of.0)).or_default();
                edits.insert(*content);
            }
            event => self.sending(place, event),
        }
    }

    fn sending(&mut self, place: Place, event: &Event) {
        let Some(sender) = self.devices.get_mut(&place.device) else {
            return;
        };
        match event {
            Event::Send {
                message_id,
                conversation,
                content,
            } => self.sent(place, *message_id, (*conversation, *content)),
            Event::Ack {
                message_id,
                conversation,
                seq,
                duplicate,
            } => {
                sender.open.remove(message_id);
                sender.attempts.remove(message_id);
                if !sender.judged {
                    return;
                }
                let highest = sender.acked.entry(*conversation).or_default();
                *highest = seq.0.max(*highest);
                let tied = (!duplicate).then_some(sender.epoch);
                let answer = (*message_id, *conversation, seq.0);
                self.acknowledged(place, answer, tied);
            }
            Event::Refused {
                message_id,
                code,
                retryable,
            } => {
                self.counts.refused += 1;
                sender.open.remove(message_id);
                let attempt = sender.attempts.remove(message_id);
                // Whether an outage or a mistake of the server stored it nobody knows.
                let is_final = !retryable && code != "INTERNAL";
                if let Some(fate) = self.fates.fates.get_mut(message_id) {
                    // The client library does not say how often it tried.
                    let only = sender.view == View::Wire
                        && fate.single
                        && attempt == Some(sender.connection);
                    fate.single = false;
                    fate.refused = (only && is_final && sender.judged).then_some(place);
                }
            }
            Event::GivenUp { message_id } => {
                self.counts.given_up += 1;
                sender.open.remove(message_id);
            }
            // One's own message in the log is an answer, too.
            Event::Arrived { message_id, .. } => {
                sender.open.remove(message_id);
            }
            Event::End { outbox, .. } => {
                sender.ended = true;
                self.counts.waiting += outbox.len() as u64;
                for message in outbox {
                    sender.open.remove(message);
                }
                self.silent(place.device);
            }
            _ => {}
        }
    }

    fn sent(
        &mut self,
        place: Place,
        message_id: MessageId,
        (conversation, content): (ConversationId, Fingerprint),
    ) {
        let Some(sender) = self.devices.get_mut(&place.device) else {
            return;
        };
        sender.open.insert(message_id, place);
        let floor = sender.acked.get(&conversation).copied().unwrap_or(0);
        let fate = self.fates.fates.entry(message_id).or_insert(Fate {
            conversation,
            content,
            sent: place,
            floor,
            epoch: sender.epoch,
            single: true,
            acked: None,
            refused: None,
        });
        if fate.sent == place {
            self.counts.sends += 1;
            sender.attempts.insert(message_id, sender.connection);
        } else {
            sender.attempts.remove(&message_id);
            fate.single = false;
        }
    }

    /// `tied` is the epoch under which an ack that is no repetition came: its place is bound to what
    /// the sender knew.
    fn acknowledged(
        &mut self,
        place: Place,
        (message_id, conversation, seq): (MessageId, ConversationId, i64),
        tied: Option<u32>,
    ) {
        let Some(fate) = self.fates.fates.get_mut(&message_id) else {
            return;
        };
        let about = About::entry(conversation, seq).with(message_id);
        match fate.acked {
            Some((first, _)) if first != seq => {
                self.found.say(Kind::Duplicated, Some(place), about, || {
                    format!("acknowledged at {seq}, and before at {first}")
                });
            }
            Some(_) => {}
            None => {
                self.counts.acked += 1;
                fate.acked = Some((seq, place));
                let floor = fate.floor;
                if tied == Some(fate.epoch) && seq <= floor {
                    self.found.say(Kind::Reordered, Some(place), about, || {
                        format!("placed at {seq}, though sent after {floor} was acknowledged")
                    });
                }
            }
        }
    }

    /// A device ended: what is open now was never answered.
    fn silent(&mut self, device: u32) {
        let Some(sender) = self.devices.get_mut(&device) else {
            return;
        };
        for (message, place) in sender.open.drain() {
            self.counts.silent += 1;
            self.found
                .say(Kind::Silent, Some(place), About::message(message), || {
                    format!("{message} was sent and never answered")
                });
        }
    }

    /// The history ends here.
    pub(super) fn finish(self) {
        for sender in self.devices.values().filter(|sender| !sender.ended) {
            self.counts.cut_short += 1;
            let open = sender.open.len() as u64;
            self.found.cannot_judge(
                "sends without an answer of devices that were cut short",
                open,
            );
        }
    }
}

impl Sender {
    fn under(&mut self, epoch: &str) {
        if self
            .epoch_name
            .as_deref()
            .is_some_and(|known| known != epoch)
        {
            self.epoch += 1;
            self.acked.clear();
        }
        self.epoch_name = Some(epoch.to_owned());
    }

    fn new(user: UserId, view: View) -> Self {
        Self {
            user,
            view,
            open: HashMap::new(),
            acked: HashMap::new(),
            connection: 0,
            epoch: 0,
            epoch_name: None,
            attempts: HashMap::new(),
            judged: true,
            ended: false,
        }
    }
}
