// SPDX-License-Identifier: GPL-2.0

//! Files through which the kernel is told things, and asked.

use std::{fmt, fs, path::Path, str::FromStr};

use anyhow::{anyhow, Context, Result};

/// Writes a value and a newline.
pub fn write(path: impl AsRef<Path>, value: impl fmt::Display) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, format!("{value}\n"))
        .with_context(|| format!("cannot write {value} to {}", path.display()))
}

/// Reads all of a file.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a file that holds one value.
pub fn read<T: FromStr>(path: impl AsRef<Path>) -> Result<T> {
    let path = path.as_ref();
    let text = read_text(path)?;
    text.trim()
        .parse()
        .map_err(|_| anyhow!("{} holds no such value but {text:?}", path.display()))
}
