// SPDX-License-Identifier: GPL-2.0

//! Giving advice about a large range, and taking it back, while the scanner rests.

use anyhow::Result;

use crate::{
    fill,
    holder::{Holder, Order},
    ksmd::Ksmd,
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::Plan,
};

/// Calls for each scan that would be measured elsewhere.
const FACTOR: usize = 4;

pub fn madvise(plan: &Plan) -> Result<Measures> {
    let _resting = Ksmd::prepare()?;
    let mut holder = Holder::new(plan.pages, fill::unique)?;
    let (mut given, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..FACTOR * plan.scans {
        given.push(holder.obey(Order::Advise)?);
        taken.push(holder.obey(Order::Unadvise)?);
    }
    let mut measures = Measures::default();
    measures.add("mergeable_ns", nanoseconds_each(median(given), 1));
    measures.add("unmergeable_ns", nanoseconds_each(median(taken), 1));
    Ok(measures)
}
