// SPDX-License-Identifier: GPL-2.0

//! Tables and numbers for people.

use comfy_table::{presets, CellAlignment, Table};
use indicatif::BinaryBytes;

use crate::{pages::PAGE_SIZE, pairs::Pair};

/// Rows of a table.
pub const ROWS: usize = 20;

/// A table whose columns from `numbers` on stand to the right.
pub fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The first pairs, and what the pages are that they have in common.
pub fn of_pairs(pairs: &[Pair], common: &str) -> Table {
    let mut table = table(&["PID", "and PID", common], 2);
    for pair in pairs.iter().take(ROWS) {
        let pids = [pair.one, pair.other].map(|pid| pid.to_string());
        table.add_row([&pids[0], &pids[1], &bytes(pair.common)]);
    }
    table
}

/// The bytes of so many pages.
pub fn bytes(pages: u64) -> String {
    BinaryBytes(pages * PAGE_SIZE).to_string()
}

/// Bytes, fewer than none as well.
pub fn signed_bytes(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", BinaryBytes(bytes.unsigned_abs()))
}

/// A share, in percent.
pub fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}
