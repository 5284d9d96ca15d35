//! With what the program ends: what scripts and supervisors can tell apart.

use std::process::ExitCode;

use crate::store::StoreError;

/// The exit codes, `docs/OPERATIONS.md` has them as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was finished.
    Done = 0,
    /// Something failed while running.
    Failed = 1,
    /// The configuration, or the command line, cannot work: trying again does not help.
    Refused = 2,
    /// Stopped before everything was finished.
    Unfinished = 3,
    /// PostgreSQL or Redis did not answer in time.
    Away = 4,
    /// The schema lacks migrations, or is of a newer release than this program.
    Schema = 5,
    /// Another process has the address or the database.
    Taken = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure with an exit code of its own, and a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    pub exit: Exit,
    pub why: String,
}

impl Failure {
    #[must_use]
    pub fn new(exit: Exit, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { exit, why }
    }
}

/// What a store that cannot be opened means for the program.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Unavailable(_) => Exit::Away,
            StoreError::Schema(_) => Exit::Schema,
            StoreError::InUse => Exit::Taken,
            StoreError::Denied(_) => Exit::Refused,
            StoreError::Collided(_) | StoreError::Refused(_) | StoreError::Corrupt { .. } => {
                Exit::Failed
            }
        };
        Self::new(exit, error.to_string())
    }
}

/// The exit code for what stopped the program.
#[must_use]
pub fn of(error: &anyhow::Error) -> Exit {
    error
        .downcast_ref::<Failure>()
        .map_or(Exit::Failed, |failure| failure.exit)
}
