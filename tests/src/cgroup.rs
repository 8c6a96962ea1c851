// SPDX-License-Identifier: GPL-2.0

//! Control groups with a limit on memory.

use std::{fmt, fs, path::PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use crate::control_file;

const ROOT: &str = "/sys/fs/cgroup";

/// A group of processes; removed when dropped, if it is empty by then.
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// A new group, of which memory is accounted.
    pub fn new(name: &str) -> Result<Self> {
        control_file::write(
            PathBuf::from(ROOT).join("cgroup.subtree_control"),
            "+memory",
        )?;
        let directory = PathBuf::from(ROOT).join(name);
        // One of that name that another program has left here when it ended.
        let _ = fs::remove_dir(&directory);
        fs::create_dir(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Moves a process here; what it allocates from now on counts.
    pub fn add(&self, process: Pid) -> Result<()> {
        control_file::write(self.directory.join("cgroup.procs"), process)
    }

    /// Limits the group to so many bytes, or to `max`.
    pub fn limit(&self, bytes: impl fmt::Display) -> Result<()> {
        control_file::write(self.directory.join("memory.max"), bytes)
    }

    /// Bytes in use.
    pub fn usage(&self) -> Result<usize> {
        control_file::read(self.directory.join("memory.current"))
    }

    /// Limits the group's use of swap to so many bytes, or to `max`.
    pub fn limit_swap(&self, bytes: impl fmt::Display) -> Result<()> {
        control_file::write(self.directory.join("memory.swap.max"), bytes)
    }

    /// Reclaims up to so many bytes of the group's memory, as much as can be.
    pub fn reclaim(&self, bytes: usize) {
        self.refresh();
        // An error says that it was less, which its caller sees in other ways.
        let _ = fs::write(self.directory.join("memory.reclaim"), bytes.to_string());
    }

    /// As [`Cgroup::reclaim`], but leaves the pages of files alone.
    pub fn reclaim_anonymous(&self, bytes: usize) {
        self.refresh();
        let order = format!("{bytes} swappiness=max");
        // As above.
        let _ = fs::write(self.directory.join("memory.reclaim"), order);
    }

    /// Brings most of the group's statistics up to date, as a reader of them does. Reclaim goes by
    /// them: it would not see that all that is left is active.
    fn refresh(&self) {
        // There will be another try.
        let _ = self.statistic("anon");
    }

    /// How often an event of `memory.events` has happened.
    pub fn events(&self, name: &str) -> Result<u64> {
        self.line_of("memory.events", name)
    }

    /// A line of `memory.stat`. The kernel brings small changes up to date every two seconds, by a
    /// timer that no idle CPU is woken for: not to sleep for, but to be looked at again and again.
    pub fn statistic(&self, name: &str) -> Result<u64> {
        self.line_of("memory.stat", name)
    }

    fn line_of(&self, file: &str, name: &str) -> Result<u64> {
        let text = control_file::read_text(self.directory.join(file))?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .with_context(|| format!("{file} has no {name}"))
    }
}

/// Moves a process to the group that has no limits.
pub fn leave(process: Pid) -> Result<()> {
    control_file::write(PathBuf::from(ROOT).join("cgroup.procs"), process)
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The processes in it may not be reaped yet; a group more does no harm.
        let _ = fs::remove_dir(&self.directory);
    }
}
