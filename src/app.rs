//! The composition root: builds every stage of a node from the configuration, starts it, and takes
//! it down again in order. Nothing else knows how the stages are put together.

mod address;
mod banner;
mod fullness;
mod path;
mod presence;
mod servers;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::routing::get;

use self::address::Address;
use self::path::MessagePath;
use crate::auth::{Auth, AuthOptions};
use crate::bus::Bus;
use crate::chat::accounts::Accounts;
use crate::chat::conversations::Conversations;
use crate::clock::Clock;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::gateway::{self, Gateway, GatewayParts, Listener, Places};
use crate::lifecycle::{Signals, Tasks, hangups, signals};
use crate::ops::NodeStatus;
use crate::presence::Presence;
use crate::reload::{self, Settings};
use crate::rest::RestState;
use crate::store::{self, BackupError, SingleNode, Store, StoreError, StoreOptions};
use crate::{descriptors, metrics, ops, rest, web};

/// How the command line wants a node to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bring the schema up to date before serving.
    pub migrate: bool,
}

/// How long a starting node waits for the bus before it serves without it.
const BUS_PATIENCE: Duration = Duration::from_secs(5);
/// How long the tasks of a node that has yet to serve anybody may take to end.
const START_STOP: Duration = Duration::from_secs(1);
/// Connections to the operations port: a few who scrape and probe.
const OPS_CONNECTIONS: usize = 64;
/// Who does not read an answer there for so long holds no place any more.
const OPS_UNREAD: Duration = Duration::from_secs(10);
/// A node without a load balancer has nobody to wait for when it stops.
const ALONE_DRAIN_WINDOW: Duration = Duration::from_millis(200);

/// Runs a node until a signal stops it.
///
/// # Errors
/// The node cannot start: the database, an address, the schema.
pub async fn run(config: Config, options: Options, settings: Settings) -> anyhow::Result<ExitCode> {
    let mut signals = signals().context("cannot take over signals")?;
    let hangups = hangups().context("cannot take over signals")?;
    let tasks = Tasks::new();
    let started = tokio::select! {
        started = Node::start(&config, options, tasks.clone()) => Some(started),
        _ = signals.next() => None,
    };
    let node = match started {
        Some(Ok(node)) => node,
        // Nobody was served yet. What was begun at the database is rolled back.
        Some(Err(error)) => {
            tasks.stop(START_STOP).await;
            return Err(error);
        }
        None => {
            tracing::info!("stopped while starting");
            tasks.stop(START_STOP).await;
            return Ok(Exit::Done.into());
        }
    };
    let reload = reload::run(settings, Arc::clone(&node.auth), hangups, tasks.clone());
    tasks.spawn_vital("reload", reload);
    banner::show(&config);
    tokio::select! {
        _ = signals.next() => {}
        () = tasks.stopping().cancelled() => {}
    }
    Ok(node.stop(&config, &mut signals).await)
}

/// Brings the schema up to date.
///
/// # Errors
/// The database does not answer, or its schema is of another release.
pub async fn migrate(config: Config) -> anyhow::Result<()> {
    servers::wait_for_postgres(&config).await?;
    let migrated = store::migrate(&store_options(&config)).await;
    migrated.map_err(Failure::from)?;
    tracing::info!("the schema is up to date");
    Ok(())
}

/// Copies the database of a single node to a new file, whether or not the node runs; returns its
/// size.
///
/// # Errors
/// See [`BackupError`].
pub async fn back_up(config: &Config, to: &Path) -> Result<u64, BackupError> {
    store::back_up(&store_options(config), to).await
}

/// A running node.
struct Node {
    auth: Arc<Auth>,
    gateway: Gateway,
    status: Arc<NodeStatus>,
    tasks: Tasks,
    /// Held while the node is the only one that may use its database.
    _alone: Option<SingleNode>,
}

impl Node {
    async fn start(config: &Config, options: Options, tasks: Tasks) -> anyhow::Result<Self> {
        // Addresses first: whoever cannot have them has changed nothing yet.
        let public = Address::reserve(config.http.listen_addr, "LISTEN_ADDR")?;
        let ops_port = Address::reserve(config.http.ops_addr, "OPS_ADDR")?;
        let handle = metrics::install();
        metrics::spawn_upkeep(&tasks, handle.clone());
        // Probes are answered while servers are waited for, and while the schema is migrated.
        let status = Arc::new(NodeStatus::new(&config.node.id, config.redis.url.is_some()));
        let ops_router = ops::router(Arc::clone(&status), handle);
        let ops_listener =
            Listener::new(ops_port.listen()?, ops_router, Places::new(OPS_CONNECTIONS))
                .unread_at_most(OPS_UNREAD)?;
        tasks.spawn_vital("ops-port", ops_listener.run(tasks.clone()));
        servers::wait_for_all(config).await?;
        let (store, alone) = open_store(config, options).await?;
        let clock = Clock::system();
        let auth = auth(config, &store, &clock, &tasks)?;
        let path = MessagePath::start(config, &store, &auth, &clock, &tasks).await?;
        // After the journal's position was taken: an end that falls between is in either.
        auth.load_revocations().await?;
        let rest = rest_state(config, &path);

        let pool_max = config.database.pool_max as usize;
        let places = descriptors::connections(config.limits.sockets, pool_max);
        let places = Places::new(places);
        let watch = watch::run(
            path.gateway.clone(),
            Arc::clone(&path.bus),
            places.clone(),
            Arc::clone(&status),
        );
        tasks.spawn_vital("watch", watch);
        wait_for(path.bus.as_ref(), path.presence.as_ref()).await;
        let router = public_router(path.gateway.clone(), rest, Arc::clone(&status));
        let listener = Listener::new(public.listen()?, router, places);
        tasks.spawn_vital("public-port", listener.run(tasks.clone()));
        status.started.set(true);
        Ok(Self {
            auth,
            gateway: path.gateway,
            status,
            tasks,
            _alone: alone,
        })
    }

    /// Sends the sockets away, finishes what was begun, and says how that went.
    async fn stop(self, config: &Config, signals: &mut Signals) -> ExitCode {
        let deadline = Instant::now() + config.drain.timeout;
        self.status.draining.set(true);
        let in_order = async {
            if self.tasks.crashed() {
                // Half a node is worse than none: whoever is here is better off elsewhere, at once.
                gateway::drain(&self.gateway, Duration::ZERO).await;
            } else {
                self.drain(config).await;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.tasks.stop(left).await
        };
        // The drain keeps to its own times; should it not, nothing holds the process up for ever.
        let in_order = tokio::time::timeout(config.drain.timeout + START_STOP, in_order);
        let finished = tokio::select! {
            finished = in_order => finished.unwrap_or(false),
            () = signals.hard() => false,
        };
        if !finished {
            tracing::warn!("stopped before everything was finished");
            self.tasks.stop(Duration::ZERO).await;
        }
        match (self.tasks.crashed(), finished) {
            (true, _) => Exit::Failed.into(),
            (false, true) => Exit::Done.into(),
            (false, false) => Exit::Unfinished.into(),
        }
    }

    async fn drain(&self, config: &Config) {
        let mut window = config.drain.window;
        if config.redis.url.is_some() {
            // Load balancers need a moment to see that this node is not ready any more.
            tokio::time::sleep(config.drain.delay).await;
        } else {
            window = window.min(ALONE_DRAIN_WINDOW);
        }
        gateway::drain(&self.gateway, window).await;
    }
}

async fn open_store(
    config: &Config,
    options: Options,
) -> Result<(Arc<dyn Store>, Option<SingleNode>), Failure> {
    let store_options = store_options(config);
    let failed = |error: StoreError| Failure::from(error);
    let alone = if config.redis.url.is_some() {
        None
    } else {
        Some(SingleNode::claim(&store_options).await.map_err(failed)?)
    };
    if options.migrate {
        store::migrate(&store_options).await.map_err(failed)?;
    } else {
        let pending = store::pending(&store_options).await.map_err(failed)?;
        if !pending.is_empty() {
            let pending = pending.join(", ");
            let why = format!(
                "the schema lacks {pending}: run `rookery migrate`, or start without --no-migrate"
            );
            return Err(Failure::new(Exit::Schema, why));
        }
    }
    let store = store::connect(&store_options).await.map_err(failed)?;
    Ok((store, alone))
}

fn store_options(config: &Config) -> StoreOptions {
    let database = &config.database;
    StoreOptions {
        url: database.url.expose().to_owned(),
        replica_url: database
            .replica_url
            .as_ref()
            .map(|url| url.expose().to_owned()),
        pool_max: database.pool_max,
        statement_cache: database.statement_cache,
        application_name: format!("rookery/{}", config.node.id),
    }
}

fn auth(
    config: &Config,
    store: &Arc<dyn Store>,
    clock: &Clock,
    tasks: &Tasks,
) -> anyhow::Result<Arc<Auth>> {
    let mut options = AuthOptions::new(config.auth.signing_keys());
    options.rates.enabled = config.rates.enabled;
    Ok(Arc::new(Auth::new(
        options,
        Arc::clone(store),
        clock.clone(),
        tasks,
    )?))
}

/// Gives the bus and presence a moment, so that the first sockets find it up.
async fn wait_for(bus: &dyn Bus, presence: &dyn Presence) {
    let patience = Instant::now() + BUS_PATIENCE;
    while !(bus.is_up() && presence.is_reachable()) && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if !bus.is_up() {
        tracing::warn!("Redis does not answer; messages travel through the database until it does");
    }
}

fn rest_state(config: &Config, path: &MessagePath) -> RestState {
    let GatewayParts {
        store,
        auth,
        messages,
        appearances,
        receipts,
        clock,
        ..
    } = &*path.gateway;
    let fanout = &path.fanout;
    let accounts = Accounts::new(
        Arc::clone(store),
        Arc::clone(auth),
        Arc::clone(fanout),
        clock.clone(),
    );
    let conversations = Conversations::new(
        Arc::clone(store),
        Arc::clone(fanout),
        clock.clone(),
        config.fanout.direct_max,
    );
    RestState {
        accounts: Arc::new(accounts),
        conversations: Arc::new(conversations),
        messages: Arc::clone(messages),
        appearances: Arc::clone(appearances),
        receipts: Arc::clone(receipts),
        auth: Arc::clone(auth),
        clock: clock.clone(),
        trusted_proxies: config.http.trusted_proxies.clone().into(),
        allowed_origins: config.http.allowed_origins.clone().into(),
    }
}

fn public_router(gateway: Gateway, state: RestState, status: Arc<NodeStatus>) -> Router {
    let sockets = Router::new()
        .route("/ws", get(gateway::upgrade))
        .with_state(gateway);
    let rest = rest::router(state).layer(axum::middleware::from_fn(metrics::track_http));
    rest.merge(sockets)
        .merge(web::router())
        .merge(ops::public_health_router(status))
        .layer(axum::middleware::from_fn(rest::request_id::name))
}
