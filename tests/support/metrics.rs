//! A node's metrics, as numbers.

use std::collections::HashMap;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(HashMap<String, f64>);

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// Every series whose name starts like this, with its value.
    pub fn starting_with<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let all = self.0.iter().map(|(name, value)| (name.as_str(), *value));
        all.filter(move |(name, _)| name.starts_with(start))
    }

    /// The value of a series, written as nodes write it: `rookery_sockets`,
    /// `rookery_delivered_total{path="fill"}`.
    ///
    /// # Panics
    /// The node has no such series; a misspelt name must not count as 0.
    #[must_use]
    pub fn get(&self, series: &str) -> f64 {
        let known = || {
            let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
            names.sort_unstable();
            names.join("\n")
        };
        *self
            .0
            .get(series)
            .unwrap_or_else(|| panic!("no series {series} among\n{}", known()))
    }
}
