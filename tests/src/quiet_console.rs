// SPDX-License-Identifier: GPL-2.0

//! Keeping expected reports off the console, where they would count as faults of the kernel.
//!
//! `tools/vm` looks at the console only, so a program that keeps it quiet has to look at the log.

use std::fs;

use anyhow::Result;

use crate::{control_file, kernel_log::KernelLog};

/// Keeps the kernel's reports of a lack of memory, which hold call traces, off the console.
pub struct QuietConsole {
    level: String,
    log: KernelLog,
}

impl QuietConsole {
    const LEVEL: &str = "/proc/sys/kernel/printk";
    const SHOW_ALL: &str = "/sys/module/printk/parameters/ignore_loglevel";

    /// From now on, until this is dropped.
    pub fn new() -> Result<Self> {
        let log = KernelLog::from_now()?;
        let level = control_file::read_text(Self::LEVEL)?;
        control_file::write(Self::LEVEL, 1)?;
        control_file::write(Self::SHOW_ALL, "N")?;
        Ok(Self { level, log })
    }

    /// Fails if the kernel has reported anything but a lack of memory since the last look, or more
    /// than its log has room for.
    pub fn check(&mut self) -> Result<()> {
        self.log.check()
    }
}

impl Drop for QuietConsole {
    fn drop(&mut self) {
        // If it stays quiet, the kernel's taint still tells of its warnings.
        let _ = fs::write(Self::LEVEL, &self.level);
        let _ = control_file::write(Self::SHOW_ALL, "Y");
    }
}
