//! How full something is.

/// How much of something bounded is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub used: usize,
    pub capacity: usize,
}

impl Level {
    /// Of a queue that has room for so many more.
    #[must_use]
    pub fn of_queue<T>(queue: &tokio::sync::mpsc::Sender<T>) -> Self {
        let capacity = queue.max_capacity();
        Self {
            used: capacity - queue.capacity(),
            capacity,
        }
    }
}
