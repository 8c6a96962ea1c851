// SPDX-License-Identifier: GPL-2.0

//! What any scan of unchanged memory must cost: to read all of it once.
//!
//! Pages are read in the order of their addresses, as by a scan, and once more in an order that a
//! CPU cannot guess, as if they lay scattered in memory.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Result;
use ksm_tests::region::Region;
use xxhash_rust::{xxh3::xxh3_64, xxh64::xxh64};

use crate::{
    fill,
    report::Measures,
    statistics::{median, nanoseconds_each},
    workload::Plan,
};

type Digest = fn(&[u8]) -> u64;

/// What is done with each page, and what the measures are called.
const DIGESTS: [(&str, &str, Digest); 3] = [
    ("read_ns_per_page", "scattered_read_ns_per_page", sum),
    ("xxh3_ns_per_page", "scattered_xxh3_ns_per_page", xxh3_64),
    ("xxh64_ns_per_page", "scattered_xxh64_ns_per_page", |page| {
        xxh64(page, 0)
    }),
];

pub fn reference(plan: &Plan) -> Result<Measures> {
    let mut memory = Region::new(plan.pages)?;
    fill::unique(memory.bytes_mut());
    let mut measures = Measures::default();
    for (name, scattered_name, digest) in DIGESTS {
        let mut measure = |name, order: fn(usize) -> Box<dyn Iterator<Item = usize>>| {
            let pass = |_| pass(&memory, order(plan.pages), digest);
            let times = (0..plan.scans).map(pass).collect();
            measures.add(name, nanoseconds_each(median(times), plan.pages));
        };
        measure(name, |pages| Box::new(0..pages));
        measure(scattered_name, |pages| Box::new(Shuffled::new(pages)));
    }
    Ok(measures)
}

/// The cheapest way to read all of a page.
fn sum(page: &[u8]) -> u64 {
    let words = page.chunks_exact(size_of::<u64>());
    words.fold(0, |sum, word| {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        sum.wrapping_add(word)
    })
}

/// Reads each page once.
fn pass(memory: &Region, order: impl Iterator<Item = usize>, digest: Digest) -> Duration {
    let begin = Instant::now();
    let mut sum = 0u64;
    for index in order {
        sum = sum.wrapping_add(digest(memory.page(index)));
    }
    black_box(sum);
    begin.elapsed()
}

/// The numbers below `count`, each once, in an order that jumps about.
struct Shuffled {
    count: usize,
    mask: usize,
    state: usize,
    left: usize,
}

impl Shuffled {
    fn new(count: usize) -> Self {
        Self {
            count,
            mask: count.next_power_of_two() - 1,
            state: 0,
            left: count,
        }
    }
}

impl Iterator for Shuffled {
    type Item = usize;

    /// A linear congruential generator that runs through all of a power of two.
    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        loop {
            let product = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d);
            self.state = product.wrapping_add(0x1405_7b7e_f767_814f) & self.mask;
            if self.state < self.count {
                return Some(self.state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ksm_tests::PAGE_SIZE;

    use super::*;

    #[test]
    fn every_page_is_read_once() {
        for count in [1, 2, 5, 64, 100] {
            let mut order: Vec<_> = Shuffled::new(count).collect();
            order.sort_unstable();
            assert!(order.into_iter().eq(0..count));
        }
    }

    #[test]
    fn every_byte_is_summed() {
        let mut page = [0; PAGE_SIZE];
        assert_eq!(sum(&page), 0);
        page[PAGE_SIZE - 8] = 1;
        assert_eq!(sum(&page), 1);
    }
}
