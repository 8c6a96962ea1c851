// SPDX-License-Identifier: GPL-2.0

//! The mappings of a process, and the pages in them.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use anyhow::{anyhow, Context, Result};
use procfs::{
    process::{MemoryMap, Process, VmFlags},
    ProcError,
};

use super::{entries, ENTRY_SIZE, PAGE_SIZE};

/// A range of addresses that the process may have pages of its own in.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Its addresses, in bytes.
    pub addresses: Range<u64>,
    /// Whether the process has advised KSM to merge it.
    pub is_advised: bool,
    /// Whether KSM could merge it with advice: it is neither shared nor a device's.
    pub is_private: bool,
}

/// The mappings of a process, in the order of their addresses.
///
/// # Errors
///
/// The process has ended, or only root may look.
pub fn mappings(pid: i32) -> Result<Vec<Mapping>> {
    let maps = Process::new(pid).and_then(|process| process.smaps());
    let maps = maps.map_err(|error| match error {
        ProcError::PermissionDenied(_) => {
            anyhow!("cannot read the memory of process {pid} (are you root?)")
        }
        error => anyhow::Error::new(error).context(format!("cannot read /proc/{pid}/smaps")),
    })?;
    Ok(maps.iter().map(mapping).collect())
}

fn mapping(map: &MemoryMap) -> Mapping {
    let never = VmFlags::SH
        | VmFlags::MS
        | VmFlags::PF
        | VmFlags::IO
        | VmFlags::DE
        | VmFlags::MM
        | VmFlags::HT;
    let flags = map.extension.vm_flags;
    Mapping {
        addresses: map.address.0..map.address.1,
        is_advised: flags.contains(VmFlags::MG),
        is_private: !flags.intersects(never),
    }
}

/// The kernel's entry for a page of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page(u64);

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;
const FRAME: u64 = (1 << 55) - 1;

impl Page {
    /// Whether the process can reach the page without a fault that reads it from somewhere.
    pub fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether the page is in swap.
    pub fn is_swapped(self) -> bool {
        self.0 & SWAPPED != 0
    }

    /// Whether the page is one of a file, or of shared memory.
    pub fn is_of_file(self) -> bool {
        self.0 & OF_FILE != 0
    }

    /// The number of its frame; `None` if it has none, or if only root may know it.
    pub fn frame(self) -> Option<u64> {
        Some(self.0 & FRAME).filter(|frame| self.is_present() && *frame != 0)
    }
}

/// The pages of a process.
pub struct PageMap {
    file: File,
    buffer: Vec<u8>,
}

impl PageMap {
    /// Opens the page map of a process.
    pub fn open(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/pagemap");
        Ok(Self {
            file: File::open(&path).with_context(|| format!("cannot open {path}"))?,
            buffer: Vec::new(),
        })
    }

    /// The pages of these addresses; none if the process has ended.
    pub fn read(
        &mut self,
        addresses: &Range<u64>,
    ) -> io::Result<impl Iterator<Item = (u64, Page)> + '_> {
        let count = (addresses.end - addresses.start) / PAGE_SIZE;
        self.buffer.resize((count * ENTRY_SIZE) as usize, 0);
        let read = self
            .file
            .read_at(&mut self.buffer, addresses.start / PAGE_SIZE * ENTRY_SIZE)?;
        let pages = (addresses.start..).step_by(PAGE_SIZE as usize);
        Ok(pages.zip(entries(&self.buffer[..read]).map(Page)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_decoded() {
        let page = Page(PRESENT | 0x1234);
        assert!(page.is_present() && !page.is_swapped() && !page.is_of_file());
        assert_eq!(page.frame(), Some(0x1234));
        assert_eq!(Page(PRESENT).frame(), None);
        assert_eq!(Page(SWAPPED | 0x1234).frame(), None);
        assert!(Page(PRESENT | OF_FILE).is_of_file());
    }

    #[test]
    fn own_memory_is_found() {
        let memory = vec![1u8; 1 << 20];
        let at = memory.as_ptr() as u64;
        let pid = std::process::id() as i32;
        let found = mappings(pid).unwrap();
        let mapping = found
            .iter()
            .find(|mapping| mapping.addresses.contains(&at))
            .unwrap();
        assert!(mapping.is_private && !mapping.is_advised);
        let start = at.next_multiple_of(PAGE_SIZE);
        let mut map = PageMap::open(pid).unwrap();
        let pages: Vec<_> = map
            .read(&(start..start + 16 * PAGE_SIZE))
            .unwrap()
            .collect();
        assert_eq!(pages.len(), 16);
        assert!(pages
            .iter()
            .all(|(_, page)| page.is_present() && !page.is_of_file()));
        assert_eq!(pages[3].0, start + 3 * PAGE_SIZE);
    }
}
