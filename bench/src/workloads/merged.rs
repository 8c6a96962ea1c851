// SPDX-License-Identifier: GPL-2.0

//! Pages that have equals: merging them, and scans when all is merged.

use anyhow::Result;
use ksm_tests::ksm;

use crate::{
    fill,
    footprint::Footprint,
    holder::{Holder, Order},
    ksmd::Ksmd,
    merging::{merge_all, merge_most, time_to_merge, Merging},
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::Plan,
};

pub fn pairs(plan: &Plan) -> Result<Measures> {
    merged(plan, plan.pages / 2, fill::pairs)
}

pub fn half_duplicates(plan: &Plan) -> Result<Measures> {
    merged(plan, plan.pages / 4, fill::half_pairs)
}

pub fn same(plan: &Plan) -> Result<Measures> {
    merged(plan, plan.pages - 1, fill::same)
}

pub fn zero(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    ksm::write("use_zero_pages", 1)?;
    measure(&mut ksmd, plan, plan.pages, fill::zeros)
}

fn merged(plan: &Plan, duplicates: usize, content: impl FnOnce(&mut [u8])) -> Result<Measures> {
    measure(&mut Ksmd::prepare()?, plan, duplicates, content)
}

fn measure(
    ksmd: &mut Ksmd,
    plan: &Plan,
    duplicates: usize,
    content: impl FnOnce(&mut [u8]),
) -> Result<Measures> {
    let mut holder = Holder::in_memory(plan.memory, plan.pages, content)?;
    let footprint = Footprint::begin()?;
    holder.obey(Order::Advise)?;
    let mut all = vec![merge_most(ksmd, duplicates)?];
    merge_all(ksmd, duplicates)?;
    let steady = ksmd.scans(plan.scans)?;
    let mut measures = Measures::default();
    footprint.add_to(&mut measures, plan.pages)?;
    while all.len() < plan.rounds {
        // All pages become private again, and hold what they held.
        ksmd.unmerge()?;
        all.push(merge_most(ksmd, duplicates)?);
    }
    ksmd.unmerge()?;
    let wall = time_to_merge(ksmd, duplicates)?;

    add_merging(&mut measures, plan, &mut all);
    measures.add("merge_wall_ms", wall.as_secs_f64() * 1e3);
    measures.add(
        "steady_ns_per_page",
        nanoseconds_each(median(steady), plan.pages),
    );
    measures.add_cross_check(ksmd, plan.pages)?;
    Ok(measures)
}

/// The round that took the median of CPU time.
fn add_merging(measures: &mut Measures, plan: &Plan, all: &mut [Merging]) {
    all.sort_unstable_by_key(|merging| merging.cpu);
    let typical = &all[all.len() / 2];
    measures.add(
        "merge_ns_per_page",
        nanoseconds_each(typical.cpu, plan.pages),
    );
    measures.add(
        "saved_pages_per_cpu_s",
        typical.saved as f64 / typical.cpu.as_secs_f64(),
    );
}
