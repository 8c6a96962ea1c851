// SPDX-License-Identifier: GPL-2.0

//! The longest time for which the scanner, or who unmerges, keeps others from their memory.

use anyhow::Result;

use crate::{
    fill,
    holder::{Holder, Order},
    holds::{Holds, Names},
    ksmd::Ksmd,
    merging::merge_all,
    report::Measures,
    workload::Plan,
};

/// More would only be more of the same, and each lock is recorded.
const MOST_PAGES: usize = 16384;

/// Locks for each page in all scans together: the kernel's own KSM takes one for each page of a
/// tree that it compares with.
const LOCKS_PER_PAGE: usize = 24;

const SCAN: Names = Names {
    mmap_lock: "scan_mmap_lock_us",
    anon_vma: "scan_anon_vma_us",
};
const UNMERGE: Names = Names {
    mmap_lock: "unmerge_mmap_lock_us",
    anon_vma: "unmerge_anon_vma_us",
};

pub fn locks(plan: &Plan) -> Result<Measures> {
    let pages = plan.pages.min(MOST_PAGES);
    let mut ksmd = Ksmd::prepare()?;
    let mut holder = Holder::new(pages, fill::half_pairs)?;
    holder.obey(Order::Advise)?;
    let threads = [ksmd.pid(), std::process::id()];
    let holds = Holds::prepare(&threads, pages * LOCKS_PER_PAGE)?;
    let mut measures = Measures::default();

    holds.start()?;
    merge_all(&mut ksmd, pages / 4)?;
    holds.add_longest(&mut measures, &SCAN)?;

    holds.start()?;
    ksmd.unmerge()?;
    holds.add_longest(&mut measures, &UNMERGE)?;
    Ok(measures)
}
