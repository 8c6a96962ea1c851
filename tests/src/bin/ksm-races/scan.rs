// SPDX-License-Identifier: GPL-2.0

//! The scanner that all actors are up against.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{ensure, Result};
use ksm_tests::{
    delays,
    ksm::{self, Counters, Run},
    module, wait,
};

/// How often a window is held open, and for how long at most.
const ONE_IN: u32 = 24;
const MAX_US: u32 = 2_000;

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// What the scanner is set to: as much scanning as there can be.
const TUNABLES: &[(&str, &str)] = &[
    ("advisor_mode", "none"),
    ("smart_scan", "0"),
    ("use_zero_pages", "1"),
    ("merge_across_nodes", "1"),
    ("max_page_sharing", "16"),
    ("sleep_millisecs", "0"),
    ("pages_to_scan", "256"),
];

/// Sets the scanner up, which rests; windows are held open if the module has some.
pub fn prepare(seed: u64) -> Result<()> {
    for (file, value) in TUNABLES {
        if ksm::path(file).exists() {
            ksm::write(file, value)?;
        }
    }
    match delays::exist() {
        true => delays::set(seed, ONE_IN, MAX_US),
        false => Ok(()),
    }
}

/// Does `body`; tells how many pages were saved meanwhile, at most, as far as was seen.
pub fn watched<T>(body: impl FnOnce() -> T) -> (T, u64) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                // While the module is away there is no such file.
                most = most.max(ksm::read("pages_sharing").unwrap_or(0));
                thread::sleep(BETWEEN_LOOKS);
            }
            most
        });
        let result = body();
        is_over.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap_or(0))
    })
}

/// Unmerges everything, after which nothing may be left, so that the module can be unloaded.
pub fn expect_nothing_left() -> Result<()> {
    if delays::exist() {
        delays::end()?;
    }
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    let Some(file) = module::file() else {
        return Ok(());
    };
    // The memory of processes that have ended may be freed by a work item a moment later.
    wait::until("a module that is not in use", || {
        ksm::set_run(Run::Unmerge)?;
        Ok(module::try_unload().ok())
    })?;
    module::load(&file)
}
