// SPDX-License-Identifier: GPL-2.0

//! Several threads write to the files of `/sys/kernel/mm/ksm` at once, while pages are merged.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{anyhow, ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Run, Scanner},
    pattern, procfs,
    region::Region,
};
use nix::errno::Errno;

use crate::{
    case::{Case, Options},
    helpers::step,
};

pub const CASES: &[Case] = &[Case::new(
    "sysfs-concurrent",
    "threads write good and bad values to every file at once: each gets its own answer",
    concurrent,
)];

const PAGES: usize = 16;
const ROUNDS: usize = 100;
const WRITERS: usize = 3;

/// Refused by every file at any time.
const BAD: &[&str] = &["x", "-1", " 1", "99999999999999999999999"];

/// A file, what it takes, and whether it may be busy.
struct File {
    name: &'static str,
    values: &'static [&'static str],
    may_be_busy: bool,
}

const fn file(name: &'static str, values: &'static [&'static str]) -> File {
    File {
        name,
        values,
        may_be_busy: false,
    }
}

const fn of_the_trees(name: &'static str, values: &'static [&'static str]) -> File {
    File {
        name,
        values,
        may_be_busy: true,
    }
}

const FILES: &[File] = &[
    file("pages_to_scan", &["1", "100", "10000"]),
    file("sleep_millisecs", &["0", "1", "2"]),
    file("use_zero_pages", &["0", "1"]),
    file("smart_scan", &["0", "1"]),
    file("stable_node_chains_prune_millisecs", &["0", "2000"]),
    file("advisor_max_cpu", &["1", "70"]),
    file("advisor_min_pages_to_scan", &["100", "500"]),
    file("advisor_max_pages_to_scan", &["1000", "30000"]),
    file("advisor_target_scan_time", &["1", "200"]),
    file("run", &["0", "1", "2"]),
    of_the_trees("max_page_sharing", &["2", "3", "256"]),
    of_the_trees("merge_across_nodes", &["0", "1"]),
];

fn concurrent(_: &Options) -> Result<()> {
    let _scanner = Scanner::start()?;
    let content = pattern::page(1, 0).repeat(PAGES);
    let mut regions = [Region::mergeable(&content)?, Region::mergeable(&content)?];
    let is_over = AtomicBool::new(false);
    let before = procfs::vmstat("cow_ksm")?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(move || write_all(number)))
            .collect();
        let reader = scope.spawn(|| read_all(&is_over));
        // Meanwhile there is something to merge, and to part.
        let result = disturb(&mut regions, &content, || {
            writers.iter().all(|writer| writer.is_finished())
        });
        is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        let reads = reader
            .join()
            .map_err(|_| anyhow!("the reader panicked"))??;
        step(format!(
            "{WRITERS} threads, {ROUNDS} rounds over {} files, read {reads} times",
            FILES.len()
        ));
        result
    })?;
    let parted = procfs::vmstat("cow_ksm")? - before;
    step(format!("{parted} pages were parted"));
    ensure!(parted > 0, "nothing was merged meanwhile");
    ksm::set_run(Run::Stop)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == ksm::Counters::ZERO, "left over: {now}");
    regions
        .iter()
        .try_for_each(|region| region.verify(&content))
}

/// Parts pages, lets them become equal again, and verifies them, until it is over.
fn disturb(
    regions: &mut [Region],
    content: &[u8],
    mut is_over: impl FnMut() -> bool,
) -> Result<()> {
    while !is_over() {
        for region in &mut *regions {
            for page in 0..PAGES {
                let first = region.page(page)[0];
                region.page_mut(page)[0] = !first;
                // Both writes happen.
                std::hint::black_box(region.page(page));
                region.page_mut(page)[0] = first;
            }
            region.verify(content)?;
        }
        thread::yield_now();
    }
    Ok(())
}

fn write_all(number: usize) -> Result<()> {
    for round in 0..ROUNDS {
        for file in FILES.iter().filter(|file| ksm::path(file.name).exists()) {
            write_one(file, round + number)?;
        }
    }
    Ok(())
}

/// Writes a good value and a bad one.
fn write_one(file: &File, choice: usize) -> Result<()> {
    let good = file.values[choice % file.values.len()];
    let result = write(file.name, good);
    let is_busy = file.may_be_busy && result == Err(Errno::EBUSY);
    ensure!(
        result == Ok(()) || is_busy,
        "{} answers {result:?} to {good}",
        file.name
    );
    let bad = BAD[choice % BAD.len()];
    let result = write(file.name, bad);
    ensure!(
        matches!(result, Err(Errno::EINVAL | Errno::ERANGE)),
        "{} answers {result:?} to {bad:?}",
        file.name
    );
    Ok(())
}

fn write(name: &str, text: &str) -> Result<(), Errno> {
    fs::write(ksm::path(name), text)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

/// At any time a file shows a value that somebody has written; those from before are among them.
fn read_all(is_over: &AtomicBool) -> Result<u64> {
    let mut reads = 0;
    while !is_over.load(Ordering::Relaxed) {
        for file in FILES.iter().filter(|file| ksm::path(file.name).exists()) {
            let text = fs::read_to_string(ksm::path(file.name))
                .with_context(|| format!("reading {}", file.name))?;
            let now = text.trim_end();
            ensure!(file.values.contains(&now), "{} shows {now:?}", file.name);
            reads += 1;
        }
        thread::yield_now();
    }
    Ok(reads)
}
