// SPDX-License-Identifier: GPL-2.0

//! How long a full scan takes.
//!
//! The scheduler of User Mode Linux counts a thread's CPU time in ticks of 10 ms, but events have
//! the host's clock. That kernel has one CPU, so as long as no other process runs, the time between
//! the events that begin and end a scan is the scanner's CPU time.

use std::time::Duration;

use anyhow::{ensure, Result};

use crate::tracing::{Awaited, Events};

const BEGIN: &str = "ksm_start_scan";
const END: &str = "ksm_stop_scan";

/// Measures scans.
pub struct Stopwatch {
    all: Events,
    end: Awaited,
}

impl Stopwatch {
    /// Records the beginning and the end of each scan from now on.
    pub fn new() -> Result<Self> {
        ensure!(Events::exist("ksm")?, "this kernel has no events of KSM");
        Ok(Self {
            all: Events::record_times("ksm", &[BEGIN, END])?,
            end: Awaited::record("ksm", END)?,
        })
    }

    /// The scan is about to begin.
    pub fn start(&self) -> Result<()> {
        self.all.forget()?;
        self.end.forget()
    }

    /// Sleeps until the scan has ended: to look now and then would take time from the scan, and more
    /// from one that is short.
    pub fn await_end(&mut self) -> Result<()> {
        self.end.sleep()
    }

    /// How long each of the last scans has taken that have ended.
    pub fn read_each(&self) -> Result<Vec<Duration>> {
        between_all_events(&self.all)
    }

    /// How long the scan has taken, which has ended.
    pub fn read(&self) -> Result<Duration> {
        between_events(&self.all)
    }
}

/// How long each of the scans has taken that both events are there of.
fn between_all_events(events: &Events) -> Result<Vec<Duration>> {
    let seen = events.seen()?;
    let pairs = seen
        .windows(2)
        .filter(|pair| pair[0].name == BEGIN && pair[1].name == END);
    Ok(pairs.map(|pair| pair[1].time - pair[0].time).collect())
}

fn between_events(events: &Events) -> Result<Duration> {
    let seen = events.seen()?;
    let names: Vec<_> = seen.iter().map(|event| event.name.as_str()).collect();
    ensure!(names == [BEGIN, END], "not one scan, but {names:?}");
    Ok(seen[1].time - seen[0].time)
}
