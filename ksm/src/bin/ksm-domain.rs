// SPDX-License-Identifier: GPL-2.0

//! `ksm-domain`: starts a program in a domain, within which alone KSM merges its pages.

#![deny(unsafe_code)]

use std::{
    ffi::OsString, fmt, fs, io::ErrorKind, os::unix::process::CommandExt, process::Command,
    str::FromStr,
};

use anyhow::{anyhow, Context, Result};
use clap::Parser;

/// The file by which a process tells its domain.
const FILE: &str = "/proc/self/ksm_domain";

/// Starts a program in a domain: KSM merges its pages only with those of processes of the same domain.
///
/// The program and all that it starts stay in the domain. To enter a domain by its number takes
/// CAP_SYS_RESOURCE; anybody may be private.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The number of the domain, 0 for that of the host, or "private" for a new domain.
    domain: Domain,

    /// The program and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Domain {
    Number(u32),
    Private,
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "private" => Ok(Domain::Private),
            number => number
                .parse()
                .map(Domain::Number)
                .map_err(|_| format!("not \"private\" nor a number from 0 to {}", u32::MAX)),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Domain::Number(number) => number.fmt(f),
            Domain::Private => f.write_str("private"),
        }
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    enter(&cli.domain)?;
    let (program, arguments) = cli.command.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.to_string_lossy()))
}

fn enter(domain: &Domain) -> Result<()> {
    fs::write(FILE, domain.to_string()).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::NotFound => "this kernel has no domains",
            ErrorKind::PermissionDenied => "that takes CAP_SYS_RESOURCE",
            _ => return anyhow!(error).context(format!("cannot enter the domain {domain}")),
        };
        anyhow!("cannot enter the domain {domain}: {reason}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_numbers_or_private() {
        assert_eq!("0".parse(), Ok(Domain::Number(0)));
        assert_eq!("4294967295".parse(), Ok(Domain::Number(u32::MAX)));
        assert_eq!("private".parse(), Ok(Domain::Private));
        for text in ["", "-1", "4294967296", "Private", "1 "] {
            assert!(text.parse::<Domain>().is_err());
        }
    }
}
