// SPDX-License-Identifier: GPL-2.0

//! `ksm why`: why are pages of a process not merged?

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::{
    reasons::{self, Reasons},
    states::{states, States},
    tables::bytes,
};

/// All that is known of the pages of a process.
#[derive(Serialize)]
struct Account {
    #[serde(flatten)]
    states: States,
    /// Of the pages that are not merged. Only `ksm_rs` tells.
    reasons: Option<Reasons>,
}

/// Sorts all pages of a process by what KSM can do with them.
///
/// # Errors
///
/// There is no such process; only root may see frames.
pub fn run(pid: i32, json: bool, out: &mut dyn Write) -> Result<()> {
    let account = Account {
        states: states(pid)?,
        reasons: reasons::of(pid)?,
    };
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&account)?)?,
        false => print(&account, out)?,
    }
    Ok(())
}

fn print(account: &Account, out: &mut dyn Write) -> Result<()> {
    let states = &account.states;
    line(out, states.merged, "merged")?;
    line(out, states.zero_page, "the kernel's zero page")?;
    line(out, states.not_merged, "not merged")?;
    line(out, states.not_merged_huge, "not merged, in huge pages")?;
    match &account.reasons {
        Some(reasons) => print_reasons(states, reasons, out)?,
        None => writeln!(
            out,
            "{:>14}no equal, changing, in use, or passed over by the smart scan",
            ""
        )?,
    }
    line(
        out,
        states.not_advised,
        "not advised: madvise(MADV_MERGEABLE), prctl(PR_SET_MEMORY_MERGE)",
    )?;
    line(
        out,
        states.never,
        "of files, shared memory and devices: never merged",
    )?;
    line(out, states.swapped, "in swap: not looked at")?;
    line(out, states.sum(), "in all")
}

/// Why pages are not merged, one line below those that say how many they are.
fn print_reasons(states: &States, reasons: &Reasons, out: &mut dyn Write) -> Result<()> {
    let not_merged = states.not_merged + states.not_merged_huge;
    let lines = [
        (reasons.no_equal, "no equal"),
        (
            reasons.passed_over,
            "no equal for long: smart_scan passes over them now and then",
        ),
        (
            reasons.has_equal,
            "an equal, but one of both is in use, or the huge page is not worth a split",
        ),
        (reasons.changing, "new, or changing from scan to scan"),
        (
            not_merged.saturating_sub(reasons.sum()),
            "not met by a scan yet",
        ),
    ];
    for (pages, reason) in lines {
        writeln!(out, "{:>14}{:>10}  {reason}", "", bytes(pages))?;
    }
    Ok(())
}

fn line(out: &mut dyn Write, pages: u64, state: &str) -> Result<()> {
    Ok(writeln!(out, "{:>12}  {state}", bytes(pages))?)
}
