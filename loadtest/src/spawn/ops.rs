//! What a node says of itself: its metrics.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

/// Where a node is asked.
#[derive(Clone, Debug)]
pub(crate) struct Ops {
    url: String,
    http: reqwest::Client,
}

/// All series of a node at one moment, by name and labels as they are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Ops {
    pub(super) fn new(ops: &str, http: reqwest::Client) -> Self {
        Self {
            url: format!("{ops}/metrics"),
            http,
        }
    }

    /// # Errors
    /// The node does not answer.
    pub(crate) async fn metrics(&self) -> anyhow::Result<Metrics> {
        let asking = || format!("asking {}", self.url);
        let answer = self.http.get(&self.url).send().await;
        let answer = answer.with_context(asking)?;
        ensure!(answer.status().is_success(), asking());
        let text = answer.text().await.with_context(asking)?;
        Ok(Metrics::read(&text))
    }
}

impl Metrics {
    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// One series.
    ///
    /// # Errors
    /// The node has none of this name: it is of another version than this program.
    pub(crate) fn get(&self, series: &str) -> anyhow::Result<f64> {
        let found = self.0.get(series).copied();
        found.with_context(|| format!("the node has no metric {series}"))
    }

    /// All series of a metric together.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn sum(&self, metric: &str) -> anyhow::Result<f64> {
        let of_metric = |name: &str| name.split('{').next() == Some(metric);
        let found: Vec<f64> = self
            .0
            .iter()
            .filter(|(name, _)| of_metric(name))
            .map(|(_, v)| *v)
            .collect();
        ensure!(!found.is_empty(), "the node has no metric {metric}");
        Ok(found.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_and_added_up() {
        let metrics = Metrics::read("# HELP a b\na{x=\"1\"} 2\na{x=\"2\"} 3\nab 4\n");
        assert_eq!(metrics.get("a{x=\"2\"}").unwrap(), 3.0);
        assert_eq!(metrics.sum("a").unwrap(), 5.0);
        assert_eq!(metrics.sum("ab").unwrap(), 4.0);
        let error = metrics.sum("b").unwrap_err().to_string();
        assert_eq!(error, "the node has no metric b");
    }
}
