// SPDX-License-Identifier: GPL-2.0

//! What merging saves, and how many huge pages it leaves whole, in memory like that of two guests.
//!
//! Of the pages that have an equal in the other guest, half or more lie in huge pages that are equal as a whole,
//! like data that both have read from the same image; the others are spread evenly over all other huge pages.

use std::time::Duration;

use anyhow::{ensure, Result};
use ksm_tests::{ksm, pattern, procfs, region::HUGE_PAGES, PAGE_SIZE};

use crate::{
    fill,
    footprint::saved_pages,
    holder::{Holder, Order},
    ksmd::Ksmd,
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::{Memory, Plan},
};

const GUESTS: usize = 2;

/// Pages in a thousand that have an equal, and the names of what is found.
const DUPLICATES: &[(usize, &str, &str)] = &[
    (2, "saved_percent_of_0.2", "whole_percent_of_0.2"),
    (20, "saved_percent_of_2", "whole_percent_of_2"),
    (200, "saved_percent_of_20", "whole_percent_of_20"),
    (1000, "saved_percent_of_100", "whole_percent_of_100"),
];

/// Values of `huge_page_min_equal`; with C all is as with 1.
const MIN_EQUAL: &[usize] = &[1, 8, 64, 256];

/// One scan to know a page, one to count equal pages, one to split, and some for what these bring.
const SCANS: usize = 6;

const SEED: u64 = 3;

/// Pages of zeros, with `use_zero_pages` = 1: what it takes until they are gone. With C no counter tells, as
/// they go when a huge page is split.
pub fn zero(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    ksm::write("use_zero_pages", 1)?;
    let mut holder = Holder::in_memory(Memory::HugePages, plan.pages, fill::zeros)?;
    holder.obey(Order::Advise)?;
    let before = procfs::resident_pages(holder.pid())?;
    let mut time = Duration::ZERO;
    for _ in 0..SCANS {
        time += ksmd.scan()?;
        if before - procfs::resident_pages(holder.pid())? >= plan.pages * 95 / 100 {
            break;
        }
    }
    let gone = before - procfs::resident_pages(holder.pid())?;
    ensure!(gone >= plan.pages * 95 / 100, "only {gone} pages are gone");
    let steady = ksmd.scans(plan.scans)?;
    let mut measures = Measures::default();
    measures.add("merge_ns_per_page", nanoseconds_each(time, plan.pages));
    measures.add(
        "steady_ns_per_page",
        nanoseconds_each(median(steady), plan.pages),
    );
    measures.add_cross_check(&ksmd, plan.pages)?;
    Ok(measures)
}

pub fn curve(plan: &Plan) -> Result<Measures> {
    let mut measures = Measures::default();
    let min_equal = if ksm::is_ours() {
        MIN_EQUAL
    } else {
        &MIN_EQUAL[..1]
    };
    for (per_thousand, saved_percent, whole_percent) in DUPLICATES {
        let (mut saved, mut whole) = (Vec::new(), Vec::new());
        for min_equal in min_equal {
            let (reached, kept) = run(plan, *per_thousand, *min_equal)?;
            saved.push(reached);
            whole.push(kept);
        }
        measures.add_curve(saved_percent, saved);
        measures.add_curve(whole_percent, whole);
    }
    Ok(measures)
}

/// The percentage of possible savings that is reached, and of huge pages that stay whole.
fn run(plan: &Plan, per_thousand: usize, min_equal: usize) -> Result<(f64, f64)> {
    let mut ksmd = Ksmd::prepare()?;
    if ksm::is_ours() {
        ksm::write_own("huge_page_min_equal", min_equal)?;
    }
    let guest = Guest::new(plan.pages / GUESTS, per_thousand);
    let mut guests = (0..GUESTS)
        .map(|number| {
            Holder::in_memory(Memory::HugePages, guest.pages, |memory| {
                guest.fill(memory, number);
            })
        })
        .collect::<Result<Vec<_>>>()?;
    for guest in &mut guests {
        guest.obey(Order::Advise)?;
    }
    ksmd.scans(SCANS)?;
    let mut huge = 0;
    for guest in &guests {
        huge += procfs::anon_huge_kib(guest.pid())? as usize * 1024 / (HUGE_PAGES * PAGE_SIZE);
    }
    let saved = saved_pages()? as usize;
    let possible = guest.duplicates();
    ensure!(saved <= possible, "{saved} pages of {possible} are saved");
    Ok((
        percent(saved, possible),
        percent(huge, GUESTS * guest.pages / HUGE_PAGES),
    ))
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// What the memory of a guest is like.
struct Guest {
    pages: usize,
    /// Pages at the beginning, in whole huge pages, that all guests have.
    whole: usize,
    /// Of the pages behind these, one in so many is one that all guests have.
    one_in: usize,
}

impl Guest {
    fn new(pages: usize, per_thousand: usize) -> Self {
        let duplicates = pages * per_thousand / 1000;
        // None of the few that are less than a huge page.
        let whole = (duplicates / 2).next_multiple_of(HUGE_PAGES);
        let whole = if whole <= duplicates { whole } else { 0 };
        let one_in = (pages - whole) / (duplicates - whole).max(1);
        Self {
            pages,
            whole,
            one_in,
        }
    }

    /// Whether all guests have page number `page`.
    fn is_shared(&self, page: usize) -> bool {
        page < self.whole || (page - self.whole) % self.one_in == 0
    }

    fn duplicates(&self) -> usize {
        let shared = (0..self.pages).filter(|page| self.is_shared(*page));
        shared.count() * (GUESTS - 1)
    }

    fn fill(&self, memory: &mut [u8], number: usize) {
        let base = pattern::page(SEED, 0);
        for (page, content) in memory.chunks_exact_mut(PAGE_SIZE).enumerate() {
            let owner = if self.is_shared(page) { 0 } else { 1 + number };
            content.copy_from_slice(&base);
            content[..8].copy_from_slice(&fill::scattered(owner * self.pages + page).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_as_many_duplicates_as_are_said() {
        const PAGES: usize = 64 * HUGE_PAGES;
        for (per_thousand, ..) in DUPLICATES {
            let guest = Guest::new(PAGES, *per_thousand);
            let wanted = PAGES * per_thousand / 1000;
            assert!(guest.duplicates().abs_diff(wanted) <= wanted / 10);
            assert_eq!(guest.whole % HUGE_PAGES, 0);
            assert!(guest.whole == 0 || guest.whole >= wanted / 2);
        }
    }
}
