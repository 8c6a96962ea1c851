// SPDX-License-Identifier: GPL-2.0

//! The longest time for which the scanner holds a lock, at the default pace, in the cases in which
//! there is most to be done under it.
//!
//! Page tables and the map of address spaces have spinlocks, which only a kernel that proves its
//! locking has events for. Elsewhere only the mmap lock is looked at.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Run},
    peer::Peer,
    region::Region,
    sleeper::Sleeper,
};
use nix::unistd::{fork, ForkResult};

use crate::{
    fill,
    holds::{Holds, Kind, MMAP_LOCK, PAGE_TABLE, SLOTS},
    paced::Paced,
    report::Measures,
    workload::Plan,
};

/// Locks that are taken during one scan, at most: `mm/ksm.c` takes the mmap lock for each page that it
/// compares another one with.
const LOCKS: usize = 1 << 18;

/// More would only be more of the same, and each lock is recorded.
const MOST_PAGES: usize = 16_384;

/// Processes with one page each.
const CHILDREN: usize = 10_000;

/// So many mappings for a KSM page make long chains of few pages.
const SHARERS_IN_CHAIN: usize = 16;

/// Scans in which the unstable trees of `ksm_rs` are forgotten at least once.
const SCANS_TO_FORGET: usize = 9;

/// The kinds of locks, and the ends of their measures' names.
const KINDS: [&Kind; 3] = [&MMAP_LOCK, &PAGE_TABLE, &SLOTS];

/// What the measures of a case are called, in the order of [`KINDS`].
type Names = [&'static str; 3];

pub fn holds(plan: &Plan) -> Result<Measures> {
    let plan = Plan {
        pages: plan.pages.min(MOST_PAGES),
        ..*plan
    };
    let mut watch = Watch::default();
    first_changes_and_munmap(&plan, &mut watch)?;
    process_ends(&plan, &mut watch)?;
    if SLOTS.has_events()? {
        many_children(&plan, &mut watch)?;
    }
    full_chains(&plan, &mut watch)?;
    trees_forgotten(&plan, &mut watch)?;
    Ok(watch.measures)
}

/// Measures holds of all kinds.
#[derive(Default)]
struct Watch {
    measures: Measures,
}

impl Watch {
    /// Notes the longest holds of `thread` in each of `times` calls of `action`.
    fn longest(
        &mut self,
        names: Names,
        thread: u32,
        times: usize,
        mut action: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut kinds = Vec::new();
        for (kind, name) in KINDS.into_iter().zip(names) {
            if kind.has_events()? {
                kinds.push((
                    Holds::prepare(kind, &[thread], LOCKS)?,
                    name,
                    Duration::ZERO,
                ));
            }
        }
        for _ in 0..times {
            for (holds, ..) in &kinds {
                holds.start()?;
            }
            action()?;
            for (holds, _, longest) in &mut kinds {
                *longest = holds.longest_if_any()?.unwrap_or_default().max(*longest);
            }
        }
        for (_, name, longest) in kinds {
            self.measures.add(name, longest.as_secs_f64() * 1e6);
        }
        Ok(())
    }
}

/// A number that no page has had.
const NEW: usize = usize::MAX;

/// All is merged, and the first page changes before a scan; then half of all is unmapped.
fn first_changes_and_munmap(plan: &Plan, watch: &mut Watch) -> Result<()> {
    let mut ksmd = Paced::prepare()?;
    let mut sleeper = Sleeper::new(plan.pages, fill::pairs)?;
    ksmd.merge_most(plan.pages / 2)?;
    ksmd.scan()?;
    let mut number = NEW;
    let names = [
        "first_mmap_lock_us",
        "first_page_table_us",
        "first_slots_us",
    ];
    watch.longest(names, ksmd.pid(), plan.rounds, || {
        sleeper.write_to(0, number)?;
        number -= 1;
        ksmd.scan().map(drop)
    })?;
    sleeper.unmap(plan.pages / 2)?;
    let names = [
        "munmap_mmap_lock_us",
        "munmap_page_table_us",
        "munmap_slots_us",
    ];
    watch.longest(names, ksmd.pid(), 2, || ksmd.scan().map(drop))
}

/// A process ends, of two that are known.
fn process_ends(plan: &Plan, watch: &mut Watch) -> Result<()> {
    let mut ksmd = Paced::prepare()?;
    let part = |number| {
        Sleeper::new(plan.pages / 2, move |memory| {
            fill::unique_part(memory, number)
        })
    };
    let (_stays, ends) = (part(0)?, part(1)?);
    ksmd.scans(3, |_| Ok(()))?;
    ends.kill()?;
    let names = [
        "ended_mmap_lock_us",
        "ended_page_table_us",
        "ended_slots_us",
    ];
    watch.longest(names, ksmd.pid(), 2, || ksmd.scan().map(drop))
}

/// Many processes come while a scan goes on, and stay.
fn many_children(plan: &Plan, watch: &mut Watch) -> Result<()> {
    let mut ksmd = Paced::prepare()?;
    let _sleeper = Sleeper::new(plan.pages / 2, fill::unique)?;
    ksmd.scan()?;
    // It stops somewhere in the middle.
    let before: u64 = ksm::read("pages_scanned")?;
    ksmd.during(|_| {
        while ksm::read::<u64>("pages_scanned")? == before {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?;
    let nursery = nursery(CHILDREN)?;
    let names = [
        "forked_mmap_lock_us",
        "forked_page_table_us",
        "forked_slots_us",
    ];
    watch.longest(names, ksmd.pid(), 3, || ksmd.scan().map(drop))?;
    nursery.kill()
}

/// A process with so many children, which sleep until it ends. All have an advised page.
fn nursery(children: usize) -> Result<Peer> {
    for limit in ["kernel/threads-max", "kernel/pid_max", "vm/max_map_count"] {
        control_file::write(format!("/proc/sys/{limit}"), 4 * children)?;
    }
    let mut nursery = Peer::fork(|link| {
        link.wait_for_ever()?;
        let mut region = Region::new(1)?;
        region.page_mut(0)[0] = 1;
        region.advise_mergeable()?;
        for _ in 0..children {
            // SAFETY: This process has one thread.
            if let ForkResult::Child = unsafe { fork() }.context("fork")? {
                sleep_until_the_parent_ends();
            }
        }
        link.step()?;
        link.await_end()
    })?;
    nursery.await_step()?;
    Ok(nursery)
}

fn sleep_until_the_parent_ends() -> ! {
    // SAFETY: Both calls take or return integers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

/// All pages are equal, and make KSM pages that have all the mappings that they may have; they merge,
/// and are unmerged.
fn full_chains(plan: &Plan, watch: &mut Watch) -> Result<()> {
    let mut ksmd = Paced::prepare()?;
    ksm::write("max_page_sharing", SHARERS_IN_CHAIN)?;
    let _sleeper = Sleeper::new(plan.pages, fill::same)?;
    let duplicates = plan.pages - plan.pages.div_ceil(SHARERS_IN_CHAIN);
    let names = [
        "chains_mmap_lock_us",
        "chains_page_table_us",
        "chains_slots_us",
    ];
    watch.longest(names, ksmd.pid(), 1, || {
        ksmd.merge_most(duplicates).map(drop)
    })?;
    let names = [
        "unmerge_mmap_lock_us",
        "unmerge_page_table_us",
        "unmerge_slots_us",
    ];
    watch.longest(names, std::process::id(), 1, || ksm::set_run(Run::Unmerge))
}

/// No page has an equal, so that all wait in an unstable tree. `mm/ksm.c` takes a lock for each level of
/// that tree and each page in each scan, so there are fewer pages.
fn trees_forgotten(plan: &Plan, watch: &mut Watch) -> Result<()> {
    let mut ksmd = Paced::prepare()?;
    ksm::write("smart_scan", 0)?;
    let _sleeper = Sleeper::new(plan.pages / 8, fill::unique)?;
    ksmd.scans(2, |_| Ok(()))?;
    let names = [
        "renewed_mmap_lock_us",
        "renewed_page_table_us",
        "renewed_slots_us",
    ];
    watch.longest(names, ksmd.pid(), SCANS_TO_FORGET, || ksmd.scan().map(drop))
}
