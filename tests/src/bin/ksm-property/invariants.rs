// SPDX-License-Identifier: GPL-2.0

//! What KSM's numbers must fulfil, whatever happens.

use std::collections::BTreeSet;

use anyhow::{ensure, Result};
use ksm_tests::{ksm, pagemap, procfs::KsmStat};
use nix::unistd::Pid;

/// More pages than all sequences could ever map: a counter above it has run below zero.
const TOO_MANY: i64 = 1 << 20;

/// What is known of pages.
const PAGE_COUNTERS: &[&str] = &[
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
];

/// What is known of contents that have several KSM pages.
const NODE_COUNTERS: &[&str] = &["stable_node_chains", "stable_node_dups"];

/// At any moment.
pub fn check_counters() -> Result<()> {
    for name in PAGE_COUNTERS.iter().chain(NODE_COUNTERS) {
        let now: u64 = ksm::read(name)?;
        ensure!(now < TOO_MANY as u64, "{name} is {now}");
    }
    let zero_pages: i64 = ksm::read("ksm_zero_pages")?;
    ensure!(
        (0..TOO_MANY).contains(&zero_pages),
        "ksm_zero_pages is {zero_pages}"
    );
    ksm::read::<i64>("general_profit").map(drop)
}

/// At any moment, of a process that is there.
pub fn check_process(process: Pid) -> Result<()> {
    let stat = KsmStat::read(process)?;
    let plausible = 0..TOO_MANY;
    ensure!(
        plausible.contains(&stat.rmap_items) && plausible.contains(&stat.merging_pages),
        "process {process} has {stat:?}"
    );
    Ok(())
}

/// After run=2.
pub fn check_unmerged() -> Result<()> {
    PAGE_COUNTERS.iter().try_for_each(|name| check_zero(name))
}

/// After run=2, if no KSM page is left.
pub fn check_no_nodes() -> Result<()> {
    NODE_COUNTERS.iter().try_for_each(|name| check_zero(name))
}

/// After run=2, if nobody but `ancestors` has memory: theirs was that of others, too.
pub fn check_no_ksm_pages(ancestors: &[Pid]) -> Result<()> {
    let mut left = pagemap::ksm_frames()?;
    for frame in frames_of(ancestors)? {
        left.remove(&frame);
    }
    ensure!(left.is_empty(), "KSM pages that nobody has: {left:?}");
    Ok(())
}

/// Whether memory of these processes is KSM's, though they have not offered it.
pub fn have_ksm_pages(ancestors: &[Pid]) -> Result<bool> {
    let shared = pagemap::ksm_frames()?;
    Ok(!frames_of(ancestors)?.is_disjoint(&shared))
}

fn frames_of(processes: &[Pid]) -> Result<BTreeSet<u64>> {
    let mut frames = BTreeSet::new();
    for process in processes {
        frames.append(&mut pagemap::anonymous_frames_of(
            process.as_raw().try_into()?,
        )?);
    }
    Ok(frames)
}

/// After run=2, if nobody is about to end.
pub fn check_no_zero_pages() -> Result<()> {
    check_zero("ksm_zero_pages")
}

fn check_zero(name: &str) -> Result<()> {
    let now: u64 = ksm::read(name)?;
    ensure!(now == 0, "{name} is {now} after run=2");
    Ok(())
}

/// After run=2, of a process that is there.
pub fn check_process_unmerged(process: Pid) -> Result<()> {
    let stat = KsmStat::read(process)?;
    ensure!(
        stat.rmap_items == 0 && stat.merging_pages == 0 && stat.zero_pages == 0,
        "process {process} has {stat:?} after run=2"
    );
    Ok(())
}
