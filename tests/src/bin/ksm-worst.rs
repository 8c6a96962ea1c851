// SPDX-License-Identifier: GPL-2.0

//! How much CPU a full scan costs in the worst case for content-ordered trees.
//!
//! All pages are equal but for their last eight bytes, so a comparison of two pages reads both
//! to the end, and nothing ever merges. The holder of the memory sleeps; what the scanner's
//! thread uses meanwhile is the cost. Prints one line of JSON.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, Result};
use clap::Parser;
use ksm_tests::{
    ksm::{self, Counters, Scanner},
    pattern,
    procfs::Ksmd,
    region::Region,
    wait, MIB, PAGE_SIZE,
};
use serde_json::json;

#[derive(Parser)]
#[command(about = "Measures ksmd's CPU time per full scan over pages that differ in their end")]
struct Options {
    /// Amount of memory to scan.
    #[arg(long, default_value_t = 64)]
    mib: usize,

    /// Number of full scans to measure over, at least.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(3..))]
    scans: u64,
}

/// Measures at least for this long, so that a late look at the counters matters little.
const MINIMUM: Duration = Duration::from_secs(2);

/// How often to look whether a scan ended: each look takes the CPU from the scanner.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// A moment at which a full scan had just ended.
struct Sample {
    scans: u64,
    cpu: Duration,
}

impl Sample {
    /// Waits for the end of the scan under way.
    fn at_end_of_scan(ksmd: &Ksmd) -> Result<Self> {
        let before = ksm::full_scans()?;
        let start = Instant::now();
        loop {
            let scans = ksm::full_scans()?;
            if scans > before {
                return Ok(Self {
                    scans,
                    cpu: ksmd.cpu_time()?,
                });
            }
            if start.elapsed() > wait::STALL_LIMIT {
                bail!("the scanner stands still");
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

/// Memory whose pages differ in their last eight bytes alone.
fn worst_case_memory(pages: usize) -> Result<Region> {
    let mut content = pattern::page(1, 0).repeat(pages);
    for (index, page) in content.chunks_exact_mut(PAGE_SIZE).enumerate() {
        page[PAGE_SIZE - 8..].copy_from_slice(&(index as u64).to_be_bytes());
    }
    Region::mergeable(&content)
}

fn main() -> Result<()> {
    let options = Options::parse();
    let scanner = Scanner::start()?;
    let memory = worst_case_memory(options.mib * MIB / PAGE_SIZE)?;
    let pages = memory.pages() as u64;
    scanner.scans(2)?;
    scanner.expect(Counters::stable(0, 0, pages))?;

    let ksmd = Ksmd::find()?;
    let first = Sample::at_end_of_scan(&ksmd)?;
    let start = Instant::now();
    let (scans, cpu) = loop {
        let last = Sample::at_end_of_scan(&ksmd)?;
        let scans = last.scans - first.scans;
        if scans >= options.scans && start.elapsed() >= MINIMUM {
            break (scans, last.cpu - first.cpu);
        }
    };

    let per_scan = cpu.as_nanos() as f64 / scans as f64;
    println!(
        "{}",
        json!({
            "pages": pages,
            "scans": scans,
            "cpu_ns_per_scan": per_scan.round() as u64,
            "cpu_ns_per_page": (per_scan / pages as f64).round() as u64,
        })
    );
    Ok(())
}
