//! The store in PostgreSQL: any number of nodes on one primary; replicas serve history.

mod blocks;
mod conversations;
mod groups;
mod journal;
mod knock;
mod messages;
mod presence;
mod primary;
mod reach;
mod receipts;
mod sessions;
mod turns;
mod users;

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;

use rookery_protocol::ConversationId;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor};
use uuid::Uuid;

pub(super) use self::knock::{address, knock};
use self::primary::{Primary, Tx};
use self::reach::Reach;
use self::turns::Turns;
use super::{Result, StoreOptions};
use crate::metrics;

/// How long a caller waits for a connection before it hears that the database is overloaded. Over a
/// slow way making a new one takes five round trips.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(4);
/// How long a transaction may take in which a lock may have to be waited for, which the server ends
/// after 8 s.
const TRANSACTION_WITHIN: Duration = Duration::from_secs(10);
/// A replica that is slow to answer is passed over: the primary has the same rows.
const ACQUIRE_REPLICA_WITHIN: Duration = Duration::from_millis(500);
/// A connection idle for longer, or since before another one broke, is asked whether it lives before
/// it is used; one in steady use is not, since asking costs a round trip.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// How long it may take to say so.
const PING_WITHIN: Duration = Duration::from_secs(1);
/// Every connection's settings. The time-outs are the last net under a transaction whose client
/// has died; where the server can, it looks every second whether a client that waits is still there: on some
/// systems, and before version 14, setting that is an error, which nobody needs to hear of.
/// Every statement here looks rows up by key, and its plan is made once a connection,
/// often while the tables are small: it must still be the right one when they are large. So only
/// plans that look up by key are considered, and none depends on the values. JIT would compile
/// these statements for longer than they run.
const SETTINGS: &str = "set statement_timeout = '15s'; \
    set lock_timeout = '8s'; \
    set idle_in_transaction_session_timeout = '10s'; \
    set plan_cache_mode = force_generic_plan; \
    set enable_seqscan = off; \
    set enable_hashjoin = off; \
    set enable_mergejoin = off; \
    set max_parallel_workers_per_gather = 0; \
    set jit = off; \
    do $$ begin perform set_config('client_connection_check_interval', '1s', false); \
    exception when others then null; end $$";

/// Cloning shares the pools.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    primary: Primary,
    replica: Option<PgPool>,
    replica_fallbacks: Arc<AtomicU64>,
    repeats: Arc<messages::Repeats>,
    turns: Turns,
}

impl PostgresStore {
    /// Connects to the primary. A replica is connected to when it is first asked, so that a node
    /// starts without it.
    ///
    /// # Errors
    /// The URL cannot be read, or the primary does not answer.
    pub async fn connect(options: &StoreOptions) -> Result<Self> {
        let connect = connect_options(options, &options.url)?;
        let reach = Reach::start(connect.clone());
        let pool = pool(options, ACQUIRE_WITHIN, Arc::downgrade(&reach));
        let pool = pool.connect_with(connect).await?;
        reach.ask_idle_ones_of(pool.clone());
        let primary = Primary::new(pool, reach);
        let replica = match &options.replica_url {
            None => None,
            Some(url) => {
                let pool = self::pool(options, ACQUIRE_REPLICA_WITHIN, Weak::new());
                Some(pool.connect_lazy_with(connect_options(options, url)?))
            }
        };
        Ok(Self {
            primary,
            replica,
            replica_fallbacks: Arc::default(),
            repeats: Arc::default(),
            turns: Turns::default(),
        })
    }

    /// For everything that is decided upon.
    fn reader(&self) -> &Primary {
        &self.primary
    }

    fn writer(&self) -> &Primary {
        &self.primary
    }

    /// Only within [`super::sql::detached`].
    async fn begin(&self) -> Result<Tx> {
        self.primary.begin().await
    }

    /// As [`Self::begin`], of a transaction that takes the lock of this conversation's head.
    async fn begin_on(&self, id: ConversationId) -> Result<Tx> {
        let turn = self.turns.take(id).await;
        Ok(self.primary.begin().await?.holding(turn))
    }

    /// How often a connection broke.
    fn troubles(&self) -> u64 {
        self.primary.reach.troubles()
    }

    fn count_replica_fallback(&self) {
        self.replica_fallbacks.fetch_add(1, Ordering::Relaxed);
        metrics::store_replica_fallbacks_total().increment(1);
    }
}

fn pool(
    options: &StoreOptions,
    acquire_within: Duration,
    // Weak, since it has the pool in turn; empty for a replica.
    reach: Weak<Reach>,
) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(options.pool_max)
        .acquire_timeout(acquire_within)
        .test_before_acquire(false)
        .before_acquire(move |connection, seen| {
            let reach = reach.upgrade();
            let untroubled_for = reach.as_ref().map_or(Duration::MAX, |r| r.untroubled_for());
            let is_trusted = seen.idle_for < TRUSTED_IDLE.min(untroubled_for);
            Box::pin(async move {
                if is_trusted {
                    return Ok(true);
                }
                let answer = timeout(PING_WITHIN, connection.ping()).await;
                let lives = matches!(answer, Ok(Ok(())));
                if let (false, Some(reach)) = (lives, reach) {
                    reach.trouble();
                }
                Ok(lives)
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move { connection.execute(SETTINGS).await.map(drop) })
        })
}

fn connect_options(options: &StoreOptions, url: &str) -> Result<PgConnectOptions> {
    Ok(parsed(url)?
        .application_name(&options.application_name)
        .statement_cache_capacity(options.statement_cache))
}

/// What a URL says. The driver leaves an IPv6 address in its brackets, with which no system finds it.
pub(super) fn parsed(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)?;
    let bare = options.get_host().strip_prefix('[');
    let bare = bare.and_then(|host| host.strip_suffix(']'));
    let bare = bare.map(str::to_owned);
    Ok(match bare {
        Some(host) => options.host(&host),
        None => options,
    })
}

// dialect: a list is an array.
fn numbers(numbers: &[i64]) -> Vec<i64> {
    numbers.to_vec()
}

fn texts(texts: &[String]) -> Vec<String> {
    texts.to_vec()
}

fn list<'a>(ids: impl Iterator<Item = &'a Uuid>) -> Vec<Uuid> {
    ids.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_found_without_its_brackets() {
        for (url, host) in [
            ("postgres://rookery@[::1]:5433/chat", "::1"),
            ("postgres://rookery@db/chat", "db"),
        ] {
            assert_eq!(parsed(url).unwrap().get_host(), host);
        }
    }
}
