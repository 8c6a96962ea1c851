// SPDX-License-Identifier: GPL-2.0

//! `ksmd`, made to scan all memory once whenever it is told to.
//!
//! It is given more pages to scan at a time than there are, and a pause of days. It goes on when
//! the length of the pause is changed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, Result};
use ksm_tests::{
    ksm::{self, Run, Scanner},
    procfs,
    stopwatch::Stopwatch,
};

/// More pages than any VM has.
const ALL_PAGES: u32 = u32::MAX;

/// Milliseconds that no benchmark takes.
const LONG: u32 = 1_000_000_000;

/// When a scan, at any size and on an emulated CPU, must have ended.
const SCAN_LIMIT: Duration = Duration::from_secs(1800);

/// Looking whether a scan has ended takes the CPU from it: first soon, for a short scan, then
/// ever more rarely.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// The scanner.
pub struct Ksmd {
    settings: Scanner,
    thread: procfs::Ksmd,
    stopwatch: Stopwatch,
    pause: u32,
    stopped: bool,
    scans: Scans,
}

/// All scans so far.
struct Scans {
    count: usize,
    time: Duration,
    cpu_time_before: Duration,
}

impl Ksmd {
    /// Forgets all that was merged before; scans nothing yet.
    pub fn prepare() -> Result<Self> {
        let pause = ksm::read("sleep_millisecs")?;
        let settings = Scanner::prepare()?;
        ksm::write("pages_to_scan", ALL_PAGES)?;
        let thread = procfs::Ksmd::find()?;
        let mut ksmd = Self {
            settings,
            stopwatch: Stopwatch::new()?,
            pause,
            stopped: true,
            scans: Scans {
                count: 0,
                time: Duration::ZERO,
                cpu_time_before: thread.cpu_time()?,
            },
            thread,
        };
        ksmd.end_pause()?;
        Ok(ksmd)
    }

    /// Has it scan the memory of others only, and not walk over this program's as well.
    pub fn leave_us_alone(&self) -> Result<()> {
        self.settings.withdraw()
    }

    /// The process id of its thread.
    pub fn pid(&self) -> u32 {
        self.thread.pid()
    }

    /// Lets it scan all memory once; returns how long it was at it.
    pub fn scan(&mut self) -> Result<Duration> {
        let before = self.begin_scan()?;
        self.stopwatch.await_end()?;
        self.await_end_of_scan(before, || Ok(()))?;
        self.end_scan()
    }

    /// As [`Ksmd::scan`]; calls `look` now and then, which makes it take longer.
    pub fn scan_watched(&mut self, look: impl FnMut() -> Result<()>) -> Result<Duration> {
        let before = self.begin_scan()?;
        self.await_end_of_scan(before, look)?;
        self.end_scan()
    }

    /// Lets it scan; returns how many scans there were.
    fn begin_scan(&mut self) -> Result<u64> {
        self.await_sleep()?;
        let before = ksm::full_scans()?;
        self.stopwatch.start()?;
        if self.stopped {
            ksm::set_run(Run::Merge)?;
            self.stopped = false;
        } else {
            self.end_pause()?;
        }
        Ok(before)
    }

    /// Notes how long the scan took that has ended.
    fn end_scan(&mut self) -> Result<Duration> {
        let time = self.stopwatch.read()?;
        self.scans.count += 1;
        self.scans.time += time;
        Ok(time)
    }

    /// Several scans, one by one.
    pub fn scans(&mut self, count: usize) -> Result<Vec<Duration>> {
        (0..count).map(|_| self.scan()).collect()
    }

    /// Scans for so long, one right after the other; returns how long each of the last ones took.
    pub fn scans_for(&mut self, time: Duration) -> Result<Vec<Duration>> {
        self.await_sleep()?;
        self.stopwatch.start()?;
        ksm::write("sleep_millisecs", 0)?;
        thread::sleep(time);
        ksm::write("sleep_millisecs", self.pause)?;
        self.await_sleep()?;
        self.stopwatch.read_each()
    }

    /// Unmerges everything, and forgets it; returns how long that took.
    pub fn unmerge(&mut self) -> Result<Duration> {
        self.await_sleep()?;
        let begin = Instant::now();
        ksm::set_run(Run::Unmerge)?;
        let time = begin.elapsed();
        self.stop()?;
        Ok(time)
    }

    /// Leaves everything as it is, and waits for the next scan to be asked for.
    pub fn stop(&mut self) -> Result<()> {
        ksm::set_run(Run::Stop)?;
        self.stopped = true;
        self.end_pause()
    }

    /// How long the scans took on average, by this program and by the kernel's account of CPU
    /// time.
    pub fn mean_scan(&self) -> Result<(Duration, Duration)> {
        let cpu_time = self.thread.cpu_time()? - self.scans.cpu_time_before;
        let count = self.scans.count as u32;
        Ok((self.scans.time / count, cpu_time / count))
    }

    /// The new length must be another than the one with which it went to sleep.
    fn end_pause(&mut self) -> Result<()> {
        self.pause = if self.pause == LONG { LONG + 1 } else { LONG };
        ksm::write("sleep_millisecs", self.pause)
    }

    /// It hears only when it sleeps.
    fn await_sleep(&self) -> Result<()> {
        poll(|| self.thread.is_asleep())
    }

    fn await_end_of_scan(&self, before: u64, mut look: impl FnMut() -> Result<()>) -> Result<()> {
        poll(|| {
            look()?;
            Ok(ksm::full_scans()? > before && self.thread.is_asleep()?)
        })
    }
}

/// Sleeps until `done`.
fn poll(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    let mut interval = FIRST_LOOK;
    while !done()? {
        if begin.elapsed() > SCAN_LIMIT {
            bail!("ksmd does not come to an end");
        }
        thread::sleep(interval);
        interval = (interval * 3 / 2).min(LAST_LOOK);
    }
    Ok(())
}
