// SPDX-License-Identifier: GPL-2.0

//! Guests of our own making, from their start to their end.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{ensure, Result};
use clap::Args;
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    wait, MIB, PAGE_SIZE,
};
use serde::Deserialize;

use crate::{
    fleet::Fleet,
    image,
    record::{Record, Watch},
};

/// At this part of the duplicates the time is taken.
const NEARLY_ALL: f64 = 0.95;

/// When a guest is killed.
const MID_MERGE: f64 = 0.25;

/// So many rounds of each guest are timed.
const ROUNDS_OF_EACH: u32 = 4;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often all guests write to what they have in common.
const WRITE_ROUNDS: u64 = 3;

#[derive(Args)]
pub struct Options {
    /// Number of guests that live to the end.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..))]
    guests: u32,

    /// Number of guests that are killed while their memory is being merged.
    #[arg(long, default_value_t = 1)]
    victims: u32,

    /// MiB that all guests have in common.
    #[arg(long, default_value_t = 5)]
    mib: usize,

    /// MiB that each guest has for itself.
    #[arg(long, default_value_t = 1)]
    own_mib: usize,

    /// A kernel, of which half of what is common is taken; otherwise all is from files.
    #[arg(long)]
    kernel: Option<PathBuf>,

    /// The command `ksm`, which is asked for an estimate before the merging begins.
    #[arg(long)]
    estimate_with: Option<PathBuf>,

    /// Have the module pass over pages that neither guests nor their hypervisors have touched.
    #[arg(long)]
    skip_untouched: bool,

    /// Print how the merging went, in JSON, as the last line.
    #[arg(long)]
    json: bool,
}

/// Runs all of it.
pub fn run(options: &Options) -> Result<()> {
    let pages = |mib: usize| mib * MIB / PAGE_SIZE;
    let image = image::of_pages(pages(options.mib), options.kernel.as_deref())?;
    let scanner = Scanner::prepare()?;
    if options.skip_untouched {
        ksm::write_own("skip_untouched", 1)?;
    }
    let guests = options.guests + options.victims;
    let mut fleet = Fleet::start(guests.into(), &image, pages(options.own_mib))?;
    say(format_args!(
        "{guests} guests run, with {} pages, {} of them duplicates",
        fleet.pages(),
        fleet.duplicates()
    ));

    let estimate = options.estimate_with.as_deref();
    let estimate = estimate.map(|command| estimate_of(command, &fleet));
    let estimate = estimate.transpose()?;
    let watch = Watch::start()?;
    for _ in 0..options.victims {
        watch.until_saved(fleet.duplicates(), MID_MERGE)?;
        fleet.kill_one()?;
        let now = ksm::counters()?;
        say(format_args!("one is killed; {now}"));
    }
    let record = Record {
        estimate,
        ..watch.record(&scanner, fleet.duplicates(), NEARLY_ALL)?
    };
    let record = Record {
        guest_millisecs: Some(1e3 * cost_of_a_round(&mut fleet)?.as_secs_f64()),
        ..record
    };
    say(format_args!(
        "{} guests: {} of {} duplicates merged ({:.1} %)",
        fleet.len(),
        record.pages_sharing,
        record.duplicates,
        record.percent
    ));

    let mut wrong_bytes = write_and_verify(&mut fleet)?;
    ksm::set_run(Run::Unmerge)?;
    let left = ksm::counters()?;
    ensure!(left == Counters::ZERO, "run=2 left pages merged: {left}");
    ksm::set_run(Run::Merge)?;
    let report = fleet.report()?;
    if options.skip_untouched {
        let passed: u64 = ksm::read_own("pages_untouched")?;
        say(format_args!(
            "untouched pages were passed over {passed} times"
        ));
        ensure!(passed > 0, "no page counted as untouched");
    }
    say(format_args!(
        "unmerged; the guests have verified all of their pages {} times",
        report.rounds
    ));
    wrong_bytes += report.wrong_bytes + fleet.end()?.wrong_bytes;
    ensure!(wrong_bytes == 0, "{wrong_bytes} BYTES WRONG");
    println!(
        "{} guests, {:.1} % of {} duplicate pages merged, bytes wrong: {wrong_bytes}",
        options.guests, record.percent, record.duplicates
    );
    if options.json {
        println!("{}", serde_json::to_string(&record)?);
    }
    Ok(())
}

/// How long a guest is on a CPU to go through its memory once.
fn cost_of_a_round(fleet: &mut Fleet) -> Result<Duration> {
    let before = fleet.report()?;
    let wanted = before.own_rounds + ROUNDS_OF_EACH * fleet.len() as u32;
    let after = wait::until("guests to verify their memory", || {
        // To ask is work for the guests as well.
        thread::sleep(LOOK_INTERVAL);
        let now = fleet.report()?;
        Ok((now.own_rounds >= wanted).then_some(now))
    })?;
    Ok((after.cpu_time - before.cpu_time) / (after.own_rounds - before.own_rounds))
}

/// The pages that `ksm estimate` expects to be saved.
fn estimate_of(command: &Path, fleet: &Fleet) -> Result<u64> {
    #[derive(Deserialize)]
    struct Estimate {
        saved: u64,
    }

    let options = ["--json", "estimate", "--advised", "--max-cpu", "100"];
    let pids = fleet.pids().map(|pid| pid.to_string());
    let done = Command::new(command).args(options).args(pids).output()?;
    ensure!(
        done.status.success(),
        "no estimate: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let Estimate { saved } = serde_json::from_slice(&done.stdout)?;
    say(format_args!(
        "{saved} pages would be saved, as `ksm` has it"
    ));
    Ok(saved)
}

/// Lets guests write to what they have in common; gives how many bytes are wrong then.
fn write_and_verify(fleet: &mut Fleet) -> Result<u64> {
    let before = ksm::counters()?;
    fleet.write_from_first()?;
    let mut wrong_bytes = fleet.report()?.wrong_bytes;
    say(format_args!(
        "the first writes to common pages: {before} becomes {}",
        ksm::counters()?
    ));
    for _ in 0..WRITE_ROUNDS {
        fleet.write_from_all()?;
        wrong_bytes += fleet.report()?.wrong_bytes;
    }
    say(format_args!(
        "all write to common pages: {}",
        ksm::counters()?
    ));
    Ok(wrong_bytes)
}

fn say(what: std::fmt::Arguments) {
    println!("  - {what}");
}
