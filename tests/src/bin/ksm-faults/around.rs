// SPDX-License-Identifier: GPL-2.0

//! Failures at random, while something else runs.

use std::process::Command;

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    faults::{self, Scope},
    procfs::Ksmd,
};

/// Lets so many percent of ksmd's allocations fail while the program runs, which must not notice.
pub fn run(percent: u32, program: &str, arguments: &[String]) -> Result<()> {
    faults::prepare(Scope::All)?;
    faults::fail_at_random(Ksmd::find()?.pid(), percent)?;
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    let failed = faults::end_failing()?;
    println!("{failed} allocations of ksmd have failed");
    ensure!(status.success(), "{program} ended with {status}");
    ensure!(failed > 0, "no allocation has failed");
    Ok(())
}
