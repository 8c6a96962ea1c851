// SPDX-License-Identifier: GPL-2.0

//! `prctl(PR_SET_MEMORY_MERGE)`: offering all memory of a process to KSM.

use nix::{errno::Errno, Result};

fn prctl(option: i32, argument: u64, rest: u64) -> Result<i32> {
    // SAFETY: Both options take integers only.
    Errno::result(unsafe { libc::prctl(option, argument, rest, 0u64, 0u64) })
}

/// Turns it on or off for this process.
pub fn set(on: bool) -> Result<()> {
    prctl(libc::PR_SET_MEMORY_MERGE, on.into(), 0).map(drop)
}

/// True if it is on for this process.
pub fn get() -> Result<bool> {
    prctl(libc::PR_GET_MEMORY_MERGE, 0, 0).map(|on| on != 0)
}

/// Turns it on with an argument that the call does not have.
pub fn set_with_stray_argument() -> Result<()> {
    prctl(libc::PR_SET_MEMORY_MERGE, 1, 1).map(drop)
}
