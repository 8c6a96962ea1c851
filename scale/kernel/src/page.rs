// SPDX-License-Identifier: GPL-2.0

//! The size of a page.

/// Bits of an address that lead to a byte of its page.
pub const PAGE_SHIFT: usize = 12;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
