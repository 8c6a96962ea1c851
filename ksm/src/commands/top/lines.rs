// SPDX-License-Identifier: GPL-2.0

//! The same in lines, for a file or a pipe.

use std::io::{self, Write};

use crate::{
    processes::domain,
    tables::{bytes, signed_bytes, table},
};

use super::Look;

/// The state of the scanner, by the value of `run`.
pub fn state(run: u64) -> &'static str {
    match run {
        0 => "at rest",
        1 => "scanning",
        _ => "unmerged",
    }
}

/// State, savings, rates and pace, in two lines.
pub fn summary(look: &Look) -> [String; 2] {
    let (counts, rates) = (&look.statistics, &look.rates);
    [
        format!(
            "{}, saved {} (zeros {}), profit {}; {} full scans",
            state(counts.run),
            bytes(counts.sharing + counts.zero),
            bytes(counts.zero),
            signed_bytes(counts.profit),
            counts.full_scans
        ),
        format!(
            "ksmd {:.1} % of a CPU, {:.0} pages/s scanned, {:+.0} pages/s saved; pace {} pages, then {} ms",
            rates.cpu_percent,
            rates.scanned_per_second,
            rates.saved_per_second,
            counts.pages_to_scan,
            counts.sleep_millisecs
        ),
    ]
}

/// The columns of the table of processes.
pub const COLUMNS: [&str; 7] = [
    "PID",
    "name",
    "unit or container",
    "domain",
    "merged",
    "zeros",
    "profit",
];

/// The row of each process.
pub fn rows(look: &Look) -> impl Iterator<Item = [String; 7]> + '_ {
    look.processes.iter().map(|of| {
        [
            of.process.pid.to_string(),
            of.process.name.clone(),
            of.process.group.clone().unwrap_or_default(),
            domain::text(of.process.domain),
            bytes(of.merged),
            bytes(of.zero),
            signed_bytes(of.profit),
        ]
    })
}

/// Prints one look.
pub fn print(look: &Look, out: &mut dyn Write) -> io::Result<()> {
    let mut table = table(&COLUMNS, 4);
    table.add_rows(rows(look));
    writeln!(out, "{}\n{table}\n", summary(look).join("\n"))
}
