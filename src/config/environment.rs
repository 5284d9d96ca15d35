//! The variables of the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::sources::{Result, whole};

/// Which the runtime reads, too, and panics on what it cannot use, even on nothing.
pub(super) const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// The environment variables of a process, or those of a test.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    texts: BTreeMap<String, String>,
    /// Names of those whose values are not UTF-8.
    unreadable: Vec<String>,
}

impl Environment {
    /// Those of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::of(std::env::vars_os())
    }

    /// Names that are not UTF-8 are none of ours and left out.
    pub(super) fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(environment.texts.insert(name, value)),
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment
    }

    /// The value of a variable. An empty one, or one of spaces, counts as not set, because compose
    /// files and manifests pass on unset variables as empty ones.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.texts
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.trim().is_empty())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.texts
            .keys()
            .map(String::as_str)
            .filter(|name| self.get(name).is_some())
    }

    /// Names of the variables whose values are not UTF-8.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.unreadable.iter().map(String::as_str)
    }

    /// Threads that run tasks: `TOKIO_WORKER_THREADS`, by default as many as cores.
    pub(super) fn worker_threads(&self) -> Result<usize> {
        let Some(text) = self.get(WORKER_THREADS) else {
            return Ok(std::thread::available_parallelism().map_or(1, usize::from));
        };
        whole(1..=1_024)(text.trim()).map_err(|why| format!("{WORKER_THREADS}: {why}"))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter();
        Self {
            texts: variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            unreadable: Vec::new(),
        }
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Environment {
    fn from(variables: [(N, V); COUNT]) -> Self {
        variables.into_iter().collect()
    }
}
