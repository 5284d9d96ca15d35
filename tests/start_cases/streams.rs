//! Standard output and standard error that are full, or that nobody reads.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use super::process::Process;

fn full() -> OwnedFd {
    let full = File::options().write(true).open("/dev/full");
    full.expect("this is Linux").into()
}

/// A pipe whose reader has gone.
fn deserted() -> OwnedFd {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[tokio::test]
async fn a_node_serves_though_nobody_reads_what_it_says() {
    for output in [full(), deserted()] {
        let node = Process::start_to(output, &["serve"], &[]);
        node.is_ready().await;
        assert_eq!(node.stopped().await.0, 0);
    }
}

#[tokio::test]
async fn commands_end_with_their_codes_though_nobody_reads_what_they_say() {
    for (output, settings, expected) in [
        (deserted(), &[][..], 0),
        (full(), &[], 1),
        (full(), &[("LOG_FORMAT", "xml")], 2),
        (deserted(), &[("LOG_FORMAT", "xml")], 2),
    ] {
        let command = Process::start_to(output, &["config"], settings);
        assert_eq!(command.ended().await.0, expected, "{settings:?}");
    }
}
