// SPDX-License-Identifier: GPL-2.0

//! When a huge page is split: `huge_page_min_equal`, and what a split does with zeros.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Counters, Run, Scanner},
    pattern,
    peer::Peer,
    procfs,
    region::{Region, HUGE_PAGES},
    wait, PAGE_SIZE,
};

use super::huge::{count_huge, huge, prepare, ENOUGH};
use crate::{
    case::{Case, Options},
    helpers::{splice_part, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "thp-few-equal",
        "huge pages with fewer equal pages than huge_page_min_equal stay whole, others merge",
        few_equal,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-few-equal-defaults",
        "the same with smart_scan and a step of 100 pages",
        few_equal_defaults,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-just-enough",
        "huge pages with as many equal pages as huge_page_min_equal merge with one another",
        just_enough,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-small-equals",
        "small pages of many processes can make a huge page worth a split",
        small_equals,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-equals-change",
        "pages that are not equal any more do not count",
        equals_change,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-collapsed-stays",
        "a range that was collapsed is not split again for fewer equal pages",
        collapsed_stays,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-khugepaged",
        "khugepaged collapses what was unmerged, and the scan leaves it so",
        khugepaged,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-collapse-merged",
        "MADV_COLLAPSE of ranges with KSM pages keeps every byte, and they merge again",
        collapse_merged,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-zeros",
        "huge pages of zeros become KSM pages, and no zero page behind KSM's back",
        zeros,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-zero-pages",
        "with use_zero_pages huge pages of zeros become zero pages that are counted",
        zero_pages,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-zero-pages-forked",
        "a huge page of zeros that a fork shares becomes zero pages in both processes",
        zero_pages_forked,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-zero-pages-pinned",
        "a huge page of zeros stays while somebody uses it, and one that is written is no loss",
        zero_pages_pinned,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-zero-pages-in-place",
        "a huge page of zeros that cannot be replaced is never missing from its page table",
        zero_pages_in_place,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "thp-zero-pages-few",
        "pages of zeros count like other equal pages",
        few_zeros,
    )
    .on("x86")
    .memory(ENOUGH),
];

fn set_min_equal(pages: usize) -> Result<()> {
    ksm::write_own("huge_page_min_equal", pages)
}

/// `count` huge pages of unique data that begin with `equal` pages of `shared`, in places that differ from one
/// huge page to the next.
fn with_equal_pages(seed: u64, count: usize, shared: &[u8]) -> Vec<u8> {
    let mut content = pattern::pages(seed, count * HUGE_PAGES);
    let equal = shared.len() / PAGE_SIZE;
    for (number, huge) in content.chunks_mut(HUGE_PAGES * PAGE_SIZE).enumerate() {
        for page in 0..equal {
            let place = (page * (HUGE_PAGES / equal) + 37 * number) % HUGE_PAGES * PAGE_SIZE;
            huge[place..place + PAGE_SIZE]
                .copy_from_slice(&shared[page * PAGE_SIZE..(page + 1) * PAGE_SIZE]);
        }
    }
    content
}

fn few_equal(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let is_in_sync = ksm::is_in_sync()?;
    stay_whole_if_few(&scanner, || {
        if is_in_sync {
            // A split makes new pages of all, and what waits looks for its equals in one scan of eight.
            scanner.scans(18)?;
        }
        scanner.settle()
    })
}

fn few_equal_defaults(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    ksm::write("smart_scan", 1)?;
    ksm::write("pages_to_scan", 100)?;
    stay_whole_if_few(&scanner, || {
        // A page that finds no equal for long is looked at in one scan of nine.
        scanner.scans(40)?;
        ksm::counters_at_rest()
    })
}

fn stay_whole_if_few(scanner: &Scanner, scan: impl Fn() -> Result<Counters>) -> Result<()> {
    const SPARSE: usize = 4;
    set_min_equal(64)?;
    let sparse = with_equal_pages(1, SPARSE, &pattern::pages(2, 10));
    let sparse_region = huge(&sparse)?;
    sparse_region.advise_mergeable()?;
    let equal = pattern::pages(3, HUGE_PAGES);
    let twins = [huge(&equal)?, huge(&equal)?];
    for twin in &twins {
        twin.advise_mergeable()?;
    }
    let now = scan()?;
    step(format!("{now}"));
    ensure!(
        count_huge(&sparse_region)? == SPARSE,
        "split for ten equal pages"
    );
    let merged = HUGE_PAGES as u64;
    ensure!(
        (now.shared, now.sharing) == (merged, merged),
        "huge pages of equal pages are not merged"
    );
    sparse_region.verify(&sparse)?;
    for twin in &twins {
        twin.verify(&equal)?;
    }

    step("with huge_page_min_equal 10 the others are worth it");
    set_min_equal(10)?;
    let now = scan()?;
    ensure!(
        now.sharing == merged + 10 * (SPARSE as u64 - 1),
        "not all equal pages are merged: {now}"
    );
    sparse_region.verify(&sparse)?;
    scanner.scans(2)
}

fn just_enough(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let shared = pattern::pages(4, 64);
    for (min_equal, merged) in [(65, 0), (64, 64)] {
        set_min_equal(min_equal)?;
        let contents = [
            with_equal_pages(5, 1, &shared),
            with_equal_pages(6, 1, &shared),
        ];
        let regions = [huge(&contents[0])?, huge(&contents[1])?];
        for region in &regions {
            region.advise_mergeable()?;
        }
        let now = scanner.settle()?;
        step(format!("huge_page_min_equal {min_equal}: {now}"));
        ensure!(now.sharing == merged, "not {merged}");
        for (region, content) in regions.iter().zip(&contents) {
            ensure!((count_huge(region)? == 1) == (merged == 0), "split or not");
            region.verify(content)?;
        }
        drop(regions);
        scanner.expect(Counters::ZERO)?;
    }
    Ok(())
}

fn small_equals(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    set_min_equal(32)?;
    let content = pattern::pages(7, HUGE_PAGES);
    let region = huge(&content)?;
    region.advise_mergeable()?;
    let mut small = Vec::new();
    for (begin, whole) in [(0, true), (10, true), (20, true), (30, false)] {
        small.push(Region::mergeable(
            &content[begin * PAGE_SIZE..(begin + 10) * PAGE_SIZE],
        )?);
        scanner.settle()?;
        let equal = small.len() * 10;
        step(format!("{equal} pages have equals"));
        ensure!((count_huge(&region)? == 1) == whole, "split or not");
    }
    scanner.expect(Counters::stable(40, 40, (HUGE_PAGES - 40) as u64))?;
    region.verify(&content)
}

fn equals_change(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    set_min_equal(32)?;
    let content = pattern::pages(8, HUGE_PAGES);
    let region = huge(&content)?;
    region.advise_mergeable()?;
    for round in 0..4 {
        // Never more than 20 at a time, but 80 in all.
        let pages = round * 20 * PAGE_SIZE..(round + 1) * 20 * PAGE_SIZE;
        let few = Region::mergeable(&content[pages])?;
        scanner.settle()?;
        drop(few);
        // Some searches in vain, and each page searches once in eight scans.
        scanner.scans(40)?;
    }
    ensure!(count_huge(&region)? == 1, "split for pages that are gone");
    region.verify(&content)
}

/// A huge page that the scan has split, with the default, for the pages of `shared` in it; and these.
fn split_by_default(scanner: &Scanner, content: &[u8], shared: &[u8]) -> Result<(Region, Region)> {
    let region = huge(content)?;
    region.advise_mergeable()?;
    let small = Region::mergeable(shared)?;
    scanner.settle()?;
    ensure!(count_huge(&region)? == 0, "not split with the default");
    Ok((region, small))
}

fn collapsed_stays(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let shared = pattern::pages(9, 16);
    let content = with_equal_pages(10, 1, &shared);
    let (region, small) = split_by_default(&scanner, &content, &shared)?;
    set_min_equal(64)?;
    ksm::set_run(Run::Unmerge)?;
    region.advise_raw(libc::MADV_COLLAPSE)?;
    ensure!(count_huge(&region)? == 1, "not collapsed");
    ksm::set_run(Run::Merge)?;
    let now = scanner.settle()?;
    scanner.scans(20)?;
    ensure!(count_huge(&region)? == 1, "split again: {now}");
    region.verify(&content)?;
    small.verify(&shared)
}

/// Lets khugepaged work without pauses as long as this lives.
struct BusyKhugepaged(Vec<(PathBuf, String)>);

impl BusyKhugepaged {
    const DIRECTORY: &'static str = "/sys/kernel/mm/transparent_hugepage/khugepaged";

    fn new() -> Result<Self> {
        let mut before = Self(Vec::new());
        for (name, value) in [
            ("scan_sleep_millisecs", 10),
            ("alloc_sleep_millisecs", 10),
            ("pages_to_scan", 100_000),
        ] {
            let file = Path::new(Self::DIRECTORY).join(name);
            before.0.push((file.clone(), control_file::read(&file)?));
            control_file::write(file, value)?;
        }
        Ok(before)
    }
}

impl Drop for BusyKhugepaged {
    fn drop(&mut self) {
        for (file, value) in &self.0 {
            // If this fails, later cases meet a khugepaged that is faster than usual.
            let _ = control_file::write(file, value);
        }
    }
}

fn khugepaged(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let shared = pattern::pages(14, 16);
    let content = with_equal_pages(15, 1, &shared);
    let (region, small) = split_by_default(&scanner, &content, &shared)?;
    let _khugepaged = BusyKhugepaged::new()?;
    set_min_equal(64)?;
    ksm::set_run(Run::Unmerge)?;
    wait::until("khugepaged", || {
        Ok((count_huge(&region)? == 1).then_some(()))
    })?;
    step("unmerged and collapsed");
    region.verify(&content)?;
    ksm::set_run(Run::Merge)?;
    let splits = procfs::vmstat("thp_split_page")?;
    scanner.settle()?;
    scanner.scans(20)?;
    let splits = procfs::vmstat("thp_split_page")? - splits;
    ensure!(
        splits == 0 && count_huge(&region)? == 1,
        "split {splits} times again"
    );
    region.verify(&content)?;
    small.verify(&shared)
}

fn collapse_merged(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let content = pattern::pages(11, HUGE_PAGES);
    for merged in [1, 17, HUGE_PAGES] {
        let region = huge(&content)?;
        let pages = &content[..merged * PAGE_SIZE];
        let mut other = Peer::fork(|link| {
            let other = Region::mergeable(pages)?;
            link.step()?;
            link.await_step()?;
            other.verify(pages)?;
            link.step()
        })?;
        other.await_step()?;
        region.advise_mergeable()?;
        scanner.expect(Counters::stable(
            merged as u64,
            merged as u64,
            (HUGE_PAGES - merged) as u64,
        ))?;
        // The scanner holds pages for a moment, and a reference keeps a range from being collapsed.
        ksm::set_run(Run::Stop)?;
        region.advise_raw(libc::MADV_COLLAPSE)?;
        ensure!(count_huge(&region)? == 1, "not collapsed");
        region.verify(&content)?;
        ksm::set_run(Run::Merge)?;
        scanner.expect(Counters::stable(
            merged as u64,
            merged as u64,
            (HUGE_PAGES - merged) as u64,
        ))?;
        other.round()?;
        other.join()?;
        drop(region);
        scanner.expect_after_exit(Counters::ZERO)?;
    }
    Ok(())
}

const ZERO_HUGE_PAGES: usize = 4;
const ZEROS: usize = ZERO_HUGE_PAGES * HUGE_PAGES;

fn zeros(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    let content = vec![0; ZEROS * PAGE_SIZE];
    let region = huge(&content)?;
    region.advise_mergeable()?;
    let now = scanner.settle()?;
    step(format!("{now}"));
    ensure!(
        now.shared + now.sharing == ZEROS as u64 && now.shared == (ZEROS / 256) as u64,
        "not all pages of zeros are KSM pages"
    );
    expect_zero_pages(0)?;
    let kib = procfs::smaps_kib(&region, "Rss")?;
    ensure!(kib == (ZEROS * 4) as i64, "{kib} kB are mapped");
    region.verify(&content)
}

fn zero_pages(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    ksm::write("use_zero_pages", 1)?;
    let content = vec![0; ZEROS * PAGE_SIZE];
    let mut region = huge(&content)?;
    let splits = procfs::vmstat("thp_split_page")?;
    region.advise_mergeable()?;
    scanner.settle()?;
    expect_zero_pages(ZEROS)?;
    let splits = procfs::vmstat("thp_split_page")? - splits;
    let kib = procfs::smaps_kib(&region, "Rss")?;
    ensure!(
        splits == 0 && kib == 0 && count_huge(&region)? == 0,
        "{splits} splits, {kib} kB are left"
    );
    region.verify(&content)?;
    region.page_mut(700)[1] = 1;
    expect_zero_pages(ZEROS - 1)?;
    ksm::set_run(Run::Unmerge)?;
    expect_zero_pages(0)?;
    region.page_mut(700)[1] = 0;
    region.verify(&content)
}

fn expect_zero_pages(expected: usize) -> Result<()> {
    let zero_pages: usize = ksm::read("ksm_zero_pages")?;
    ensure!(
        zero_pages == expected,
        "{zero_pages} zero pages, not {expected}"
    );
    Ok(())
}

fn zero_pages_forked(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    ksm::write("use_zero_pages", 1)?;
    let mut content = vec![0; HUGE_PAGES * PAGE_SIZE];
    let mut region = huge(&content)?;
    let mut child = Peer::fork(|link| {
        let mut expected = content.clone();
        region.advise_mergeable()?;
        link.step()?;
        link.await_step()?;
        region.verify(&expected)?;
        region.page_mut(9)[8] = 7;
        expected[9 * PAGE_SIZE + 8] = 7;
        link.step()?;
        link.await_step()?;
        region.verify(&expected)?;
        link.step()
    })?;
    child.await_step()?;
    scanner.settle()?;
    step("the child alone has advised it");
    expect_zero_pages(HUGE_PAGES)?;
    ensure!(count_huge(&region)? == 1, "the parent's is not whole");
    child.round()?;
    expect_zero_pages(HUGE_PAGES - 1)?;
    region.verify(&content)?;
    region.advise_mergeable()?;
    scanner.settle()?;
    step("now the parent, too");
    expect_zero_pages(2 * HUGE_PAGES - 1)?;
    child.round()?;
    region.page_mut(511)[1] = 1;
    content[511 * PAGE_SIZE + 1] = 1;
    region.verify(&content)?;
    child.join()?;
    wait::until("the child's zero pages to go", || {
        Ok(expect_zero_pages(HUGE_PAGES - 1).ok())
    })
}

fn zero_pages_pinned(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    ksm::write("use_zero_pages", 1)?;
    let mut content = vec![0; HUGE_PAGES * PAGE_SIZE];
    let mut region = huge(&content)?;
    let pipe = splice_part(&region.bytes()[..PAGE_SIZE])?;
    region.advise_mergeable()?;
    scanner.settle()?;
    expect_zero_pages(0)?;
    ensure!(count_huge(&region)? == 1, "split while it is used");
    // In the middle of a page's turn, two pages that could not become zero pages would become a KSM page.
    ksm::set_run(Run::Stop)?;
    drop(pipe);
    ksm::set_run(Run::Merge)?;
    scanner.settle()?;
    step("given back by the pipe, it becomes zero pages");
    expect_zero_pages(HUGE_PAGES)?;
    region.page_mut(3)[0] = 1;
    content[3 * PAGE_SIZE] = 1;
    region.verify(&content)?;
    drop(region);
    step("one in which the last byte of all is none");
    content.fill(0);
    content[HUGE_PAGES * PAGE_SIZE - 1] = 1;
    let almost = huge(&content)?;
    almost.advise_mergeable()?;
    scanner.settle()?;
    expect_zero_pages(HUGE_PAGES - 1)?;
    almost.verify(&content)
}

/// How many full scans the case watches an entry of a page table for.
const SCANS_IN_PLACE: u64 = 300;

/// How many times it looks there before it counts scans again.
const LOOKS_AT_ONCE: u64 = 1_000;

/// `MADV_DONTNEED` and page faults look at an entry of a page table before they lock it. If one is empty for
/// a moment, the memory behind it is not discarded. `mincore` looks in the same way, and shows it.
fn zero_pages_in_place(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    ksm::write("use_zero_pages", 1)?;
    let region = huge(&vec![0; HUGE_PAGES * PAGE_SIZE])?;
    let _pipe = splice_part(&region.bytes()[..PAGE_SIZE])?;
    region.advise_mergeable()?;
    let (mut looks, mut missing) = (0, 0);
    let until = ksm::full_scans()? + SCANS_IN_PLACE;
    while ksm::full_scans()? < until {
        for _ in 0..LOOKS_AT_ONCE {
            looks += 1;
            missing += u64::from(!region.is_resident(0)?);
        }
    }
    step(format!("{missing} of {looks} looks found nothing there"));
    ensure!(missing == 0, "{missing} of {looks} looks found nothing");
    expect_zero_pages(0)?;
    scanner.settle().map(drop)
}

fn few_zeros(_: &Options) -> Result<()> {
    let scanner = prepare()?;
    ksm::write("use_zero_pages", 1)?;
    set_min_equal(16)?;
    let content = with_equal_pages(12, 1, &[0; 8 * PAGE_SIZE]);
    let few = huge(&content)?;
    few.advise_mergeable()?;
    let enough = with_equal_pages(13, 1, &[0; 16 * PAGE_SIZE]);
    let more = huge(&enough)?;
    more.advise_mergeable()?;
    scanner.settle()?;
    ensure!(count_huge(&few)? == 1, "split for eight pages of zeros");
    ensure!(count_huge(&more)? == 0, "not split for sixteen");
    expect_zero_pages(16)?;
    few.verify(&content)?;
    more.verify(&enough)
}
