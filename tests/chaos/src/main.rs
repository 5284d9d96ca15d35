//! The program; all of it is in the library, so that a test can run it, too.

use std::process::ExitCode;

use clap::Parser;
use rookery_chaos::Options;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        print!("{}", rookery_chaos::list());
        return ExitCode::SUCCESS;
    }
    let allow_incomplete = options.allow_incomplete;
    match rookery_chaos::run(options).await {
        Ok(report) if report.passes(allow_incomplete) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("rookery-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}
