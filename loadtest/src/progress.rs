//! One line on stderr that says how far things are: each second, overwritten at a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::sampler::Gauges;
use crate::schedule::{Counters, Counts};

const EVERY: Duration = Duration::from_secs(1);

/// Progress of something that has an end.
#[derive(Debug)]
pub(crate) struct Line {
    what: &'static str,
    of: u64,
    shown_at: Option<Instant>,
}

impl Line {
    pub(crate) fn new(what: &'static str, of: u64) -> Self {
        Self {
            what,
            of,
            shown_at: Some(Instant::now()),
        }
    }

    /// Shows it, at most once a second.
    pub(crate) fn show(&mut self, done: u64) {
        if self.shown_at.is_none_or(|at| at.elapsed() >= EVERY) {
            self.shown_at = Some(Instant::now());
            write(&format!("{}: {done} of {}", self.what, self.of));
        }
    }

    pub(crate) fn end(self) {
        write(&format!("{}: {} of {}", self.what, self.of, self.of));
        end_line();
    }
}

/// Shows rates each second until then.
pub(crate) async fn until(then: Instant, what: &str, counters: &[Counters]) {
    let (mut before, mut at) = (Counters::total(counters), Instant::now());
    while at < then {
        tokio::time::sleep_until(then.min(at + EVERY).into()).await;
        let (now, elapsed) = (Counters::total(counters), at.elapsed().as_secs_f64());
        at = Instant::now();
        let rate = |field: fn(&Counts) -> u64| (field(&now) - field(&before)) as f64 / elapsed;
        let left = then.saturating_duration_since(at).as_secs_f64();
        write(&format!(
            "{what}: {:.0} acked/s, {:.0} delivered/s, {} under way, {left:.0} s left",
            rate(|counts| counts.acked),
            rate(|counts| counts.delivered),
            now.sent.saturating_sub(now.acked.min(now.delivered)),
        ));
        before = now;
    }
    end_line();
}

/// Shows each second how fast a run's counters grow, for so long.
pub(crate) async fn gauges(time: Duration, what: &str, gauges: &Gauges) {
    let then = Instant::now() + time;
    let (mut before, mut at) = (gauges.read(), Instant::now());
    while at < then {
        tokio::time::sleep_until(then.min(at + EVERY).into()).await;
        let (now, elapsed) = (gauges.read(), at.elapsed().as_secs_f64());
        at = Instant::now();
        let left = then.saturating_duration_since(at).as_secs_f64();
        let rates = crate::sampler::rates(&before, &now, elapsed);
        let rates = rates
            .iter()
            .map(|(name, rate)| format!("{rate:.0} {name}/s, "));
        write(&format!(
            "{what}: {}{left:.0} s left",
            rates.collect::<String>()
        ));
        before = now;
    }
    end_line();
}

/// Something that happened.
pub(crate) fn say(text: &str) {
    write(text);
    end_line();
}

/// A line that the next one replaces at a terminal, until [`end_line`].
pub(crate) fn show(text: &str) {
    write(text);
}

fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // A closed stderr must not end a measurement.
    let _ = match stderr.is_terminal() {
        true => write!(stderr, "\r\x1b[K{text}"),
        false => writeln!(stderr, "{text}"),
    };
    let _ = stderr.flush();
}

pub(crate) fn end_line() {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
}
