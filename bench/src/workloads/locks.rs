// SPDX-License-Identifier: GPL-2.0

//! The longest time for which the scanner, or who unmerges, keeps others from their memory; and
//! reclaim, from an `anon_vma`.

use std::time::Duration;

use anyhow::Result;

use crate::{
    fill,
    holder::{Holder, Order},
    holds::{Holds, ANON_VMA, MMAP_LOCK},
    ksmd::Ksmd,
    merging::merge_all,
    report::Measures,
    workload::Plan,
};

use super::rmap::{Setting, MOST_SHARERS};

/// More would only be more of the same, and each lock is recorded.
const MOST_PAGES: usize = 16384;

/// Locks for each page in all scans together: the kernel's own KSM takes one for each page of a
/// tree that it compares with.
const LOCKS_PER_PAGE: usize = 24;

/// How often an `anon_vma` is locked for each mapping at most: reclaim is persistent.
const LOCKS_PER_MAPPING: usize = 128;

pub fn locks(plan: &Plan) -> Result<Measures> {
    let mut measures = Measures::default();
    add_mmap_lock(plan.pages.min(MOST_PAGES), &mut measures)?;
    if ANON_VMA.has_events()? {
        let longest = longest_in_walk(plan)?;
        measures.add("walk_anon_vma_us", micros(longest));
    }
    Ok(measures)
}

fn add_mmap_lock(pages: usize, measures: &mut Measures) -> Result<()> {
    let mut ksmd = Ksmd::prepare()?;
    let mut holder = Holder::new(pages, fill::half_pairs)?;
    holder.obey(Order::Advise)?;
    let threads = [ksmd.pid(), std::process::id()];
    let holds = Holds::prepare(&MMAP_LOCK, &threads, pages * LOCKS_PER_PAGE)?;

    holds.start()?;
    merge_all(&mut ksmd, pages / 4)?;
    measures.add("scan_mmap_lock_us", micros(holds.longest()?));

    holds.start()?;
    ksmd.unmerge()?;
    measures.add("unmerge_mmap_lock_us", micros(holds.longest()?));
    Ok(())
}

/// The longest hold of an `anon_vma` by reclaim, which looks for all mappings of pages.
fn longest_in_walk(plan: &Plan) -> Result<Duration> {
    let plan = Plan {
        // One page: more would only be more of the same, here as well.
        pages: plan.pages.min(MOST_SHARERS),
        ..*plan
    };
    let setting = Setting::with_pages_that_stay(&plan)?;
    let threads = [std::process::id()];
    let holds = Holds::prepare(&ANON_VMA, &threads, plan.pages * LOCKS_PER_MAPPING)?;
    holds.start()?;
    setting.look_at_all()?;
    let longest = holds.longest()?;
    setting.end()?;
    Ok(longest)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
