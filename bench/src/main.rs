// SPDX-License-Identifier: GPL-2.0

//! What KSM costs, one workload at a time, to be run as root inside a VM.
//!
//! `ksm-bench list` names the workloads. `ksm-bench run NAME` prints one line of JSON on standard
//! output, and the same for people on standard error.

mod cpu_clock;
mod fill;
mod footprint;
mod hold;
mod holder;
mod holds;
mod ksmd;
mod memory;
mod merging;
mod mixture;
mod paced;
mod report;
mod statistics;
mod workload;
mod workloads;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use ksm_tests::{
    own_settings::{self, Setting},
    MIB, PAGE_SIZE,
};

use report::Report;
use workload::{Memory, Plan};

#[derive(Parser)]
#[command(about = "Measures what KSM costs, to be run as root inside a VM")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Names the workloads.
    List,
    /// Holds memory that is scanned at a steady pace for a while.
    Hold(hold::Order),
    /// Runs one workload.
    Run {
        workload: String,

        /// Amount of memory that is offered to KSM.
        #[arg(long, default_value_t = 256)]
        mib: usize,

        /// How often to repeat a scan that is measured.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        scans: u32,

        /// How often to repeat what happens once, such as merging.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,

        /// Write to all memory first, so that nothing has to wait for a host to provide it.
        #[arg(long)]
        touch: bool,

        /// Have a file of `/sys/kernel/mm/ksm_rs` set to another value than its default.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        settings: Vec<Setting>,
    },
}

fn list() {
    for workload in workloads::ALL {
        println!("{}\t{}", workload.name, workload.what);
    }
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::List => {
            list();
            Ok(())
        }
        Command::Hold(order) => hold::hold(&order),
        Command::Run {
            workload,
            mib,
            scans,
            rounds,
            touch,
            settings,
        } => {
            own_settings::want(settings);
            if touch {
                memory::touch_all()?;
            }
            let plan = Plan {
                pages: mib * MIB / PAGE_SIZE,
                scans: scans as usize,
                rounds: rounds as usize,
                memory: Memory::SmallPages,
            };
            run(&workload, mib, &plan)
        }
    }
}

fn run(name: &str, mib: usize, plan: &Plan) -> Result<()> {
    let workload = workloads::ALL
        .iter()
        .find(|workload| workload.name == name)
        .with_context(|| format!("there is no workload {name}: see ksm-bench list"))?;
    let measures = (workload.run)(plan)?;
    Report::new(workload.name, mib, plan.pages, measures).print()
}
