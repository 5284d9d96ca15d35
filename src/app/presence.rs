//! How presence is put together: who is here, who is elsewhere, who watches, and who tells.

use std::sync::Arc;

use crate::bus::Neighbours;
use crate::chat::fanout::Fanout;
use crate::chat::presence::{Announcer, AnnouncerParts, Appearances};
use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::Watchers;
use crate::gateway::{Registry, Surplus};
use crate::lifecycle::Tasks;
use crate::presence::{
    Directory, MemoryPresence, Presence, RedisPresence, RedisPresenceOptions, Roster,
};
use crate::store::Store;

/// What other stages are given, and what [`Parts::announce`] needs.
pub(super) struct Parts {
    pub(super) roster: Arc<Roster>,
    pub(super) watchers: Watchers,
    pub(super) presence: Arc<dyn Presence>,
    directory: Arc<Directory>,
    store: Arc<dyn Store>,
    clock: Clock,
    tasks: Tasks,
}

/// Starts everything but the telling, which needs the bus.
pub(super) fn start(
    config: &Config,
    store: &Arc<dyn Store>,
    neighbours: &Arc<Neighbours>,
    clock: &Clock,
    tasks: &Tasks,
) -> anyhow::Result<Parts> {
    let roster = Arc::new(Roster::default());
    let presence = port(config, &roster, neighbours, clock, tasks)?;
    let directory = Directory::new(Arc::clone(&roster), Arc::clone(&presence));
    let directory = Arc::new(directory);
    Ok(Parts {
        roster,
        watchers: Watchers::start(Arc::clone(&directory), Arc::clone(store), tasks),
        presence,
        directory,
        store: Arc::clone(store),
        clock: clock.clone(),
        tasks: tasks.clone(),
    })
}

impl Parts {
    /// Starts telling who comes and goes; returns the rules of who may see it.
    pub(super) fn announce(
        &self,
        config: &Config,
        registry: &Arc<Registry>,
        fanout: &Arc<Fanout>,
        surplus: Surplus,
    ) -> Appearances {
        let watchers = self.watchers.clone();
        Announcer::start(AnnouncerParts {
            store: Arc::clone(&self.store),
            fanout: Arc::clone(fanout),
            roster: Arc::clone(&self.roster),
            presence: Arc::clone(&self.presence),
            registry: Arc::clone(registry),
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
            surplus,
            sockets_per_user: config.limits.sockets_per_user,
            look_again: Box::new(move || watchers.look_again()),
        });
        Appearances::new(
            Arc::clone(&self.store),
            Arc::clone(&self.directory),
            Arc::clone(&self.roster),
            Arc::clone(fanout),
            self.clock.clone(),
        )
    }
}

fn port(
    config: &Config,
    roster: &Arc<Roster>,
    neighbours: &Arc<Neighbours>,
    clock: &Clock,
    tasks: &Tasks,
) -> anyhow::Result<Arc<dyn Presence>> {
    let Some(url) = &config.redis.url else {
        return Ok(Arc::new(MemoryPresence));
    };
    let options = RedisPresenceOptions {
        url: url.expose().to_owned(),
        node_id: config.node.id.clone(),
        neighbours: Arc::clone(neighbours),
    };
    let presence = RedisPresence::start(&options, Arc::clone(roster), clock.clone(), tasks);
    // fred's text may quote the URL, and with it the password.
    Ok(Arc::new(presence.map_err(|_| {
        anyhow::anyhow!("REDIS_URL cannot be used")
    })?))
}
