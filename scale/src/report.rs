// SPDX-License-Identifier: GPL-2.0

//! The table of all that was measured.

use std::fmt;

/// How an operation goes through memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// One after the other.
    Sequential,
    /// At random, without help.
    Raw,
    /// At random; the CPU was asked for what each begins with, a batch at a time.
    Fetched,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sequential => "in order",
            Self::Raw => "random",
            Self::Fetched => "random, fetched",
        })
    }
}

/// The cost of one operation.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    operation: &'static str,
    access: Access,
    nanoseconds: f64,
}

impl Row {
    pub(crate) fn new(operation: &'static str, access: Access, nanoseconds: f64) -> Self {
        Self {
            operation,
            access,
            nanoseconds,
        }
    }
}

/// How many times what an operation costs at the smallest size it may cost.
const FACTOR: f64 = 1.5;

/// Measurements at all sizes.
#[derive(Default)]
pub(crate) struct Report {
    sizes: Vec<u32>,
    rows: Vec<(Row, Vec<Option<f64>>)>,
}

impl Report {
    /// Adds what was measured with `2^size` pages.
    pub(crate) fn add(&mut self, size: u32, rows: Vec<Row>) {
        let column = self.sizes.len();
        self.sizes.push(size);
        for row in rows {
            let same = |(other, _): &&mut (Row, _)| {
                other.operation == row.operation && other.access == row.access
            };
            let costs = match self.rows.iter_mut().find(same) {
                Some((_, costs)) => costs,
                None => {
                    self.rows.push((row, Vec::new()));
                    &mut self.rows.last_mut().expect("just added").1
                }
            };
            costs.resize(column, None);
            costs.push(Some(row.nanoseconds));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| operation | memory |")?;
        for size in &self.sizes {
            write!(f, " 2^{size} |")?;
        }
        writeln!(f, " growth | within {FACTOR} |")?;
        writeln!(f, "|---|---|{}---|---|", "---:|".repeat(self.sizes.len()))?;
        for (row, costs) in &self.rows {
            write!(f, "| {} | {} |", row.operation, row.access)?;
            for column in 0..self.sizes.len() {
                match costs.get(column).copied().flatten() {
                    Some(cost) => write!(f, " {cost:.0} |")?,
                    None => write!(f, " |")?,
                }
            }
            let known = || costs.iter().copied().flatten();
            match (known().next(), known().last()) {
                (Some(first), Some(last)) if known().count() > 1 => {
                    let growth = last / first;
                    let good = if growth <= FACTOR { "yes" } else { "NO" };
                    writeln!(f, " {growth:.2} | {good} |")?;
                }
                _ => writeln!(f, " | |")?,
            }
        }
        Ok(())
    }
}
