//! Every refusal, and what a start leaves behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const SECRET: &str = "a secret of at least thirty-two bytes";

fn check(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::check(None, &variables.iter().copied().collect())
}

fn problems(variables: &[(&str, &str)]) -> Vec<String> {
    check(variables)
        .err()
        .map(|e| e.problems)
        .unwrap_or_default()
}

#[test]
fn nothing_has_to_be_set() {
    let config = check(&[]).unwrap();
    assert_eq!(config.database.url.expose(), "sqlite://./data/rookery.db");
    assert_eq!(config.http.listen_addr.to_string(), "127.0.0.1:8080");
    assert_eq!(config.limits.sockets, 15_000);
    assert_eq!(config.drain.window.as_secs(), 20);
    assert!(config.rates.enabled);
    assert!(!config.is_cluster());
    assert!(config.auth.keys.is_empty(), "a check makes no secret");
}

#[test]
fn a_cluster_needs_three_variables() {
    let config = check(&[
        ("DATABASE_URL", "postgres://chat:pw@db/chat"),
        ("REDIS_URL", "redis://redis:6379/0"),
        ("JWT_SECRET", SECRET),
    ])
    .unwrap();
    assert!(config.is_cluster());
    assert_eq!(config.auth.keys.len(), 1);
}

/// Variables, and words that the refusal must contain: what is wrong, what to set.
type Refusal = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const REFUSALS: &[Refusal] = &[
    (
        &[("DATABASE_URL", "mysql://db/chat")],
        &["DATABASE_URL", "sqlite://", "postgres://"],
    ),
    (
        &[("DATABASE_URL", "sqlite::memory:")],
        &["DATABASE_URL", "memory", "sqlite://path"],
    ),
    (
        &[("DATABASE_URL", "sqlite://")],
        &["DATABASE_URL", "file is missing"],
    ),
    (
        &[("DATABASE_URL", "postgres://db:port/chat")],
        &["DATABASE_URL", "not a URL"],
    ),
    (
        &[("DATABASE_REPLICA_URL", "postgres://db/chat")],
        &["DATABASE_REPLICA_URL", "PostgreSQL"],
    ),
    (
        &[("DATABASE_POOL_MAX", "0")],
        &["DATABASE_POOL_MAX", "at least 2"],
    ),
    (
        &[("DATABASE_STATEMENT_CACHE", "-1")],
        &["DATABASE_STATEMENT_CACHE", "at least 0"],
    ),
    (
        &[("REDIS_URL", "redis://r"), ("JWT_SECRET", SECRET)],
        &["REDIS_URL", "SQLite", "set DATABASE_URL"],
    ),
    (
        &[
            ("REDIS_URL", "redis://r"),
            ("DATABASE_URL", "postgres://db/chat"),
        ],
        &["REDIS_URL", "set JWT_SECRET"],
    ),
    (
        &[("REDIS_URL", "redis-sentinel://r:26379?node=s:26379")],
        &["REDIS_URL", "sentinelServiceName"],
    ),
    (
        &[(
            "REDIS_URL",
            "redis-sentinel://r:26379?node=s&sentinelServiceName=m",
        )],
        &["REDIS_URL", "node=s is no host:port"],
    ),
    (
        &[(
            "REDIS_URL",
            "redis-sentinel://r:26379?sentinelService=mymaster",
        )],
        &["REDIS_URL", "no parameter sentinelService"],
    ),
    (
        &[("REDIS_URL", "rediss-cluster://r:7000")],
        &["REDIS_URL", "not yet"],
    ),
    (&[("REDIS_URL", "http://r")], &["REDIS_URL", "redis://"]),
    (
        &[("REDIS_URL", "redis://r/chat")],
        &["REDIS_URL", "database number"],
    ),
    (
        &[("REDIS_URL", "redis:///0")],
        &["REDIS_URL", "host is missing"],
    ),
    (
        &[("JWT_SECRET", "short")],
        &["JWT_SECRET", "32 bytes", "has 5"],
    ),
    (
        &[("JWT_SECRETS_PREVIOUS", SECRET)],
        &["JWT_SECRETS_PREVIOUS", "without JWT_SECRET"],
    ),
    (
        &[("JWT_SECRET", SECRET), ("JWT_SECRETS_PREVIOUS", "old")],
        &["JWT_SECRETS_PREVIOUS", "32 bytes"],
    ),
    (
        &[("JWT_SECRET", SECRET), ("JWT_SECRET_FILE", "/f")],
        &["JWT_SECRET_FILE", "both set"],
    ),
    (
        &[("JWT_SECRET_FILE", "/nowhere/secret")],
        &["JWT_SECRET_FILE", "cannot be read"],
    ),
    (
        &[("LISTEN_ADDR", "localhost:8080")],
        &["LISTEN_ADDR", "0.0.0.0:8080"],
    ),
    (
        &[("OPS_ADDR", "9090")],
        &["OPS_ADDR", "IP address with a port"],
    ),
    (
        &[("OPS_ADDR", "127.0.0.1:8080")],
        &["LISTEN_ADDR and OPS_ADDR", "different ports"],
    ),
    (
        &[("ALLOWED_ORIGINS", "https://a.example, *")],
        &["ALLOWED_ORIGINS", "\"*\"", "each one"],
    ),
    (
        &[("TRUSTED_PROXIES", "10.0.0.0/33")],
        &["TRUSTED_PROXIES", "10.0.0.0/8"],
    ),
    (
        &[("PUBLIC_URL", "chat.example.com")],
        &["PUBLIC_URL", "https://"],
    ),
    (
        &[("ROOKERY_LIMITS_SOCKETS", "0")],
        &["ROOKERY_LIMITS_SOCKETS", "at least 1"],
    ),
    (
        &[("ROOKERY_RATES_ENABLED", "maybe")],
        &["ROOKERY_RATES_ENABLED", "true nor false"],
    ),
    (
        &[("ROOKERY_DRAIN_TIMEOUT_SECONDS", "25")],
        &["DRAIN_TIMEOUT_SECONDS", "set it higher"],
    ),
    (&[("LOG_FORMAT", "xml")], &["LOG_FORMAT", "pretty nor json"]),
    (
        &[("LOG_FILE", "/tmp")],
        &["LOG_FILE", "add the name of a file"],
    ),
    (&[("NODE_ID", "a b")], &["NODE_ID", "letters, digits"]),
    (
        &[("TOKIO_WORKER_THREADS", "0")],
        &["TOKIO_WORKER_THREADS", "at least 1"],
    ),
    (
        &[("MAIL_URL", "smtp://m")],
        &["MAIL_URL", "later version", "unset it"],
    ),
    (
        &[("CONTENT_KEYS_FILE", "/k")],
        &["CONTENT_KEYS_FILE", "later version"],
    ),
    (
        &[("ROOKERY_RATE_ENABLED", "false")],
        &[
            "no variable ROOKERY_RATE_ENABLED",
            "did you mean ROOKERY_RATES_ENABLED?",
        ],
    ),
    (
        &[("ROOKERY_HTTP_LISTEN_ADDR", "[::]:80")],
        &["it is called LISTEN_ADDR"],
    ),
];

#[test]
fn what_cannot_work_is_refused_with_a_sentence_that_says_what_to_set() {
    for (variables, words) in REFUSALS {
        let problems = problems(variables);
        assert_eq!(problems.len(), 1, "{variables:?}: {problems:?}");
        for word in *words {
            assert!(
                problems[0].contains(word),
                "{variables:?}: no \"{word}\" in {problems:?}"
            );
        }
    }
}

#[test]
fn several_problems_are_told_at_once() {
    let problems = problems(&[
        ("LISTEN_ADDR", "x"),
        ("LOG_FORMAT", "y"),
        ("ROOKERY_X", "z"),
    ]);
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn an_empty_variable_is_not_set() {
    let config = check(&[("REDIS_URL", ""), ("ROOKERY_LIMITS_SOCKETS", "")]).unwrap();
    assert_eq!(config.limits.sockets, 15_000);
}

#[test]
fn the_environment_beats_the_file_and_the_file_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rookery.toml");
    let text =
        "[limits]\nsockets = 7\nsockets_per_ip = 8\n[http]\ntrusted_proxies = ['10.0.0.0/8']";
    fs::write(&file, text).unwrap();
    let env = Environment::from([("ROOKERY_LIMITS_SOCKETS", "9")]);
    let config = Config::check(Some(&file), &env).unwrap();
    assert_eq!(config.limits.sockets, 9);
    assert_eq!(config.limits.sockets_per_ip, 8);
    assert_eq!(config.limits.sockets_per_user, 5);
    assert_eq!(config.http.trusted_proxies.len(), 1);
}

#[test]
fn the_file_is_refused_for_what_nobody_knows() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rookery.toml");
    for (text, words) in [
        (
            "[limit]\nsockets = 1",
            "no limit.sockets in the configuration; did you mean limits.sockets?",
        ),
        ("[limits]\nsocket = 1", "did you mean limits.sockets?"),
        (
            "[mail]\nurl = 'smtp://m'",
            "mail.url belongs to a later version",
        ),
        ("sockets = 1", "outside a section"),
        ("[limits", "TOML parse error"),
    ] {
        fs::write(&file, text).unwrap();
        let error = Config::check(Some(&file), &Environment::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{text}: {error}");
    }
    let missing = dir.path().join("missing.toml");
    let error = Config::check(Some(&missing), &Environment::default()).unwrap_err();
    assert!(
        error.to_string().contains("missing.toml cannot be read"),
        "{error}"
    );
}

#[test]
fn a_secret_comes_from_a_file_without_its_line_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let config = check(&[("JWT_SECRET_FILE", file.to_str().unwrap())]).unwrap();
    assert_eq!(config.auth.keys[0].1.expose(), SECRET);
}

#[test]
fn a_single_node_makes_its_secret_once_and_keeps_it_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let env = Environment::from([("DATA_DIR", data.to_str().unwrap())]);
    let first = Config::load(None, &env).unwrap();
    let again = Config::load(None, &env).unwrap();
    assert_eq!(first.auth.keys, again.auth.keys);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("jwt_secret")), 0o600);

    fs::write(data.join("jwt_secret"), "cut off").unwrap();
    let error = Config::load(None, &env).unwrap_err().to_string();
    assert!(
        error.contains("holds no whole secret") && error.contains("remove it"),
        "{error}"
    );
}

#[test]
fn a_data_directory_that_cannot_be_made_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let data = blocked.join("data");
    let env = Environment::from([("DATA_DIR", data.to_str().unwrap())]);
    let error = Config::load(None, &env).unwrap_err().to_string();
    assert!(error.contains("set DATA_DIR"), "{error}");
}

#[test]
fn a_node_that_keeps_nothing_needs_no_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let env = Environment::from([
        ("DATA_DIR", data.to_str().unwrap()),
        ("DATABASE_URL", "postgres://db/chat"),
        ("JWT_SECRET", SECRET),
    ]);
    Config::load(None, &env).unwrap();
    assert!(!data.exists());
}

#[test]
fn what_is_printed_is_toml_that_says_the_same_and_hides_secrets() {
    let config = check(&[
        ("DATABASE_URL", "postgres://chat:hush@db/chat"),
        ("REDIS_URL", "redis://:hush@redis"),
        ("JWT_SECRET", "hush hush hush hush hush hush hush"),
        ("ALLOWED_ORIGINS", "https://a.example,https://b.example"),
        ("ROOKERY_RATES_ENABLED", "false"),
    ])
    .unwrap();
    let text = config.render();
    assert!(
        !text.contains("hush") && !format!("{config:?}").contains("hush"),
        "{text}"
    );
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["limits"]["sockets"].as_integer(), Some(15_000));
    assert_eq!(table["rates"]["enabled"].as_bool(), Some(false));
    assert_eq!(
        table["http"]["allowed_origins"].as_array().map(Vec::len),
        Some(2)
    );
    for key in keys() {
        assert!(
            text.contains(&format!("# {}\n", key.variable())),
            "{} is missing",
            key.path
        );
    }
}

#[test]
fn node_ids_are_made_of_the_host_name() {
    let env = Environment::from([("HOSTNAME", "chat-0.local domain")]);
    let one = Config::check(None, &env).unwrap().node.id;
    let other = Config::check(None, &env).unwrap().node.id;
    assert!(one.starts_with("chat-0.localdomain-"), "{one}");
    assert_ne!(one, other);
}
