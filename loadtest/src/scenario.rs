//! Scenario files: what to run, in which order, and within which bounds.
//!
//! A run takes the options of the command line, without their dashes: they are read by the same
//! parser, so that names, defaults, limits and error messages stand in one place.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use serde::Deserialize;
use toml::{Table, Value};

use crate::options::Kind;
use crate::report::Growth;
use crate::threshold::Threshold;

macro_rules! embedded {
    ($($name:literal),+) => {
        &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),+]
    };
}
/// The scenarios that come with the program.
const EMBEDDED: &[(&str, &str)] = embedded!(
    "bench",
    "smoke",
    "storm",
    "idle",
    "direct",
    "group",
    "mixed",
    "history",
    "presence",
    "logins",
    "rates",
    "drain",
    "redis-restart",
    "growth",
    "growth-quick",
    "compare",
    "compare-quick"
);

/// What a file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    #[serde(default)]
    thresholds: Vec<String>,
    #[serde(rename = "run")]
    runs: Vec<Table>,
}

#[derive(Debug)]
pub(crate) struct Scenario {
    pub name: String,
    pub about: String,
    pub thresholds: Vec<Threshold>,
    pub runs: Vec<Planned>,
}

/// One run of a scenario.
#[derive(Debug)]
pub(crate) struct Planned {
    pub name: String,
    pub kind: Kind,
    /// Nodes of one's own cluster, where they matter.
    pub nodes: Option<u8>,
    /// On a cluster that nothing was done to before.
    pub fresh: bool,
    pub growth: Option<Growth>,
    /// An earlier run, half of whose messages a second are this one's rate.
    pub half_of: Option<String>,
    /// In a comparison: whether the peers do it too, and not Rookery alone.
    pub peers: bool,
}

/// The options of a run, as the command line has them.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(subcommand)]
    kind: Kind,
}

impl Scenario {
    /// One of those that come with the program, or a file.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be understood.
    pub(crate) fn load(name: &str) -> anyhow::Result<Self> {
        if let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        if !path.is_file() {
            let known: Vec<&str> = EMBEDDED.iter().map(|(known, _)| *known).collect();
            bail!(
                "there is no scenario {name}, and no such file; there are {}",
                known.join(", ")
            );
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&stem, &text).with_context(|| name.to_owned())
    }

    /// A single run, from the command line.
    pub(crate) fn single(kind: Kind) -> Self {
        Self {
            name: kind.name().to_owned(),
            about: String::new(),
            thresholds: Vec::new(),
            runs: vec![Planned {
                name: kind.name().to_owned(),
                kind,
                nodes: None,
                fresh: false,
                growth: None,
                half_of: None,
                peers: true,
            }],
        }
    }

    fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text)?;
        let thresholds = file.thresholds.iter().map(|text| text.parse());
        let runs: Vec<Planned> = file
            .runs
            .into_iter()
            .enumerate()
            .map(|(index, run)| planned(run).with_context(|| format!("run {}", index + 1)))
            .collect::<anyhow::Result<_>>()?;
        for (index, run) in runs.iter().enumerate() {
            let twice = runs[..index].iter().any(|other| other.name == run.name);
            ensure!(!twice, "two runs are named {}", run.name);
            if let Some(half_of) = &run.half_of {
                let mut earlier = runs[..index].iter();
                let earlier = earlier.find(|other| other.name == *half_of);
                let earlier = earlier
                    .with_context(|| format!("{}: there is no earlier run {half_of}", run.name))?;
                ensure!(
                    earlier.peers || !run.peers,
                    "{}: peers have no run {half_of} to take half of",
                    run.name
                );
            }
        }
        Ok(Self {
            name: name.to_owned(),
            about: file.about,
            thresholds: thresholds.collect::<anyhow::Result<_>>()?,
            runs,
        })
    }
}

/// The scenarios that come with the program, one a line.
pub(crate) fn list() -> String {
    let line = |(name, text): &(&str, &str)| {
        let about = Scenario::parse(name, text).map_or_else(|error| error.to_string(), |s| s.about);
        format!("  {name:<14}{about}\n")
    };
    EMBEDDED.iter().map(line).collect()
}

fn planned(mut run: Table) -> anyhow::Result<Planned> {
    let mut text = |key: &str| match run.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => bail!("{key} is text, not {}", other.type_str()),
    };
    let kind = text("kind")?.context("a run needs a kind")?;
    let name = text("name")?.unwrap_or_else(|| kind.clone());
    let series = text("series")?;
    let half_of = text("half_of")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "{name:?} is no name: wanted are a-z, 0-9, - and _"
    );
    let x = match run.remove("x") {
        Some(Value::Integer(x)) => Some(x as f64),
        None => None,
        Some(other) => bail!("x is a number, not {}", other.type_str()),
    };
    let growth = match (series, x, metrics(run.remove("metric"))?) {
        (Some(series), Some(x), Some((metric, more_metrics))) => Some(Growth {
            series,
            x,
            metric,
            more_metrics,
        }),
        (None, None, None) => None,
        _ => bail!("series, x and metric belong together"),
    };
    let nodes = match run.remove("nodes") {
        None => None,
        Some(Value::Integer(nodes @ 1..=16)) => Some(u8::try_from(nodes)?),
        Some(_) => bail!("nodes is a number from 1 to 16"),
    };
    let fresh = match run.remove("fresh") {
        None => false,
        Some(Value::Boolean(fresh)) => fresh,
        Some(_) => bail!("fresh is true or false"),
    };
    let peers = match run.remove("peers") {
        None => true,
        Some(Value::Boolean(peers)) => peers,
        Some(other) => bail!("peers is true or false, not {}", other.type_str()),
    };
    let line = Line::try_parse_from(arguments(&kind, run)?);
    // The first line says what is wrong; the others are about a command line.
    let line = line.map_err(|error| {
        let text = error.to_string();
        anyhow::anyhow!("{}", text.lines().next().unwrap_or_default().to_owned())
    })?;
    Ok(Planned {
        name,
        kind: line.kind,
        nodes,
        fresh,
        growth,
        half_of,
        peers,
    })
}

/// One name, or several.
fn metrics(value: Option<Value>) -> anyhow::Result<Option<(String, Vec<String>)>> {
    let wanted = "metric is text, or a list of texts";
    let names = match value {
        None => return Ok(None),
        Some(Value::Array(names)) => names,
        Some(name) => vec![name],
    };
    let text = |name: Value| Some(name.as_str()?.to_owned());
    let names: Option<Vec<String>> = names.into_iter().map(text).collect();
    let mut names = names.context(wanted)?.into_iter();
    let first = names.next().context(wanted)?;
    Ok(Some((first, names.collect())))
}

/// `rate = 5` becomes `--rate 5`, `marks = true` becomes `--marks`.
fn arguments(kind: &str, run: Table) -> anyhow::Result<Vec<String>> {
    let mut arguments = vec![kind.to_owned()];
    for (key, value) in run {
        let flag = format!("--{}", key.replace('_', "-"));
        match value {
            Value::Boolean(false) => {}
            Value::Boolean(true) => arguments.push(flag),
            Value::Integer(number) => arguments.extend([flag, number.to_string()]),
            Value::Float(number) => arguments.extend([flag, number.to_string()]),
            Value::String(text) => arguments.extend([flag, text]),
            other => bail!("{key} cannot be of type {}", other.type_str()),
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_comes_along_is_well_formed() {
        for (name, text) in EMBEDDED {
            let scenario = Scenario::parse(name, text);
            let scenario = scenario.unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert!(
                !scenario.runs.is_empty() && !scenario.about.is_empty(),
                "{name}"
            );
            for threshold in &scenario.thresholds {
                for run in threshold.runs() {
                    // A comparison's runs end with the server's name.
                    let known = scenario.runs.iter().any(|planned| {
                        let rest = run.strip_prefix(&planned.name);
                        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                    });
                    assert!(known, "{name}: {threshold} is about no run of it");
                }
            }
        }
    }

    #[test]
    fn files_take_the_options_of_the_command_line() {
        let text = "about = 'x'\nthresholds = ['a.b<=1']\n[[run]]\nkind = 'direct'\nname = 'a'\n\
                    users = 10\nrate = 2.5\nboth_ways = true\nmarks = false\nnodes = 3\nfresh = true";
        let scenario = Scenario::parse("x", text).unwrap();
        let Kind::Direct { direct, rate } = &scenario.runs[0].kind else {
            panic!("{scenario:?}")
        };
        assert_eq!((direct.users, *rate), (10, Some(2.5)));
        assert!(direct.both_ways && !direct.marks);
        assert_eq!(scenario.runs[0].nodes, Some(3));
        assert!(scenario.runs[0].fresh);
    }

    #[test]
    fn a_run_may_be_a_point_of_several_charts() {
        for (metric, wanted) in [("'a'", vec!["a"]), ("['a', 'b']", vec!["a", "b"])] {
            let text = format!(
                "about = 'x'\n[[run]]\nkind = 'direct'\nseries = 's'\nx = 1\nmetric = {metric}"
            );
            let scenario = Scenario::parse("x", &text).unwrap();
            let growth = scenario.runs[0].growth.as_ref().unwrap();
            assert_eq!(growth.metrics().collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said() {
        for (run, wanted) in [
            ("kind = 'direkt'", "direkt"),
            ("name = 'a'", "a run needs a kind"),
            ("kind = 'direct'\nuzers = 1", "--uzers"),
            ("kind = 'direct'\nusers = 1", "users"),
            ("kind = 'direct'\nname = 'A.b'", "is no name"),
            ("kind = 'direct'\nnodes = 0", "nodes is a number"),
            ("kind = 'direct'\nfresh = 1", "fresh is true or false"),
            ("kind = 'direct'\nseries = 'users'", "belong together"),
            (
                "kind = 'direct'\nseries = 'users'\nx = 1\nmetric = ['a', 1]",
                "metric is text, or a list of texts",
            ),
            (
                "kind = 'direct'\nseries = 'users'\nx = 1\nmetric = []",
                "metric is text, or a list of texts",
            ),
            (
                "kind = 'direct'\nusers = [1]",
                "users cannot be of type array",
            ),
            ("kind = 'direct'\n[[run]]\nkind = 'direct'", "two runs"),
            (
                "kind = 'direct'\npeers = 'ws'",
                "peers is true or false, not string",
            ),
            (
                "kind = 'direct'\nname = 'a'\nhalf_of = 'b'",
                "a: there is no earlier run b",
            ),
            (
                "kind = 'direct'\nname = 'a'\npeers = false\n\
                 [[run]]\nkind = 'direct'\nhalf_of = 'a'",
                "peers have no run a",
            ),
        ] {
            let text = format!("about = 'x'\n[[run]]\n{run}");
            let error = format!("{:#}", Scenario::parse("x", &text).unwrap_err());
            assert!(error.contains(wanted), "{run}: {error}");
        }
        let error = Scenario::load("no-such").unwrap_err().to_string();
        assert!(error.contains("there is no scenario no-such"), "{error}");
        assert!(error.contains("bench"), "it lists those there are: {error}");
    }
}
