// SPDX-License-Identifier: GPL-2.0

//! `skip_untouched`: pages that nobody has touched are not read, and are found all the same.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{ensure, Result};
use ksm_tests::{
    damon::{self, Damon},
    idle_pages,
    ksm::{self, Counters, Scanner},
    pagemap, pattern,
    region::{Region, HUGE_PAGES},
    tlb, PAGE_SIZE,
};

use crate::{
    case::{Case, Options, Skip},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "untouched-passed",
        "pages that nobody has touched are passed over, those that were are looked at",
        passed,
    ),
    Case::new(
        "untouched-meet",
        "pages that wait untouched merge with equals that come later, with smart_scan and a step of 100 pages too",
        meet,
    ),
    Case::new(
        "untouched-unseen",
        "a page that has changed without a trace in its page table entry merges some scans later",
        unseen,
    ),
    Case::new(
        "untouched-idle",
        "idle page tracking tells the same whether the scan passes over untouched pages or not",
        idle,
    ),
    Case::new(
        "untouched-huge",
        "a huge page that nobody has touched is passed over as a whole",
        huge,
    )
    .on("x86")
    .memory("1G"),
    Case::new(
        "untouched-damon",
        "DAMON tells the same whether the scan passes over untouched pages or not",
        damon,
    )
    .on("x86"),
];

const PAGES: usize = 64;

/// A page that nobody has touched is looked at once in so many scans.
const PERIOD: u64 = 16;

fn start() -> Result<Scanner> {
    let scanner = Scanner::start()?;
    if !ksm::is_ours() {
        return Err(Skip("only ksm_rs passes over untouched pages".into()).into());
    }
    ksm::write_own("skip_untouched", 1)?;
    Ok(scanner)
}

fn scan(scanner: &Scanner, scans: u64) -> Result<()> {
    (0..scans).try_for_each(|_| scanner.scan_once())
}

/// Pages that were passed over in a number of full scans.
fn passed_in(scanner: &Scanner, scans: u64) -> Result<u64> {
    let before: u64 = ksm::read_own("pages_untouched")?;
    scan(scanner, scans)?;
    Ok(ksm::read_own::<u64>("pages_untouched")? - before)
}

fn passed(_: &Options) -> Result<()> {
    let scanner = start()?;
    scanner.scan_on_demand()?;
    let mut region = Region::mergeable(&pattern::pages(1, PAGES))?;
    // It is seen, is known not to change, and its bits are taken.
    scan(&scanner, 3)?;
    let passed = passed_in(&scanner, PERIOD)?;
    let looks = PERIOD * PAGES as u64;
    step(format!("{passed} of {looks} looks were left out"));
    ensure!(
        passed == looks - PAGES as u64,
        "not all but one for each page"
    );

    for page in 0..PAGES / 2 {
        region.page_mut(page)[8] ^= 1;
    }
    let passed = passed_in(&scanner, 1)?;
    ensure!(
        passed <= (PAGES / 2) as u64 && passed > 0,
        "{passed} were passed over, of which {} had changed",
        PAGES / 2
    );
    ensure!(
        ksm::counters()?.volatile >= (PAGES / 2) as u64,
        "no change was seen"
    );
    Ok(())
}

fn meet(_: &Options) -> Result<()> {
    let content = pattern::pages(2, PAGES);
    for smart_scan in [0, 1] {
        let scanner = start()?;
        ksm::write("smart_scan", smart_scan)?;
        ksm::write("pages_to_scan", 100)?;
        step(format!("smart_scan {smart_scan}, 100 pages a step"));
        let first = Region::mergeable(&content)?;
        scanner.scans(4)?;
        let second = Region::mergeable(&content)?;
        scanner.expect(Counters::stable(PAGES as u64, PAGES as u64, 0))?;
        first.verify(&content)?;
        second.verify(&content)?;
    }
    Ok(())
}

/// What the kernel writes into a page leaves no trace in the entry of the process.
fn unseen(_: &Options) -> Result<()> {
    let scanner = start()?;
    scanner.scan_on_demand()?;
    let content = pattern::pages(3, 2);
    let mut region = Region::mergeable(&content)?;
    scan(&scanner, 3)?;
    let equal = content[..PAGE_SIZE].to_vec();
    region.write_unseen(1, &equal)?;
    let mut scans = 0;
    while ksm::counters()?.sharing == 0 {
        ensure!(scans < 2 * PERIOD, "not merged after {scans} scans");
        scanner.scan_once()?;
        scans += 1;
    }
    step(format!("merged after {scans} scans"));
    region.verify(&[&equal[..], &equal[..]].concat())
}

fn idle(_: &Options) -> Result<()> {
    if !Path::new(idle_pages::FILE).exists() {
        return Err(Skip("this kernel does not track idle pages".into()).into());
    }
    let scanner = start()?;
    for skip in [1, 0] {
        ksm::write_own("skip_untouched", skip)?;
        let content = pattern::pages(4 + skip, PAGES);
        let mut region = Region::mergeable(&content)?;
        scanner.scans(4)?;
        let frames = pagemap::frames(&region)?;
        idle_pages::mark(&frames)?;
        tlb::flush()?;
        // User Mode Linux does not see who reads.
        for page in 0..PAGES / 2 {
            region.page_mut(page)[8] ^= 1;
        }
        scanner.scans(3)?;
        let are_idle = idle_pages::are_idle(&frames)?;
        let seen = are_idle.iter().filter(|is_idle| !**is_idle).count();
        step(format!(
            "skip_untouched {skip}: {seen} of {PAGES} pages were touched"
        ));
        ensure!(
            are_idle[PAGES / 2..].iter().all(|is_idle| *is_idle)
                && are_idle[..PAGES / 2].iter().all(|is_idle| !*is_idle),
            "not the pages that were touched: {are_idle:?}"
        );
    }
    Ok(())
}

/// Huge pages have a bit each.
fn huge(_: &Options) -> Result<()> {
    let scanner = start()?;
    scanner.scan_on_demand()?;
    let mut region = Region::huge(&pattern::pages(10, 2 * HUGE_PAGES))?;
    region.advise_mergeable()?;
    scan(&scanner, 3)?;
    let (passed, looks) = (passed_in(&scanner, PERIOD)?, PERIOD * 2 * HUGE_PAGES as u64);
    step(format!("{passed} of {looks} looks were left out"));
    ensure!(
        passed == looks - 2 * HUGE_PAGES as u64,
        "not all but one for each page"
    );

    region.page_mut(HUGE_PAGES + 7)[8] ^= 1;
    tlb::flush()?;
    let passed = passed_in(&scanner, 1)?;
    // One in 16 pages is due.
    let expected = HUGE_PAGES as u64 * (PERIOD - 1) / PERIOD;
    ensure!(
        passed == expected,
        "{passed} pages were passed over, not {expected}"
    );
    ensure!(ksm::counters()?.volatile > 0, "the change was not seen");

    // A step ends in the middle of a huge page.
    scan(&scanner, 2)?;
    ksm::write("pages_to_scan", 100)?;
    let (mut looks, mut scans) = (0, 0);
    while scans < PERIOD {
        let (pages, ended) = scanner.take_step()?;
        (looks, scans) = (looks + pages, scans + ended);
    }
    step(format!("{looks} looks in {scans} scans in small steps"));
    ensure!(
        looks <= 2 * HUGE_PAGES as u64,
        "more than one for each page"
    );
    Ok(())
}

/// How long DAMON looks at both areas.
const LOOKS: Duration = Duration::from_secs(4);

fn damon(_: &Options) -> Result<()> {
    let scanner = start()?;
    ensure!(damon::is_present(), "this kernel has no DAMON");
    for skip in [0, 1] {
        ksm::write_own("skip_untouched", skip)?;
        let touched = Region::mergeable(&pattern::pages(8, PAGES))?;
        let untouched = Region::mergeable(&pattern::pages(9, PAGES))?;
        scanner.scans(4)?;
        let areas =
            [&touched, &untouched].map(|region| region.address()..region.address() + region.len());
        let damon = Damon::watch(std::process::id(), areas.to_vec())?;
        let found = while_touching(&touched, || {
            thread::sleep(LOOKS);
            damon.found()
        })?;
        for found in found {
            let is_touched = areas[0].contains(&found.addresses.start);
            step(format!(
                "skip_untouched {skip}: touched in {} looks of {}, and it is {is_touched} that it was",
                found.touched,
                damon::LOOKS
            ));
            ensure!(
                is_touched == (found.touched >= damon::LOOKS / 4)
                    && (is_touched || found.touched == 0),
                "DAMON is misled: {found:?}"
            );
        }
    }
    Ok(())
}

/// Does something while somebody reads each page of `region` again and again.
fn while_touching<T>(region: &Region, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let toucher = scope.spawn(|| {
            while !ends.load(Relaxed) {
                for page in 0..region.pages() {
                    std::hint::black_box(region.page(page)[0]);
                }
                tlb::flush()?;
            }
            anyhow::Ok(())
        });
        let result = act();
        ends.store(true, Relaxed);
        toucher.join().expect("it does not panic")?;
        result
    })
}
