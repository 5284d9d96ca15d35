//! What can be known before anything is measured: an hour into a scenario is too late to learn it.

use anyhow::{Context, ensure};
use reqwest::Url;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::options::{Common, Kind};
use crate::population::{self, LONGEST_RUN};
use crate::scenario::Scenario;
use crate::threshold::Threshold;

/// Files that a run needs besides its sockets.
const SPARE_FILES: u64 = 200;

/// Whether all of a scenario can be done, and its thresholds are about runs with these names. Allows
/// this process, and what it starts, as many open files as the system lets it.
///
/// # Errors
/// What cannot be done.
pub(crate) fn before(scenario: &Scenario, common: &Common, names: &[String]) -> anyhow::Result<()> {
    for target in &common.target {
        url(target)?;
    }
    for threshold in scenario.thresholds.iter().chain(&common.threshold) {
        about_a_run(threshold, names)?;
    }
    let files = raise_open_files();
    for planned in &scenario.runs {
        let able = enough_files(planned.kind.sockets(), files)
            .and_then(|()| may_do(&planned.kind, common))
            .and_then(|()| has_room(&planned.kind, common));
        able.with_context(|| planned.name.clone())?;
    }
    Ok(())
}

fn url(target: &str) -> anyhow::Result<()> {
    let wanted = "wanted is the address of a node, or of what stands before nodes, such as http://127.0.0.1:8080";
    let url = Url::parse(target).ok().filter(Url::has_host);
    let url = url.with_context(|| format!("{target} is no URL: {wanted}"))?;
    // Not shown: what is said is passed on.
    let more = url.username().len() + url.password().map_or(0, str::len);
    ensure!(
        more == 0 && url.query().is_none() && url.fragment().is_none(),
        "a target with a name, a password, a query or a fragment: {wanted}"
    );
    ensure!(
        matches!(url.scheme(), "http" | "https"),
        "{target} is not HTTP: {wanted}"
    );
    Ok(())
}

fn about_a_run(threshold: &Threshold, names: &[String]) -> anyhow::Result<()> {
    for run in threshold.runs() {
        ensure!(
            names.iter().any(|name| name == run),
            "{threshold} is about no run: there is no {run}, there are {}",
            names.join(", ")
        );
    }
    Ok(())
}

/// Each connection is an open file here.
fn enough_files(sockets: u32, limit: u64) -> anyhow::Result<()> {
    let needed = u64::from(sockets) + SPARE_FILES;
    ensure!(
        needed <= limit,
        "{sockets} connections need {needed} open files, and {limit} are allowed: see `ulimit -Hn`"
    );
    Ok(())
}

/// Raises the soft limit to the hard one; returns what is allowed now.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.unwrap_or(u64::MAX)
}

/// What servers of somebody else cannot be used for.
fn may_do(kind: &Kind, common: &Common) -> anyhow::Result<()> {
    if common.target.is_empty() {
        return Ok(());
    }
    if let Some(harm) = kind.does_harm() {
        anyhow::bail!(
            "{} {harm}, and may do so only to servers of its own: leave out --target",
            kind.name()
        );
    }
    ensure!(
        kind.lasts() <= LONGEST_RUN,
        "tokens of registered users live 15 minutes: a run may take {} s at most",
        LONGEST_RUN.as_secs(),
    );
    Ok(())
}

/// For a long log, on the disk where one's own database will be.
fn has_room(kind: &Kind, common: &Common) -> anyhow::Result<()> {
    match kind {
        Kind::History(options) if common.target.is_empty() => {
            population::has_room(&std::env::temp_dir(), options.messages)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_and_whole() {
        for good in ["http://127.0.0.1:8080", "http://[::1]:1/", "https://a"] {
            url(good).unwrap();
        }
        for (bad, wanted) in [
            ("staging:8080", "is no URL"),
            ("127.0.0.1:8080", "is no URL"),
            ("", "is no URL"),
            ("ftp://staging", "is not HTTP"),
        ] {
            let error = url(bad).unwrap_err().to_string();
            assert!(error.starts_with(bad) && error.contains(wanted), "{error}");
        }
        for secret in [
            "http://ann:hunter2@a",
            "http://a/?token=hunter2",
            "http://a/#hunter2",
        ] {
            let error = url(secret).unwrap_err().to_string();
            assert!(error.starts_with("a target with") && !error.contains("hunter2"));
        }
    }

    #[test]
    fn open_files_are_raised_as_far_as_they_may() {
        let raised = raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(limit.maximum.unwrap_or(u64::MAX), raised);
        enough_files(100, 300).unwrap();
        let error = enough_files(101, 300).unwrap_err().to_string();
        assert!(error.contains("301 open files, and 300"), "{error}");
    }
}
