// SPDX-License-Identifier: GPL-2.0

//! Merging, and when it counts as done.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};

use crate::{footprint::saved_pages, ksmd::Ksmd};

/// A page is looked at in one scan and merged in the next; nothing needs many more.
const MOST_SCANS: usize = 10;

/// How merging went.
pub struct Merging {
    /// What the scans took, the one included with which it was done.
    pub cpu: Duration,
    /// Pages saved by then.
    pub saved: u64,
}

/// Scans until 95 % of `duplicates` are merged.
pub fn merge_most(ksmd: &mut Ksmd, duplicates: usize) -> Result<Merging> {
    let cpu = scan_until_merged(duplicates, || ksmd.scan())?;
    let saved = saved_pages()?;
    Ok(Merging { cpu, saved })
}

/// Scans until 95 % of `duplicates` are merged; returns when that was, the pauses between the scans
/// left out.
pub fn time_to_merge(ksmd: &mut Ksmd, duplicates: usize) -> Result<Duration> {
    scan_until_merged(duplicates, || {
        let begin = Instant::now();
        let mut done = None;
        let scan = ksmd.scan_watched(|| {
            if done.is_none() && saved_pages()? >= most_of(duplicates) {
                done = Some(begin.elapsed());
            }
            Ok(())
        })?;
        // It is looked at now and then only, for the last time when the scan is over.
        Ok(done.map_or(scan, |done| done.min(scan)))
    })
}

/// Calls `scan` until 95 % of `duplicates` are merged; returns how long all calls say they took.
fn scan_until_merged(
    duplicates: usize,
    mut scan: impl FnMut() -> Result<Duration>,
) -> Result<Duration> {
    let mut time = Duration::ZERO;
    for _ in 0..MOST_SCANS {
        time += scan()?;
        if saved_pages()? >= most_of(duplicates) {
            return Ok(time);
        }
    }
    bail!(
        "{} of {duplicates} pages are merged after {MOST_SCANS} scans",
        saved_pages()?
    );
}

/// So many of them count as all.
fn most_of(duplicates: usize) -> u64 {
    duplicates as u64 * 95 / 100
}

/// Scans until nothing is left to be merged.
pub fn merge_all(ksmd: &mut Ksmd, duplicates: usize) -> Result<()> {
    merge_most(ksmd, duplicates)?;
    let mut saved = saved_pages()?;
    loop {
        ksmd.scan()?;
        let now = saved_pages()?;
        if now == saved {
            return Ok(());
        }
        saved = now;
    }
}
