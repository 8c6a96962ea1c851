// SPDX-License-Identifier: GPL-2.0

//! `use_zero_pages`: pages of zeros become the kernel's own page of zeros.

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    pattern,
    peer::Peer,
    procfs::KsmStat,
    region::Region,
    wait, PAGE_SIZE,
};

use crate::{
    case::{Case, Options},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "zero-pages",
        "pages of zeros become the zero page, are counted apart, and break on write",
        merge_and_write,
    ),
    Case::new(
        "zero-pages-unmerge",
        "MADV_UNMERGEABLE and run=2 give every zero page a frame again",
        unmerge,
    ),
    Case::new(
        "zero-pages-processes",
        "fork, exit, munmap and mremap keep the accounts of zero pages right",
        processes,
    ),
    Case::new(
        "zero-pages-not-inherited",
        "a child counts no zero pages of what it does not inherit",
        not_inherited,
    ),
    Case::new(
        "zero-pages-toggle",
        "turned off, zero pages stay until they are unmerged, and new ones become KSM pages",
        toggle,
    ),
    Case::new(
        "zero-pages-untouched",
        "a page of zeros that nobody wrote to is left alone",
        untouched,
    ),
];

const PAGES: usize = 32;

fn prepare() -> Result<Scanner> {
    let scanner = Scanner::prepare()?;
    ksm::write("use_zero_pages", 1)?;
    ksm::set_run(Run::Merge)?;
    Ok(scanner)
}

/// An advised region whose pages are written to, with zeros.
fn zeros(pages: usize) -> Result<Region> {
    let mut region = Region::mergeable(&pattern::pages(1, pages))?;
    region.bytes_mut().fill(0);
    Ok(region)
}

/// Fails unless that many zero pages exist, of which this process has `own`.
fn expect_zero_pages(all: usize, own: usize) -> Result<()> {
    let found: i64 = ksm::read("ksm_zero_pages")?;
    ensure!(found == all as i64, "ksm_zero_pages is {found}, not {all}");
    let found = KsmStat::read("self")?.zero_pages;
    ensure!(
        found == own as i64,
        "ksm_stat says {found} zero pages, not {own}"
    );
    Ok(())
}

/// Waits until there are no zero pages but `own`, those of this process.
fn await_zero_pages(own: usize) -> Result<()> {
    // Where the scan was just looking at a child, its memory goes a moment after it.
    wait::until("the child's zero pages to go", || {
        Ok(expect_zero_pages(own, own).ok())
    })
}

fn merge_and_write(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let mut region = zeros(PAGES)?;
    step("all of them are zero pages, and none is a KSM page");
    // The scanner forgets pages that have become the zero page, and counts none of them.
    scanner.settle()?;
    let now = ksm::counters()?;
    ensure!(
        (now.shared, now.sharing) == (0, 0),
        "merged otherwise: {now}"
    );
    expect_zero_pages(PAGES, PAGES)?;
    let profit: i64 = ksm::read("general_profit")?;
    ensure!(profit > 0, "general_profit is {profit}");
    ensure!(KsmStat::read("self")?.profit > 0, "no profit in ksm_stat");

    step("a write gets a page of its own, and ends the account of that one");
    region.page_mut(3)[5] = 1;
    expect_zero_pages(PAGES - 1, PAGES - 1)?;
    let mut expected = vec![0; PAGES * PAGE_SIZE];
    expected[3 * PAGE_SIZE + 5] = 1;
    region.verify(&expected)?;

    step("zeroed again, it becomes a zero page again");
    region.page_mut(3)[5] = 0;
    scanner.settle()?;
    expect_zero_pages(PAGES, PAGES)?;
    region.verify(&vec![0; PAGES * PAGE_SIZE])
}

fn unmerge(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let by_madvise = zeros(PAGES)?;
    let by_run = zeros(PAGES)?;
    scanner.settle()?;
    expect_zero_pages(2 * PAGES, 2 * PAGES)?;

    by_madvise.advise_unmergeable()?;
    step("MADV_UNMERGEABLE: half of them are gone from the accounts");
    expect_zero_pages(PAGES, PAGES)?;
    ksm::set_run(Run::Unmerge)?;
    step("run=2: all of them");
    expect_zero_pages(0, 0)?;
    by_madvise.verify(&vec![0; PAGES * PAGE_SIZE])?;
    by_run.verify(&vec![0; PAGES * PAGE_SIZE])
}

fn not_inherited(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let kept = zeros(PAGES)?;
    let (withheld, wiped) = (zeros(PAGES)?, zeros(PAGES)?);
    withheld.advise_raw(libc::MADV_DONTFORK)?;
    wiped.advise_raw(libc::MADV_WIPEONFORK)?;
    scanner.settle()?;
    expect_zero_pages(3 * PAGES, 3 * PAGES)?;
    for _ in 0..3 {
        Peer::fork(|_| expect_zero_pages(4 * PAGES, PAGES))?.join()?;
        await_zero_pages(3 * PAGES)?;
    }
    kept.verify(&vec![0; PAGES * PAGE_SIZE])
}

fn processes(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let mut region = zeros(PAGES)?;
    scanner.settle()?;
    expect_zero_pages(PAGES, PAGES)?;

    step("a child has the same again, and takes it back when it exits");
    let mut child = Peer::fork(|link| {
        expect_zero_pages(2 * PAGES, PAGES)?;
        link.step()?;
        link.await_step()?;
        region.bytes_mut().fill(7);
        expect_zero_pages(PAGES, 0)?;
        link.step()?;
        link.await_step()
    })?;
    child.await_step()?;
    expect_zero_pages(2 * PAGES, PAGES)?;
    child.round()?;
    expect_zero_pages(PAGES, PAGES)?;
    child.step()?;
    child.join()?;
    let child = Peer::fork(|_| expect_zero_pages(2 * PAGES, PAGES))?;
    child.join()?;
    await_zero_pages(PAGES)?;

    step("mremap unmerges what it moves, munmap and MADV_DONTNEED end what they unmap");
    region = zeros(PAGES)?;
    scanner.settle()?;
    let count: usize = ksm::read("ksm_zero_pages")?;
    ensure!(
        count == PAGES,
        "{count} zero pages after the old ones were unmapped"
    );
    ksm::set_run(Run::Stop)?;
    region.relocate()?;
    expect_zero_pages(0, 0)?;
    ksm::set_run(Run::Merge)?;
    scanner.settle()?;
    expect_zero_pages(PAGES, PAGES)?;
    drop(region.split_off(PAGES / 2)?);
    expect_zero_pages(PAGES / 2, PAGES / 2)?;
    region.verify(&vec![0; PAGES / 2 * PAGE_SIZE])?;
    region.discard()?;
    expect_zero_pages(0, 0)
}

fn toggle(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let first = zeros(PAGES)?;
    scanner.settle()?;
    expect_zero_pages(PAGES, PAGES)?;

    ksm::write("use_zero_pages", 0)?;
    let second = zeros(PAGES)?;
    step("turned off: the newcomers share a KSM page");
    scanner.settle()?;
    let now = ksm::counters()?;
    ensure!(
        (now.shared, now.sharing) == (1, PAGES as u64 - 1),
        "unexpected: {now}"
    );
    expect_zero_pages(PAGES, PAGES)?;
    ksm::set_run(Run::Unmerge)?;
    expect_zero_pages(0, 0)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    first.verify(&vec![0; PAGES * PAGE_SIZE])?;
    second.verify(&vec![0; PAGES * PAGE_SIZE])
}

fn untouched(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let region = Region::new(PAGES)?;
    region.advise_mergeable()?;
    step("only read: the kernel's zero page already, and none that KSM placed");
    region.verify(&vec![0; PAGES * PAGE_SIZE])?;
    scanner.settle()?;
    expect_zero_pages(0, 0)?;
    region.advise_unmergeable()?;
    expect_zero_pages(0, 0)
}
