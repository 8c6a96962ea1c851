// SPDX-License-Identifier: GPL-2.0

//! How much is scanned, and what: smart scan, the advisor, pauses, freezing.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{ensure, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Counters, Run, Scanner},
    pagemap, pattern,
    procfs::{self, Ksmd},
    region::Region,
    wait,
};

use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_shared, splice, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "smart-scan",
        "pages without an equal are skipped more and more, unless smart_scan is 0",
        skips,
    ),
    Case::new(
        "smart-scan-merges",
        "pages that were skipped for long still merge when they find an equal",
        merges_in_the_end,
    ),
    Case::new(
        "late-equals",
        "pages that become equal after they were skipped for long merge within 18 scans, in any phase",
        late_equals,
    ),
    Case::new(
        "late-newcomer",
        "a page that was skipped for long and a new one merge within 18 scans, in any phase",
        late_newcomer,
    ),
    Case::new(
        "smart-scan-pinned",
        "pages that others hold for long are skipped too, though a KSM page is their equal",
        skips_pinned,
    ),
    Case::new(
        "advisor-scan-time",
        "the advisor changes pages_to_scan, within its limits",
        advisor,
    ),
    Case::new(
        "advisor-extremes",
        "the largest numbers that the advisor's files take do no harm",
        advisor_extremes,
    ),
    Case::new(
        "sleep-wakes",
        "a change of sleep_millisecs ends a long pause at once",
        sleep_wakes,
    ),
    Case::new(
        "freeze",
        "the scanner freezes with everything else, and goes on after it",
        freeze,
    ),
];

fn skips(_: &Options) -> Result<()> {
    const PAGES: u64 = 64;
    let scanner = Scanner::start()?;
    let _region = Region::mergeable(&pattern::pages(1, PAGES as usize))?;
    let before: u64 = ksm::read("pages_skipped")?;
    scanner.scans(12)?;
    let after: u64 = ksm::read("pages_skipped")?;
    ensure!(
        before == after,
        "{} skipped with smart_scan 0",
        after - before
    );

    ksm::set_run(Run::Stop)?;
    ksm::write("smart_scan", 1)?;
    let pages_before: u64 = ksm::read("pages_scanned")?;
    let scans_before = ksm::full_scans()?;
    ksm::set_run(Run::Merge)?;
    scanner.scans(40)?;
    ksm::set_run(Run::Stop)?;
    let skipped = ksm::read::<u64>("pages_skipped")? - after;
    let scanned = ksm::read::<u64>("pages_scanned")? - pages_before;
    let scans = ksm::full_scans()? - scans_before;
    step(format!(
        "{scans} scans of {PAGES} pages: {skipped} skipped, {scanned} scanned"
    ));
    // Of 40 scans of an old page, about eight in nine are skipped.
    ensure!(skipped > scans * PAGES / 2, "too few are skipped");
    ensure!(skipped < scans * PAGES * 19 / 20, "too many are skipped");
    ensure!(scanned > 0, "no page is scanned any more");

    step("turned off, everything is looked at again");
    ksm::write("smart_scan", 0)?;
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(0, 0, PAGES))?;
    let skipped: u64 = ksm::read("pages_skipped")?;
    scanner.scans(5)?;
    ensure!(
        ksm::read::<u64>("pages_skipped")? == skipped,
        "skipped with smart_scan 0"
    );
    Ok(())
}

fn merges_in_the_end(_: &Options) -> Result<()> {
    const PAGES: usize = 32;
    let scanner = Scanner::start()?;
    ksm::write("smart_scan", 1)?;
    let content = pattern::pages(2, PAGES);
    let old = Region::mergeable(&content)?;
    let mut changing = Region::mergeable(&pattern::pages(3, PAGES))?;
    scanner.scans(40)?;
    step("equals appear by writing to old memory, and in new memory until all have met");
    changing.bytes_mut().copy_from_slice(&content);
    let mut late = Vec::new();
    // With mm/ksm.c, old pages that are never looked at in the same scan do not meet; new ones are
    // looked at in each of their first scans.
    while pagemap::frames(&old)? != pagemap::frames(&changing)? {
        ensure!(late.len() < 60, "they never meet: {}", ksm::counters()?);
        late.push(Region::mergeable(&content)?);
        scanner.scans(11)?;
    }
    step(format!("{} newcomers were enough", late.len()));
    ensure_shared(&old, &changing)?;
    for region in late.iter().chain([&old, &changing]) {
        region.verify(&content)?;
    }
    Ok(())
}

/// A page that has found no equal for long is looked at in one of so many scans.
const PERIOD: usize = 9;

/// Scans after which a page is that old.
const GROWN_OLD: usize = 48;

/// A page that has changed is looked at after a period at most, and after one more it is known not to
/// change any more, and looked up.
const SOON: u64 = 2 * PERIOD as u64;

/// Pages of which each ought to be equal to the one with the same number, soon.
struct Couples {
    left: Region,
    right: Vec<Region>,
    /// When they became equal.
    since: Vec<u64>,
    /// When they were seen to have one frame.
    merged: Vec<Option<u64>>,
}

impl Couples {
    /// Notes which have merged by now.
    fn look(&mut self, now: u64) -> Result<()> {
        let left = pagemap::frames(&self.left)?;
        let right = self.right.iter().map(pagemap::frames);
        for (index, right) in right.enumerate() {
            if self.merged[index].is_none() && right? == left[index..=index] {
                self.merged[index] = Some(now);
            }
        }
        Ok(())
    }

    /// Fails, and says how many scans each couple took, unless all have merged in time.
    fn ensure_all_merged(&self) -> Result<()> {
        let scans = |index: usize| self.merged[index].map(|merged| merged - self.since[index]);
        let (mut in_time, mut phases) = (0, String::new());
        for phase in 0..PERIOD {
            let each = (phase..self.since.len()).step_by(PERIOD).map(scans);
            let each: Vec<_> = each.collect();
            in_time += each
                .iter()
                .flatten()
                .filter(|scans| **scans <= SOON)
                .count();
            let text = each.iter().map(|scans| match scans {
                Some(scans) => format!(" {scans}"),
                None => " never".to_owned(),
            });
            phases += &format!("\n    phase {phase}:{}", text.collect::<String>());
        }
        step(format!("scans until two pages have merged:{phases}"));
        ensure!(
            in_time == self.since.len(),
            "{in_time} of {} couples have merged within {SOON} scans",
            self.since.len()
        );
        Ok(())
    }
}

/// Counts how many pages are read that are not merged: each ought to be read once in a period.
struct Frugality {
    /// Pages that were read in each of the last scans: those that were scanned, and not merged.
    scanned: Vec<u64>,
}

impl Frugality {
    fn scan(&mut self, scanner: &Scanner) -> Result<()> {
        let before = ksm::counters()?;
        let (scanned, scans) = scanner.take_step()?;
        ensure!(scans == 1, "{scans} scans in a step");
        // Of two pages that have just merged the one that was skipped may be met after that.
        let met_merged = ksm::counters()?.shared.saturating_sub(before.shared);
        let merged = before.shared + before.sharing + met_merged;
        self.scanned.push(scanned.saturating_sub(merged));
        Ok(())
    }

    fn ensure_at_most(&self, pages: usize) -> Result<()> {
        let most = self.scanned.windows(PERIOD).map(|scans| scans.iter().sum());
        let most = most.max().unwrap_or(0u64);
        step(format!(
            "{most} of {pages} pages are read in {PERIOD} scans at most"
        ));
        ensure!(
            most <= pages as u64,
            "{most} pages were read in {PERIOD} scans, of {pages} that were to be skipped"
        );
        Ok(())
    }
}

fn late_equals(_: &Options) -> Result<()> {
    // For each phase, couples that become equal at each of so many moments.
    const COUPLES: usize = PERIOD * PERIOD;
    let scanner = Scanner::start()?;
    ksm::write("smart_scan", 1)?;
    scanner.scan_on_demand()?;
    let left = Region::mergeable(&pattern::pages(7, COUPLES))?;
    let mut right = Vec::new();
    for index in 0..COUPLES {
        right.push(Region::with_content(&pattern::page(8, index))?);
    }
    step("the second page of a couple is so many scans younger than the first");
    for phase in 0..PERIOD {
        for page in right.iter().skip(phase).step_by(PERIOD) {
            page.advise_mergeable()?;
        }
        scanner.scan_once()?;
    }
    for _ in 0..GROWN_OLD {
        scanner.scan_once()?;
    }
    step("they become equal, each with another");
    let mut couples = Couples {
        left,
        right,
        since: Vec::new(),
        merged: vec![None; COUPLES],
    };
    let mut frugality = Frugality {
        scanned: Vec::new(),
    };
    for moment in 0..PERIOD as u64 + SOON {
        for index in (0..COUPLES).skip(moment as usize * PERIOD).take(PERIOD) {
            let content = pattern::page(9, index);
            couples.left.page_mut(index).copy_from_slice(&content);
            couples.right[index].page_mut(0).copy_from_slice(&content);
            couples.since.push(moment);
        }
        frugality.scan(&scanner)?;
        couples.look(moment + 1)?;
    }
    frugality.ensure_at_most(2 * COUPLES)?;
    couples.ensure_all_merged()
}

fn late_newcomer(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    ksm::write("smart_scan", 1)?;
    scanner.scan_on_demand()?;
    let left = Region::mergeable(&pattern::pages(7, PERIOD))?;
    for _ in 0..GROWN_OLD {
        scanner.scan_once()?;
    }
    step("equals come, one a scan");
    let mut couples = Couples {
        left,
        right: Vec::new(),
        since: Vec::new(),
        merged: vec![None; PERIOD],
    };
    for moment in 0..PERIOD as u64 + SOON {
        if let Some(index) = (0..PERIOD).nth(moment as usize) {
            couples
                .right
                .push(Region::mergeable(&pattern::page(7, index))?);
            couples.since.push(moment);
        }
        scanner.scan_once()?;
        couples.look(moment + 1)?;
    }
    couples.ensure_all_merged()
}

fn skips_pinned(_: &Options) -> Result<()> {
    // A pipe takes sixteen.
    const PAGES: usize = 8;
    let scanner = Scanner::start()?;
    let content = pattern::pages(5, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(PAGES as u64, PAGES as u64, 0))?;
    // They would merge before the pipe has them.
    ksm::set_run(Run::Stop)?;
    let pinned = Region::mergeable(&content)?;
    let pipe = splice(&pinned)?;
    let (skipped, scans): (u64, _) = (ksm::read("pages_skipped")?, ksm::full_scans()?);
    ksm::write("smart_scan", 1)?;
    ksm::set_run(Run::Merge)?;
    scanner.scans(40)?;
    ksm::set_run(Run::Stop)?;
    let skipped = ksm::read::<u64>("pages_skipped")? - skipped;
    let scans = ksm::full_scans()? - scans;
    step(format!(
        "{skipped} skipped in {scans} scans while a pipe has {PAGES} pages"
    ));
    ensure!(skipped > scans * PAGES as u64 / 2, "too few are skipped");
    ksm::set_run(Run::Merge)?;

    step("the pipe is closed, and they merge");
    drop(pipe);
    scanner.expect(Counters::stable(PAGES as u64, 2 * PAGES as u64, 0))?;
    ensure_shared(&left, &pinned)?;
    for region in [&left, &right, &pinned] {
        region.verify(&content)?;
    }
    Ok(())
}

/// With so few pages at a time the advisor begins, and any machine can do more.
const LEAST: u64 = 10;

fn advisor(_: &Options) -> Result<()> {
    let scanner = Scanner::prepare()?;
    let region = Region::mergeable(&pattern::pages(4, 2048))?;
    ksm::write("advisor_min_pages_to_scan", LEAST)?;
    ksm::write("advisor_max_pages_to_scan", 3000)?;
    ksm::write("advisor_max_cpu", 100)?;
    ksm::write("advisor_mode", "scan-time")?;
    // Without pauses, a machine on which a scan takes a second and more has no CPU time left.
    ksm::write("sleep_millisecs", 20)?;
    ksm::set_run(Run::Merge)?;
    step("a goal that is far away: as many pages as the CPU limit allows, at most 3000");
    ksm::write("advisor_target_scan_time", 1)?;
    let mut most = 0;
    for _ in 0..20 {
        scanner.scans(1)?;
        let pages: u64 = ksm::read("pages_to_scan")?;
        ensure!(
            (LEAST..=3000).contains(&pages),
            "pages_to_scan is {pages}, beyond the limits"
        );
        most = most.max(pages);
    }
    ensure!(most > LEAST, "the advisor changes nothing");
    ksm::write("advisor_max_pages_to_scan", 777)?;
    wait::until("the advisor's change", || {
        Ok((ksm::read::<u64>("pages_to_scan")? <= 777).then_some(()))
    })?;
    step("the mode none ends it");
    ksm::write("advisor_mode", "none")?;
    ensure!(
        ksm::read::<u64>("pages_to_scan")? == 100,
        "pages_to_scan is not 100 again"
    );
    ksm::write("pages_to_scan", 1234)?;
    scanner.scans(3)?;
    ensure!(
        ksm::read::<u64>("pages_to_scan")? == 1234,
        "it changes with no advisor"
    );
    for (file, default) in [
        ("advisor_max_pages_to_scan", 30000),
        ("advisor_max_cpu", 70),
        ("advisor_target_scan_time", 200),
    ] {
        ksm::write(file, default)?;
    }
    drop(region);
    Ok(())
}

fn advisor_extremes(_: &Options) -> Result<()> {
    let scanner = Scanner::prepare()?;
    let content = pattern::pages(5, 64);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    for (min, max, cpu, time) in [
        (u64::MAX, u64::MAX, u32::MAX, u64::MAX),
        (1, u64::MAX, u32::MAX, u64::MAX),
        (u64::MAX, 1000, 1, 1),
        (500, u64::MAX, 0, 1),
        (500, 30000, 70, 200),
    ] {
        ksm::write("advisor_min_pages_to_scan", min)?;
        ksm::write("advisor_max_pages_to_scan", max)?;
        ksm::write("advisor_max_cpu", cpu)?;
        ksm::write("advisor_target_scan_time", time)?;
        ksm::write("advisor_mode", "scan-time")?;
        ksm::set_run(Run::Merge)?;
        // Such numbers may well end in nothing being scanned at all.
        std::thread::sleep(Duration::from_millis(500));
        let pages: u64 = ksm::read("pages_to_scan")?;
        step(format!(
            "{min}, {max}, {cpu}, {time}: pages_to_scan {pages}"
        ));
        ensure!(
            pages <= u32::MAX.into(),
            "pages_to_scan is no 32-bit number"
        );
        ksm::set_run(Run::Stop)?;
        ksm::write("advisor_mode", "none")?;
    }
    ksm::write("pages_to_scan", 10_000)?;
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(64, 64, 0))?;
    left.verify(&content)?;
    right.verify(&content)
}

fn sleep_wakes(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    scanner.scans(1)?;
    ksm::write("sleep_millisecs", 3_600_000)?;
    let thread = Ksmd::find()?;
    wait::until("a pause", || Ok(thread.is_asleep()?.then_some(())))?;
    let before = ksm::full_scans()?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(
        ksm::full_scans()? == before,
        "it scans during a pause of an hour"
    );
    step("a shorter pause counts at once");
    ksm::write("sleep_millisecs", 0)?;
    scanner.scans(2)?;
    step("run=2 and run=0 do not wait for a pause either");
    ksm::write("sleep_millisecs", 3_600_000)?;
    let start = Instant::now();
    ksm::set_run(Run::Unmerge)?;
    ksm::set_run(Run::Stop)?;
    ensure!(
        start.elapsed() < Duration::from_secs(30),
        "run waits for the pause"
    );
    ksm::write("sleep_millisecs", 0)
}

fn freeze(_: &Options) -> Result<()> {
    const TEST: &str = "/sys/power/pm_test";
    if !Path::new(TEST).exists() {
        return Err(Skip("this kernel cannot test its suspend".into()).into());
    }
    let scanner = Scanner::start()?;
    let content = pattern::pages(6, 512);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    control_file::write(TEST, "freezer")?;
    for (state, millisecs) in [("a busy", 0), ("a pausing", 100), ("a resting", 0)] {
        step(format!("{state} scanner freezes for five seconds"));
        ksm::write("sleep_millisecs", millisecs)?;
        ksm::set_run(if state == "a resting" {
            Run::Stop
        } else {
            Run::Merge
        })?;
        let before = Ksmd::find()?.cpu_time()?;
        let start = Instant::now();
        let states = fs::read_to_string("/sys/power/state")?;
        let target = states.split_whitespace().next().unwrap_or("mem");
        control_file::write("/sys/power/state", target)?;
        let taken = Ksmd::find()?.cpu_time()? - before;
        ensure!(
            start.elapsed() > Duration::from_secs(3),
            "that took no time"
        );
        ensure!(
            taken < Duration::from_secs(3),
            "ksmd ran for {taken:?} meanwhile"
        );
    }
    step("and merges as before");
    ksm::write("sleep_millisecs", 0)?;
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(512, 512, 0))?;
    left.verify(&content)?;
    right.verify(&content)?;
    ensure!(procfs::find_process("ksmd")?.is_some(), "ksmd is gone");
    Ok(())
}
