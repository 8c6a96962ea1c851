// SPDX-License-Identifier: GPL-2.0

//! `ksm why`: why are pages of a process not merged?

use std::io::Write;

use anyhow::Result;

use crate::{
    states::{states, States},
    tables::bytes,
};

/// Sorts all pages of a process by what KSM can do with them.
///
/// # Errors
///
/// There is no such process; only root may see frames.
pub fn run(pid: i32, json: bool, out: &mut dyn Write) -> Result<()> {
    let states = states(pid)?;
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&states)?)?,
        false => print(&states, out)?,
    }
    Ok(())
}

fn print(states: &States, out: &mut dyn Write) -> Result<()> {
    let lines = [
        (states.merged, "merged"),
        (states.zero_page, "the kernel's zero page"),
        (
            states.not_merged,
            "not merged: no equal, changing, in use, or skipped by the smart scan",
        ),
        (
            states.not_merged_huge,
            "not merged, in huge pages: the same",
        ),
        (
            states.not_advised,
            "not advised: madvise(MADV_MERGEABLE), prctl(PR_SET_MEMORY_MERGE)",
        ),
        (
            states.never,
            "of files, shared memory and devices: never merged",
        ),
        (states.swapped, "in swap: not looked at"),
    ];
    for (pages, state) in lines {
        writeln!(out, "{:>12}  {state}", bytes(pages))?;
    }
    let all: u64 = lines.iter().map(|(pages, _)| pages).sum();
    writeln!(out, "{:>12}  in all", bytes(all))?;
    Ok(())
}
