// SPDX-License-Identifier: GPL-2.0

//! The kernel's flags of frames.

use std::{fs::File, ops::Range, os::unix::fs::FileExt};

use anyhow::{Context, Result};

use super::{entries, ENTRY_SIZE};

/// Frames that are looked at together.
const WINDOW: u64 = 512;

/// The flags of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags(u64);

impl Flags {
    /// Whether KSM shares the frame.
    pub fn is_ksm(self) -> bool {
        self.0 & 1 << 21 != 0
    }

    /// Whether the frame is part of a transparent huge page.
    pub fn is_huge(self) -> bool {
        self.0 & 1 << 22 != 0
    }

    /// Whether the frame is the kernel's page of zeros.
    pub fn is_zero_page(self) -> bool {
        self.0 & 1 << 24 != 0
    }
}

/// The flags of all frames; some hundred are read at a time.
pub struct FrameFlags {
    file: File,
    window: Range<u64>,
    flags: Vec<u64>,
    buffer: Vec<u8>,
}

impl FrameFlags {
    /// Opens the flags, which only root may do.
    pub fn open() -> Result<Self> {
        Ok(Self {
            file: File::open("/proc/kpageflags")
                .context("cannot open /proc/kpageflags (are you root?)")?,
            window: 0..0,
            flags: Vec::new(),
            buffer: vec![0; (WINDOW * ENTRY_SIZE) as usize],
        })
    }

    /// The flags of a frame; none if the kernel does not know it.
    pub fn of(&mut self, frame: u64) -> Flags {
        if !self.window.contains(&frame) {
            self.fetch(frame);
        }
        let index = (frame - self.window.start) as usize;
        self.flags
            .get(index)
            .map_or(Flags(0), |flags| Flags(*flags))
    }

    fn fetch(&mut self, frame: u64) {
        let start = frame - frame % WINDOW;
        self.window = start..start + WINDOW;
        let read = self
            .file
            .read_at(&mut self.buffer, start * ENTRY_SIZE)
            .unwrap_or(0);
        self.flags.clear();
        self.flags.extend(entries(&self.buffer[..read]));
    }
}
