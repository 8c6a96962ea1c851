// SPDX-License-Identifier: GPL-2.0

//! Watching ksmd until it has merged what it can.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    procfs::Ksmd,
    wait,
};
use serde::Serialize;

const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// After so many full scans without one more page merged there is nothing left to merge.
const PATIENCE_SCANS: u64 = 6;

/// What the merging came to.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Pages that would not be needed if each content were kept once.
    pub duplicates: u64,
    /// KSM pages in use.
    pub pages_shared: u64,
    /// Pages saved.
    pub pages_sharing: u64,
    /// The part of the duplicates that is saved.
    pub percent: f64,
    /// Pages that `ksm estimate` expected to be saved, if it was asked.
    pub estimate: Option<u64>,
    /// How long it took until the wanted part of the duplicates was saved.
    pub seconds: Option<f64>,
    /// How long ksmd was on a CPU until then.
    pub ksmd_seconds: Option<f64>,
    /// How long a guest is on a CPU to verify and write once, while all is merged and ksmd goes on as fast as it can,
    /// if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_millisecs: Option<f64>,
}

/// A run of ksmd, from its start.
pub struct Watch {
    ksmd: Ksmd,
    cpu_before: Duration,
    start: Instant,
}

impl Watch {
    /// Switches ksmd on.
    pub fn start() -> Result<Self> {
        let ksmd = Ksmd::find()?;
        let watch = Self {
            cpu_before: ksmd.cpu_time()?,
            ksmd,
            start: Instant::now(),
        };
        ksm::set_run(Run::Merge)?;
        Ok(watch)
    }

    /// Waits until a part of so many duplicates is saved; tells if that has come to be.
    pub fn until_saved(&self, duplicates: u64, part: f64) -> Result<bool> {
        let wanted = (duplicates as f64 * part) as u64;
        let mut patience = Patience::new()?;
        loop {
            let now = ksm::counters()?;
            if now.sharing >= wanted {
                return Ok(true);
            }
            if patience.has_ended(&now)? {
                return Ok(false);
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// As [`Watch::until_saved`]; then goes on as long as more is saved, and tells about it.
    pub fn record(&self, scanner: &Scanner, duplicates: u64, part: f64) -> Result<Record> {
        let is_saved = self.until_saved(duplicates, part)?;
        let times = (
            self.start.elapsed(),
            self.ksmd.cpu_time()? - self.cpu_before,
        );
        let (seconds, ksmd_seconds) = is_saved
            .then_some((times.0.as_secs_f64(), times.1.as_secs_f64()))
            .unzip();
        self.until_saved(duplicates, 1.0)?;
        // Pages of guests that have ended are counted until the scan comes by.
        scanner.scans(1)?;
        let counters = ksm::counters_at_rest()?;
        Ok(Record {
            duplicates,
            pages_shared: counters.shared,
            pages_sharing: counters.sharing,
            percent: 100.0 * counters.sharing as f64 / duplicates as f64,
            estimate: None,
            seconds,
            ksmd_seconds,
            guest_millisecs: None,
        })
    }
}

/// Knows when no more is to be expected.
struct Patience {
    best: u64,
    scans_at_best: u64,
    last_scan: (u64, Instant),
}

impl Patience {
    fn new() -> Result<Self> {
        let scans = ksm::full_scans()?;
        Ok(Self {
            best: 0,
            scans_at_best: scans,
            last_scan: (scans, Instant::now()),
        })
    }

    fn has_ended(&mut self, now: &Counters) -> Result<bool> {
        let scans = ksm::full_scans()?;
        if scans > self.last_scan.0 {
            self.last_scan = (scans, Instant::now());
        }
        if now.sharing > self.best {
            self.best = now.sharing;
            self.scans_at_best = scans;
        }
        let idle = self.last_scan.1.elapsed();
        ensure!(idle < wait::STALL_LIMIT, "ksmd makes no progress: {now}");
        Ok(scans > self.scans_at_best + PATIENCE_SCANS)
    }
}
