// SPDX-License-Identifier: GPL-2.0

//! The memory that merging would save: pages of processes, by their contents.

pub mod collect;
mod contents;
mod cost;
pub mod report;

/// One page that KSM could merge, in 16 bytes, as a host can have 2²⁸ of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// A hash of its content.
    pub content: u64,
    /// The lower bits of the number of its frame, which tell frames of one content apart; a number of its own
    /// where the kernel does not tell.
    pub frame: u32,
    /// The place of its process in the list of all; the highest bit says that it is part of a huge page.
    process: u32,
}

const HUGE: u32 = 1 << 31;

impl Seen {
    /// A page of the process in place `process`.
    pub fn new(content: u64, frame: u32, process: usize, is_huge: bool) -> Self {
        let flag = if is_huge { HUGE } else { 0 };
        Self {
            content,
            frame,
            process: process as u32 | flag,
        }
    }

    /// The place of its process in the list of all.
    pub fn process(self) -> usize {
        (self.process & !HUGE) as usize
    }

    /// Whether it is part of a huge page.
    pub fn is_huge(self) -> bool {
        self.process & HUGE != 0
    }
}
