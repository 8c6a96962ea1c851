// SPDX-License-Identifier: GPL-2.0

//! The demonstration: many processes, one memory.
//!
//! Runs as root inside a VM in which KSM is there. Eight processes each read the same files into
//! memory of their own; KSM finds the duplicates and keeps one copy of each page; one process
//! writes; all verify that they still see what is theirs; then everything is taken back.

mod display;
mod fleet;
mod options;
mod progress;
mod worker;

use std::{process::ExitCode, time::Duration};

use anyhow::{bail, Result};
use clap::Parser;
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    module,
};

use display::{mib, Display};
use fleet::Fleet;
use options::Options;
use progress::Outcome;

/// Less than this share of the duplicate pages merged is a failure.
const REQUIRED_PERCENT: f64 = 80.0;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(success) if success => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ksm-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all phases; true if all went well.
fn run(options: &Options) -> Result<bool> {
    let mut display = Display::new();
    display.title(provider()?);
    let scanner = Scanner::prepare()?;
    options.apply_tunables()?;

    let mut fleet = fill(options, &mut display)?;
    let merged = merge(&fleet, &mut display)?;
    let mut lost = write_and_verify(&mut fleet, &mut display)?;
    lost += unmerge(&mut fleet, &mut display)?;
    fleet.dismiss()?;
    drop(scanner);
    unload(&mut display)?;

    let success = lost == 0 && merged.percent() > REQUIRED_PERCENT;
    display.verdict(&verdict(&merged, lost), success);
    Ok(success)
}

/// Which KSM this demonstrates.
fn provider() -> Result<&'static str> {
    Ok(if module::is_loaded()? {
        "ksm_rs, the module in Rust"
    } else {
        "the kernel's own KSM in C"
    })
}

fn fill(options: &Options, display: &mut Display) -> Result<Fleet> {
    display.phase(&format!(
        "{} processes each read the same {} of this machine's files into private memory,\n   \
         add {} of random data of their own, and advise the kernel that it may merge all of it.",
        options.processes,
        mib(options.common_pages()),
        mib(options.private_pages()),
    ));
    let fleet = Fleet::start(options)?;
    display.note(&format!(
        "{} files; {} in all, of which {} are duplicates",
        fleet.files(),
        mib(fleet.total_pages()),
        mib(fleet.duplicate_pages()),
    ));
    Ok(fleet)
}

fn merge(fleet: &Fleet, display: &mut Display) -> Result<Outcome> {
    display.phase(
        "ksmd is switched on. It walks through all of that memory again and again;\n   \
         of pages with equal contents it keeps one, write-protected, and frees the others.",
    );
    let outcome = progress::watch(fleet, display)?;
    display.note(&format!(
        "{:.1} % of the duplicate pages are merged, in {}",
        outcome.percent(),
        seconds(outcome.time),
    ));
    Ok(outcome)
}

fn write_and_verify(fleet: &mut Fleet, display: &mut Display) -> Result<u64> {
    display.phase(
        "Process 0 writes to every third page of the common data. The kernel gives it a copy\n   \
         of each such page first, so that nobody else sees the change.",
    );
    let (written, own_loss) = fleet.write_from_first()?;
    display.note(&format!(
        "process 0 wrote to {written} pages and reads back what it should: {}",
        loss(own_loss)
    ));
    let others = fleet.verify(1..)?;
    display.note(&format!(
        "every other process compared every page with its digest: {}",
        loss(others)
    ));
    Ok(own_loss + others)
}

fn unmerge(fleet: &mut Fleet, display: &mut Display) -> Result<u64> {
    display.phase(
        "2 is written to /sys/kernel/mm/ksm/run: all pages become private again,\n   \
         and all processes verify all of their data once more.",
    );
    ksm::set_run(Run::Unmerge)?;
    let left = ksm::counters()?;
    if left != Counters::ZERO {
        bail!("run=2 left pages merged: {left}");
    }
    let lost = fleet.verify(0..)?;
    display.note(&format!("nothing is merged any more: {}", loss(lost)));
    Ok(lost)
}

fn unload(display: &mut Display) -> Result<()> {
    if !module::is_loaded()? {
        return Ok(());
    }
    display.phase("The module is unloaded while the system runs on.");
    module::unload()?;
    module::ensure_gone()?;
    display.note("ksm_rs is gone from /proc/modules");
    Ok(())
}

fn loss(bytes: u64) -> String {
    match bytes {
        0 => "all data intact".to_owned(),
        lost => format!("{lost} BYTES LOST"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn verdict(merged: &Outcome, lost: u64) -> String {
    format!(
        "saved {} of {} duplicate ({:.1} %), merged in {}, bytes lost: {lost}",
        mib(merged.saved_pages),
        mib(merged.duplicate_pages),
        merged.percent(),
        seconds(merged.time),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_all_that_counts() {
        let merged = Outcome {
            saved_pages: 57_344,
            duplicate_pages: 57_472,
            time: Duration::from_millis(3140),
        };
        assert_eq!(
            verdict(&merged, 0),
            "saved 224.0 MiB of 224.5 MiB duplicate (99.8 %), merged in 3.1 s, bytes lost: 0"
        );
    }
}
