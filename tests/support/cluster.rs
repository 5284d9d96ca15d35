//! A whole cluster for one test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use rookery_client::Api;
use rookery_protocol::UserId;
use rookery_protocol::rest::Register;

use crate::metrics::Metrics;
use crate::node::Node;
use crate::people::{PASSWORD, Person, patiently};
use crate::proxy::{Proxy, RedisProxy};
use crate::servers::sentinel::{Places, Sentinels};
use crate::servers::{Nginx, Postgres, Redis, clock_off_by};
use links::Servers;

mod links;

pub use links::NodeLinks;

/// What every node of a test runs with, unless the test says otherwise.
const SETTINGS: &[(&str, &str)] = &[
    ("JWT_SECRET", "only for tests: thirty-two bytes or more"),
    // Tests send faster than people, and many people of a test share an address.
    ("ROOKERY_RATES_ENABLED", "false"),
    // The tests' PostgreSQL is shared by all clusters that run at a time.
    ("DATABASE_POOL_MAX", "6"),
    // No load balancer has to notice anything.
    ("ROOKERY_DRAIN_DELAY_SECONDS", "0"),
    ("ROOKERY_DRAIN_WINDOW_SECONDS", "1"),
    // Not each message: of thousands nobody would see anything else.
    ("RUST_LOG", "info,rookery=debug,rookery::message=info"),
];

/// Nodes that belong together, with everything they need. Ends with its test.
pub struct TestCluster {
    // Dropped in this order: nodes before what they depend on.
    nodes: Vec<Node>,
    front: Option<Proxy>,
    nginx: Option<Nginx>,
    links: Vec<NodeLinks>,
    redis: Option<Redis>,
    /// Not of the tests' PostgreSQL but of one that is the cluster's own.
    postgres: Option<Postgres>,
    database: Option<String>,
    http: Api,
}

/// How a cluster is to be.
pub struct Builder {
    binary: PathBuf,
    nodes: usize,
    alone: bool,
    lossy: Vec<usize>,
    proxied: bool,
    own_postgres: bool,
    sentinels: Option<Places>,
    ahead: Option<(usize, Duration)>,
    settings: BTreeMap<String, String>,
}

impl TestCluster {
    /// `nodes` nodes with a Redis of their own and a fresh database on the tests' PostgreSQL, nginx
    /// in front. `binary` is `env!("CARGO_BIN_EXE_rookery")`, which only tests of that package know.
    ///
    /// # Panics
    /// With the reason, when something does not start.
    pub async fn start(binary: &str, nodes: usize) -> Self {
        Self::builder(binary).nodes(nodes).start().await
    }

    /// One node with SQLite and without Redis: the program as it comes.
    ///
    /// # Panics
    /// With the reason, when it does not start.
    pub async fn single(binary: &str) -> Self {
        Self::builder(binary).alone().start().await
    }

    #[must_use]
    pub fn builder(binary: &str) -> Builder {
        let settings = SETTINGS
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Builder {
            binary: binary.into(),
            nodes: 1,
            alone: false,
            lossy: Vec::new(),
            proxied: false,
            own_postgres: false,
            sentinels: None,
            ahead: None,
            settings: settings.collect(),
        }
    }

    /// The node of this number, from 0; beyond the last one it starts over, so that a story about
    /// three nodes can be told of one.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number % self.nodes.len()]
    }

    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where clients of the whole cluster go: nginx, or the link to it, or the one node.
    #[must_use]
    pub fn url(&self) -> String {
        match (&self.front, &self.nginx) {
            (Some(front), _) => format!("http://{}", front.address()),
            (None, Some(nginx)) => nginx.url(),
            (None, None) => self.nodes[0].url(),
        }
    }

    /// # Panics
    /// A node alone has none.
    #[must_use]
    pub fn nginx(&self) -> &Nginx {
        self.nginx.as_ref().expect("a node alone has no nginx")
    }

    /// The link from clients to nginx.
    ///
    /// # Panics
    /// The cluster was not built [`Builder::proxied`].
    #[must_use]
    pub fn front(&self) -> &Proxy {
        self.front.as_ref().expect("the cluster is not proxied")
    }

    /// The links of this node.
    #[must_use]
    pub fn links(&self, node: usize) -> &NodeLinks {
        &self.links[node]
    }

    /// The cluster's own PostgreSQL.
    ///
    /// # Panics
    /// It was not built with [`Builder::own_postgres`]; the one that all tests share must not be
    /// broken.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        self.postgres.as_ref().expect("PostgreSQL is shared")
    }

    /// The name of the cluster's database.
    ///
    /// # Panics
    /// A node alone has SQLite.
    #[must_use]
    pub fn database(&self) -> &str {
        let url = self.database.as_ref().expect("a node alone has SQLite");
        url.rsplit('/').next().unwrap_or_default()
    }

    /// The REST interface of the whole cluster, as nobody.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.http
    }

    /// # Panics
    /// A node alone has none, and sentinels bring their own.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        self.redis
            .as_ref()
            .expect("the cluster has no Redis of its own")
    }

    /// The way from this node to Redis.
    ///
    /// # Panics
    /// The node was not built [`Builder::lossy`].
    #[must_use]
    pub fn proxy(&self, node: usize) -> &RedisProxy {
        self.links(node).redis()
    }

    /// Whether there is a database that [`Self::sql`] can ask.
    #[must_use]
    pub fn has_sql(&self) -> bool {
        self.database.is_some()
    }

    /// Runs SQL on the cluster's database; the rows as lines, their columns separated by `|`.
    ///
    /// # Panics
    /// A node alone has SQLite; or the statement fails.
    pub async fn sql(&self, statement: &str) -> String {
        let postgres = match &self.postgres {
            Some(own) => own,
            None => Postgres::shared().await,
        };
        let rows = postgres.sql(self.database(), statement).await;
        rows.unwrap_or_else(|error| panic!("{statement}: {error:#}"))
    }

    /// Accounts that never log in, made without the cost of a password.
    ///
    /// # Panics
    /// As [`Self::sql`].
    pub async fn extras(&self, count: usize) -> Vec<UserId> {
        let statement = format!(
            "insert into users (user_id, username, email, password_hash, role, created_at) \
             select id, 'extra-' || id, id || '@example.com', '', 'user', 0 \
             from (select gen_random_uuid() as id from generate_series(1, {count})) made \
             returning user_id"
        );
        let rows = self.sql(&statement).await;
        rows.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The metrics of a node.
    ///
    /// # Panics
    /// It does not answer.
    pub async fn metrics(&self, node: usize) -> Metrics {
        self.node(node).metrics().await
    }

    /// A new account.
    ///
    /// # Panics
    /// The server refuses.
    pub async fn register(&self, name: &str) -> Person {
        let account = Register {
            username: name.to_owned(),
            email: format!("{name}@example.com"),
            password: PASSWORD.to_owned(),
            full_name: None,
            device_name: None,
        };
        let tokens = patiently(async || self.http.register(&account).await).await;
        let tokens = tokens.unwrap_or_else(|error| panic!("{name} cannot register: {error}"));
        Person::new(&self.http, tokens)
    }

    /// Several new accounts.
    ///
    /// # Panics
    /// The server refuses.
    pub async fn register_all<const COUNT: usize>(&self, names: [&str; COUNT]) -> [Person; COUNT] {
        let people = join_all(names.map(|name| self.register(name))).await;
        people
            .try_into()
            .unwrap_or_else(|_| unreachable!("a person for each name"))
    }
}

impl Builder {
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// One node with SQLite and without Redis.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Puts a [`RedisProxy`] between this node and Redis.
    #[must_use]
    pub fn lossy(mut self, node: usize) -> Self {
        self.lossy.push(node);
        self
    }

    /// Puts a [`Proxy`] on every link: to nginx, from there to the nodes, and from each of them to
    /// PostgreSQL and Redis.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// With a PostgreSQL that no other test uses, and that may be broken.
    #[must_use]
    pub fn own_postgres(mut self) -> Self {
        self.own_postgres = true;
        self
    }

    /// With the Redis that these sentinels name, instead of one of its own.
    #[must_use]
    pub fn sentinels(mut self, sentinels: &Sentinels) -> Self {
        self.sentinels = Some(sentinels.places());
        self
    }

    /// The clock of this node is so much ahead of the others'.
    #[must_use]
    pub fn ahead(mut self, node: usize, time: Duration) -> Self {
        self.ahead = Some((node, time));
        self
    }

    /// Sets a variable of every node's environment.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// # Panics
    /// With the reason, when something does not start.
    pub async fn start(self) -> TestCluster {
        let started = self.try_start().await;
        started.unwrap_or_else(|error| panic!("no cluster for the test: {error:#}"))
    }

    /// # Errors
    /// Something does not start; says what.
    pub async fn try_start(self) -> Result<TestCluster> {
        if self.alone {
            self.start_alone().await
        } else {
            self.start_cluster().await
        }
    }

    async fn start_alone(self) -> Result<TestCluster> {
        let node = Node::start(&self.binary, "alone", &self.settings).await?;
        let http = Api::new(&node.url());
        Ok(TestCluster {
            nodes: vec![node],
            front: None,
            nginx: None,
            links: Vec::new(),
            redis: None,
            postgres: None,
            database: None,
            http,
        })
    }

    async fn start_cluster(self) -> Result<TestCluster> {
        let redis = match self.sentinels {
            Some(_) => None,
            None => Some(Redis::start().await?),
        };
        let own = match self.own_postgres {
            true => Some(Postgres::start().await?),
            false => None,
        };
        let postgres = match &own {
            Some(own) => own,
            None => Postgres::shared().await,
        };
        let database = postgres.fresh_database().await;
        let servers = Servers {
            redis: redis.as_ref(),
            sentinels: self.sentinels.as_ref(),
            postgres,
        };
        let mut links = Vec::new();
        for number in 0..self.nodes {
            let lossy = self.lossy.contains(&number);
            links.push(NodeLinks::outbound(self.proxied, lossy, &servers).await?);
        }
        let start = async |number: usize| {
            let mut settings = self.settings.clone();
            settings.insert("REDIS_URL".into(), links[number].redis_url(&servers));
            settings.insert("DATABASE_URL".into(), links[number].database_url(&database));
            if let Some((_, time)) = self.ahead.filter(|(node, _)| *node == number) {
                settings.extend(clock_off_by(i64::try_from(time.as_secs())?)?);
            }
            let name = format!("node-{number}");
            let started = Node::start(&self.binary, &name, &settings).await;
            started.context(name)
        };
        let nodes = try_join_all((0..self.nodes).map(start)).await?;
        let mut addresses: Vec<_> = nodes.iter().map(Node::address).collect();
        if self.proxied {
            for (address, links) in addresses.iter_mut().zip(&mut links) {
                *address = links.add_inbound(*address).await?;
            }
        }
        let nginx = Nginx::start(&addresses).await?;
        let front = match self.proxied {
            true => Some(Proxy::start(nginx.address()).await?),
            false => None,
        };
        let mut cluster = TestCluster {
            nodes,
            front,
            nginx: Some(nginx),
            links,
            redis,
            postgres: own,
            database: Some(database),
            http: Api::new(""),
        };
        cluster.http = Api::new(&cluster.url());
        Ok(cluster)
    }
}
