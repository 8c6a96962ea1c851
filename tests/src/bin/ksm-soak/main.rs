// SPDX-License-Identifier: GPL-2.0

//! All that may happen to memory, for as long as one likes, in rounds: the case `soak-full`,
//! random sequences of `ksm-property`, then the module is unloaded and must have left nothing.

mod program;
mod round;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{ensure, Context, Result};
use clap::Parser;
use ksm_tests::{
    memory_detail::MemoryDetail, memory_use::MemoryUse, module, outcome::exit_code, procfs,
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use round::{Done, Round};

#[derive(Parser)]
#[command(about = "A long run of everything, as root inside a VM with the module loaded")]
struct Options {
    /// Begins no round after so many seconds.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,

    /// Seconds that each of the two programs takes in a round.
    #[arg(long, default_value_t = 60)]
    turn: u64,

    /// Where random numbers begin.
    #[arg(long)]
    seed: u64,

    /// Directory of sequences that have failed: tried first, and added to.
    #[arg(long)]
    regressions: Option<PathBuf>,
}

/// Growth that is laid to other parts of the kernel, in KiB. In an hour of the x86 debug kernel they
/// take up to 4.5 MiB of slab, kmemleak's records first, and 3 MiB beside it. The module's own slab
/// caches may not be there at all, and whatever else it has lost kmemleak sees.
const TOLERANCE: MemoryUse = MemoryUse {
    total: 12288,
    slab: 6144,
    vmalloc: 256,
};

/// So many users of memory are named.
const GROWN: usize = 10;

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let file = module::file().context("$KSM_RS_KO is not set")?;
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let begin = Instant::now();
    let end = begin + Duration::from_secs(options.seconds);
    let mut done = Done::default();
    let mut first = None;
    for number in 1.. {
        let round = Round {
            seed: random.next_u64(),
            seconds: options.turn,
            regressions: options.regressions.as_deref(),
        };
        done += round
            .run(&file)
            .with_context(|| format!("round {number}, seed {}", round.seed))?;
        let now = Left::now()?;
        println!("  {:5} s: {done}; {}", begin.elapsed().as_secs(), now.sum);
        // The first round has filled the kernel's own caches, and is what others are compared with.
        let Some(first) = &first else {
            first = Some(now);
            continue;
        };
        if Instant::now() >= end {
            ensure_nothing_left(first, &now)?;
            break;
        }
    }
    println!("{done}, bytes lost: 0");
    Ok(())
}

/// Memory in use after a round.
struct Left {
    sum: MemoryUse,
    detail: MemoryDetail,
}

impl Left {
    fn now() -> Result<Self> {
        Ok(Self {
            sum: MemoryUse::now()?,
            detail: MemoryDetail::now()?,
        })
    }
}

fn ensure_nothing_left(first: &Left, last: &Left) -> Result<()> {
    println!("in use after the first rmmod: {}", first.sum);
    println!("in use after the last one:    {}", last.sum);
    for (user, kib) in first.detail.growth(&last.detail).into_iter().take(GROWN) {
        println!("  {user} has grown by {kib} KiB");
    }
    first.sum.ensure_no_growth(&last.sum, &TOLERANCE)?;
    let caches = procfs::slab_caches()?;
    let left: Vec<_> = caches
        .iter()
        .filter(|name| name.starts_with("ksm_rs"))
        .collect();
    ensure!(left.is_empty(), "slab caches are left: {left:?}");
    Ok(())
}
