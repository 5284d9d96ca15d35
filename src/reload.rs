//! What changes in a running node when its configuration does: the keys of tokens, and what is
//! logged. Everything else waits for a restart.
//!
//! The configuration is read again on SIGHUP, and every few seconds, since whoever mounts a secret
//! into a container cannot send signals. What is found without being asked for counts when it is
//! found twice: a file may be half written. What cannot work changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::auth::Auth;
use crate::config::{AuthConfig, Config, ConfigError, Environment};
use crate::lifecycle::{Hangups, Tasks};
use crate::metrics;
use crate::telemetry::Levels;

/// A few small files are read each time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where the configuration comes from, what it was at the start, and how to change the log.
#[derive(Clone)]
pub struct Settings {
    file: Option<PathBuf>,
    env: Environment,
    at_start: Config,
    levels: Levels,
}

impl Settings {
    #[must_use]
    pub fn new(file: Option<PathBuf>, env: Environment, at_start: Config, levels: Levels) -> Self {
        Self {
            file,
            env,
            at_start,
            levels,
        }
    }

    /// Reads everything again, as at the start.
    fn read(&self) -> Found {
        let config = Config::check(self.file.as_deref(), &self.env)?;
        let waiting = self.at_start.waits_for_restart(&config);
        Ok(Live::of(config, waiting))
    }
}

type Found = Result<Live, ConfigError>;

/// What changes, and what would if it could.
#[derive(Clone, PartialEq, Eq)]
struct Live {
    auth: AuthConfig,
    filter: String,
    /// Variables that have changed since the start, to no effect before the next.
    waiting: Vec<String>,
}

impl Live {
    fn of(config: Config, waiting: Vec<String>) -> Self {
        Self {
            auth: config.auth,
            filter: config.log.filter,
            waiting,
        }
    }
}

/// Reads the configuration again whenever there is a reason to, until the node stops.
pub(crate) async fn run(settings: Settings, auth: Arc<Auth>, mut hangups: Hangups, tasks: Tasks) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reload = Reload::new(&settings, auth);
    let settings = Arc::new(settings);
    loop {
        let asked = tokio::select! {
            () = tasks.stopping().cancelled() => return,
            () = hangups.next() => true,
            _ = ticks.tick() => false,
        };
        let reader = Arc::clone(&settings);
        // A file may lie on something that hangs.
        let read = tokio::task::spawn_blocking(move || reader.read());
        let found = tokio::select! {
            () = tasks.stopping().cancelled() => return,
            found = read => found,
        };
        if let Ok(found) = found {
            reload.consider(found, asked);
        }
    }
}

/// What was found, and what was made of it.
struct Reload {
    live: Live,
    /// What the log has told of.
    told: Found,
    /// What the last look found.
    seen: Option<Found>,
    auth: Arc<Auth>,
    levels: Levels,
}

impl Reload {
    fn new(settings: &Settings, auth: Arc<Auth>) -> Self {
        let live = Live::of(settings.at_start.clone(), Vec::new());
        Self {
            told: Ok(live.clone()),
            live,
            seen: None,
            auth,
            levels: settings.levels.clone(),
        }
    }

    /// Acts on what was read, if somebody asked for that, or if it is news and stayed as it was.
    fn consider(&mut self, found: Found, asked: bool) {
        let stays = self.seen.as_ref() == Some(&found);
        let matters = asked || (stays && self.told != found);
        self.seen = Some(found.clone());
        if !matters {
            return;
        }
        self.told = found.clone();
        let applied = found
            .map_err(|error| error.to_string())
            .and_then(|found| self.apply(found));
        match applied {
            Ok(true) => metrics::reloads_total().changed.increment(1),
            Ok(false) => {
                metrics::reloads_total().unchanged.increment(1);
                tracing::info!("the configuration was read again; nothing changes");
            }
            Err(why) => {
                metrics::reloads_total().refused.increment(1);
                tracing::error!("not reloaded, all stays as it was: {why}");
            }
        }
        if let Ok(Live { waiting, .. }) = &self.told
            && !waiting.is_empty()
        {
            tracing::warn!(
                "changed, but only at the next start: {}",
                waiting.join(", ")
            );
        }
    }

    /// Whether that changed anything.
    fn apply(&mut self, found: Live) -> Result<bool, String> {
        let (auth, filter) = (&found.auth, &found.filter);
        let (new_keys, new_filter) = (*auth != self.live.auth, *filter != self.live.filter);
        if new_keys {
            let replaced = self.auth.replace_keys(&auth.signing_keys());
            replaced.map_err(|error| error.to_string())?;
            let mut ids = auth.keys.iter().map(|(id, _)| id.as_str());
            let signs = ids.next().unwrap_or_default();
            let accepted: Vec<&str> = ids.collect();
            tracing::info!(signs, ?accepted, "the keys of tokens have changed");
        }
        if new_filter {
            let set = self.levels.set(filter);
            set.map_err(|error| error.to_string())?;
            tracing::info!(filter, "what is logged has changed");
        }
        self.live = found;
        Ok(new_keys || new_filter)
    }
}
