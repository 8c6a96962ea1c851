// SPDX-License-Identifier: GPL-2.0

//! The kernel's module `test_lockup`, which holds the mmap lock of the process that loads it.
//!
//! That stands for all that can take so long under this lock: a FUSE server that does not answer an
//! mmap, for one.

use std::{env, ffi::CString, fs, path::PathBuf};

use anyhow::{bail, ensure, Context, Result};
use nix::{errno::Errno, kmod::init_module};

use crate::module;

/// The module's image; see the [module's description](self).
pub struct Lockup(Vec<u8>);

impl Lockup {
    /// Reads the module, whose file the VM runner names; nothing if this kernel cannot load it.
    pub fn open() -> Result<Option<Self>> {
        let Some(path) = env::var_os("KSM_TEST_LOCKUP_KO").map(PathBuf::from) else {
            return Ok(None);
        };
        let lockup =
            Self(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        match lockup.load("")? {
            Errno::EAGAIN => Ok(Some(lockup)),
            // User Mode Linux with much memory loads modules above the first 2 GiB of addresses, for
            // which this one is not compiled.
            Errno::ENOEXEC => Ok(None),
            error => Err(error).context("test_lockup"),
        }
    }

    /// Holds the mmap lock of this process for so many seconds.
    pub fn hold_mmap_lock(&self, seconds: u32) -> Result<()> {
        let error = self.load(&format!("lock_mmap_sem=1 state=S time_secs={seconds}"))?;
        ensure!(error == Errno::EAGAIN, "test_lockup: {error}");
        Ok(())
    }

    /// Loads the module. Its initialisation does all, and then fails, so that nobody need unload it.
    fn load(&self, arguments: &str) -> Result<Errno> {
        match init_module(&self.0, &CString::new(arguments)?) {
            Err(error) => Ok(error),
            Ok(()) => bail!("test_lockup was loaded"),
        }
    }

    /// Whether some process is in [`Lockup::hold_mmap_lock`], or about to be.
    pub fn is_held() -> Result<bool> {
        module::is_known("test_lockup")
    }
}
