//! The report for people.

use std::fmt::{self, Write};

use super::{OFTEN_ENOUGH, Report};

impl Report {
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, out: &mut String) -> fmt::Result {
        let about = &self.about;
        writeln!(out, "# Chaos, seed {}\n", about.seed)?;
        writeln!(out, "Verdict: **{}**.\n", self.verdict())?;
        for problem in self.problems() {
            writeln!(out, "- {problem}")?;
        }
        if self.interrupted {
            writeln!(out, "- The run was interrupted.")?;
        }
        let mut again = format!("make chaos SEED={} MINUTES={}", about.seed, about.minutes);
        if !about.kinds.is_empty() {
            write!(again, " KINDS={}", about.kinds.join(","))?;
        }
        writeln!(
            out,
            "\n{}, PostgreSQL {}, Redis {}; {}. {} people with {} devices on three nodes behind \
             nginx, {} messages/s offered for {} min. Again: `{again}`\n",
            about.server,
            about.postgres,
            about.redis,
            about.machine,
            about.people,
            about.devices,
            about.rate,
            about.minutes,
        )?;
        self.write_faults(out)?;
        self.write_figures(out)?;
        write!(out, "\n{}", self.oracle.to_markdown("The oracle"))?;
        self.annex
            .as_ref()
            .map_or(Ok(()), |annex| annex.write_markdown(out))
    }

    fn write_faults(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "## Faults\n")?;
        writeln!(
            out,
            "| kind | survived | worst lag | worst repair | |\n|---|---:|---:|---:|---|"
        )?;
        let time = |ms: Option<u64>| ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms} ms"));
        for fault in &self.faults {
            writeln!(
                out,
                "| `{}` | {}{} | {} | {} | {} |",
                fault.name,
                fault.survived,
                if fault.survived < OFTEN_ENOUGH {
                    " (too few)"
                } else {
                    ""
                },
                time(fault.worst_lag_ms),
                time(fault.worst_repair_ms),
                fault.what,
            )?;
        }
        writeln!(
            out,
            "\nLag: from the ack of a message to its arrival at a device that was connected all the \
             time, if the fault was on in between. Repair: the same, counted from the end of the \
             last fault. Below 100 ms nothing is noted.\n"
        )
    }

    fn write_figures(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "## Figures\n\n| | |\n|---|---:|")?;
        for (what, count) in &self.counts {
            writeln!(out, "| {what} | {count} |")?;
        }
        for (code, count) in &self.refused {
            writeln!(out, "| sends refused with {code} | {count} |")?;
        }
        for (code, count) in &self.stopped {
            writeln!(out, "| connections ended with {code} | {count} |")?;
        }
        let times = &self.times;
        for (what, ms) in [
            ("worst time of an unacked send", times.worst_unacked_ms),
            ("worst lag", times.worst_lag_ms),
            ("worst lag without a fault", times.worst_lag_in_peace_ms),
            ("worst repair", times.worst_repair_ms),
            ("worst time to resume", times.worst_resume_ms),
            ("worst time of a revocation", times.worst_revocation_ms),
            ("came to rest in", self.settled_in_ms),
        ] {
            writeln!(out, "| {what} | {ms} ms |")?;
        }
        writeln!(out, "\n| counter of the nodes | grew by |\n|---|---:|")?;
        for (series, grown) in self.counters.iter().filter(|(_, grown)| **grown > 0.0) {
            writeln!(out, "| `{series}` | {grown} |")?;
        }
        writeln!(
            out,
            "\n| memory of node | begin | most | end |\n|---|---:|---:|---:|"
        )?;
        for node in 0..self.memory.first().map_or(0, |sample| sample.mib.len()) {
            let all = || self.memory.iter().filter_map(|sample| sample.mib[node]);
            let [first, most, last] = [all().next(), all().max(), all().next_back()]
                .map(|mib| mib.map_or_else(|| "–".to_owned(), |mib| format!("{mib} MiB")));
            writeln!(out, "| {node} | {first} | {most} | {last} |")?;
        }
        Ok(())
    }
}
