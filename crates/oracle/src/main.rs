//! `rookery-oracle FOLDER STATE [--all-sends-recorded]`: checks the histories (`*.jsonl`) of a folder
//! against a final state in JSON and prints the report in Markdown. Ends with 0 if every promise was
//! kept, with 1 if one was broken, with 2 if the question cannot be answered.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use rookery_oracle::{FinalState, History, Options, Report, check};

const USAGE: &str = "usage: rookery-oracle FOLDER STATE [--all-sends-recorded]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (folder, state, all_sends_recorded) = match arguments[..] {
        [folder, state] => (folder, state, false),
        [folder, state, "--all-sends-recorded"] => (folder, state, true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let options = Options {
        all_sends_recorded,
        ..Options::default()
    };
    match judge(Path::new(folder), Path::new(state), &options) {
        Ok(report) => {
            println!("{}", report.to_markdown(folder));
            ExitCode::from(u8::from(!report.is_clean()))
        }
        Err(error) => {
            eprintln!("rookery-oracle: {error}");
            ExitCode::from(2)
        }
    }
}

fn judge(
    folder: &Path,
    state: &Path,
    options: &Options,
) -> Result<Report, Box<dyn std::error::Error>> {
    let state: FinalState = serde_json::from_reader(BufReader::new(File::open(state)?))?;
    let histories = History::folder(folder)?;
    if histories.is_empty() {
        return Err("there is no history in the folder".into());
    }
    Ok(check(&histories, &state, options)?)
}
