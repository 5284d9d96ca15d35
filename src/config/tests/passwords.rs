//! No refusal shows a password, and a password may have any character.

use super::*;

/// Passwords in places where they do not belong, each as `HUSH`.
const MISPLACED: &[(&str, &str)] = &[
    ("DATABASE_URL", "postgres:chat:HUSH@db/chat"),
    ("DATABASE_URL", "postgres://chat:HUSH/1@db/chat"),
    ("DATABASE_URL", "postgres://chat:12/HUSH@db/chat"),
    ("DATABASE_URL", "postgres://chat:12#HUSH@db/chat"),
    ("DATABASE_URL", "postgres://chat:12?HUSH@db/chat"),
    ("DATABASE_URL", "postgres://chat:12?a=HUSH@db/chat"),
    ("DATABASE_URL", "postgres://chat:1@2/HUSH@db/chat"),
    ("DATABASE_URL", "postgres://chat@db/chat?passwd=HUSH"),
    ("DATABASE_URL", "postgres://chat@db/chat?sslpassword=HUSH"),
    ("DATABASE_URL", "HUSH"),
    ("DATABASE_REPLICA_URL", "postgres://chat:12/HUSH@db/chat"),
    ("REDIS_URL", "redis://HUSH@redis"),
    ("REDIS_URL", "redis://chat:HUSH/1@redis"),
    ("REDIS_URL", "redis://chat:12/HUSH@redis"),
    ("REDIS_URL", "redis://chat:12#HUSH@redis"),
    ("REDIS_URL", "redis://chat:12?HUSH@redis"),
    ("REDIS_URL", "redis://redis?password=HUSH"),
    ("REDIS_URL", "HUSH"),
    ("JWT_SECRET", "HUSH"),
];

#[test]
fn no_refusal_shows_a_password() {
    let cluster = [
        ("DATABASE_URL", "postgres://db/chat"),
        ("REDIS_URL", "redis://redis"),
        ("JWT_SECRET", SECRET),
    ];
    for misplaced in MISPLACED {
        let set: Vec<_> = cluster.into_iter().chain([*misplaced]).collect();
        let problems = problems(&set);
        assert_eq!(problems.len(), 1, "{misplaced:?}: {problems:?}");
        assert!(problems[0].starts_with(misplaced.0), "{problems:?}");
        assert!(!problems[0].contains("HUSH"), "{problems:?}");
    }
}

#[test]
fn passwords_may_have_any_character_that_is_encoded() {
    let set = [
        (
            "DATABASE_URL",
            "postgres://chat:%2F%3F%23%40%25@db/chat?sslmode=require",
        ),
        ("REDIS_URL", "rediss://:%2F%3F%23%40%25@redis/1"),
        ("JWT_SECRET", SECRET),
    ];
    assert_eq!(problems(&set), Vec::<String>::new());
}

/// Names that libpq knows and this driver does not: a node ignores them, and starts.
#[test]
fn what_only_other_clients_of_postgresql_know_is_ignored() {
    let url = "postgres://db/chat?connect_timeout=10&target_session_attrs=read-write\
               &keepalives_idle=30&channel_binding=require&sslmode=disable";
    assert_eq!(problems(&[("DATABASE_URL", url)]), Vec::<String>::new());
}
