// SPDX-License-Identifier: GPL-2.0

//! Checksums of pages that do not exist.

/// The checksum of page number `page` if it has nothing in common with others.
pub(crate) fn checksum(page: u32) -> u32 {
    let mixed = (u64::from(page) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let product = u128::from(mixed) * u128::from(mixed.rotate_left(32) | 1);
    (product as u64 ^ (product >> 64) as u64) as u32
}
