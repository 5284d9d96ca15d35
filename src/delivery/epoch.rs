//! The incarnation of the database, as far as this node knows.

use std::sync::{PoisonError, RwLock};

/// Told to every socket in `ready`: cursors of another one are worthless.
#[derive(Debug)]
pub struct Epoch(RwLock<String>);

impl Epoch {
    #[must_use]
    pub fn new(epoch: String) -> Self {
        Self(RwLock::new(epoch))
    }

    #[must_use]
    pub fn get(&self) -> String {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn is_other(&self, epoch: &str) -> bool {
        *self.0.read().unwrap_or_else(PoisonError::into_inner) != epoch
    }

    pub(super) fn set(&self, epoch: String) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = epoch;
    }
}
