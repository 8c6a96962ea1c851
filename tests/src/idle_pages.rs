// SPDX-License-Identifier: GPL-2.0

//! Idle page tracking: which frames nobody has touched since they were marked.

use std::{fs::File, os::unix::fs::FileExt};

use anyhow::{Context, Result};

/// A bit for each frame, in words of 64.
pub const FILE: &str = "/sys/kernel/mm/page_idle/bitmap";

const WORD: u64 = 8;

/// Marks frames as idle.
pub fn mark(frames: &[u64]) -> Result<()> {
    let file = File::options().write(true).open(FILE).context(FILE)?;
    for frame in frames {
        let bit = 1u64 << (frame % 64);
        file.write_all_at(&bit.to_ne_bytes(), frame / 64 * WORD)
            .context(FILE)?;
    }
    Ok(())
}

/// Which of these frames nobody has touched since.
pub fn are_idle(frames: &[u64]) -> Result<Vec<bool>> {
    let file = File::open(FILE).context(FILE)?;
    let mut are_idle = Vec::new();
    for frame in frames {
        let mut word = [0; WORD as usize];
        file.read_exact_at(&mut word, frame / 64 * WORD)
            .context(FILE)?;
        are_idle.push(u64::from_ne_bytes(word) >> (frame % 64) & 1 == 1);
    }
    Ok(are_idle)
}
