//! Passwords: argon2id in a small pool of threads of its own.
//!
//! One hash costs as much as a hundred messages, so a login storm must not come near the sockets:
//! few threads, which have only the time that nobody else wants, behind a short queue. On a node
//! without such time a password goes to one more thread, of low priority, after a moment
//! (`docs/decisions/0016-passwords-wait-for-idle-time.md`). Who cannot be served within two seconds
//! is told to come back. A caller that goes away costs nothing: its job is skipped, and a worker is
//! never more than one hash away from the next job.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
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
/// How long the idle time of the processors is waited for.
const LATE_AFTER: Duration = Duration::from_millis(100);
/// A worker that had nothing to do for so long gives its memory back.
const IDLE: Duration = Duration::from_secs(10);
/// Of the late worker: lower than the sockets' threads (0), higher than the least (19).
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

/// Done once, by whichever worker comes to it first; skipped when nobody waits for it any more.
type Job = Arc<dyn Fn(&mut Hasher) + Send + Sync>;

/// Which share of the processors a worker has.
#[derive(Clone, Copy, Debug)]
enum Share {
    /// What nobody else wants.
    Idle,
    /// Little, but always some.
    Low,
}

/// The pool. Its threads end when it is dropped.
pub struct Passwords {
    queue: Sender<Job>,
    /// Jobs that the idle time has not sufficed for.
    late: Sender<Job>,
    waiting: AtomicUsize,
    /// Verified against for users that do not exist, so that they take as long as others.
    dummy: Arc<str>,
}

impl Passwords {
    /// Starts `workers` threads for the idle time, and one for what is late.
    ///
    /// # Errors
    /// The cost is outside what argon2 allows, or a thread cannot be started.
    pub fn start(workers: usize, cost: PasswordCost) -> Result<Self, AuthError> {
        let params = cost.params()?;
        let dummy = dummy_hash(&params).map_err(|_| AuthError::PasswordCost)?;
        let (queue, jobs) = bounded::<Job>(QUEUE);
        let (late, late_jobs) = bounded::<Job>(QUEUE);
        let start = |name: String, share: Share, jobs: &Receiver<Job>| {
            let jobs = jobs.clone();
            let hasher = Hasher {
                params: params.clone(),
                blocks: Vec::new(),
            };
            std::thread::Builder::new()
                .name(name)
                .spawn(move || work(share, &jobs, hasher))
                .map_err(AuthError::Threads)
        };
        for number in 0..workers.max(1) {
            start(format!("password-{number}"), Share::Idle, &jobs)?;
        }
        start("password-late".into(), Share::Low, &late_jobs)?;
        Ok(Self {
            queue,
            late,
            waiting: AtomicUsize::new(0),
            dummy: dummy.into(),
        })
    }

    /// How many callers wait for an answer.
    #[must_use]
    pub fn level(&self) -> Level {
        Level {
            used: self.waiting.load(Relaxed),
            capacity: 2 * QUEUE,
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
        self.run(move |hasher| match &stored {
            Some(stored) => hasher.verify(&password, stored),
            None => hasher.verify(&password, &dummy).map(|_| Verdict::Wrong),
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Hasher) -> Result<T, HashError> + Send + Sync + 'static,
    ) -> Result<T, AppError> {
        let (answer, answered) = oneshot::channel();
        let answer = Mutex::new(Some(answer));
        let job: Job = Arc::new(move |hasher| {
            let lock = || answer.lock().unwrap_or_else(PoisonError::into_inner);
            if lock().as_ref().is_none_or(oneshot::Sender::is_closed) {
                return;
            }
            let worked = catch_unwind(AssertUnwindSafe(|| work(hasher)));
            let worked = worked.unwrap_or_else(|_| Err(HashError("a panic".into())));
            if let Some(answer) = lock().take() {
                // The caller may have gone meanwhile.
                let _gone = answer.send(worked);
            }
        });
        // Jobs that nobody waits for any more keep their places until the idle time comes to them.
        let queued = self.queue.try_send(Arc::clone(&job));
        let queued = queued.or_else(|_| self.late.try_send(Arc::clone(&job)));
        queued.map_err(|error| match error {
            TrySendError::Full(_) => AppError::unavailable(),
            TrySendError::Disconnected(_) => AppError::internal(),
        })?;
        let _waiting = Waiting::new(&self.waiting);
        let answered = async {
            tokio::pin!(answered);
            if let Ok(answer) = tokio::time::timeout(LATE_AFTER, &mut answered).await {
                return answer;
            }
            // Where this queue is full too, the first one remains.
            self.late.try_send(job).ok();
            answered.await
        };
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

/// Counts a caller for as long as it waits; its job may be in a queue for longer, and in two.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        metrics::password_queue().increment(1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
        metrics::password_queue().decrement(1);
    }
}

/// A worker's life: job after job until the pool is dropped.
fn work(share: Share, jobs: &Receiver<Job>, mut hasher: Hasher) {
    if let Err(error) = step_back(share) {
        tracing::debug!(
            error,
            ?share,
            "a password worker's priority could not be set as wanted"
        );
    }
    loop {
        match jobs.recv_timeout(IDLE) {
            Ok(job) => {
                job(&mut hasher);
            }
            Err(RecvTimeoutError::Timeout) => hasher.blocks = Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The calling thread gives way to others: on Linux, where priorities are those of threads.
#[cfg(target_os = "linux")]
fn step_back(share: Share) -> Result<(), String> {
    use thread_priority::unix::{NormalThreadSchedulePolicy, ThreadSchedulePolicy};
    use thread_priority::{ThreadPriority, set_thread_priority_and_policy, thread_native_id};
    match share {
        Share::Idle => {
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
                .map_err(|error| error.to_string())
        }
        Share::Low => {
            rustix::process::setpriority_process(None, NICENESS).map_err(|error| error.to_string())
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn step_back(_share: Share) -> Result<(), String> {
    Ok(())
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
