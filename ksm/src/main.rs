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
mod reasons;
mod settings;
mod sharing;
mod states;
mod statistics;
mod tables;

use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match run(&Cli::parse(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads on, as with `ksm sharing | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ksm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn run(cli: &Cli, out: &mut dyn Write) -> anyhow::Result<()> {
    match &cli.command {
        Command::Set(set) => commands::set::run(set, cli.json, out),
        Command::Estimate(estimate) => commands::estimate::run(estimate, cli.json, out),
        Command::Sharing(sharing) => commands::sharing::run(sharing, cli.json, out),
        Command::Top(top) => commands::top::run(top, cli.json, out),
        Command::Why { pid } => commands::why::run(*pid, cli.json, out),
        Command::Completions { shell } => commands::generated::completions(*shell, out),
        Command::Manuals { directory } => commands::generated::manuals(directory),
    }
}
