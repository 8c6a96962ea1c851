// SPDX-License-Identifier: GPL-2.0

//! The files of `/sys/kernel/mm/ksm`.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    control_file,
    faults::Fuse,
    ksm::{self, Counters, Run},
    region::Region,
};
use nix::{
    errno::Errno,
    fcntl::{open, OFlag},
    sys::stat::Mode,
    unistd::{read, write},
};

use crate::{
    attempt::{in_child, Attempt},
    entry::Entry,
    memory::Twins,
};

const ERRORS: &[Errno] = &[Errno::ENOMEM];

/// Files, a value to write, and the one to write afterwards.
const WRITES: &[(&str, &str, &str)] = &[
    ("run", "1", "0"),
    ("run", "0", "0"),
    ("pages_to_scan", "200", "100"),
    ("sleep_millisecs", "1", "0"),
    ("merge_across_nodes", "0", "1"),
    ("max_page_sharing", "3", "256"),
    ("use_zero_pages", "1", "0"),
    ("smart_scan", "1", "0"),
    ("stable_node_chains_prune_millisecs", "1", "2000"),
    ("advisor_mode", "scan-time", "none"),
    ("advisor_max_cpu", "50", "70"),
    ("advisor_min_pages_to_scan", "400", "500"),
    ("advisor_max_pages_to_scan", "4000", "30000"),
    ("advisor_target_scan_time", "100", "200"),
];

pub fn entries() -> Vec<Entry> {
    let mut entries = vec![Entry::new("run: 2 while pages are merged", unmerge_all)];
    let present = |(file, ..): &&(&str, _, _)| ksm::path(file).exists();
    for (file, value, usual) in WRITES.iter().filter(present) {
        entries.push(Entry::new(format!("{file}: {value}"), |nth| {
            write_one(file, value, usual, nth)
        }));
    }
    entries.push(Entry::new("all files, read", read_all));
    entries
}

/// Writes without any memory of our own.
pub fn write_to(path: &Path, text: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY, Mode::empty())?;
    write(&file, text).map(drop)
}

fn write_one(file: &str, value: &str, usual: &str, nth: u32) -> Result<Attempt> {
    let path = ksm::path(file);
    let before = control_file::read_text(&path)?;
    let fuse = Fuse::of_this_thread()?;
    let (result, went_off) = fuse.during(nth, || write_to(&path, value.as_bytes()))?;
    let after = control_file::read_text(&path)?;
    if result.is_err() {
        ensure!(before == after, "refused, but it is {after:?} now");
        control_file::write(&path, value)?;
    }
    let written = control_file::read_text(&path)?;
    ensure!(
        written.contains(value),
        "{value} is written, but {written:?} there"
    );
    control_file::write(&path, usual)?;
    Attempt::new(&result, went_off, ERRORS)
}

fn unmerge_all(nth: u32) -> Result<Attempt> {
    in_child(|_| {
        let twins = Twins::merged(Region::mergeable)?;
        let path = ksm::path("run");
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, || write_to(&path, b"2"))?;
        twins.verify()?;
        let run: u32 = ksm::read("run")?;
        let expected = if result.is_ok() { 2 } else { 0 };
        ensure!(run == expected, "{result:?}, but run is {run}");
        if result.is_ok() {
            ensure_nothing_is_merged()?;
        }
        ksm::set_run(Run::Unmerge)?;
        ensure_nothing_is_merged()?;
        twins.verify()?;
        Attempt::new(&result, went_off, ERRORS)
    })
}

fn ensure_nothing_is_merged() -> Result<()> {
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    Ok(())
}

fn read_all(nth: u32) -> Result<Attempt> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(ksm::DIRECTORY).context("no directory of KSM")? {
        paths.push(entry?.path());
    }
    let fuse = Fuse::of_this_thread()?;
    let (result, went_off) = fuse.during(nth, || read_each(&paths))?;
    read_each(&paths).context("without a fault")?;
    Attempt::new(&result, went_off, ERRORS)
}

fn read_each(paths: &[PathBuf]) -> nix::Result<()> {
    let mut text = [0; 64];
    for path in paths {
        let file = open(path, OFlag::O_RDONLY, Mode::empty())?;
        read(&file, &mut text)?;
    }
    Ok(())
}
