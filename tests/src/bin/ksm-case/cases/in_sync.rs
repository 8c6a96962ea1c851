// SPDX-License-Identifier: GPL-2.0

//! `in_sync=1`: what is known of pages goes when these go, not when the scan comes by.

use std::{thread, time::Duration};

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    pattern,
    peer::Peer,
    procfs::KsmStat,
    region::Region,
    PAGE_SIZE,
};
use nix::sys::mman::ProtFlags;

use crate::{
    case::{Case, Options, Skip},
    helpers::{holders, join_all, step, verify_all},
};

/// The lanes, with what the module is loaded with.
const LANES: &str = "um:parameters=in_sync=1,x86:parameters=in_sync=1";

pub const CASES: &[Case] = &[
    Case::new(
        "in-sync-gone",
        "records of pages that wait go with the pages, while the scanner rests",
        gone,
    )
    .on(LANES),
    Case::new(
        "in-sync-stays",
        "records stay when pages do: over mprotect, scans, merges, and changes beside them",
        stays,
    )
    .on(LANES),
    Case::new(
        "in-sync-merged",
        "what is known of merged pages goes in the next step of the scan, wherever that goes on",
        merged,
    )
    .on(LANES),
    Case::new(
        "in-sync-busy",
        "no byte and no record is lost while pages go beside a busy scan",
        busy,
    )
    .on(LANES),
    Case::new(
        "in-sync-wide",
        "a range of many pages goes in parts, and all of it does",
        wide,
    )
    .on(LANES),
    Case::new(
        "in-sync-untold",
        "records that go untold, as advice is taken back, do not mislead what is told between two steps",
        untold,
    )
    .on(LANES),
    Case::new(
        "in-sync-steps",
        "records of pages that a step has met stay when others go between two steps",
        steps,
    )
    .on(LANES),
];

const PAGES: usize = 64;

fn start() -> Result<Scanner> {
    let scanner = Scanner::start()?;
    if !ksm::is_in_sync()? {
        return Err(Skip("the module was not loaded with in_sync=1".into()).into());
    }
    Ok(scanner)
}

fn items() -> Result<i64> {
    Ok(KsmStat::read("self")?.rmap_items)
}

/// A region whose pages the scan knows; the scanner rests then.
fn known(scanner: &Scanner, seed: u64, pages: usize) -> Result<Region> {
    ksm::set_run(Run::Merge)?;
    let before = items()?;
    let region = Region::mergeable(&pattern::pages(seed, pages))?;
    scanner.settle()?;
    ksm::set_run(Run::Stop)?;
    let known = items()? - before;
    ensure!(known == pages as i64, "{known} of {pages} pages are known");
    Ok(region)
}

/// Fails unless `change` takes so many records away.
fn ensure_takes(pages: usize, what: &str, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let (before, unshared) = (items()?, ksm::counters()?.unshared);
    change()?;
    let taken = before - items()?;
    let waited = unshared - ksm::counters()?.unshared;
    step(format!(
        "{what}: {taken} records, {waited} pages that waited"
    ));
    ensure!(taken == pages as i64, "not {pages}");
    ensure!(waited == pages as u64, "not {pages} pages that waited");
    Ok(())
}

fn gone(_: &Options) -> Result<()> {
    let scanner = start()?;
    let region = known(&scanner, 1, PAGES)?;
    ensure_takes(PAGES, "munmap", || {
        drop(region);
        Ok(())
    })?;
    let mut region = known(&scanner, 2, PAGES)?;
    ensure_takes(PAGES, "MADV_DONTNEED", || region.discard())?;
    drop(region);
    let mut region = known(&scanner, 3, PAGES)?;
    ensure_takes(PAGES, "mremap", || region.relocate())?;
    region.verify(&pattern::pages(3, PAGES))?;
    drop(region);
    let mut region = known(&scanner, 4, PAGES)?;
    let mut middle = region.split_off(PAGES / 4)?;
    let last = middle.split_off(PAGES / 2)?;
    ensure_takes(PAGES / 2, "munmap in the middle", || {
        drop(middle);
        Ok(())
    })?;
    let content = pattern::pages(4, PAGES);
    region.verify(&content[..PAGES / 4 * PAGE_SIZE])?;
    last.verify(&content[3 * PAGES / 4 * PAGE_SIZE..])?;
    ensure_takes(PAGES / 4, "munmap of the last part", || {
        drop(last);
        Ok(())
    })
}

fn stays(_: &Options) -> Result<()> {
    let scanner = start()?;
    // Before there is memory that they would inherit.
    let content = pattern::pages(7, PAGES);
    let mut peers = holders(2, &content, 1)?;
    let mut region = known(&scanner, 5, PAGES)?;
    ensure_takes(0, "mprotect", || {
        region.protected(ProtFlags::PROT_READ, || Ok(()))
    })?;
    ensure_takes(0, "reading", || region.verify(&pattern::pages(5, PAGES)))?;
    let neighbour = Region::with_content(&pattern::pages(6, PAGES))?;
    ensure_takes(0, "munmap of other memory", || {
        drop(neighbour);
        Ok(())
    })?;

    step("nothing is forgotten when others merge, or by scans");
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(64, 64, 64))?;
    scanner.scans(5)?;
    scanner.expect(Counters::stable(64, 64, 64))?;
    verify_all(&mut peers)?;
    join_all(peers)
}

fn merged(_: &Options) -> Result<()> {
    let scanner = start()?;
    let content = pattern::pages(8, PAGES);
    let mut peers = holders(2, &content, 3)?;
    let mut region = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 2 * 64, 0))?;
    step("writes");
    for page in 0..PAGES / 2 {
        region.page_mut(page)[0] ^= 0xff;
    }
    scanner.expect(Counters::stable(64, 2 * 64 - 32, 32))?;
    step("munmap");
    drop(region);
    scanner.expect(Counters::stable(64, 64, 0))?;
    verify_all(&mut peers)?;
    step("the end of a process");
    peers.pop().map(Peer::kill).transpose()?;
    scanner.expect_after_exit(Counters::stable(64, 0, 0))?;
    verify_all(&mut peers)?;
    peers.into_iter().try_for_each(Peer::kill)
}

fn busy(_: &Options) -> Result<()> {
    let scanner = start()?;
    ksm::write("sleep_millisecs", 0)?;
    let before = items()?;
    let kept = Region::mergeable(&pattern::pages(12, PAGES))?;
    for round in 0..200 {
        let content = pattern::pages(9 + round % 2, PAGES);
        let mut region = Region::mergeable(&content)?;
        thread::sleep(Duration::from_micros(200 * (round % 16)));
        region.verify(&content)?;
        match round % 4 {
            0 => region.discard()?,
            1 => region.relocate()?,
            2 => drop(region.split_off(PAGES / 3)?),
            _ => {}
        }
    }
    kept.verify(&pattern::pages(12, PAGES))?;
    scanner.settle()?;
    ensure!(
        items()? - before == PAGES as i64,
        "{} records of {PAGES} pages",
        items()? - before
    );
    scanner.expect(Counters::stable(0, 0, PAGES as u64))
}

/// More pages than are looked at under somebody else's locks.
fn wide(_: &Options) -> Result<()> {
    const MANY: usize = 8192;
    let scanner = start()?;
    let before = items()?;
    let region = known(&scanner, 11, MANY)?;
    step("munmap");
    drop(region);
    step(format!("{} records are left at once", items()? - before));
    ksm::set_run(Run::Merge)?;
    scanner.scans(1)?;
    ensure!(items()? == before, "{} records", items()? - before);
    Ok(())
}

/// The first step that comes to an advised page frees the records before it, by which the way to others was known.
fn untold(_: &Options) -> Result<()> {
    // Not a whole huge page: where a vma with one is split, the kernel tells of all of it.
    const MANY: usize = 448;
    const ADVISED: usize = 64;
    let scanner = start()?;
    let before = items()?;
    let mut region = known(&scanner, 13, MANY)?;
    scanner.scan_on_demand()?;
    let mut tail = region.split_off(MANY - ADVISED)?;
    region.advise_unmergeable()?;
    ksm::write("pages_to_scan", 8)?;
    step("a page goes after each step");
    for page in (1..ADVISED).rev() {
        scanner.take_step()?;
        let last = tail.split_off(page)?;
        let known = items()?;
        drop(last);
        let left = items()?;
        ensure!(
            left == known - 1,
            "{left} records of {known} are left without page {page}"
        );
    }
    let known = items()? - before;
    ensure!(known == 1, "{known} records of one page");
    let content = pattern::pages(13, MANY);
    let (untold, told) = content.split_at((MANY - ADVISED) * PAGE_SIZE);
    region.verify(untold)?;
    tail.verify(&told[..PAGE_SIZE])
}

fn steps(_: &Options) -> Result<()> {
    const MANY: usize = 256;
    let scanner = start()?;
    let before = items()?;
    let mut region = known(&scanner, 14, MANY)?;
    scanner.scan_on_demand()?;
    ksm::write("pages_to_scan", 8)?;
    for left in (MANY / 2..MANY).rev() {
        scanner.take_step()?;
        drop(region.split_off(left)?);
        let known = items()? - before;
        ensure!(known == left as i64, "{known} records of {left} pages");
    }
    region.verify(&pattern::pages(14, MANY)[..MANY / 2 * PAGE_SIZE])
}
