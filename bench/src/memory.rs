// SPDX-License-Identifier: GPL-2.0

//! The VM's memory, before anything is measured.

use anyhow::Result;
use ksm_tests::{procfs, region::Region, PAGE_SIZE};

/// Of the free memory, what is left alone, so that nothing else has to go.
const LEFT_ALONE: u64 = 10;

/// Writes to nearly all free memory once.
///
/// The host of User Mode Linux gives it a page when it first writes there, which takes longer than
/// most of what is to be measured.
pub fn touch_all() -> Result<()> {
    let free = procfs::free_pages()?;
    let mut region = Region::new((free - free / LEFT_ALONE) as usize)?;
    for page in region.bytes_mut().chunks_exact_mut(PAGE_SIZE) {
        page[0] = std::hint::black_box(1);
    }
    Ok(())
}
