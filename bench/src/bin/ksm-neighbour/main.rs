// SPDX-License-Identifier: GPL-2.0

//! A program that needs the caches or the memory that a scan uses as well, to be run on the host beside a VM.
//!
//! Prints one line of JSON: quantiles of the time that a piece of its work has taken.

mod chase;
mod quantiles;
mod stream;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

#[derive(Parser)]
#[command(about = "Measures how much slower a program gets beside a scan")]
struct Arguments {
    #[arg(value_enum)]
    kind: Kind,

    /// Memory that it works on.
    #[arg(long)]
    mib: usize,

    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Follow pointers, each to somewhere else.
    Chase,
    /// Read all of it, from the beginning to the end, again and again.
    Stream,
}

fn main() -> Result<()> {
    let Arguments { kind, mib, seconds } = Arguments::parse();
    let (bytes, time) = (mib << 20, Duration::from_secs_f64(seconds));
    let pieces = match kind {
        Kind::Chase => chase::run(bytes, time)?,
        Kind::Stream => stream::run(bytes, time)?,
    };
    println!(
        "{}",
        serde_json::to_string(&quantiles::Quantiles::of(pieces)?)?
    );
    Ok(())
}
