// SPDX-License-Identifier: GPL-2.0

//! Watching the merging until it is done.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, Result};
use ksm_tests::{
    ksm::{self, Counters, Run},
    procfs::{self, Ksmd},
    wait,
};

use crate::{display::Display, fleet::Fleet};

/// What the merging came to.
pub struct Outcome {
    /// Pages given back to the system.
    pub saved_pages: u64,
    /// Pages that could have been given back.
    pub duplicate_pages: u64,
    /// How long that took.
    pub time: Duration,
}

impl Outcome {
    /// The share of the duplicate pages that is merged.
    pub fn percent(&self) -> f64 {
        percent(self.saved_pages, self.duplicate_pages)
    }
}

/// What is known at one moment.
#[derive(Clone)]
pub struct Snapshot {
    /// Since the scanner was switched on.
    pub time: Duration,
    /// KSM's counters.
    pub counters: Counters,
    /// Full scans since the scanner was switched on.
    pub full_scans: u64,
    /// Memory that became available since then; other things than KSM influence it too.
    pub available_kib: i64,
    /// Time that the scanner's thread was on a CPU.
    pub ksmd_cpu: Duration,
    /// The share of the duplicate pages that is merged.
    pub percent: f64,
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// The state when the scanner was switched on.
struct Start {
    moment: Instant,
    full_scans: u64,
    available_kib: i64,
    ksmd: Ksmd,
    ksmd_cpu: Duration,
    duplicates: u64,
}

impl Start {
    fn now(fleet: &Fleet) -> Result<Self> {
        let ksmd = Ksmd::find()?;
        let start = Self {
            full_scans: ksm::full_scans()?,
            available_kib: procfs::meminfo_kib("MemAvailable")?,
            ksmd_cpu: ksmd.cpu_time()?,
            ksmd,
            duplicates: fleet.duplicate_pages(),
            moment: Instant::now(),
        };
        ksm::set_run(Run::Merge)?;
        Ok(start)
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let counters = ksm::counters()?;
        Ok(Snapshot {
            time: self.moment.elapsed(),
            full_scans: ksm::full_scans()? - self.full_scans,
            available_kib: procfs::meminfo_kib("MemAvailable")? - self.available_kib,
            ksmd_cpu: self.ksmd.cpu_time()?.saturating_sub(self.ksmd_cpu),
            percent: percent(counters.sharing, self.duplicates),
            counters,
        })
    }
}

/// At this share the merging counts as done.
const DONE_PERCENT: f64 = 99.0;

/// After so many full scans without one more page merged there is nothing left to merge.
const PATIENCE_SCANS: u64 = 4;

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Decides when the merging is over.
struct Finish {
    best: u64,
    scans_at_best: u64,
    last_scan: (u64, Duration),
}

impl Finish {
    fn new() -> Self {
        Self {
            best: 0,
            scans_at_best: 0,
            last_scan: (0, Duration::ZERO),
        }
    }

    /// True if no more is to be expected; an error if the scanner stands still.
    fn is_reached(&mut self, now: &Snapshot) -> Result<bool> {
        if now.full_scans > self.last_scan.0 {
            self.last_scan = (now.full_scans, now.time);
        }
        if now.counters.sharing > self.best {
            self.best = now.counters.sharing;
            self.scans_at_best = now.full_scans;
            self.last_scan.1 = now.time;
        }
        if now.time - self.last_scan.1 > wait::STALL_LIMIT {
            bail!("ksmd makes no progress: {}", now.counters);
        }
        Ok(now.percent >= DONE_PERCENT || now.full_scans >= self.scans_at_best + PATIENCE_SCANS)
    }
}

/// Switches the scanner on and shows what it does until it has done what it can.
pub fn watch(fleet: &Fleet, display: &mut Display) -> Result<Outcome> {
    let start = Start::now(fleet)?;
    let mut finish = Finish::new();
    loop {
        let now = start.snapshot()?;
        let done = finish.is_reached(&now)?;
        display.progress(&now, done)?;
        if done {
            return Ok(Outcome {
                saved_pages: now.counters.sharing,
                duplicate_pages: start.duplicates,
                time: now.time,
            });
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(sharing: u64, full_scans: u64, seconds: u64) -> Snapshot {
        Snapshot {
            time: Duration::from_secs(seconds),
            counters: Counters::stable(10, sharing, 0),
            full_scans,
            available_kib: 0,
            ksmd_cpu: Duration::ZERO,
            percent: percent(sharing, 1000),
        }
    }

    #[test]
    fn nearly_all_is_all() {
        let mut finish = Finish::new();
        assert!(!finish.is_reached(&snapshot(989, 1, 1)).unwrap());
        assert!(finish.is_reached(&snapshot(990, 1, 1)).unwrap());
    }

    #[test]
    fn scans_without_progress_end_it() {
        let mut finish = Finish::new();
        assert!(!finish.is_reached(&snapshot(500, 2, 1)).unwrap());
        assert!(!finish.is_reached(&snapshot(500, 5, 2)).unwrap());
        assert!(!finish.is_reached(&snapshot(501, 6, 3)).unwrap());
        assert!(!finish.is_reached(&snapshot(501, 9, 4)).unwrap());
        assert!(finish.is_reached(&snapshot(501, 10, 5)).unwrap());
    }

    #[test]
    fn a_scanner_that_stands_still_is_an_error() {
        let mut finish = Finish::new();
        assert!(!finish.is_reached(&snapshot(0, 0, 100)).unwrap());
        assert!(finish.is_reached(&snapshot(0, 0, 500)).is_err());
    }
}
