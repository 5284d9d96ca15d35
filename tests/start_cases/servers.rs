//! PostgreSQL and Redis that are not there yet, never come, or refuse.

use rookery_protocol::rest::{Register, Tokens};
use rookery_test_support::patiently;
use rookery_test_support::servers::{Postgres, Redis, ports};

use super::process::{Process, SECRET};

const HANDBOOK: &str = include_str!("../../docs/OPERATIONS.md");
/// Passwords that no output may show.
const HUSH: &str = "hush-hush";

fn with_password(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{user}:{HUSH}@{rest}")
}

#[tokio::test]
async fn a_node_waits_for_servers_that_are_started_after_it() {
    let postgres = Postgres::start().await.expect("PostgreSQL");
    let redis = Redis::start().await.expect("Redis");
    let database = with_password(&postgres.fresh_database().await, "rookery");
    postgres.stop_immediate().await.expect("it stops");
    redis.kill().await.expect("it stops");

    let redis_url = redis.url();
    let node = Process::start(
        &["serve"],
        &[
            ("DATABASE_URL", &database),
            ("REDIS_URL", &redis_url),
            SECRET,
        ],
    );
    let waits_for = |name: &str, port: u16| format!("waiting for {name} at 127.0.0.1:{port}: ");
    node.says(&waits_for("PostgreSQL", postgres.port())).await;
    node.says(&waits_for("Redis", redis.port())).await;
    assert_eq!(node.probe("healthz").await, Some(200), "it works");
    assert_eq!(node.probe("readyz").await, Some(503), "and has not started");

    redis.restart().await.expect("it starts");
    let is_there = |name: &str, port: u16| format!("{name} at 127.0.0.1:{port} is there");
    node.says(&is_there("Redis", redis.port())).await;
    assert_eq!(node.probe("readyz").await, Some(503));
    postgres.restart().await.expect("it starts");
    node.says(&is_there("PostgreSQL", postgres.port())).await;
    node.is_ready().await;

    let (code, log) = node.stopped().await;
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains(HUSH), "{log}");
}

#[tokio::test]
async fn who_never_comes_ends_a_node_with_a_code_of_its_own() {
    let redis = Redis::shared().await.url();
    let database = Postgres::shared().await.fresh_database().await;
    let nobody = ports::reserve().expect("a port");
    let nobody = nobody.address();
    let no_database = format!("postgres://rookery:{HUSH}@{nobody}/rookery");
    let no_redis = format!("redis://:{HUSH}@{nobody}");
    for (arguments, database, redis, missing) in [
        ("serve", &no_database, &redis, "DATABASE_URL"),
        ("serve", &database, &no_redis, "REDIS_URL"),
        ("migrate", &no_database, &redis, "DATABASE_URL"),
    ] {
        let settings = [
            ("DATABASE_URL", database.as_str()),
            ("REDIS_URL", redis.as_str()),
            ("ROOKERY_START_TIMEOUT_SECONDS", "1"),
            SECRET,
        ];
        let (code, log) = Process::start(&[arguments], &settings).ended().await;
        assert_eq!(code, 4, "{log}");
        let words = [
            "could not be used within 1 s (ROOKERY_START_TIMEOUT_SECONDS)",
            &nobody.to_string(),
            &format!("correct {missing}"),
        ];
        for word in words {
            assert!(log.contains(word), "no \"{word}\" in:\n{log}");
        }
        assert!(!log.contains(HUSH), "{log}");
    }
}

#[tokio::test]
async fn a_node_that_may_serve_without_redis_does() {
    let database = Postgres::shared().await.fresh_database().await;
    let nobody = ports::reserve().expect("a port");
    let no_redis = format!("redis://{}", nobody.address());
    let node = Process::start(
        &["serve"],
        &[
            ("DATABASE_URL", &database),
            ("REDIS_URL", &no_redis),
            ("ROOKERY_START_WITHOUT_REDIS", "true"),
            SECRET,
        ],
    );
    node.is_ready().await;
    node.says("Redis does not answer").await;
    assert_eq!(node.stopped().await.0, 0);
}

/// Makes an account with these rights and the password [`HUSH`].
async fn acl(redis: &Redis, user: &str, rights: &str) {
    let password = format!(">{HUSH}");
    let mut set = vec!["ACL", "SETUSER", user, "on", &password];
    set.extend(rights.split(' '));
    redis.cli(&set).await.expect("a user");
}

#[tokio::test]
async fn an_account_of_redis_that_may_only_do_what_nodes_do_is_enough() {
    let database = Postgres::shared().await.fresh_database().await;
    let redis = Redis::start().await.expect("Redis");
    let (_, rights) = HANDBOOK.split_once("`user rookery on >… ").expect("an ACL");
    let (rights, _) = rights.split_once('`').expect("its end");
    acl(&redis, "node", rights).await;
    let redis_url = with_password(&redis.url(), "node");
    let settings = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", &redis_url),
        SECRET,
    ];
    let node = Process::start(&["serve"], &settings);
    node.is_ready().await;
    let left = redis.cli(&["EXISTS", "rookery:v1:knock"]).await;
    assert_eq!(left.expect("an answer").trim(), "0");
    let (code, log) = node.stopped().await;
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("NOPERM"), "{log}");
}

#[tokio::test]
async fn what_waiting_cannot_mend_is_not_waited_for() {
    let postgres = Postgres::shared().await;
    let database = postgres.fresh_database().await;
    let redis = Redis::start().await.expect("Redis");
    for (user, rights) in [
        ("deaf", "+@all ~* resetchannels"),
        ("mute", "+@all resetkeys &*"),
        ("never_subscribes", "+@all ~* &* -subscribe"),
        ("never_unsubscribes", "+@all ~* &* -unsubscribe"),
        ("lists_nothing", "+@all ~* &* -hset"),
    ] {
        acl(&redis, user, rights).await;
    }
    let user = |name: &str| with_password(&redis.url(), name);
    let (deaf, mute) = (user("deaf"), user("mute"));
    let (subscribes, unsubscribes) = (user("never_subscribes"), user("never_unsubscribes"));
    let lists_nothing = user("lists_nothing");
    let locked = ["CONFIG", "SET", "requirepass", "another"];
    redis.cli(&locked).await.expect("a password");
    let no_user = with_password(&database, "nobody");
    let no_database = postgres.url("no_such_database");
    let (wrong, none) = (with_password(&redis.url(), ""), redis.url());
    let good = Redis::shared().await.url();
    for (database, redis, words) in [
        (&no_user, &good, ["DATABASE_URL", "role \"nobody\""]),
        (&no_database, &good, ["DATABASE_URL", "no_such_database"]),
        (&database, &wrong, ["REDIS_URL", "WRONGPASS"]),
        (&database, &none, ["REDIS_URL", "NOAUTH"]),
        (&database, &deaf, ["NOPERM", "&rookery:v1:*"]),
        (&database, &mute, ["NOPERM", "~rookery:v1:*"]),
        (&database, &subscribes, ["NOPERM", "'subscribe'"]),
        (&database, &unsubscribes, ["NOPERM", "'unsubscribe'"]),
        (&database, &lists_nothing, ["NOPERM", "'hset'"]),
    ] {
        let settings = [
            ("DATABASE_URL", database.as_str()),
            ("REDIS_URL", redis.as_str()),
            // Longer than anybody waits for this test.
            ("ROOKERY_START_TIMEOUT_SECONDS", "3600"),
            SECRET,
        ];
        let (code, log) = Process::start(&["serve"], &settings).ended().await;
        assert_eq!(code, 2, "{log}");
        for word in words {
            assert!(log.contains(word), "no \"{word}\" in:\n{log}");
        }
        assert!(!log.contains(HUSH), "{log}");
    }
}

#[tokio::test]
async fn a_user_of_the_database_who_lacks_a_right_is_told_which() {
    let postgres = Postgres::shared().await;
    let database = postgres.fresh_database().await;
    let name = database.rsplit('/').next().expect("its name");
    let sql = async |statement: &str| {
        postgres.sql(name, statement).await.expect("it is done");
    };
    sql("create role few_rights login; revoke create on schema public from public").await;
    let few = with_password(&database, "few_rights");
    let as_few = [("DATABASE_URL", few.as_str())];
    let denied = async |arguments: &[&str], what: &str| {
        let (code, log) = Process::start(arguments, &as_few).ended().await;
        assert_eq!(code, 2, "{log}");
        for words in [
            "DATABASE_URL lacks a right: permission denied for",
            what,
            "grant",
        ] {
            assert!(log.contains(words), "no \"{words}\" in:\n{log}");
        }
        assert!(!log.contains(HUSH), "{log}");
    };
    denied(&["migrate"], "schema public").await;
    denied(&["serve"], "schema public").await;

    let as_owner = [("DATABASE_URL", database.as_str())];
    let (code, log) = Process::start(&["migrate"], &as_owner).ended().await;
    assert_eq!(code, 0, "{log}");
    denied(&["serve", "--no-migrate"], "table meta").await;

    sql("grant select, insert, update, delete on all tables in schema public to few_rights").await;
    let node = Process::start(&["serve", "--no-migrate"], &as_few);
    node.is_ready().await;
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let api = node.api().with_token(&alice.access_token);
    let talk = patiently(async || api.create_direct(bob.user.user_id).await).await;
    let talk = talk.expect("a conversation").conversation_id;
    let sent = patiently(async || api.send_text(talk, "hi").await).await;
    sent.expect("it is stored");
    let (code, log) = node.stopped().await;
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("sends take longer"), "{log}");
}

async fn register(node: &Process, name: &str) -> Tokens {
    let account = Register {
        username: name.to_owned(),
        email: format!("{name}@example.com"),
        password: "correct horse battery".to_owned(),
        full_name: None,
        device_name: None,
    };
    let api = node.api();
    let registered = patiently(async || api.register(&account).await).await;
    registered.expect("an account")
}

#[tokio::test]
async fn a_standby_is_waited_for_until_it_is_promoted() {
    let primary = Postgres::start().await.expect("PostgreSQL");
    let standby = primary.standby().await.expect("a standby");
    let database = standby.url("postgres");
    let node = Process::start(&["serve"], &[("DATABASE_URL", &database)]);
    node.says("it is a standby, which takes no writes").await;
    standby.promote().await.expect("it takes writes");
    node.is_ready().await;
    assert_eq!(node.stopped().await.0, 0);
}

#[tokio::test]
async fn a_signal_ends_the_wait() {
    let nobody = ports::reserve().expect("a port");
    let database = format!("postgres://rookery@{}/rookery", nobody.address());
    let settings = [
        ("DATABASE_URL", database.as_str()),
        ("ROOKERY_START_TIMEOUT_SECONDS", "3600"),
    ];
    let node = Process::start(&["serve"], &settings);
    node.says("waiting for PostgreSQL").await;
    let (code, log) = node.stopped().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("stopped while starting"), "{log}");
}
