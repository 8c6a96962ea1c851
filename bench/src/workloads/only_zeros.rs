// SPDX-License-Identifier: GPL-2.0

//! What it costs to look for pages of zeros, and for nothing else, where there are none.

use anyhow::{ensure, Result};
use ksm_tests::ksm;

use super::unmerged::add_scans;
use crate::{
    fill,
    footprint::Footprint,
    holder::{Holder, Order},
    ksmd::Ksmd,
    report::Measures,
    workload::Plan,
};

pub fn only_zeros(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    // What comes nearest in mm/ksm.c looks for all equal pages as well.
    match ksm::is_ours() {
        true => ksm::write_own("only_zero_pages", 1)?,
        false => ksm::write("use_zero_pages", 1)?,
    }
    let mut holder = Holder::in_memory(plan.memory, plan.pages, fill::unique)?;
    holder.obey(Order::Read)?;
    let footprint = Footprint::begin()?;
    holder.obey(Order::Advise)?;
    let mut first = vec![ksmd.scan()?];
    ksmd.scan()?;
    let later = ksmd.scans(plan.scans)?;
    let mut measures = Measures::default();
    footprint.add_to(&mut measures, plan.pages)?;
    while first.len() < plan.rounds {
        ksmd.unmerge()?;
        first.push(ksmd.scan()?);
    }
    let zero_pages: usize = ksm::read("ksm_zero_pages")?;
    ensure!(zero_pages == 0, "{zero_pages} random pages are zeros");
    add_scans(&mut measures, &ksmd, plan, first, later)?;
    Ok(measures)
}
