//! What each benchmark took when it was put on record, in a file that is committed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use rookery_benches::benchmarks::{ALL, Benchmark};

const HEADER: &str = "\
# Instructions a message, written by `make instructions UPDATE=1`.
# What takes more than 3 % more fails (send/direct: 10 %, since threads wake each other in it).
";
const MADE_WITH: &str = "# Made with ";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Record {
    counts: BTreeMap<String, u64>,
    made_with: String,
}

/// How a count compares, with the change in per cent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Same(f64),
    Better(f64),
    Worse(f64),
    NotOnRecord,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(change) => write!(f, "{change:+.1} %"),
            Self::Better(change) => write!(f, "{change:+.1} %, better"),
            Self::Worse(change) => write!(f, "{change:+.1} %, WORSE"),
            Self::NotOnRecord => f.write_str("NOT ON RECORD"),
        }
    }
}

impl Record {
    /// Reads the record; an empty one where there is no file yet.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not a name and a count.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut record = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(tools) = line.strip_prefix(MADE_WITH) {
                tools
                    .trim_end_matches('.')
                    .clone_into(&mut record.made_with);
            }
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let (name, count) = line
                .split_once(char::is_whitespace)
                .with_context(|| format!("line {number} is not a name and a count"))?;
            let count = count.trim();
            let count = count
                .parse()
                .with_context(|| format!("line {number}: {count:?} is not a number"))?;
            if ALL.iter().all(|benchmark| benchmark.name != name) {
                bail!("line {number}: there is no benchmark {name}");
            }
            record.counts.insert(name.to_owned(), count);
        }
        Ok(record)
    }

    pub(crate) fn write(&self, path: &Path, tools: &str) -> anyhow::Result<()> {
        let text = self.render(tools);
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }

    fn render(&self, tools: &str) -> String {
        let mut text = format!("{HEADER}{MADE_WITH}{tools}.\n");
        for benchmark in ALL {
            if let Some(count) = self.get(benchmark.name) {
                text += &format!("{:<24} {count:>9}\n", benchmark.name);
            }
        }
        text
    }

    pub(crate) fn made_with(&self) -> &str {
        &self.made_with
    }

    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.counts.get(name).copied()
    }

    pub(crate) fn set(&mut self, name: &str, count: u64) {
        self.counts.insert(name.to_owned(), count);
    }

    pub(crate) fn judge(&self, benchmark: &Benchmark, counted: u64) -> Verdict {
        let Some(before) = self.get(benchmark.name) else {
            return Verdict::NotOnRecord;
        };
        let change = (counted as f64 / before as f64 - 1.0) * 100.0;
        if change > benchmark.tolerance {
            Verdict::Worse(change)
        } else if change < -benchmark.tolerance {
            Verdict::Better(change)
        } else {
            Verdict::Same(change)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_judged() {
        let steady = ALL.iter().find(|b| b.name == "deliver/1").unwrap();
        let mut record = Record::default();
        assert_eq!(record.judge(steady, 100), Verdict::NotOnRecord);
        record.set(steady.name, 10_000);
        let record = Record::parse(&record.render("rustc 1.95.0, x86_64")).unwrap();
        assert_eq!(record.made_with(), "rustc 1.95.0, x86_64");
        let judge = |counted| record.judge(steady, counted);
        assert!(matches!(judge(10_290), Verdict::Same(_)));
        assert!(matches!(judge(10_310), Verdict::Worse(_)));
        assert!(matches!(judge(9_000), Verdict::Better(_)));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (line, problem) in [
            ("deliver/1", "line 1 is not a name and a count"),
            ("deliver/1 many", "line 1: \"many\" is not a number"),
            ("deliver/17 12", "line 1: there is no benchmark deliver/17"),
        ] {
            let error = Record::parse(line).unwrap_err();
            assert_eq!(error.to_string(), problem);
        }
    }

    #[test]
    fn everything_is_on_record() {
        let text = include_str!("../instructions.txt");
        let record = Record::parse(text).unwrap();
        for benchmark in ALL {
            assert!(record.get(benchmark.name).is_some(), "{}", benchmark.name);
        }
    }
}
