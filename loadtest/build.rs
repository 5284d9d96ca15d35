//! Puts the commit that the load test is built from into it: reports name it, wherever they are made.

use std::path::Path;
use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    // Not ROOKERY_…: cargo hands it on to what it runs, and nodes refuse such variables that they do
    // not know.
    println!("cargo::rustc-env=LOADTEST_COMMIT={commit}");
    println!("cargo::rerun-if-changed=build.rs");
    // What a commit or a checkout changes; one that is not there would mean a build each time.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "logs/HEAD", "packed-refs"].map(str::to_owned);
    for file in files.into_iter().chain(branch) {
        let path = git(&["rev-parse", "--git-path", &file]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git says; nothing where there is none, or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
