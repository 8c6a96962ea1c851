// SPDX-License-Identifier: GPL-2.0

//! `ksm sharing`: who shares with whom?

use std::io::Write;

use anyhow::{Context, Result};
use comfy_table::Table;

use crate::{
    cli::Sharing as Arguments,
    heat_map,
    processes::{self, domain},
    sharing::{sharing, Sharing},
    tables::{bytes, of_pairs, table, ROWS},
};

/// Says which processes share pages by KSM, and how much.
///
/// # Errors
///
/// A process that was asked for is not there; only root may see frames; the drawing cannot be written.
pub fn run(arguments: &Arguments, json: bool, out: &mut dyn Write) -> Result<()> {
    let found = sharing(processes::wanted(&arguments.pids)?)?;
    if let Some(path) = &arguments.svg {
        heat_map::draw(&found, path).with_context(|| format!("cannot draw {}", path.display()))?;
    }
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&found)?)?,
        false => print(&found, out)?,
    }
    Ok(())
}

fn print(found: &Sharing, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "{} of these processes are in {} of memory: KSM saves {}",
        bytes(found.pages),
        bytes(found.frames),
        bytes(found.pages - found.frames)
    )?;
    writeln!(
        out,
        "\n{}\n\n{}\n\n{}",
        of_processes(found),
        of_pairs(&found.pairs, "share"),
        largest(found)
    )?;
    Ok(())
}

fn of_processes(found: &Sharing) -> Table {
    let mut table = table(
        &[
            "PID",
            "name",
            "unit or container",
            "domain",
            "shares",
            "with itself only",
        ],
        4,
    );
    for of in found.processes.iter().take(ROWS) {
        table.add_row([
            of.process.pid.to_string(),
            of.process.name.clone(),
            of.process.group.clone().unwrap_or_default(),
            domain::text(of.process.domain),
            bytes(of.pages),
            bytes(of.alone),
        ]);
    }
    table
}

fn largest(found: &Sharing) -> Table {
    let mut table = table(
        &[
            "largest frames",
            "pages",
            "processes",
            "one is in PID",
            "at",
        ],
        1,
    );
    for frame in &found.largest {
        table.add_row([
            format!("{:#x}", frame.frame),
            frame.pages.to_string(),
            frame.processes.to_string(),
            frame.pid.to_string(),
            format!("{:#x}", frame.address),
        ]);
    }
    table
}
