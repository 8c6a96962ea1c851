// SPDX-License-Identifier: GPL-2.0

//! Changes of mappings whose pages the scan knows: what the process pays for them, and how long the records
//! go on with pages that are gone.

use std::{thread, time::Duration};

use anyhow::Result;
use ksm_tests::{
    ksm::{self, Run, Scanner},
    procfs::KsmStat,
};

use crate::{
    fill,
    holder::{Holder, Order},
    ksmd::Ksmd,
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::{Memory, Plan},
};

/// Scans until all pages are known, and wait for equals.
const SCANS: usize = 3;

/// Orders that leave the pages where they are, or move all of them.
const STAY: [(Order, &str); 2] = [
    (Order::Protect, "mprotect_twice_ns_per_page"),
    (Order::Move, "mremap_ns_per_page"),
];

pub fn changes(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let mut holder = Holder::new(plan.pages, fill::unique)?;
    holder.obey(Order::Advise)?;
    let mut measures = Measures::default();
    for (order, name) in STAY {
        let mut times = Vec::new();
        for _ in 0..plan.rounds {
            ksmd.scans(SCANS)?;
            times.push(holder.obey(order)?);
        }
        measures.add(name, nanoseconds_each(median(times), plan.pages));
    }
    let (mut discards, mut faults, mut unmaps, mut stale) = (vec![], vec![], vec![], vec![]);
    for _ in 0..plan.rounds {
        ksmd.scans(SCANS)?;
        discards.push(holder.obey(Order::Discard)?);
        stale.push(items_of(&holder)? as f64);
        faults.push(holder.obey(Order::WriteSame)?);
        holder.obey(Order::Refill)?;
        ksmd.scans(SCANS)?;
        unmaps.push(holder.obey(Order::Renew)?);
        holder.obey(Order::Refill)?;
        holder.obey(Order::Advise)?;
    }
    for (name, times) in [
        ("dontneed_ns_per_page", discards),
        ("refault_ns_per_page", faults),
        ("munmap_ns_per_page", unmaps),
    ] {
        measures.add(name, nanoseconds_each(median(times), plan.pages));
    }
    let share = 100.0 * median(stale) / plan.pages as f64;
    measures.add("stale_items_percent", share);
    Ok(measures)
}

/// Parts of the memory, of which one goes at a time.
const PARTS: usize = 16;

/// Steps of the scan over all of the memory, and from one part that goes to the next.
const STEPS: usize = 16;
const STEPS_TO_NEXT: u32 = 4;

const SLEEP: Duration = Duration::from_millis(40);

/// What the records know too much while a paced scan goes on and memory goes away.
pub fn gone(plan: &Plan) -> Result<Measures> {
    let _settings = Scanner::prepare()?;
    let pages = plan.pages / PARTS;
    let mut holder = Holder::with_regions(|| {
        let part = || Memory::SmallPages.region(pages, fill::unique);
        (0..PARTS).map(|_| part()).collect()
    })?;
    holder.obey(Order::Advise)?;
    ksm::write("pages_to_scan", plan.pages / STEPS)?;
    ksm::write("sleep_millisecs", SLEEP.as_millis())?;
    ksm::set_run(Run::Merge)?;
    let known = ksm::full_scans()? + SCANS as u64;
    while ksm::full_scans()? < known {
        thread::sleep(SLEEP);
    }
    let (mut items, mut unshared) = (0.0, 0.0);
    for part in (1..PARTS).rev() {
        holder.obey(Order::DropLast)?;
        thread::sleep(SLEEP * STEPS_TO_NEXT);
        let there = (part * pages) as f64;
        items += (items_of(&holder)? as f64 - there).max(0.0);
        unshared += (ksm::counters()?.unshared as f64 - there).max(0.0);
    }
    let mean = |sum: f64| 100.0 * sum / (PARTS - 1) as f64 / plan.pages as f64;
    let mut measures = Measures::default();
    measures.add("gone_items_percent", mean(items));
    measures.add("gone_unshared_percent", mean(unshared));
    Ok(measures)
}

fn items_of(holder: &Holder) -> Result<i64> {
    Ok(KsmStat::read(holder.pid())?.rmap_items)
}
