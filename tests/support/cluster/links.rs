//! The ways to and from one node that break on command.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::proxy::{Names, PostgresProxy, Proxy, RedisProxy, SentinelProxy};
use crate::servers::sentinel::{self, Places};
use crate::servers::{Postgres, Redis};

/// What the nodes of a cluster depend on.
pub(super) struct Servers<'a> {
    /// None of its own, if sentinels name it.
    pub(super) redis: Option<&'a Redis>,
    pub(super) sentinels: Option<&'a Places>,
    pub(super) postgres: &'a Postgres,
}

/// The ways to and from one node that break on command.
#[derive(Default)]
pub struct NodeLinks {
    inbound: Option<Proxy>,
    redis: Vec<RedisProxy>,
    sentinels: Vec<SentinelProxy>,
    postgres: Option<PostgresProxy>,
}

impl NodeLinks {
    /// From nginx to the node.
    ///
    /// # Panics
    /// The cluster was not built [`proxied`](crate::Builder::proxied).
    #[must_use]
    pub fn inbound(&self) -> &Proxy {
        self.inbound.as_ref().expect("the cluster is not proxied")
    }

    /// From the node to Redis; with sentinels, to the first of their servers.
    ///
    /// # Panics
    /// The cluster was not built [`proxied`](crate::Builder::proxied), nor the node
    /// [`lossy`](crate::Builder::lossy).
    #[must_use]
    pub fn redis(&self) -> &RedisProxy {
        self.redis.first().expect("the node is not lossy")
    }

    /// From the node to each Redis that may be the master, in the order of the sentinels' members.
    #[must_use]
    pub fn all_redis(&self) -> &[RedisProxy] {
        &self.redis
    }

    /// From the node to each sentinel.
    #[must_use]
    pub fn sentinels(&self) -> &[SentinelProxy] {
        &self.sentinels
    }

    /// From the node to PostgreSQL.
    ///
    /// # Panics
    /// The cluster was not built [`proxied`](crate::Builder::proxied).
    #[must_use]
    pub fn postgres(&self) -> &PostgresProxy {
        self.postgres.as_ref().expect("the cluster is not proxied")
    }

    /// The links on which a node goes out: all of them, or to Redis only if that link is lossy.
    pub(super) async fn outbound(all: bool, lossy: bool, servers: &Servers<'_>) -> Result<Self> {
        let mut links = Self::default();
        if let (Some(redis), true) = (servers.redis, all || lossy) {
            links.redis.push(RedisProxy::start(redis.address()).await?);
        }
        if let (Some(places), true) = (servers.sentinels, all) {
            links.add_sentinels(places).await?;
        }
        if all {
            let postgres = SocketAddr::from((Ipv4Addr::LOCALHOST, servers.postgres.port()));
            links.postgres = Some(PostgresProxy::start(postgres).await?);
        }
        Ok(links)
    }

    async fn add_sentinels(&mut self, places: &Places) -> Result<()> {
        let (names, mut own) = (Names::default(), Vec::new());
        for (known, address) in &places.members {
            let way = RedisProxy::start(*address).await?;
            own.push((*known, way.address().port()));
            self.redis.push(way);
        }
        for address in &places.watchers {
            let way = SentinelProxy::start(*address, &names).await?;
            own.push((address.port(), way.address().port()));
            self.sentinels.push(way);
        }
        names.tell(own);
        Ok(())
    }

    /// Puts a link before the node, and says where it is.
    pub(super) async fn add_inbound(&mut self, node: SocketAddr) -> Result<SocketAddr> {
        let inbound = self.inbound.insert(Proxy::start(node).await?);
        Ok(inbound.address())
    }

    /// For the node's environment.
    pub(super) fn redis_url(&self, servers: &Servers<'_>) -> String {
        if let Some(places) = servers.sentinels {
            let own = self.sentinels.iter().map(|way| way.address());
            return match own.collect::<Vec<_>>() {
                own if own.is_empty() => sentinel::url_of(&places.watchers),
                own => sentinel::url_of(&own),
            };
        }
        match (self.redis.first(), servers.redis) {
            (Some(way), _) => way.url(),
            (None, Some(redis)) => redis.url(),
            (None, None) => String::new(),
        }
    }

    /// For the node's environment.
    pub(super) fn database_url(&self, database: &str) -> String {
        let way = self.postgres.as_ref();
        way.map_or_else(|| database.to_owned(), |way| way.url(database))
    }
}
