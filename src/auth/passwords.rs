//! Passwords: argon2id in a small pool of threads of its own.
//!
//! One hash costs as much as a hundred messages, so a login storm must not come near the sockets:
//! few threads, at low priority, behind a short queue. Who cannot be served within two seconds is
//! told to come back. A caller that goes away costs nothing: its job is skipped, and a worker is
//! never more than one hash away from the next job.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use rookery_protocol::limits;
use tokio::sync::oneshot;

use super::AuthError;
use crate::error::AppError;
use crate::metrics::{self, Level};

/// About a second of work for one worker: what waits longer would give up anyway.
const QUEUE: usize = 64;
const WAIT_MAX: Duration = Duration::from_secs(2);
/// A worker that had nothing to do for so long gives its memory back.
const IDLE: Duration = Duration::from_secs(10);
/// Lower than the sockets' threads (0), higher than the least (19).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
const OUTPUT_BYTES: usize = 32;

/// What one hash costs; the defaults are OWASP's minimum for argon2id, about 14 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    pub memory_kib: u32,
    pub passes: u32,
}

impl Default for PasswordCost {
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1_024,
            passes: 2,
        }
    }
}

impl PasswordCost {
    fn params(self) -> Result<Params, AuthError> {
        Params::new(self.memory_kib, self.passes, 1, Some(OUTPUT_BYTES))
            .map_err(|_| AuthError::PasswordCost)
    }
}

/// Whether a password was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right {
        /// The password hashed anew, where the stored hash has another cost than today's.
        rehashed: Option<String>,
    },
}

/// A stored hash that cannot be read or hashed with.
#[derive(Debug, thiserror::Error)]
#[error("a password hash cannot be read or made: {0}")]
struct HashError(String);

type Job = Box<dyn FnOnce(&mut Hasher) + Send>;

/// The pool. Its threads end when it is dropped.
pub struct Passwords {
    queue: Sender<Job>,
    /// Verified against for users that do not exist, so that they take as long as others.
    dummy: Arc<str>,
}

impl Passwords {
    /// Starts `workers` threads.
    ///
    /// # Errors
    /// The cost is outside what argon2 allows, or a thread cannot be started.
    pub fn start(workers: usize, cost: PasswordCost) -> Result<Self, AuthError> {
        let params = cost.params()?;
        let dummy = dummy_hash(&params).map_err(|_| AuthError::PasswordCost)?;
        let (queue, jobs) = bounded::<Job>(QUEUE);
        for number in 0..workers.max(1) {
            let jobs = jobs.clone();
            let hasher = Hasher {
                params: params.clone(),
                blocks: Vec::new(),
            };
            std::thread::Builder::new()
                .name(format!("password-{number}"))
                .spawn(move || work(&jobs, hasher))
                .map_err(AuthError::Threads)?;
        }
        Ok(Self {
            queue,
            dummy: dummy.into(),
        })
    }

    /// How many wait.
    #[must_use]
    pub fn level(&self) -> Level {
        Level {
            used: self.queue.len(),
            capacity: QUEUE,
        }
    }

    /// The hash to store for a password, as a PHC string.
    ///
    /// # Errors
    /// `UNAVAILABLE` when too many wait.
    pub async fn hash(&self, password: String) -> Result<String, AppError> {
        self.run(move |hasher| hasher.hash(&password)).await
    }

    /// Whether `password` is the one that `stored` was made from. Without a stored hash (no such
    /// user) it takes as long and is wrong.
    ///
    /// # Errors
    /// `UNAVAILABLE` when too many wait.
    pub async fn verify(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<Verdict, AppError> {
        // Never a password of ours, for known and unknown users alike.
        if password.len() > limits::PASSWORD_MAX_BYTES {
            return Ok(Verdict::Wrong);
        }
        let dummy = Arc::clone(&self.dummy);
        self.run(move |hasher| match stored {
            Some(stored) => hasher.verify(&password, &stored),
            None => hasher.verify(&password, &dummy).map(|_| Verdict::Wrong),
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Hasher) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, AppError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |hasher| {
            if !answer.is_closed() {
                // The caller may have gone meanwhile; then nobody needs the answer.
                let _gone = answer.send(work(hasher));
            }
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => AppError::unavailable(),
            TrySendError::Disconnected(_) => AppError::internal(),
        })?;
        metrics::password_queue().set(self.queue.len() as f64);
        match tokio::time::timeout(WAIT_MAX, answered).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => {
                tracing::error!(%error, "hashing failed");
                Err(AppError::internal())
            }
            Ok(Err(_)) => Err(AppError::internal()),
            Err(_) => Err(AppError::unavailable()),
        }
    }
}

/// A worker's life: job after job until the pool is dropped.
fn work(jobs: &Receiver<Job>, mut hasher: Hasher) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "password workers keep the normal priority");
    }
    loop {
        match jobs.recv_timeout(IDLE) {
            // A panic in a job drops its answer, which tells the caller; the worker goes on.
            Ok(job) => {
                metrics::password_queue().set(jobs.len() as f64);
                drop(catch_unwind(AssertUnwindSafe(|| job(&mut hasher))));
            }
            Err(RecvTimeoutError::Timeout) => hasher.blocks = Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Hashes, one at a time, in memory that it keeps: page faults on fresh memory would be 40 % of
/// the cost.
struct Hasher {
    params: Params,
    blocks: Vec<Block>,
}

impl Hasher {
    fn hash(&mut self, password: &str) -> Result<String, HashError> {
        let salt = Salt::generate();
        let params = self.params.clone();
        let output = self.compute(Algorithm::Argon2id, Version::V0x13, params, password, &salt)?;
        phc(&self.params, salt, output)
    }

    fn verify(&mut self, password: &str, stored: &str) -> Result<Verdict, HashError> {
        let stored = PasswordHash::new(stored).map_err(HashError::because)?;
        let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
            return Err(HashError("it has no salt or no output".into()));
        };
        let algorithm = Algorithm::new(stored.algorithm.as_str()).map_err(HashError::because)?;
        let version = stored.version.unwrap_or(Version::V0x13.into());
        let version = Version::try_from(version).map_err(HashError::because)?;
        let params = Params::try_from(&stored).map_err(HashError::because)?;
        let current = algorithm == Algorithm::Argon2id
            && version == Version::V0x13
            && cost_of(&params) == cost_of(&self.params);
        // Comparing outputs takes constant time.
        if self.compute(algorithm, version, params, password, salt)? != *expected {
            return Ok(Verdict::Wrong);
        }
        let rehashed = if current {
            None
        } else {
            Some(self.hash(password)?)
        };
        Ok(Verdict::Right { rehashed })
    }

    fn compute(
        &mut self,
        algorithm: Algorithm,
        version: Version,
        params: Params,
        password: &str,
        salt: &Salt,
    ) -> Result<Output, HashError> {
        let needed = params.block_count();
        if self.blocks.len() < needed {
            self.blocks.resize(needed, Block::new());
        }
        let length = params.output_len().unwrap_or(OUTPUT_BYTES);
        let mut bytes = [0; Output::MAX_LENGTH];
        let out = bytes
            .get_mut(..length)
            .ok_or_else(|| HashError("too long".into()))?;
        Argon2::new(algorithm, version, params)
            .hash_password_into_with_memory(password.as_bytes(), salt, out, &mut self.blocks)
            .map_err(HashError::because)?;
        Output::new(out).map_err(HashError::because)
    }
}

impl HashError {
    fn because(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

fn cost_of(params: &Params) -> (u32, u32, u32, Option<usize>) {
    (
        params.m_cost(),
        params.t_cost(),
        params.p_cost(),
        params.output_len(),
    )
}

fn phc(params: &Params, salt: Salt, output: Output) -> Result<String, HashError> {
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).map_err(HashError::because)?,
        salt: Some(salt),
        hash: Some(output),
    };
    Ok(hash.to_string())
}

/// A hash of nothing in particular that costs as much to verify as a real one.
fn dummy_hash(params: &Params) -> Result<String, HashError> {
    let salt = Salt::new(&[0; 16]).map_err(HashError::because)?;
    let output = Output::new(&[0; OUTPUT_BYTES]).map_err(HashError::because)?;
    phc(params, salt, output)
}

#[cfg(test)]
mod tests;
