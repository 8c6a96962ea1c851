// SPDX-License-Identifier: GPL-2.0

//! The directories in which KSM shows itself.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};

/// The place of kernel objects that have to do with memory.
const MM: &str = "/sys/kernel/mm";

/// The directories that can have a file of KSM: that of any KSM, and that of `ksm_rs`.
const DIRECTORIES: [&str; 2] = ["ksm", "ksm_rs"];

/// The KSM of the running kernel.
pub struct Ksm {
    mm: PathBuf,
}

impl Ksm {
    /// Finds KSM.
    ///
    /// # Errors
    ///
    /// The kernel has none, or has none until a module is loaded.
    pub fn open() -> Result<Self> {
        Self::below(Path::new(MM))
    }

    /// As [`Ksm::open`], with another directory in place of `/sys/kernel/mm`.
    pub fn below(mm: &Path) -> Result<Self> {
        if !mm.join("ksm/run").exists() {
            bail!(
                "there is no {}: load the module (modprobe ksm_rs), or use a kernel with CONFIG_KSM",
                mm.join("ksm").display()
            );
        }
        Ok(Self { mm: mm.into() })
    }

    /// The value of a file, without its newline; `None` if this KSM has no such file.
    pub fn read(&self, name: &str) -> Result<Option<String>> {
        let Some(path) = self.path(name) else {
            return Ok(None);
        };
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(text.trim_end().to_owned()))
    }

    /// Writes a value to a file.
    ///
    /// # Errors
    ///
    /// This KSM has no such file; the kernel refuses the value; only root may write.
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        let Some(path) = self.path(name) else {
            bail!("this KSM has no {name}");
        };
        fs::write(&path, format!("{value}\n")).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::PermissionDenied => " (are you root?)",
                _ => "",
            };
            anyhow::Error::new(error)
                .context(format!("cannot write {value} to {}{hint}", path.display()))
        })
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let mut candidates = DIRECTORIES
            .iter()
            .map(|directory| self.mm.join(directory).join(name));
        candidates.find(|path| path.exists())
    }
}
