// SPDX-License-Identifier: GPL-2.0

//! Which frame holds a page, and what the kernel says about it.

use std::{collections::BTreeSet, fs::File, ops::Range, os::unix::fs::FileExt, path::Path};

use anyhow::{bail, Context, Result};

use crate::{procfs, region::Region, PAGE_SIZE};

/// Bytes of an entry of these files.
const ENTRY_SIZE: usize = 8;

/// Bits of an entry of `/proc/PID/pagemap`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const SOFT_DIRTY: u64 = 1 << 55;
const UFFD_WP: u64 = 1 << 57;
const EXCLUSIVE: u64 = 1 << 56;
const FILE: u64 = 1 << 61;
const FRAME_MASK: u64 = (1 << 55) - 1;

/// Where an entry that is swapped out has the number of the device, below that of the slot.
const SWAP_DEVICE_BITS: u32 = 5;

/// Bit of an entry of `/proc/kpageflags`.
const KPF_KSM: u64 = 1 << 21;

fn read_entry(path: &Path, index: usize) -> Result<u64> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut entry = [0; ENTRY_SIZE];
    file.read_exact_at(&mut entry, (index * ENTRY_SIZE) as u64)
        .with_context(|| format!("cannot read entry {index} of {}", path.display()))?;
    Ok(u64::from_ne_bytes(entry))
}

/// The frame number in a pagemap entry.
fn frame_of_entry(entry: u64) -> Result<u64> {
    let frame = entry & FRAME_MASK;
    if entry & PRESENT == 0 || frame == 0 {
        bail!("no frame in pagemap entry {entry:#x}: page not present, or not root");
    }
    Ok(frame)
}

/// The entry of one page of a region of this process.
///
/// Asks for the calling thread, as `self` is the first thread, which may have exited.
fn own_entry(region: &Region, index: usize) -> Result<u64> {
    let path = Path::new("/proc/thread-self/pagemap");
    read_entry(path, region.page_address(index) / PAGE_SIZE)
}

/// The entry of each page of a region of this process.
fn entries(region: &Region) -> Result<Vec<u64>> {
    (0..region.pages())
        .map(|index| own_entry(region, index))
        .collect()
}

/// Which pages were written to since [`clear_soft_dirty`].
pub fn soft_dirty(region: &Region) -> Result<Vec<bool>> {
    let entries = entries(region)?;
    Ok(entries
        .into_iter()
        .map(|entry| entry & SOFT_DIRTY != 0)
        .collect())
}

/// Forgets which pages of this process were written to.
pub fn clear_soft_dirty() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "4\n").context("clear_refs")
}

/// Which pages userfaultfd protects from writes.
pub fn write_protected(region: &Region) -> Result<Vec<bool>> {
    let entries = entries(region)?;
    Ok(entries
        .into_iter()
        .map(|entry| entry & UFFD_WP != 0)
        .collect())
}

/// Whether one page of a region of this process is mapped nowhere else; takes no privileges.
pub fn is_exclusive(region: &Region, index: usize) -> Result<bool> {
    Ok(own_entry(region, index)? & EXCLUSIVE != 0)
}

/// The frame behind one page of a region of this process.
pub fn frame(region: &Region, index: usize) -> Result<u64> {
    frame_of_entry(own_entry(region, index)?)
}

/// The frame behind each page of a region of this process.
pub fn frames(region: &Region) -> Result<Vec<u64>> {
    let entries = entries(region)?.into_iter().enumerate();
    entries
        .map(|(index, entry)| frame_of_entry(entry).with_context(|| format!("page {index}")))
        .collect()
}

/// The slot of a pagemap entry, if it is swapped out.
fn slot_of_entry(entry: u64) -> Option<u64> {
    (entry & SWAPPED != 0).then_some((entry & FRAME_MASK) >> SWAP_DEVICE_BITS)
}

/// The entry of each page of a range of a process's memory.
fn entries_of(process: u32, range: &Range<usize>) -> Result<impl Iterator<Item = u64>> {
    let path = format!("/proc/{process}/pagemap");
    let mut entries = vec![0; range.len() / PAGE_SIZE * ENTRY_SIZE];
    File::open(&path)
        .and_then(|file| {
            let at = range.start / PAGE_SIZE * ENTRY_SIZE;
            file.read_exact_at(&mut entries, at as u64)
        })
        .with_context(|| format!("cannot read {path}"))?;
    Ok(entries_in(entries))
}

/// The entries that are in these bytes.
fn entries_in(bytes: Vec<u8>) -> impl Iterator<Item = u64> {
    let count = bytes.len() / ENTRY_SIZE;
    (0..count).map(move |index| {
        let mut entry = [0; ENTRY_SIZE];
        entry.copy_from_slice(&bytes[index * ENTRY_SIZE..][..ENTRY_SIZE]);
        u64::from_ne_bytes(entry)
    })
}

/// The frame behind each page of a range of a process's memory, if there is one.
pub fn frames_of(process: u32, range: &Range<usize>) -> Result<Vec<Option<u64>>> {
    let entries = entries_of(process, range)?;
    Ok(entries.map(|entry| frame_of_entry(entry).ok()).collect())
}

/// The swap slot of each page of a range of a process's memory, if it is swapped out.
pub fn swap_slots_of(process: u32, range: &Range<usize>) -> Result<Vec<Option<u64>>> {
    Ok(entries_of(process, range)?.map(slot_of_entry).collect())
}

/// True if the kernel flags the frame as one that KSM shares.
pub fn is_ksm(frame: u64) -> Result<bool> {
    let flags = read_entry(Path::new("/proc/kpageflags"), frame as usize)?;
    Ok(flags & KPF_KSM != 0)
}

/// How often the frame is mapped.
pub fn mappings(frame: u64) -> Result<u64> {
    read_entry(Path::new("/proc/kpagecount"), frame as usize)
}

/// The frames that KSM shares, and that somebody has mapped.
pub fn ksm_frames() -> Result<BTreeSet<u64>> {
    let [flags, counts] = ["/proc/kpageflags", "/proc/kpagecount"].map(std::fs::read);
    let entries = entries_in(flags?).zip(entries_in(counts?));
    let frames = (0..).zip(entries);
    let shared = frames.filter(|(_, (flags, count))| flags & KPF_KSM != 0 && *count > 0);
    Ok(shared.map(|(frame, _)| frame).collect())
}

/// The frames of all of a process's private anonymous memory.
pub fn anonymous_frames_of(process: u32) -> Result<BTreeSet<u64>> {
    let mut frames = BTreeSet::new();
    for range in procfs::mapped_ranges(process)? {
        let entries = entries_of(process, &range)?;
        let anonymous = entries.filter(|entry| entry & FILE == 0);
        frames.extend(anonymous.filter_map(|entry| frame_of_entry(entry).ok()));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_decoded() {
        assert_eq!(frame_of_entry(PRESENT | 0x1234).unwrap(), 0x1234);
        assert!(frame_of_entry(0x1234).is_err());
        assert!(frame_of_entry(PRESENT).is_err());
        assert_eq!(slot_of_entry(SWAPPED | 0x1234 << 5 | 3), Some(0x1234));
        assert_eq!(slot_of_entry(PRESENT | 0x1234), None);
    }
}
