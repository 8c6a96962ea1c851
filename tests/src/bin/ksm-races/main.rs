// SPDX-License-Identifier: GPL-2.0

//! Races by design: for each two actors that share state, processes that do nothing else, beside
//! a scanner that never rests.
//!
//! If the module has windows of races that can be held open, they are. Every process knows what
//! each byte of its memory must be; when a pair has ended, nothing may be left of it.

mod actor;
mod actors;
mod mirror;
mod pair;
mod scan;

use std::{
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;
use ksm_tests::{delays, outcome::exit_code, seed};

use pair::{Outcome, Pair, PAIRS};

#[derive(Parser)]
#[command(about = "Races of all that shares state with KSM, to be run as root inside a VM")]
struct Options {
    /// Only pairs with one of these names.
    pairs: Vec<String>,

    /// Where random numbers come from; by default from anywhere.
    #[arg(long, default_value_t = seed::new(), hide_default_value = true)]
    seed: u64,

    /// How long each pair races.
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Races one pair in this process, and prints the outcome for the process that asked for it.
    #[arg(long, hide = true)]
    here: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    exit_code(match options.here {
        true => race_here(&options),
        false => race_all(&options),
    })
}

fn race_all(options: &Options) -> Result<()> {
    let chosen: Vec<_> = PAIRS
        .iter()
        .filter(|pair| is_chosen(pair, options))
        .collect();
    ensure!(!chosen.is_empty(), "there is no such pair");
    println!("seed {}", options.seed);
    let (mut raced, mut rounds, mut saved) = (0, 0, 0);
    for pair in chosen {
        match race_apart(pair, options)? {
            Outcome::Skipped(reason) => println!("{:<18} skipped: {reason}", pair.name),
            Outcome::Raced {
                rounds: of_each,
                sharing,
            } => {
                println!(
                    "{:<18} rounds {of_each:?}, up to {sharing} pages saved{}",
                    pair.name,
                    held()?
                );
                scan::expect_nothing_left().context(pair.name)?;
                raced += 1;
                rounds += of_each.iter().sum::<u64>();
                saved += sharing;
            }
        }
    }
    ensure!(saved > 0 || raced == 0, "nothing was merged");
    println!(
        "{raced} pairs, {rounds} rounds in {} s each, bytes lost: 0",
        options.seconds
    );
    Ok(())
}

fn is_chosen(pair: &Pair, options: &Options) -> bool {
    options.pairs.is_empty() || options.pairs.iter().any(|name| name == pair.name)
}

/// Races a pair in a program of its own.
///
/// What a process has inherited may become a KSM page of its ancestors too, so none of them may
/// live on when everything is to be unmerged.
fn race_apart(pair: &Pair, options: &Options) -> Result<Outcome> {
    let done = Command::new("/proc/self/exe")
        .args(["--here", pair.name])
        .args(["--seed", &options.seed.to_string()])
        .args(["--seconds", &options.seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start a program of our own")?;
    let text = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        bail!("{}, seed {}: {text}", pair.name, options.seed);
    }
    Ok(serde_json::from_str(&text)?)
}

fn race_here(options: &Options) -> Result<()> {
    let pair = PAIRS.iter().find(|pair| is_chosen(pair, options));
    let pair = pair.context("there is no such pair")?;
    let outcome = pair.run(options.seed, Duration::from_secs(options.seconds))?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// How often windows were held open since the module was loaded.
fn held() -> Result<String> {
    if !delays::exist() {
        return Ok(String::new());
    }
    let held = delays::held()?;
    Ok(format!(
        ", windows held open {} times: {held:?}",
        held.iter().sum::<u64>()
    ))
}
