// SPDX-License-Identifier: GPL-2.0

//! Repeatable random numbers for the KUnit suites.

#![deny(unsafe_code)]

/// A xorshift generator: the same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    /// `seed` must not be zero.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
