// SPDX-License-Identifier: GPL-2.0

//! Huge pages in advised memory.

use std::path::Path;

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    pattern,
    peer::Peer,
    procfs,
    region::{Region, HUGE_PAGES},
    wait, PAGE_SIZE,
};

use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_shared, step},
};

/// With less than 512 MiB the kernel turns huge pages off.
pub const ENOUGH: &str = "768M";

pub const CASES: &[Case] = &[
    Case::new(
        "thp-merge",
        "pages of two huge pages merge after these are split",
        two,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-inside",
        "equal pages within one huge page merge",
        inside,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-alone",
        "a huge page of which nothing has an equal stays whole",
        alone,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-changed",
        "huge pages that held zeros, like a KSM page, and were then rewritten stay whole",
        changed,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-unmerge",
        "unmerged memory can become huge again, and merge again",
        again,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-fork",
        "huge pages that a fork shares, with writes on both sides",
        fork,
    )
    .on("x86")
    .memory(ENOUGH),
];

pub fn prepare() -> Result<Scanner> {
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        return Err(Skip("this kernel has no transparent huge pages".into()).into());
    }
    Scanner::start()
}

/// A region of huge pages that hold `content`.
pub fn huge(content: &[u8]) -> Result<Region> {
    let region = Region::huge(content)?;
    ensure!(
        count_huge(&region)? == region.pages() / HUGE_PAGES,
        "not all of it is huge"
    );
    Ok(region)
}

/// The number of huge pages that `region` has.
pub fn count_huge(region: &Region) -> Result<usize> {
    let kib = procfs::smaps_kib(region, "AnonHugePages")?;
    Ok(usize::try_from(kib)? * 1024 / (HUGE_PAGES * PAGE_SIZE))
}

fn two(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let content = pattern::pages(1, HUGE_PAGES);
    let left = huge(&content)?;
    let right = huge(&content)?;
    let splits = procfs::vmstat("thp_split_page")?;
    left.advise_mergeable()?;
    right.advise_mergeable()?;
    scanner.expect(Counters::stable(512, 512, 0))?;
    let splits = procfs::vmstat("thp_split_page")? - splits;
    step(format!("{splits} huge pages were split"));
    ensure!(splits >= 2, "merged without a split");
    ensure_shared(&left, &right)?;
    left.verify(&content)?;
    right.verify(&content)?;
    step("a third one, beside small pages of the same content");
    let third = huge(&content)?;
    third.advise_mergeable()?;
    scanner.expect(Counters::stable(512, 1024, 0))?;
    third.verify(&content)
}

fn inside(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    // Eight contents, each 64 times.
    let content = pattern::pages(2, 8).repeat(64);
    let region = huge(&content)?;
    region.advise_mergeable()?;
    scanner.expect(Counters::stable(8, 504, 0))?;
    region.verify(&content)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    region.verify(&content)
}

fn alone(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let content = pattern::pages(3, HUGE_PAGES);
    let region = huge(&content)?;
    region.advise_mergeable()?;
    scanner.expect(Counters::stable(0, 0, 512))?;
    let kib = procfs::smaps_kib(&region, "AnonHugePages")?;
    ensure!(kib == 2048, "it was split for nothing: {kib} kB are huge");
    step("one equal page is enough to split it");
    let one = Region::mergeable(&content[..PAGE_SIZE])?;
    scanner.expect(Counters::stable(1, 1, 511))?;
    region.verify(&content)?;
    one.verify(&content[..PAGE_SIZE])
}

fn changed(_: &Options) -> Result<()> {
    const HUGE: usize = 8;
    let scanner = prepare()?;
    let zeros = Region::mergeable(&[0; 2 * PAGE_SIZE])?;
    scanner.expect(Counters::stable(1, 1, 0))?;
    scanner.scan_on_demand()?;
    step(format!(
        "a KSM page of zeros exists; {HUGE} huge pages of zeros are scanned once"
    ));
    let mut region = huge(&vec![0; HUGE * HUGE_PAGES * PAGE_SIZE])?;
    region.advise_mergeable()?;
    scanner.scan_once()?;
    step("rewritten, they have no equal any more");
    let content = pattern::pages(6, HUGE * HUGE_PAGES);
    region.bytes_mut().copy_from_slice(&content);
    let splits = procfs::vmstat("thp_split_page")?;
    for _ in 0..3 {
        scanner.scan_once()?;
    }
    let splits = procfs::vmstat("thp_split_page")? - splits;
    let kib = procfs::smaps_kib(&region, "AnonHugePages")?;
    ensure!(
        splits == 0 && kib == (region.len() / 1024) as i64,
        "{splits} of {HUGE} huge pages were split without an equal: {kib} kB are huge"
    );
    region.verify(&content)?;
    zeros.verify(&[0; 2 * PAGE_SIZE])
}

fn again(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let content = pattern::pages(4, HUGE_PAGES);
    let left = huge(&content)?;
    let right = huge(&content)?;
    left.advise_mergeable()?;
    right.advise_mergeable()?;
    for _ in 0..3 {
        scanner.expect(Counters::stable(512, 512, 0))?;
        ksm::set_run(Run::Unmerge)?;
        left.verify(&content)?;
        left.advise_raw(libc::MADV_COLLAPSE)?;
        let kib = procfs::smaps_kib(&left, "AnonHugePages")?;
        step(format!("collapsed: {kib} kB are huge"));
        ensure!(kib == 2048, "it did not collapse");
        left.verify(&content)?;
        right.verify(&content)?;
        ksm::set_run(Run::Merge)?;
    }
    step("merged pages do not collapse, or only by getting copies");
    scanner.expect(Counters::stable(512, 512, 0))?;
    // Refused by mainline, as a huge page would undo the merge.
    let _ = left.advise_raw(libc::MADV_COLLAPSE);
    left.verify(&content)?;
    right.verify(&content)?;
    scanner.expect(Counters::stable(512, 512, 0))
}

fn fork(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let mut content = pattern::pages(5, HUGE_PAGES);
    let mut region = huge(&content)?;
    region.advise_mergeable()?;
    let other = huge(&content)?;
    let mut child = Peer::fork(|link| {
        let mut expected = content.clone();
        link.step()?;
        for round in 0..3 {
            link.await_step()?;
            for page in (round..HUGE_PAGES).step_by(7) {
                region.page_mut(page)[11] ^= 3;
                expected[page * PAGE_SIZE + 11] ^= 3;
            }
            region.verify(&expected)?;
            other.verify(&content)?;
            link.step()?;
        }
        Ok(())
    })?;
    child.await_step()?;
    other.advise_mergeable()?;
    wait::until("merged pages", || {
        Ok((ksm::counters()?.sharing > 0).then_some(()))
    })?;
    for round in 0..3 {
        scanner.scans(3)?;
        child.round()?;
        for page in (round..HUGE_PAGES).step_by(5) {
            region.page_mut(page)[12] ^= 9;
            content[page * PAGE_SIZE + 12] ^= 9;
        }
        region.verify(&content)?;
    }
    child.join()?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    region.verify(&content)
}
