// SPDX-License-Identifier: GPL-2.0

//! What must not cost more for each page the more pages there are.
//!
//! Only ratios of times that were measured one after the other are compared, and counted work.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Counters, Run, Scanner, FOR_EVER},
    peer::{Link, Peer},
    procfs::Ksmd,
    region::Region,
    sleeper::Sleeper,
    stopwatch::Stopwatch,
    PAGE_SIZE,
};

use crate::{
    case::{Case, Options},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "pace-linear",
        "a scan of merged pages in small steps costs about the same after a write to the first",
        pace,
    )
    .on("um")
    .memory("1G"),
    Case::new(
        "munmap-linear",
        "so does one after a large range was unmapped",
        munmap,
    )
    .on("um")
    .memory("1G"),
    Case::new(
        "step-bounded",
        "a step passes over a bounded number of pages that the smart scan skips",
        skips_in_a_step,
    ),
    Case::new(
        "stop-in-time",
        "writes to run and advisor_mode do not wait for the end of a long step",
        stop_in_time,
    )
    .on("um")
    .memory("1G"),
    Case::new(
        "ended-first",
        "what an ended process leaves is collected before the scan has come by",
        ended_first,
    )
    .on("um")
    .memory("768M"),
    Case::new(
        "ended-turns-away",
        "a page that waited in a process that has ended keeps no live pages from merging",
        ended_turns_away,
    ),
];

/// Pages of the process: work that each step repeats makes a scan of so many some 50 times as dear.
const MANY_PAGES: usize = 160_000;

/// How many times as much a scan may cost after a change.
const MOST: u32 = 5;

/// The default of `pages_to_scan`.
const PACE: u32 = 100;

/// More pages than there are.
const ALL: u32 = 100_000_000;

/// A process whose page number `index` holds the number `content_of(index)`.
fn sleeper(pages: usize, content_of: impl Fn(usize) -> usize) -> Result<Sleeper> {
    Sleeper::new(pages, |memory| {
        for (index, page) in memory.chunks_exact_mut(PAGE_SIZE).enumerate() {
            write_number(page, content_of(index));
        }
    })
}

/// A process of which each page has one equal, half of the memory away.
fn with_pairs(pages: usize) -> Result<Sleeper> {
    sleeper(pages, |index| index % (pages / 2))
}

/// Makes a page one that differs from those with other numbers.
fn write_number(page: &mut [u8], number: usize) {
    page[..size_of::<usize>()].copy_from_slice(&number.to_ne_bytes());
}

/// A number that no page holds from the beginning.
const NEW: usize = usize::MAX;

/// Scans all at least once, and has the scanner rest at the beginning of a scan.
fn scan_all(scanner: &Scanner) -> Result<()> {
    ksm::write("pages_to_scan", ALL)?;
    scanner.scan_on_demand()
}

/// Scans at full speed until all pairs of `pages` pages are merged; then the scanner rests at the
/// beginning of a scan.
fn merge_pairs(scanner: &Scanner, pages: usize) -> Result<()> {
    scan_all(scanner)?;
    let mut scans = 0;
    while ksm::counters()?.sharing < pages as u64 / 2 {
        ensure!(scans < 10, "they do not merge: {}", ksm::counters()?);
        scanner.scan_once()?;
        scans += 1;
    }
    Ok(())
}

/// The median of `times`.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Full scans of which the median counts.
const SCANS: usize = 5;

/// Fails if a full scan in small steps takes much longer after each call of `change` than it takes
/// when nothing has changed.
fn ensure_not_repeating(
    what: &str,
    scanner: &Scanner,
    mut change: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let mut stopwatch = Stopwatch::new()?;
    let mut times = |change: &mut dyn FnMut(usize) -> Result<()>| {
        let time = |scan| {
            change(scan)?;
            scan_at_pace(scanner, &mut stopwatch)
        };
        (0..SCANS).map(time).collect::<Result<_>>().map(median)
    };
    let unchanged = times(&mut |_| Ok(()))?;
    let changed = times(&mut change)?;
    step(format!(
        "a full scan of {MANY_PAGES} pages takes {unchanged:?}, {what} {changed:?}"
    ));
    ensure!(
        changed <= MOST * unchanged,
        "{what} a full scan takes {changed:?}, not {unchanged:?}: a step repeats what earlier ones \
         have done"
    );
    Ok(())
}

fn pace(_: &Options) -> Result<()> {
    let scanner = Scanner::prepare()?;
    let sleeper = with_pairs(MANY_PAGES)?;
    merge_pairs(&scanner, MANY_PAGES)?;
    ensure_not_repeating("after a write to the first", &scanner, |scan| {
        sleeper.write_to(0, NEW - scan)
    })?;
    let now = ksm::counters()?;
    ensure!(
        now.sharing == MANY_PAGES as u64 / 2 - 1,
        "not one pair has parted: {now}"
    );
    Ok(())
}

fn munmap(_: &Options) -> Result<()> {
    let scanner = Scanner::prepare()?;
    let mut sleeper = with_pairs(MANY_PAGES)?;
    merge_pairs(&scanner, MANY_PAGES)?;
    ensure_not_repeating("after a munmap", &scanner, |_| {
        sleeper.unmap(MANY_PAGES / 8)
    })
}

/// The time of one full scan in small steps. Before and after it the scanner rests at the beginning
/// of a scan.
fn scan_at_pace(scanner: &Scanner, stopwatch: &mut Stopwatch) -> Result<Duration> {
    ksm::write("pages_to_scan", PACE)?;
    stopwatch.start()?;
    ksm::write("sleep_millisecs", 0)?;
    stopwatch.await_end()?;
    scan_all(scanner)?;
    // Others may have begun since.
    let times = stopwatch.read_each()?;
    times.first().copied().context("no scan has ended")
}

/// A step may pass over so many pages for each one that it may scan.
const PASSED_OVER: u64 = 64;

fn skips_in_a_step(_: &Options) -> Result<()> {
    const PAGES: usize = 20_000;
    let scanner = Scanner::prepare()?;
    ksm::write("smart_scan", 1)?;
    let _sleeper = sleeper(PAGES, |index| index)?;
    scan_all(&scanner)?;
    let skipped = || ksm::read::<u64>("pages_skipped");

    step("full scans until pages are skipped in eight of nine");
    for _ in 0..20 {
        scanner.scan_once()?;
    }
    // The next scan after one that looks at all pages skips all.
    loop {
        let before = skipped()?;
        scanner.scan_once()?;
        if skipped()? == before {
            break;
        }
    }

    ksm::write("pages_to_scan", PACE)?;
    let (begin, mut most, mut steps) = (skipped()?, 0, 0);
    while skipped()? - begin < PAGES as u64 {
        let before = skipped()?;
        let (scanned, _) = scanner.take_step()?;
        most = most.max(skipped()? - before);
        steps += 1;
        ensure!(scanned <= PACE.into(), "a step has scanned {scanned} pages");
        ensure!(
            steps < PAGES,
            "{steps} steps do not pass over {PAGES} pages"
        );
    }
    step(format!(
        "{steps} steps have passed over {PAGES} pages, one over {most}"
    ));
    ensure!(
        most <= PASSED_OVER * u64::from(PACE),
        "a step of {PACE} pages has passed over {most} skipped ones, more than {PASSED_OVER} for each"
    );
    Ok(())
}

/// Attempts to stop a step, of which the median counts.
const STOPS: usize = 5;

/// Of the time that a step would have taken, the part that a writer may wait.
const PART: u32 = 10;

fn stop_in_time(_: &Options) -> Result<()> {
    const PAGES: usize = 60_000;
    const CHILDREN: usize = 24;
    let _scanner = Scanner::prepare()?;
    let mut region = Region::new(PAGES)?;
    for index in 0..PAGES {
        write_number(region.page_mut(index), index);
    }
    region.advise_mergeable()?;
    // Pages that are inherited are many for little memory.
    let _children = (0..CHILDREN)
        .map(|_| Peer::fork(Link::await_end))
        .collect::<Result<Vec<_>>>()?;
    ksm::write("sleep_millisecs", FOR_EVER)?;
    ksm::write("pages_to_scan", ALL)?;

    let mut stopwatch = Stopwatch::new()?;
    stopwatch.start()?;
    ksm::set_run(Run::Merge)?;
    stopwatch.await_end()?;
    let whole = stopwatch.read()?;
    step(format!(
        "a step over all pages of {} processes: {whole:?}",
        CHILDREN + 1
    ));

    for (file, value) in [("run", "0"), ("advisor_mode", "none")] {
        let waits = (0..STOPS).map(|_| wait_in_step(whole, file, value));
        let wait = median(waits.collect::<Result<_>>()?);
        step(format!("a write to {file} during that: {wait:?}"));
        ensure!(
            wait <= whole / PART,
            "a write to {file} waits {wait:?} of a step that takes {whole:?}"
        );
    }
    Ok(())
}

/// How long a write of `value` to `file` takes in the middle of a step that takes `whole`.
fn wait_in_step(whole: Duration, file: &str, value: &str) -> Result<Duration> {
    // All is forgotten, so this step has as much to do as the one that was measured.
    ksm::set_run(Run::Unmerge)?;
    let before = ksm::full_scans()?;
    ksm::set_run(Run::Merge)?;
    // It may pause, which a change of the pause ends.
    let pause: u32 = ksm::read("sleep_millisecs")?;
    ksm::write("sleep_millisecs", pause + 1)?;
    thread::sleep(whole / 4);
    ensure!(
        ksm::full_scans()? == before && !Ksmd::find()?.is_asleep()?,
        "no step is under way"
    );
    let begin = Instant::now();
    ksm::write(file, value)?;
    let time = begin.elapsed();
    ksm::set_run(Run::Stop)?;
    Ok(time)
}

/// Pages that the scanner keeps a record of.
fn recorded() -> Result<usize> {
    let now = ksm::counters()?;
    Ok((now.shared + now.sharing + now.unshared + now.volatile) as usize)
}

/// Items that a step may collect for each page that it may scan. A few steps more do no harm.
const COLLECTED: usize = 64;
const STEPS_MORE: usize = 10;

fn ended_first(_: &Options) -> Result<()> {
    const LARGE: usize = 100_000;
    const SMALL: usize = 6_400;
    let scanner = Scanner::prepare()?;
    let _large = sleeper(LARGE, |index| index)?;
    let small = sleeper(SMALL, |index| LARGE + index)?;
    scan_all(&scanner)?;
    scanner.scan_once()?;
    let known = recorded()?;
    ensure!(known == LARGE + SMALL, "there are {known} records");

    step("a process ends while a larger one is being scanned");
    step_into(&scanner, 2 * SMALL)?;
    small.kill()?;
    let mut steps = 0;
    while recorded()? > LARGE {
        ensure!(
            steps < SMALL / COLLECTED + STEPS_MORE,
            "after {steps} steps of {PACE} pages there are still {} records of {SMALL} pages of a \
             process that has ended",
            recorded()? - LARGE
        );
        let (_, scans) = scanner.take_step()?;
        ensure!(scans == 0, "the scan has come by after {steps} steps");
        steps += 1;
    }
    step(format!("{SMALL} records are gone after {steps} steps"));
    let known = recorded()?;
    ensure!(known == LARGE, "there are {known} records, not {LARGE}");
    Ok(())
}

/// Scans at least `pages` pages from the beginning of a scan on, in small steps.
fn step_into(scanner: &Scanner, pages: usize) -> Result<()> {
    ksm::write("pages_to_scan", PACE)?;
    let mut scanned = 0;
    while scanned < pages as u64 {
        let (more, scans) = scanner.take_step()?;
        ensure!(scans == 0, "the scan has ended after {scanned} pages");
        scanned += more;
    }
    Ok(())
}

fn ended_turns_away(_: &Options) -> Result<()> {
    const PAGES: usize = 2_000;
    let scanner = Scanner::prepare()?;
    let large = sleeper(PAGES, |index| index)?;
    let small = sleeper(1, |_| NEW)?;
    scan_all(&scanner)?;
    scanner.scan_once()?;
    let now = ksm::counters()?;
    ensure!(now == Counters::stable(0, 0, PAGES as u64 + 1), "{now}");

    step("two pages become equal to one that waits in another process, which ends then");
    large.write_to(PAGES - 2, NEW)?;
    large.write_to(PAGES - 1, NEW)?;
    scanner.scan_once()?;
    // Past the small one, but not yet at the end of the large one.
    step_into(&scanner, PAGES / 2)?;
    small.kill()?;
    // A write from outside leaves a reference to the page with some CPU, which this takes back.
    control_file::write("/proc/sys/vm/compact_memory", 1)?;
    ksm::write("pages_to_scan", ALL)?;
    scanner.scan_once()?;
    let now = ksm::counters()?;
    ensure!(
        (now.shared, now.sharing) == (1, 1),
        "the two have not merged in the scan that has met both: {now}"
    );
    Ok(())
}
