// SPDX-License-Identifier: GPL-2.0

//! The kernel's injection of faults: allocations that fail on request.

use std::{
    fmt,
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{control_file, module};

const DEBUGFS: &str = "/sys/kernel/debug";

/// What can be made to fail: objects of a slab, and pages.
const ALLOCATORS: [&str; 2] = ["failslab", "fail_page_alloc"];

/// The module is the only one, and lies no farther than this from where it was loaded before.
const MODULE_REACH: u64 = 32 << 20;

/// More faults than any test injects.
const MANY: i64 = 1_000_000;

/// True if this kernel can fail on request.
pub fn is_available() -> bool {
    ALLOCATORS
        .iter()
        .all(|name| Path::new(DEBUGFS).join(name).exists())
        && Path::new("/proc/self/fail-nth").exists()
}

/// Which allocations count.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// All that a task makes.
    All,
    /// Those that the module makes, or is the cause of.
    Module,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all allocations",
            Self::Module => "allocations below the module",
        })
    }
}

fn set(allocator: &str, file: &str, value: impl fmt::Display) -> Result<()> {
    control_file::write(file_of(allocator, file), value)
}

fn file_of(allocator: &str, file: &str) -> PathBuf {
    [DEBUGFS, allocator, file].iter().collect()
}

/// Lets allocations of any kind fail without a word, if they are of that scope; the module must be
/// loaded.
pub fn prepare(scope: Scope) -> Result<()> {
    let (start, end) = match scope {
        Scope::All => (0, u64::MAX),
        Scope::Module => {
            let place = module::address()?.context("the module is not loaded")?;
            (place - MODULE_REACH, place + MODULE_REACH)
        }
    };
    for allocator in ALLOCATORS {
        set(allocator, "probability", 0)?;
        set(allocator, "times", MANY)?;
        set(allocator, "verbose", 0)?;
        set(allocator, "ignore-gfp-wait", "N")?;
        set(allocator, "stacktrace-depth", 32)?;
        set(allocator, "require-start", format_args!("{start:#x}"))?;
        set(allocator, "require-end", format_args!("{end:#x}"))?;
    }
    exclude_copies()?;
    set("fail_page_alloc", "ignore-gfp-highmem", "N")?;
    set("fail_page_alloc", "min-order", 0)
}

/// Sees to it that no copy from or to user space counts, if the kernel can let them fail.
fn exclude_copies() -> Result<()> {
    const COPIES: &str = "fail_usercopy";
    if Path::new(DEBUGFS).join(COPIES).exists() {
        // Nobody is called from there.
        set(COPIES, "require-start", 1)?;
        set(COPIES, "require-end", 2)?;
    }
    Ok(())
}

/// Lets so many percent of the allocations of one task fail, from now on.
pub fn fail_at_random(process: u32, percent: u32) -> Result<()> {
    control_file::write(format!("/proc/{process}/make-it-fail"), 1)?;
    for allocator in ALLOCATORS {
        set(allocator, "times", MANY)?;
        set(allocator, "task-filter", "Y")?;
        set(allocator, "probability", percent)?;
    }
    Ok(())
}

/// Ends [`fail_at_random`]; gives the number of allocations that have failed.
pub fn end_failing() -> Result<i64> {
    let mut failed = 0;
    for allocator in ALLOCATORS {
        set(allocator, "probability", 0)?;
        failed += MANY - control_file::read::<i64>(file_of(allocator, "times"))?;
    }
    Ok(failed)
}

/// Lets one allocation of a task fail.
pub struct Fuse(File);

impl Fuse {
    /// Of the thread that calls this.
    pub fn of_this_thread() -> Result<Self> {
        Self::open("thread-self")
    }

    /// Of another task.
    pub fn of(process: impl fmt::Display) -> Result<Self> {
        Self::open(process)
    }

    fn open(task: impl fmt::Display) -> Result<Self> {
        let path = format!("/proc/{task}/fail-nth");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(&path);
        Ok(Self(file.with_context(|| format!("cannot open {path}"))?))
    }

    /// From now on, the task's allocation number `nth` fails; the first one is 1.
    pub fn light(&self, nth: u32) -> Result<()> {
        let text = nth.to_string();
        // Nothing else may happen after this call.
        self.0.write_all_at(text.as_bytes(), 0).context("fail-nth")
    }

    /// Whether an allocation has failed; none will any more.
    pub fn put_out(&self) -> Result<bool> {
        let mut text = [0; 16];
        let length = self.0.read_at(&mut text, 0);
        self.0.write_all_at(b"0", 0).context("fail-nth")?;
        Ok(text[..length.context("fail-nth")?].trim_ascii() == b"0")
    }

    /// Calls `body`, whose allocation number `nth` fails, and tells whether it came to that.
    pub fn during<T>(&self, nth: u32, body: impl FnOnce() -> T) -> Result<(T, bool)> {
        self.light(nth)?;
        let result = body();
        Ok((result, self.put_out()?))
    }
}
