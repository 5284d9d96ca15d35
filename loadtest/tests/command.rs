//! The program as it is called: what it answers to mistakes, and one small run against a real
//! cluster. That needs the `rookery` binary beside it, which `cargo test --workspace` builds, and
//! Debian's `postgresql` and `redis-server`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const LOADTEST: &str = env!("CARGO_BIN_EXE_rookery-loadtest");

/// Everything that needs no settling time, as short as it can be.
const TINY: &str = "about = 'a test'
thresholds = ['direct.delivered_per_s>=1', 'page.page_p99_ms<=0.000001']
[[run]]
kind = 'direct'
users = 4
warmup = 0
seconds = 1
[[run]]
kind = 'history'
name = 'page'
messages = 200
conversations = 2
rate = 10
seconds = 1
[[run]]
kind = 'history'
name = 'longer'
messages = 300
conversations = 2
rate = 10
seconds = 1
[[run]]
kind = 'history'
name = 'anew'
fresh = true
messages = 300
conversations = 2
rate = 10
seconds = 1
";

/// Lasts longer than any test waits.
const LONG: &str = "about = 'a test'
[[run]]
kind = 'presence'
groups = 2
rate = 5
seconds = 1
[[run]]
kind = 'direct'
users = 4
seconds = 600
";

/// What is done to servers, at a small size. A busy machine may be slow, but not beyond these. While
/// Redis goes and comes a pair has one message, and would have its next after thirteen seconds, when
/// the run is over: what was missed cannot wait for that.
const HARM: &str = "about = 'a test'
thresholds = ['restart.repaired_ms<=12000', 'restart.arrived_ms<=12000', 'restart.missed_devices>=5',
    'drain.failed_sends<=0', 'drain.sockets>=20', 'drain.returned>=20', 'drain.hinted>=20']
[[run]]
kind = 'redis-restart'
name = 'restart'
nodes = 2
users = 80
rate = 3
down = 3
warmup = 0
[[run]]
kind = 'drain'
nodes = 2
users = 40
rate = 80
warmup = 0
seconds = 20
";

/// A peer that no machine has.
const ABSENT: &str = "about = 'x'
persistence = 'none'
dialect = 'rookery'
schema = 'schema.sql'
installed = 'no-such-program-anywhere'
version = ['true']
";

/// A comparison with runs of Rookery alone, and a bound on a peer that is not asked for.
const COMPARED: &str = "about = 'x'
thresholds = ['half-rookery.delivered_per_s>=1', 'direct-absent.delivered_per_s>=1',
    'direct-rookery.delivered_per_s>=1*direct-other.delivered_per_s']
[[run]]
kind = 'direct'
users = 4
warmup = 0
seconds = 1
[[run]]
kind = 'direct'
name = 'half'
users = 4
half_of = 'direct'
warmup = 0
seconds = 1
peers = false
[[run]]
kind = 'group'
members = 3
warmup = 0
seconds = 1
[[run]]
kind = 'history'
messages = 100
conversations = 2
rate = 5
seconds = 1
peers = false
";

/// The program; nothing is measured here, so that files made beforehand would be for nothing.
fn command() -> Command {
    let mut command = Command::new(LOADTEST);
    command.env("LOADTEST_WAL_FILES", "0");
    command
}

fn loadtest(arguments: &[&str]) -> Output {
    let started = command().args(arguments).output();
    started.expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read(path: &Path) -> Value {
    let text = std::fs::read(path).expect("a file that can be read");
    serde_json::from_slice(&text).expect("a file of JSON")
}

#[test]
fn mistakes_are_named_and_nothing_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let report = file("other.json", "{}");
    let typo = file(
        "typo.toml",
        "about = 'x'\n[[run]]\nkind = 'direct'\nuzers = 3",
    );
    let down = "http://127.0.0.1:1";
    for (arguments, wanted) in [
        (vec!["run", "no-such"], "there is no scenario no-such"),
        (vec!["run", &typo], "--uzers"),
        (vec!["direct", "--target", down], "is it running?"),
        (
            vec!["idle", "--connections", "100000000", "--target", down],
            "open files",
        ),
        (vec!["direct", "--threshold", "nonsense"], "is no threshold"),
        (
            // RFC 5737: nobody has it.
            vec!["direct", "--source", "127.0.0.1", "--source", "192.0.2.1"],
            "--source 192.0.2.1: no address of this machine",
        ),
        (
            vec!["--compare", &report, &report],
            "is no report of this version",
        ),
        (
            vec!["redis-restart", "--target", down],
            "kills Redis, and may do so only to servers of its own: leave out --target",
        ),
        (
            vec!["drain", "--target", down],
            "ends a node, and may do so only to servers of its own: leave out --target",
        ),
        (
            vec!["direct", "--rookery", "/no/such/rookery"],
            "there is no /no/such/rookery",
        ),
    ] {
        fails(&arguments, wanted);
    }
}

/// It cannot be done, and this is why.
fn fails(arguments: &[&str], wanted: &str) -> String {
    let output = loadtest(arguments);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {words}");
    assert!(words.contains(wanted), "{arguments:?}: {words}");
    words
}

#[test]
fn what_cannot_be_done_is_said_before_the_first_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let second = |name: &str, run: &str| {
        let text = format!("about = 'x'\n[[run]]\nkind = 'storm'\n[[run]]\n{run}");
        file(name, &text)
    };
    let many = second("many.toml", "kind = 'idle'\nconnections = 100000000");
    let harmful = second("harmful.toml", "kind = 'drain'");
    let slow = second("slow.toml", "kind = 'direct'\nseconds = 600");
    let under_a_file = format!("{many}/report.json");
    let down = "http://127.0.0.1:1";
    for (arguments, wanted) in [
        (vec!["direct", "--target", "127.0.0.1:1"], "is no URL"),
        (
            vec!["direct", "--target", down, "--threshold", "rate.x<=1"],
            "there is no rate, there are direct",
        ),
        (
            vec!["compare", "--peers", "peers", "--threshold", "group-x.y<=1"],
            "there is no group-x, there are ",
        ),
        // The second run is what cannot be done: known before the first.
        (vec!["run", &many, "--target", down], "open files"),
        (
            vec!["run", &harmful, "--target", down],
            "ends a node, and may do so only to servers of its own",
        ),
        (
            vec!["run", &slow, "--target", down],
            "a run may take 600 s at most",
        ),
        (
            vec!["direct", "--target", down, "--report", &under_a_file],
            "making ",
        ),
    ] {
        let words = fails(&arguments, wanted);
        assert!(!words.contains("(1 of"), "a run has begun: {words}");
    }
}

#[test]
fn mistakes_of_a_comparison_are_named_and_nothing_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // Small, so that a mistake that is not found costs seconds and no whole comparison.
    let small = "[[run]]\nkind = 'direct'\nusers = 2\nwarmup = 0\nseconds = 1";
    let fine = file("fine.toml", &format!("about = 'x'\n{small}"));
    let no_run = file(
        "no-run.toml",
        &format!(
            "about = 'x'\nthresholds = ['half-ws.deliver_p99_ms<=12']\n{small}\n\
             {small}\nname = 'half'\nhalf_of = 'direct'\npeers = false"
        ),
    );
    for (more, wanted) in [
        (vec!["--only", "ws,klingon"], "there is no peer klingon"),
        (
            vec!["--scenario", "mixed"],
            "direct (one way, without marks), group and idle only",
        ),
        (
            vec!["--scenario", &no_run],
            "there is no half-ws, there are direct-rookery, half-rookery, direct-ejabberd",
        ),
        (
            vec!["--only", "ws", "--scenario", &no_run],
            "there is no half-ws, there are direct-rookery, half-rookery, direct-ws",
        ),
        (
            vec!["--scenario", &fine, "--threshold", "direct.x<=1"],
            "there is no direct, there are direct-rookery",
        ),
        (vec!["--target", "http://127.0.0.1:1"], "leave out --target"),
    ] {
        let arguments = [&["compare", "--peers", "peers"], &more[..]].concat();
        fails(&arguments, wanted);
    }
}

#[test]
fn a_scenario_leaves_a_report_and_thresholds_set_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("tiny.toml");
    std::fs::write(&scenario, TINY).unwrap();
    let report = folder.path().join("found/report.json");
    let (scenario, path) = (scenario.to_str().unwrap(), report.to_str().unwrap());
    let output = loadtest(&["run", scenario, "--report", path]);
    let words = text(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(1),
        "one threshold is out of reach: {words}"
    );

    let found = read(&report);
    assert_eq!(found["scenario"], "tiny");
    let disk = &found["machine"]["disk"];
    assert!(disk["fsync_ms"].as_f64().unwrap() > 0.0, "{disk}");
    assert_eq!(found["runs"].as_array().unwrap().len(), 4, "{words}");
    // The log of the second run, with a hundred more in it.
    assert_eq!(found["runs"][2]["metrics"]["page_failed"], 0.0);
    assert!(words.contains("messages: 100 of 100"), "{words}");
    assert!(words.contains("messages: 300 of 300"), "{words}");
    let kept: Vec<_> = found["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| &check["kept"])
        .collect();
    assert_eq!(kept, [true, false]);
    assert_eq!(found["runs"][0]["oracle"]["lost"], 0);
    let sample = &found["runs"][0]["samples"][0];
    for role in ["gateway", "postgres", "redis"] {
        assert!(
            sample["memory_bytes"][role].as_u64().unwrap() > 0,
            "{sample}"
        );
    }
    let page = std::fs::read_to_string(report.with_extension("html")).unwrap();
    assert!(page.contains("<polyline"));

    let same = loadtest(&["--compare", path, path]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stdout));
    assert!(text(&same.stdout).contains("0 worse"));
    let changed = folder.path().join("changed.json");
    let compared_with = |change: fn(&mut Value)| {
        let mut report = read(&report);
        change(&mut report);
        std::fs::write(&changed, report.to_string()).unwrap();
        let output = loadtest(&["--compare", path, changed.to_str().unwrap()]);
        (output.status.code(), text(&output.stderr))
    };
    let (code, words) = compared_with(|report| report["problem"] = "it ended".into());
    assert_eq!(code, Some(1), "{words}");
    let (code, words) = compared_with(|report| report["runs"] = Value::Array(Vec::new()));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("nothing to compare"), "{words}");
}

#[test]
fn redis_restarts_and_nodes_drain_under_load_and_no_promise_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("harm.toml");
    std::fs::write(&scenario, HARM).unwrap();
    let report = folder.path().join("report.json");
    let (scenario, path) = (scenario.to_str().unwrap(), report.to_str().unwrap());
    let quick = ["DELAY_SECONDS=1", "WINDOW_SECONDS=2"].map(|it| format!("ROOKERY_DRAIN_{it}"));
    let settings = ["--set", &quick[0], "--set", &quick[1]];
    let output = loadtest(&[&["run", scenario, "--report", path], &settings[..]].concat());
    let words = text(&output.stderr);
    let found = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{words}{found}");

    let found = read(&report);
    let [restart, drain] = [&found["runs"][0], &found["runs"][1]];
    for run in [restart, drain] {
        for promise in [
            "unanswered",
            "pairs that gave up",
            "lost",
            "doubled",
            "reordered",
            "holes",
            "foreign",
            "refused",
        ] {
            assert_eq!(run["oracle"][promise], 0, "{words}");
        }
    }
    let metric = |run: &Value, name: &str| run["metrics"][name].as_f64().expect("a metric");
    assert_eq!(metric(restart, "sockets"), 80.0);
    assert!(metric(restart, "send_late_p99_ms") > 0.0, "{restart}");
    // Of the one that came back.
    assert!(metric(restart, "memory_mib.redis") > 0.0, "{restart}");
    for (run, role) in [(restart, "redis"), (drain, "gateway")] {
        let ended = format!("a process of {role} ended meanwhile");
        assert!(run["notes"].to_string().contains(&ended), "{run}");
    }
    assert!(metric(restart, "channels") >= 80.0, "{restart}");
    assert!(metric(restart, "repaired_ms") >= metric(restart, "resubscribed_ms"));
    // All of the window at the least: they are not thrown out at once.
    assert!(metric(drain, "seconds") >= 1.0, "{drain}");
    assert_eq!(drain["oracle"]["exit codes other than 0"], 0);
}

#[test]
fn a_peer_that_is_not_installed_is_named_and_the_others_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let peer = folder.path().join("absent");
    std::fs::create_dir(&peer).unwrap();
    std::fs::write(peer.join("peer.toml"), ABSENT).unwrap();
    let scenario = folder.path().join("tiny.toml");
    std::fs::write(&scenario, COMPARED).unwrap();
    let report = folder.path().join("compare.json");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (peers, scenario, file) = (path(folder.path()), path(&scenario), path(&report));
    let output = loadtest(&[
        "compare",
        "--peers",
        &peers,
        "--scenario",
        &scenario,
        "--only",
        "absent",
        "--report",
        &file,
    ]);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    let wanted = "absent is not installed: run scripts/install-peers.sh absent";
    assert!(words.contains(wanted), "{words}");

    let found = read(&report);
    assert_eq!(found["servers"][1]["problem"], wanted);
    let names = |run: &Value| run["name"].as_str().map(str::to_owned);
    let names: Vec<_> = found["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(names)
        .collect();
    let wanted = ["direct", "half", "group", "history"].map(|name| format!("{name}-rookery"));
    assert_eq!(names, wanted, "{words}");
    assert_eq!(found["runs"][0]["oracle"]["lost"], 0, "{words}");

    // What Rookery does alone is in the report, and in no table beside peers.
    let half = &found["runs"][1];
    let about = half["about"].as_str().unwrap();
    assert!(about.contains("messages/s in all"), "{about}");
    assert!(about.ends_with("; Rookery alone"), "{about}");
    assert_eq!(half["compared"], Value::Null);
    assert_eq!(found["runs"][0]["compared"]["run"], "direct");
    assert!(words.contains("half-rookery (2 of 4)"), "{words}");
    for ending in ["md", "html"] {
        let page = std::fs::read_to_string(report.with_extension(ending)).unwrap();
        for part in ["half-rookery", "; Rookery alone", "Compared: group"] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        for part in ["Compared: half", "Compared: history"] {
            assert!(!page.contains(part), "{part} has no place in\n{page}");
        }
    }
    let bound = |check: &Value| (check["threshold"].clone(), check["kept"].clone());
    let bounds: Vec<_> = found["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(bound)
        .collect();
    let wanted = [
        ("half-rookery.delivered_per_s>=1", true),
        ("direct-absent.delivered_per_s>=1", false),
    ];
    assert_eq!(
        bounds,
        wanted.map(|(bound, kept)| (bound.into(), kept.into()))
    );
}

#[test]
fn a_peer_that_cannot_be_installed_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let program = |path: &str, text: &str| {
        let source = folder.path().join("source");
        std::fs::write(&source, text).unwrap();
        // By another process: what a neighbouring test starts has the files that are open here for a
        // moment, and a program that somebody has open for writing cannot be started.
        let mut install = Command::new("install");
        install.args(["-D", "-m", "755"]).arg(source);
        let made = install.arg(folder.path().join(path)).status();
        assert!(made.unwrap().success());
    };
    let script = include_str!("../../scripts/install-peers.sh");
    program("scripts/install-peers.sh", script);
    for peer in ["ws", "socketio"] {
        program(&format!("loadtest/peers/{peer}/package-lock.json"), "{}");
    }
    // npm that brings what socketio needs, and fails for ws.
    program("bin/node", "#!/bin/sh\n");
    let npm = "#!/bin/sh\ncase $3 in *ws) exit 1 ;; esac\nmkdir \"$3/node_modules\"\n";
    program("bin/npm", npm);
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(folder.path().join("scripts/install-peers.sh"))
        .args(["ws", "socketio"])
        .env("PATH", format!("{}/bin:{path}", folder.path().display()))
        .output()
        .unwrap();
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(words.contains("not installed: ws\n"), "{words}");
    let installed = "loadtest/peers/socketio/node_modules/.package-lock.json";
    assert!(folder.path().join(installed).is_file(), "{words}");
}

#[test]
fn what_was_measured_before_an_interruption_is_kept() {
    for signal in ["INT", "TERM", "KILL"] {
        interrupted_by(signal);
    }
}

fn interrupted_by(signal: &str) {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("long.toml");
    std::fs::write(&scenario, LONG).unwrap();
    let report = folder.path().join("report.json");
    let mut child = command()
        .args([
            "run".as_ref(),
            scenario.as_os_str(),
            "--report".as_ref(),
            report.as_os_str(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let begun = lines.by_ref().find(|line| line.contains("acked/s"));
    assert!(begun.is_some(), "the second run never began");
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .unwrap()
            .success()
    );
    let last = lines.last();
    // Who is killed writes nothing more: the first run is in the report already.
    let (code, problem, wanted) = match signal {
        "KILL" => (None, "ended after 1 runs", &["presence"][..]),
        _ => (
            Some(130),
            "interrupted during direct",
            &["presence", "direct"][..],
        ),
    };
    let ended = child.wait().expect("a child of this process");
    assert_eq!(ended.code(), code, "{signal}: {last:?}");
    let found = read(&report);
    assert_eq!(found["problem"], problem);
    let names: Vec<_> = found["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| &run["name"])
        .collect();
    assert_eq!(names, wanted);
    assert!(
        found["runs"][0]["latencies"]["seen"]["count"]
            .as_u64()
            .unwrap()
            > 0
    );
}
