// SPDX-License-Identifier: GPL-2.0

//! What everybody else pays for it that all of a process's memory is offered to KSM.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Run, Scanner},
    merge_any,
    peer::Peer,
    region::Region,
    PAGE_SIZE,
};
use nix::{
    sys::wait::waitpid,
    unistd::{fork, ForkResult},
};
use serde::{Deserialize, Serialize};

use crate::{
    fill,
    paced::{PAGES_TO_SCAN, SLEEP_MILLISECS},
    report::Measures,
    statistics::median,
    workload::Plan,
};

/// Pages of the process: a fork, which copies its page tables, should not consist of that alone.
const MOST_PAGES: usize = 16_384;

/// Pages that are mapped, written to, and unmapped.
const MAPPED_PAGES: usize = 16;

/// How often each is done in a round.
const TIMES: usize = 20;

/// How long the scanner is at it before anything is measured.
const SETTLE: Duration = Duration::from_millis(200);

/// What is measured: the medians of it, in nanoseconds.
#[derive(Serialize, Deserialize)]
struct Costs {
    fork: f64,
    exec: f64,
    mmap: f64,
}

/// What the scanner is at meanwhile, and what the measures are called then.
struct Setting {
    run: Run,
    sleep_millisecs: u32,
    fork: &'static str,
    exec: &'static str,
    mmap: &'static str,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        run: Run::Stop,
        sleep_millisecs: SLEEP_MILLISECS,
        fork: "fork_exit_off_ns",
        exec: "exec_off_ns",
        mmap: "mmap_munmap_off_ns",
    },
    Setting {
        run: Run::Merge,
        sleep_millisecs: SLEEP_MILLISECS,
        fork: "fork_exit_paced_ns",
        exec: "exec_paced_ns",
        mmap: "mmap_munmap_paced_ns",
    },
    Setting {
        run: Run::Merge,
        sleep_millisecs: 0,
        fork: "fork_exit_busy_ns",
        exec: "exec_busy_ns",
        mmap: "mmap_munmap_busy_ns",
    },
];

pub fn merge_any(plan: &Plan) -> Result<Measures> {
    let _settings = Scanner::prepare()?;
    ksm::write("smart_scan", 1)?;
    ksm::write("pages_to_scan", PAGES_TO_SCAN)?;
    let pages = plan.pages.min(MOST_PAGES);
    let mut peer = Peer::fork(|link| {
        merge_any::set(true).context("PR_SET_MEMORY_MERGE")?;
        let mut region = Region::new(pages)?;
        region.populate()?;
        fill::pairs(region.bytes_mut());
        link.step()?;
        for _ in 0..plan.rounds * SETTINGS.len() {
            link.await_step()?;
            link.send(Costs::now(TIMES)?)?;
        }
        Ok(())
    })?;
    peer.await_step()?;
    let mut all = SETTINGS.map(|_| Vec::new());
    // In turns, so that what changes on the machine meets all.
    for _ in 0..plan.rounds {
        for (setting, costs) in SETTINGS.iter().zip(&mut all) {
            ksm::write("sleep_millisecs", setting.sleep_millisecs)?;
            ksm::set_run(setting.run)?;
            thread::sleep(SETTLE);
            peer.step()?;
            costs.push(peer.receive()?);
        }
    }
    peer.join()?;
    let mut measures = Measures::default();
    for (setting, costs) in SETTINGS.iter().zip(&all) {
        let typical = |cost: fn(&Costs) -> f64| median(costs.iter().map(cost).collect());
        measures.add(setting.fork, typical(|costs| costs.fork));
        measures.add(setting.exec, typical(|costs| costs.exec));
        measures.add(setting.mmap, typical(|costs| costs.mmap));
    }
    Ok(measures)
}

impl Costs {
    /// What each costs when it is done so many times.
    fn now(times: usize) -> Result<Self> {
        Ok(Self {
            fork: typical(times, fork_and_exit)?,
            exec: typical(times, exec)?,
            mmap: typical(times, map_and_unmap)?,
        })
    }
}

/// The median of so many times, in nanoseconds.
fn typical(times: usize, action: fn() -> Result<()>) -> Result<f64> {
    let time = |_| {
        let begin = Instant::now();
        action()?;
        Ok(begin.elapsed())
    };
    let times = (0..times).map(time).collect::<Result<_>>()?;
    Ok(median::<Duration>(times).as_nanos() as f64)
}

fn fork_and_exit() -> Result<()> {
    // SAFETY: This process has one thread.
    match unsafe { fork() }.context("fork")? {
        // SAFETY: Ends the process at once; nothing is left to be done in it.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => {
            waitpid(child, None).context("waitpid")?;
            Ok(())
        }
    }
}

/// A small program, which inherits that its memory is offered; to the end of it.
fn exec() -> Result<()> {
    let mut command = Command::new("true");
    let status = command.stdin(Stdio::null()).status().context("true")?;
    ensure!(status.success(), "true has failed");
    Ok(())
}

fn map_and_unmap() -> Result<()> {
    let mut region = Region::new(MAPPED_PAGES)?;
    for page in region.bytes_mut().chunks_exact_mut(PAGE_SIZE) {
        page[0] = 1;
    }
    Ok(())
}
