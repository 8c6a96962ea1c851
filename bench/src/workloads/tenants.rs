// SPDX-License-Identifier: GPL-2.0

//! Guests in one domain or in many: what merging still saves, and what a scan costs.
//!
//! `mm/ksm.c` has no domains, so with it each point is the same.

use anyhow::{Context, Result};
use ksm_tests::{domain, ksm};
use nix::sys::resource::{getrlimit, setrlimit, Resource};

use crate::{
    fill,
    footprint::saved_pages,
    holder::{Holder, Order},
    ksmd::Ksmd,
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::Plan,
};

/// Guests that hold the same, and the numbers of domains that they are spread over.
const EQUAL_GUESTS: usize = 64;
const FEW: &[usize] = &[1, 2, 4, 16, 64];

/// Guests each of which has every page twice, and no page of another one.
const MANY_GUESTS: usize = 1024;
const MANY: &[usize] = &[1, 4, 16, 64, 256, 1024];

/// Until all is merged: a page is known, waits, and meets its equal.
const SCANS: usize = 4;

pub fn tenants(plan: &Plan) -> Result<Measures> {
    allow_many_files()?;
    let mut measures = Measures::default();
    let equal = Guests {
        count: EQUAL_GUESTS,
        pages: (plan.pages / EQUAL_GUESTS).max(1),
        fill: |memory, _| fill::unique(memory),
    };
    let (saved, scan) = equal.over(FEW, plan)?;
    measures.add_curve("saved_percent", saved);
    measures.add_curve("equal_ns_per_page", scan);

    let apart = Guests {
        count: MANY_GUESTS,
        pages: (plan.pages / MANY_GUESTS / 2 * 2).max(2),
        fill: fill::pairs_of_part,
    };
    let (_, scan) = apart.over(MANY, plan)?;
    let (one, most) = (scan[0], scan[MANY.len() - 1]);
    measures.add("one_domain_ns_per_page", one);
    measures.add("1024_domains_ns_per_page", most);
    measures.add_curve("apart_ns_per_page", scan);
    Ok(measures)
}

/// A link to each guest is a file.
fn allow_many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("setrlimit")
}

/// Guests that are alike.
struct Guests {
    count: usize,
    /// Pages of each.
    pages: usize,
    /// Fills the memory of the guest of a number.
    fill: fn(&mut [u8], usize),
}

impl Guests {
    /// For each number of domains: pages saved, in percent, and the nanoseconds of a page in a scan once all
    /// is merged.
    fn over(&self, domains: &[usize], plan: &Plan) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut saved, mut scan) = (Vec::new(), Vec::new());
        for domains in domains {
            let (percent, nanoseconds) = self.spread_over(*domains, plan)?;
            saved.push(percent);
            scan.push(nanoseconds);
        }
        Ok((saved, scan))
    }

    fn spread_over(&self, domains: usize, plan: &Plan) -> Result<(f64, f64)> {
        let mut ksmd = Ksmd::prepare()?;
        let mut guests = Vec::new();
        for number in 0..self.count {
            let mut guest = Holder::new(self.pages, |memory| (self.fill)(memory, number))?;
            if ksm::is_ours() {
                domain::set(guest.pid(), number % domains)?;
            }
            guest.obey(Order::Advise)?;
            guests.push(guest);
        }
        ksmd.scans(SCANS)?;
        let pages = self.count * self.pages;
        let percent = 100.0 * saved_pages()? as f64 / pages as f64;
        let scan = median(ksmd.scans(plan.scans)?);
        Ok((percent, nanoseconds_each(scan, pages)))
    }
}
