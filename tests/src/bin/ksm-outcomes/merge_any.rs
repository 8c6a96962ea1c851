// SPDX-License-Identifier: GPL-2.0

//! `prctl(PR_SET_MEMORY_MERGE)` and `prctl(PR_GET_MEMORY_MERGE)` with all kinds of arguments.

use anyhow::Result;
use ksm_tests::{merge_any, procfs::KsmStat};
use nix::errno::Errno;

use crate::outcome::{in_new_process, show, Row};

/// The four arguments after the option.
const ARGUMENTS: &[[u64; 4]] = &[
    [0, 0, 0, 0],
    [1, 0, 0, 0],
    [2, 0, 0, 0],
    [u64::MAX, 0, 0, 0],
    [1 << 63, 0, 0, 0],
    [1 << 32, 0, 0, 0],
    [1, 1, 0, 0],
    [1, 0, 1, 0],
    [1, 0, 0, 1],
    [0, 1, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 0, 1],
    [1, 0, 0, u64::MAX],
];

pub fn table() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for before in [false, true] {
        for (name, option) in [
            ("set", libc::PR_SET_MEMORY_MERGE),
            ("get", libc::PR_GET_MEMORY_MERGE),
        ] {
            for &arguments in ARGUMENTS {
                rows.extend(in_new_process(|| {
                    Ok(vec![attempt(before, name, option, arguments)?])
                })?);
            }
        }
    }
    Ok(rows)
}

fn attempt(before: bool, name: &str, option: i32, [a, b, c, d]: [u64; 4]) -> Result<Row> {
    merge_any::set(before)?;
    // SAFETY: Both options take integers only.
    let result = Errno::result(unsafe { libc::prctl(option, a, b, c, d) });
    Ok(Row {
        request: format!("prctl {name} ({a:#x}, {b:#x}, {c:#x}, {d:#x}) while {before}"),
        outcome: format!(
            "{}, then {} and {}",
            show(result),
            merge_any::get()?,
            KsmStat::read("self")?.merge_any
        ),
    })
}
