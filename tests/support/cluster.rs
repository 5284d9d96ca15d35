//! A whole cluster for one test.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use rookery_client::Api;
use rookery_protocol::UserId;
use rookery_protocol::rest::Register;

use crate::metrics::Metrics;
use crate::node::Node;
use crate::people::{PASSWORD, Person, patiently};
use crate::redis_proxy::RedisProxy;
use crate::servers::{Nginx, Postgres, Redis};

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
    ("RUST_LOG", "info,rookery=debug"),
];

/// Nodes that belong together, with everything they need. Ends with its test.
pub struct TestCluster {
    // Dropped in this order: nodes before what they depend on.
    nodes: Vec<Node>,
    nginx: Option<Nginx>,
    proxies: BTreeMap<usize, RedisProxy>,
    redis: Option<Redis>,
    /// On the tests' PostgreSQL.
    database: Option<String>,
    http: Api,
}

/// How a cluster is to be.
pub struct Builder {
    binary: PathBuf,
    nodes: usize,
    alone: bool,
    lossy: Vec<usize>,
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

    /// Where clients of the whole cluster go: nginx, or the one node.
    #[must_use]
    pub fn url(&self) -> String {
        self.nginx
            .as_ref()
            .map_or_else(|| self.nodes[0].url(), Nginx::url)
    }

    /// The REST interface of the whole cluster, as nobody.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.http
    }

    /// # Panics
    /// A node alone has none.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        self.redis.as_ref().expect("a node alone has no Redis")
    }

    /// The way from this node to Redis.
    ///
    /// # Panics
    /// The node was not built [`Builder::lossy`].
    #[must_use]
    pub fn proxy(&self, node: usize) -> &RedisProxy {
        self.proxies.get(&node).expect("the node is not lossy")
    }

    /// Runs SQL on the cluster's database; the rows as lines, their columns separated by `|`.
    ///
    /// # Panics
    /// A node alone has SQLite; or the statement fails.
    pub async fn sql(&self, statement: &str) -> String {
        let url = self.database.as_ref().expect("a node alone has SQLite");
        let name = url.rsplit('/').next().unwrap_or_default();
        let rows = Postgres::shared().await.sql(name, statement).await;
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

    /// Sets a variable of every node's environment.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// # Panics
    /// With the reason, when something does not start.
    pub async fn start(self) -> TestCluster {
        let started = if self.alone {
            self.start_alone().await
        } else {
            self.start_cluster().await
        };
        started.unwrap_or_else(|error| panic!("no cluster for the test: {error:#}"))
    }

    async fn start_alone(self) -> Result<TestCluster> {
        let node = Node::start(&self.binary, "alone", &self.settings).await?;
        let http = Api::new(&node.url());
        let proxies = BTreeMap::new();
        Ok(TestCluster {
            nodes: vec![node],
            nginx: None,
            proxies,
            redis: None,
            database: None,
            http,
        })
    }

    async fn start_cluster(self) -> Result<TestCluster> {
        let redis = Redis::start().await?;
        let database = Postgres::shared().await.fresh_database().await;
        let mut proxies = BTreeMap::new();
        for number in &self.lossy {
            let address = ([127, 0, 0, 1], redis.port()).into();
            proxies.insert(*number, RedisProxy::start(address).await?);
        }
        let start = async |number: usize| {
            let mut settings = self.settings.clone();
            let redis_url = proxies
                .get(&number)
                .map_or_else(|| redis.url(), RedisProxy::url);
            settings.insert("REDIS_URL".into(), redis_url);
            settings.insert("DATABASE_URL".into(), database.clone());
            let name = format!("node-{number}");
            Node::start(&self.binary, &name, &settings)
                .await
                .context(name)
        };
        let nodes = try_join_all((0..self.nodes).map(start)).await?;
        let addresses: Vec<_> = nodes.iter().map(Node::address).collect();
        let nginx = Nginx::start(&addresses).await?;
        let http = Api::new(&nginx.url());
        Ok(TestCluster {
            nodes,
            nginx: Some(nginx),
            proxies,
            redis: Some(redis),
            database: Some(database),
            http,
        })
    }
}
