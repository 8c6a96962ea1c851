// SPDX-License-Identifier: GPL-2.0

//! The data structures of `ksm_rs` at the size of a host of terabytes.
//!
//! This compiles the module's own sources, outside of a kernel. Where they use what a program does
//! not have, there is something in its place: the crate `kernel`, and the modules here that have the
//! names of others. Pages are numbers.

// The sources have functions for the rest of the module.
#![allow(dead_code)]

// The kernel has this part of its crate as a crate of its own.
extern crate kernel as pin_init;

mod checksum;
mod clock;
#[path = "../../containers/mod.rs"]
mod containers;
#[cfg(test)]
mod counted;
mod handles;
mod kernel_api;
mod merged;
mod mm;
mod records;
mod report;
#[path = "../../rmap_item.rs"]
mod rmap_item;
#[path = "../../stable_tree.rs"]
mod stable_tree;
mod testing;
#[path = "../../unstable_tree.rs"]
mod unstable_tree;
mod waiting;
#[cfg(test)]
mod work;

use anyhow::{Context, Result};
use clap::Parser;
use kernel::usage;
use report::Report;
use std::fs;
use waiting::Records;

/// Operations whose mean counts.
const SAMPLE: usize = 1 << 19;

/// The part of the machine's free memory that may be used, in percent.
const MEMORY_SHARE: usize = 85;

/// Bytes for a page with all of its records, and with its node in the unstable tree alone: the
/// records, and the largest share of roots.
const BYTES: usize = 16 + 16 + 5;
const BYTES_IN_TREE: usize = 16 + 5;

/// Bytes for a node in the stable tree.
const BYTES_STABLE: usize = 24 + 5;

/// Measures what operations on the data structures of ksm_rs cost at several sizes.
#[derive(Parser)]
struct Arguments {
    /// Numbers of pages, as powers of two: 28 is a host of 1 TiB.
    #[arg(long, value_delimiter = ',', default_values_t = [20, 24, 28, 29, 30, 31])]
    sizes: Vec<u32>,

    /// Leave out the pool with all the handles that there are.
    #[arg(long)]
    no_handles: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    usage::reset();
    let mut report = Report::default();
    for size in arguments.sizes {
        let mut rows = Vec::new();
        let pages = 1 << size;
        let sample = SAMPLE.min(pages / 2);
        let records = match () {
            () if fits(pages * BYTES)? => Some(Records::All),
            () if fits(pages * BYTES_IN_TREE)? => Some(Records::TreesOnly),
            () => None,
        };
        if let Some(records) = records {
            eprintln!("2^{size} pages that wait");
            rows.extend(waiting::measure(pages, sample, records)?);
        }
        if fits(pages * BYTES_STABLE)? {
            eprintln!("2^{size} pages that are merged");
            rows.extend(merged::measure(pages, sample)?);
        }
        if size == 31 && !arguments.no_handles {
            eprintln!("2^{size} handles");
            rows.extend(handles::measure(SAMPLE)?);
        }
        match rows.is_empty() {
            true => eprintln!("2^{size} pages do not fit into this machine's free memory"),
            false => report.add(size, rows),
        }
    }
    println!("Nanoseconds of CPU time for an operation, by the number of pages:\n\n{report}");
    println!(
        "Highest order of an allocation: {}. Largest vector: {} KiB.",
        usage::highest_order(),
        usage::largest_vector() >> 10
    );
    Ok(())
}

/// Whether the machine can give that much memory.
fn fits(bytes: usize) -> Result<bool> {
    let known = fs::read_to_string("/proc/meminfo")?;
    let kib = known
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("/proc/meminfo says nothing of available memory")?;
    let available = kib.parse::<usize>()? * 1024 + kernel::usage::spare_bytes();
    Ok(bytes <= available / 100 * MEMORY_SHARE)
}
