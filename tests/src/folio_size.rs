// SPDX-License-Identifier: GPL-2.0

//! Which sizes of large folios the kernel gives to anonymous memory.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::control_file;

const DIRECTORY: &str = "/sys/kernel/mm/transparent_hugepage";

/// The size of a huge page, in KiB, which is the default.
pub const HUGE_PAGE_KIB: usize = 2048;

/// Whether the kernel has large folios of this size, in KiB.
pub fn is_there(kib: usize) -> bool {
    file(kib, "enabled").exists()
}

/// Has all memory consist of folios of this size, in KiB, as far as it can: none of another one. With the
/// size of a huge page these are for those who ask for them.
pub fn use_only(kib: usize) -> Result<()> {
    for entry in fs::read_dir(DIRECTORY).context(DIRECTORY)? {
        let enabled = entry?.path().join("enabled");
        if enabled.exists() {
            control_file::write(enabled, "never")?;
        }
    }
    let mode = if kib == HUGE_PAGE_KIB {
        "inherit"
    } else {
        "always"
    };
    control_file::write(file(kib, "enabled"), mode)
}

/// How many folios of this size, in KiB, there are.
pub fn count(kib: usize) -> Result<usize> {
    control_file::read(file(kib, "stats/nr_anon"))
}

fn file(kib: usize, name: &str) -> PathBuf {
    PathBuf::from(format!("{DIRECTORY}/hugepages-{kib}kB/{name}"))
}
