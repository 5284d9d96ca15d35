//! How clients of fred connect to Redis, for all but news, and who sees to it that there is a
//! connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fred::prelude::*;
use fred::types::RespVersion;
use fred::types::config::{TcpConfig, UnresponsiveConfig};

use super::CONFIRM_TIMEOUT;
use super::sentinels::Follower;
use crate::lifecycle::Tasks;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Written bytes that nobody acknowledges for so long: the kernel gives the connection up, and with
/// it a write that waits for room. A client that waits so can do nothing else.
pub(super) const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(3);
/// Commands that may wait in a client: far more than its few callers have under way, since each of
/// them waits for its answer.
const COMMANDS: usize = 1_024;
/// Nothing is received but the clients' own errors. fred makes room for so many of each kind at once.
const EVENTS: usize = 32;
/// A Redis that takes longer to say what it is counts as silent.
pub(super) const IDENTITY_TIMEOUT: Duration = Duration::from_secs(1);
/// For all of a knock: with sentinels there are several to ask.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause between two attempts to connect.
const PAUSE_MIN_MS: u32 = 50;
const PAUSE_MAX_MS: u32 = 500;
/// Before a client that gave up is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn client(url: &str) -> Result<Client, Error> {
    let mut config = Config::from_url(url)?;
    config.version = RespVersion::RESP3;
    client_of(config)
}

/// The same for a server that is not named by a URL.
pub(crate) fn client_of(mut config: Config) -> Result<Client, Error> {
    config.fail_fast = false;
    let mut builder = Builder::from_config(config);
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = CONFIRM_TIMEOUT;
        performance.broadcast_channel_capacity = EVENTS;
    });
    builder.with_connection_config(|connection| {
        connection.connection_timeout = CONNECT_TIMEOUT;
        connection.internal_command_timeout = CONNECT_TIMEOUT;
        // Whoever asked knows better whether to ask again.
        connection.max_command_attempts = 1;
        connection.max_command_buffer_len = COMMANDS;
        // Helps only while nothing more is written: each write starts its clock anew. Whoever asks
        // finds a dead link by the answer that does not come.
        connection.unresponsive = UnresponsiveConfig {
            max_timeout: Some(Duration::from_secs(3)),
            interval: Duration::from_millis(500),
        };
        connection.tcp = TcpConfig {
            nodelay: Some(true),
            user_timeout: Some(UNACKNOWLEDGED_TIMEOUT),
            ..TcpConfig::default()
        };
    });
    builder.set_policy(ReconnectPolicy::new_exponential(
        0,
        PAUSE_MIN_MS,
        PAUSE_MAX_MS,
        2,
    ));
    builder.build()
}

/// Runs a client until the node stops. fred reconnects by itself; on errors that it takes for a
/// mistake of ours it ends its task instead, and nobody would notice.
pub(crate) async fn keep(client: Client, tasks: Tasks) {
    loop {
        tokio::select! {
            ended = client.connect() => {
                tracing::warn!(?ended, "a client of Redis gave up; starting it again");
            }
            () = tasks.stopping().cancelled() => return,
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// Why a Redis cannot be used.
#[derive(Debug)]
pub(crate) struct NoEntry {
    /// Asking again may help.
    pub(crate) passes: bool,
    pub(crate) why: String,
}

/// A refusal without what it quotes: a server that does not know a command answers with all of it,
/// and the one that logs in has the password.
pub(super) fn unquoted(refusal: &str) -> &str {
    let end = refusal.find(", with args").unwrap_or(refusal.len());
    &refusal[..end]
}

/// What an account that lacks a right is to be given.
const RIGHTS: &str = "; nodes need all keys and channels that begin with rookery:v1: \
                      (~rookery:v1:* &rookery:v1:*), and the commands that docs/OPERATIONS.md names";

/// Whether the account lacks a right.
fn is_denied(error: &Error) -> bool {
    error.details().starts_with("NOPERM")
}

impl From<Error> for NoEntry {
    fn from(error: Error) -> Self {
        let mut why = unquoted(error.details()).to_owned();
        let is_denied = is_denied(&error);
        if is_denied {
            why.push_str(RIGHTS);
        }
        match error.kind() {
            // Its text may quote the URL, and with it the password.
            ErrorKind::Config | ErrorKind::Url => Self {
                passes: false,
                why: "the URL cannot be used".to_owned(),
            },
            kind => Self {
                passes: *kind != ErrorKind::Auth
                    // Not Redis, or older than 6.
                    && !why.contains("unknown command")
                    && !is_denied
                    && !why.contains("DB index is out of range"),
                why,
            },
        }
    }
}

/// Asks whether Redis can be used now, on a connection of its own.
pub(crate) async fn knock(url: &str) -> Result<(), NoEntry> {
    // What is wrong with it is not repeated: it may quote the password.
    let mut config = Config::from_url(url).map_err(|_| NoEntry {
        passes: false,
        why: "the URL cannot be used".to_owned(),
    })?;
    config.version = RespVersion::RESP3;
    let mut builder = Builder::from_config(config);
    builder.with_connection_config(|connection| connection.connection_timeout = CONNECT_TIMEOUT);
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = CONFIRM_TIMEOUT;
    });
    let client = builder.build()?;
    let ask = async {
        client.init().await?;
        client.ping::<String>(None).await?;
        try_rights(&client).await
    };
    let answer = tokio::time::timeout(KNOCK_TIMEOUT, ask).await;
    // Whatever came of it: the client's task would go on, and keep its connection.
    let quit = tokio::time::timeout(CONNECT_TIMEOUT, client.quit()).await;
    drop(quit);
    match answer {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(NoEntry {
            passes: true,
            why: "no answer".to_owned(),
        }),
    }
}

/// A channel and a key of nobody.
const NOBODYS: &str = "rookery:v1:knock";
/// A key that a failed trial leaves behind is gone soon.
const TRIED_TTL_SECONDS: i64 = 5;

/// Does what nodes do, once and without a trace. With an account that may not do it a node would
/// serve: its news would go by way of the database and its users would seem offline.
async fn try_rights(client: &Client) -> Result<(), Error> {
    client.publish::<i64, _, _>(NOBODYS, "").await?;
    client.exists::<i64, _>(NOBODYS).await?;
    client.del::<i64, _>(NOBODYS).await?;
    try_presence(client).await?;
    // fred takes these for answered once they are written: what Redis says comes with the PING.
    let pipeline = client.pipeline();
    pipeline.subscribe(NOBODYS).await?;
    pipeline.unsubscribe(NOBODYS).await?;
    pipeline.ping::<()>(None).await?;
    pipeline.last::<Value>().await.map(drop)
}

/// The commands of presence. Only a lacking right counts: other nodes may be trying on the same key,
/// and a Redis whose memory is full takes no writes but carries news.
async fn try_presence(client: &Client) -> Result<(), Error> {
    let pipeline = client.pipeline();
    pipeline.hset::<(), _, _>(NOBODYS, ("tried", 1)).await?;
    pipeline.hgetall::<(), _>(NOBODYS).await?;
    pipeline.hkeys::<(), _>(NOBODYS).await?;
    pipeline.hlen::<(), _>(NOBODYS).await?;
    pipeline.hmget::<(), _, _>(NOBODYS, "tried").await?;
    pipeline.rename::<(), _, _>(NOBODYS, NOBODYS).await?;
    pipeline.hdel::<(), _, _>(NOBODYS, "tried").await?;
    let ttl = Some(Expiration::EX(TRIED_TTL_SECONDS));
    pipeline
        .set::<(), _, _>(NOBODYS, "", ttl, None, false)
        .await?;
    pipeline.get::<(), _>(NOBODYS).await?;
    pipeline.del::<(), _>(NOBODYS).await?;
    let answers = pipeline.try_all::<Value>().await;
    let denied = answers.into_iter().filter_map(Result::err).find(is_denied);
    denied.map_or(Ok(()), Err)
}

/// Replaces a client's connection that does not say itself that it is dead. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Renewal {
    client: Client,
    under_way: Arc<AtomicBool>,
}

impl Renewal {
    pub(crate) fn of(client: &Client) -> Self {
        Self {
            client: client.clone(),
            under_way: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Makes a new connection, unless fred is about to anyway. Does not wait: it may take as long
    /// as Redis is away.
    pub(crate) fn begin(&self, tasks: &Tasks) {
        if !self.client.is_connected() || self.under_way.swap(true, Ordering::SeqCst) {
            return;
        }
        let client = self.client.clone();
        let under_way = Arc::clone(&self.under_way);
        let stopping = tasks.stopping().clone();
        tasks.spawn("redis-renewal", async move {
            tokio::select! {
                renewed = client.force_reconnection() => {
                    if let Err(error) = renewed {
                        tracing::debug!(error = unquoted(error.details()), "a connection could not be replaced");
                    }
                }
                () = stopping.cancelled() => {}
            }
            under_way.store(false, Ordering::SeqCst);
        });
    }
}

impl Follower for Renewal {
    fn server(&self) -> Option<(String, u16)> {
        if !self.client.is_connected() {
            return None;
        }
        let server = self.client.active_connections().into_iter().next()?;
        Some((server.host.to_string(), server.port))
    }

    fn move_on(&self, tasks: &Tasks) {
        self.begin(tasks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_know_how_to_log_in_is_not_quoted() {
        let said =
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `me`, `pw`, ";
        let error = Error::new(ErrorKind::Unknown, said);
        let no = NoEntry::from(error);
        assert_eq!(no.why, "ERR unknown command `HELLO`");
        assert!(!no.passes, "it will not learn");
        let loading = Error::new(ErrorKind::Unknown, "LOADING Redis is loading");
        assert!(NoEntry::from(loading).passes);
    }
}
