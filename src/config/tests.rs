//! Every refusal, and what a start leaves behind.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use super::*;

mod passwords;
mod refusals;

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
    let nothing = [
        ("REDIS_URL", ""),
        ("ROOKERY_LIMITS_SOCKETS", ""),
        ("TOKIO_WORKER_THREADS", ""),
        ("NODE_ID", " "),
        ("DATA_DIR", "\t"),
    ];
    let config = check(&nothing).unwrap();
    assert_eq!(config.limits.sockets, 15_000);
    assert!(config.worker_threads > 0 && !config.node.id.is_empty());
    assert_eq!(config.node.data_dir, Path::new("./data"));
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
        ("[limits", "it is no TOML at line 1, column 8"),
        (
            "[node]\nid = ' '",
            "NODE_ID: there is nothing where it is set",
        ),
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

/// Half a line of it, as while somebody writes it.
#[test]
fn a_file_that_cannot_be_read_is_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rookery.toml");
    for text in [
        "[auth]\njwt_secret = 'hush",
        "[auth]\njwt_secret = hush",
        "[database]\nurl = 'postgres://chat:hush@db/chat'\nurl = 'hush'",
    ] {
        fs::write(&file, text).unwrap();
        let error = Config::check(Some(&file), &Environment::default()).unwrap_err();
        let error = error.to_string();
        assert!(!error.contains("hush"), "{error}");
        assert!(error.contains("it is no TOML at line "), "{error}");
    }
}

#[test]
fn only_plain_files_of_some_size_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large");
    fs::write(&large, " ".repeat(1024 * 1024 + 1)).unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for (path, why) in [
        (dir.path(), "it is no plain file"),
        (Path::new("/dev/zero"), "it is no plain file"),
        (&pipe, "it is no plain file"),
        (&large, "it is larger than 1 MiB"),
    ] {
        let name = path.to_str().unwrap();
        let as_config = Config::check(Some(path), &Environment::default());
        let as_secret = check(&[("JWT_SECRET_FILE", name)]);
        for (refused, setting) in [(as_config, "the file"), (as_secret, "JWT_SECRET_FILE:")] {
            let error = refused.unwrap_err().to_string();
            let words = format!("{setting} {name} cannot be read: {why}");
            assert!(error.contains(&words), "no \"{words}\" in {error}");
        }
    }
}

#[test]
fn a_value_that_is_not_utf_8_is_not_taken_for_none() {
    let broken = || OsString::from_vec(vec![b'x', 0xff]);
    for (name, expected) in [
        ("JWT_SECRET", 1),
        ("JWT_SECRET_FILE", 1),
        ("NODE_ID", 1),
        ("ROOKERY_LIMIT", 1),
        ("TOKIO_WORKER_THREADS", 1),
        ("PATH", 0),
    ] {
        let variables = [(OsString::from(name), broken())];
        let checked = Config::check(None, &Environment::of(variables.into_iter()));
        let problems = checked.err().map(|e| e.problems).unwrap_or_default();
        assert_eq!(problems.len(), expected, "{name}: {problems:?}");
        let named = format!("{name}: the value is not UTF-8");
        assert!(
            problems.iter().all(|problem| *problem == named),
            "{problems:?}"
        );
    }
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
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rookery.toml");
    fs::write(&file, "[limits]\nsockets = 7").unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "hush, and not a word of it to anybody").unwrap();
    let secret = secret.to_str().unwrap();
    let env = Environment::from([
        ("DATABASE_URL", "postgres://chat:hush@db/chat"),
        ("REDIS_URL", "redis://:hush@redis"),
        ("JWT_SECRET_FILE", secret),
        ("ALLOWED_ORIGINS", "https://a.example,https://b.example"),
        ("ROOKERY_RATES_ENABLED", "false"),
    ]);
    let config = Config::check(Some(&file), &env).unwrap();
    let text = Config::show(Some(&file), &env).unwrap();
    assert!(
        !text.contains("hush") && !format!("{config:?}").contains("hush"),
        "{text}"
    );
    for origin in [
        "# ROOKERY_LIMITS_SOCKETS, from the file\n".to_owned(),
        "# ROOKERY_RATES_ENABLED, from the environment\n".to_owned(),
        format!("# JWT_SECRET, from {secret}\n"),
        "# LISTEN_ADDR, default\n".to_owned(),
    ] {
        assert!(text.contains(&origin), "no \"{origin}\" in {text}");
    }
    let again = dir.path().join("again.toml");
    fs::write(&again, text.replace("[redacted]", SECRET)).unwrap();
    Config::check(Some(&again), &Environment::default()).expect("what is printed is read");
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["limits"]["sockets"].as_integer(), Some(7));
    assert_eq!(table["rates"]["enabled"].as_bool(), Some(false));
    assert_eq!(
        table["http"]["allowed_origins"].as_array().map(Vec::len),
        Some(2)
    );
    for key in keys() {
        assert!(
            text.contains(&format!("# {}, ", key.variable())),
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
