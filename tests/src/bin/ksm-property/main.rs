// SPDX-License-Identifier: GPL-2.0

//! Random sequences of what can happen to memory, against a model of what every byte must be.
//!
//! A sequence depends on the seed and its number alone. One that fails is made as short as can
//! be, printed, and kept in the directory of `--regressions`, which is tried first.

mod board;
mod content;
mod fleet;
mod invariants;
mod kernel_operations;
mod machine;
mod memory_operations;
mod model;
mod operation;
mod regressions;
mod search;
mod stage;
mod tenancy;
mod worker;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;
use ksm_tests::{outcome::exit_code, seed};

use machine::Machine;
use operation::Operation;
use regressions::Record;
use search::{Failure, Generator};
use stage::Stage;

#[derive(Parser)]
#[command(about = "Property tests of KSM, to be run as root inside a VM")]
struct Options {
    /// Runs these sequences, and no random ones.
    sequences: Vec<PathBuf>,

    /// Where random sequences come from; by default from anywhere.
    #[arg(long, default_value_t = seed::new(), hide_default_value = true)]
    seed: u64,

    /// The number of the first sequence.
    #[arg(long, default_value_t = 0)]
    first: u64,

    /// Ends after so many sequences.
    #[arg(long)]
    cases: Option<u64>,

    /// Begins no sequence after so many seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,

    /// The largest number of operations in a sequence.
    #[arg(long, default_value_t = 240)]
    operations: usize,

    /// How long to make a sequence that fails shorter.
    #[arg(long, default_value_t = 60)]
    shrink_seconds: u32,

    /// Directory of sequences that have failed: tried first, and added to.
    #[arg(long)]
    regressions: Option<PathBuf>,
}

/// What a run has done.
#[derive(Default)]
struct Totals {
    sequences: u64,
    operations: usize,
    most_sharing: u64,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let mut machine = Machine::new()?;
    let mut totals = Totals::default();
    for path in &options.sequences {
        replay(path, &mut machine, &mut totals)?;
    }
    if let Some(directory) = &options.regressions {
        for path in regressions::all(directory)? {
            replay(&path, &mut machine, &mut totals)?;
        }
    }
    if options.sequences.is_empty() {
        explore(options, &mut machine, &mut totals)?;
    }
    println!(
        "{} sequences, {} operations, at most {} pages sharing, bytes lost: 0",
        totals.sequences, totals.operations, totals.most_sharing
    );
    Ok(())
}

/// A sequence out of a file.
fn replay(path: &Path, machine: &mut Machine, totals: &mut Totals) -> Result<()> {
    println!("{}", path.display());
    let sequence = regressions::read(path)?;
    perform(&sequence, machine, totals)
        .with_context(|| format!("the sequence in {}", path.display()))
}

/// Random sequences.
fn explore(options: &Options, machine: &mut Machine, totals: &mut Totals) -> Result<()> {
    /// Among so many there are some that merge pages.
    const ENOUGH: u64 = 10;

    println!("seed {}", options.seed);
    let generator = Generator {
        seed: options.seed,
        longest: options.operations,
        shrink_seconds: options.shrink_seconds,
    };
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut numbers = 0..options.cases.unwrap_or(u64::MAX);
    while let Some(number) = numbers.next().filter(|_| Instant::now() < end) {
        explore_one(options, &generator, options.first + number, machine, totals)?;
    }
    ensure!(
        totals.most_sharing > 0 || totals.sequences < ENOUGH,
        "no sequence has merged anything"
    );
    Ok(())
}

fn explore_one(
    options: &Options,
    generator: &Generator,
    index: u64,
    machine: &mut Machine,
    totals: &mut Totals,
) -> Result<()> {
    let name = format!("seed-{}-sequence-{index}", options.seed);
    let record = Record::new(options.regressions.as_deref(), &name);
    let mut has_failed = false;
    let result = generator.try_sequence(index, |sequence| {
        if !has_failed {
            record.write(sequence)?;
        }
        match perform(sequence, machine, totals) {
            // The first one has left something behind: there is nothing more to be found out.
            Err(error) if has_failed && error.is::<NotBegun>() => Ok(()),
            Err(error) => {
                if !has_failed {
                    println!("{name}, {} operations: {error:#}", sequence.len());
                }
                has_failed = true;
                // At once: a smaller part of it may take the kernel down.
                record.write(sequence)?;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    });
    match result {
        Ok(()) => record.remove(),
        Err(Failure { sequence, reason }) => {
            print!("{}", regressions::to_text(&sequence)?);
            bail!("{name}, {} operations of it: {reason}", sequence.len())
        }
    }
}

/// The kernel is in no state to begin with.
#[derive(Debug)]
struct NotBegun;

impl fmt::Display for NotBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("before the first operation")
    }
}

/// Runs a sequence.
fn perform(sequence: &[Operation], machine: &mut Machine, totals: &mut Totals) -> Result<()> {
    let stage = Stage::new(machine).context(NotBegun)?;
    let most_sharing = stage.run(sequence)?;
    totals.sequences += 1;
    totals.operations += sequence.len();
    totals.most_sharing = totals.most_sharing.max(most_sharing);
    Ok(())
}
