// SPDX-License-Identifier: GPL-2.0

//! Block devices of compressed memory, and swap on them.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Command,
};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

use crate::{control_file, wait};

/// The one device that the kernel makes by itself.
const DEVICE: &str = "/dev/zram0";
const DIRECTORY: &str = "/sys/block/zram0";

/// True if this kernel has such a device.
pub fn is_available() -> bool {
    Path::new(DIRECTORY).exists()
}

/// A block device of the given size; reset when dropped.
pub struct Zram(());

impl Zram {
    /// Sets the device up.
    pub fn new(bytes: usize) -> Result<Self> {
        control_file::write(format!("{DIRECTORY}/disksize"), bytes)?;
        Ok(Self(()))
    }

    /// Opens the device so that it reads and writes the callers' pages themselves.
    pub fn open_direct(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(DEVICE)
            .context("cannot open the device")
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        // Where there is a udev, it may be looking at the device.
        let reset = || Ok(control_file::write(format!("{DIRECTORY}/reset"), 1).ok());
        let _ = wait::until("the device to be at rest", reset);
    }
}

/// Swap space; ended when dropped.
pub struct Swap {
    path: CString,
    _device: Zram,
}

impl Swap {
    /// Begins to swap to a new device.
    pub fn on(bytes: usize) -> Result<Self> {
        let device = Zram::new(bytes)?;
        let made = Command::new("/sbin/mkswap")
            .arg(DEVICE)
            .output()
            .context("mkswap")?;
        ensure!(
            made.status.success(),
            "mkswap: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let path = CString::new(DEVICE)?;
        // SAFETY: The path is a string that lives on.
        Errno::result(unsafe { libc::swapon(path.as_ptr(), 0) }).context("swapon")?;
        Ok(Self {
            path,
            _device: device,
        })
    }

    /// Ends swapping: everything comes back into memory.
    pub fn off(self) -> Result<()> {
        self.stop().context("swapoff")
    }

    fn stop(&self) -> nix::Result<()> {
        // SAFETY: The path is a string that lives on.
        Errno::result(unsafe { libc::swapoff(self.path.as_ptr()) }).map(drop)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // Fails after `off`, and has nothing to do then.
        let _ = self.stop();
    }
}

/// The switch of zswap.
const ZSWAP: &str = "/sys/module/zswap/parameters/enabled";

/// Pages on their way to swap are kept in memory, compressed; as before when dropped.
pub struct Zswap(());

impl Zswap {
    /// Begins to keep them; `None` if this kernel has no zswap.
    pub fn on() -> Result<Option<Self>> {
        if !Path::new(ZSWAP).exists() {
            return Ok(None);
        }
        control_file::write(ZSWAP, "Y")?;
        Ok(Some(Self(())))
    }
}

impl Drop for Zswap {
    fn drop(&mut self) {
        // The VM ends soon in any case.
        let _ = control_file::write(ZSWAP, "N");
    }
}
