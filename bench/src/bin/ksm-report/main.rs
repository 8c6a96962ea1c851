// SPDX-License-Identifier: GPL-2.0

//! Draws what `make bench` has measured. Runs on the host, unlike the benchmark itself.

mod bars;
mod growth;
mod results;
mod rows;
mod shares;
mod style;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use results::Results;

#[derive(Parser)]
#[command(about = "Draws the results of a benchmark, as SVG files beside them")]
struct Options {
    /// Where the results are.
    directory: PathBuf,

    /// The lane that they are from.
    #[arg(long, default_value = "um")]
    lane: String,

    /// The amount of memory for which workloads are compared; by default the one of which there
    /// are most.
    #[arg(long)]
    mib: Option<usize>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let results = Results::load(&options.directory, &options.lane)?;
    let mib = options.mib.or(results.usual_size());
    let mib = mib.context("there are no results")?;
    let (suffix, unit) = match options.lane.as_str() {
        "um" => (String::new(), "nanoseconds"),
        // Where a CPU is emulated, its clock counts instructions.
        lane => (format!("-{lane}"), "instructions"),
    };
    let file = |name| options.directory.join(format!("{name}{suffix}.svg"));
    bars::ratios(&file("ratios"), &results, mib)?;
    bars::costs(&file("cost"), &results, mib, unit)?;
    shares::shares(&file("mixed"), &results, mib)?;
    growth::growth(&file("growth"), &results)
}
