//! From an upgraded connection to an authenticated socket that misses nothing: authenticate, join
//! the registry, subscribe and have it confirmed, read the base, say `ready`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rookery_protocol::command::ClientCommand;
use rookery_protocol::event::{Ready, ServerEvent};
use rookery_protocol::{CloseCode, ConversationId, Format, Seq};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

use super::admission::Permit;
use super::link::{Socket, write_event};
use super::recheck::recheck;
use super::session::Session;
use super::{Gateway, HEARTBEAT_SECONDS};
use crate::auth::{Access, TokenRefusal};
use crate::bus::{BusDown, Channel, Joined};
use crate::chat::accounts::own_view;
use crate::commands;
use crate::delivery::{Base, Behind, Path};
use crate::error::AppError;
use crate::failpoint::{self, Failpoint};
use crate::metrics;
use crate::rest::request_id::RequestId;

/// How long a socket without credentials has to send its `auth`.
const AUTH_TIMEOUT: Duration = Duration::from_secs(5);

/// How the client shows who it is.
pub(super) enum Credentials {
    /// By a header, checked before the upgrade.
    Verified(Access),
    /// In the address, since browsers cannot set headers.
    Token(String),
    /// By its first frame.
    FirstFrame,
}

/// What the handshake said.
pub(super) struct Opening {
    pub(super) credentials: Credentials,
    pub(super) format: Format,
    pub(super) asked_for_protocol: bool,
    pub(super) resume: bool,
    pub(super) address: IpAddr,
    pub(super) request_id: RequestId,
}

/// Why a socket did not open.
pub(super) enum NotOpened {
    Close(CloseCode),
    /// The client went away, or broke the protocol.
    Gone(Option<WsError>),
}

impl From<CloseCode> for NotOpened {
    fn from(code: CloseCode) -> Self {
        Self::Close(code)
    }
}

/// Opens the socket. On `Ok` its session is in the registry and its `ready` in the outbox.
pub(super) async fn open(
    gateway: &Gateway,
    socket: &mut Socket,
    opening: Opening,
    permit: &mut Permit,
) -> Result<Arc<Session>, NotOpened> {
    let began = Instant::now();
    let Opening {
        credentials,
        format,
        mut resume,
        address,
        request_id,
        ..
    } = opening;
    let (access, reference) = match credentials {
        Credentials::Verified(access) => (access, None),
        Credentials::Token(token) => (gateway.auth.check(&token).map_err(|e| refusal(&e))?, None),
        Credentials::FirstFrame => {
            let (token, wants_resume, reference) = first_frame(socket, format).await?;
            resume |= wants_resume;
            permit.known().map_err(|_| CloseCode::TryLater)?;
            (
                gateway.auth.check(&token).map_err(|e| refusal(&e))?,
                reference,
            )
        }
    };
    let now = gateway.now_seconds();
    let session = Arc::new(Session::new(
        gateway.registry.next_id(),
        &access,
        format,
        now,
        Arc::clone(&gateway.registry.backlog),
    ));
    // In the registry before the subscription: what arrives from now on is at least noted.
    gateway
        .registry
        .join(Arc::clone(&session), gateway.options.sockets_per_user);
    // Either the drain finds this socket in the registry, or it is seen here.
    if gateway.is_draining() {
        gateway.registry.leave(&session);
        return Err(CloseCode::ServiceRestart.into());
    }
    let subscribed = gateway
        .subscriptions
        .join(vec![Channel::User(access.user_id)])
        .await;
    if subscribed.is_err() {
        tracing::debug!("a socket opens while the bus is down");
    }
    match begin(gateway, &session, &access, resume, reference).await {
        Ok(()) => {
            permit.opened();
            metrics::open_seconds().record(began.elapsed());
            tracing::debug!(
                connection = session.id,
                user_id = %access.user_id,
                session_id = %access.session_id,
                request_id = request_id.as_str(),
                %address,
                "socket open"
            );
            Ok(session)
        }
        Err(code) => {
            left(gateway, &session).await;
            Err(code.into())
        }
    }
}

/// Takes a socket out of everything that knows it.
pub(super) async fn left(gateway: &Gateway, session: &Arc<Session>) {
    gateway.registry.leave(session);
    if !gateway.registry.has(session.user_id) {
        let now = gateway.clock.now();
        gateway.roster.gone(session.user_id, now, Instant::now());
    }
    if session.ever_watching().is_some() {
        // A subscription may be under way, which a socket does not wait for.
        let ended = commands::end_watching(gateway.clone(), Arc::clone(session));
        gateway.tasks.spawn("watching-ended", ended);
    }
    let mut channels = vec![Channel::User(session.user_id)];
    for id in session.end_seats() {
        if gateway.registry.rooms.leave(id, session) {
            channels.push(Channel::Conversation(id));
        }
    }
    gateway.subscriptions.leave(channels).await;
}

/// Reads the base and says `ready`.
async fn begin(
    gateway: &Gateway,
    session: &Arc<Session>,
    access: &Access,
    resume: bool,
    reference: Option<String>,
) -> Result<(), CloseCode> {
    let base = base(gateway, session, resume).await?;
    failpoint::pass(Failpoint::AfterBase).await;
    if base.user.banned_at.is_some() {
        return Err(CloseCode::Forbidden);
    }
    // Once more: the session may have been ended since its token was checked, and before the
    // registry could be told.
    let ended = gateway.auth.revocations.contains(access.session_id);
    if ended || base.user.auth_version != access.auth_version {
        return Err(CloseCode::Unauthenticated);
    }
    let Base { user, ends, rooms } = base;
    let chosen = user.chosen;
    session.send(&ServerEvent::Ready(Ready {
        reference,
        user: own_view(user),
        session_id: access.session_id,
        node_id: gateway.node_id.clone(),
        epoch: gateway.epoch.get(),
        server_time: gateway.clock.now(),
        heartbeat_seconds: HEARTBEAT_SECONDS,
        token_expires_at: access.expires_at,
        limits: Gateway::limits(),
    }));
    let now = gateway.clock.now();
    let sockets = gateway.registry.count_of(session.user_id);
    gateway.roster.came(session.user_id, chosen, sockets, now);
    if failpoint::leaves_out(Failpoint::BaseNotRead) {
        session.positions().set_base(&[]);
    } else if !resume {
        let (mut newer, look_again) = {
            let mut positions = session.positions();
            (positions.set_base(&ends), positions.were_passed_over())
        };
        newer.extend(passed_over(gateway, &ends, &rooms));
        noted(gateway, session, newer).await;
        if look_again {
            // Beside the opening, which is done.
            let (gateway, session) = (gateway.clone(), Arc::clone(session));
            let tasks = gateway.tasks.clone();
            tasks.spawn("recheck", async move { recheck(&gateway, &session).await });
        }
    }
    Ok(())
}

/// Reads where the socket begins, with its seats taken before that.
async fn base(gateway: &Gateway, session: &Arc<Session>, resume: bool) -> Result<Base, CloseCode> {
    let load = async || match gateway.bases.load(session.user_id).await {
        Ok(Some(base)) => Ok(base),
        Ok(None) => Err(CloseCode::Unauthenticated),
        Err(_) => Err(CloseCode::TryLater),
    };
    failpoint::pass(Failpoint::BeforeBase).await;
    let asked = Instant::now();
    let base = load().await?;
    if base.rooms.is_empty() {
        return Ok(base);
    }
    let taken = take_seats(gateway, session, &base.rooms).await;
    // Which large conversations there are is known only from the base, and the base must not be
    // older than the subscription. A resuming socket reads again when it syncs.
    let is_heard = taken == Seats::Heard && rooms_heard(gateway, &base, asked);
    if resume || is_heard {
        return Ok(base);
    }
    load().await
}

fn rooms_heard(gateway: &Gateway, base: &Base, since: Instant) -> bool {
    gateway.registry.rooms.heard_since(&base.rooms, since)
}

/// What taking seats came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seats {
    /// The socket had all of them.
    Had,
    /// Some are new, and this node hears their channels since before.
    Heard,
    /// Some are new, and what was published until now may have been missed.
    New,
}

/// Gives a socket its seats in large conversations, and hears their channels from now on.
pub(crate) async fn take_seats(
    gateway: &Gateway,
    session: &Arc<Session>,
    ids: &[ConversationId],
) -> Seats {
    let rooms = &gateway.registry.rooms;
    let taken = ids.iter().filter(|id| rooms.join(**id, session));
    let channels: Vec<Channel> = taken.map(|id| Channel::Conversation(*id)).collect();
    if channels.is_empty() {
        return Seats::Had;
    }
    match gateway.subscriptions.join(channels).await {
        Ok(joined) => {
            rooms.heard(ids);
            match joined {
                Joined::Heard => Seats::Heard,
                Joined::New => Seats::New,
            }
        }
        Err(BusDown) => Seats::New,
    }
}

/// Takes the seat of a socket whose user has left the conversation.
pub(crate) async fn give_up_seat(gateway: &Gateway, session: &Session, id: ConversationId) {
    if gateway.registry.rooms.leave(id, session) {
        let channels = vec![Channel::Conversation(id)];
        gateway.subscriptions.leave(channels).await;
    }
}

/// Entries that arrived for large conversations after the base was read and before the socket had
/// its seat.
fn passed_over(
    gateway: &Gateway,
    ends: &[(ConversationId, Seq)],
    rooms: &[ConversationId],
) -> Vec<(ConversationId, Seq)> {
    let newest = |id: &ConversationId| (*id, gateway.registry.rooms.newest(*id));
    let newer = |(id, newest): &(ConversationId, Seq)| {
        ends.iter().any(|(other, end)| other == id && end < newest)
    };
    rooms.iter().map(newest).filter(newer).collect()
}

/// Has entries delivered that were noted while positions were not known.
pub(crate) async fn noted(gateway: &Gateway, session: &Session, newer: Vec<(ConversationId, Seq)>) {
    for (conversation_id, target) in newer {
        let users = vec![session.user_id];
        let behind = Behind {
            conversation_id,
            users,
            target,
            path: Path::Fill,
        };
        gateway.delivery.behind(behind).await;
    }
}

fn refusal(refusal: &TokenRefusal) -> NotOpened {
    NotOpened::Close(match refusal {
        TokenRefusal::Expired => CloseCode::TokenExpired,
        TokenRefusal::Invalid | TokenRefusal::Revoked => CloseCode::Unauthenticated,
    })
}

/// Waits for `auth`; anything else first is refused.
async fn first_frame(
    socket: &mut Socket,
    format: Format,
) -> Result<(String, bool, Option<String>), NotOpened> {
    let wait = tokio::time::timeout(AUTH_TIMEOUT, data_frame(socket));
    let bytes = wait
        .await
        .map_err(|_| NotOpened::Close(CloseCode::Unauthenticated))??;
    match ClientCommand::decode(format, &bytes) {
        Ok(ClientCommand::Auth(auth)) => Ok((auth.token, auth.resume, auth.reference)),
        Ok(other) => {
            let error = AppError::unauthenticated("the first frame must be auth");
            let event = error.into_event(other.reference().map(str::to_owned), None);
            write_event(socket, format, &ServerEvent::Error(event)).await;
            Err(CloseCode::Unauthenticated.into())
        }
        Err(error) => {
            let event = commands::decode_error(error);
            write_event(socket, format, &ServerEvent::Error(event)).await;
            Err(CloseCode::Unauthenticated.into())
        }
    }
}

async fn data_frame(socket: &mut Socket) -> Result<Vec<u8>, NotOpened> {
    loop {
        match socket.next().await {
            Some(Ok(WsMessage::Text(text))) => return Ok(text.as_bytes().to_vec()),
            Some(Ok(WsMessage::Binary(bytes))) => return Ok(bytes.to_vec()),
            Some(Ok(WsMessage::Close(_))) | None => return Err(NotOpened::Gone(None)),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(NotOpened::Gone(Some(error))),
        }
    }
}
