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
    /// Until it was done, as seen from outside.
    pub wall: Duration,
    /// Pages saved by then.
    pub saved: u64,
}

/// Scans until 95 % of `duplicates` are merged.
pub fn merge_most(ksmd: &mut Ksmd, duplicates: usize) -> Result<Merging> {
    let enough = duplicates as u64 * 95 / 100;
    let begin = Instant::now();
    let mut wall = None;
    let mut cpu = Duration::ZERO;
    for _ in 0..MOST_SCANS {
        cpu += ksmd.scan_watched(|| {
            if wall.is_none() && saved_pages()? >= enough {
                wall = Some(begin.elapsed());
            }
            Ok(())
        })?;
        let saved = saved_pages()?;
        if saved >= enough {
            return Ok(Merging {
                cpu,
                wall: wall.unwrap_or(begin.elapsed()),
                saved,
            });
        }
    }
    bail!(
        "{} of {duplicates} pages are merged after {MOST_SCANS} scans",
        saved_pages()?
    );
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
