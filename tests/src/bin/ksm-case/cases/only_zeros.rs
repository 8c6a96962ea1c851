// SPDX-License-Identifier: GPL-2.0

//! `only_zero_pages`: pages of zeros are merged, and no others.

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    pattern,
    procfs::{self, KsmStat},
    region::{Region, HUGE_PAGES},
    PAGE_SIZE,
};

use super::huge::{self, count_huge, ENOUGH};
use crate::{
    case::{Case, Options},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "only-zeros",
        "one full scan merges all pages of zeros, and keeps nothing of others",
        one_sweep,
    ),
    Case::new(
        "only-zeros-defaults",
        "the same with smart_scan and a step of 100 pages",
        one_sweep_defaults,
    ),
    Case::new(
        "only-zeros-switched",
        "pages that are merged stay so while only zeros are merged, and equal ones wait",
        switched,
    ),
    Case::new(
        "only-zeros-huge",
        "huge pages are split for zeros, if there are enough of them",
        in_huge_pages,
    )
    .on("x86")
    .memory(ENOUGH),
];

const PAGES: usize = 600;

/// Unique pages, every third of which is full of zeros.
fn third_zeros(seed: u64, pages: usize) -> Vec<u8> {
    let mut content = pattern::pages(seed, pages);
    for page in content.chunks_mut(3 * PAGE_SIZE) {
        page[..PAGE_SIZE].fill(0);
    }
    content
}

fn zero_pages() -> Result<usize> {
    ksm::read("ksm_zero_pages")
}

fn one_sweep(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    sweep_once(&scanner)
}

fn one_sweep_defaults(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    ksm::write("smart_scan", 1)?;
    ksm::write("pages_to_scan", 100)?;
    sweep_once(&scanner)
}

fn sweep_once(scanner: &Scanner) -> Result<()> {
    ksm::write_own("only_zero_pages", 1)?;
    let steps = ksm::read::<usize>("pages_to_scan")?;
    scanner.scan_on_demand()?;
    let mut content = third_zeros(1, PAGES);
    // Equal pages, and pages that differ from zeros in their last byte only.
    let twin = content[PAGE_SIZE..2 * PAGE_SIZE].to_vec();
    content[4 * PAGE_SIZE..5 * PAGE_SIZE].copy_from_slice(&twin);
    content[7 * PAGE_SIZE..8 * PAGE_SIZE].fill(0);
    content[8 * PAGE_SIZE - 1] = 1;
    let mut region = Region::mergeable(&content)?;
    let before: usize = ksm::read("pages_scanned")?;
    for _ in 0..PAGES.div_ceil(steps) {
        scanner.take_step()?;
    }
    // One more, for a full scan that had begun already.
    scanner.take_step()?;
    let scanned = ksm::read::<usize>("pages_scanned")? - before;
    step(format!(
        "{} zero pages after {scanned} pages",
        zero_pages()?
    ));
    ensure!(
        zero_pages()? == PAGES / 3,
        "one scan did not find all zeros"
    );
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "others are merged or known: {now}");
    let items = KsmStat::read("self")?.rmap_items;
    ensure!(items == 0, "{items} items are kept");
    region.verify(&content)?;

    step("a write parts a zero page, and the next scan merges it again");
    region.page_mut(3)[9] = 1;
    ensure!(zero_pages()? == PAGES / 3 - 1, "not parted");
    region.page_mut(3)[9] = 0;
    ksm::write("sleep_millisecs", 0)?;
    scanner.scans(1)?;
    ensure!(zero_pages()? == PAGES / 3, "not merged again");
    ksm::set_run(Run::Unmerge)?;
    ensure!(zero_pages()? == 0, "not unmerged");
    region.verify(&content)
}

fn switched(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = third_zeros(2, 30);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    let merged = Counters::stable(21, 39, 0);
    scanner.expect(merged)?;
    step("everything is merged, zeros as others");
    ksm::write_own("only_zero_pages", 1)?;
    let more = third_zeros(3, 30);
    let (third, fourth) = (Region::mergeable(&more)?, Region::mergeable(&more)?);
    scanner.scans(3)?;
    let now = ksm::counters_at_rest()?;
    ensure!(now == merged, "what was merged has changed: {now}");
    ensure!(zero_pages()? == 20, "{} zero pages", zero_pages()?);
    step("switched off, the others merge, too");
    ksm::write_own("only_zero_pages", 0)?;
    scanner.expect(Counters::stable(21 + 20, 39 + 20, 0))?;
    ensure!(zero_pages()? == 20, "{} zero pages", zero_pages()?);
    for (region, content) in [
        (&left, &content),
        (&right, &content),
        (&third, &more),
        (&fourth, &more),
    ] {
        region.verify(content)?;
    }
    Ok(())
}

fn in_huge_pages(_: &Options) -> Result<()> {
    let scanner = huge::prepare()?;
    ksm::write_own("only_zero_pages", 1)?;
    let unique = pattern::pages(4, HUGE_PAGES);
    let whole = huge::huge(&unique)?;
    let third = third_zeros(5, HUGE_PAGES);
    let part = huge::huge(&third)?;
    let zeros = HUGE_PAGES.div_ceil(3);
    ksm::write_own("huge_page_min_equal", zeros + 1)?;
    whole.advise_mergeable()?;
    part.advise_mergeable()?;
    scanner.scans(2)?;
    ensure!(
        count_huge(&part)? == 1 && zero_pages()? == 0,
        "split for too few"
    );
    ksm::write_own("huge_page_min_equal", zeros)?;
    let splits = procfs::vmstat("thp_split_page")?;
    scanner.scans(1)?;
    ensure!(
        count_huge(&part)? == 0 && zero_pages()? == zeros,
        "{} of {zeros} zero pages",
        zero_pages()?
    );
    let splits = procfs::vmstat("thp_split_page")? - splits;
    ensure!(splits == 1 && count_huge(&whole)? == 1, "{splits} splits");
    let items = KsmStat::read("self")?.rmap_items;
    ensure!(items == 0, "{items} items are kept");
    whole.verify(&unique)?;
    part.verify(&third)
}
