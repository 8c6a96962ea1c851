// SPDX-License-Identifier: GPL-2.0

//! Seeds that nobody has chosen, so that each run tries something new.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Another number each time, short enough to be typed again.
pub fn new() -> u64 {
    // The standard library has no other source of random numbers: its hash tables draw their keys.
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ() {
        // That ten are equal by chance does not happen.
        let first = new();
        assert!((0..10).any(|_| new() != first));
        assert!(first <= u64::from(u32::MAX));
    }
}
