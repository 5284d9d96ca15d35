//! Who is asking: passwords, tokens, sessions, what was revoked, and limits on guessing.
//!
//! In: credentials and tokens. Out: an [`Access`], or a refusal. What that somebody may do is
//! decided elsewhere. Three rules hold here:
//!
//! 1. Secrets (passwords, tokens, keys) reach no log and no error text.
//! 2. [`Auth::verify`] is called for every request and every connect: no I/O, a few microseconds.
//! 3. Hashing a password costs a hundred messages; it happens in a small pool of its own.

pub mod passwords;
pub mod rate_limit;
pub mod revocations;
pub mod sessions;
pub mod tokens;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::AppError;
use crate::lifecycle::Tasks;
use crate::store::{Store, StoreError};

use passwords::{PasswordCost, Passwords};
use rate_limit::{RateLimits, RateOptions};
use revocations::Revocations;
use sessions::Sessions;
use tokens::AccessTokens;

pub use tokens::{Access, LEEWAY_SECONDS, TokenRefusal};

/// Filled from the configuration.
#[derive(Clone)]
pub struct AuthOptions {
    /// Secrets by `kid`, at least 32 bytes each. The first signs, all verify.
    pub keys: Vec<(String, Vec<u8>)>,
    /// Life of an access token.
    pub access_seconds: i64,
    /// A session ends when its refresh token was not used for so long.
    pub session_seconds: i64,
    pub password_cost: PasswordCost,
    /// Threads that hash passwords in idle time; there is one more for what is late.
    pub password_workers: usize,
    pub rates: RateOptions,
}

impl AuthOptions {
    /// The defaults, with these keys.
    #[must_use]
    pub fn new(keys: Vec<(String, Vec<u8>)>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            keys,
            access_seconds: 15 * 60,
            session_seconds: 30 * 24 * 60 * 60,
            password_cost: PasswordCost::default(),
            // Half the cores: more would only contend for their caches with the sockets.
            password_workers: (cores / 2).max(1),
            rates: RateOptions::default(),
        }
    }
}

/// Why authentication cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("no key to sign tokens with")]
    NoKey,
    #[error("the key \"{0}\" has fewer than 32 bytes")]
    ShortKey(String),
    #[error("the key id \"{0}\" must have 1 to 64 characters and be used once")]
    KeyId(String),
    #[error("the cost of password hashing is outside what argon2 allows")]
    PasswordCost,
    #[error("cannot start the threads that hash passwords: {0}")]
    Threads(#[source] std::io::Error),
}

/// How often outdated revocations and full buckets are dropped.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Everything that authenticates.
pub struct Auth {
    pub passwords: Passwords,
    pub sessions: Sessions,
    pub revocations: Arc<Revocations>,
    pub rates: Arc<RateLimits>,
    tokens: Arc<AccessTokens>,
    store: Arc<dyn Store>,
}

impl Auth {
    /// Checks the options and starts the password workers. Call [`Self::load_revocations`] before
    /// the node is ready.
    ///
    /// # Errors
    /// A key or the password cost is not acceptable, or a thread cannot be started.
    pub fn new(
        options: AuthOptions,
        store: Arc<dyn Store>,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Self, AuthError> {
        let tokens = AccessTokens::new(&options.keys, options.access_seconds, clock.clone())?;
        let tokens = Arc::new(tokens);
        let matters_seconds = options.access_seconds + tokens::LEEWAY_SECONDS;
        let revocations = Arc::new(Revocations::new(clock.clone(), matters_seconds * 1_000));
        let rates = Arc::new(RateLimits::new(options.rates, clock.clone()));
        let sessions = Sessions::new(
            sessions::SuccessorKey::derive(&options.keys[0].1),
            options.session_seconds * 1_000,
            Arc::clone(&tokens),
            Arc::clone(&revocations),
            Arc::clone(&store),
            clock,
        );
        let passwords = Passwords::start(options.password_workers, options.password_cost)?;
        spawn_pruning(tasks, Arc::clone(&revocations), Arc::clone(&rates));
        Ok(Self {
            passwords,
            sessions,
            revocations,
            rates,
            tokens,
            store,
        })
    }

    /// Signs and checks tokens with these keys from now on, as in [`AuthOptions::keys`]. Sockets
    /// that are open keep what their tokens gave them until those expire.
    ///
    /// # Errors
    /// A key is not acceptable; then all stay as they were.
    pub fn replace_keys(&self, keys: &[(String, Vec<u8>)]) -> Result<(), AuthError> {
        self.tokens.replace_keys(keys)?;
        let successor_key = sessions::SuccessorKey::derive(&keys[0].1);
        self.sessions.replace_key(successor_key);
        Ok(())
    }

    /// Learns which sessions were ended while their access tokens still live.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load_revocations(&self) -> Result<(), StoreError> {
        let ended = self
            .store
            .revoked_since(self.revocations.matter_since())
            .await?;
        self.revocations.add(&ended);
        Ok(())
    }

    /// Who holds this access token.
    ///
    /// # Errors
    /// Forged, malformed, expired or revoked.
    pub fn check(&self, token: &str) -> Result<Access, TokenRefusal> {
        let access = self.tokens.verify(token)?;
        if self.revocations.contains(access.session_id) {
            return Err(TokenRefusal::Revoked);
        }
        Ok(access)
    }

    /// As [`Self::check`], with the refusal as the answer to a request.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub fn verify(&self, token: &str) -> Result<Access, AppError> {
        Ok(self.check(token)?)
    }
}

fn spawn_pruning(tasks: &Tasks, revocations: Arc<Revocations>, rates: Arc<RateLimits>) {
    let stopping = tasks.stopping().clone();
    tasks.spawn("auth-prune", async move {
        while tokio::time::timeout(PRUNE_EVERY, stopping.cancelled())
            .await
            .is_err()
        {
            revocations.prune();
            rates.prune();
        }
    });
}
