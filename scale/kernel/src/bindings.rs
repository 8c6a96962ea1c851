// SPDX-License-Identifier: GPL-2.0

//! The functions and constants of C that the sources use.

#![allow(non_camel_case_types, non_upper_case_globals)]

/// Flags of an allocation.
pub type gfp_t = u32;

/// May sleep, reclaim and kill.
pub const GFP_KERNEL: gfp_t = 0x1;
/// Takes memory that there is.
pub const GFP_NOWAIT: gfp_t = 0x2;
/// Zeroes the memory.
pub const __GFP_ZERO: gfp_t = 0x4;
/// Says nothing of a failure.
pub const __GFP_NOWARN: gfp_t = 0x8;
/// Gives up after a little reclaim.
pub const __GFP_NORETRY: gfp_t = 0x10;
/// NUMA nodes that a kernel may be configured for.
pub const MAX_NUMNODES: u32 = 1024;

/// A page, or zero.
///
/// # Safety
///
/// None is needed; it is that of C.
pub unsafe fn __get_free_page(flags: gfp_t) -> usize {
    crate::pages::get(flags & __GFP_ZERO != 0)
}

/// Gives a page back.
///
/// # Safety
///
/// `address` must be a page of [`__get_free_page`] that nobody uses any more, `order` 0.
pub unsafe fn free_pages(address: usize, order: u32) {
    assert_eq!(order, 0);
    // SAFETY: The caller vouches for it.
    unsafe { crate::pages::put(address) };
}
