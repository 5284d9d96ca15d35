//! The task that owns one WebSocket. The loop only routes: what the outbox holds goes out, what the
//! client sends goes to `commands`, one after the other, and it ends when either side says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::upgrade::OnUpgrade;
use rookery_protocol::{CloseCode, Format, limits};
use tokio_tungstenite::tungstenite::Message as WsMessage;

use super::Gateway;
use super::admission::Permit;
use super::goodbye::{Ended, finish};
use super::link::{Link, websocket};
use super::open::{self, NotOpened, Opening};
use super::rate_limit::Rates;
use super::session::Session;
use crate::commands;
use crate::metrics;

/// Runs one socket from its upgrade to its end.
pub(super) async fn run(
    gateway: Gateway,
    upgrade: OnUpgrade,
    opening: Box<Opening>,
    mut permit: Permit,
) {
    // Boxed: only the loop below has to live in a socket's memory for long.
    let started = Box::pin(start(&gateway, upgrade, opening, &mut permit));
    let Some((mut link, opened)) = started.await else {
        return;
    };
    let connection = opened.as_ref().ok().map(|session| session.id);
    let ended = match opened {
        Ok(session) => {
            let ended = serve(&gateway, &mut link, &session).await;
            // Whoever still waits for room in the outbox must not wait for ever.
            session.close(CloseCode::Resynchronise);
            Box::pin(open::left(&gateway, &session)).await;
            ended
        }
        Err(NotOpened::Close(code)) => Ended::Close(code),
        Err(NotOpened::Gone(error)) => {
            error.map_or(Ended::Peer(None), |error| Ended::of_error(&error))
        }
    };
    // Closing takes seconds if the client does not answer, and is no part of the opening.
    permit.decided();
    let code = Box::pin(finish(link.into_socket(), ended)).await;
    tracing::debug!(connection, code, "socket closed");
    drop(permit);
}

async fn start(
    gateway: &Gateway,
    upgrade: OnUpgrade,
    opening: Box<Opening>,
    permit: &mut Permit,
) -> Option<(Link, Result<Arc<Session>, NotOpened>)> {
    let upgraded = upgrade.await.ok()?;
    let mut socket = websocket(upgraded).await?;
    let opened = open::open(gateway, &mut socket, *opening, permit).await;
    Some((Link::new(socket), opened))
}

async fn serve(gateway: &Gateway, link: &mut Link, session: &Arc<Session>) -> Ended {
    let mut client = Client::new(gateway);
    loop {
        let message = match link.read(session).await {
            Ok(message) => message,
            Err(ended) => return ended,
        };
        // Boxed: an idle socket's task has no room for what a command takes.
        let mut command = Box::pin(client.take(gateway, session, message));
        // Most commands are done at once. One that has to wait, for a conversation that somebody
        // else holds, keeps the next ones waiting, but not what others tell this client.
        let ended = tokio::select! {
            biased;
            ended = &mut command => ended,
            ended = link.write(session) => Some(ended),
        };
        if let Some(ended) = ended {
            return ended;
        }
    }
}

/// What is remembered of one client's behaviour.
struct Client {
    rates: Rates,
    bad_frames: u32,
    bad_since: Instant,
}

impl Client {
    fn new(gateway: &Gateway) -> Self {
        let options = &gateway.options;
        let now = Instant::now();
        let messages = (options.messages_per_second, options.messages_burst);
        Self {
            rates: Rates::new(options.rates_enabled.then_some(messages), now),
            bad_frames: 0,
            bad_since: now,
        }
    }

    /// Carries out what a message asks for and queues the answer.
    async fn take(
        &mut self,
        gateway: &Gateway,
        session: &Arc<Session>,
        message: WsMessage,
    ) -> Option<Ended> {
        session.heard(gateway.now_seconds());
        if let WsMessage::Close(frame) = &message {
            return Some(Ended::Peer(frame.as_ref().map(|frame| frame.code.into())));
        }
        if !matches!(message, WsMessage::Text(_) | WsMessage::Binary(_)) {
            return None;
        }
        session.began();
        let outcome = match (&message, session.format) {
            (WsMessage::Text(text), Format::Json) => {
                commands::frame(gateway, session, text.as_bytes(), &mut self.rates).await
            }
            (WsMessage::Binary(bytes), Format::MsgPack) => {
                commands::frame(gateway, session, bytes, &mut self.rates).await
            }
            (_, format) => commands::wrong_kind(format),
        };
        metrics::frames_received_total().increment(1);
        self.answer(session, outcome);
        session.done();
        None
    }

    fn answer(&mut self, session: &Session, outcome: commands::Outcome) {
        match outcome {
            commands::Outcome::Reply(event) => {
                session.send(&event);
            }
            commands::Outcome::Bad(event) => {
                metrics::bad_frames_total().increment(1);
                session.send(&event);
                if self.too_many_bad_frames() {
                    session.close(CloseCode::Abuse);
                }
            }
            commands::Outcome::Nothing => {}
        }
    }

    fn too_many_bad_frames(&mut self) -> bool {
        let window = Duration::from_secs(limits::BAD_FRAMES_WINDOW_SECONDS);
        if self.bad_since.elapsed() > window {
            self.bad_since = Instant::now();
            self.bad_frames = 0;
        }
        self.bad_frames += 1;
        self.bad_frames > limits::BAD_FRAMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the task that a socket has for its life.
    fn size_of_task<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_each_socket_keeps_in_memory_is_small() {
        let size = size_of_task(run);
        assert!(size <= 1_280, "the task takes {size} bytes");
        let size = size_of::<Session>();
        assert!(size <= 384, "the session takes {size} bytes");
    }
}
