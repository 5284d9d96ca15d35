//! What has no answer when a pair ends: it counts, with its age. A server that stands still must not
//! look fast because what it did not do has no latency.

use std::time::Instant;

use rookery_oracle::pair::Side;

use super::{Pair, Stamp};
use crate::schedule::Schedule;

impl Pair {
    /// The pair can go on no more: what is due until the end is never sent.
    pub(super) async fn miss(&mut self, schedule: &Schedule) {
        while let Some(due) = &mut self.due {
            match due.recv().await {
                Some(at) => self.never_sent(at, schedule),
                None => self.due = None,
            }
        }
    }

    /// After the last look at the sockets. What was due and is still to be sent had no room there.
    pub(in crate::direct) fn close_books(&mut self, schedule: &Schedule) {
        while let Some(Ok(at)) = self.due.as_mut().map(|due| due.try_recv()) {
            self.never_sent(at, schedule);
        }
        if self.ends.iter().any(|end| end.away_since.is_some()) && self.tally.gave_up == 0 {
            self.tally.gave_up = 1;
            self.tally.problem = Some("a pair did not get back to a node".to_owned());
        }
        let now = Instant::now();
        let mut books = self.books.borrow_mut();
        for open in self.watch.open().filter(|open| open.stamp.measured) {
            let age = now.saturating_duration_since(open.stamp.at);
            if !open.acked {
                books.to_ack.record(age);
            }
            if !open.delivered {
                books.to_delivery.record(age);
            }
        }
    }

    /// To whoever wanted to send it, it is as good as sent and without an answer.
    fn never_sent(&mut self, at: Instant, schedule: &Schedule) {
        let measured = schedule.measures(at);
        self.watch.sent(Side::A, Stamp { at, measured });
    }
}
