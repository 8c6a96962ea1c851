// SPDX-License-Identifier: GPL-2.0

//! What becomes of merged pages: they are unmerged, inherited, written to, or given up.

use std::time::Duration;

use anyhow::Result;

use crate::{
    fill,
    holder::{Holder, Order},
    ksmd::Ksmd,
    merging::merge_all,
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::Plan,
};

/// One measure: the median of several rounds, for each of so many pages.
fn per_page(name: &'static str, rounds: Vec<Duration>, pages: usize) -> Measures {
    let mut measures = Measures::default();
    measures.add(name, nanoseconds_each(median(rounds), pages));
    measures
}

pub fn unmerge(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let mut holder = Holder::new(plan.pages, fill::pairs)?;
    holder.obey(Order::Advise)?;
    let (mut by_run, mut by_madvise) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        merge_all(&mut ksmd, plan.pages / 2)?;
        by_run.push(ksmd.unmerge()?);
        merge_all(&mut ksmd, plan.pages / 2)?;
        by_madvise.push(holder.obey(Order::Unadvise)?);
        ksmd.stop()?;
        holder.obey(Order::Advise)?;
    }
    let mut measures = per_page("unmerge_ns_per_page", by_run, plan.pages);
    measures.add(
        "unmergeable_ns_per_page",
        nanoseconds_each(median(by_madvise), plan.pages),
    );
    Ok(measures)
}

/// A process of half the pages, without an equal among them.
fn half(plan: &Plan) -> Result<Holder> {
    let mut holder = Holder::new(plan.pages / 2, fill::unique)?;
    holder.obey(Order::Advise)?;
    Ok(holder)
}

pub fn exit(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let _stays = half(plan)?;
    let mut times = Vec::new();
    for _ in 0..plan.rounds {
        let leaves = half(plan)?;
        merge_all(&mut ksmd, plan.pages / 2)?;
        times.push(leaves.kill()?);
        ksmd.stop()?;
    }
    Ok(per_page("exit_ns_per_page", times, plan.pages / 2))
}

pub fn fork(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let mut forks = half(plan)?;
    let _other = half(plan)?;
    merge_all(&mut ksmd, plan.pages / 2)?;
    ksmd.stop()?;
    let times = (0..plan.scans).map(|_| forks.obey(Order::Fork));
    let times = times.collect::<Result<_>>()?;
    Ok(per_page("fork_ns_per_page", times, plan.pages / 2))
}

pub fn cow(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let mut writes = half(plan)?;
    let _other = half(plan)?;
    let mut times = Vec::new();
    for _ in 0..plan.rounds {
        merge_all(&mut ksmd, plan.pages / 2)?;
        times.push(writes.obey(Order::WriteSame)?);
    }
    Ok(per_page("fault_ns", times, plan.pages / 2))
}
