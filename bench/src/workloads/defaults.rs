// SPDX-License-Identifier: GPL-2.0

//! What scans cost with the settings that KSM has by default, for amounts of memory up to what the
//! machine has.

use std::{thread, time::Duration};

use anyhow::Result;
use ksm_tests::{ksm, sleeper::Sleeper};

use crate::{fill, paced::Paced, report::Measures, statistics::nanoseconds_each, workload::Plan};

/// Scans of which the mean counts: a page that has found no equal for long is looked at in one of so
/// many.
const PERIOD: usize = 9;

/// Scans after which each page has been looked at, looked up, and can be found.
const FIRST_SCANS: usize = 3;

/// Of so many pages one changes, in what is called `thousandth`.
const THOUSAND: usize = 1000;

pub fn unique(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Paced::prepare()?;
    let sleeper = Sleeper::new(plan.pages, fill::unique)?;
    let first = ksmd.scans(FIRST_SCANS, |_| Ok(()))? / FIRST_SCANS as u32;
    let mut measures = Measures::default();
    measures.add(
        "first_scans_ns_per_page",
        nanoseconds_each(first, plan.pages),
    );
    add_steady(&mut measures, &mut ksmd, &sleeper, plan)?;
    Ok(measures)
}

pub fn pairs(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Paced::prepare()?;
    merged(&mut ksmd, plan, plan.pages / 2, fill::pairs)
}

pub fn same(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Paced::prepare()?;
    merged(&mut ksmd, plan, plan.pages - 1, fill::same)
}

pub fn zero(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Paced::prepare()?;
    ksm::write("use_zero_pages", 1)?;
    merged(&mut ksmd, plan, plan.pages, fill::zeros)
}

fn merged(
    ksmd: &mut Paced,
    plan: &Plan,
    duplicates: usize,
    content: impl FnOnce(&mut [u8]),
) -> Result<Measures> {
    let sleeper = Sleeper::new(plan.pages, content)?;
    let merging = ksmd.merge_most(duplicates)?;
    let mut measures = Measures::default();
    measures.add("merge_ns_per_page", nanoseconds_each(merging, plan.pages));
    // What is left of the duplicates.
    ksmd.scans(FIRST_SCANS, |_| Ok(()))?;
    add_steady(&mut measures, ksmd, &sleeper, plan)?;
    Ok(measures)
}

/// What a scan costs when nothing changes between two of them, when the first page does, and when
/// one page in a thousand does.
fn add_steady(
    measures: &mut Measures,
    ksmd: &mut Paced,
    sleeper: &Sleeper,
    plan: &Plan,
) -> Result<()> {
    let mut add = |name, time: Duration| {
        measures.add(name, nanoseconds_each(time / PERIOD as u32, plan.pages));
    };
    add("steady_ns_per_page", ksmd.scans(PERIOD, |_| Ok(()))?);
    let changing = ksmd.scans(PERIOD, |scan| sleeper.write_to(0, new_number(scan, 0)))?;
    add("first_ns_per_page", changing);
    let changing = ksmd.scans(PERIOD, |scan| {
        (0..plan.pages)
            .step_by(THOUSAND)
            .try_for_each(|page| sleeper.write_to(page, new_number(scan, page)))
    })?;
    add("thousandth_ns_per_page", changing);
    Ok(())
}

/// A number that no page has had.
fn new_number(scan: usize, page: usize) -> usize {
    usize::MAX - (page * PERIOD + scan)
}

/// How often it is looked whether the records of an ended process are gone.
const LOOK: Duration = Duration::from_millis(5);

/// A process of half of all memory ends: the one that has come first, and then the other.
pub fn ended(plan: &Plan) -> Result<Measures> {
    let half = plan.pages / 2;
    let mut ksmd = Paced::prepare()?;
    let part = |number| Sleeper::new(half, move |memory| fill::unique_part(memory, number));
    let (first, second) = (part(0)?, part(1)?);
    let mut end = End::default();
    end.of(first, &mut ksmd, half)?;
    let _third = part(2)?;
    end.of(second, &mut ksmd, half)?;
    let mut measures = Measures::default();
    let ended = end.processes * half;
    measures.add("ended_ns_per_page", nanoseconds_each(end.time, ended));
    // A full scan passes as many as are left.
    let scans = end.passed as f64 / ended as f64;
    measures.add("ended_percent_of_scan", 100.0 * scans);
    Ok(measures)
}

/// What it takes to forget processes that have ended.
#[derive(Default)]
struct End {
    processes: usize,
    /// CPU time.
    time: Duration,
    /// Pages that scans have passed meanwhile.
    passed: u64,
}

impl End {
    /// Ends a process whose pages are known to the scanner, and waits until those of other processes,
    /// `left` pages, are all that it knows.
    fn of(&mut self, sleeper: Sleeper, ksmd: &mut Paced, left: usize) -> Result<()> {
        ksmd.scans(FIRST_SCANS, |_| Ok(()))?;
        sleeper.kill()?;
        let before = pages_passed()?;
        self.time += ksmd.during(|_| await_records(left))?;
        self.passed += pages_passed()? - before;
        self.processes += 1;
        Ok(())
    }
}

/// Sleeps until the scanner keeps records of at most `pages` pages.
fn await_records(pages: usize) -> Result<()> {
    while recorded()? > pages as u64 {
        thread::sleep(LOOK);
    }
    Ok(())
}

fn recorded() -> Result<u64> {
    let now = ksm::counters()?;
    Ok(now.shared + now.sharing + now.unshared + now.volatile)
}

/// Pages that scans have passed so far.
fn pages_passed() -> Result<u64> {
    Ok(ksm::read::<u64>("pages_scanned")? + ksm::read::<u64>("pages_skipped")?)
}
