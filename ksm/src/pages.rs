// SPDX-License-Identifier: GPL-2.0

//! Pages of processes: which memory KSM could merge, and the frames behind it.

pub mod frames;
pub mod mapping;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes of an entry in the kernel's files of pages and of frames.
const ENTRY_SIZE: u64 = 8;

/// The entries in the bytes of such a file.
fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (chunks, _) = bytes.as_chunks();
    chunks.iter().map(|entry| u64::from_ne_bytes(*entry))
}
