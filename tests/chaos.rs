//! `make chaos` in small: the whole road from the plan to the verdict, so that it works when it is
//! needed.

use clap::Parser;
use rookery_chaos::Options;

#[tokio::test(flavor = "multi_thread")]
async fn a_short_run_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().to_str().unwrap();
    let options = Options::parse_from([
        "rookery-chaos",
        "--binary",
        env!("CARGO_BIN_EXE_rookery"),
        "--report",
        report,
        // In its first round the keys change and the annex is killed.
        "--seed",
        "2271",
        "--minutes",
        "0.15",
        "--people",
        "6",
        "--rate",
        "40",
        "--kinds",
        "redis-kill-pubsub,client-flap,redis-pushes-dropped,keys-change,sqlite-kill,message-id-race",
        "--keep",
    ]);
    let run = rookery_chaos::run(options).await.unwrap();
    let written = std::fs::read_to_string(folder.path().join("seed-2271/report.md")).unwrap();
    assert!(run.is_clean(), "{written}");
    assert!(
        !run.is_complete(),
        "nine seconds are not three times six faults"
    );
    assert!(written.contains("| `keys-change` | 1 "), "{written}");
    assert!(written.contains("| `sqlite-kill` | "), "{written}");
    assert!(!written.contains("| `sqlite-kill` | 0 "), "{written}");
    assert!(run.faults() > 0 && run.acked() > 0, "{written}");
}

#[tokio::test]
async fn a_cluster_that_does_not_start_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().to_str().unwrap();
    let options = [
        "rookery-chaos",
        "--binary",
        "/bin/false",
        "--report",
        report,
    ];
    let run = rookery_chaos::run(Options::parse_from(options)).await;
    let Err(error) = run else {
        panic!("there is nothing to run");
    };
    let error = format!("{error:#}");
    assert!(error.contains("the cluster does not start"), "{error}");
}
