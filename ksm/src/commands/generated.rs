// SPDX-License-Identifier: GPL-2.0

//! Files that follow from the command line, for packages.

use std::{io::Write, path::Path};

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints the completions for a shell.
pub fn completions(shell: Shell, mut out: &mut dyn Write) -> Result<()> {
    clap_complete::generate(shell, &mut Cli::command(), "ksm", &mut out);
    Ok(())
}

/// Writes a manual page for each command.
pub fn manuals(directory: &Path) -> Result<()> {
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("cannot write to {}", directory.display()))
}
