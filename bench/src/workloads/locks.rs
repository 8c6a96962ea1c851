// SPDX-License-Identifier: GPL-2.0

//! The longest time for which the scanner, or who unmerges, keeps others from their memory.

use std::time::Duration;

use anyhow::Result;

use crate::{
    fill,
    holder::{Holder, Order},
    holds::Holds,
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
    measures.add("scan_mmap_lock_us", micros(holds.longest()?));

    holds.start()?;
    ksmd.unmerge()?;
    measures.add("unmerge_mmap_lock_us", micros(holds.longest()?));
    Ok(measures)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
