// SPDX-License-Identifier: GPL-2.0

//! Reclaim of KSM pages: it has to find all of their mappings.
//!
//! A page with 1,024 mappings or more is not swapped out: it has so many references that it may be
//! pinned, for all that the kernel knows. Reclaim goes through its mappings all the same, to see
//! whether it was used, each time that it comes by.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Result};
use ksm_tests::{
    cgroup::{self, Cgroup},
    ksm, procfs,
    swap::Swap,
    PAGE_SIZE,
};
use nix::unistd::Pid;

use crate::{
    fill,
    holder::{Holder, Order},
    ksmd::Ksmd,
    merging::merge_all,
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::Plan,
};

/// Processes among which the mappings are spread.
const PROCESSES: usize = 8;

/// So many that a page stays where it is.
pub const MOST_SHARERS: usize = 4096;

/// What mainline has by default.
const USUAL_SHARERS: usize = 256;

/// Reclaim gives up before all is done; it is asked again, but not for ever.
const MOST_TRIES: usize = 40;

/// For the pages that go.
const TRIES_TO_SETTLE: usize = 10;

/// Reclaim goes by a group's statistics, which the kernel brings up to date every two seconds.
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// A few pages stay: in a CPU's list of pages to be looked at later, for one.
const ENOUGH: f64 = 0.95;

pub fn sharers_2(plan: &Plan) -> Result<Measures> {
    sharers(plan, 2)
}

pub fn sharers_256(plan: &Plan) -> Result<Measures> {
    sharers(plan, 256)
}

pub fn sharers_4096(plan: &Plan) -> Result<Measures> {
    let setting = Setting::with_pages_that_stay(plan)?;
    let mut costs = Vec::new();
    for _ in 0..plan.rounds {
        let (time, scanned) = setting.look_at_all()?;
        costs.push(nanoseconds_each(time, scanned * MOST_SHARERS));
    }
    setting.end()?;
    Ok(cost("walk_ns_per_mapping", costs))
}

fn sharers(plan: &Plan, sharers: usize) -> Result<Measures> {
    let mut setting = Setting::new(plan, sharers)?;
    let mut costs = Vec::new();
    for _ in 0..plan.rounds {
        merge_all(&mut setting.ksmd, setting.duplicates)?;
        costs.push(swap_out(&setting.group, &setting.holders, plan.pages)?);
        for holder in &mut setting.holders {
            holder.obey(Order::Read)?;
        }
    }
    setting.end()?;
    Ok(cost("reclaim_ns_per_mapping", costs))
}

fn cost(name: &'static str, costs: Vec<f64>) -> Measures {
    let mut measures = Measures::default();
    measures.add(name, median(costs));
    measures
}

/// Processes that share pages, and a place where these can go.
pub struct Setting {
    ksmd: Ksmd,
    holders: Vec<Holder>,
    duplicates: usize,
    group: Cgroup,
    swap: Swap,
}

impl Setting {
    fn new(plan: &Plan, sharers: usize) -> Result<Self> {
        let ksmd = Ksmd::prepare()?;
        ksm::write("max_page_sharing", sharers.max(USUAL_SHARERS))?;
        let swap = Swap::on(plan.pages * PAGE_SIZE)?;
        let group = Cgroup::new("sharers")?;
        Ok(Self {
            ksmd,
            holders: holders(plan, sharers, &group)?,
            duplicates: plan.pages - plan.pages / sharers,
            group,
            swap,
        })
    }

    /// Merges pages that have [`MOST_SHARERS`] mappings each, and lets all others go.
    pub fn with_pages_that_stay(plan: &Plan) -> Result<Self> {
        let mut setting = Self::new(plan, MOST_SHARERS)?;
        merge_all(&mut setting.ksmd, setting.duplicates)?;
        for _ in 0..TRIES_TO_SETTLE {
            reclaim_all(&setting.group)?;
            thread::sleep(BETWEEN_TRIES);
        }
        Ok(setting)
    }

    /// Lets reclaim look at all pages: how long that took, and how many there were.
    pub fn look_at_all(&self) -> Result<(Duration, usize)> {
        let before = self.group.statistic("pgscan")?;
        let time = reclaim_all(&self.group)?;
        let looked_at = self.group.statistic("pgscan")? - before;
        ensure!(looked_at > 0, "no page was looked at");
        Ok((time, looked_at as usize))
    }

    /// Swap can end when nobody has anything in it.
    pub fn end(self) -> Result<()> {
        drop(self.holders);
        self.swap.off()
    }
}

/// Processes whose memory counts in `group`.
fn holders(plan: &Plan, sharers: usize, group: &Cgroup) -> Result<Vec<Holder>> {
    // A process that is forked here is a member from the start.
    group.add(Pid::this())?;
    let mut holders = Vec::new();
    for part in 0..PROCESSES {
        let mut holder = Holder::new(plan.pages / PROCESSES, |memory| {
            fill::shared(memory, part, PROCESSES, sharers);
        })?;
        holder.obey(Order::Advise)?;
        holders.push(holder);
    }
    cgroup::leave(Pid::this())?;
    Ok(holders)
}

/// Asks for more than can be had; returns how long that took.
fn reclaim_all(group: &Cgroup) -> Result<Duration> {
    let all = group.usage()?;
    let begin = Instant::now();
    group.reclaim_anonymous(all);
    Ok(begin.elapsed())
}

/// Swaps out nearly all pages of `holders`; returns how many nanoseconds
/// each mapping took.
fn swap_out(group: &Cgroup, holders: &[Holder], mappings: usize) -> Result<f64> {
    let mut time = Duration::ZERO;
    let mut out = 0;
    for _ in 0..MOST_TRIES {
        time += reclaim_all(group)?;
        out = swapped_pages(holders)?;
        if out as f64 >= mappings as f64 * ENOUGH {
            return Ok(nanoseconds_each(time, out));
        }
        thread::sleep(BETWEEN_TRIES);
    }
    bail!("{out} of {mappings} mappings lead to swap after {MOST_TRIES} tries")
}

fn swapped_pages(holders: &[Holder]) -> Result<usize> {
    let of = |holder: &Holder| procfs::swapped_pages(holder.pid());
    holders.iter().map(of).sum()
}
