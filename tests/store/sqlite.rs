//! SQLite alone: processes that are killed, and another process that writes to the file. A disk that
//! is full is in `src/store/sqlite/tests.rs`, since it takes a setting that no URL has.

use std::process::Stdio;

use rookery::store::{self, StoreError, Wait};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use sqlx::{Connection, Executor};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::fixture::{Fixture, NOW, message, options, seqs, stored};

/// Set in a process that writes until it is killed: the URL, the conversation and its sender.
const WRITER: &str = "ROOKERY_TEST_WRITER";
const KILLS: usize = 100;

/// Each line that the writer printed was acknowledged.
async fn write_until_killed(what: &str) {
    let mut what = what.split(' ');
    let mut next = || what.next().unwrap();
    let store = store::connect(&options(next().to_owned())).await.unwrap();
    let group: ConversationId = next().parse().unwrap();
    let sender: UserId = next().parse().unwrap();
    loop {
        let batch = [message(group, sender, "one"), message(group, sender, "two")];
        let outcomes = store.append(&batch, Wait::No, NOW).await.unwrap();
        for (send, outcome) in batch.iter().zip(&outcomes) {
            println!("acked {} {}", send.message_id, stored(outcome).seq.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_survives_a_hundred_kills() {
    if let Ok(what) = std::env::var(WRITER) {
        return write_until_killed(&what).await;
    }
    let fixture = Fixture::sqlite().await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    let what = format!("{} {group} {alice}", fixture.options.url);
    let mut acked: Vec<(MessageId, i64)> = Vec::new();
    for round in 0..KILLS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["sqlite::what_was_acked_survives_a_hundred_kills", "--exact"])
            .args(["--nocapture", "--test-threads=1"])
            .env(WRITER, &what)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut heard = 0;
        while let Some(line) = lines.next_line().await.unwrap() {
            let Some(line) = line.split_once("acked ").map(|(_, rest)| rest) else {
                continue;
            };
            let (id, seq) = line.split_once(' ').unwrap();
            acked.push((id.parse().unwrap(), seq.parse().unwrap()));
            heard += 1;
            if heard == 1 + round % 9 {
                writer.start_kill().unwrap();
            }
        }
        assert!(heard > round % 9, "the writer ended by itself");
        writer.wait().await.unwrap();
    }
    let log = fixture.log(group).await;
    let whole: Vec<i64> = (1..=log.len() as i64).collect();
    assert_eq!(seqs(&log), whole, "no holes");
    for (id, seq) in acked {
        assert_eq!(log[seq as usize - 1].message_id, id);
    }
    assert_eq!(log.len() % 2, 1, "a batch was split");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_else_writes_to_is_busy_and_then_free() {
    let fixture = Fixture::sqlite().await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    let mut other = fixture.sqlite_connection().await;
    other.execute("begin immediate").await.unwrap();
    let send = [message(group, alice, "hi")];
    let refused = fixture.store.append(&send, Wait::No, NOW).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(seqs(&fixture.log(group).await), [1], "reading goes on");
    other.execute("commit").await.unwrap();
    other.close().await.unwrap();
    assert_eq!(stored(&fixture.append(&send).await[0]).seq, Seq(2));
}
