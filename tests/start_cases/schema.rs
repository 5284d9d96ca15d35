//! Schemas that are behind or ahead of the program.

use std::process::Command;

use rookery_test_support::servers::Postgres;

use super::process::{Process, sqlite};

/// One release more than the program's is a rolling update, many more are too many.
const TOO_NEW: &str = "update meta set value = '99' where key = 'schema_release'";

/// Runs a node, or the migrations, on a schema that is not there yet and then on one that is too
/// new. `change` runs SQL on the database.
async fn tells_what_is_wrong(database: &str, change: impl AsyncFn(&str)) {
    let settings = [("DATABASE_URL", database)];
    let behind = Process::start(&["serve", "--no-migrate"], &settings);
    let (code, log) = behind.ended().await;
    assert_eq!(code, 5, "{log}");
    let words = "the schema lacks 0001_";
    assert!(
        log.contains(words) && log.contains("run `rookery migrate`"),
        "{log}"
    );

    let (code, log) = Process::start(&["migrate"], &settings).ended().await;
    assert_eq!(code, 0, "{log}");
    let node = Process::start(&["serve", "--no-migrate"], &settings);
    node.is_ready().await;
    assert_eq!(node.stopped().await.0, 0);

    change(TOO_NEW).await;
    for arguments in [&["serve"][..], &["serve", "--no-migrate"], &["migrate"]] {
        let (code, log) = Process::start(arguments, &settings).ended().await;
        assert_eq!(code, 5, "{arguments:?}: {log}");
        let words = "the schema is of release 99, and this binary works with those up to";
        assert!(log.contains(words), "{arguments:?}: {log}");
    }
}

#[tokio::test]
async fn a_node_says_what_is_wrong_with_the_schema_of_postgresql() {
    let postgres = Postgres::shared().await;
    let database = postgres.fresh_database().await;
    let name = database.rsplit('/').next().expect("its name");
    tells_what_is_wrong(&database, async |statement| {
        postgres.sql(name, statement).await.expect("it is changed");
    })
    .await;
}

#[tokio::test]
async fn a_node_says_what_is_wrong_with_the_schema_of_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rookery.db");
    tells_what_is_wrong(&sqlite(folder.path()), async |statement| {
        let mut sqlite = Command::new("sqlite3");
        let status = sqlite.arg(&file).arg(statement).status();
        assert!(status.expect("the package sqlite3 is installed").success());
    })
    .await;
}
