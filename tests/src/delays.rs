// SPDX-License-Identifier: GPL-2.0

//! The module's windows of races, which a kernel for the injection of faults can hold open.

use std::path::Path;

use anyhow::{Context, Result};

use crate::control_file;

const DIRECTORY: &str = "/sys/kernel/debug/ksm_rs";

/// True if the module has windows that can be held open.
pub fn exist() -> bool {
    Path::new(DIRECTORY).join("max_us").exists()
}

/// Holds each window open at one in `one_in` passings, for up to `max_us` microseconds.
pub fn set(seed: u64, one_in: u32, max_us: u32) -> Result<()> {
    for (file, value) in [
        ("seed", seed),
        ("one_in", one_in.into()),
        ("max_us", max_us.into()),
    ] {
        control_file::write(Path::new(DIRECTORY).join(file), value)?;
    }
    Ok(())
}

/// Holds no window open any more.
pub fn end() -> Result<()> {
    control_file::write(Path::new(DIRECTORY).join("max_us"), 0)
}

/// How often each window was held open since the module was loaded.
pub fn held() -> Result<Vec<u64>> {
    parse(&control_file::read_text(Path::new(DIRECTORY).join("held"))?)
}

fn parse(text: &str) -> Result<Vec<u64>> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().context("no number of delays"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found() {
        assert_eq!(parse("Held([0, 12, 3])\n").unwrap(), [0, 12, 3]);
    }
}
