// SPDX-License-Identifier: GPL-2.0

//! `ksmd` with the settings that it has by default, but without pauses.
//!
//! A full scan of large memory at the default pace takes hours, nearly all of which are pauses. What
//! counts is its CPU time, and the pauses take none.

use std::time::Duration;

use anyhow::{bail, Result};
use ksm_tests::{
    ksm::{self, Run, Scanner},
    procfs,
    tracing::Awaited,
    wait,
};

use crate::{cpu_clock::CpuClock, footprint::saved_pages};

/// The default of `pages_to_scan`.
pub const PAGES_TO_SCAN: u32 = 100;

/// The default of `sleep_millisecs`.
pub const SLEEP_MILLISECS: u32 = 20;

/// The scanner, which rests unless it is told to scan.
pub struct Paced {
    _settings: Scanner,
    thread: procfs::Ksmd,
    clock: CpuClock,
    end: Awaited,
}

impl Paced {
    /// Forgets all that was merged before; scans nothing yet.
    pub fn prepare() -> Result<Self> {
        let settings = Scanner::prepare()?;
        ksm::write("smart_scan", 1)?;
        ksm::write("pages_to_scan", PAGES_TO_SCAN)?;
        let thread = procfs::Ksmd::find()?;
        Ok(Self {
            _settings: settings,
            clock: CpuClock::new(thread.pid())?,
            end: Awaited::record("ksm", "ksm_stop_scan")?,
            thread,
        })
    }

    /// The process id of its thread.
    pub fn pid(&self) -> u32 {
        self.thread.pid()
    }

    /// Lets it scan until it has come to the end of all memory once; returns its CPU time. It may
    /// have begun the next scan, with which it goes on when it is asked again.
    pub fn scan(&mut self) -> Result<Duration> {
        self.during(|end| end.sleep())
    }

    /// Lets it scan while `action` waits for something; returns its CPU time.
    pub fn during(&mut self, action: impl FnOnce(&mut Awaited) -> Result<()>) -> Result<Duration> {
        self.end.forget()?;
        self.clock.start()?;
        ksm::set_run(Run::Merge)?;
        action(&mut self.end)?;
        ksm::set_run(Run::Stop)?;
        let thread = &self.thread;
        wait::until("a rest", || Ok(thread.is_asleep()?.then_some(())))?;
        self.clock.read()
    }

    /// The CPU time of `count` scans; `before_each` is called before each.
    pub fn scans(
        &mut self,
        count: usize,
        mut before_each: impl FnMut(usize) -> Result<()>,
    ) -> Result<Duration> {
        let mut time = Duration::ZERO;
        for number in 0..count {
            before_each(number)?;
            time += self.scan()?;
        }
        Ok(time)
    }

    /// Scans until 95 % of `duplicates` are merged; returns the CPU time of that.
    pub fn merge_most(&mut self, duplicates: usize) -> Result<Duration> {
        let mut time = Duration::ZERO;
        for _ in 0..MOST_SCANS {
            time += self.scan()?;
            if saved_pages()? >= duplicates as u64 * 95 / 100 {
                return Ok(time);
            }
        }
        bail!(
            "{} of {duplicates} pages are merged after {MOST_SCANS} scans",
            saved_pages()?
        );
    }
}

/// A page is looked at in one scan and merged in the next; nothing needs many more.
const MOST_SCANS: usize = 10;
