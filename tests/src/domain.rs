// SPDX-License-Identifier: GPL-2.0

//! Domains: which processes may share pages, and which do.

use std::{collections::HashSet, fmt::Display};

use anyhow::{bail, Context, Result};

use crate::{control_file, ksm, pagemap, procfs};

/// The file that shows and sets the domain of a process.
fn file(pid: impl Display) -> String {
    format!("/proc/{pid}/ksm_domain")
}

/// The domain of a process.
pub fn of(pid: impl Display) -> Result<u64> {
    control_file::read(file(pid))
}

/// Moves a process into the domain `to`: a number, or "private".
pub fn set(pid: impl Display, to: impl Display) -> Result<()> {
    control_file::write(file(pid), to)
}

/// Sets which domains count: "shared", "marked" or "private".
pub fn set_rule(rule: &str) -> Result<()> {
    ksm::write_own("domains", rule)
}

/// Which domains count.
pub fn rule() -> Result<String> {
    ksm::read_own("domains")
}

/// The frames of all mergeable memory of a process.
pub fn frames(pid: impl Display) -> Result<HashSet<u64>> {
    Ok(frames_in_order(pid)?.into_iter().collect())
}

/// The same, in the order of addresses, without pages that have none.
pub fn frames_in_order(pid: impl Display) -> Result<Vec<u64>> {
    let pid: u32 = pid.to_string().parse()?;
    let mut frames = Vec::new();
    for range in procfs::mergeable_ranges(pid)? {
        frames.extend(pagemap::frames_of(pid, &range)?.into_iter().flatten());
    }
    Ok(frames)
}

/// How many frames two processes have in common.
pub fn common_frames(left: impl Display, right: impl Display) -> Result<usize> {
    Ok(frames(left)?.intersection(&frames(right)?).count())
}

/// How many KSM pages two processes have in common; by a fork they may have others.
pub fn common_ksm_frames(left: impl Display, right: impl Display) -> Result<usize> {
    let mut common = 0;
    for frame in frames(left)?.intersection(&frames(right)?) {
        common += usize::from(pagemap::is_ksm(*frame)?);
    }
    Ok(common)
}

/// Fails if two of the processes have frames in common.
pub fn ensure_apart<P: Display + Copy>(pids: &[P]) -> Result<()> {
    for (index, left) in pids.iter().enumerate() {
        for right in &pids[index + 1..] {
            let common = common_frames(left, right)?;
            if common > 0 {
                bail!("{left} and {right} share {common} frames");
            }
        }
    }
    Ok(())
}

/// The error number of the system call that a failure began with.
pub fn errno(failure: &anyhow::Error) -> Option<i32> {
    failure.chain().find_map(|cause| {
        let error = cause.downcast_ref::<std::io::Error>()?;
        error.raw_os_error()
    })
}

/// Fails unless `result` is this error.
pub fn ensure_errno<T>(result: Result<T>, expected: nix::errno::Errno) -> Result<()> {
    let failure = result.err().context("it succeeded")?;
    match errno(&failure) {
        Some(number) if number == expected as i32 => Ok(()),
        other => bail!("{other:?}, not {expected}: {failure:#}"),
    }
}
