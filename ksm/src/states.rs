// SPDX-License-Identifier: GPL-2.0

//! The state of each page of a process, as far as page tables and frames tell.

use anyhow::Result;
use serde::Serialize;

use crate::pages::{
    chunks,
    frames::{Flags, FrameFlags},
    mapping::{mappings, Mapping, Page, PageMap},
};

/// Pages that are looked at together.
const CHUNK: u64 = 4096;

/// Numbers of pages of 4 KiB; each page of the process is in one of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct States {
    /// KSM shares them.
    pub merged: u64,
    /// Pages of zeros that are the kernel's zero page, by KSM or because nobody has written to them.
    pub zero_page: u64,
    /// KSM may merge them, and has not: they have no equal, change, are in use, or were skipped.
    pub not_merged: u64,
    /// As `not_merged`, in huge pages.
    pub not_merged_huge: u64,
    /// The process has not advised KSM to merge them.
    pub not_advised: u64,
    /// Pages of files, of shared memory and of devices, which KSM never merges.
    pub never: u64,
    /// In swap.
    pub swapped: u64,
}

/// Looks at all pages of a process.
///
/// # Errors
///
/// The process has ended; only root may see frames.
pub fn states(pid: i32) -> Result<States> {
    let mut flags = FrameFlags::open()?;
    let mut map = PageMap::open(pid)?;
    let mut states = States::default();
    for mapping in mappings(pid)? {
        for chunk in chunks(&mapping.addresses, CHUNK) {
            for (_, page) in map.read(&chunk)? {
                let flags = page
                    .frame()
                    .map(|frame| flags.of(frame))
                    .unwrap_or_default();
                states.count(&mapping, page, flags);
            }
        }
    }
    Ok(states)
}

impl States {
    /// All pages that are present or swapped out.
    pub fn sum(&self) -> u64 {
        let mapped = self.merged + self.zero_page + self.not_merged + self.not_merged_huge;
        mapped + self.not_advised + self.never + self.swapped
    }

    fn count(&mut self, mapping: &Mapping, page: Page, flags: Flags) {
        let state = match () {
            _ if page.is_swapped() => &mut self.swapped,
            _ if !page.is_present() => return,
            _ if flags.is_zero_page() => &mut self.zero_page,
            _ if flags.is_ksm() => &mut self.merged,
            _ if page.is_of_file() || !mapping.is_private => &mut self.never,
            _ if !mapping.is_advised => &mut self.not_advised,
            _ if flags.is_huge() => &mut self.not_merged_huge,
            _ => &mut self.not_merged,
        };
        *state += 1;
    }
}
