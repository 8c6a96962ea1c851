// SPDX-License-Identifier: GPL-2.0

//! Blocks of memory that can be taken offline.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{control_file, PAGE_SIZE};

const ALL: &str = "/sys/devices/system/memory";

/// How often a block is asked to go: what is in use for a moment makes the kernel give up.
const ATTEMPTS: usize = 5;

/// A directory of `/sys/devices/system/memory`.
pub struct Block {
    directory: PathBuf,
    frames: std::ops::Range<u64>,
}

impl Block {
    fn number(number: u64) -> Result<Self> {
        let size = control_file::read_text(format!("{ALL}/block_size_bytes"))?;
        let size = u64::from_str_radix(size.trim(), 16)? / PAGE_SIZE as u64;
        Ok(Self {
            directory: format!("{ALL}/memory{number}").into(),
            frames: number * size..(number + 1) * size,
        })
    }

    /// The block that `frame` lies in.
    pub fn of(frame: u64) -> Result<Self> {
        let pages = Self::number(0)?.frames.end;
        Self::number(frame / pages)
    }

    /// All blocks that can go offline, of which a kernel may have none.
    pub fn all_movable() -> Result<Vec<Self>> {
        let mut found = Vec::new();
        if !Path::new(ALL).exists() {
            return Ok(found);
        }
        for entry in fs::read_dir(ALL).context("cannot list the blocks of memory")? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("memory"));
            let Some(number) = number.and_then(|number| number.parse().ok()) else {
                continue;
            };
            let block = Self::number(number)?;
            if block.is_movable()? {
                found.push(block);
            }
        }
        Ok(found)
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The numbers of its page frames.
    pub fn frames(&self) -> &std::ops::Range<u64> {
        &self.frames
    }

    /// True if it is there, and all that lies in it can move elsewhere.
    pub fn is_movable(&self) -> Result<bool> {
        let path = self.directory.join("valid_zones");
        Ok(path.exists() && control_file::read_text(path)?.contains("Movable"))
    }

    /// Takes it offline; may be refused.
    pub fn take_offline(&self) -> Result<()> {
        self.set_state("offline")
    }

    /// Gives it back, for what can move.
    pub fn bring_online(&self) -> Result<()> {
        self.set_state("online_movable")
    }

    fn set_state(&self, state: &str) -> Result<()> {
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            result = control_file::write(self.directory.join("state"), state);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}
