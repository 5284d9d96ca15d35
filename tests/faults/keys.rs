//! The key that signs tokens is changed in a cluster that is in use.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rookery_test_support::wire::Handshake;
use rookery_test_support::{Person, TestCluster, eventually};
use serde_json::json;

use super::kit::{Pair, talks};
use crate::ROOKERY;

const OLD: &str = "the old key: thirty-two bytes or more";
const NEW: &str = "the new key: thirty-two bytes or more";

/// F29: first every node accepts the new key, then every node signs with it, then the old one is
/// dropped. Nobody is refused before that, and nothing is lost while nodes restart.
#[tokio::test]
async fn a_key_is_changed_under_load() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).set("JWT_SECRET", OLD)).await;
    let first = kid(&pair.ann);

    roll(&pair, "accepts", &[("JWT_SECRETS_PREVIOUS", NEW)]).await;
    let kept = keys_of_all(&pair.ann, &pair.cluster).await;
    assert!(kept.iter().all(|kid| *kid == first), "{kept:?}");

    roll(
        &pair,
        "signs",
        &[("JWT_SECRET", NEW), ("JWT_SECRETS_PREVIOUS", OLD)],
    )
    .await;
    let changed = keys_of_all(&pair.ann, &pair.cluster).await;
    assert_eq!(changed[0], changed[1], "nodes agree on the key");
    assert_ne!(changed[0], first, "it is the new one");
    pair.all_is_well().await;

    let mut tokens = pair.bob.tokens.clone();
    for node in pair.cluster.nodes() {
        assert_eq!(node.stop().await, 0);
        node.restart_with(&[("JWT_SECRETS_PREVIOUS", "")]).await;
        let refused = pair.ann.at(node).me().await.unwrap_err();
        assert_eq!(refused.status, 401, "the old key is gone: {refused}");
        let renewed = node.api().refresh(&tokens.refresh_token).await;
        tokens = renewed.expect("a session outlives the key");
    }
}

/// As above, without a restart: the same sockets talk all the while.
#[tokio::test]
async fn a_key_is_changed_in_running_nodes() {
    let folder = tempfile::tempdir().expect("a folder");
    let [signing, accepted] = ["signing", "accepted"].map(|name| folder.path().join(name));
    let write = |path: &Path, key: &str| std::fs::write(path, key).expect("a file for a key");
    write(&signing, OLD);
    write(&accepted, "");
    let builder = TestCluster::builder(ROOKERY)
        .set("JWT_SECRET", "")
        .set("JWT_SECRET_FILE", &signing.display().to_string())
        .set("JWT_SECRETS_PREVIOUS_FILE", &accepted.display().to_string());
    let pair = Pair::on(builder).await;
    let first = kid(&pair.ann);
    let changed = AtomicBool::new(false);
    let change = async {
        write(&accepted, NEW);
        told(&pair.cluster, "changed", 1.0).await;
        let kept = keys_of_all(&pair.ann, &pair.cluster).await;
        assert!(kept.iter().all(|kid| *kid == first), "{kept:?}");

        write(&signing, "too short");
        told(&pair.cluster, "refused", 1.0).await;
        let kept = keys_of_all(&pair.ann, &pair.cluster).await;
        assert!(kept.iter().all(|kid| *kid == first), "{kept:?}");

        write(&accepted, OLD);
        write(&signing, NEW);
        told(&pair.cluster, "changed", 2.0).await;
        let signs = keys_of_all(&pair.ann, &pair.cluster).await;
        assert_eq!(signs[0], signs[1], "nodes agree on the key");
        assert_ne!(signs[0], first, "it is the new one");

        write(&accepted, "");
        told(&pair.cluster, "changed", 3.0).await;
        for node in pair.cluster.nodes() {
            let refused = pair.ann.at(node).me().await.unwrap_err();
            assert_eq!(refused.status, 401, "the old key is gone: {refused}");
        }
        let refresh = &pair.bob.tokens.refresh_token;
        let renewed = pair.cluster.node(0).api().refresh(refresh).await;
        renewed.expect("a session outlives the key");
        changed.store(true, Ordering::SeqCst);
    };
    tokio::join!(
        change,
        talks(&pair.anns, pair.room, "ann", &changed),
        talks(&pair.bobs, pair.room, "bob", &changed)
    );
    for device in [&pair.anns, &pair.bobs] {
        device.read(|record| assert_eq!(record.connection(), 1, "no socket was closed"));
    }
}

/// Bob's phone sleeps with its socket open while the old key is dropped, and his tablet without one. The
/// phone is told all the while; the tablet is told clearly that it is refused, each way it may ask, and
/// gets what it missed with the token that it is given for its refresh token.
#[tokio::test]
async fn devices_that_sleep_while_the_old_key_is_dropped_miss_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let [signing, accepted] = ["signing", "accepted"].map(|name| folder.path().join(name));
    let write = |path: &Path, key: &str| std::fs::write(path, key).expect("a file for a key");
    write(&signing, OLD);
    write(&accepted, "");
    let builder = TestCluster::builder(ROOKERY)
        .set("JWT_SECRET", "")
        .set("JWT_SECRET_FILE", &signing.display().to_string())
        .set("JWT_SECRETS_PREVIOUS_FILE", &accepted.display().to_string());
    let pair = Pair::on(builder).await;
    let node = pair.cluster.node(1);
    let tablet = pair.bob.log_in_at(node).await;
    let old = tablet.tokens.access_token.clone();
    let to = Handshake::to(&node.url());
    let before = pair.anns.send(pair.room, "before").await.seq;
    {
        let mut awake = to.clone().path("/ws").token(&old).open().await;
        awake.expect("ready").await;
    }

    write(&accepted, NEW);
    told(&pair.cluster, "changed", 1.0).await;
    write(&accepted, OLD);
    write(&signing, NEW);
    told(&pair.cluster, "changed", 2.0).await;
    write(&accepted, "");
    told(&pair.cluster, "changed", 3.0).await;
    pair.anns.send(pair.room, "with the new key").await;
    pair.bobs.expect_message("with the new key").await;
    pair.bobs.send(pair.room, "the phone is awake").await;
    pair.bobs
        .read(|record| assert_eq!(record.connection(), 1, "no socket was closed"));

    let refused = to.clone().path("/ws?resume=1").token(&old).send().await;
    assert_eq!(refused.status, 401, "{}", refused.head);
    assert_eq!(refused.json()["error"]["code"], "UNAUTHENTICATED");
    let path = format!("/ws?resume=1&token={old}");
    let mut by_url = to.clone().path(&path).open().await;
    assert_eq!(by_url.closed().await, 4001);
    let mut by_frame = to.clone().path("/ws").open().await;
    let auth = json!({"type": "auth", "token": old, "resume": true});
    by_frame.json(&auth).await;
    assert_eq!(by_frame.closed().await, 4001);

    let renewed = node.api().refresh(&tablet.tokens.refresh_token).await;
    let token = renewed.expect("a session outlives the key").access_token;
    let mut back = to.path("/ws?resume=1").token(&token).open().await;
    back.expect("ready").await;
    let cursors = HashMap::from([(pair.room.to_string(), before)]);
    back.json(&json!({"type": "sync", "cursors": cursors}))
        .await;
    let missed = back.expect("message.batch").await;
    let texts = missed["messages"].as_array().expect("messages").iter();
    let texts: Vec<_> = texts.map(|message| &message["content"]).collect();
    assert_eq!(texts, ["with the new key", "the phone is awake"]);
    assert_eq!(back.expect("sync.done").await["count"], 2);
}

/// Has every node read its configuration; returns when each has had this result so often.
async fn told(cluster: &TestCluster, result: &str, times: f64) {
    let series = format!("rookery_reloads_total{{result=\"{result}\"}}");
    for node in cluster.nodes() {
        node.hang_up().await;
        eventually(&series, async || node.metrics().await.get(&series) >= times).await;
    }
}

/// Restarts the nodes one by one with these settings. Whoever is on the node goes to the other one
/// and comes back; the other one writes all the while.
async fn roll(pair: &Pair, round: &str, settings: &[(&str, &str)]) {
    let turns = [(0, &pair.anns, &pair.bobs), (1, &pair.bobs, &pair.anns)];
    for (number, moving, staying) in turns {
        let [node, other] = [number, 1 - number].map(|number| pair.cluster.node(number));
        let rolled = AtomicBool::new(false);
        let roll = async {
            assert_eq!(node.stop().await, 0);
            moving.expect_close().await;
            moving.resume_on(other).await;
            moving
                .send(pair.room, &format!("{round}: while {number} is away"))
                .await;
            node.restart_with(settings).await;
            moving.resume_on(node).await;
            rolled.store(true, Ordering::SeqCst);
        };
        let name = format!("{round} {number}");
        tokio::join!(roll, talks(staying, pair.room, &name, &rolled));
    }
}

/// Logs in at each node; every other node takes the token. Returns the keys that signed.
async fn keys_of_all(person: &Person, cluster: &TestCluster) -> Vec<String> {
    let mut keys = Vec::new();
    for node in cluster.nodes() {
        let session = person.log_in_at(node).await;
        for judge in cluster.nodes() {
            for token in [person, &session] {
                let taken = token.at(judge).me().await;
                assert!(taken.is_ok(), "{} refuses: {taken:?}", judge.name());
            }
        }
        keys.push(kid(&session));
    }
    keys
}

/// The id of the key that signed this person's token.
fn kid(person: &Person) -> String {
    let header = jsonwebtoken::decode_header(&person.tokens.access_token);
    header.expect("a token").kid.expect("an id of its key")
}
