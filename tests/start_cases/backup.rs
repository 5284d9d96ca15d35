//! `rookery backup`, and a node that starts from the copy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rookery_client::rest::Span;
use rookery_protocol::Seq;
use rookery_test_support::servers::Postgres;
use rookery_test_support::{Device, PATIENCE, TestCluster, eventually};

use super::process::{Process, sqlite};
use crate::ROOKERY;

/// Its exit code and what it said.
async fn back_up(database: &str, to: &Path) -> (i32, String) {
    let to = to.to_str().expect("a name in UTF-8");
    let settings = [("DATABASE_URL", database)];
    Process::start(&["backup", to], &settings).ended().await
}

/// A node alone on this file.
async fn node_on(folder: &Path) -> TestCluster {
    let builder = TestCluster::builder(ROOKERY).alone();
    builder.set("DATABASE_URL", &sqlite(folder)).start().await
}

async fn epoch_of(device: &Device) -> String {
    device.ready().await.epoch
}

#[tokio::test]
async fn a_node_starts_from_a_copy_that_was_made_under_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let original = node_on(folder.path()).await;
    let [ann, bob] = original.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let anns = ann.connect(original.node(0)).await;
    let acked = || anns.read(|record| record.known(room).len());
    let target = tempfile::tempdir().expect("a folder");
    let copy = target.path().join("rookery.db");

    let is_copied = AtomicBool::new(false);
    let talk = async {
        let mut number = 0;
        while !is_copied.load(Ordering::SeqCst) {
            number += 1;
            anns.send(room, &format!("message {number}")).await;
        }
    };
    let copying = async {
        let until = anns.until("some talk", PATIENCE, |record| {
            (record.known(room).len() > 100).then_some(())
        });
        until.await;
        let before = acked();
        let made = back_up(&sqlite(folder.path()), &copy).await;
        let after = acked();
        is_copied.store(true, Ordering::SeqCst);
        (before, made, after)
    };
    let ((), (before, (code, said), after)) = tokio::join!(talk, copying);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("bytes, checked"), "{said}");
    assert!(after > before, "writers were not held up");
    let files: Vec<_> = fs::read_dir(target.path()).expect("the folder").collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let mode = fs::metadata(&copy).expect("the copy").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let restored = node_on(target.path()).await;
    let history = async |span| {
        let api = bob.at(restored.node(0));
        api.history(room, span, 200).await.expect("history").items
    };
    let newest = history(Span::Newest).await;
    let last = newest.last().expect("there is history").seq;
    // One entry says that the group was made; whatever was acked before is there.
    let count = usize::try_from(last.0).expect("few");
    assert!(count > before, "{count} of at least {before}");
    let mut seqs = Vec::new();
    while let Some(page) = Some(history(Span::After(Seq(seqs.len() as i64))).await)
        && !page.is_empty()
    {
        seqs.extend(page.iter().map(|message| message.seq));
    }
    let dense: Vec<Seq> = (1..=last.0).map(Seq).collect();
    assert_eq!(seqs, dense, "all of it, once and in order");

    let phone = ann.connect(restored.node(0)).await;
    assert_ne!(
        epoch_of(&phone).await,
        epoch_of(&anns).await,
        "devices are told that the database was set back"
    );
    let next = phone.send(room, "after the restore").await.seq;
    assert_eq!(next, last.next());
}

#[tokio::test]
async fn a_copy_takes_nobodys_place_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = sqlite(folder.path());
    let copy = folder.path().join("copy.db");

    let (code, said) = back_up(&database, &copy).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("there is no database to copy"), "{said}");
    assert!(
        !folder.path().join("rookery.db").exists(),
        "nor is one made"
    );

    let settings = [("DATABASE_URL", database.as_str())];
    let (code, log) = Process::start(&["migrate"], &settings).ended().await;
    assert_eq!(code, 0, "{log}");
    fs::write(&copy, "dear to somebody").expect("a file");
    let (code, said) = back_up(&database, &copy).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("copy.db is there already"), "{said}");
    assert_eq!(fs::read(&copy).expect("the file"), b"dear to somebody");

    // Left by a process that was killed: somebody may still want to look at it.
    let half = folder.path().join("half.db");
    let partial = folder.path().join("half.db.partial");
    fs::write(&partial, "half a copy").expect("a file");
    let (code, said) = back_up(&database, &half).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("half.db.partial is there already"), "{said}");
    assert!(!half.exists(), "only a whole copy has the name");
    fs::remove_file(&partial).expect("it is there");

    let (code, said) = back_up(&database, &folder.path().join("no/such/folder")).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no/such/folder cannot be written"), "{said}");

    let other = folder.path().join("other.db");
    fs::write(folder.path().join("rookery.db"), "no database, a letter").expect("a file");
    let (code, said) = back_up(&database, &other).await;
    assert_eq!(code, 1, "{said}");
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .expect("the folder")
        .map(|file| file.expect("a file").file_name())
        .filter(|name| !name.to_string_lossy().starts_with("rookery.db"))
        .collect();
    left.sort();
    assert_eq!(left, ["copy.db"]);
}

/// Takes a while to copy.
const LARGE: &str = "create table ballast as with recursive n(i) as \
    (select 1 union all select i + 1 from n where i < 128) select zeroblob(1048576) from n";

#[tokio::test]
async fn a_copy_that_is_interrupted_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = sqlite(folder.path());
    let settings = [("DATABASE_URL", database.as_str())];
    let (code, log) = Process::start(&["migrate"], &settings).ended().await;
    assert_eq!(code, 0, "{log}");
    let mut grow = std::process::Command::new("sqlite3");
    let grown = grow
        .arg(folder.path().join("rookery.db"))
        .arg(LARGE)
        .status();
    assert!(grown.expect("the package sqlite3 is installed").success());

    let target = tempfile::tempdir().expect("a folder");
    let copy = target.path().join("copy.db");
    for attempt in 1.. {
        let backup = Process::start(&["backup", copy.to_str().expect("UTF-8")], &settings);
        let partial = target.path().join("copy.db.partial");
        let is_begun = || partial.metadata().is_ok_and(|file| file.len() > 0);
        eventually("a copy that has begun", async || {
            is_begun() || copy.exists()
        })
        .await;
        let (code, said) = backup.stopped().await;
        if code == 0 {
            assert!(attempt < 10, "it is always done too soon");
            fs::remove_file(&copy).expect("a copy");
            continue;
        }
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("the copy was interrupted, and removed"),
            "{said}"
        );
        let left: Vec<_> = fs::read_dir(target.path()).expect("the folder").collect();
        assert!(left.is_empty(), "{left:?}");
        break;
    }
}

#[tokio::test]
async fn postgresql_is_left_to_its_own_tools() {
    let database = Postgres::shared().await.fresh_database().await;
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy.db");
    let (code, said) = back_up(&database, &copy).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("pg_dump"), "{said}");
    assert!(!copy.exists());
}
