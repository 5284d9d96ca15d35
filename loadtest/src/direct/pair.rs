//! Two people, their two sockets, and one task: whatever arrives is checked, and answered by the
//! next sends in one write.

mod back;
mod end;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rookery_client::socket::RawMessage;
use rookery_client::{ClientCommand, Socket, SocketError};
use rookery_oracle::pair::{Conversation, Side};
use rookery_protocol::command::Mark;
use rookery_protocol::{CloseCode, ConversationId, Seq};

use super::Load;
use super::pacer::{Due, next_due};
use super::{Books, Shared, Tally};
use crate::dialect::{Writer, place};
use crate::population::Person;
use crate::schedule::Schedule;
use crate::wire::{LightMessage, Payload, Tag};

/// After a refusal: a server that sheds load is not to be asked again at once.
const REFUSED: Duration = Duration::from_millis(100);

/// When a message was sent, or was due to be.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    at: Instant,
    measured: bool,
}

struct End {
    socket: Socket,
    writer: Writer,
    person: Person,
    /// Frames wait to be written.
    fed: bool,
    /// Which target it is connected to.
    target: usize,
    /// When its node, which is about to go, asked to come back.
    return_at: Option<Instant>,
    /// Since when it has been away, and not everything that it missed has come.
    away_since: Option<Instant>,
}

pub(super) struct Pair {
    shared: Arc<Shared>,
    index: usize,
    thread: usize,
    conversation: ConversationId,
    conversation_text: String,
    ends: [End; 2],
    watch: Conversation<Stamp>,
    due: Option<Due>,
    /// When the messages were due that are to be written, if they count.
    unwritten: Vec<Instant>,
    /// Whose message is due next.
    turn: Side,
    books: Rc<RefCell<Books>>,
    tally: Tally,
}

impl Pair {
    /// Both connections, on different targets where there are several.
    pub(super) async fn connect(
        shared: Arc<Shared>,
        index: usize,
        thread: usize,
        due: Option<Due>,
        books: Rc<RefCell<Books>>,
    ) -> anyhow::Result<Self> {
        let plan = &shared.plan;
        let couple = &plan.couples[index];
        let conversation = couple.conversation;
        let end = async |side: Side| -> anyhow::Result<End> {
            let target = (index + side as usize) % plan.targets.len();
            let person = couple.people[side as usize].clone();
            let tag = Tag {
                run: shared.run,
                pair: u32::try_from(index)?,
                from: side,
                counter: 0,
            };
            let writer = plan.dialect.writer(conversation, plan.content_bytes, tag);
            let number = index * 2 + side as usize;
            let mut socket = shared.open(number, target, &person, false).await?;
            if side == Side::A || plan.both_ways {
                plan.dialect.before_sending(&mut socket).await?;
            }
            Ok(End {
                socket,
                writer,
                person,
                fed: false,
                target,
                return_at: None,
                away_since: None,
            })
        };
        Ok(Self {
            ends: [end(Side::A).await?, end(Side::B).await?],
            watch: Conversation::new(couple.base),
            index,
            thread,
            conversation,
            conversation_text: conversation.to_string(),
            due,
            unwritten: Vec::new(),
            turn: Side::A,
            books,
            tally: Tally::default(),
            shared: Arc::clone(&shared),
        })
    }

    /// Writes and reads until everything sent is settled and nothing more is to be sent.
    pub(super) async fn run(&mut self, schedule: &Schedule) {
        while let Err((side, error)) = self.exchange(schedule).await {
            let code = error.close_code().unwrap_or(0);
            *self.tally.closed.entry(code).or_default() += 1;
            self.is_away(side, code);
            if !self.shared.plan.returns || !CloseCode::reconnects(code) {
                self.tally.problem = Some(format!("a pair gave up: {error}"));
                self.tally.gave_up = 1;
                return self.miss(schedule).await;
            }
            self.come_back(side).await;
        }
    }

    async fn exchange(&mut self, schedule: &Schedule) -> Result<(), (Side, SocketError)> {
        loop {
            self.fill(schedule).await?;
            if self.finished(schedule) {
                return Ok(());
            }
            let [a, b] = &mut self.ends;
            let (side, frame) = tokio::select! {
                biased;
                frame = a.socket.recv_raw() => (Side::A, frame),
                frame = b.socket.recv_raw() => (Side::B, frame),
                due = next_due(&mut self.due) => {
                    match due {
                        Some(due) => self.send_in_turn(due, schedule).await?,
                        None => self.due = None,
                    }
                    continue;
                }
            };
            self.on_frame(side, &frame.map_err(|error| (side, error))?)
                .await?;
            // What has arrived already is read before anything is written.
            for side in Side::BOTH {
                while let Some(frame) = at_once(self.ends[side as usize].socket.recv_raw()).await {
                    self.on_frame(side, &frame.map_err(|error| (side, error))?)
                        .await?;
                }
            }
        }
    }

    fn finished(&self, schedule: &Schedule) -> bool {
        let more = match self.shared.plan.load {
            Load::Window { .. } => Instant::now() < schedule.measure_to,
            Load::Rate { .. } => self.due.is_some(),
        };
        !more && self.watch.is_settled()
    }

    /// Fills the window, or sends all that is due; then writes everything in one go.
    async fn fill(&mut self, schedule: &Schedule) -> Result<(), (Side, SocketError)> {
        match self.shared.plan.load {
            Load::Window { messages } => {
                let sides = if self.shared.plan.both_ways {
                    &Side::BOTH[..]
                } else {
                    &[Side::A]
                };
                for &side in sides {
                    while self.watch.in_flight(side) < messages {
                        let now = Instant::now();
                        if now >= schedule.measure_to {
                            break;
                        }
                        self.send(side, now, schedule).await?;
                    }
                }
            }
            Load::Rate { .. } => {
                while let Some(Ok(due)) = self.due.as_mut().map(Due::try_recv) {
                    self.send_in_turn(due, schedule).await?;
                }
            }
        }
        for side in Side::BOTH {
            let end = &mut self.ends[side as usize];
            if std::mem::take(&mut end.fed) {
                end.socket.flush().await.map_err(|error| (side, error))?;
            }
        }
        let mut books = self.books.borrow_mut();
        for due in self.unwritten.drain(..) {
            books.late.record(due.elapsed());
        }
        Ok(())
    }

    /// The first of a pair writes, or both in turns.
    async fn send_in_turn(
        &mut self,
        due: Instant,
        schedule: &Schedule,
    ) -> Result<(), (Side, SocketError)> {
        let side = self.turn;
        if self.shared.plan.both_ways {
            self.turn = side.other();
        }
        if schedule.measures(due) {
            self.unwritten.push(due);
        }
        self.send(side, due, schedule).await
    }

    async fn send(
        &mut self,
        side: Side,
        at: Instant,
        schedule: &Schedule,
    ) -> Result<(), (Side, SocketError)> {
        let counter = self.watch.sent(
            side,
            Stamp {
                at,
                measured: schedule.measures(at),
            },
        );
        self.shared.counters[self.thread].sent();
        self.write(side, counter).await
    }

    async fn write(&mut self, side: Side, counter: u64) -> Result<(), (Side, SocketError)> {
        let writer = &self.ends[side as usize].writer;
        let (frame, request) = (writer.send(counter), writer.request());
        self.feed(side, frame).await?;
        match request {
            Some(request) => self.feed(side, request).await,
            None => Ok(()),
        }
    }

    async fn feed(&mut self, side: Side, frame: RawMessage) -> Result<(), (Side, SocketError)> {
        let end = &mut self.ends[side as usize];
        end.fed = true;
        let fed = end.socket.feed_raw(frame).await;
        fed.map_err(|error| (side, error))
    }

    async fn on_frame(
        &mut self,
        side: Side,
        frame: &RawMessage,
    ) -> Result<(), (Side, SocketError)> {
        let dialect = self.shared.plan.dialect;
        let Some(light) = dialect.read(frame) else {
            return match dialect.answer(frame) {
                Some(answer) => self.feed(side, answer).await,
                None => Ok(()),
            };
        };
        match light.kind {
            "message.ack" => match light
                .message_id
                .and_then(|id| self.tag(Tag::of_message_id(id)?))
            {
                Some(tag) => self.on_ack(tag, light.seq),
                None => self.watch.foreign(),
            },
            "ack.upto" => self.on_acks(side, light.seq),
            "message.new" => match &light.message {
                Payload::Message(message) => {
                    self.on_message(side, message);
                    if self.shared.plan.marks {
                        return self.mark_read(side, message.seq).await;
                    }
                }
                _ => self.watch.foreign(),
            },
            "message.batch" => light.messages.iter().for_each(|m| self.on_message(side, m)),
            "server.draining" => self.on_draining(side, light.reconnect_after_ms),
            "sync.done" => {
                self.is_back(side);
                return self.send_again(side).await;
            }
            "error" => {
                let id = light.message_id.and_then(Tag::of_message_id);
                if let Some(tag) = id.and_then(|tag| self.tag(tag)) {
                    self.watch.refused(tag.from, tag.counter);
                }
                let sentence = match &light.message {
                    Payload::Sentence(sentence) => sentence.as_str(),
                    _ => "",
                };
                self.tally.problem = Some(format!("{}: {sentence}", light.code.unwrap_or("error")));
                tokio::time::sleep(REFUSED).await;
            }
            _ => {}
        }
        Ok(())
    }

    fn on_message(&mut self, side: Side, message: &LightMessage<'_>) {
        let ours = message.conversation_id == self.conversation_text;
        match message.tag().and_then(|tag| self.tag(tag)).filter(|_| ours) {
            None => self.watch.foreign(),
            // One's own, in a replay: as good as an acknowledgement.
            Some(tag) if tag.from == side => self.on_ack(tag, message.seq),
            Some(tag) => {
                if let Some(stamp) = self.watch.delivered(tag.from, tag.counter, message.seq) {
                    self.shared.counters[self.thread].delivered();
                    if let Some(witness) = &self.shared.plan.witness {
                        witness.arrived(self.index * 2 + side as usize, stamp.at);
                    }
                    if stamp.measured {
                        self.books
                            .borrow_mut()
                            .to_delivery
                            .record(stamp.at.elapsed());
                    }
                }
            }
        }
    }

    async fn mark_read(&mut self, side: Side, seq: i64) -> Result<(), (Side, SocketError)> {
        let mark = ClientCommand::MessageRead(Mark {
            reference: None,
            conversation_id: self.conversation,
            seq: Seq(seq),
        });
        let end = &mut self.ends[side as usize];
        end.fed = true;
        end.socket.feed(&mark).await.map_err(|error| (side, error))
    }

    fn on_ack(&mut self, tag: Tag, seq: i64) {
        if let Some(stamp) = self.watch.acked(tag.from, tag.counter, seq) {
            self.shared.counters[self.thread].acked();
            if stamp.measured {
                self.books.borrow_mut().to_ack.record(stamp.at.elapsed());
            }
        }
    }

    /// So many of a side's messages are acknowledged, by a server that counts.
    fn on_acks(&mut self, from: Side, count: i64) {
        for counter in self.watch.unanswered(from) {
            let place = place(counter);
            if place > count {
                break;
            }
            let tag = Tag {
                run: self.shared.run,
                pair: 0,
                from,
                counter,
            };
            self.on_ack(tag, place);
        }
    }

    /// The tag, if it is of this run and pair.
    fn tag(&self, tag: Tag) -> Option<Tag> {
        let ours = tag.run == self.shared.run && tag.pair as usize == self.index;
        ours.then_some(tag)
    }

    /// Says good-bye, and hands over the books.
    pub(super) async fn finish(self) -> Tally {
        let [a, b] = self.ends;
        tokio::join!(a.socket.close(), b.socket.close());
        Tally {
            verdict: self.watch.verdict(),
            ..self.tally
        }
    }
}

/// What the future has to say without waiting. Unlike `now_or_never`, the task stays its waker.
async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let poll = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    });
    poll.await
}
