// SPDX-License-Identifier: GPL-2.0

//! Asks by way of KSM which of two pages another process holds; runs as root inside a VM.
//!
//! In each trial a victim holds one of two pages that nobody has held before. An attacker without
//! privileges holds both, waits until KSM has had the time to merge them, and then decides by one channel
//! after the other. It is right in half of all trials if a channel tells it nothing.

mod actor;
mod channel;
mod clock;
mod frames;
mod record;
mod trial;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use ksm_tests::{ksm::Scanner, outcome::exit_code, seed};

use crate::{record::Record, trial::Stage};

/// Who offers memory to KSM before the other does.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum First {
    Victim,
    Attacker,
}

#[derive(Parser)]
#[command(about = "Asks by way of KSM which of two pages another process holds")]
struct Options {
    /// How often to ask.
    #[arg(long, default_value_t = 1000)]
    trials: u64,

    /// The domains of victim and attacker; by default they stay in the domain that they are born in.
    #[arg(long, num_args = 2, value_names = ["VICTIM", "ATTACKER"])]
    domains: Option<Vec<String>>,

    /// Who offers memory to KSM before the other does.
    #[arg(long, value_enum, default_value_t = First::Attacker)]
    first: First,

    /// Set `fresh_frames`.
    #[arg(long)]
    fresh_frames: bool,

    /// Let nobody but root read the files in sysfs.
    #[arg(long)]
    hide_counters: bool,

    /// Where random numbers begin; by default anywhere.
    #[arg(long)]
    seed: Option<u64>,
}

fn run(options: &Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(seed::new);
    println!("seed {seed}");
    let scanner = Scanner::prepare()?;
    let mut stage = Stage::new(options, seed)?;
    scanner.scan_on_demand()?;
    let mut record = Record::default();
    for _ in 0..options.trials {
        stage.trial(&scanner, &mut record)?;
    }
    record.print();
    println!("{}", serde_json::to_string(&record)?);
    stage.end()
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}
