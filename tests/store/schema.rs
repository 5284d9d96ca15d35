//! Migrations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rookery::store::{self, StoreError, StoreOptions, Wait};
use rookery_protocol::{ConversationId, UserId};

use crate::fixture::{Fixture, NOW, contract, message, options, seqs, stored};
use rookery_test_support::servers::Postgres;

/// Tables with their columns, but for those of the databases and of the migrator.
async fn tables(fixture: &Fixture) -> BTreeMap<String, BTreeSet<String>> {
    let rows: Vec<(String, String)> = if fixture.options.is_postgres() {
        let columns = "select c.relname::text, a.attname::text from pg_class c \
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
            where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') \
              and not c.relispartition and c.relname <> '_sqlx_migrations'";
        sqlx::query_as(columns)
            .fetch_all(&mut fixture.postgres_connection().await)
            .await
            .unwrap()
    } else {
        let columns = "select t.name, c.name from sqlite_schema t, pragma_table_info(t.name) c \
            where t.type = 'table' and t.name not like 'sqlite\\_%' escape '\\' \
              and t.name <> '_sqlx_migrations'";
        sqlx::query_as(columns)
            .fetch_all(&mut fixture.sqlite_connection().await)
            .await
            .unwrap()
    };
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (table, column) in rows {
        tables.entry(table).or_default().insert(column);
    }
    tables
}

async fn unmigrated(is_postgres: bool, folder: &Path) -> StoreOptions {
    if is_postgres {
        options(Postgres::shared().await.fresh_database().await)
    } else {
        options(format!("sqlite://{}", folder.join("rookery.db").display()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_have_the_same_tables_and_columns() {
    let (postgres, sqlite) = (Fixture::postgres().await, Fixture::sqlite().await);
    let tables_here = tables(&postgres).await;
    assert_eq!(tables_here, tables(&sqlite).await);
    assert!(tables_here["messages"].contains("content_key_id"));
    assert_eq!(tables_here.len(), 11, "{:?}", tables_here.keys());
}

/// A column without a target of its own would have 30,000 rows of each part sampled again and again.
#[tokio::test(flavor = "multi_thread")]
async fn each_column_of_the_log_says_how_much_of_it_is_sampled() {
    let postgres = Fixture::postgres().await;
    let silent = without_target(&postgres).await;
    assert!(silent.is_empty(), "{silent:?}");
}

async fn parts_of_the_log(fixture: &Fixture) -> i64 {
    let parts = "select count(*) from pg_inherits where inhparent = 'messages'::regclass";
    fixture.number(parts).await
}

/// What a batch of so many sends of one person is stored as.
async fn send(fixture: &Fixture, to: ConversationId, from: UserId, sends: usize) -> Vec<i64> {
    let batch: Vec<_> = (0..sends).map(|_| message(to, from, "hello")).collect();
    let outcomes = fixture.store.append(&batch, Wait::No, NOW).await.unwrap();
    outcomes
        .iter()
        .map(|outcome| stored(outcome).seq.0)
        .collect()
}

/// Columns of the log and the journal without a target of their own for how much of them is sampled.
async fn without_target(fixture: &Fixture) -> Vec<String> {
    let silent = "select c.relname || '.' || a.attname from pg_class c \
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
        where c.relkind in ('r', 'p') and coalesce(a.attstattarget, -1) not between 0 and 10 \
          and (c.relname ~ '^messages' or c.relname = 'journal')";
    sqlx::query_scalar(silent)
        .fetch_all(&mut fixture.postgres_connection().await)
        .await
        .unwrap()
}

/// The log as it was before migration 6, which has not been run yet.
async fn before_four_parts(fixture: &Fixture) {
    for part in 0..4 {
        fixture.sql(&format!("drop table messages_{part:02}")).await;
    }
    for part in 0..16 {
        let statement = format!(
            "create table messages_{part:02} partition of messages \
             for values with (modulus 16, remainder {part})"
        );
        fixture.sql(&statement).await;
    }
    let forget = "delete from _sqlx_migrations where version = 6";
    fixture.sql(forget).await;
}

/// A node that was there before goes on afterwards: its statements were prepared for the old parts.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_use_keeps_its_parts_and_an_empty_one_gets_four() {
    let fixture = Fixture::postgres().await;
    assert_eq!(parts_of_the_log(&fixture).await, 4);
    before_four_parts(&fixture).await;
    let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
    let id = fixture.direct(alice, bob).await;
    assert_eq!(send(&fixture, id, alice, 1).await, [1]);
    assert_eq!(send(&fixture, id, alice, 2).await, [2, 3]);

    store::migrate(&fixture.options).await.unwrap();
    assert_eq!(parts_of_the_log(&fixture).await, 16);
    assert_eq!(seqs(&fixture.log(id).await), [1, 2, 3]);

    fixture.sql("truncate messages").await;
    fixture
        .sql("delete from _sqlx_migrations where version = 6")
        .await;
    store::migrate(&fixture.options).await.unwrap();
    assert_eq!(parts_of_the_log(&fixture).await, 4);
    assert_eq!(send(&fixture, id, alice, 1).await, [4]);
    assert_eq!(send(&fixture, id, alice, 2).await, [5, 6]);
    assert_eq!(seqs(&fixture.log(id).await), [4, 5, 6]);
}

/// What OPERATIONS tells those to do whose log was in use.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_can_be_moved_into_four_parts_by_hand() {
    let fixture = Fixture::postgres().await;
    before_four_parts(&fixture).await;
    let alice = fixture.user("alice").await;
    let mut ids = Vec::new();
    for n in 0..20 {
        let peer = fixture.user(&format!("peer-{n}")).await;
        let id = fixture.direct(alice, peer).await;
        assert_eq!(send(&fixture, id, alice, 3).await, [1, 2, 3]);
        ids.push(id);
    }
    let (_, rest) = include_str!("../../docs/OPERATIONS.md")
        .split_once("-- The log moves into four parts.\n")
        .unwrap();
    let (statements, _) = rest.split_once("```").unwrap();
    let (move_it, vacuum) = statements.rsplit_once("vacuum").unwrap();
    fixture.sql(move_it).await;
    fixture.sql(&format!("vacuum{vacuum}")).await;
    assert_eq!(without_target(&fixture).await, [""; 0]);
    assert_eq!(parts_of_the_log(&fixture).await, 4);
    for id in ids {
        assert_eq!(send(&fixture, id, alice, 1).await, [4]);
        assert_eq!(seqs(&fixture.log(id).await), [1, 2, 3, 4]);
    }
}

/// The files are compiled in; a new one that was not would be missed in production only.
#[tokio::test(flavor = "multi_thread")]
async fn every_migration_file_is_compiled_in() {
    let folder = tempfile::tempdir().unwrap();
    for (is_postgres, name) in [(true, "postgres"), (false, "sqlite")] {
        let files = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("migrations")
            .join(name);
        let mut names: Vec<String> = std::fs::read_dir(files)
            .unwrap()
            .map(|file| {
                file.unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        names.sort();
        let options = unmigrated(is_postgres, folder.path()).await;
        let pending = store::pending(&options).await.unwrap();
        let pending: Vec<String> = pending.iter().map(|name| name.replace(' ', "_")).collect();
        assert_eq!(pending, names);
        store::migrate(&options).await.unwrap();
        assert!(store::pending(&options).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_may_migrate_at_once() {
    // A file of its own each time: that it is busy while another opens it is a matter of luck.
    for is_postgres in std::iter::once(true).chain([false; 8]) {
        let folder = tempfile::tempdir().unwrap();
        let options = unmigrated(is_postgres, folder.path()).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let options = options.clone();
            tasks.spawn(async move { store::migrate(&options).await });
        }
        for result in tasks.join_all().await {
            result.unwrap();
        }
    }
}

contract! {
    async fn migrating_again_keeps_everything(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let epoch = fixture.store.epoch().await.unwrap();
        store::migrate(&fixture.options).await.unwrap();
        assert!(fixture.store.user(alice).await.unwrap().is_some());
        assert_eq!(fixture.store.epoch().await.unwrap(), epoch);
    }

    async fn a_schema_of_the_next_release_is_good_and_of_a_later_one_is_not(fixture: Fixture) {
        let release = async |number: i64| {
            let statement =
                format!("update meta set value = '{number}' where key = 'schema_release'");
            fixture.sql(&statement).await;
        };
        // The next release has a migration that this binary has never heard of.
        let unknown = if fixture.options.is_postgres() {
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
             values (9999, 'later', true, ''::bytea, 1)"
        } else {
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
             values (9999, 'later', true, x'', 1)"
        };
        fixture.sql(unknown).await;
        release(3).await;
        store::migrate(&fixture.options).await.unwrap();
        assert!(store::pending(&fixture.options).await.unwrap().is_empty());
        release(4).await;
        for refused in [
            store::migrate(&fixture.options).await,
            store::pending(&fixture.options).await.map(drop),
        ] {
            match refused {
                Err(StoreError::Schema(why)) => assert!(why.contains("release 4"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
