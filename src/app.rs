//! The composition root: builds every stage of a node from the configuration, starts it, and takes
//! it down again in order. Nothing else knows how the stages are put together.

mod address;
mod banner;
mod fullness;
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
use crate::auth::{Auth, AuthOptions};
use crate::bus::{Bus, MemoryBus, Neighbours, RedisBus, RedisOptions, Subscriptions};
use crate::chat::accounts::Accounts;
use crate::chat::conversations::Conversations;
use crate::chat::fanout::Fanout;
use crate::chat::messages::Messages;
use crate::chat::receipts::Receipts;
use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::{BaseLoader, Delivery, DeliveryParts, Epoch, Outset};
use crate::exit::{Exit, Failure};
use crate::gateway::{self, Admission, AdmissionOptions, Gateway, GatewayOptions, GatewayParts};
use crate::gateway::{Listener, Places, Registry, Surplus};
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
/// How long a starting node waits to hear where the journal is.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the tasks of a node that has yet to serve anybody may take to end.
const START_STOP: Duration = Duration::from_secs(1);
/// Connections to the operations port: a few who scrape and probe.
const OPS_CONNECTIONS: usize = 64;
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
            Listener::new(ops_port.listen()?, ops_router, Places::new(OPS_CONNECTIONS));
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

/// The stages of the message path, started and joined.
struct MessagePath {
    gateway: Gateway,
    bus: Arc<dyn Bus>,
    presence: Arc<dyn Presence>,
    fanout: Arc<Fanout>,
}

impl MessagePath {
    async fn start(
        config: &Config,
        store: &Arc<dyn Store>,
        auth: &Arc<Auth>,
        clock: &Clock,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let (node_id, registry) = (config.node.id.clone(), Arc::new(Registry::default()));
        let neighbours = Arc::new(Neighbours::default());
        let presence = presence::start(config, store, &neighbours, clock, tasks)?;
        let (surplus, surplus_queue) = Surplus::queue();
        let delivery_parts = DeliveryParts {
            node_id: node_id.clone(),
            store: Arc::clone(store),
            registry: Arc::clone(&registry),
            auth: Arc::clone(auth),
            roster: Arc::clone(&presence.roster),
            watchers: presence.watchers.clone(),
            surplus: surplus.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
        };
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let (delivery, seating) = Delivery::start(&delivery_parts, workers);
        let bus = bus(config, &delivery, neighbours, clock, tasks)?;
        // Before the first socket: what is committed from here on is in the looks to come.
        let position = store.journal(None, JOURNAL_PATIENCE).await?.next;
        let epoch = Arc::new(Epoch::new(store.epoch().await?));

        let subscriptions = Subscriptions::start(Arc::clone(&bus), tasks);
        tasks.spawn_vital("seating", seating.run(subscriptions.clone()));
        let fanout = Fanout::new(&node_id, Arc::clone(store), Arc::clone(&bus), clock.clone());
        let fanout = Arc::new(fanout);
        let messages =
            Messages::start(Arc::clone(store), Arc::clone(&fanout), clock.clone(), tasks);
        let messages = Arc::new(messages);
        let (heard, knowing) = (Arc::clone(&bus), Arc::clone(&messages));
        let outset = Outset {
            position,
            epoch: Arc::clone(&epoch),
            bus_is_up: move || heard.is_up(),
            set_back: move || knowing.forget(),
        };
        delivery.start_reconciler(&delivery_parts, outset);
        let appearances = Arc::new(presence.announce(config, &registry, &fanout, surplus));
        let parts = GatewayParts {
            node_id,
            epoch,
            store: Arc::clone(store),
            auth: Arc::clone(auth),
            messages,
            fanout: Arc::clone(&fanout),
            appearances,
            roster: presence.roster,
            watchers: presence.watchers,
            receipts: Arc::new(receipts(config, store, &fanout, clock, tasks)),
            registry,
            subscriptions,
            bases: BaseLoader::start(Arc::clone(store), tasks),
            delivery,
            admission: Admission::new(admission_options(config)),
            options: gateway_options(config),
            clock: clock.clone(),
            tasks: tasks.clone(),
        };
        let gateway = Gateway::start(parts, surplus_queue);
        Ok(Self {
            gateway,
            bus,
            presence: presence.presence,
            fanout,
        })
    }
}

fn receipts(
    config: &Config,
    store: &Arc<dyn Store>,
    fanout: &Arc<Fanout>,
    clock: &Clock,
    tasks: &Tasks,
) -> Receipts {
    let (store, fanout) = (Arc::clone(store), Arc::clone(fanout));
    let receipts_max = config.fanout.receipts_max;
    Receipts::start(store, fanout, clock.clone(), receipts_max, tasks)
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

fn bus(
    config: &Config,
    delivery: &Delivery,
    neighbours: Arc<Neighbours>,
    clock: &Clock,
    tasks: &Tasks,
) -> anyhow::Result<Arc<dyn Bus>> {
    let Some(url) = &config.redis.url else {
        return Ok(Arc::new(MemoryBus::new(delivery.sink())));
    };
    let url = url.expose().to_owned();
    let options = RedisOptions {
        url,
        node_id: config.node.id.clone(),
        neighbours,
    };
    let bus = RedisBus::start(&options, delivery.sink(), clock.clone(), tasks);
    // fred's text may quote the URL, and with it the password.
    Ok(Arc::new(bus.map_err(|_| {
        anyhow::anyhow!("REDIS_URL cannot be used")
    })?))
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

fn admission_options(config: &Config) -> AdmissionOptions {
    AdmissionOptions {
        sockets: config.limits.sockets,
        sockets_per_ip: config.limits.sockets_per_ip,
        upgrades_per_second: config.limits.upgrades_per_second,
        rates_enabled: config.rates.enabled,
    }
}

fn gateway_options(config: &Config) -> GatewayOptions {
    GatewayOptions {
        sockets_per_user: config.limits.sockets_per_user,
        rates_enabled: config.rates.enabled,
        messages_per_second: config.rates.messages_per_second,
        messages_burst: config.rates.messages_burst,
        receipts_max: config.fanout.receipts_max,
        allowed_origins: config.http.allowed_origins.clone(),
        trusted_proxies: config.http.trusted_proxies.clone(),
    }
}
