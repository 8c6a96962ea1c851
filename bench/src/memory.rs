// SPDX-License-Identifier: GPL-2.0

//! The VM's memory, before anything is measured.

use std::{fs::File, io::Write};

use anyhow::{Context, Result};
use ksm_tests::{procfs, MIB, PAGE_SIZE};
use nix::sys::memfd::{memfd_create, MFdFlags};

/// Of the free memory, what is left alone, so that nothing else has to go.
const LEFT_ALONE: usize = 10;

/// Writes to nearly all free memory once.
///
/// The host of User Mode Linux gives it a page when it first writes there, which takes longer than
/// most of what is to be measured. A file in memory is written by the kernel, without a page fault
/// for each page, and those are dear there.
pub fn touch_all() -> Result<()> {
    let free = procfs::free_pages()? as usize * PAGE_SIZE;
    let file = memfd_create(c"touched", MFdFlags::empty()).context("memfd_create")?;
    let mut file = File::from(file);
    let zeros = vec![0; MIB];
    for _ in 0..(free - free / LEFT_ALONE) / MIB {
        file.write_all(&zeros).context("cannot touch all memory")?;
    }
    Ok(())
}
