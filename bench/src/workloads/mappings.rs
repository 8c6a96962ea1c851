// SPDX-License-Identifier: GPL-2.0

//! Few pages for what there is to be walked: holes, many vmas, many processes.

use std::time::Duration;

use anyhow::{ensure, Result};
use ksm_tests::{control_file, ksm, region::Region, PAGE_SIZE};

use crate::{
    fill,
    holder::{Holder, Order},
    ksmd::Ksmd,
    report::Measures,
    statistics::{mean, nanoseconds_each},
    workload::Plan,
};

use super::unmerged::scans_of;

/// Size of the address space that is nearly empty.
const SPARSE_BYTES: usize = 32 << 30;

/// A scan of it is short, so it is repeated for so long without a pause: to wake up for it would take
/// longer. Nobody looks meanwhile, as that would, too.
const SPARSE_TIME: Duration = Duration::from_secs(1);

pub fn sparse(_plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let pages = SPARSE_BYTES / PAGE_SIZE;
    let mut holder = Holder::with_regions(|| {
        let mut region = Region::new(pages)?;
        fill::unique(region.page_mut(pages / 2));
        Ok(vec![region])
    })?;
    holder.obey(Order::Advise)?;
    // To walk over the mappings of another process would be a good part of a scan this short.
    ksmd.leave_us_alone()?;
    ksmd.scans(2)?;
    let later = ksmd.scans_for(SPARSE_TIME)?;
    let unshared = ksm::counters()?.unshared;
    ensure!(unshared == 1, "{unshared} pages were found, not 1");

    let mut measures = Measures::default();
    // The clock counts microseconds: any choice among the times would be one of numbers that it
    // has rounded.
    measures.add("scan_ns", nanoseconds_each(mean(&later), 1));
    Ok(measures)
}

const PAGES_PER_VMA: usize = 4;

/// A region for every four pages, with a hole after each.
fn islands(count: usize) -> Result<Vec<Region>> {
    let mut rest = Region::new(count * (PAGES_PER_VMA + 1))?;
    let mut regions = Vec::new();
    for index in 0..count {
        let next = match index + 1 {
            last if last == count => None,
            _ => Some(rest.split_off(PAGES_PER_VMA + 1)?),
        };
        drop(rest.split_off(PAGES_PER_VMA)?);
        fill::unique_part(rest.bytes_mut(), index);
        regions.push(rest);
        match next {
            Some(next) => rest = next,
            None => break,
        }
    }
    Ok(regions)
}

pub fn vmas(plan: &Plan) -> Result<Measures> {
    let count = plan.pages / PAGES_PER_VMA;
    // Twice what there will be, for the moments at which a vma is split.
    control_file::write("/proc/sys/vm/max_map_count", 2 * count + 1000)?;
    let mut ksmd = Ksmd::prepare()?;
    let mut holder = Holder::with_regions(|| islands(count))?;
    scans_of(&mut ksmd, plan, &mut [&mut holder])
}

const PAGES_PER_PROCESS: usize = 16;

/// Pages to be offered, for each page that is in the processes.
const PAGES_ASKED_FOR: usize = 8;

pub fn processes(plan: &Plan) -> Result<Measures> {
    let count = plan.pages / (PAGES_PER_PROCESS * PAGES_ASKED_FOR);
    let mut ksmd = Ksmd::prepare()?;
    let mut holders = Vec::new();
    for part in 0..count {
        holders.push(Holder::new(PAGES_PER_PROCESS, |memory| {
            fill::unique_part(memory, part);
        })?);
    }
    let plan = Plan {
        pages: count * PAGES_PER_PROCESS,
        ..*plan
    };
    let mut holders: Vec<_> = holders.iter_mut().collect();
    scans_of(&mut ksmd, &plan, &mut holders)
}
