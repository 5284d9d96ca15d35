//! Follows the master that the sentinels name (`redis-sentinel://`).
//!
//! Whoever connects asks them. What nobody sees by that is that the master it is connected
//! to is one no longer: an old master that was cut off from the others goes on answering, and its
//! clients are on an island without an error. So the sentinels are asked every second, and when
//! most of them name another server, connections are made anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use fred::types::config::{Server, ServerConfig};
use fred::types::{CustomCommand, RespVersion};
use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;

use super::connection;
use crate::lifecycle::Tasks;

const INTERVAL: Duration = Duration::from_secs(1);
/// A sentinel that takes longer has no vote in this look.
const PATIENCE: Duration = Duration::from_millis(500);

/// A connection that has to be where the master is.
pub(crate) trait Follower: Send + Sync {
    /// Where it is, if anywhere; with sentinels, where they said that the master is.
    fn server(&self) -> Option<(String, u16)>;

    /// Connects anew, to the master there is. Does not wait.
    fn move_on(&self, tasks: &Tasks);
}

/// The sentinels that the URL names.
pub(crate) struct Sentinels {
    clients: Vec<Client>,
    /// What they call the master.
    service: String,
}

impl Sentinels {
    /// Starts connecting to them; `None` if the URL names the server itself.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub(crate) fn of(url: &str, tasks: &Tasks) -> Result<Option<Self>, Error> {
        let config = Config::from_url(url)?;
        let ServerConfig::Sentinel {
            hosts,
            service_name,
            username,
            password,
        } = config.server
        else {
            return Ok(None);
        };
        let client = |server: Server| {
            let own = Config {
                server: ServerConfig::Centralized { server },
                username: username.clone(),
                password: password.clone(),
                tls: config.tls.clone(),
                // Not every sentinel speaks the newer one.
                version: RespVersion::RESP2,
                ..Config::default()
            };
            connection::client_of(own)
        };
        let clients = hosts
            .into_iter()
            .map(client)
            .collect::<Result<Vec<_>, _>>()?;
        for client in &clients {
            let kept = connection::keep(client.clone(), tasks.clone());
            tasks.spawn_vital("sentinel-link", kept);
        }
        Ok(Some(Self {
            clients,
            service: service_name,
        }))
    }

    /// Has each of these be connected to the master, until the node stops.
    pub(crate) async fn follow(self: Arc<Self>, followers: Vec<Box<dyn Follower>>, tasks: Tasks) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = tasks.stopping().cancelled() => return,
                _ = ticks.tick() => {}
            }
            let Some(master) = self.master().await else {
                continue;
            };
            for follower in &followers {
                if follower.server().is_some_and(|server| server != master) {
                    tracing::warn!(?master, "the sentinels name another master; moving there");
                    follower.move_on(&tasks);
                }
            }
        }
    }

    /// Where most of them say that the master is.
    async fn master(&self) -> Option<(String, u16)> {
        let (master, votes) = self.vote().await?;
        (votes > self.clients.len() / 2).then_some(master)
    }

    /// Where those that answer say that the master is: to begin with, one will do.
    pub(super) async fn named(&self) -> Option<(String, u16)> {
        self.vote().await.map(|(master, _)| master)
    }

    /// What is named most often, and how often.
    async fn vote(&self) -> Option<((String, u16), usize)> {
        let asked = self.clients.iter().map(|client| self.ask(client));
        let mut votes: HashMap<(String, u16), usize> = HashMap::new();
        for answer in join_all(asked).await.into_iter().flatten() {
            *votes.entry(answer).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, count)| *count)
    }

    async fn ask(&self, client: &Client) -> Option<(String, u16)> {
        if !client.is_connected() {
            return None;
        }
        let command = CustomCommand::new_static("SENTINEL", None, false);
        let arguments = vec!["GET-MASTER-ADDR-BY-NAME", self.service.as_str()];
        let answer = client.custom::<Option<(String, u16)>, _>(command, arguments);
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(master)) => master,
            Ok(Err(error)) => {
                tracing::debug!(
                    error = connection::unquoted(error.details()),
                    "a sentinel does not name the master"
                );
                None
            }
            Err(_) => None,
        }
    }
}
