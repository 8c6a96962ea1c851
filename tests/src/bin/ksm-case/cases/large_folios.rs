// SPDX-License-Identifier: GPL-2.0

//! Large folios that are smaller than a huge page, and huge pages that are mapped by small entries.

use anyhow::{ensure, Result};
use ksm_tests::{
    folio_size::{self, HUGE_PAGE_KIB},
    ksm::{self, Counters, Run},
    pagemap, pattern,
    peer::Peer,
    region::{Region, HUGE_PAGES},
    PAGE_SIZE,
};

use super::huge::{self, huge, ENOUGH};
use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_shared, splice, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "large-folios",
        "pages of folios of 16K, 64K and 1M merge, and unique folios stay whole",
        all_sizes,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "large-folios-few-equal",
        "huge_page_min_equal is scaled for folios of 64K",
        few_equal,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "large-folios-in-part",
        "a huge page of which parts are unmapped, protected or moved merges",
        in_part,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "large-folios-forked",
        "large folios that forks share merge, and each process keeps its bytes",
        forked,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "large-folios-pinned",
        "a large folio that somebody else uses merges as soon as that ends",
        pinned,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "large-folios-in-a-batch",
        "equal pages of folios that a scan holds at the same time merge",
        in_a_batch,
    )
    .on("x86")
    .memory(ENOUGH),
];

/// Has memory consist of folios of one size as long as this lives.
struct Folios(usize);

impl Folios {
    /// Folios of `kib` KiB.
    fn of(kib: usize) -> Result<Self> {
        if !folio_size::is_there(kib) {
            return Err(Skip(format!("this kernel has no folios of {kib} KiB")).into());
        }
        folio_size::use_only(kib)?;
        Ok(Self(kib))
    }

    /// A region of such folios that hold `content`.
    fn region(&self, content: &[u8]) -> Result<Region> {
        let before = folio_size::count(self.0)?;
        let region = Region::huge(content)?;
        let folios = folio_size::count(self.0)? - before;
        ensure!(
            folios >= content.len() / 1024 / self.0,
            "only {folios} folios of {} KiB",
            self.0
        );
        Ok(region)
    }
}

impl Drop for Folios {
    fn drop(&mut self) {
        // If this fails, the next case finds no huge pages, and says so.
        let _ = folio_size::use_only(HUGE_PAGE_KIB);
    }
}

fn all_sizes(_: &Options) -> Result<()> {
    let scanner = huge::prepare()?;
    for size in [16, 64, 1024] {
        let folios = Folios::of(size)?;
        let content = pattern::pages(size as u64, HUGE_PAGES);
        let alone = pattern::pages(size as u64 + 1, HUGE_PAGES);
        let (left, right) = (folios.region(&content)?, folios.region(&content)?);
        let unique = folios.region(&alone)?;
        for region in [&left, &right, &unique] {
            region.advise_mergeable()?;
        }
        scanner.expect(Counters::stable(512, 512, 512))?;
        step(format!("{size} KiB: merged"));
        ensure_shared(&left, &right)?;
        let frames = pagemap::frames(&unique)?;
        let runs = frames.chunks(size / 4);
        ensure!(
            runs.into_iter()
                .all(|run| run.windows(2).all(|pair| pair[1] == pair[0] + 1)),
            "unique folios are not whole"
        );
        left.verify(&content)?;
        right.verify(&content)?;
        unique.verify(&alone)?;
        drop((left, right, unique));
        scanner.expect(Counters::ZERO)?;
    }
    Ok(())
}

fn few_equal(_: &Options) -> Result<()> {
    let scanner = huge::prepare()?;
    let folios = Folios::of(64)?;
    // Two pages of sixteen.
    ksm::write_own("huge_page_min_equal", 64)?;
    let content = pattern::pages(21, HUGE_PAGES);
    let mut other = pattern::pages(22, HUGE_PAGES);
    // One equal page in each of the first sixteen folios, two in each of the others.
    for folio in 0..HUGE_PAGES / 16 {
        for page in 0..1 + folio / 16 {
            let place = (folio * 16 + page * 5) * PAGE_SIZE;
            let range = place..place + PAGE_SIZE;
            other[range.clone()].copy_from_slice(&content[range]);
        }
    }
    let (left, right) = (folios.region(&content)?, folios.region(&other)?);
    left.advise_mergeable()?;
    right.advise_mergeable()?;
    let now = scanner.settle()?;
    step(format!("{now}"));
    ensure!((now.shared, now.sharing) == (32, 32), "not 32 pages");
    left.verify(&content)?;
    right.verify(&other)
}

fn in_part(_: &Options) -> Result<()> {
    let scanner = huge::prepare()?;
    let content = pattern::pages(31, HUGE_PAGES);
    let mut first = huge(&content)?;
    let second = huge(&content)?;
    let mut third = first.split_off(300)?;
    drop(first.split_off(200)?);
    third.relocate()?;
    step("200 pages, 100 unmapped, 212 moved; and a whole huge page of the same content");
    for region in [&first, &second, &third] {
        region.advise_mergeable()?;
    }
    scanner.expect(Counters::stable(412, 412, 100))?;
    first.verify(&content[..200 * PAGE_SIZE])?;
    second.verify(&content)?;
    third.verify(&content[300 * PAGE_SIZE..])
}

fn forked(_: &Options) -> Result<()> {
    let scanner = huge::prepare()?;
    let content = pattern::pages(41, HUGE_PAGES);
    let mut region = huge(&content)?;
    region.advise_mergeable()?;
    let mut child = Peer::fork(|link| {
        let mut expected = content.clone();
        link.step()?;
        link.await_step()?;
        for page in (0..HUGE_PAGES).step_by(3) {
            region.page_mut(page)[5] ^= 1;
            expected[page * PAGE_SIZE + 5] ^= 1;
        }
        region.verify(&expected)?;
        link.step()?;
        link.await_step()?;
        region.verify(&expected)?;
        link.step()
    })?;
    child.await_step()?;
    let other = huge(&content)?;
    other.advise_mergeable()?;
    scanner.settle()?;
    let now = ksm::counters_at_rest()?;
    step(format!("a fork and an equal huge page: {now}"));
    ensure!(now.shared == 512, "not all contents are merged");
    child.round()?;
    scanner.scans(4)?;
    child.round()?;
    child.join()?;
    region.verify(&content)?;
    other.verify(&content)?;
    ksm::set_run(Run::Unmerge)?;
    region.verify(&content)
}

fn pinned(_: &Options) -> Result<()> {
    let scanner = huge::prepare()?;
    let content = pattern::pages(51, HUGE_PAGES);
    let mut held = huge(&content)?;
    let other = huge(&content)?;
    let rest = held.split_off(16)?;
    let pipe = splice(&held)?;
    for region in [&held, &rest, &other] {
        region.advise_mergeable()?;
    }
    let now = scanner.settle()?;
    step(format!("16 pages are in a pipe: {now}"));
    ensure!(now.sharing == 0, "a folio that is in use was split");
    drop(pipe);
    scanner.expect(Counters::stable(512, 512, 0))?;
    held.verify(&content[..16 * PAGE_SIZE])?;
    rest.verify(&content[16 * PAGE_SIZE..])?;
    other.verify(&content)
}

fn in_a_batch(_: &Options) -> Result<()> {
    let scanner = huge::prepare()?;
    let folios = Folios::of(16)?;
    // Folios of four pages, of which each has one that the next one has, too.
    let mut content = pattern::pages(61, HUGE_PAGES);
    for folio in 1..HUGE_PAGES / 4 {
        let (from, to) = ((folio * 4 - 4) * PAGE_SIZE, (folio * 4 + 1) * PAGE_SIZE);
        content.copy_within(from..from + PAGE_SIZE, to);
    }
    let region = folios.region(&content)?;
    region.advise_mergeable()?;
    let pairs = (HUGE_PAGES / 4 - 1) as u64;
    scanner.expect(Counters::stable(
        pairs,
        pairs,
        HUGE_PAGES as u64 - 2 * pairs,
    ))?;
    region.verify(&content)
}
