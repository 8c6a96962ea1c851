// SPDX-License-Identifier: GPL-2.0

//! Page contents that can be made again from a seed.

use rand_chacha::{
    rand_core::{Rng, SeedableRng},
    ChaCha8Rng,
};

use crate::PAGE_SIZE;

/// The random page number `index` of the series `seed`. No two differ in fewer than many bytes.
pub fn page(seed: u64, index: usize) -> [u8; PAGE_SIZE] {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index as u64);
    let mut bytes = [0; PAGE_SIZE];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// `count` pages of the series `seed`, one after the other.
pub fn pages(seed: u64, count: usize) -> Vec<u8> {
    (0..count).flat_map(|index| page(seed, index)).collect()
}

/// Where two pieces of memory differ first, for a message.
pub fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    if left.len() != right.len() {
        return Some(left.len().min(right.len()));
    }
    left.iter().zip(right).position(|(l, r)| l != r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_reproducible_and_distinct() {
        assert_eq!(page(1, 2), page(1, 2));
        assert_ne!(page(1, 2), page(1, 3));
        assert_ne!(page(1, 2), page(2, 2));
        assert_eq!(pages(7, 3)[PAGE_SIZE..2 * PAGE_SIZE], page(7, 1));
    }

    #[test]
    fn differences_are_found() {
        assert_eq!(first_difference(b"abc", b"abc"), None);
        assert_eq!(first_difference(b"abc", b"abd"), Some(2));
        assert_eq!(first_difference(b"abc", b"ab"), Some(2));
    }
}
