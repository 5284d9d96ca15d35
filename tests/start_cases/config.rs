//! `rookery config`, and a node whose configuration cannot work.

use super::process::{Process, SECRET};

#[tokio::test]
async fn the_configuration_is_shown_without_secrets_and_with_its_origins() {
    let settings = [
        ("DATABASE_URL", "postgres://rookery:hush-hush@db/rookery"),
        SECRET,
    ];
    let (code, shown) = Process::start(&["config"], &settings).ended().await;
    assert_eq!(code, 0, "{shown}");
    for words in [
        "postgres://rookery:redacted@db/rookery",
        "# DATABASE_URL, from the environment",
        "# NODE_ID, default",
    ] {
        assert!(shown.contains(words), "no \"{words}\" in:\n{shown}");
    }
    assert!(
        !shown.contains("hush-hush") && !shown.contains(SECRET.1),
        "{shown}"
    );
    let (code, shown) = Process::start(&["config", "--check"], &settings)
        .ended()
        .await;
    assert_eq!((code, shown.as_str()), (0, ""));
}

#[tokio::test]
async fn what_cannot_work_is_refused_by_every_command_that_reads_it() {
    let settings = [
        ("ROOKERY_LIMITS_SOCKETS", "0"),
        ("LOG_FORMAT", "xml"),
        ("ROOKERY_LIMIT_SOCKETS", "1"),
        ("JWT_SECRET", "CHANGE_ME CHANGE_ME CHANGE_ME CHANGE_ME"),
    ];
    for arguments in [
        &["serve"][..],
        &["migrate"],
        &["config"],
        &["config", "--check"],
        &["healthcheck"],
    ] {
        let (code, log) = Process::start(arguments, &settings).ended().await;
        assert_eq!(code, 2, "{arguments:?}: {log}");
        for words in [
            "ROOKERY_LIMITS_SOCKETS: \"0\" is not a whole number from 1 to 1000000",
            "LOG_FORMAT: \"xml\" is neither pretty nor json",
            "there is no variable ROOKERY_LIMIT_SOCKETS; did you mean ROOKERY_LIMITS_SOCKETS?",
            "JWT_SECRET: this is an example and no secret",
        ] {
            assert!(
                log.contains(words),
                "{arguments:?}: no \"{words}\" in:\n{log}"
            );
        }
        assert!(!log.contains("CHANGE_ME"), "{log}");
    }
}
