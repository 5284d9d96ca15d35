//! A Redis with TLS, and a user who may do what the user of `deploy/redis` may: everything the bus
//! does works. The certificates beside this are for this test alone.

use std::path::Path;

use rookery_test_support::servers::{self, Redis};
use tokio::process::Command;

use crate::bench::{Bench, channel};

/// Set for the second process, which is told whom to trust in its environment.
const URL: &str = "ROOKERY_TEST_REDIS_URL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "how the second process is told")]
async fn a_redis_with_tls_is_used_with_the_rights_of_the_shipped_user() {
    if let Ok(url) = std::env::var(URL) {
        let bench = Bench::redis_up(&url).await;
        bench.hears_after_subscribing(&channel()).await;
        bench.up().await;
        return;
    }
    let redis = Redis::start().await.unwrap();
    let port = servers::ports::reserve().unwrap();
    let number = port.number().to_string();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bus_cases/tls");
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut tls = vec![
        "config",
        "set",
        "tls-port",
        &number,
        "tls-auth-clients",
        "no",
    ];
    let files = [
        ("tls-cert-file", file("server.crt")),
        ("tls-key-file", file("server.key")),
        ("tls-ca-cert-file", file("ca.crt")),
    ];
    for (name, path) in &files {
        tls.extend([*name, path.as_str()]);
    }
    redis.cli(&tls).await.unwrap();
    let script = std::fs::read_to_string("deploy/redis/start.sh").unwrap();
    let rights = script
        .lines()
        .find_map(|line| line.strip_prefix("user rookery on #$hash "));
    let mut user = vec!["acl", "setuser", "rookery", "on", ">p@ss:word"];
    user.extend(rights.expect("the shipped user").split(' '));
    redis.cli(&user).await.unwrap();
    let this = "tls::a_redis_with_tls_is_used_with_the_rights_of_the_shipped_user";
    let test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env("SSL_CERT_FILE", file("ca.crt"))
        .env(
            URL,
            format!("rediss://rookery:p%40ss%3Aword@localhost:{number}"),
        )
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&test.stdout);
    assert!(test.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    let names = redis.cli(&["acl", "log"]).await.unwrap();
    assert_eq!(names.trim(), "", "nothing was denied");
}
