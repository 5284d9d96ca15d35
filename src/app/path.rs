//! The message path: its stages, built from the configuration and joined.

use std::sync::Arc;
use std::time::Duration;

use super::presence;
use crate::auth::Auth;
use crate::bus::{Bus, MemoryBus, Neighbours, RedisBus, RedisOptions, Subscriptions};
use crate::chat::fanout::Fanout;
use crate::chat::messages::Messages;
use crate::chat::receipts::Receipts;
use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::{BaseLoader, Delivery, DeliveryParts, Epoch, Outset};
use crate::gateway::{Admission, AdmissionOptions, Gateway, GatewayOptions, GatewayParts};
use crate::gateway::{Registry, Surplus};
use crate::lifecycle::Tasks;
use crate::presence::Presence;
use crate::store::Store;

/// How long a starting node waits to hear where the journal is.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);

/// The stages of the message path, started and joined.
pub(super) struct MessagePath {
    pub(super) gateway: Gateway,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) fanout: Arc<Fanout>,
}

impl MessagePath {
    pub(super) async fn start(
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
