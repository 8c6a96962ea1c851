// SPDX-License-Identifier: GPL-2.0

//! What the kernel answers to bad input, and to some good one, as a table.
//!
//! Each line is a request, a tab and what came of it. The program knows nothing of what is right:
//! the table of one KSM is compared with that of another.

mod advice;
mod files;
mod merge_any;
mod nobody;
mod outcome;

use anyhow::Result;

use outcome::Row;

fn main() -> Result<()> {
    for table in [files::table, advice::table, merge_any::table, nobody::table] {
        for Row { request, outcome } in table()? {
            println!("{request}\t{outcome}");
        }
    }
    Ok(())
}
