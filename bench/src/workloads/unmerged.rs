// SPDX-License-Identifier: GPL-2.0

//! Pages that have no equal: all that a scan does is to find that out.

use std::time::Duration;

use anyhow::{ensure, Result};
use ksm_tests::ksm;

use crate::{
    fill,
    footprint::Footprint,
    holder::{Holder, Order},
    ksmd::Ksmd,
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::Plan,
};

pub fn unique(plan: &Plan) -> Result<Measures> {
    unchanged(plan, fill::unique)
}

pub fn differing(plan: &Plan, offset: usize) -> Result<Measures> {
    unchanged(plan, |memory| fill::differing_at(memory, offset))
}

/// Nobody writes to the memory.
fn unchanged(plan: &Plan, content: impl FnOnce(&mut [u8])) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let mut holder = Holder::in_memory(plan.memory, plan.pages, content)?;
    scans_of(&mut ksmd, plan, &mut [&mut holder])
}

/// What scans cost over all pages of `holders`, which have no equal.
pub fn scans_of(ksmd: &mut Ksmd, plan: &Plan, holders: &mut [&mut Holder]) -> Result<Measures> {
    // A process that is told something for the first time takes some memory for that.
    for holder in &mut *holders {
        holder.obey(Order::Read)?;
    }
    let footprint = Footprint::begin()?;
    for holder in holders {
        holder.obey(Order::Advise)?;
    }
    let mut first = vec![ksmd.scan()?];
    // The first in which pages are looked up and find room for themselves.
    ksmd.scan()?;
    let later = ksmd.scans(plan.scans)?;
    let counters = ksm::counters()?;
    ensure!(
        counters == ksm::Counters::stable(0, 0, plan.pages as u64),
        "not what was to be scanned: {counters}"
    );

    let mut measures = Measures::default();
    footprint.add_to(&mut measures, plan.pages)?;
    while first.len() < plan.rounds {
        // All pages are forgotten.
        ksmd.unmerge()?;
        first.push(ksmd.scan()?);
    }
    add_scans(&mut measures, ksmd, plan, first, later)?;
    Ok(measures)
}

/// Adds what the first scans and later ones have cost.
pub fn add_scans(
    measures: &mut Measures,
    ksmd: &Ksmd,
    plan: &Plan,
    first: Vec<Duration>,
    later: Vec<Duration>,
) -> Result<()> {
    measures.add(
        "first_scan_ns_per_page",
        nanoseconds_each(median(first), plan.pages),
    );
    measures.add(
        "scan_ns_per_page",
        nanoseconds_each(median(later), plan.pages),
    );
    measures.add_cross_check(ksmd, plan.pages)
}

/// Half of the pages are never the same in two scans.
pub fn volatile(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let mut holder = Holder::new(plan.pages, fill::unique)?;
    holder.obey(Order::Advise)?;
    let first = ksmd.scan()?;
    let mut later = Vec::new();
    for _ in 0..=plan.scans {
        holder.obey(Order::RewriteHalf)?;
        later.push(ksmd.scan()?);
    }
    // As above.
    later.remove(0);
    let unshared = ksm::counters()?.unshared;
    ensure!(
        unshared.abs_diff(plan.pages as u64 / 2) <= 1,
        "not half of {} pages is volatile, but {unshared} are not",
        plan.pages
    );
    let mut measures = Measures::default();
    add_scans(&mut measures, &ksmd, plan, vec![first], later)?;
    Ok(measures)
}
