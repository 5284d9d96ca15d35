//! What can be broken: the table of all kinds of faults. Each family has its rows, and what they do,
//! in a file of its own under `faults/`.

use std::ops::RangeInclusive;

use anyhow::{Result, bail};
use futures_util::future::LocalBoxFuture;

use crate::faults;
use crate::world::World;

/// A kind of fault.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// In words, for lists and reports.
    pub(crate) what: &'static str,
    /// Two faults at a time are never of one part: their healings would get in each other's way.
    pub(crate) part: Part,
    /// How long it lasts between its begin and its healing, in milliseconds.
    pub(crate) hold_ms: RangeInclusive<u64>,
    pub(crate) begin: Act,
    pub(crate) heal: Act,
}

/// What a fault does at its begin or its end, and to whom.
pub(crate) type Act = for<'w> fn(&'w World, Victim) -> LocalBoxFuture<'w, Result<()>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Nodes,
    Redis,
    Postgres,
    Front,
    People,
    /// The node with SQLite that stands beside the cluster.
    Annex,
}

/// A die that the plan has thrown: each kind reads from it whom it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Victim(pub(crate) u32);

impl Victim {
    /// One of `count`, the same at the begin and at the healing.
    #[must_use]
    pub(crate) fn of(self, count: usize) -> usize {
        self.0 as usize % count.max(1)
    }
}

/// All of them.
pub(crate) fn all() -> Vec<&'static Kind> {
    [
        faults::nodes::KINDS,
        faults::code::KINDS,
        faults::stall::KINDS,
        faults::clocks::KINDS,
        faults::keys::KINDS,
        faults::redis::KINDS,
        faults::links::KINDS,
        faults::sentinels::KINDS,
        faults::postgres::KINDS,
        faults::front::KINDS,
        faults::people::KINDS,
        faults::races::KINDS,
        faults::annex::KINDS,
        faults::set_back::KINDS,
    ]
    .iter()
    .flat_map(|family| family.iter())
    .collect()
}

/// Those of these names; all of them for no names.
///
/// # Errors
/// There is no such kind.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Kind>> {
    let all = all();
    if names.is_empty() {
        return Ok(all);
    }
    if let Some(unknown) = names
        .iter()
        .find(|name| !all.iter().any(|kind| kind.name == **name))
    {
        bail!("there is no kind of fault called {unknown}; --list shows them");
    }
    Ok(all
        .into_iter()
        .filter(|kind| names.iter().any(|name| name == kind.name))
        .collect())
}

/// The table, for `--list`.
pub fn list() -> String {
    let all = all();
    let width = all.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    let line = |kind: &&Kind| format!("{:width$}  {}\n", kind.name, kind.what);
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_chosen_by_name() {
        let mut names: Vec<&str> = all().iter().map(|kind| kind.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let some = chosen(&["redis-flushall".into(), "node-kill".into()]).unwrap();
        assert_eq!(some.len(), 2);
        let Err(error) = chosen(&["node-kil".into()]) else {
            panic!("a misspelt name was taken");
        };
        assert!(error.to_string().contains("node-kil;"), "{error}");
    }
}
