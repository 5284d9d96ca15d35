//! What nodes log: enough to follow a message by its id, and never what people write, nor anything
//! that opens a door.

use std::fs;
use std::path::Path;

use reqwest::{Method, StatusCode};
use rookery_client::socket::RawMessage;
use rookery_client::{Connect, Socket, TokenIn};
use rookery_protocol::Format;
use rookery_protocol::event::ServerEvent;
use rookery_test_support::servers::Postgres;
use rookery_test_support::{Node, TestCluster, eventually, new_message_id, plain_http};
use serde_json::{Value, json};

use crate::ROOKERY;

/// The lines of a node's log that name a message, each with what it says.
fn lines_about(node: &Node, message_id: &str) -> Vec<Value> {
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains(message_id));
    lines
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .collect()
}

fn said<'a>(lines: &'a [Value], what: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["message"] == what);
    found.unwrap_or_else(|| panic!("\"{what}\" is not among {lines:#?}"))
}

#[tokio::test]
async fn a_message_is_followed_by_its_id_from_its_frame_to_the_sockets_of_another_node() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .set("LOG_FORMAT", "json")
        .set(
            "RUST_LOG",
            "warn,rookery::message=debug,rookery::gateway=debug",
        )
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let ack = phone.send(room, "follow me").await;
    bobs.expect_message("follow me").await;

    let id = ack.message_id.to_string();
    // A line may come after what it tells of.
    for (node, what) in [(0, "published"), (1, "delivered")] {
        eventually("a node says what it did", async || {
            let lines = lines_about(cluster.node(node), &id);
            lines.iter().any(|line| line["message"] == what)
        })
        .await;
    }
    let sent = lines_about(cluster.node(0), &id);
    let connection = said(&sent, "accepted")["connection"].clone();
    assert!(connection.is_u64(), "{connection}");
    let stored = said(&sent, "stored and acknowledged");
    assert_eq!(stored["connection"], connection);
    assert_eq!(stored["conversation_id"], json!(room));
    assert_eq!(stored["seq"], ack.seq.to_string());
    assert_eq!(said(&sent, "published")["members"], 2);
    let heard = lines_about(cluster.node(1), &id);
    let delivered = said(&heard, "delivered");
    assert_eq!(delivered["path"], "Bus");
    assert_eq!(delivered["push"], "Queued");

    // A connection's number leads to who it is, and the id of its request to the proxy's log.
    let opened = |node: &Node, connection: &Value| {
        let log = node.log();
        let lines = log.lines().filter_map(|l| serde_json::from_str(l).ok());
        let mut opened = lines.filter(|l: &Value| l["message"] == "socket open");
        opened.find(|line| line["connection"] == *connection)
    };
    let phones = opened(cluster.node(0), &connection).expect("the phone's socket");
    assert_eq!(phones["user_id"], json!(ann.id()));
    assert!(
        phones["request_id"]
            .as_str()
            .is_some_and(|id| id.len() >= 16)
    );
    let bobs = opened(cluster.node(1), &delivered["connection"]).expect("bob's socket");
    assert_eq!(bobs["user_id"], json!(bob.id()));
}

/// What must not be in any log, with what it is.
#[derive(Default)]
struct Secrets(Vec<(String, &'static str)>);

impl Secrets {
    fn keep(&mut self, what: &'static str, secret: &str) -> String {
        assert!(secret.len() >= 8, "too short to be told from other words");
        self.0.push((secret.to_owned(), what));
        secret.to_owned()
    }

    fn assert_none_in(&self, log: &str) {
        for (secret, what) in &self.0 {
            if let Some(line) = log.lines().find(|line| line.contains(secret)) {
                panic!("{what} is in the log: {line}");
            }
        }
    }
}

/// One person and what they keep.
struct Visitor<'a> {
    node: &'a Node,
    http: reqwest::Client,
    secrets: Secrets,
    access: String,
}

impl Visitor<'_> {
    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let url = format!("{}/api/v1{path}", self.node.url());
        let request = self.http.request(method, url).bearer_auth(&self.access);
        let response = request.json(&body).send().await.expect("an answer");
        let status = response.status();
        (status, response.json().await.unwrap_or_default())
    }

    fn take(&mut self, tokens: &Value) -> String {
        let text = |name: &str| tokens["data"][name].as_str().expect("a token").to_owned();
        self.access = self.secrets.keep("an access token", &text("access_token"));
        // What a log might show of it without its signature opens nothing, and yet.
        let payload = self
            .access
            .split('.')
            .nth(1)
            .expect("three parts")
            .to_owned();
        self.secrets
            .keep("the payload of an access token", &payload);
        self.secrets.keep("a refresh token", &text("refresh_token"))
    }

    /// Registers, logs in, and fails to.
    async fn account(&mut self) {
        let password = self.secrets.keep("a password", "violet-harbour-71");
        let email = self.secrets.keep("an address", "zoe@secretive.example");
        let register = json!({"username": "zoe", "email": email, "password": password});
        let (status, tokens) = self.call(Method::POST, "/auth/register", register).await;
        assert_eq!(status, StatusCode::CREATED);
        self.take(&tokens);
        let wrong = self.secrets.keep("a wrong password", "violet-harbour-72");
        for (login, password) in [(&email, &wrong), (&wrong, &password)] {
            let login = json!({"login": login, "password": password});
            let (status, _) = self.call(Method::POST, "/auth/login", login).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
        }
        let login = json!({"login": "zoe", "password": password});
        let (_, tokens) = self.call(Method::POST, "/auth/login", login).await;
        let old = self.take(&tokens);
        for expected in [StatusCode::OK, StatusCode::OK] {
            let refresh = json!({"refresh_token": old});
            let (status, tokens) = self.call(Method::POST, "/auth/refresh", refresh).await;
            assert_eq!(status, expected);
            self.take(&tokens);
        }
        let forged = self
            .secrets
            .keep("a forged token", "eyJhbGciOiJub25lIn0.e30.forged");
        let forged_refresh = json!({"refresh_token": forged});
        self.call(Method::POST, "/auth/refresh", forged_refresh)
            .await;
        for token in [forged.as_str(), "%00garbage"] {
            let how = Connect {
                token: TokenIn::Query(token.to_owned()),
                ..Connect::default()
            };
            let mut socket = Socket::connect(&self.node.url(), &how)
                .await
                .expect("an upgrade");
            assert!(socket.ready().await.is_err());
        }
    }

    /// Writes over REST: what is stored, changed, refused and not even understood.
    async fn rest(&mut self) -> Value {
        let title = self.secrets.keep("a title", "The quiet titleholders");
        let about = self
            .secrets
            .keep("a description", "nobody else's describing");
        let group =
            json!({"kind": "group", "title": title, "description": about, "member_ids": []});
        let (status, group) = self.call(Method::POST, "/conversations", group).await;
        assert_eq!(status, StatusCode::CREATED);
        let room = group["data"]["conversation_id"].clone();
        let path = format!("/conversations/{}", room.as_str().expect("a text"));
        let content = self.secrets.keep("content", "written over rest, mandrake");
        let metadata = self.secrets.keep("metadata", "sealed-metadata-mandrake");
        let id = new_message_id();
        let message = json!({"message_id": id, "content": content, "metadata": {"k": metadata}});
        let (status, stored) = self
            .call(Method::POST, &format!("{path}/messages"), message.clone())
            .await;
        assert_eq!(status, StatusCode::CREATED, "{stored}");
        let seq = stored["data"]["seq"].as_i64().expect("a number");
        let edited = self
            .secrets
            .keep("edited content", "edited over rest, mandrake");
        let edit = json!({"content": edited});
        let one = format!("{path}/messages/{seq}");
        assert_eq!(self.call(Method::PATCH, &one, edit).await.0, StatusCode::OK);
        // The same id for another request, too long, of the wrong type, not JSON.
        let other = json!({"message_id": id, "content": "conflicting mandrake"});
        self.secrets.keep("refused content", "conflicting mandrake");
        let long =
            json!({"message_id": new_message_id(), "content": "lengthy mandrake".repeat(2_000)});
        self.secrets.keep("long content", "lengthy mandrake");
        let typed = json!({"message_id": "mistyped mandrake", "content": "x"});
        self.secrets.keep("a mistyped id", "mistyped mandrake");
        for refused in [other, long, typed] {
            let (status, _) = self
                .call(Method::POST, &format!("{path}/messages"), refused)
                .await;
            assert!(status.is_client_error());
        }
        let needle = self.secrets.keep("a search", "haystackneedle");
        for path in [format!("/users?query={needle}"), format!("/no/{needle}")] {
            self.call(Method::GET, &path, Value::Null).await;
        }
        room
    }

    /// The same on a socket, its token in its first frame or its address.
    async fn socket(&mut self, room: &Value, format: Format) -> String {
        let how = Connect {
            format,
            token: TokenIn::Query(self.access.clone()),
            ..Connect::default()
        };
        Socket::connect(&self.node.url(), &how)
            .await
            .expect("it works")
            .ready()
            .await
            .expect("it works");
        let how = Connect {
            token: TokenIn::FirstFrame(self.access.clone()),
            ..how
        };
        let mut socket = Socket::connect(&self.node.url(), &how)
            .await
            .expect("it works");
        socket.ready().await.expect("it works");
        let id = new_message_id().to_string();
        let content = self
            .secrets
            .keep("content of a frame", "framed mandrake, live");
        let frames = [
            json!({"type": "message.send", "message_id": id, "conversation_id": room, "content": content}),
            json!({"type": "message.send", "message_id": 7, "content": "unreadable mandrake"}),
            json!({"type": "unheard-of-mandrake", "content": "unreadable mandrake"}),
        ];
        self.secrets.keep("a bad frame", "unreadable mandrake");
        for frame in frames {
            socket
                .send_raw(encoded(format, &frame))
                .await
                .expect("it works");
        }
        loop {
            match socket.recv().await.expect("it works") {
                ServerEvent::MessageAck(ack) if ack.message_id.to_string() == id => return id,
                _ => {}
            }
        }
    }
}

fn encoded(format: Format, frame: &Value) -> RawMessage {
    match format {
        Format::Json => RawMessage::text(frame.to_string()),
        Format::MsgPack => RawMessage::binary(rmp_serde::to_vec_named(frame).expect("it works")),
    }
}

/// All files of a log.
fn read_all(folder: &Path) -> String {
    let files = fs::read_dir(folder).expect("it works");
    let texts =
        files.map(|file| fs::read_to_string(file.expect("it works").path()).expect("it works"));
    texts.collect()
}

async fn nothing_secret_is_logged(cluster: &TestCluster, settings: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("it works");
    let node = cluster.node(0);
    let file = folder.path().join("rookery.log").display().to_string();
    let mut all = vec![
        ("LOG_FILE", file.as_str()),
        ("ROOKERY_LOG_FILE_MIB", "1"),
        ("RUST_LOG", "trace"),
    ];
    all.extend(settings);
    node.restart_with(&all).await;
    let mut visitor = Visitor {
        node,
        http: plain_http(),
        secrets: Secrets::default(),
        access: String::new(),
    };
    visitor.account().await;
    let room = visitor.rest().await;
    let mut messages = Vec::new();
    for format in Format::ALL {
        messages.push(visitor.socket(&room, format).await);
    }
    for (name, value) in settings {
        // Of a URL what is secret in it: its password.
        let password = value.split(['@', ':']).find(|part| part.starts_with("pw-"));
        visitor
            .secrets
            .keep("a password of ours", password.unwrap_or(value));
        assert!(password.is_some() || *name == "JWT_SECRET");
    }
    visitor
        .call(Method::POST, "/auth/logout-all", Value::Null)
        .await;
    if cluster.has_sql() {
        // Failures are where secrets slip out.
        cluster.redis().kill().await.expect("it works");
        eventually("the node notices", async || {
            read_all(folder.path()).contains("the bus is down")
        })
        .await;
    }
    node.stop().await;
    let log = read_all(folder.path());
    for id in &messages {
        assert!(log.contains(id.as_str()), "message {id} was not followed");
    }
    assert!(
        log.contains("TRACE rookery") && log.contains("request{id="),
        "{log}"
    );
    visitor.secrets.assert_none_in(&log);
}

#[tokio::test]
async fn a_single_node_logs_nothing_secret_whatever_it_is_told_to_log() {
    let cluster = TestCluster::single(ROOKERY).await;
    let secret = "pw-a secret of a single node, long enough";
    nothing_secret_is_logged(&cluster, &[("JWT_SECRET", secret)]).await;
}

#[tokio::test]
async fn a_node_of_a_cluster_logs_nothing_secret_whatever_it_is_told_to_log() {
    let cluster = TestCluster::start(ROOKERY, 1).await;
    let redis = cluster.redis();
    redis
        .cli(&["config", "set", "requirepass", "pw-redis-9137"])
        .await
        .unwrap();
    let redis_url = redis.url().replace("://", "://:pw-redis-9137@");
    let database = Postgres::shared().await.url(cluster.database());
    let database = database.replacen('@', ":pw-postgres-5512@", 1);
    let settings = [
        ("JWT_SECRET", "pw-a secret of a cluster, long enough"),
        ("REDIS_URL", redis_url.as_str()),
        ("DATABASE_URL", database.as_str()),
    ];
    nothing_secret_is_logged(&cluster, &settings).await;
}
