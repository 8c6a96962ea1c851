// SPDX-License-Identifier: GPL-2.0

//! How long a scan takes.
//!
//! User Mode Linux counts a thread's CPU time in ticks of 10 ms, but has the host's clock for
//! events. As it has one CPU, and whoever holds the memory sleeps, the time between the events
//! that begin and end a scan is the scanner's CPU time. A kernel without events counts CPU time
//! in nanoseconds.

use std::time::Duration;

use anyhow::{ensure, Result};
use ksm_tests::{
    procfs,
    tracing::{Awaited, Events},
};

const BEGIN: &str = "ksm_start_scan";
const END: &str = "ksm_stop_scan";

/// Measures one scan at a time.
pub enum Stopwatch {
    Events {
        all: Events,
        end: Awaited,
    },
    CpuTime {
        thread: procfs::Ksmd,
        before: Duration,
    },
}

impl Stopwatch {
    pub fn new() -> Result<Self> {
        Ok(if Events::exist("ksm")? {
            Self::Events {
                all: Events::record_times("ksm", &[BEGIN, END])?,
                end: Awaited::record("ksm", END)?,
            }
        } else {
            Self::CpuTime {
                thread: procfs::Ksmd::find()?,
                before: Duration::ZERO,
            }
        })
    }

    /// The scan is about to begin.
    pub fn start(&mut self) -> Result<()> {
        match self {
            Self::Events { all, end } => {
                all.forget()?;
                end.forget()
            }
            Self::CpuTime { thread, before } => {
                *before = thread.cpu_time()?;
                Ok(())
            }
        }
    }

    /// Sleeps until the scan has ended, if that can be done without looking now and then: looking
    /// would take time from the scan, and more from one that is short.
    pub fn await_end(&mut self) -> Result<()> {
        match self {
            Self::Events { end, .. } => end.sleep(),
            Self::CpuTime { .. } => Ok(()),
        }
    }

    /// How long each of the last of `count` scans has taken, which have ended; or their mean.
    pub fn read_each(&self, count: u32) -> Result<Vec<Duration>> {
        match self {
            Self::Events { all, .. } => between_all_events(all),
            Self::CpuTime { thread, before } => Ok(vec![(thread.cpu_time()? - *before) / count]),
        }
    }

    /// How long the scan has taken, which has ended.
    pub fn read(&self) -> Result<Duration> {
        match self {
            Self::Events { all, .. } => between_events(all),
            Self::CpuTime { thread, before } => Ok(thread.cpu_time()? - *before),
        }
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
