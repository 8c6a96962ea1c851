// SPDX-License-Identifier: GPL-2.0

//! What the user sees: on a terminal a panel that refreshes in place, in a pipe lines.

use std::time::Duration;

use anyhow::Result;
use console::{style, Term};
use ksm_tests::{MIB, PAGE_SIZE};

use crate::progress::Snapshot;

/// In a pipe, how often a line is printed.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Width of the bar on a terminal.
const BAR_WIDTH: usize = 50;

/// Standard output, as a terminal or not.
pub struct Display {
    terminal: Term,
    phases: u32,
    panel_lines: usize,
    last_line: Option<Duration>,
}

impl Display {
    pub fn new() -> Self {
        Self {
            terminal: Term::buffered_stdout(),
            phases: 0,
            panel_lines: 0,
            last_line: None,
        }
    }

    /// Says what is shown.
    pub fn title(&self, provider: &str) {
        println!(
            "\n{}",
            style(format!("Many processes, one memory: {provider}")).bold()
        );
    }

    /// Announces a phase in a sentence or two.
    pub fn phase(&mut self, sentence: &str) {
        self.phases += 1;
        println!("\n{}. {sentence}", style(self.phases).cyan().bold());
    }

    /// Tells a result.
    pub fn note(&self, text: &str) {
        println!("   {} {text}", style("→").cyan());
    }

    /// The last line, for people and for programs.
    pub fn verdict(&self, text: &str, success: bool) {
        let text = style(text).bold();
        println!("\n{}", if success { text.green() } else { text.red() });
    }

    /// Shows how far the merging is; `last` if this is the end of it.
    pub fn progress(&mut self, now: &Snapshot, last: bool) -> Result<()> {
        if self.terminal.is_term() {
            self.refresh(&panel(now))
        } else {
            self.line(now, last);
            Ok(())
        }
    }

    fn refresh(&mut self, panel: &[String]) -> Result<()> {
        self.terminal.clear_last_lines(self.panel_lines)?;
        for line in panel {
            self.terminal.write_line(line)?;
        }
        self.terminal.flush()?;
        self.panel_lines = panel.len();
        Ok(())
    }

    fn line(&mut self, now: &Snapshot, last: bool) {
        match self.last_line {
            None => println!("\n{HEADING}"),
            Some(before) if !last && now.time - before < LINE_INTERVAL => return,
            Some(_) => {}
        }
        println!("{}", row(now));
        self.last_line = Some(now.time);
    }
}

/// Pages as MiB.
pub fn mib(pages: u64) -> String {
    format!("{:.1} MiB", pages_to_mib(pages))
}

fn pages_to_mib(pages: u64) -> f64 {
    (pages as usize * PAGE_SIZE) as f64 / MIB as f64
}

fn kib_to_mib(kib: i64) -> f64 {
    kib as f64 / 1024.0
}

const HEADING: &str = "    time   shared  sharing unshared volatile scans  saved MiB  available  \
                       merged  ksmd CPU";

fn row(now: &Snapshot) -> String {
    let c = &now.counters;
    format!(
        "  {:>4.1} s {:>8} {:>8} {:>8} {:>8} {:>5} {:>10.1} {:>+10.1} {:>5.1} % {:>7.2} s",
        now.time.as_secs_f64(),
        c.shared,
        c.sharing,
        c.unshared,
        c.volatile,
        now.full_scans,
        pages_to_mib(c.sharing),
        kib_to_mib(now.available_kib),
        now.percent,
        now.ksmd_cpu.as_secs_f64(),
    )
}

fn panel(now: &Snapshot) -> Vec<String> {
    let c = &now.counters;
    let entry = |name: &str, value: String, meaning: &str| {
        format!("   {name:<15} {value:>10}   {}", style(meaning).dim())
    };
    let count = |name, value: u64, meaning| entry(name, value.to_string(), meaning);
    vec![
        String::new(),
        format!(
            "   {}  {:.1} % of the duplicates, {:.1} s",
            style(bar(now.percent)).green(),
            now.percent,
            now.time.as_secs_f64()
        ),
        String::new(),
        count("pages_shared", c.shared, "one copy kept of each content"),
        count(
            "pages_sharing",
            c.sharing,
            "further copies, given back to the system",
        ),
        count(
            "pages_unshared",
            c.unshared,
            "looked at, but nobody has the same",
        ),
        count(
            "pages_volatile",
            c.volatile,
            "not yet looked at twice, or changing",
        ),
        count(
            "full_scans",
            now.full_scans,
            "times through all of the memory",
        ),
        entry("saved", mib(c.sharing), "by KSM's own count"),
        entry(
            "available",
            format!("{:+.1} MiB", kib_to_mib(now.available_kib)),
            "more memory by the kernel's count (MemAvailable)",
        ),
        entry(
            "ksmd CPU",
            format!("{:.2} s", now.ksmd_cpu.as_secs_f64()),
            "what the merging cost",
        ),
    ]
}

fn bar(percent: f64) -> String {
    let full = (percent.clamp(0.0, 100.0) / 100.0 * BAR_WIDTH as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR_WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ksm_tests::ksm::Counters;

    #[test]
    fn bars_have_one_width() {
        for percent in [-1.0, 0.0, 33.3, 100.0, 120.0] {
            assert_eq!(bar(percent).chars().count(), BAR_WIDTH);
        }
    }

    #[test]
    fn rows_stand_under_their_heading() {
        let now = Snapshot {
            time: Duration::from_millis(1500),
            counters: Counters::stable(8000, 56000, 8192),
            full_scans: 2,
            available_kib: 224 * 1024,
            ksmd_cpu: Duration::from_millis(700),
            percent: 99.9,
        };
        assert_eq!(row(&now).len(), HEADING.len());
    }

    #[test]
    fn pages_are_told_in_mib() {
        assert_eq!(mib(256), "1.0 MiB");
    }
}
