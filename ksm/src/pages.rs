// SPDX-License-Identifier: GPL-2.0

//! Pages of processes: which memory KSM could merge, and the frames behind it.

pub mod frames;
pub mod mapping;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes of an entry in the kernel's files of pages and of frames.
const ENTRY_SIZE: u64 = size_of::<u64>() as u64;

/// The entries in the bytes of such a file.
fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let chunks = bytes.chunks_exact(ENTRY_SIZE as usize);
    chunks.map(|entry| entry.try_into().map_or(0, u64::from_ne_bytes))
}
