// SPDX-License-Identifier: GPL-2.0

//! What a workload is, and how large it is to be.

use anyhow::{ensure, Result};
use ksm_tests::{procfs, region::Region};

use crate::report::Measures;

/// One thing to be measured.
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    pub run: fn(&Plan) -> Result<Measures>,
}

impl Workload {
    pub const fn new(
        name: &'static str,
        what: &'static str,
        run: fn(&Plan) -> Result<Measures>,
    ) -> Self {
        Self { name, what, run }
    }
}

/// How much to do.
pub struct Plan {
    /// Pages to be offered to KSM, in all.
    pub pages: usize,
    /// How often a scan is repeated.
    pub scans: usize,
    /// How often that is repeated which happens once, such as merging.
    pub rounds: usize,
    /// What kind of pages there are in the memory.
    pub memory: Memory,
}

impl Plan {
    /// The same with huge pages.
    pub fn in_huge_pages(&self) -> Self {
        Self {
            memory: Memory::HugePages,
            ..*self
        }
    }
}

/// What kind of pages memory consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    SmallPages,
    HugePages,
}

impl Memory {
    /// A region of such pages, filled by `fill`.
    pub fn region(self, pages: usize, fill: impl FnOnce(&mut [u8])) -> Result<Region> {
        let mut region = match self {
            Self::SmallPages => Region::new(pages)?,
            Self::HugePages => Region::for_huge_pages(pages)?,
        };
        fill(region.bytes_mut());
        let huge = procfs::smaps_kib(&region, "AnonHugePages")?;
        ensure!(
            self == Self::SmallPages || huge as usize * 1024 == region.len(),
            "only {huge} kB are in huge pages"
        );
        Ok(region)
    }
}
