// SPDX-License-Identifier: GPL-2.0

//! Regions that are merged with each other in the process that makes them.

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Run},
    pagemap, pattern,
    region::Region,
    wait,
};

/// Few, so that each allocation that unmerging makes is soon reached.
pub const PAGES: usize = 3;

/// Two equal regions.
pub struct Twins {
    pub left: Region,
    pub right: Region,
    pub content: Vec<u8>,
}

impl Twins {
    /// Before any scan.
    pub fn new(make: fn(&[u8]) -> Result<Region>) -> Result<Self> {
        let content = pattern::pages(1, PAGES);
        Ok(Self {
            left: make(&content)?,
            right: make(&content)?,
            content,
        })
    }

    /// As they are after scans.
    pub fn merged(make: fn(&[u8]) -> Result<Region>) -> Result<Self> {
        let twins = Self::new(make)?;
        twins.merge()?;
        Ok(twins)
    }

    /// Scans until they are merged.
    pub fn merge(&self) -> Result<()> {
        ksm::set_run(Run::Merge)?;
        wait::until("merged twins", || Ok(self.are_merged()?.then_some(())))?;
        ksm::set_run(Run::Stop)
    }

    fn are_merged(&self) -> Result<bool> {
        let (left, right) = (pagemap::frames(&self.left)?, pagemap::frames(&self.right)?);
        let is_ksm = left.iter().map(|frame| pagemap::is_ksm(*frame));
        Ok(left == right && is_ksm.collect::<Result<Vec<_>>>()?.iter().all(|is| *is))
    }

    pub fn verify(&self) -> Result<()> {
        self.left.verify(&self.content)?;
        self.right.verify(&self.content)
    }
}

/// Fails if any page of the region is KSM's.
pub fn ensure_unmerged(region: &Region) -> Result<()> {
    for frame in pagemap::frames(region)? {
        ensure!(!pagemap::is_ksm(frame)?, "frame {frame:#x} is KSM's");
    }
    Ok(())
}
