// SPDX-License-Identifier: GPL-2.0

//! Pages of processes: which memory KSM could merge, and the frames behind it.

pub mod frames;
pub mod mapping;

use std::ops::Range;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes of an entry in the kernel's files of pages and of frames.
const ENTRY_SIZE: u64 = size_of::<u64>() as u64;

/// The addresses in parts of so many pages.
pub fn chunks(addresses: &Range<u64>, pages: u64) -> impl Iterator<Item = Range<u64>> {
    let (size, end) = (pages * PAGE_SIZE, addresses.end);
    let starts = addresses.clone().step_by(size as usize);
    starts.map(move |start| start..end.min(start + size))
}

/// The entries in the bytes of such a file.
fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let chunks = bytes.chunks_exact(ENTRY_SIZE as usize);
    chunks.map(|entry| entry.try_into().map_or(0, u64::from_ne_bytes))
}
