//! Counts what one benchmark executes, with valgrind's callgrind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, bail};
use rookery_benches::benchmarks::{Benchmark, COUNTED};

/// The command of this program that runs one benchmark.
pub(crate) const RUN: &str = "run";

const INSTALL: &str = "valgrind is not installed; on Debian: apt-get install valgrind";

/// What counts depend on beside the code: the compiler, the machine, the C library's `malloc` and
/// `memcpy`, and valgrind, which tells both what the processor can do.
///
/// # Errors
/// Valgrind is missing.
pub(crate) fn version() -> anyhow::Result<String> {
    let valgrind = first_line("valgrind", &["--version"]).context(INSTALL)?;
    let rustc = first_line("rustc", &["--version"])?;
    let rustc = rustc.split(" (").next().unwrap_or_default();
    let libc = first_line("ldd", &["--version"])?;
    let libc = libc.rsplit(' ').next().unwrap_or_default();
    let machine = std::env::consts::ARCH;
    Ok(format!("{rustc}, {machine}, libc {libc}, {valgrind}"))
}

/// The instructions of one message.
///
/// # Errors
/// The benchmark fails, or callgrind does.
pub(crate) fn count(benchmark: &Benchmark, out: &Path) -> anyhow::Result<u64> {
    let repeats = benchmark.repeats;
    let file = |times: &str| {
        let name = benchmark.name.replace('/', "-");
        out.join(format!("{name}.{times}.out"))
    };
    let once = run(benchmark, repeats, &file("once"))?;
    let twice = run(benchmark, repeats * 2, &file("twice"))?;
    match twice.checked_sub(once).map(|more| more / repeats as u64) {
        Some(counted) if counted > 0 => Ok(counted),
        _ => bail!(
            "{}: {once} once and {twice} twice: it was not counted",
            benchmark.name
        ),
    }
}

/// Runs a benchmark that is prepared for twice its repeats and done for `done`.
fn run(benchmark: &Benchmark, done: usize, file: &Path) -> anyhow::Result<u64> {
    let mut valgrind = Command::new("valgrind");
    let output = valgrind
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect=*{COUNTED}*"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args([RUN, benchmark.name])
        .args([(benchmark.repeats * 2).to_string(), done.to_string()])
        .output()
        .context(INSTALL)?;
    let words = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "{} under callgrind: {}\n{words}",
            benchmark.name,
            output.status
        );
    }
    let text = fs::read_to_string(file).with_context(|| format!("{words}{}", file.display()))?;
    total(&text).with_context(|| format!("{} has no total", file.display()))
}

/// The total of one of callgrind's files.
fn total(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    total.trim().parse().ok()
}

fn first_line(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let Output { stdout, .. } = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program} cannot be run"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let line = text.lines().next().unwrap_or_default();
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_among_the_lines() {
        let file = "summary: 900\n\nfn=(1) main\n0 4\n\ntotals: 1234567\n";
        assert_eq!(total(file), Some(1_234_567));
        assert_eq!(total("events: Ir\n"), None);
    }
}
