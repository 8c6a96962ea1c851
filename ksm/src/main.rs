// SPDX-License-Identifier: GPL-2.0

//! `ksm`: Kernel Samepage Merging for administrators.
//!
//! It works with the kernel's own KSM and with `ksm_rs`.

#![deny(unsafe_code)]

mod cli;
mod commands;
mod estimate;
mod heat_map;
mod kernel;
mod pages;
mod pairs;
mod processes;
mod settings;
mod sharing;
mod statistics;
mod tables;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ksm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Set(set) => commands::set::run(set, cli.json),
        Command::Estimate(estimate) => commands::estimate::run(estimate, cli.json),
        Command::Sharing(sharing) => commands::sharing::run(sharing, cli.json),
        Command::Top(top) => commands::top::run(top, cli.json),
        Command::Completions { shell } => commands::generated::completions(*shell),
        Command::Manuals { directory } => commands::generated::manuals(directory),
    }
}
