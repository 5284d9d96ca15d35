//! Open files: each socket is one, and a node that runs out of them accepts nobody, not even its
//! own database connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::LimitsConfig;

/// Files a node needs beside its sockets and its database connections: REST requests, which have a
/// connection each, and [`OWN`].
const RESERVED: usize = 512;
/// Those that no client can take: Redis, the log, the operations port and whoever asks there.
const OWN: usize = 128;
/// Connections for REST, and for refusals, where there is room.
const SPARE_CONNECTIONS: usize = 1_000;

/// Allows this process as many open files as the system lets it, and lowers `limits.sockets` to
/// what fits beside `pool_max` database connections, with a warning: full with a clear answer beats
/// failing without one.
pub fn make_room(limits: &mut LimitsConfig, pool_max: usize) {
    let room = room(RESERVED + pool_max);
    if limits.sockets > room {
        tracing::warn!(
            wanted = limits.sockets,
            sockets = room,
            "this process may open too few files for limits.sockets, which is lowered; raise its \
             limit (ulimit -n, LimitNOFILE), or set ROOKERY_LIMITS_SOCKETS"
        );
        limits.sockets = room;
    }
}

/// How many connections the public port may have, sockets included: never so many that a file is
/// lacking elsewhere.
#[must_use]
pub fn connections(sockets: usize, pool_max: usize) -> usize {
    (sockets + SPARE_CONNECTIONS).min(room(OWN + pool_max))
}

/// Files that may be opened beside those that are kept, at least one.
fn room(kept: usize) -> usize {
    let limit = usize::try_from(raise()).unwrap_or(usize::MAX);
    limit.saturating_sub(kept).max(1)
}

/// Raises the soft limit to the hard one; returns what is allowed now.
fn raise() -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    #[test]
    fn sockets_are_capped_below_the_open_files() {
        let mut limits = Config::check(None, &Environment::default()).unwrap().limits;
        limits.sockets = usize::MAX;
        make_room(&mut limits, 20);
        let files = usize::try_from(raise()).unwrap_or(usize::MAX);
        assert!(limits.sockets < files);
        assert!(
            limits.sockets < connections(limits.sockets, 20),
            "room for REST"
        );
        assert!(connections(limits.sockets, 20) + 20 + OWN <= files);
        limits.sockets = 1;
        make_room(&mut limits, 20);
        assert_eq!(limits.sockets, 1);
        assert_eq!(connections(1, 20), 1 + SPARE_CONNECTIONS);
    }
}
