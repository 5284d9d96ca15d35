//! Faults in the code itself, on command: seams at which a process may die or wait, and steps that
//! may be left out so that the tests of faults can be seen to fail without them.
//!
//! Built in with the feature `failpoints` only. Tests have it, releases do not: there every function
//! here is a constant. A point is set by the variable `FAILPOINTS` at the start
//! (`after-commit=1*return(die);hold-off=return`) or by `PUT /failpoints/<name>` on the operations
//! port with the action as the body, in the `fail` crate's language. What is returned is:
//!
//! | action | at a seam | at a step |
//! |---|---|---|
//! | `return(die)` | the process ends at once, as by SIGKILL | |
//! | `return(wait <milliseconds>)` | the task waits | |
//! | `return` | | the step is left out |

/// A place in the code where a fault can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// Seam: a batch of sends is written and not yet committed.
    BeforeCommit,
    /// Seam: a batch is committed, nobody was acked or told.
    AfterCommit,
    /// Seam: the senders were acked, the bus was not told.
    BeforePublish,
    /// Seam: the members of some messages have to be read before they can be told.
    BeforeLists,
    /// Seam: a socket's channels are subscribed, its base is not yet read.
    BeforeBase,
    /// Seam: a socket's base is read, its positions do not have it yet.
    AfterBase,
    /// Seam: a sync has replayed everything and not yet said `sync.done`.
    BeforeSyncDone,
    /// Seam: the subscriber of the bus has received something.
    BusReceived,
    /// Step: the journal is read.
    ReconcileOff,
    /// Step: an entry that arrived too early waits for the ones in front of it.
    HoldOff,
    /// Step: an outbox has a bound.
    OutboxUnbounded,
    /// Step: whether a sender is a member is asked behind the lock (before it otherwise).
    MembershipBeforeLock,
    /// Step: a connecting socket's base is read from the store (counts from its first live entry
    /// otherwise).
    BaseNotRead,
}

impl Failpoint {
    /// All of them, as the variable and the operations port name them.
    pub const ALL: &[(&str, Self)] = &[
        ("before-commit", Self::BeforeCommit),
        ("after-commit", Self::AfterCommit),
        ("before-publish", Self::BeforePublish),
        ("before-lists", Self::BeforeLists),
        ("before-base", Self::BeforeBase),
        ("after-base", Self::AfterBase),
        ("before-sync-done", Self::BeforeSyncDone),
        ("bus-received", Self::BusReceived),
        ("reconcile-off", Self::ReconcileOff),
        ("hold-off", Self::HoldOff),
        ("outbox-unbounded", Self::OutboxUnbounded),
        ("membership-before-lock", Self::MembershipBeforeLock),
        ("base-not-read", Self::BaseNotRead),
    ];
}

#[cfg(feature = "failpoints")]
mod enabled {
    use std::time::Duration;

    use super::Failpoint;

    impl Failpoint {
        fn name(self) -> &'static str {
            let named = Self::ALL.iter().find(|(_, point)| *point == self);
            named.map_or("", |(name, _)| name)
        }
    }

    /// Sets what `FAILPOINTS` says; what is set lasts as long as the process.
    ///
    /// # Panics
    /// The variable cannot be read: a test that means it wrong must not pass.
    pub fn setup() {
        std::mem::forget(fail::FailScenario::setup());
        for (name, _) in fail::list() {
            assert!(is_known(&name), "FAILPOINTS: there is no point {name}");
        }
    }

    /// Sets a point while the process runs.
    ///
    /// # Errors
    /// There is no such point, or the action cannot be read.
    pub fn set(name: &str, action: &str) -> Result<(), String> {
        if !is_known(name) {
            return Err(format!("there is no point {name}"));
        }
        fail::cfg(name, action)
    }

    fn is_known(name: &str) -> bool {
        Failpoint::ALL.iter().any(|(known, _)| *known == name)
    }

    /// Whether the step is to be left out.
    #[must_use]
    pub fn leaves_out(step: Failpoint) -> bool {
        returned(step).is_some()
    }

    /// Whether something is set for it, without using it up.
    #[must_use]
    pub fn is_set(point: Failpoint) -> bool {
        let set = fail::list();
        let is_meant = |(name, action): &(String, String)| name == point.name() && action != "off";
        set.iter().any(is_meant)
    }

    /// Passes a seam: dies, waits, or goes on.
    pub async fn pass(seam: Failpoint) {
        let Some(what) = returned(seam) else { return };
        if what == "die" {
            tracing::error!(?seam, "dying at a failpoint");
            std::process::abort();
        }
        let millis = what.strip_prefix("wait ").and_then(|ms| ms.parse().ok());
        if let Some(millis) = millis {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    fn returned(point: Failpoint) -> Option<String> {
        fail::fail_point!(point.name(), |what| Some(what.unwrap_or_default()));
        None
    }
}

#[cfg(not(feature = "failpoints"))]
mod disabled {
    use super::Failpoint;

    /// Nothing to set.
    pub fn setup() {}

    /// Never.
    #[must_use]
    pub const fn leaves_out(_step: Failpoint) -> bool {
        false
    }

    /// Never.
    #[must_use]
    pub const fn is_set(_point: Failpoint) -> bool {
        false
    }

    /// Goes on.
    pub async fn pass(_seam: Failpoint) {}
}

#[cfg(not(feature = "failpoints"))]
pub use disabled::{is_set, leaves_out, pass, setup};
#[cfg(feature = "failpoints")]
pub use enabled::{is_set, leaves_out, pass, set, setup};
