// SPDX-License-Identifier: GPL-2.0

//! How the module allocates memory, by what it is for.
//!
//! `ksmd` can do without any allocation until the next scan, so none of its own may wake the OOM killer,
//! and those that it makes under locks of others do not reclaim either. Callers of `madvise`, `prctl`
//! and of the files in sysfs allocate by `GFP_KERNEL`, and are told if that fails.

#![deny(unsafe_code)]

use kernel::alloc::{
    flags::*,
    Flags, //
};

/// For the records of a page, which `ksmd` makes while it holds the scan mutex only: it may reclaim a
/// little. Without memory the page is left out of the scan, and counted as untracked.
#[inline]
pub(crate) fn for_item() -> Flags {
    GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN
}

/// For what a merge needs, under a mmap lock and the locks of folios: memory that is at hand. Without
/// it the pages wait for the next scan.
#[inline]
pub(crate) fn for_merge() -> Flags {
    GFP_NOWAIT | __GFP_NOWARN
}

/// For the growth of what works without it, only slower: memory that is at hand.
#[inline]
pub(crate) fn for_growth() -> Flags {
    GFP_NOWAIT | __GFP_NOWARN
}
