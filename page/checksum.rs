// SPDX-License-Identifier: GPL-2.0

//! The checksum by which pages are found.
//!
//! Its quality decides how rarely pages are compared in vain, never whether a merge is right. So it
//! may be simple: eight lanes, each of which multiplies two words at a time into 128 bits and folds
//! these. Keys that are drawn anew each time the module is loaded keep anybody from preparing pages
//! that share a checksum.

#![deny(unsafe_code)]

use crate::{
    kernel_api::prefetch::prefetch_for_later,
    page::content::{
        Content,
        Line,
        LINES,
        ZEROS, //
    }, //
};
use core::sync::atomic::Ordering;

/// Multiplications that do not wait for each other: a CPU has several under way at a time.
const LANES: usize = 8;

/// Lines that all lanes take one step over, two words each.
const LINES_IN_BLOCK: usize = 2 * LANES * size_of::<u64>() / size_of::<Line>();

const _: () = assert!(LINES % LINES_IN_BLOCK == 0);

/// No page has this checksum: it stands for one that is not known yet.
pub(crate) const UNKNOWN: u32 = 0;

/// Secrets that make checksums unpredictable.
pub(crate) struct Keys {
    start: [u64; LANES],
    key: [u64; LANES],
    /// The hash of a page of zeros.
    zeros: u32,
    /// Different for each domain, so that equal pages of different domains are in different places of a
    /// tree.
    salt: u32,
}

impl Keys {
    /// Keys that all depend on `seed`.
    pub(crate) fn new(mut seed: u64) -> Self {
        let mut next = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = fold(seed, seed.rotate_left(32) | 1);
            fold(mixed ^ seed, 0xbf58_476d_1ce4_e5b9)
        };
        let mut keys = Self {
            start: core::array::from_fn(|_| next()),
            key: core::array::from_fn(|_| next()),
            zeros: UNKNOWN,
            salt: 0,
        };
        keys.zeros = keys.hash(&ZEROS, &ZEROS);
        keys
    }

    /// Turns to pages of the domain with this number.
    pub(crate) fn enter_domain(&mut self, number: u64) {
        self.salt = self.salt_of(number);
    }

    /// The checksum in the domain `to` of a page that has `checksum` in the domain `from`.
    ///
    /// Of one page in 2^32 it is another one: that page is not found.
    pub(crate) fn translate(&self, checksum: u32, from: u64, to: u64) -> u32 {
        make_known(checksum ^ self.salt_of(from) ^ self.salt_of(to))
    }

    /// The common domain has no salt.
    fn salt_of(&self, number: u64) -> u32 {
        match number {
            0 => 0,
            number => (fold(number ^ self.start[0], self.key[0]) >> 32) as u32,
        }
    }

    /// Whether a page of zeros has this checksum.
    pub(crate) fn is_that_of_zeros(&self, checksum: u32) -> bool {
        checksum == make_known(self.zeros ^ self.salt)
    }

    /// The checksum of a page, which may be written meanwhile; then it is that of something. It is
    /// never [`UNKNOWN`].
    ///
    /// Has the CPU fetch the page `later` meanwhile: its own prefetcher ends with each page.
    #[inline]
    pub(crate) fn checksum(&self, page: &Content, later: &Content) -> u32 {
        make_known(self.hash(page, later) ^ self.salt)
    }

    #[inline]
    fn hash(&self, page: &Content, later: &Content) -> u32 {
        let mut lanes = self.start;
        for (block, ahead) in blocks(page).zip(blocks(later)) {
            for line in ahead {
                prefetch_for_later(line);
            }
            for (lane, pair) in block.as_flattened().chunks_exact(2).enumerate() {
                let first = pair[0].load(Ordering::Relaxed);
                let second = pair[1].load(Ordering::Relaxed);
                lanes[lane] = fold(first ^ self.key[lane], second ^ lanes[lane]);
            }
        }
        let sum = lanes
            .iter()
            .zip(self.key)
            .fold(self.start[0], |sum, (lane, key)| {
                fold(sum ^ key, lane ^ sum.rotate_left(29))
            });
        (fold(sum ^ self.key[0], sum | 1) >> 32) as u32
    }
}

/// The checksum that a hash becomes: any but [`UNKNOWN`].
#[inline(always)]
fn make_known(hash: u32) -> u32 {
    #[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
    let hash = crate::testing::checksum_bits::shorten(hash);
    match hash {
        UNKNOWN => 1,
        known => known,
    }
}

/// The parts of a page that all lanes take one step over.
#[inline]
fn blocks(page: &Content) -> impl Iterator<Item = &[Line]> {
    page.chunks_exact(LINES_IN_BLOCK)
}

/// Both halves of a product.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[kernel::macros::kunit_tests(ksm_rs_checksum)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU64;
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    const WORDS: usize = PAGE_SIZE / size_of::<u64>();

    struct Page(KVec<Line>);

    impl Page {
        fn new(word: impl Fn(usize) -> u64) -> Result<Self> {
            let mut lines = KVec::with_capacity(LINES, GFP_KERNEL)?;
            for line in 0..LINES {
                let words = WORDS / LINES;
                let line = core::array::from_fn(|place| AtomicU64::new(word(line * words + place)));
                lines.push(line, GFP_KERNEL)?;
            }
            Ok(Self(lines))
        }

        fn checksum(&self, keys: &Keys) -> u32 {
            self.0
                .as_slice()
                .try_into()
                .map_or(0, |content| keys.checksum(content, content))
        }

        fn flip(&self, bit: usize) {
            self.0.as_flattened()[bit / 64].fetch_xor(1 << (bit % 64), Ordering::Relaxed);
        }
    }

    /// How many of `sums` are there more than once.
    fn repeated(mut sums: KVec<u32>) -> usize {
        sums.sort_unstable();
        sums.windows(2).filter(|pair| pair[0] == pair[1]).count()
    }

    #[test]
    fn equal_pages_have_equal_checksums() -> Result {
        let keys = Keys::new(1);
        let one = Page::new(|index| index as u64 * 77)?;
        let two = Page::new(|index| index as u64 * 77)?;
        assert_eq!(one.checksum(&keys), two.checksum(&keys));
        assert!(one.checksum(&keys) != one.checksum(&Keys::new(2)));
        let zeros = Page::new(|_| 0)?;
        assert!(keys.is_that_of_zeros(zeros.checksum(&keys)));
        assert!(!keys.is_that_of_zeros(one.checksum(&keys)) && !keys.is_that_of_zeros(UNKNOWN));
        Ok(())
    }

    #[test]
    fn equal_pages_of_different_domains_have_different_checksums() -> Result {
        let (mut keys, mut sums) = (Keys::new(5), KVec::new());
        let page = Page::new(|index| index as u64 * 77)?;
        for domain in 0..4096 {
            keys.enter_domain(domain);
            sums.push(page.checksum(&keys), GFP_KERNEL)?;
            assert_eq!(keys.translate(sums[0], 0, domain), page.checksum(&keys));
            assert_eq!(keys.translate(page.checksum(&keys), domain, 0), sums[0]);
            assert!(keys.is_that_of_zeros(Page::new(|_| 0)?.checksum(&keys)));
        }
        // 4,096 random numbers of 32 bits have 0.002 pairs in common.
        assert!(repeated(sums) <= 1);
        Ok(())
    }

    #[test]
    fn no_page_has_an_unknown_checksum() {
        assert!([UNKNOWN, 1, u32::MAX].map(make_known) == [1, 1, u32::MAX]);
    }

    #[test]
    fn every_bit_counts() -> Result {
        let keys = Keys::new(3);
        for page in [Page::new(|_| 0)?, Page::new(|_| u64::MAX)?] {
            let mut sums = KVec::new();
            for bit in 0..PAGE_SIZE * 8 {
                page.flip(bit);
                sums.push(page.checksum(&keys), GFP_KERNEL)?;
                page.flip(bit);
            }
            // 32,768 random numbers of 32 bits have 0.1 pairs in common.
            assert!(repeated(sums) <= 3);
        }
        Ok(())
    }

    #[test]
    fn small_numbers_anywhere_spread_over_the_trees() -> Result {
        let keys = Keys::new(4);
        let mut per_tree = KVec::from_elem(0u32, 256, GFP_KERNEL)?;
        for number in 0..16384u64 {
            let page = Page::new(|index| match index {
                511 => number,
                _ => 0,
            })?;
            per_tree[(page.checksum(&keys) >> 24) as usize] += 1;
        }
        // 64 each are expected; the deviation is 8.
        assert!(per_tree.iter().all(|count| (16..112).contains(count)));
        Ok(())
    }
}
