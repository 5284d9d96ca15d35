//! Addresses and databases that somebody else has, or that cannot be had.

use std::net::TcpListener;

use super::process::{Process, sqlite};

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_setting() {
    for setting in ["LISTEN_ADDR", "OPS_ADDR"] {
        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = other.local_addr().expect("it is bound").to_string();
        let node = Process::start(&["serve"], &[(setting, &address)]);
        let (code, log) = node.ended().await;
        assert_eq!(code, 6, "{log}");
        let words = format!("{setting}: cannot listen on {address}: ");
        assert!(log.contains(&words), "no \"{words}\" in:\n{log}");
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_refused() {
    // TEST-NET-1, RFC 5737: nobody has it.
    let node = Process::start(&["serve"], &[("LISTEN_ADDR", "192.0.2.1:8080")]);
    let (code, log) = node.ended().await;
    assert_eq!(code, 2, "{log}");
    assert!(
        log.contains("LISTEN_ADDR: cannot listen on 192.0.2.1:8080"),
        "{log}"
    );
}

#[tokio::test]
async fn a_second_node_on_a_database_without_redis_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = sqlite(folder.path());
    let first = Process::start(&["serve"], &[("DATABASE_URL", &database)]);
    first.is_ready().await;
    let second = Process::start(&["serve"], &[("DATABASE_URL", &database)]);
    let (code, log) = second.ended().await;
    assert_eq!(code, 6, "{log}");
    assert!(log.contains("another node uses this database"), "{log}");
    assert_eq!(first.stopped().await.0, 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text.db");
    std::fs::write(&text, "is no database\n".repeat(100)).expect("a file");
    let no_folder = folder.path().join("none").join("rookery.db");
    for (file, why) in [(&no_folder, ""), (&text, "is not a database")] {
        let url = format!("sqlite://{}?mode=rwc", file.display());
        for command in ["serve", "migrate"] {
            let process = Process::start(&[command], &[("DATABASE_URL", &url)]);
            let (code, log) = process.ended().await;
            assert_eq!(code, 4, "{log}");
            let named = format!("{} cannot be opened (", file.display());
            for words in [&named, why, "its folder must be there", "DATABASE_URL"] {
                assert!(log.contains(words), "no \"{words}\" in:\n{log}");
            }
        }
    }
}
