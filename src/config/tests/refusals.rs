//! Every setting refuses what it cannot take, in a sentence that says what is allowed.

use super::*;

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
        &[("DATABASE_URL", "sqlite://chat.db?mode=ro")],
        &["DATABASE_URL", "writes to its database", "sqlite://path"],
    ),
    (
        &[("DATABASE_URL", "sqlite://chat.db?cache=large")],
        &["DATABASE_URL", "cannot be used", "\"large\""],
    ),
    (
        &[("DATABASE_URL", "postgres://db:port/chat")],
        &["DATABASE_URL", "not a URL", "%2F for /"],
    ),
    (
        &[("DATABASE_URL", "postgres://db/chat?sslmode=always")],
        &["DATABASE_URL", "cannot be used", "\"always\""],
    ),
    (
        &[("DATABASE_URL", "postgres://db/chat?timeout=5")],
        &["DATABASE_URL", "parameter", "there are sslmode, "],
    ),
    (
        &[(
            "DATABASE_URL",
            "postgres://db/chat?statement-cache-capacity=0",
        )],
        &["DATABASE_URL", "set DATABASE_STATEMENT_CACHE"],
    ),
    (
        &[("DATABASE_URL", "postgres://chat:%ff@db/chat")],
        &["DATABASE_URL", "cannot be used", "utf-8"],
    ),
    (
        &[("DATABASE_REPLICA_URL", "postgres://db/chat")],
        &["DATABASE_REPLICA_URL", "PostgreSQL"],
    ),
    (
        &[("DATABASE_POOL_MAX", "0")],
        &["DATABASE_POOL_MAX", "from 2 to 10000"],
    ),
    (
        &[("DATABASE_STATEMENT_CACHE", "-1")],
        &["DATABASE_STATEMENT_CACHE", "from 0 to 10000"],
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
        &[("REDIS_URL", "redis://r?timeout=5")],
        &["REDIS_URL", "no parameters", "redis://:password@host"],
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
        &[("OPS_ADDR", "0.0.0.0:8080")],
        &["127.0.0.1:8080 and 0.0.0.0:8080", "different ports"],
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
        &["ROOKERY_LIMITS_SOCKETS", "from 1 to 1000000"],
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
    (
        &[("ROOKERY_LOG_FILE_MIB", "1.5")],
        &["ROOKERY_LOG_FILE_MIB", "0 to 1048576"],
    ),
    (
        &[("ROOKERY_LOG_FILES_KEPT", "0")],
        &["ROOKERY_LOG_FILES_KEPT", "1 to 1000"],
    ),
    (
        &[("DATA_DIR", "/data?mode=memory")],
        &["DATA_DIR", "choose another", "DATABASE_URL"],
    ),
    (
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")],
        &[
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https",
            "http://127.0.0.1:4318",
        ],
    ),
    (
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")],
        &["OTEL_EXPORTER_OTLP_ENDPOINT", "no http:// address"],
    ),
    (
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@collector")],
        &["OTEL_EXPORTER_OTLP_ENDPOINT", "names a user"],
    ),
    (
        &[("ROOKERY_TRACES_RATIO", "1.5")],
        &["ROOKERY_TRACES_RATIO", "0 to 1"],
    ),
    (
        &[("RUST_LOG", "rookery=loud")],
        &["RUST_LOG", "set a level", "info,rookery=debug"],
    ),
    (
        &[("JWT_SECRET", "CHANGE_ME CHANGE_ME CHANGE_ME CHANGE_ME")],
        &["JWT_SECRET", "example", "openssl rand"],
    ),
    (
        &[("JWT_SECRET", "$(openssl rand -base64 32), or so")],
        &["JWT_SECRET", "example"],
    ),
    (
        &[("JWT_SECRET", "01010101010101010101010101010101")],
        &["JWT_SECRET", "example"],
    ),
    (
        &[("DATABASE_URL", "postgres://rookery:CHANGE_ME@db/rookery")],
        &["DATABASE_URL", "its password is an example's"],
    ),
    (
        &[
            ("REDIS_URL", "redis://:changeme@r"),
            ("DATABASE_URL", "postgres://db/chat"),
            ("JWT_SECRET", SECRET),
        ],
        &["REDIS_URL", "its password is an example's"],
    ),
    (
        &[(
            "DATABASE_REPLICA_URL",
            "postgres://db/chat?password=change-me",
        )],
        &["DATABASE_REPLICA_URL", "its password is an example's"],
    ),
    (&[("NODE_ID", "a b")], &["NODE_ID", "letters, digits"]),
    (
        &[("TOKIO_WORKER_THREADS", "0")],
        &["TOKIO_WORKER_THREADS", "from 1 to 1024"],
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

/// Whole numbers, by their defaults.
fn numbers() -> impl Iterator<Item = &'static Key> {
    keys().filter(|key| key.default.is_some_and(|text| text.parse::<u64>().is_ok()))
}

fn truths() -> impl Iterator<Item = &'static Key> {
    keys().filter(|key| key.default.is_some_and(|text| text.parse::<bool>().is_ok()))
}

#[test]
fn every_setting_has_something_that_it_refuses() {
    let without: Vec<String> = keys()
        .filter(|key| !numbers().chain(truths()).any(|other| other == *key))
        .map(Key::variable)
        .filter(|variable| !REFUSALS.iter().any(|(set, _)| set[0].0 == *variable))
        .collect();
    assert!(without.is_empty(), "add a case to REFUSALS for {without:?}");
}

/// One problem that names the variable and says `allowed`.
fn is_refused(variable: &str, text: &str, allowed: &str) {
    let problems = problems(&[(variable, text)]);
    assert_eq!(problems.len(), 1, "{variable}={text}: {problems:?}");
    let (problem, named) = (&problems[0], format!("{variable}: \"{text}\" is n"));
    assert!(problem.starts_with(&named), "{problem}");
    assert!(problem.contains(allowed), "{problem}");
}

#[test]
fn every_number_has_a_range_on_both_sides() {
    for key in numbers() {
        let variable = key.variable();
        for text in ["-1", "99999999999", "18446744073709551616", "1.5", "many"] {
            is_refused(&variable, text, "a whole number from ");
        }
    }
}

#[test]
fn every_truth_is_true_or_false() {
    for key in truths() {
        for text in ["2", "maybe"] {
            is_refused(&key.variable(), text, "neither true nor false");
        }
    }
}

/// The ends of the ranges themselves work.
#[test]
fn the_ends_of_a_range_are_allowed() {
    for key in numbers() {
        let variable = key.variable();
        let problem = &problems(&[(&variable, "x")])[0];
        let (_, range) = problem.split_once("from ").unwrap();
        let (least, most) = range.split_once(" to ").unwrap();
        for text in [least, most] {
            // What is set last counts.
            let set = [
                ("ROOKERY_DRAIN_TIMEOUT_SECONDS", "86400"),
                ("ROOKERY_DRAIN_WINDOW_SECONDS", "0"),
                (variable.as_str(), text),
            ];
            let problems = problems(&set);
            // The times of a drain also have to fit each other.
            let conflict = problems
                .iter()
                .any(|problem| problem.contains("set it higher"));
            assert!(
                problems.is_empty() || conflict,
                "{variable}={text}: {problems:?}"
            );
        }
    }
}
