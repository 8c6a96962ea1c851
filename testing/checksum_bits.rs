// SPDX-License-Identifier: GPL-2.0

//! Checksums of fewer bits than they have, so that different pages share one: with 32 bits a test
//! would wait for that for long.
//!
//! The file `checksum_bits`, beside those of `delays.rs` in the directory `ksm_rs` of debugfs, says
//! how many bits count (32). It is to be written before anything is scanned: a page that is in a tree
//! already is not found by a checksum of another length.

#![deny(unsafe_code)]

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// See the [module's description](self).
pub(crate) static CHECKSUM_BITS: Atomic<u32> = Atomic::new(u32::BITS);

/// The top bits of `hash`, as many as count.
pub(crate) fn shorten(hash: u32) -> u32 {
    let dropped = u32::BITS.saturating_sub(CHECKSUM_BITS.load(Relaxed));
    hash & u32::MAX.checked_shl(dropped).unwrap_or(0)
}
