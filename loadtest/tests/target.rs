//! The program against a node that somebody else started: a real one, with SQLite and no Redis. That
//! needs the `rookery` binary beside it, which `cargo test --workspace` builds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rookery_client::{Api, ApiError, Connect, Socket};
use rookery_protocol::rest::{Login, Register};
use rookery_test_support::plain_http;
use rookery_test_support::servers::Nginx;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

const LOADTEST: &str = env!("CARGO_BIN_EXE_rookery-loadtest");
/// A cold start, on a machine that compiles meanwhile.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Killed when dropped.
struct Node {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [listen, ops] = [free_address(), free_address()];
        let program = Path::new(LOADTEST).with_file_name("rookery");
        let child = Command::new(&program)
            .arg("serve")
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .env("LISTEN_ADDR", &listen)
            .env("OPS_ADDR", &ops)
            .env("DATA_DIR", folder.path())
            .env("ROOKERY_RATES_ENABLED", "false")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let readyz = format!("http://{ops}/readyz");
        let begun = Instant::now();
        let http = plain_http();
        while !http
            .get(&readyz)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            assert!(begun.elapsed() < STARTS_WITHIN, "the node is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self {
            child,
            url: format!("http://{listen}"),
            _folder: folder,
        }
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("a node that runs").to_string();
        let kill = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(kill.await.unwrap().success());
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The load test, and the lines that it writes to stderr.
struct UnderWay {
    child: Child,
    stderr: BufReader<ChildStderr>,
    words: String,
}

impl UnderWay {
    fn start(arguments: &[&str]) -> Self {
        Self::begin(Command::new(LOADTEST).args(arguments))
    }

    fn begin(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            stderr,
            words: String::new(),
        }
    }

    /// Waits for a line that begins like this.
    async fn says(&mut self, begin: &str) {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).await.unwrap();
            assert!(read > 0, "{begin:?} was never said: {}", self.words);
            self.words.push_str(&line);
            if line.starts_with(begin) {
                return;
            }
        }
    }

    /// How it ended, and all that it said.
    async fn end(mut self) -> (Option<i32>, String) {
        self.stderr.read_to_string(&mut self.words).await.unwrap();
        let Output { status, stdout, .. } = self.child.wait_with_output().await.unwrap();
        self.words.push_str(&String::from_utf8_lossy(&stdout));
        (status.code(), self.words)
    }
}

fn read(path: &Path) -> Value {
    let text = std::fs::read(path).expect("a file that can be read");
    serde_json::from_slice(&text).expect("a file of JSON")
}

/// Four people in two pairs, who write for so long.
fn few<'a>(target: &'a str, report: &'a Path, seconds: &'a str) -> Vec<&'a str> {
    let line = "direct --users 4 --rate 40 --warmup 0";
    let report = ["--target", target, "--report", report.to_str().unwrap()];
    let words = [line, seconds].into_iter().flat_map(|line| line.split(' '));
    words.chain(report).collect()
}

#[tokio::test]
async fn a_node_that_stops_answering_breaks_a_promise_and_shows_in_the_latencies() {
    let (node, folder) = (Node::start().await, tempfile::tempdir().unwrap());
    let report = folder.path().join("report.json");
    let mut run = UnderWay::start(&few(&node.url, &report, "--seconds 6"));
    run.says("measuring").await;
    node.signal("STOP").await;
    let (code, words) = run.end().await;
    assert_eq!(code, Some(1), "{words}");
    let run = &read(&report)["runs"][0];
    let unanswered = run["oracle"]["unanswered"].as_u64().unwrap();
    assert!(unanswered > 0, "{words}");
    for latency in ["ack", "deliver"] {
        let found = &run["latencies"][latency];
        // What was sent last waited for ten seconds.
        assert!(found["max_ms"].as_f64().unwrap() >= 10_000.0, "{words}");
        assert!(found["count"].as_u64().unwrap() >= unanswered, "{words}");
    }
}

#[tokio::test]
async fn a_pair_that_is_sent_away_for_good_breaks_a_promise() {
    let (node, folder) = (Node::start().await, tempfile::tempdir().unwrap());
    let report = folder.path().join("report.json");
    let observer = observer(&node.url).await;
    let mut run = UnderWay::start(&few(&node.url, &report, "--seconds 45"));
    run.says("measuring").await;
    log_somebody_out(&observer).await;
    let (code, words) = run.end().await;
    assert_eq!(code, Some(1), "{words}");
    let run = &read(&report)["runs"][0];
    assert_eq!(run["oracle"]["pairs that gave up"], 1, "{words}");
    assert!(
        words.contains("a pair gave up: closed with 4001"),
        "{words}"
    );
    assert!(run["oracle"]["unanswered"].as_u64().unwrap() > 0, "{words}");
}

#[tokio::test]
async fn what_a_system_allows_is_used_and_a_run_for_other_nodes_is_driven_all_the_same() {
    let (node, folder) = (Node::start().await, tempfile::tempdir().unwrap());
    let scenario = folder.path().join("idle.toml");
    let text = "about = 'x'\n[[run]]\nkind = 'idle'\nnodes = 3\nconnections = 2\n\
                conversations = 0\nwatch = 1\n";
    std::fs::write(&scenario, text).unwrap();
    let report = folder.path().join("report.json");
    // Fewer open files than the load test keeps for itself, until it asks for more.
    let line = "ulimit -Sn 100; exec \"$0\" run \"$1\" --target \"$2\" --report \"$3\" \
                --threshold 'idle.resident_mib<=100'";
    let output = Command::new("/bin/sh")
        .args(["-c", line, LOADTEST])
        .args([scenario.as_os_str(), node.url.as_ref(), report.as_os_str()])
        .output();
    let output = output.await.unwrap();
    let words = [output.stderr, output.stdout].map(|words| String::from_utf8(words).unwrap());
    let words = words.concat();
    assert_eq!(output.status.code(), Some(1), "{words}");
    // Nobody said which processes the nodes are.
    let missing = "NOT MEASURED idle.resident_mib<=100 (there is no idle.resident_mib)";
    assert!(words.contains(missing), "{words}");
    let run = &read(&report)["runs"][0];
    assert_eq!(run["oracle"]["idle sockets closed"], 0, "{words}");
    for note in ["meant for 3 nodes, and driven on 1", "--pids gateway=12,13"] {
        assert!(words.contains(note), "{words}");
    }
}

#[tokio::test]
async fn a_group_that_speaks_messagepack_is_read_too() {
    let (node, folder) = (Node::start().await, tempfile::tempdir().unwrap());
    let report = folder.path().join("report.json");
    let line = "group --members 3 --warmup 0 --seconds 1 --format msgpack";
    let rest = ["--target", &node.url, "--report", report.to_str().unwrap()];
    let arguments: Vec<&str> = line.split(' ').chain(rest).collect();
    let (code, words) = UnderWay::start(&arguments).end().await;
    assert_eq!(code, Some(0), "{words}");
    let run = &read(&report)["runs"][0];
    assert!(
        run["metrics"]["deliveries_per_s"].as_f64().unwrap() > 0.0,
        "{words}"
    );
    for promise in ["unanswered", "refused", "messages that nobody wrote"] {
        assert_eq!(run["oracle"][promise], 0, "{words}");
    }
}

#[tokio::test]
async fn what_stands_behind_tls_is_driven_if_its_certificate_is_trusted() {
    let (node, folder) = (Node::start().await, tempfile::tempdir().unwrap());
    let upstream = node.url.trim_start_matches("http://").parse().unwrap();
    let nginx = Nginx::start_with_tls(&[upstream]).await.unwrap();
    let (report, url) = (folder.path().join("report.json"), nginx.tls_url().unwrap());
    let arguments = few(&url, &report, "--seconds 1");

    let (code, words) = UnderWay::start(&arguments).end().await;
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("UnknownIssuer (the system"), "{words}");
    assert!(words.contains("SSL_CERT_FILE"), "{words}");
    let refused = Socket::connect(&url, &Connect::default()).await;
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("SSL_CERT_FILE"), "{error}");

    let mut trusting = Command::new(LOADTEST);
    trusting.args(&arguments);
    trusting.env("SSL_CERT_FILE", nginx.certificate());
    let (code, words) = UnderWay::begin(&mut trusting).end().await;
    assert_eq!(code, Some(0), "{words}");
    let run = &read(&report)["runs"][0];
    assert!(run["latencies"]["deliver"]["count"].as_u64().unwrap() > 0);
    assert!(nginx.access_log().unwrap().contains("/ws"));

    // Who needs no certificate misses none.
    let mut plain = Command::new(LOADTEST);
    plain.args(few(&node.url, &report, "--seconds 1"));
    plain.env("SSL_CERT_FILE", "/nonexistent");
    let (code, words) = UnderWay::begin(&mut plain).end().await;
    assert_eq!(code, Some(0), "{words}");
}

/// Somebody who may search.
async fn observer(url: &str) -> Api {
    let observer = Register {
        username: "observer".to_owned(),
        email: "observer@example.org".to_owned(),
        password: "who looks for people".to_owned(),
        full_name: None,
        device_name: None,
    };
    let api = Api::new(url);
    let tokens = patiently(async || api.register(&observer).await).await;
    api.with_token(&tokens.access_token)
}

/// Ends all sessions of one of the load test's people.
async fn log_somebody_out(observer: &Api) {
    let found = observer.search_users("load-").await.unwrap();
    let username = found.items[0].username.clone();
    let login = Login {
        password: format!("{username} is not a person"),
        login: username,
        device_name: None,
    };
    let tokens = patiently(async || observer.login(&login).await).await;
    let api = observer.with_token(&tokens.access_token);
    api.logout_all().await.unwrap();
}

/// Passwords wait for a busy machine, and a node says so.
async fn patiently<T>(call: impl AsyncFn() -> Result<T, ApiError>) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(begun.elapsed() < STARTS_WITHIN, "{error}"),
        }
    }
}
