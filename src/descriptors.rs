//! Open files: each socket is one, and a node that runs out of them accepts nobody, not even its
//! own database connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::LimitsConfig;

/// Files a node needs beside its sockets: database, Redis, REST requests, the log, probes.
const RESERVED: u64 = 512;

/// Allows this process as many open files as the system lets it, and lowers `limits.sockets` to
/// what fits, with a warning: full with a clear answer beats failing without one.
pub fn make_room(limits: &mut LimitsConfig) {
    let room = usize::try_from(raise().saturating_sub(RESERVED))
        .unwrap_or(usize::MAX)
        .max(1);
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
        make_room(&mut limits);
        assert!(u64::try_from(limits.sockets).unwrap() <= raise());
        limits.sockets = 1;
        make_room(&mut limits);
        assert_eq!(limits.sockets, 1);
    }
}
