// SPDX-License-Identifier: GPL-2.0

//! What hypervisors hold in the memory that they offer to KSM: page by page, whatever KSM's
//! counters say.

use std::{collections::HashSet, fs::File, ops::Range, os::unix::fs::FileExt};

use anyhow::{Context, Result};
use blake3::Hash;
use ksm_tests::{pagemap, procfs, PAGE_SIZE};

struct Page {
    content: Hash,
    frame: u64,
}

/// Pages of some processes, as they were at about one moment.
pub struct Survey {
    pages: Vec<Page>,
}

impl Survey {
    /// Looks at all pages that these processes offer to KSM and that are in memory.
    pub fn of(processes: &[u32]) -> Result<Self> {
        let mut pages = Vec::new();
        for &process in processes {
            let memory = File::open(format!("/proc/{process}/mem")).context("memory")?;
            for range in procfs::mergeable_ranges(process)? {
                collect(process, &memory, &range, &mut pages)?;
            }
        }
        Ok(Self { pages })
    }

    /// Those pages alone that have one of these contents.
    pub fn with_contents(self, contents: &HashSet<Hash>) -> Self {
        let pages = self.pages.into_iter();
        Self {
            pages: pages
                .filter(|page| contents.contains(&page.content))
                .collect(),
        }
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Pages that would not be needed if each content were kept once.
    pub fn duplicates(&self) -> u64 {
        let contents: HashSet<_> = self.pages.iter().map(|page| page.content).collect();
        self.pages() - contents.len() as u64
    }

    /// Pages that have no frame of their own.
    pub fn saved(&self) -> u64 {
        let frames: HashSet<_> = self.pages.iter().map(|page| page.frame).collect();
        self.pages() - frames.len() as u64
    }
}

fn collect(process: u32, memory: &File, range: &Range<usize>, pages: &mut Vec<Page>) -> Result<()> {
    let addresses = range.clone().step_by(PAGE_SIZE);
    let frames = pagemap::frames_of(process, range)?;
    for (address, frame) in addresses.zip(frames) {
        let Some(frame) = frame else { continue };
        let mut bytes = [0; PAGE_SIZE];
        memory
            .read_exact_at(&mut bytes, address as u64)
            .with_context(|| format!("cannot read the memory of process {process}"))?;
        let content = blake3::hash(&bytes);
        pages.push(Page { content, frame });
    }
    Ok(())
}
