// SPDX-License-Identifier: GPL-2.0

//! Memory that the kernel uses for itself, to find what grows.

use std::{fmt, fs};

use anyhow::{ensure, Context, Result};

use crate::{memory_detail::MemoryDetail, procfs, PAGE_SIZE};

/// What the kernel uses for itself, in KiB, but for the tables of its per-CPU allocator: these take
/// megabytes for each chunk, which stays while anybody has a few bytes there, such as a memory
/// cgroup that is gone but for its pages. Modules have no say in when there is another.
#[derive(Debug, Clone, Copy)]
pub struct MemoryUse {
    /// All that is not free.
    pub total: i64,
    /// Objects that cannot be reclaimed.
    pub slab: i64,
    /// Modules, among others.
    pub vmalloc: i64,
}

impl MemoryUse {
    /// Now, after everything was dropped that can be read or computed again.
    pub fn now() -> Result<Self> {
        fs::write("/proc/sys/vm/drop_caches", "3\n").context("drop_caches")?;
        shrink_slabs()?;
        let tables = percpu_tables_kib()?;
        Ok(Self {
            total: procfs::meminfo_kib("MemTotal")? - free_kib()? - tables,
            slab: procfs::meminfo_kib("SUnreclaim")?,
            vmalloc: procfs::meminfo_kib("VmallocUsed")? - tables,
        })
    }

    /// Fails if more is in use `after` than now, beyond a `tolerance` for what others do.
    pub fn ensure_no_growth(&self, after: &Self, tolerance: &Self) -> Result<()> {
        for (what, growth, tolerance) in [
            ("memory in use", after.total - self.total, tolerance.total),
            ("slab", after.slab - self.slab, tolerance.slab),
            ("vmalloc", after.vmalloc - self.vmalloc, tolerance.vmalloc),
        ] {
            ensure!(growth <= tolerance, "{what} grew by {growth} KiB");
        }
        Ok(())
    }
}

impl fmt::Display for MemoryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            total,
            slab,
            vmalloc,
        } = self;
        write!(f, "{total} KiB in use, slab {slab}, vmalloc {vmalloc}")
    }
}

/// Free memory, with what each CPU keeps in lists of its own, which may be a sixteenth of all.
fn free_kib() -> Result<i64> {
    Ok(procfs::free_pages()? as i64 * (PAGE_SIZE / 1024) as i64)
}

fn percpu_tables_kib() -> Result<i64> {
    Ok(MemoryDetail::now()?.kib("vmalloc pcpu_create_chunk"))
}

/// Gives back empty slabs, and freed objects that KASAN keeps to see whether they are used.
fn shrink_slabs() -> Result<()> {
    let caches = match fs::read_dir("/sys/kernel/slab") {
        // A small kernel does without these files.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        caches => caches.context("cannot list slab caches")?,
    };
    for cache in caches {
        let file = cache?.path().join("shrink");
        fs::write(&file, "1").with_context(|| format!("cannot write to {}", file.display()))?;
    }
    Ok(())
}
