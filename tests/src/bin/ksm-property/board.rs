// SPDX-License-Identifier: GPL-2.0

//! Where all processes read the bytes that one of them is to write, or to find.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    process,
};

use anyhow::{Context, Result};

/// A file in memory that processes inherit. No scanner looks at it.
pub struct Board(File);

impl Board {
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("ksm-property-{}", process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        fs::remove_file(&path)?;
        Ok(Self(file))
    }

    /// The same file, for another user in this process.
    pub fn another(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Shows these bytes in place of those before.
    pub fn show(&self, bytes: &[u8]) -> Result<()> {
        self.0.write_all_at(bytes, 0).context("writing the board")
    }

    /// The first `length` bytes that are shown.
    pub fn read(&self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0
            .read_exact_at(&mut bytes, 0)
            .context("reading the board")?;
        Ok(bytes)
    }
}
