// SPDX-License-Identifier: GPL-2.0

//! Lets every allocation of every entry of the module fail, one at a time.
//!
//! Each time the entry must succeed, or fail with a documented error; no byte may change, all
//! numbers must be right, and the same must succeed when it is tried again. `ksm-faults -- COMMAND`
//! lets allocations of ksmd fail at random while COMMAND runs.

mod advice;
mod around;
mod attempt;
mod births;
mod domains;
mod entry;
mod files;
mod loading;
mod memory;
mod scanning;

use std::process::{Command, ExitCode, Stdio};

use anyhow::{ensure, Context, Result};
use clap::{Parser, ValueEnum};
use ksm_tests::{
    faults::{self, Scope},
    ksm::{self, Counters, Run},
    module,
    outcome::{exit_code, EXIT_SKIP},
    quiet_console::QuietConsole,
    wait,
};

use entry::{Entry, Tally};

#[derive(Parser)]
#[command(about = "Injection of faults into KSM, to be run as root inside a VM")]
struct Options {
    /// Only entries whose names contain one of these.
    #[arg(long)]
    only: Vec<String>,

    /// Which allocations are to fail.
    #[arg(long, value_enum, default_value_t = Scope::Module)]
    scope: Scope,

    /// How many percent of ksmd's allocations fail while COMMAND runs.
    #[arg(long, default_value_t = 10)]
    percent: u32,

    /// Walks the entry with this number in this process, and prints the outcome for the process
    /// that asked for it.
    #[arg(long, hide = true)]
    here: Option<usize>,

    /// Runs this while allocations of ksmd fail.
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(births::AFTER_EXEC) {
        return exit_code(births::after_exec());
    }
    let options = Options::parse();
    if !faults::is_available() || module::file().is_none() {
        println!("this kernel has no injection of faults, or no module");
        return ExitCode::from(EXIT_SKIP);
    }
    exit_code(match (options.here, options.command.split_first()) {
        (Some(index), _) => walk_here(index, options.scope),
        (_, Some((program, arguments))) => around::run(options.percent, program, arguments),
        _ => walk_all(&options),
    })
}

/// Entries of which the module is known to allocate memory: that none fails is a mistake of the
/// injection.
const ALLOCATE: &[&str] = &[
    "madvise",
    "prctl",
    "fork of",
    "run: 2",
    "ksm_domain",
    "ksmd: ",
];

fn walk_all(options: &Options) -> Result<()> {
    // The module asks quietly; the rest of the kernel reports what it cannot get.
    let mut quiet = (options.scope == Scope::All)
        .then(QuietConsole::new)
        .transpose()?;
    let (mut walked, mut faults) = (0, 0);
    for (index, entry) in all_entries().iter().enumerate() {
        if is_chosen(entry, options) {
            let tally = walk_apart(index, options).with_context(|| entry.name.clone())?;
            expect_nothing_left().with_context(|| entry.name.clone())?;
            if let Some(quiet) = &mut quiet {
                quiet.check().with_context(|| entry.name.clone())?;
            }
            let allocates = ALLOCATE.iter().any(|name| entry.name.starts_with(name));
            ensure!(
                !allocates || tally.faults > 0,
                "{}: no allocation has failed",
                entry.name
            );
            println!("{:<42} {tally}", entry.name);
            walked += 1;
            faults += tally.faults;
        }
    }
    ensure!(walked > 0, "there is no such entry");
    println!(
        "{walked} entries, {faults} faults ({}), bytes lost: 0",
        options.scope
    );
    Ok(())
}

fn is_chosen(entry: &Entry, options: &Options) -> bool {
    options.only.is_empty() || options.only.iter().any(|part| entry.name.contains(part))
}

/// Walks an entry in a program of its own.
///
/// What a process has inherited may become a KSM page of its ancestors too, so none of them may
/// live on when everything is to be unmerged.
fn walk_apart(index: usize, options: &Options) -> Result<Tally> {
    let scope = options.scope.to_possible_value();
    let done = Command::new("/proc/self/exe")
        .args(["--here", &index.to_string()])
        .args([
            "--scope",
            scope.as_ref().map_or("", |scope| scope.get_name()),
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start a program of our own")?;
    let text = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "{}", text.trim_end());
    Ok(serde_json::from_str(&text)?)
}

fn walk_here(index: usize, scope: Scope) -> Result<()> {
    let entries = all_entries();
    let entry = entries.get(index).context("there is no such entry")?;
    println!("{}", serde_json::to_string(&entry.walk(scope)?)?);
    Ok(())
}

/// Unmerges everything, after which the module can be unloaded, and is as new.
fn expect_nothing_left() -> Result<()> {
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    // The memory of processes that have ended may be freed by a work item a moment later.
    wait::until("a module that is not in use", || {
        ksm::set_run(Run::Unmerge)?;
        Ok(module::try_unload().ok())
    })?;
    module::load(&module::file().context("$KSM_RS_KO is not set")?)
}

fn all_entries() -> Vec<Entry> {
    [
        advice::entries(),
        births::entries(),
        files::entries(),
        domains::entries(),
        scanning::entries(),
        loading::entries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
