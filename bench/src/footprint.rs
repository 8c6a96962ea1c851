// SPDX-License-Identifier: GPL-2.0

//! How much memory KSM takes for itself.

use anyhow::Result;
use ksm_tests::{ksm, module, procfs, PAGE_SIZE};

use crate::report::Measures;

/// The free memory at a moment when KSM knows nothing.
pub struct Footprint {
    free_before: u64,
}

impl Footprint {
    /// The memory to be offered must be in place, and nobody else may allocate from now on.
    pub fn begin() -> Result<Self> {
        // Asking takes a little memory when it is done for the first time.
        procfs::free_pages()?;
        saved_pages()?;
        Ok(Self {
            free_before: procfs::free_pages()?,
        })
    }

    /// Adds what KSM has taken for each page, and all that it takes, the module included.
    pub fn add_to(&self, measures: &mut Measures, pages: usize) -> Result<()> {
        let bytes = self.bytes()?;
        let module = module::size()?.unwrap_or_default() as f64;
        measures.add("metadata_bytes_per_page", bytes / pages as f64);
        measures.add("memory_kib", (bytes + module) / 1024.0);
        Ok(())
    }

    /// Bytes that KSM has taken since.
    fn bytes(&self) -> Result<f64> {
        let free = procfs::free_pages()?;
        let taken = self.free_before as f64 - free as f64 + saved_pages()? as f64;
        Ok(taken * PAGE_SIZE as f64)
    }
}

/// Pages that merging has made free.
pub fn saved_pages() -> Result<u64> {
    Ok(ksm::counters()?.sharing + ksm::read::<u64>("ksm_zero_pages")?)
}
